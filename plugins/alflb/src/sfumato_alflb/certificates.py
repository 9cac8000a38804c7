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
from .problem import AlfProblem, affinity, checked_bias, dual_value, max_vio


@attrs.frozen
class Certificate:
    """What a bias and an assignment prove together.

    objective: sum of the chosen scores. dual: the upper bound D(p). gap: dual - objective, in units of
    score; a proof of near optimality only when `is_feasible`, otherwise it may be negative and means
    nothing. max_vio: (max load - L)/L.
    """

    objective: float
    dual: float
    gap: float
    max_vio: float
    is_feasible: bool

    def is_optimal(self, tolerance: float = 1e-9) -> bool:
        """Whether the assignment is proved optimal within `tolerance`, relative to the dual."""
        return self.is_feasible and self.gap <= tolerance * max(1.0, abs(self.dual))


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
    dual = dual_value(problem, bias, routing)
    return Certificate(
        objective=objective,
        dual=dual,
        gap=dual - objective,
        max_vio=max_vio(loads, problem.mean_load),
        is_feasible=bool(loads.max(initial=0) <= problem.capacity),
    )
