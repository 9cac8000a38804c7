"""Run an update rule on one fixed batch of scores, and keep what happened."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike

from .certificates import Certificate, at_stake, certificate, rounding_of
from .cycles import LatticeWatch
from .errors import ArgumentError
from .problem import AlfProblem, Floats, Ints, anchored, checked_bias, checked_count
from .rules import BiasRule

ENGINES = ("numpy", "compiled")


@attrs.frozen(eq=False)
class AlfRun:
    """History of a run. Index n is the state after n updates, so index 0 is plain top-K.

    max_vio, dual, objective: float [n+1]. An objective above the optimum only means that the loads are
    not balanced yet: read it beside max_vio. loads: int [n+1, E] when kept, else None. bias: float [E],
    the last one. final: the certificate of the last state. cycle: (start, period) of an exact cycle of
    the biases, where one was seen.
    """

    rule: BiasRule
    max_vio: Floats
    dual: Floats
    objective: Floats
    bias: Floats
    final: Certificate
    loads: Ints | None = None
    biases: Floats | None = None
    cycle: tuple[int, int] | None = None

    @property
    def n_updates(self) -> int:
        """Updates made."""
        return len(self.max_vio) - 1

    def first_below(self, threshold: float) -> int | None:
        """Return the number of routings up to and with the first whose MaxVio is below `threshold`."""
        hits = np.flatnonzero(self.max_vio < threshold)
        return int(hits[0]) + 1 if hits.size else None


def alf_run(
    problem: AlfProblem,
    rule: BiasRule | str = "sign",
    u: float = 1e-3,
    *,
    steps: int = 1000,
    p0: ArrayLike | None = None,
    stop_when_optimal: bool = True,
    stop_at_cycle: bool = False,
    keep_loads: bool = False,
    keep_biases: bool = False,
    engine: str = "numpy",
) -> AlfRun:
    """Route the batch, update the bias, and repeat up to `steps` times.

    rule: a `BiasRule`, or a name from `RULES` with step u. p0: float [E], the first bias (zeros).
    stop_when_optimal: stop as soon as the certificate proves the routing optimal (exact balance does).
    stop_at_cycle: stop when the biases of a constant sign rule repeat exactly.
    engine: 'numpy', or 'compiled' (extra `compiled`), which routes again only the tokens whose choice
    can have changed; both give the same loads.

    Sign rules with a constant step are kept as p0 + u*z with z integer, so that a cycle (up to a common
    shift of all biases, which routes the same) repeats bit for bit.
    Raises ArgumentError for a wrong rule, step, bias or engine. Cost: one routing, O(T*E), per update.
    Source: arXiv:2408.15664, algorithm 1, on the stylised fixed scores of arXiv:2512.03915.
    """
    rule = rule if isinstance(rule, BiasRule) else BiasRule(rule, u)
    checked_count(steps, "steps", least=0)
    start = checked_bias(p0, problem.n_experts, "p0")
    router = _engine(problem, engine)
    mean = problem.mean_load
    on_lattice = rule.is_sign and rule.is_constant
    lattice = np.zeros(problem.n_experts, dtype=np.int64)
    watch = LatticeWatch() if on_lattice else None
    bias = start.copy()
    tolerance = 1e-9 * at_stake(problem)
    rows: list[tuple[float, float, float]] = []
    kept_loads: list[Ints] = []
    kept_biases: list[Floats] = []
    for n in range(steps + 1):
        loads, objective = router.loads_and_objective(bias)
        shifted = anchored(problem, bias)
        # D(p) of a routing at p itself: exactly the objective where the loads are exactly even.
        gap = float(shifted @ (loads - problem.capacity))
        rows.append((float(loads.max()) / mean - 1.0 if mean else 0.0, objective + gap, objective))
        if keep_loads:
            kept_loads.append(loads.copy())
        if keep_biases:
            kept_biases.append(bias + rule.u * lattice[0])
        feasible = mean == 0 or loads.max() <= problem.capacity
        if stop_when_optimal and feasible and gap <= tolerance + rounding_of(problem, shifted):
            break
        if watch is not None and watch.seen(lattice, n) and stop_at_cycle:
            break
        if n == steps or mean == 0:
            break
        if on_lattice:
            lattice += np.sign(mean - loads).astype(np.int64)
            # Routing does not change under a shift. Leaving the shift out of what is routed makes states
            # that differ by one equal bit for bit, so that a drifting cycle closes exactly.
            bias = start + rule.u * (lattice - lattice[0])
        else:
            bias = bias + rule.delta(loads, n + 1, mean)
    history = np.array(rows)
    return AlfRun(
        rule=rule,
        max_vio=history[:, 0],
        dual=history[:, 1],
        objective=history[:, 2],
        bias=bias + rule.u * lattice[0],
        final=certificate(problem, bias),
        loads=np.array(kept_loads) if keep_loads else None,
        biases=np.array(kept_biases) if keep_biases else None,
        cycle=watch.cycle if watch is not None else None,
    )


class _NumpyEngine:
    """Route every token at every step."""

    def __init__(self, problem: AlfProblem) -> None:
        self.problem = problem

    def loads_and_objective(self, bias: Floats) -> tuple[Ints, float]:
        """Return the loads [E] and the sum of the unbiased chosen scores."""
        routing = self.problem.route(bias)
        return routing.loads, routing.value - float(routing.loads @ bias)


def _engine(problem: AlfProblem, name: str) -> Any:
    if name not in ENGINES:
        raise ArgumentError("engine", f"one of {', '.join(ENGINES)}", repr(name))
    if name == "numpy":
        return _NumpyEngine(problem)
    from .kernels import IncrementalRouter

    return IncrementalRouter(problem)
