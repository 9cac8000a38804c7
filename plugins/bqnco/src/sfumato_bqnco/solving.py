"""`solve`: the best solution of a user's instance within a time limit, always validated.

The default serves the user, not the method: it starts from the best construction at hand (classical and, where there
are weights, the network) and improves by the strongest licence-clean means for that problem. The log of the answer says
which part found what. `method="policy"` is the neural method alone; any name in `methods` is that method alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from attrs import field, frozen

from . import methods, rehearsal
from .errors import BqncoError, InstanceError
from .instances import Instance, Plan
from .readers import read
from .validate import objective

# Measured in benchmarks/library.py (five CVRPLIB instances): string removals are far ahead of PyVRP and OR-Tools at 1
# and 5 CPU seconds, level with HGS at 1, and behind HGS at 5 (0.24 against 0.08 %). The kicked 2-opt is at the optimum
# of n = 100 in hundredths of a second.
CONSTRUCT = {
    "tsp": "farthest-insertion", "atsp": "nearest-neighbour", "cvrp": "savings", "op": "prize-greedy", "kp": "density",
    "cvrptw": "time-insertion",
}  # fmt: skip
IMPROVE = {
    "tsp": "iterated-2-opt", "atsp": "iterated-2-opt", "cvrp": "string-removals", "op": "prize-ruin",
    "kp": "knapsack-exact", "cvrptw": "pyvrp",
}  # fmt: skip
_POLICY_SHARE = 0.2
_TORCH_SECONDS = 2.0
# Seconds of compiling, measured on one core that was free; the network's engine is compiled besides.
_COMPILING = {"tsp": 5.0, "atsp": 5.0, "cvrp": 7.0, "op": 4.0, "kp": 1.0, "cvrptw": 3.0}
_COMPILING_ENGINE = 20.0
# A merged beam of four costs about five greedy constructions and starts re-construct at 3 instead of 10 % (TSP100).
_POLICY_BEAM = 4
# HGS needs a second or so before it passes string removals, and a matrix.
_HGS_LEAST = 1.0
# Loading OR-Tools takes this long.
_LOADING = 1.0
_HGS_MOST = 3000
# fast-tsp is ahead of our own search from some hundreds of nodes on (n = 1000: 0.1 % shorter in half the CPU time); it
# needs the whole matrix.
_FAST_TSP_SIZES = (200, 5000)
# Farthest insertion is O(N^2) with a large constant: seconds from here on.
_INSERTION_MOST = 5000
# Sequential insertion with time windows is O(N^3).
_TIME_INSERTION_MOST = 1200
# PyVRP's model is built arc by arc: so many a second.
_PYVRP_ARCS = 4e5


def _policy_seconds(n: int) -> float:
    """At least so many wall seconds go into the small network's greedy construction, loading torch included.

    It saves loading torch where there is no hope; whether there is time is then measured on the first state.
    """
    return _TORCH_SECONDS + n * min(n, 250) * 0.6e-5


@frozen
class Entry:
    """One line of the log: seconds since the start, which part, the objective it reached, a remark."""

    seconds: float
    part: str
    objective: float | None
    remark: str = ""


@frozen(eq=False)
class Answer:
    """A validated solution. `objective`: length (to minimise), prize or value (to maximise); `seconds`: wall time;
    `log`: who found what and when.
    """

    instance: Instance
    solution: Plan
    objective: float
    found_by: str
    seconds: float
    log: list[Entry] = field(factory=list)


def solve(
    source: str | Path | Instance,
    time_limit: float = 10.0,
    *,
    method: str = "auto",
    seed: int = 0,
    weights: str | Path | None = None,
    width: int = 0,
    warm_start: str | None = None,
    on_incumbent: Callable[[float, float], None] | None = None,
) -> Answer:
    """Solve an instance or a file of TSP, ATSP, CVRP, OP, KP or (by PyVRP) CVRPTW.

    `time_limit`: wall seconds; 0 gives a construction, still feasible. The first call of its kind in an installation
    compiles before this clock starts, and says so (logging, so on the error stream by default). `method`: `auto`, `policy`, or a name in
    `methods.METHODS`. `weights`: a safetensors file instead of the shipped ones. `width`: beam of the policy (0: greedy, or
    4 with `method="policy"` when that leaves most of the time to re-construction).
    `warm_start="pyvrp"` improves the best construction by PyVRP. `on_incumbent(seconds, objective)` hears of each
    better solution. Raises InstanceError for a bad file, BqncoError for a method that does not fit; never returns an
    infeasible solution.
    """
    instance = source if isinstance(source, Instance) else read(source)
    if not time_limit >= 0:
        raise BqncoError(
            f"expected a time limit of at least 0 seconds, got {time_limit}; pass a positive number"
        )
    if warm_start not in (None, "pyvrp"):
        raise BqncoError(f"expected warm_start 'pyvrp' or none, got {warm_start!r}")
    easy = methods.trivial(instance)
    compiled = 0.0
    if easy is None:
        compiled = _rehearse(instance, time_limit, method, weights)
    run = _Run(instance, time_limit, np.random.default_rng(seed), on_incumbent)
    if compiled:
        run.log.append(Entry(0.0, "compiling", None, f"once, {compiled:.1f} s before the clock"))
    if easy is not None:
        run.offer("trivial", easy)
    elif method == "policy":
        run.policy(weights, width, share=1.0)
    elif method != "auto":
        run.method(method)
    else:
        run.auto(weights, width, warm_start)
    return run.answer()


def _rehearse(instance: Instance, limit: float, method: str, weights: str | Path | None) -> float:
    """Run what this call will need on a small piece, if it has not been compiled yet; returns seconds."""
    problem = instance.problem
    engine = (method == "policy" or (method == "auto" and not _no_policy(instance, limit, weights))) and (
        problem not in ("atsp", "cvrptw")
    )
    if method not in ("auto", "policy") and methods.method(method, problem).module:
        return 0.0
    if problem == "cvrptw" and method == "policy":
        return 0.0
    limits = {"tsp": _INSERTION_MOST, "cvrptw": _TIME_INSERTION_MOST}
    big = instance.n > limits.get(problem, instance.n)
    kind = instance.metric().kind if problem != "kp" else "none"
    short = 0.02

    def small() -> None:
        run = _Run(rehearsal.piece(instance), short, np.random.default_rng(0), None)
        if big:
            run.method("nearest-neighbour" if problem == "tsp" else "time-nearest")
        if method == "auto":
            run.auto(None, 0, None, classical=True)
        elif method != "policy":
            run.method(method)
        if engine or method == "policy":
            for width in (1, _POLICY_BEAM):
                run.policy(weights, width, share=1.0)

    def until_quick() -> None:
        # Compiling one part uses up the little time of the parts behind it: go on until nothing compiles any more.
        for _ in range(8):
            at = time.perf_counter()
            small()
            if time.perf_counter() - at < 10.0 * short + 0.3:
                return

    about = (_COMPILING[problem] if method != "policy" else 2.0) + _COMPILING_ENGINE * engine
    part = f"{problem} {kind} {method}{' network' * engine}{' big' * big}"
    return rehearsal.rehearse(part, until_quick, about)


def _no_policy(instance: Instance, limit: float, path: str | Path | None) -> str:
    """Why the default leaves the network out before it has loaded anything; empty when it does not."""
    if limit <= 0:
        return "left out: no time"
    if path is not None:
        return ""
    if instance.problem == "kp":
        return "left out: the exact solver needs no start"
    needed = _policy_seconds(instance.n)
    if needed > _POLICY_SHARE * limit:
        share = f"more than {100 * _POLICY_SHARE:.0f} % of the {limit:g} s"
        return f"left out: would take at least {needed:.0f} s, {share}"
    if not (Path(__file__).parent / "weights" / f"{instance.problem}.safetensors").is_file():
        return f"left out: no trained weights for {instance.problem}"
    if find_spec("torch") is None:
        return "left out: torch is not installed (pip install 'sfumato-bqnco[torch]')"
    return ""


class _Run:
    """The state of one call: clock, incumbent, log."""

    def __init__(
        self,
        instance: Instance,
        limit: float,
        rng: np.random.Generator,
        heard: Callable[[float, float], None] | None,
    ) -> None:
        self.instance, self.limit, self.rng, self.heard = instance, limit, rng, heard
        self.began = time.perf_counter()
        self.best: Plan | None = None
        self.value = -np.inf if instance.maximise else np.inf
        self.found_by = ""
        self.log: list[Entry] = []

    @property
    def left(self) -> float:
        return self.limit - (time.perf_counter() - self.began)

    def offer(self, part: str, solution: Plan, note: bool = True) -> float:
        """Validate a solution; keep it when it is better."""
        value = objective(self.instance, solution)
        now = time.perf_counter() - self.began
        better = value > self.value if self.instance.maximise else value < self.value
        if better or self.best is None:
            self.best, self.value, self.found_by = solution, value, part
            if self.heard:
                self.heard(now, value)
        if note:
            self.log.append(Entry(now, part, value, "new best" if better else ""))
        return value

    def method(self, name: str) -> None:
        """One classical method for all the time that is left."""
        chosen = methods.method(name, self.instance.problem)
        if chosen.anytime and self.limit <= 0:
            base = CONSTRUCT.get(self.instance.problem)
            if base is None:
                raise BqncoError(
                    f"{self.instance.problem} has no construction for a time limit of 0; allow some seconds"
                )
            self.log.append(Entry(0.0, name, None, f"no time: construction by {base} alone"))
            self.offer(base, methods.run(base, self.instance, 0.0, self.rng))
            return

        def report(plan: Plan) -> None:
            if self.heard:
                self.offer(name, plan, note=False)

        self.offer(name, methods.run(name, self.instance, max(self.left, 0.0), self.rng, report))

    def policy(self, path: str | Path | None, width: int, share: float, most: float = np.inf) -> bool:
        """The network: construction, then re-construction for `share` of the time.

        `width` 0: a beam where five greedy constructions fit into two fifths of what is left, else greedy. Steps back and
        says so when greedy construction would take more than `most` seconds by the time of a pass over the first state.
        """
        from .env import environment
        from .policy import BQPolicy

        began = self.left
        policy = (
            BQPolicy.load(path, self.instance.problem) if path else BQPolicy.shipped(self.instance.problem)
        )
        env = environment(policy.problem, self.instance.arrays())
        state = env.initial()
        passes = []
        for _ in range(2 if bool((~state.done).all()) else 0):
            at = time.perf_counter()
            policy.scorer(env, state)
            passes.append(time.perf_counter() - at)
        # The states shrink, unless the network sees only the nearest nodes of all of them.
        shrinks = 1.0 if self.instance.n > 2 * policy.scorer.limits.neighbours > 0 else 0.6
        needed = min(passes, default=0.0) * self.instance.n * shrinks
        if needed > most:
            now = time.perf_counter() - self.began
            remark = f"left out: construction would take about {needed:.1f} s, more than the {most:.1f} s it may"
            self.log.append(Entry(now, "policy", None, remark))
            return False
        width = width or (_POLICY_BEAM if 5 * needed <= 0.4 * self.left else 1)
        result = policy.solve(
            env,
            width=width,
            seconds=max(began * share - (began - self.left), 0.0) if began > 0 else None,
            rng=self.rng,
        )
        first = -result.greedy_cost[0] if self.instance.maximise else result.greedy_cost[0]
        now = time.perf_counter() - self.began
        self.log.append(
            Entry(now, "policy construction", float(first), f"beam {width}" if width > 1 else "greedy")
        )
        self.offer("policy", result.solutions[0])
        return True

    def auto(self, path: str | Path | None, width: int, warm_start: str | None, classical: bool = False) -> None:
        """Constructions (`classical`: without the network's), then the strongest improvement from the best of them."""
        problem = self.instance.problem
        base = CONSTRUCT.get(problem)
        if problem == "tsp" and self.instance.n > _INSERTION_MOST:
            base = "nearest-neighbour"
        if problem == "cvrptw" and self.instance.n > _TIME_INSERTION_MOST:
            base = "time-nearest"
        if base:
            self.offer(base, methods.run(base, self.instance, 0.0, self.rng))
        if self.limit <= 0:
            if self.best is None:
                raise BqncoError(f"{problem} has no construction for a time limit of 0; allow some seconds")
            return
        if not classical:
            self._try_policy(path, max(width, 1))
        improve = IMPROVE[problem]
        if problem == "kp":
            self._knapsack()
            return
        if problem == "cvrptw" or (warm_start == "pyvrp" and problem in ("tsp", "cvrp", "op")):
            self._pyvrp()
            return
        if problem == "cvrp" and self._hgs():
            return
        low, high = _FAST_TSP_SIZES
        if problem == "tsp" and low <= self.instance.n <= high and methods.METHODS["fast-tsp"].installed:
            self.offer("fast-tsp", methods.run("fast-tsp", self.instance, 0.6 * self.left, self.rng))
        name = f"{improve} from {self.found_by}" if self.found_by else improve
        self.offer(name, self._improve(improve))

    def _try_policy(self, path: str | Path | None, width: int) -> None:
        now = time.perf_counter() - self.began
        why = _no_policy(self.instance, self.limit, path)
        if why:
            self.log.append(Entry(now, "policy", None, why))
            return
        try:
            # Its construction alone; classical improvement makes better use of what is left. Loading torch counts.
            most = np.inf if path else max(2.0 * _POLICY_SHARE * self.limit - now, 0.0)
            self.policy(path, width, share=0.0, most=most)
        except InstanceError as error:
            self.log.append(Entry(now, "policy", None, f"left out: {error}"))

    def _pyvrp(self) -> None:
        """PyVRP from the best so far, where building its model leaves time for it; says so when not."""
        from .baselines.external import pyvrp

        methods.method("pyvrp", self.instance.problem)
        name = f"pyvrp from {self.found_by}"
        needed = self.instance.n**2 / _PYVRP_ARCS
        if needed > 0.7 * self.left:
            now = time.perf_counter() - self.began
            remark = f"left out: building its model would take about {needed:.1f} s of the {max(self.left, 0.0):.1f} s left"
            self.log.append(Entry(now, "pyvrp", None, remark))
            return

        def report(plan: Plan) -> None:
            if self.heard:
                self.offer(name, plan, note=False)

        self.offer(name, pyvrp(self.instance, max(self.left, 0.01), self.rng, report, start=self.best))

    def _hgs(self) -> bool:
        """HGS for all the time but a little, where it is installed and there is time for it; says so when not."""
        now = time.perf_counter() - self.began
        if not methods.METHODS["hgs"].installed:
            self.log.append(Entry(now, "hgs", None, "left out: not installed (pip install 'sfumato-bqnco[hgs]')"))
            return False
        if self.instance.n > _HGS_MOST or self.left < _HGS_LEAST:
            remark = f"left out: it wants at most {_HGS_MOST} nodes and {_HGS_LEAST:g} s (here {self.left:.1f} s)"
            self.log.append(Entry(now, "hgs", None, remark))
            return False
        # It starts from nothing and reports nothing on the way; string removals first make sure of a good answer.
        cpu, wall = time.process_time(), time.perf_counter()
        self.offer(f"string-removals from {self.found_by}", self._improve("string-removals", 0.1 * self.left))
        # HGS counts process CPU time: on a busy machine grant it only what this process will get until the limit.
        share = (time.process_time() - cpu) / max(time.perf_counter() - wall, 1e-6)
        granted = max(0.95 * self.left, 0.05) * min(max(share, 0.05), 1.0)
        self.offer("hgs", methods.run("hgs", self.instance, granted, self.rng))
        return True

    def _improve(self, name: str, seconds: float | None = None) -> Plan:
        from .baselines import atsp_local, cvrp_local, op_local, tsp_local

        i, start = self.instance, self.best

        def heard(_: float, plan: object) -> None:
            if self.heard:
                self.offer(name, _plain(plan), note=False)

        if i.problem in ("tsp", "atsp"):
            assert start is not None
            tour = np.array(start, dtype=np.int64)
            if i.problem == "tsp":
                out = tsp_local.iterated_local_search(
                    i.metric(), tour, self.rng, seconds=max(self.left, 0.0), on_incumbent=heard
                )
            else:
                out = atsp_local.path_exchange(
                    i.metric().full(), tour, self.rng, seconds=max(self.left, 0.0), on_incumbent=heard
                )
            return [int(v) for v in out]
        if i.problem == "cvrp":
            assert i.demand is not None
            return cvrp_local.string_removals(
                i.metric(),
                i.demand,
                i.limit,
                self.rng,
                start=start,
                seconds=max(self.left if seconds is None else seconds, 0.0),
                on_incumbent=heard,
            )
        if i.problem == "op":
            assert i.prize is not None
            return list(op_local.ruin_recreate(
                i.metric(), i.prize, i.limit, self.rng, start=start, seconds=max(self.left, 0.0), on_incumbent=heard
            ))  # fmt: skip
        return methods.run(name, i, max(self.left, 0.01), self.rng)

    def _knapsack(self) -> None:
        try:
            self.offer("knapsack-exact", methods.run("knapsack-exact", self.instance, self.left, self.rng))
        except BqncoError as error:
            now = time.perf_counter() - self.began
            self.log.append(Entry(now, "knapsack-exact", None, f"left out: {error}"))
            if self.left < _LOADING:
                remark = f"left out: it wants at least {_LOADING:g} s (here {max(self.left, 0.0):.1f} s)"
                self.log.append(Entry(now, "cp-sat", None, remark))
            elif methods.METHODS["cp-sat"].installed:
                self.offer("cp-sat", methods.run("cp-sat", self.instance, max(self.left, 0.1), self.rng))
            else:
                self.log.append(Entry(now, "cp-sat", None, "left out: OR-Tools is not installed"))

    def answer(self) -> Answer:
        assert self.best is not None
        return Answer(
            self.instance, self.best, objective(self.instance, self.best), self.found_by,
            time.perf_counter() - self.began, self.log,
        )  # fmt: skip


def _plain(plan: object) -> Plan:
    return [int(v) for v in plan] if isinstance(plan, np.ndarray) else list(plan)  # type: ignore[call-overload]
