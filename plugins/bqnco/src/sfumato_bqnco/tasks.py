"""Routing problems and the knapsack as tasks: a batch of instances, one step, the action is complete solutions.

Observation: a list of B mappings, each with the arrays of one instance. Action: int array [B, L] padded with -1 (see
`encode`): tours and item lists as they are, routes one after another with a 0 before each.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from sfumato.errors import DataMissing, ProtocolError
from sfumato.protocols import Context, Episode, Task
from sfumato.records import Start, Step

from . import generate, validate
from .config import TaskConfig
from .errors import InfeasibleSolution, InstanceError
from .instances import Instance, Plan, from_arrays
from .readers import read

LIBRARIES = (
    "The instance files are public: TSPLIB (comopt.ifi.uni-heidelberg.de/software/TSPLIB95), CVRPLIB "
    "(vrp.galgos.inf.puc-rio.br), OPLib (github.com/bcamath-ds/OPLib). Single files need no such folder: "
    "-t files='[\"X-n101-k25.vrp\"]'"
)


def _data(ctx: Context, relative: str) -> Path:
    """A file of the data directory; where it is absent, the error says where such files are published."""
    try:
        return ctx.data_file(relative)
    except DataMissing as error:
        raise DataMissing(f"{error} {LIBRARIES}") from error


@frozen(eq=False)
class Batch:
    """The instance of these tasks: B items of one problem."""

    problem: str
    items: tuple[Instance, ...]


def encode(problem: str, solutions: Sequence[Plan]) -> NDArray[np.int64]:
    """Solutions as one int array [B, L]: -1 pads; routes (CVRP, CVRPTW) follow one another, each behind a 0."""
    rows = []
    for solution in solutions:
        if problem in ("cvrp", "cvrptw"):
            solution = [v for route in solution for v in (0, *route)]
        rows.append(list(solution))
    out = np.full((len(rows), max(map(len, rows), default=0)), -1, np.int64)
    for b, row in enumerate(rows):
        out[b, : len(row)] = row
    return out


def decode(problem: str, row: Any) -> Plan:
    """One row of `encode` back to a solution."""
    nodes = [int(v) for v in row if v >= 0]
    if problem not in ("cvrp", "cvrptw"):
        return nodes
    routes: Plan = []
    for v in nodes:
        if v == 0:
            routes.append([])
        elif not routes:
            routes.append([v])
        else:
            routes[-1].append(v)
    return [r for r in routes if r]


def observation(item: Instance) -> dict[str, Any]:
    """What the agent sees of one item: everything but the reference."""
    return {
        k: val
        for k, val in attrs.asdict(item, recurse=False).items()
        if val is not None and k not in ("reference", "reference_kind")
    }


def instance_of(shown: Mapping[str, Any]) -> Instance:
    """The instance that an observation describes."""
    return Instance(**{k: val for k, val in shown.items() if k != "maximise"})


def penalty(item: Instance) -> float:
    """Reward of an infeasible solution: worse than any feasible one, and finite."""
    if item.maximise:
        return -1.0
    scale = float(item.matrix.max()) if item.matrix is not None else 0.0
    if item.xy is not None:
        scale = max(scale, float(np.ptp(item.xy, axis=0).sum()))
    return -2.0 * (item.n + 1) * max(scale, 1.0)


class OneShot(Episode[Any, Any]):
    """One step: the action is a solution for every item. Reward [B]: minus length, or prize, or value."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._over = False

    def reset(self) -> Start[Any]:
        """Show the instances."""
        return Start([observation(i) for i in self.batch.items], public={"problem": self.batch.problem})

    def step(self, action: Any) -> Step[Any]:
        """Validate and score; an infeasible item earns `penalty` and its `info` says why."""
        if self._over:
            raise ProtocolError("the episode is over: a routing task takes one action, complete solutions for every item")
        rows = np.asarray(action)
        items = self.batch.items
        if rows.ndim != 2 or len(rows) != len(items):
            raise InfeasibleSolution(
                f"expected an action of shape [{len(items)}, L], got {rows.shape}; use sfumato_bqnco.tasks.encode"
            )
        reward = np.zeros(len(items))
        faults = [""] * len(items)
        for b, (item, row) in enumerate(zip(items, rows, strict=True)):
            try:
                value = validate.objective(item, decode(self.batch.problem, row))
                reward[b] = value if item.maximise else -value
            except InfeasibleSolution as error:
                reward[b], faults[b] = penalty(item), str(error)
        self._over = True
        done = np.ones(len(items), bool)
        return Step([], reward, done, ~done, {"faults": faults})

    def truth(self) -> Mapping[str, Any] | None:
        """References, for the evaluator."""
        return {"reference": [np.nan if i.reference is None else i.reference for i in self.batch.items]}


class RoutingTask(Task[Batch, Any, Any]):
    """Base of the tasks; `problem` names which."""

    batched = True
    max_steps = 1
    problem = "tsp"

    def __init__(self, config: TaskConfig | None = None) -> None:
        self.config = config or TaskConfig()

    def instances(self, ctx: Context) -> Iterable[Batch]:
        """Random item k follows the stream ("instances", k), whatever the batch; files and sets go by index."""
        source = self._source(ctx)
        for chunk in ctx.chunks():
            yield Batch(self.problem, tuple(self._referenced(source(k), k, ctx) for k in chunk))

    def start(self, instance: Batch, ctx: Context, rng: np.random.Generator) -> Episode[Any, Any]:
        """Begin; nothing in this world is random."""
        return OneShot(instance)

    def _source(self, ctx: Context) -> Any:
        c = self.config
        if c.files:
            items = [read(f) for f in c.files]
            wrong = [i.name for i in items if i.problem != self.problem]
            if wrong:
                raise InstanceError(f"expected files of {self.problem}, got others: {', '.join(wrong)}")
            return lambda k: self._pick(items, k, "files")
        if c.source in ("random", "clustered"):
            options = {"clustered": True} if c.source == "clustered" else {}
            if options and self.problem not in ("tsp", "cvrp"):
                raise InstanceError(f"clustered instances exist for tsp and cvrp, not for {self.problem}")

            def draw(k: int) -> Instance:
                arrays = generate.random_set(self.problem, ctx.stream("instances", k), 1, c.n, **options)
                return from_arrays(self.problem, arrays, 0, f"{self.problem}{c.n}-{k}")

            return draw
        if c.source == "published":
            return self._published(ctx)
        return self._library(ctx)

    @staticmethod
    def _pick(items: Sequence[Instance], k: int, what: str) -> Instance:
        if k >= len(items):
            raise InstanceError(
                f"expected an instance index below {len(items)} ({what}), got {k}; ask for fewer"
            )
        return items[k]

    def _published(self, ctx: Context) -> Any:
        n = self.config.n
        arrays = generate.published(self.problem, n)
        references: list[float] = []
        kind = "optimal" if self.problem == "tsp" else "LKH-3"
        if self.config.reference == "known":
            name = f"tsp{n}_seed777_optimal.csv" if self.problem == "tsp" else f"cvrp{n}_lkh3.csv"
            path = _data(ctx, f"routing/synthetic/{name}")
            with path.open() as handle:
                references = [float(row["reference_length"]) for row in csv.DictReader(handle)]

        def pick(k: int) -> Instance:
            if k >= generate.PUBLISHED_SIZE:
                raise InstanceError(
                    f"expected an index below {generate.PUBLISHED_SIZE} in a published set, got {k}"
                )
            item = from_arrays(self.problem, arrays, k, f"{self.problem}{n}-published-{k}")
            return attrs.evolve(item, reference=references[k], reference_kind=kind) if references else item

        return pick

    def _library(self, ctx: Context) -> Any:
        table = _data(ctx, "routing/best_known.csv")
        with table.open() as handle:
            rows = [r for r in csv.DictReader(handle) if r["problem"] == self.problem]
        rows = [r for r in rows if self.config.n_min <= int(r["dimension"]) <= self.config.n_max]
        if not rows:
            raise InstanceError(
                f"expected library instances of {self.problem} with {self.config.n_min} to {self.config.n_max} nodes, "
                "found none; widen n_min and n_max"
            )
        rows.sort(key=lambda r: (int(r["dimension"]), r["name"]))

        def pick(k: int) -> Instance:
            if k >= len(rows):
                raise InstanceError(
                    f"expected an index below {len(rows)} (library of {self.problem}), got {k}"
                )
            row = rows[k]
            item = read(Path(_data(ctx, f"routing/{row['file']}")))
            return attrs.evolve(
                item, reference=float(row["reference_value"]), reference_kind=row["reference_kind"]
            )

        return pick

    def _referenced(self, item: Instance, k: int, ctx: Context) -> Instance:
        if item.reference is not None and self.config.reference != "none":
            return item
        if self.config.reference != "search":
            return item
        value = search_reference(item, ctx.stream("reference", k), self.config.search_effort)
        return attrs.evolve(item, reference=value, reference_kind="search")


def search_reference(item: Instance, rng: np.random.Generator, effort: int) -> float:
    """Objective of a classical search of `effort` thousand steps: deterministic, near optimal at n = 100."""
    from .baselines import atsp_local, construct, cvrp_local, exact, op_local, tsp_local

    steps = effort * 1000
    plan: Plan
    if item.problem == "kp":
        assert item.value is not None and item.weight is not None
        found = exact.knapsack(item.value, item.weight, item.limit)
        plan = found if found is not None else construct.density_greedy(item.value, item.weight, item.limit)
    elif item.problem == "tsp":
        metric = item.metric()
        tour = tsp_local.iterated_local_search(
            metric, construct.farthest_insertion(metric), rng, n_kicks=steps
        )
        plan = [int(v) for v in tour]
    elif item.problem == "atsp":
        metric = item.metric()
        start = construct.nearest_neighbour(metric)
        plan = [int(v) for v in atsp_local.path_exchange(metric.full(), start, rng, n_kicks=steps)]
    elif item.problem == "cvrp":
        assert item.demand is not None
        plan = cvrp_local.string_removals(item.metric(), item.demand, item.limit, rng, n_iterations=5 * steps)
    elif item.problem == "cvrptw":
        raise InstanceError(
            "cvrptw has no deterministic search of our own to make a reference; use -t reference=known with files, or none"
        )
    else:
        assert item.prize is not None
        plan = op_local.ruin_recreate(item.metric(), item.prize, item.limit, rng, n_steps=steps // 4)
    return validate.objective(item, plan)


class TspTask(RoutingTask):
    """Euclidean TSP: shortest tour."""

    problem = "tsp"


class AtspTask(RoutingTask):
    """Asymmetric TSP: shortest directed tour over a cost matrix."""

    problem = "atsp"


class CvrpTask(RoutingTask):
    """Capacitated vehicle routing: shortest set of routes from the depot."""

    problem = "cvrp"


class CvrptwTask(RoutingTask):
    """Capacitated vehicle routing with time windows: least total distance; waiting is free, being late is not allowed.

    Random instances, or files of Solomon's and Gehring and Homberger's form.
    """

    problem = "cvrptw"


class OpTask(RoutingTask):
    """Orienteering: most prize within a length budget."""

    problem = "op"


class KpTask(RoutingTask):
    """0/1 knapsack: most value within the capacity."""

    problem = "kp"
