"""Certificates: how far an assignment is from the best balanced one, without solving anything.

For any bias p, D(p) bounds the objective of every feasible assignment from above (weak duality). So a
feasible assignment and any bias together prove a gap; a top-K routing that is exactly balanced proves
itself optimal, because then both numbers agree (complementary slackness).
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import ArrayLike

from .errors import ArgumentError
from .problem import AlfProblem, Floats, affinity, anchored, checked_bias, max_vio


@attrs.frozen
class Certificate:
    """What a bias and an assignment prove together.

    objective: sum of the chosen scores. dual: the upper bound D(p). gap: dual - objective, in units of
    score; a proof of near optimality only when `is_feasible`, otherwise it may be negative and means
    nothing. max_vio: (max load - L)/L. at_stake: what choices can make of the objective, see `at_stake`.
    rounding: bound on the gap's rounding error.
    """

    objective: float
    dual: float
    gap: float
    max_vio: float
    is_feasible: bool
    at_stake: float
    rounding: float

    def is_optimal(self, tolerance: float = 1e-9) -> bool:
        """Whether the assignment is proved optimal within `tolerance` of what is at stake."""
        return self.is_feasible and self.gap <= tolerance * self.at_stake + self.rounding


def at_stake(problem: AlfProblem) -> float:
    """Return K times the sum of every token's range of scores: no two assignments differ by more.

    The measure of what is small for an objective: unlike the objective itself it does not change when all
    scores grow by a constant, and it scales with them.
    """
    return problem.k * float(np.ptp(problem.scores, axis=1).sum()) if problem.n_tokens else 0.0


def rounding_of(problem: AlfProblem, bias: Floats) -> float:
    """Return a bound on the rounding error of a gap at this bias."""
    slots = problem.n_tokens * problem.k
    return float(4 * np.finfo(np.float64).eps * slots * np.ptp(bias))


def certificate(problem: AlfProblem, bias: ArrayLike, chosen: ArrayLike | None = None) -> Certificate:
    """Return the certificate of an assignment at a bias.

    chosen: bool [T, E] with K true entries a row; the routing at `bias` when None.
    Raises ArgumentError when a row does not have K choices.
    """
    bias = checked_bias(bias, problem.n_experts)
    routing = problem.route(bias)
    mask = routing.chosen if chosen is None else np.asarray(chosen, dtype=np.bool_)
    if mask.shape != problem.scores.shape or (mask.sum(axis=1) != problem.k).any():
        raise ArgumentError(
            "chosen", f"a boolean array {problem.scores.shape} with {problem.k} true entries a row",
            f"shape {mask.shape} with {int(mask.sum())} true entries",
        )  # fmt: skip
    loads = mask.sum(axis=0)
    objective = affinity(problem, mask)
    p = anchored(problem, bias)
    # The gap is what tokens forgo plus what prices pay for room left. Summed like this, offsets of whole
    # rows cancel before they can round, and an exactly balanced routing has a gap of exactly zero.
    other = (mask != routing.chosen).any(axis=1)
    moved = routing.chosen[other].astype(np.int8) - mask[other].astype(np.int8)
    forgone = float(((problem.scores[other] + p) * moved).sum())
    gap = forgone + float(p @ (loads - problem.capacity))
    return Certificate(
        objective=objective,
        dual=objective + gap,
        gap=gap,
        max_vio=max_vio(loads, problem.mean_load),
        is_feasible=bool(loads.max(initial=0) <= problem.capacity),
        at_stake=at_stake(problem),
        rounding=rounding_of(problem, p),
    )
