"""What `sfumato reproduce` measures. Each function returns value, low, high (95 % interval), n and details."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import generate, validate
from .errors import BqncoError
from .instances import from_arrays
from .readers import read


def _summary(values: NDArray[np.float64], **details: Any) -> dict[str, Any]:
    mean = float(np.mean(values))
    half = 1.96 * float(np.std(values, ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values), "details": details}


def _routing() -> Path:
    folder = Path(os.environ.get("SFUMATO_DATA", "")) / "routing"
    if not (folder / "best_known.csv").is_file():
        raise BqncoError(
            "this claim needs the instance files; set SFUMATO_DATA to the folder that holds routing/"
        )
    return folder


def _set(
    problem: str, n: int, count: int, published: bool
) -> tuple[dict[str, Any], NDArray[np.float64], str]:
    """Arrays, reference objectives and their kind: published ones, or long searches of our own."""
    if published:
        arrays = {k: a[:count] for k, a in generate.published(problem, n).items()}
        name = f"tsp{n}_seed777_optimal.csv" if problem == "tsp" else f"cvrp{n}_lkh3.csv"
        with (_routing() / "synthetic" / name).open() as handle:
            values = [float(r["reference_length"]) for r in csv.DictReader(handle)]
        return arrays, np.array(values[:count]), "optimal" if problem == "tsp" else "LKH-3"
    from .tasks import search_reference

    arrays = generate.random_set(problem, np.random.default_rng([2023, n]), count, n)
    items = [from_arrays(problem, arrays, b) for b in range(count)]
    if problem == "cvrptw":
        from .labels import label

        rows = [label(problem, n, 2023, b, 2000) for b in range(count)]
        arrays = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
        plans = [np.split(r["seq"], np.flatnonzero(r["starts"])[1:]) for r in rows]
        items = [from_arrays(problem, arrays, b) for b in range(count)]
        lengths = [validate.objective(i, [list(r) for r in p]) for i, p in zip(items, plans, strict=True)]
        return arrays, np.array(lengths), "PyVRP, 2100 iterations"
    effort = {"tsp": 20, "cvrp": 60, "op": 20, "atsp": 20, "kp": 1}[problem]
    kind = "exact" if problem == "kp" else f"our own search, effort {effort}"
    return arrays, np.array([search_reference(i, np.random.default_rng(1), effort) for i in items]), kind


def decoding_gap(
    problem: str = "tsp",
    n: int = 100,
    count: int = 32,
    width: int = 1,
    n_symmetries: int = 1,
    seconds: float = 0.0,
    neighbours: int = 250,
    published: bool = False,
    weights: str = "",
) -> dict[str, Any]:
    """Mean gap in per cent of the network's decoding. `seconds`: CPU seconds of re-construct for each instance."""
    import torch

    from .decode import Limits
    from .policy import BQPolicy

    torch.set_num_threads(1)
    limits = Limits(4096, neighbours)
    policy = (
        BQPolicy.load(weights, problem, limits=limits)
        if weights
        else BQPolicy.shipped(problem, limits=limits)
    )
    arrays, reference, kind = _set(problem, n, count, published)
    began = time.process_time()
    if seconds:
        cost = np.array(
            [
                policy.solve(
                    {k: a[b : b + 1] for k, a in arrays.items()},
                    width=width,
                    seconds=seconds,
                    rng=np.random.default_rng(b),
                    clock=time.process_time,
                ).cost[0]
                for b in range(count)
            ]
        )
    else:
        cost = policy.solve(arrays, width=width, n_symmetries=n_symmetries).cost
    used = (time.process_time() - began) / count
    sign = -1.0 if problem in ("op", "kp") else 1.0
    gap = 100.0 * sign * (sign * cost - reference) / np.abs(reference)
    # What a user has without any network, on the same instances.
    simple = {name: _simple_gap(problem, name, arrays, reference) for name in _SIMPLE[problem]}
    return _summary(
        gap, cpu_seconds_per_instance=used, reference=kind, parameters=policy.network.n_parameters, baselines=simple
    )


_SIMPLE = {
    "tsp": ("nearest-neighbour", "farthest-insertion", "2-opt"), "atsp": ("nearest-neighbour",), "cvrp": ("savings",),
    "cvrptw": ("time-insertion",), "op": ("prize-greedy",), "kp": ("density",),
}  # fmt: skip


def _simple_gap(
    problem: str, name: str, arrays: dict[str, Any], reference: NDArray[np.float64]
) -> float:
    """Mean gap in per cent of a construction to the same references."""
    from . import methods

    gaps = []
    for b, value in enumerate(reference):
        item = from_arrays(problem, arrays, b)
        plan = methods.run(name, item, 0.0, np.random.default_rng(b))
        sign = -1.0 if item.maximise else 1.0
        gaps.append(100.0 * sign * (validate.objective(item, plan) - value) / abs(value))
    return round(float(np.mean(gaps)), 4)


def beam_gain(problem: str = "tsp", n: int = 100, count: int = 32, width: int = 16) -> dict[str, Any]:
    """Plain minus merged beam, in per cent of the plain beam's length, paired; positive: merging is better."""
    import torch

    from .policy import BQPolicy

    torch.set_num_threads(1)
    policy = BQPolicy.shipped(problem)
    arrays = generate.random_set(problem, np.random.default_rng([2023, n]), count, n)
    plain = policy.solve(arrays, width=width, merge=False).cost
    merged = policy.solve(arrays, width=width)
    gain = 100.0 * (plain - merged.cost) / np.abs(plain)
    return _summary(
        gain,
        better=int((gain > 1e-9).sum()),
        worse=int((gain < -1e-9).sum()),
        merged_share=float(merged.merged),
        width=width,
    )


def classical_gap(
    problem: str = "cvrp",
    method: str = "string-removals",
    seconds: float = 10.0,
    n_max: int = 200,
    count: int = 100,
) -> dict[str, Any]:
    """Mean gap in per cent to the best known values of library files with at most `n_max` nodes."""
    from . import methods

    folder = _routing()
    with (folder / "best_known.csv").open() as handle:
        rows = [
            r for r in csv.DictReader(handle) if r["problem"] == problem and int(r["dimension"]) <= n_max
        ][:count]
    gaps, names = [], {}
    for row in rows:
        item = read(folder / row["file"])
        plan = methods.run(method, item, seconds, np.random.default_rng(0), None, time.process_time)
        best = float(row["reference_value"])
        sign = -1.0 if item.maximise else 1.0
        gaps.append(100.0 * sign * (validate.objective(item, plan) - best) / best)
        names[item.name] = round(gaps[-1], 3)
    return _summary(np.array(gaps), gaps=names, seconds=seconds)


def stated_solutions() -> dict[str, Any]:
    """Share of the library's own CVRP and OP solutions that re-evaluate to their stated value exactly."""
    from .readers import read_solution

    folder = _routing()
    right = []
    with (folder / "best_known.csv").open() as handle:
        for row in csv.DictReader(handle):
            path = folder / row["file"]
            suffix = {"cvrp": ".sol", "op": ".ea4op.sol"}.get(row["problem"])
            if suffix:
                plan, stated = read_solution(path.with_suffix(suffix))
                right.append(
                    float(validate.objective(read(path), plan) == stated == float(row["reference_value"]))
                )
    return _summary(np.array(right))
