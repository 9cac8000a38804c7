"""Light-Dark on a line: find the light at 10 to learn where you are, then stop at 0.

Source: Sunberg and Kochenderfer, "Online algorithms for POMDPs with continuous state, action, and observation spaces", ICAPS
2018, §5 (the discrete-position variant). The continuous reading is put into bins of one unit, with exact bin probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato_vopp.model import Array, CompiledModel, Transitions
from sfumato_vopp.scalar import ScalarModel

__all__ = ["LightDark"]

STEPS = (-10, -1, 0, 1, 10)
STOP = 2
EDGE = 60


class LightDark(ScalarModel):
    """State: position in -60 … 60. Actions: -10, -1, stop, +1, +10. Observation: the bin ⌊y + ½⌋ of y ~ N(s', |s'-10| + 1e-4).

    A move costs 1; stopping ends and pays 100 at 0, -100 elsewhere. Starts are uniform on -30 … 30.

    Arguments:
        hint_weight: the hint lies between walking straight to 0, where one never is for sure, and walking for ever; this much
            of the former. At 1 the planner never goes to the light: at each leaf it is promised that it will know.
    """

    n_actions = 5
    n_observations = None
    reward_range = (-1.0, 30.0)

    def __init__(self, discount: float = 0.95, hint_weight: float = 0.5) -> None:
        if not 0.0 < hint_weight <= 1.0:
            raise ValueError(f"expected 0 < hint_weight <= 1, got {hint_weight}")
        self.discount = discount
        position = np.arange(-EDGE, EDGE + 1)
        tens, rest = np.abs(position) // 10, np.abs(position) % 10
        moves = np.minimum(tens + rest, tens + 1 + 10 - rest)
        g = discount**moves
        straight = -(1 - g) / (1 - discount) + 100.0 * g if discount < 1 else 100.0 - moves
        forever = -1.0 / (1 - discount) if discount < 1 else 0.0
        self._floats = hint_weight * straight + (1.0 - hint_weight) * forever

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states; int64 [n, 1]."""
        return rng.integers(-30, 31, (n, 1))

    def initial_distribution(self) -> tuple[Array, Array]:
        """List the 61 starts."""
        return np.arange(-30, 31)[:, None], np.full(61, 1.0 / 61)

    def transitions(self, states: Array, action: int) -> Transitions:
        """List the outcomes: one for each state."""
        n = len(states)
        s = states[:, 0]
        following = np.clip(s + STEPS[action], -EDGE, EDGE)[:, None]
        stop = action == STOP
        reward = np.where(s == 0, 100.0, -100.0) if stop else np.full(n, -1.0)
        return Transitions(np.arange(n), following, np.ones(n), reward, np.full(n, stop))

    def compiled(self) -> CompiledModel:
        """Return the compiled functions."""
        from sfumato_vopp.models import lightdark_numba as k

        ints: Any = np.array(STEPS, np.int64)
        return CompiledModel(k.step, k.hint, k.log_likelihood, ints, self._floats, "builtin:lightdark")
