"""CVRPLIB set X: gap to best known at equal seconds, classical methods and PyVRP cold or warm-started.

    python benchmarks/library.py [--seconds 1 5] [--methods ...] [--instances X-n101-k25 ...] -o results/x.json

Rows alternate over the methods instance by instance, one process, one thread. Limits are process CPU seconds: our own
methods, PyVRP and HGS count them themselves; OR-Tools counts wall time, so its limit is divided by the share of a core
that this process is getting, measured just before. The CPU seconds really used stand beside each gap. Warm starts
("pyvrp<savings", "pyvrp<removals", "pyvrp<model") give PyVRP its initial solution; the time of the start is deducted
from its limit. Settings are the packages' defaults.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from pathlib import Path

import numpy as np

from sfumato_bqnco import methods
from sfumato_bqnco.baselines import cvrp_local, external
from sfumato_bqnco.readers import read
from sfumato_bqnco.validate import objective

STAGED = ["X-n101-k25", "X-n110-k13", "X-n125-k30", "X-n153-k22", "X-n200-k36"]


def core_share():
    """Share of a core that this process gets just now, from a short spin."""
    cpu, wall = time.process_time(), time.perf_counter()
    while time.perf_counter() - wall < 0.3:
        pass
    return max((time.process_time() - cpu) / (time.perf_counter() - wall), 0.05)


def warm(item, kind, seconds, rng):
    """PyVRP from a construction, the construction's seconds deducted."""
    began = time.process_time()
    start = None
    if kind == "savings":
        start = cvrp_local.savings(item.metric(), item.demand, item.limit)
    elif kind == "removals":
        start = cvrp_local.string_removals(
            item.metric(), item.demand, item.limit, rng, seconds=0.2 * seconds, clock=time.process_time
        )
    elif kind == "model":
        from sfumato_bqnco.policy import BQPolicy

        start = BQPolicy.shipped("cvrp").solve(item.arrays()).solutions[0]
    first = objective(item, start)
    left = max(seconds - (time.process_time() - began), 0.01)
    return external.pyvrp(item, left, rng, lambda plan: None, start, time.process_time), first


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, nargs="*", default=[1.0, 5.0])
    parser.add_argument(
        "--methods", nargs="*", default=["string-removals", "pyvrp", "hgs", "ortools", "pyvrp<savings"]
    )
    parser.add_argument("--instances", nargs="*", default=STAGED)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("-o", "--output")
    a = parser.parse_args()
    folder = Path(os.environ["SFUMATO_DATA"]) / "routing"
    with (folder / "best_known.csv").open() as handle:
        best = {
            r["name"]: float(r["reference_value"]) for r in csv.DictReader(handle) if r["problem"] == "cvrp"
        }
    rows = []
    for name in a.instances:
        item = read(folder / "cvrp" / f"{name}.vrp")
        for seconds in a.seconds:
            for method in a.methods:
                for seed in range(a.seeds):
                    rng = np.random.default_rng(seed)
                    granted = seconds / core_share() if method == "ortools" else seconds
                    cpu, wall = time.process_time(), time.perf_counter()
                    first = None
                    if "<" in method:
                        plan, first = warm(item, method.split("<")[1], seconds, rng)
                    else:
                        plan = methods.run(method, item, granted, rng, None, time.process_time)
                    gap = 100 * (objective(item, plan) / best[name] - 1)
                    row = {
                        "instance": name, "method": method, "limit": seconds, "seed": seed, "gap": gap,
                        "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall,
                        "start_gap": None if first is None else 100 * (first / best[name] - 1),
                    }  # fmt: skip
                    rows.append(row)
                    print(
                        f"{name} {method:<16} limit {seconds:4g} s  gap {gap:6.2f} %  cpu {row['cpu']:6.2f} s",
                        flush=True,
                    )
    print("\nmean over instances")
    for seconds in a.seconds:
        for method in a.methods:
            some = [r for r in rows if r["method"] == method and r["limit"] == seconds]
            gap, cpu = (float(np.mean([r[k] for r in some])) for k in ("gap", "cpu"))
            print(f"{method:<16} limit {seconds:4g} s  gap {gap:6.2f} %  cpu {cpu:6.2f} s")
    if a.output:
        Path(a.output).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
