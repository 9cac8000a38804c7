"""T1 to T3: what one update does to the dual, who moves where, and how near balance a constant step gets.

Each function checks its statement on given data and returns the figures behind the verdict, so that it
serves as a diagnostic of a run as well as a test. The statements and their proofs were derived here;
arXiv:2512.03915 states results of the same kind (an improvement condition, a preference rule and
approximate balance), with wording and constants of its own.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import ArrayLike

from .errors import ArgumentError
from .problem import AlfProblem, Floats, checked_bias
from .rules import BiasRule, checked_rate
from .run import alf_run


@attrs.frozen
class DualChange:
    """T1 for one update: `after - before = benefit - linear`, exactly.

    before, after: TopKSum(g + p) - L * sum(p) at the two biases. benefit: S >= 0, what tokens gain by
    choosing afresh. linear: sum_k delta[k] * (L - A[k]); for the sign rule u * sum |L - A|.
    n_moved: tokens whose choice changed. error: absolute violation of the identity (rounding).
    """

    before: float
    after: float
    benefit: float
    linear: float
    n_moved: int
    error: float

    @property
    def improves(self) -> bool:
        """Whether the dual falls: exactly when the switching benefit is below the linear term."""
        return self.benefit < self.linear


def dual_change(problem: AlfProblem, bias: ArrayLike, new_bias: ArrayLike) -> DualChange:
    """Return the exact account of the dual's change from `bias` to `new_bias` (T1).

    Proof: keeping the old sets at p' changes the value by sum A*delta, and the prices' term by
    -L * sum delta; choosing afresh adds S. The dual is not always lowered: with a constant step S wins
    near the optimum, so `improves` is a diagnostic, not a promise.
    """
    p = checked_bias(bias, problem.n_experts)
    q = checked_bias(new_bias, problem.n_experts, "new_bias")
    old, new = problem.route(p), problem.route(q)
    mean = problem.mean_load
    before = old.value - mean * float(p.sum())
    after = new.value - mean * float(q.sum())
    # Only tokens that moved contribute; summing over them alone keeps the rounding error small.
    moved = (old.chosen != new.chosen).any(axis=1)
    total = problem.scores[moved] + q
    switch = new.chosen[moved].astype(np.int8) - old.chosen[moved].astype(np.int8)
    benefit = float((total * switch).sum())
    linear = float((q - p) @ (mean - old.loads))
    error = abs((after - before) - (benefit - linear))
    return DualChange(before, after, benefit, linear, int(moved.sum()), error)


@attrs.frozen
class Moves:
    """T2 for one update.

    n_moved: tokens that changed sets. violations: those among them that gained an expert whose bias rose
    less than that of one they dropped. load_violations: those that moved towards load (for rules whose
    step decreases in the load). margin_excess: the largest margin given up beyond delta[b] - delta[a]
    (at most rounding). widest: the largest margin any mover gave up, at most 2u for sign rules.
    """

    n_moved: int
    violations: int
    load_violations: int
    margin_excess: float
    widest: float


def preference(problem: AlfProblem, bias: ArrayLike, new_bias: ArrayLike) -> Moves:
    """Check the preference rule on every token that moves from `bias` to `new_bias` (T2).

    If a token drops expert a and gains b, then g_a + p_a >= g_b + p_b before and the reverse after, so
    delta[b] >= delta[a], and the margin it gave up is at most delta[b] - delta[a]. Holds for every
    dropped and gained pair and any K.
    """
    p = checked_bias(bias, problem.n_experts)
    q = checked_bias(new_bias, problem.n_experts, "new_bias")
    old, new = problem.route(p), problem.route(q)
    moved = np.flatnonzero((old.chosen != new.chosen).any(axis=1))
    if moved.size == 0:
        return Moves(0, 0, 0, 0.0, 0.0)
    dropped = old.chosen[moved] & ~new.chosen[moved]
    gained = new.chosen[moved] & ~old.chosen[moved]
    delta = q - p
    tiny = 64 * np.finfo(np.float64).eps * (1.0 + float(np.abs(problem.scores).max() + np.abs(p).max()))
    rise = np.where(gained, delta, np.inf).min(axis=1) - np.where(dropped, delta, -np.inf).max(axis=1)
    load = old.loads.astype(np.float64)
    fall = np.where(dropped, load, np.inf).min(axis=1) - np.where(gained, load, -np.inf).max(axis=1)
    total = problem.scores[moved] + p
    # margin(a, b) - (delta[b] - delta[a]) splits into a term of a and one of b: take the worst of each.
    margin = np.where(dropped, total, -np.inf).max(axis=1) - np.where(gained, total, np.inf).min(axis=1)
    excess = np.where(dropped, total + delta, -np.inf).max(axis=1) - np.where(
        gained, total + delta, np.inf
    ).min(axis=1)
    return Moves(
        n_moved=int(moved.size),
        violations=int((rise < -tiny).sum()),
        load_violations=int((fall < 0).sum()),
        margin_excess=float(excess.max()),
        widest=float(margin.max()),
    )


def window_count(problem: AlfProblem, u: float) -> int:
    """Return m(u): the most tokens whose score difference g[a] - g[b] lies in one window of length 2u.

    The maximum is over windows and pairs of experts. Cost O(E^2 T log T).
    """
    if problem.n_tokens == 0:
        return 0
    width, most = 2.0 * checked_rate(u), 1
    rank = np.arange(problem.n_tokens)
    for a in range(problem.n_experts):
        for b in range(a + 1, problem.n_experts):
            gaps = np.sort(problem.scores[:, a] - problem.scores[:, b])
            most = max(most, int((np.searchsorted(gaps, gaps + width, side="right") - rank).max()))
    return most


def separating_step(problem: AlfProblem) -> float:
    """Return half the smallest gap between score differences of one pair: below it, m(u) = 1.

    Zero when two tokens differ alike between two experts, for instance when they are equal.
    """
    smallest = np.inf
    for a in range(problem.n_experts):
        for b in range(a + 1, problem.n_experts):
            gaps = np.sort(problem.scores[:, a] - problem.scores[:, b])
            if gaps.size > 1:
                smallest = min(smallest, float(np.diff(gaps).min()))
    return 0.5 * smallest if np.isfinite(smallest) else 0.0


@attrs.frozen
class Band:
    """T3 for one instance and step.

    bound: (E - 1) * m(u) tokens. entered: routings until max|A - L| was within it for the first time
    (None: not within the steps given). worst_after: the largest deviation from then on. cycle: (start,
    period) of the biases; once it closed, what was seen holds for ever (`is_forever`).
    """

    bound: int
    m: int
    entered: int | None
    worst_after: float
    cycle: tuple[int, int] | None
    n_steps: int

    @property
    def holds(self) -> bool:
        """Whether the band was entered and never left again."""
        return self.entered is not None and self.worst_after <= self.bound

    @property
    def is_forever(self) -> bool:
        """Whether the run closed a cycle inside the band, which proves the rest of time."""
        return self.holds and self.cycle is not None


def approximate_balance(
    problem: AlfProblem, u: float, *, max_steps: int = 200_000, engine: str = "numpy"
) -> Band:
    """Run the sign rule with constant step u until its biases cycle, and check the band of T3.

    After finitely many updates max_k |A[k] - L| <= (E - 1) * m(u) for ever: an overloaded expert can
    only lose tokens, at most m to each other expert, and an underloaded one only gains, so the band
    cannot be left; outside it prices drift by u a step until it is entered, which can take very long
    when u is tiny. engine: see `alf_run`; 'compiled' makes 10^5 steps cheap.
    """
    if problem.n_tokens == 0:
        raise ArgumentError("problem", "at least one token", "an empty batch")
    if checked_rate(u) == 0.0:
        raise ArgumentError("u", "a number > 0", repr(u), "Without a step nothing ever moves.")
    m = window_count(problem, u)
    bound = (problem.n_experts - 1) * m
    run = alf_run(
        problem, "sign", u, steps=max_steps, keep_loads=True, stop_when_optimal=False, stop_at_cycle=True,
        engine=engine,
    )  # fmt: skip
    assert run.loads is not None
    deviation: Floats = np.abs(run.loads - problem.mean_load).max(axis=1)
    inside = np.flatnonzero(deviation <= bound)
    entered = int(inside[0]) if inside.size else None
    worst = float(deviation[entered:].max()) if entered is not None else np.inf
    return Band(bound, m, entered, worst, run.cycle, run.n_updates)


@attrs.frozen
class Improvement:
    """How often the condition of T1 held over a run: share of updates, and the largest identity error."""

    n_updates: int
    improved: int
    largest_error: float
    largest_rise: float

    @property
    def share(self) -> float:
        """Updates that lowered the dual, as a share."""
        return self.improved / self.n_updates if self.n_updates else 1.0


def improvement_over_run(
    problem: AlfProblem, rule: BiasRule, *, steps: int, p0: ArrayLike | None = None
) -> Improvement:
    """Follow a rule for `steps` updates and check T1 at each."""
    run = alf_run(problem, rule, steps=steps, p0=p0, keep_biases=True, stop_when_optimal=False)
    assert run.biases is not None
    changes = [dual_change(problem, a, b) for a, b in zip(run.biases, run.biases[1:], strict=False)]
    wrong = [c for c in changes if c.improves != (c.after < c.before) and abs(c.after - c.before) > 1e-9]
    if wrong:
        raise AssertionError(f"the improvement condition failed on {wrong[0]}")
    return Improvement(
        n_updates=len(changes),
        improved=sum(c.improves for c in changes),
        largest_error=max((c.error for c in changes), default=0.0),
        largest_rise=max((c.after - c.before for c in changes), default=0.0),
    )
