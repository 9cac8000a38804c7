"""What can come of a planning cycle, in words that say what to do."""

from __future__ import annotations

import enum


class Status(enum.Enum):
    """Outcome of one call of `CPTOSolver.plan`; the value is the explanation for people.

    `is_feasible` is true exactly when the returned trajectories may be driven as they are.
    """

    CONVERGED = (
        "every candidate satisfies all bounds and keeps clear of every obstacle of its hypothesis, and "
        "the cost has stopped falling"
    )
    MAX_ITER_FEASIBLE = (
        "every candidate is feasible, but the limit on polish steps came before the cost stopped falling; "
        "drive it, or raise `polish_steps` for a cheaper plan"
    )
    MAX_ITER_INFEASIBLE = (
        "no trajectories were found that keep every candidate clear of its obstacles within the bounds; brake "
        "with the fall-back, and consider wider bounds or fewer hypotheses sharing the segment"
    )
    START_IN_COLLISION = (
        "the vehicle starts inside the safety ellipse of an obstacle that is certain to exist; the returned "
        "trajectories leave it as fast as the barrier's recovery rate asks, but are not safe: use the fall-back"
    )
    START_OUT_OF_BOUNDS = (
        "the start position, velocity or acceleration breaks a bound by more than the tolerance in "
        "`start_tolerance`; widen the bound or hand in a state that respects it"
    )
    EMPTY_BOX = (
        "no curve satisfies the start and the bounds even without obstacles (for example a speed cap far below "
        "the present speed); widen the bounds, or ramp the cap down with time"
    )
    TIME_LIMIT = "the deadline came before a feasible plan was found; use the fall-back that is returned"
    BAD_INPUT = (
        "the arguments are not a planning problem; `Plan.message` names the argument and what is wrong"
    )

    @property
    def is_feasible(self) -> bool:
        """Whether the plan may be driven as it is."""
        return self in (Status.CONVERGED, Status.MAX_ITER_FEASIBLE)

    @property
    def explanation(self) -> str:
        """What usually causes this status, and what to do."""
        return str(self.value)
