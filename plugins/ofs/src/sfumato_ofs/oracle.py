"""The full-information oracle: every fixed threshold at its own steady state.

Under a threshold held for ever the expected loop (batch rates replaced by their expectations) runs to a
fixed point. There the reward, gap, rate and feasibility of that threshold are exact. The best feasible
one is what a learner is measured against.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.constraints import Constraints
from sfumato_ofs.loops import ClosedLoop
from sfumato_ofs.outcomes import expected_outcomes

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


@attrs.frozen
class Sweep:
    """Steady states of all arms.

    Attributes:
        arms: group thresholds [M, G].
        reward: expected reward a round [M].
        rates: acceptance rate by group [M, G].
        overall: overall acceptance rate [M].
        residuals: [M, I].
        state: fixed points [M, S].
        converged: whether the state's change fell below the tolerance [M].
        best: index of the best feasible arm (ties to the lower index), or of the least violating one.
        feasible: whether `best` is feasible, that is, whether any arm is.
        unconstrained: index of the arm with the largest reward, constraints ignored.
    """

    arms: FloatArray
    reward: FloatArray
    rates: FloatArray
    overall: FloatArray
    residuals: FloatArray
    state: FloatArray
    converged: BoolArray
    best: int
    feasible: bool
    unconstrained: int

    @property
    def gap(self) -> FloatArray:
        """Signed gap of the first two groups' rates, r0 - r1 [M]."""
        gap: FloatArray = self.rates[:, 0] - self.rates[:, 1]
        return gap

    @property
    def is_feasible(self) -> BoolArray:
        """Whether each arm satisfies every constraint at its fixed point [M]."""
        ok: BoolArray = np.asarray((self.residuals <= 0.0).all(axis=1))
        return ok


def sweep(
    loop: ClosedLoop, constraints: Constraints, *, tolerance: float = 1e-12, max_steps: int = 5000
) -> Sweep:
    """Iterate the mean map of every arm to its fixed point and report the steady states.

    Notes: O(M) a step, all arms at once. An arm that cycles is reported with `converged` False at the state
    reached after max_steps.
    """
    arm = np.arange(loop.n_arms)
    state = loop.rest(loop.n_arms)
    converged = np.zeros(loop.n_arms, dtype=bool)
    for _ in range(max_steps):
        accept, _good = loop.expectations(state, arm)
        moved = loop.advance(state, accept)
        converged = np.abs(moved - state).max(axis=1) < tolerance
        state = moved
        if converged.all():
            break
    rates, good = loop.expectations(state, arm)
    overall: FloatArray = (loop.shares(state) * rates).sum(axis=1)
    reward = loop.expected_reward(state, arm)
    residuals = constraints.residuals(rates, overall, expected_outcomes(rates, good, loop.base_good(state)))
    # An arm that accepts nobody has no rate among accepted; it cannot be called fair, nor unfair.
    residuals = np.where(np.isnan(residuals), np.inf, residuals)
    feasible = (residuals <= 0.0).all(axis=1)
    if feasible.any():
        best = int(np.argmax(np.where(feasible, reward, -np.inf)))
    else:
        best = int(np.argmin(np.maximum(residuals, 0.0).sum(axis=1)))
    return Sweep(
        arms=loop.arms,
        reward=reward,
        rates=rates,
        overall=overall,
        residuals=residuals,
        state=state,
        converged=converged,
        best=best,
        feasible=bool(feasible.any()),
        unconstrained=int(np.argmax(reward)),
    )
