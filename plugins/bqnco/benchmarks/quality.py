"""Gap against CPU seconds on random TSP100 and CVRP100: the network's decoders beside the classical methods.

    python benchmarks/quality.py [tsp] [cvrp] [--instances 16] [--markdown]

Every instance has a fixed seed; references are long runs of this package's own searches, so a gap below zero can occur
for the CVRP. Gap: mean over instances of (length / reference - 1), in per cent, with the standard error. Seconds:
process CPU time per instance, one thread. The decoders run on the whole batch; "latency" repeats greedy on one instance.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import time

import numpy as np
import torch

from sfumato_bqnco import generate, methods
from sfumato_bqnco.decode import Limits
from sfumato_bqnco.env import environment
from sfumato_bqnco.instances import from_arrays
from sfumato_bqnco.policy import BQPolicy
from sfumato_bqnco.tasks import search_reference
from sfumato_bqnco.validate import objective


def cpu(function):
    began = time.process_time()
    out = function()
    return out, time.process_time() - began


def stats(costs, reference):
    gaps = 100 * (np.asarray(costs) / reference - 1)
    return gaps.mean(), gaps.std(ddof=1) / np.sqrt(len(gaps))


def with_network(problem, arrays, count, seconds, add, rows):
    """Rows of the network's own decoders."""
    policy = BQPolicy.shipped(problem, limits=Limits(4096, 250))
    policy.solve({k: a[:1] for k, a in arrays.items()})
    result, used = cpu(lambda: policy.solve(arrays))
    add("network, greedy", result.cost, used / count)
    one = environment(problem, {k: a[:1] for k, a in arrays.items()})
    _, used = cpu(lambda: policy.solve(one))
    rows[-1]["note"] = f"latency of one: {used:.3f} s"
    result, used = cpu(lambda: policy.solve(arrays, n_symmetries=8))
    add("network, best of 8 symmetries", result.cost, used / count)
    plain, used = cpu(lambda: policy.solve(arrays, width=16, merge=False))
    add("network, plain beam 16", plain.cost, used / count)
    result, used = cpu(lambda: policy.solve(arrays, width=16))
    better, worse = int((result.cost < plain.cost - 1e-9).sum()), int((result.cost > plain.cost + 1e-9).sum())
    add(
        "network, merged beam 16",
        result.cost,
        used / count,
        f"better than plain on {better}, worse on {worse}; {100 * result.merged:.1f} % of kept beams merged",
    )
    for limit in seconds:
        costs, began = [], time.process_time()
        for b in range(count):
            env = environment(problem, {k: a[b : b + 1] for k, a in arrays.items()})
            rng = np.random.default_rng(b)
            costs.append(policy.solve(env, seconds=limit, rng=rng, clock=time.process_time).cost[0])
        add(f"network, re-construct {limit:g} s", costs, (time.process_time() - began) / count)


def rows_of(problem, n, count, seconds, effort, network):
    arrays = generate.random_set(problem, np.random.default_rng(20260), count, n)
    items = [from_arrays(problem, arrays, b) for b in range(count)]
    reference = np.array([search_reference(i, np.random.default_rng(1), effort) for i in items])
    rows = []

    def add(name, costs, used, note=""):
        mean, error = stats(costs, reference)
        rows.append({"method": name, "gap": mean, "error": error, "cpu_seconds": used, "note": note})
        print(f"{problem}{n} {name:<28} {mean:7.3f} ± {error:.3f} %  {used:8.4f} s  {note}", flush=True)

    if network:
        with_network(problem, arrays, count, seconds, add, rows)
    classical = [
        (m, 0.0)
        for m in methods.METHODS.values()
        if problem in m.problems and not m.anytime and m.name != "lkh"
    ]
    classical += [
        (m, limit)
        for m in methods.METHODS.values()
        if problem in m.problems and m.anytime and m.installed and m.name != "cp-sat"
        for limit in (seconds if problem == "cvrp" else (0.01, 0.1, 1.0))
    ]
    for method, limit in classical:
        methods.run(method.name, items[0], max(limit / 10, 0.01), np.random.default_rng(0))
        clock = time.process_time
        costs, began = [], time.process_time()
        for b, item in enumerate(items):
            try:
                plan = methods.run(method.name, item, limit, np.random.default_rng(b), None, clock)
            except RuntimeError as error:
                print(f"{problem}{n} {method.name}, {limit:g} s: {error}", flush=True)
                break
            costs.append(objective(item, plan))
        if len(costs) < count:
            continue
        add(
            method.name + (f", {limit:g} s" if method.anytime else ""),
            costs,
            (time.process_time() - began) / count,
            "limit in wall seconds" if method.name in ("fast-tsp", "ortools") else "",
        )
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("problems", nargs="*", default=["tsp", "cvrp"])
    parser.add_argument("--instances", type=int, default=16)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--seconds", type=float, nargs="*", default=[1.0, 3.0])
    parser.add_argument("--no-network", action="store_true", help="Classical rows only.")
    parser.add_argument("--effort", type=int, default=40)
    parser.add_argument("-o", "--output")
    a = parser.parse_args()
    torch.set_num_threads(1)
    report = {
        "machine": platform.processor() or platform.machine(),
        "threads": 1,
        "instances": a.instances,
        "n": a.n,
    }
    for problem in a.problems:
        report[problem] = rows_of(problem, a.n, a.instances, a.seconds, a.effort, not a.no_network)
    report["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    if a.output:
        with open(a.output, "w") as handle:
            json.dump(report, handle, indent=1)


if __name__ == "__main__":
    main()
