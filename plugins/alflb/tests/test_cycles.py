from __future__ import annotations

import numpy as np
import pytest

from sfumato_alflb import AlfProblem, ArgumentError, alf_run, find_cycle
from sfumato_alflb.cycles import peak_to_peak


def test_a_cycle_is_found_in_a_float32_log() -> None:
    """Differences 0, 1, 2, 4, 3, 2: the third state comes back, shifted, three steps later."""
    steps = np.array([[0, 0], [0, 1], [0, 2], [1, 5], [1, 4], [3, 5], [3, 7]]) * 1e-3
    assert find_cycle(steps.astype(np.float32), 1e-3) == (2, 3)


def test_no_cycle_is_claimed_where_there_is_none() -> None:
    """A drift never comes back."""
    assert find_cycle(np.array([[0.0, 0.0], [0.1, 0.0], [0.2, 0.0]]), 0.1) is None


def test_constant_sign_rules_cycle_and_damped_ones_do_not(rng: np.random.Generator) -> None:
    """Eight random instances; in a two-cycle every expert that moves has a range of exactly u."""
    two_cycles = 0
    for _ in range(8):
        problem = AlfProblem(rng.random((24, 3)), 1)
        run = alf_run(
            problem, "sign", 0.02, steps=3000, keep_biases=True, stop_when_optimal=False, stop_at_cycle=True
        )
        assert run.cycle is not None and run.biases is not None
        start, period = run.cycle
        turn = run.biases[start : start + period]
        assert np.allclose(
            run.biases[start + period] - run.biases[start], run.biases[-1][0] - run.biases[start][0]
        )
        if period == 2:
            two_cycles += 1
            spread = peak_to_peak(turn)
            assert (
                np.isclose(spread, 0.02).any() and (np.isclose(spread, 0.02) | np.isclose(spread, 0.0)).all()
            )
        damped = alf_run(problem, "sign_inv", 0.02, steps=300, keep_biases=True, stop_when_optimal=False)
        assert damped.cycle is None and damped.biases is not None
        assert peak_to_peak(damped.biases[-10:]).max() < 0.002
    assert two_cycles > 0


def test_a_history_that_is_none_is_refused() -> None:
    """No step, no rows, NaN: each would read as a cycle of period one."""
    for biases, u, argument in (
        (np.zeros((3, 2)), 0.0, "u"),
        (np.zeros((0, 2)), 1.0, "biases"),
        (np.full((3, 2), np.nan), 1.0, "biases"),
    ):
        with pytest.raises(ArgumentError) as caught:
            find_cycle(biases, u)
        assert caught.value.argument == argument
