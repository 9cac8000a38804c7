"""Labelled training sets: random instances solved by this package's own classical searches, in resumable shards.

Every solver used here is ours (Apache-2.0), but for time windows, whose labels are PyVRP's (MIT; extra pyvrp): weights
trained on these labels carry no other licence. A shard is one
compressed npz file, put in place by a rename; a run that is killed goes on with the first shard that is missing.
Instance i of a set is drawn from the generator [seed, i] alone, so neither shard size nor number of processes shows.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import generate
from .distances import Metric

# Steps of search for each label; measured at n = 100: TSP 0.01 s and about 0.03 % from optimal, CVRP 0.2 s and 0.5 %.
EFFORT = {"tsp": 1500, "atsp": 2000, "cvrp": 60_000, "op": 1500, "kp": 0, "cvrptw": 500}


def label(problem: str, n: int, seed: int, index: int, effort: int) -> dict[str, NDArray[Any]]:
    """One labelled instance, as the arrays (without leading axis) that the samplers of `pieces` read."""
    from .baselines import atsp_local, construct, cvrp_local, exact, op_local, tsp_local

    rng = np.random.default_rng([seed, index])
    arrays = {k: np.asarray(a[0]) for k, a in generate.random_set(problem, rng, 1, n).items()}
    if problem == "tsp":
        metric = Metric("euclid", arrays["xy"])
        tour = tsp_local.iterated_local_search(
            metric, construct.farthest_insertion(metric), rng, n_kicks=effort
        )
        return {"xy": arrays["xy"].astype(np.float32), "tour": tour.astype(np.int16)}
    if problem == "atsp":
        metric = Metric("matrix", matrix=arrays["matrix"])
        tour = atsp_local.path_exchange(
            arrays["matrix"], construct.nearest_neighbour(metric), rng, n_kicks=effort
        )
        return {"matrix": arrays["matrix"].astype(np.float32), "tour": tour.astype(np.int16)}
    if problem in ("cvrp", "cvrptw"):
        metric = Metric("euclid", arrays["xy"])
        timed = {}
        if problem == "cvrp":
            routes = cvrp_local.string_removals(
                metric, arrays["demand"], float(arrays["capacity"]), rng, n_iterations=effort
            )
        else:
            routes = _timed_routes(arrays, rng, effort)
            timed = {k: arrays[k].astype(np.float32) for k in ("windows", "service")}
        starts = np.zeros(n, np.bool_)
        starts[np.cumsum([0, *map(len, routes)])[:-1]] = True
        return {
            "xy": arrays["xy"].astype(np.float32),
            "demand": arrays["demand"].astype(np.int16),
            "capacity": arrays["capacity"].astype(np.int32),
            "seq": np.array([v for r in routes for v in r], np.int16),
            "starts": starts,
            **timed,
        }
    if problem == "op":
        metric = Metric("euclid", arrays["xy"])
        path = op_local.ruin_recreate(metric, arrays["prize"], float(arrays["budget"]), rng, n_steps=effort)
        padded = np.full(n, -1, np.int16)
        padded[: len(path)] = path
        return {
            "xy": arrays["xy"].astype(np.float32),
            "prize": arrays["prize"].astype(np.float32),
            "budget": arrays["budget"].astype(np.float32),
            "path": padded,
        }
    items = exact.knapsack(arrays["value"], arrays["weight"], float(arrays["capacity"]))
    assert items is not None
    chosen = np.zeros(n, np.bool_)
    chosen[items] = True
    return {k: arrays[k].astype(np.float32) for k in ("value", "weight", "capacity")} | {"chosen": chosen}


def _timed_routes(arrays: dict[str, NDArray[Any]], rng: np.random.Generator, effort: int) -> list[list[int]]:
    """Routes by PyVRP from sequential insertion, after `effort` and a hundred iterations (not seconds: repeatable)."""
    from .baselines import external
    from .instances import from_arrays
    from .methods import method, run

    method("pyvrp", "cvrptw")
    item = from_arrays("cvrptw", {k: a[None] for k, a in arrays.items()}, 0)
    start = run("time-insertion", item, 0.0, rng)
    ticks = itertools.count()
    return external.pyvrp(item, float(effort + 100), rng, lambda plan: None, start, lambda: float(next(ticks)))


def _shard(problem: str, n: int, seed: int, first: int, last: int, effort: int) -> dict[str, NDArray[Any]]:
    rows = [label(problem, n, seed, i, effort) for i in range(first, last)]
    return {k: np.stack([r[k] for r in rows]) for k in rows[0]}


def generate_labels(
    problem: str,
    n: int,
    count: int,
    folder: str | Path,
    *,
    seed: int = 0,
    effort: int | None = None,
    shard_size: int = 500,
    n_jobs: int = 1,
    report: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `count` labelled instances as shards into `folder`; existing shards are kept. Returns all shard paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    effort = EFFORT[problem] if effort is None else effort
    bounds = [(a, min(a + shard_size, count)) for a in range(0, count, shard_size)]
    paths = [folder / f"{problem}{n}-s{seed}-e{effort}-{a:07d}-{b:07d}.npz" for a, b in bounds]
    missing = [(p, ab) for p, ab in zip(paths, bounds, strict=True) if not p.exists()]
    done = len(paths) - len(missing)

    def put(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
        nonlocal done
        temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)
        done += 1
        if report:
            report(done, len(paths))

    if n_jobs == 1:
        for path, (a, b) in missing:
            put(path, _shard(problem, n, seed, a, b, effort))
    else:
        with ProcessPoolExecutor(n_jobs) as pool:
            jobs = [(path, pool.submit(_shard, problem, n, seed, a, b, effort)) for path, (a, b) in missing]
            for path, job in jobs:
                put(path, job.result())
    return paths


def load_labels(paths: list[Path]) -> dict[str, NDArray[Any]]:
    """Concatenate shards into the arrays that a `Trainer` takes."""
    parts = []
    for path in paths:
        with np.load(path, allow_pickle=False) as archive:
            parts.append({k: archive[k] for k in archive.files})
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
