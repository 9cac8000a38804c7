"""MARS on tensors against the compiled one, on the same draws."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is an extra")
pytest.importorskip("numba", reason="the other side of the comparison is compiled")
from sfumato_vopp.counter import CounterDraws, episode_keys  # noqa: E402
from sfumato_vopp.models.mars import Mars  # noqa: E402
from sfumato_vopp.models.mars_torch import TorchMars  # noqa: E402
from sfumato_vopp.ops_torch import TorchDraws  # noqa: E402

pytestmark = pytest.mark.optional


@pytest.mark.parametrize(("n", "m"), [(4, 3), (7, 8), (20, 50)])
def test_tensors_step_and_guess_as_the_compiled_model_does(n: int, m: int, rng) -> None:  # type: ignore[no-untyped-def]
    compiled, tensors = Mars(n, m), TorchMars(n, m)
    states, ended = compiled.initial(2000, rng), 0
    for _ in range(40):
        # Moves and samples more often than they are drawn uniformly: sensing alone would lead nowhere.
        parts = [np.where(rng.random(2000) < 0.7, rng.integers(0, 5, 2000), rng.integers(0, 5 + m, 2000)) for _ in range(2)]
        actions, keys = parts[0] * (5 + m) + parts[1], episode_keys(int(rng.integers(2**62)), 0, 2000)
        ours = tensors.step(torch.as_tensor(states), torch.as_tensor(actions), TorchDraws(torch.as_tensor(keys.view(np.int64))))
        theirs = compiled.step(states, actions, CounterDraws(keys))
        for mine, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(mine.numpy(), other)
        np.testing.assert_allclose(
            tensors.value_hint(ours.states, torch.as_tensor(actions)).numpy(), compiled.value_hint(theirs.states, actions), atol=1e-12
        )
        ended += int(theirs.terminal.sum())
        states = np.where(theirs.terminal[:, None], compiled.initial(2000, rng), theirs.states)
    assert ended > 0 or n > 7


def test_the_filter_works_on_numpy_arrays(rng) -> None:  # type: ignore[no-untyped-def]
    compiled, tensors = Mars(7, 8), TorchMars(7, 8)
    states = compiled.initial(100, rng)
    np.testing.assert_array_equal(
        tensors.log_likelihood(6, states, 5 * 13 + 1, states), compiled.log_likelihood(6, states, 5 * 13 + 1, states)
    )
