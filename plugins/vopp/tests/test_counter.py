"""The counter-based random numbers."""

import numpy as np
import pytest

from sfumato_vopp.counter import CounterDraws, episode_keys

numba = pytest.importorskip("numba", reason="compiled draws need numba")


def test_compiled_and_array_draws_are_the_same_bits() -> None:
    from sfumato_vopp import counter_numba as c

    @numba.njit
    def draw(seed, episode, count):  # type: ignore[no-untyped-def]
        stream = np.empty(1, np.uint64)
        stream[0] = c.episode_key(seed, episode)
        return np.array([c.uniform(stream) for _ in range(count)])

    keys = episode_keys(12345, 7, 4)
    draws = CounterDraws(keys)
    expected = np.array([draws.random() for _ in range(5)])
    for i in range(4):
        np.testing.assert_array_equal(draw(np.uint64(12345), 7 + i, 5), expected[:, i])


def test_draws_are_uniform_and_uncorrelated_between_neighbouring_episodes() -> None:
    u = CounterDraws(episode_keys(1, 0, 200_000)).random()
    counts = np.bincount((u * 64).astype(int), minlength=64)
    chi2 = np.sum((counts - len(u) / 64) ** 2 / (len(u) / 64))
    assert 30 < chi2 < 110  # 63 degrees of freedom: mean 63, standard deviation 11
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 0.01


def test_normal_draws_have_unit_variance() -> None:
    z = CounterDraws(episode_keys(2, 0, 100_000)).standard_normal()
    assert abs(z.mean()) < 0.015 and abs(z.std() - 1) < 0.01


def test_a_model_that_draws_too_much_is_told() -> None:
    draws = CounterDraws(episode_keys(0, 0, 3), 0, 2)
    draws.random(), draws.random()
    with pytest.raises(ValueError, match="drew more than"):
        draws.random()
