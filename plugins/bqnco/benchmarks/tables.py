"""Gap against time at equal CPU seconds, five seeds, for ours and the peers: random, clustered, TSPLIB and set X.

    python benchmarks/tables.py run [--budget 300] [--only cvrp-random ...]     # resumable: goes on where it stopped
    python benchmarks/tables.py show                                            # Markdown, from the committed results
    python benchmarks/tables.py claims                                          # the network's own table, likewise

One process, one thread; limits are process CPU seconds. Within an instance and seed the methods run one after another,
so a change of the machine's load meets all of them. Every method runs once to its longest limit and its incumbents are
read at the shorter ones, except HGS and fast-tsp, which report none on the way: they run once for every limit, and
their primal integral is the step function through those runs. fast-tsp and OR-Tools stop by wall time: they get the
limit divided by the share of a core that this process is getting, and OR-Tools' incumbents are read by CPU time.
Settings are the packages' defaults with what their own guides advise (see `baselines/external.py`). A seed is one random
instance and the solver's seed; on library instances the solver's seed alone. fast-tsp takes no seed.

`pyvrp<savings` and `pyvrp<model` hand PyVRP an initial solution whose CPU seconds count towards the limit.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from pathlib import Path

import numpy as np
from library import core_share

from sfumato_bqnco import generate, methods
from sfumato_bqnco.baselines import cvrp_local, external
from sfumato_bqnco.evaluators import primal_integral
from sfumato_bqnco.instances import from_arrays
from sfumato_bqnco.readers import read
from sfumato_bqnco.solvers import _rehearse as rehearse
from sfumato_bqnco.validate import objective

RESULTS = Path(os.environ.get("BQNCO_TABLES", Path(__file__).parent / "results" / "tables.json"))
SEEDS = int(os.environ.get("BQNCO_SEEDS", "5"))
LADDER = ("hgs", "fast-tsp")
TSP = ("policy", "iterated-2-opt", "fast-tsp", "pyvrp", "ortools")
CVRP = ("policy", "string-removals", "hgs", "pyvrp", "ortools")
# Table: problem, instances (of the library, or how the random ones are drawn), limits in CPU seconds, methods.
TABLES = {
    "tsp-random": ("tsp", "random", (0.1, 1.0), TSP),
    "tsp-clustered": ("tsp", "clustered", (0.1, 1.0), TSP),
    "cvrp-random": ("cvrp", "random", (0.3, 1.0), CVRP),
    "cvrp-clustered": ("cvrp", "clustered", (0.3, 1.0), CVRP),
    "tsplib": ("tsp", ("eil51", "kroA100", "ch130", "a280", "lin318", "pcb442"), (0.5, 3.0), TSP),
    "tsplib-clustered": ("tsp", ("pr152", "d198"), (0.5, 3.0), TSP),
    "x": ("cvrp", ("X-n101-k25", "X-n110-k13", "X-n242-k48"), (1.0, 5.0), CVRP),
    "x-clustered": ("cvrp", ("X-n153-k22", "X-n200-k36", "X-n303-k21"), (1.0, 5.0), CVRP),
    "warm": ("cvrp", ("X-n101-k25", "X-n110-k13", "X-n153-k22", "X-n200-k36", "X-n303-k21"), (1.0, 5.0, 20.0),
             ("pyvrp", "pyvrp<savings", "pyvrp<model")),
}  # fmt: skip
WORDS = {"policy": "network: merged beam 4, re-construct", "ortools": "OR-Tools, guided local search",
         "pyvrp": "PyVRP", "hgs": "HGS-CVRP", "iterated-2-opt": "2-opt/Or-opt with kicks (ours)",
         "string-removals": "string removals (ours)", "pyvrp<savings": "PyVRP from savings",
         "pyvrp<model": "PyVRP from the network"}  # fmt: skip

_policies = {}


def policy(problem):
    import torch

    from sfumato_bqnco.policy import BQPolicy

    torch.set_num_threads(1)
    if problem not in _policies:
        _policies[problem] = BQPolicy.shipped(problem)
        # Load what is compiled, so that no cell pays for it.
        tiny = generate.random_set(problem, np.random.default_rng(0), 1, 8)
        _policies[problem].solve(tiny, width=4, n_rounds=2, rng=np.random.default_rng(0))
    return _policies[problem]


def curve(method, item, limit, seed):
    """Incumbents [(CPU seconds, objective)] of one run to `limit`, the last one validated, and the start's value."""
    rng = np.random.default_rng(seed)
    solver = policy(item.problem) if method in ("policy", "pyvrp<model") else None
    granted = limit / core_share() * (1.3 if method == "ortools" else 1.0)
    heard = []
    began = time.process_time()

    def now():
        return time.process_time() - began

    def report(plan):
        heard.append((now(), objective(item, plan)))

    start = None
    if method == "policy":
        plan = solver.solve(
            item.arrays(), width=4, seconds=limit, rng=rng, clock=time.process_time,
            on_round=lambda costs: heard.append((now(), float(costs[0]))),
        ).solutions[0]  # fmt: skip
    elif "<" in method:
        if method.endswith("savings"):
            first = cvrp_local.savings(item.metric(), item.demand, item.limit)
        else:
            first = solver.solve(item.arrays(), width=4).solutions[0]
        report(first)
        start = heard[0][1]
        plan = external.pyvrp(item, max(limit - now(), 0.01), rng, report, first, time.process_time)
    else:
        wall = method in ("fast-tsp", "ortools")
        plan = methods.run(method, item, granted if wall else limit, rng, report, time.process_time)
    heard.append((now(), objective(item, plan)))
    return heard, start


def cell(method, item, limits, seed):
    """Objective at each limit (None: nothing yet), the incumbents, the start's objective, CPU and wall seconds."""
    if method in methods.METHODS:
        rehearse(item, method)
    wall, cpu = time.perf_counter(), time.process_time()
    start = None
    if method in LADDER:
        points = []
        for limit in limits:
            heard, _ = curve(method, item, limit, seed)
            points.append((max(heard[-1][0], limit), heard[-1][1]))
        at = [min(v for _, v in points[: k + 1]) for k in range(len(limits))]
    else:
        points, start = curve(method, item, limits[-1], seed)
        # A step may end a little after a limit; what it finds later than that does not count.
        at = [min((v for t, v in points if t <= limit * 1.02), default=None) for limit in limits]
    best, steps = np.inf, []
    for t, v in points:
        if v < best - 1e-9:
            best = v
            steps.append((round(t, 4), round(v, 6)))
    if len(steps) > 30:
        steps = [steps[i] for i in np.unique(np.geomspace(1, len(steps), 30).astype(int) - 1)]
    used = time.process_time() - cpu
    return {"at": at, "steps": steps, "start": start, "cpu": round(used, 2), "wall": round(time.perf_counter() - wall, 2)}


def instance(problem, where, seed, folder):
    """The instance `where` names: a library file, or the random or clustered one of this seed, n = 100."""
    if where not in ("random", "clustered"):
        return read(folder / problem / f"{where}.{'tsp' if problem == 'tsp' else 'vrp'}")
    arrays = generate.random_set(problem, np.random.default_rng([2026, seed]), 1, 100, clustered=where == "clustered")
    return from_arrays(problem, arrays, 0, f"{problem}100-{where}-{seed}")


def cells(only):
    """All cells, seeds outermost, so that a run that is stopped has seen every table; the dear warm starts come last."""
    for late, seed in ((late, seed) for late in (False, True) for seed in range(SEEDS)):
        for table, (problem, places, limits, names) in TABLES.items():
            if (table == "warm") != late or (only and table not in only):
                continue
            for where in (places,) if isinstance(places, str) else places:
                if isinstance(places, str):
                    yield table, problem, where, limits, "reference", seed
                for method in names:
                    yield table, problem, where, limits, method, seed


def run(budget, only):
    """Measure the missing cells until `budget` CPU seconds of this process are used."""
    folder = Path(os.environ["SFUMATO_DATA"]) / "routing"
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    done = {(r["table"], r["where"], r["method"], r["seed"]) for r in rows}
    for table, problem, where, limits, method, seed in cells(only):
        if (table, where, method, seed) in done:
            continue
        if time.process_time() > budget:
            print("budget used; run again to go on")
            return
        item = instance(problem, where, seed, folder)
        if method == "reference":
            strong = {"tsp": ("iterated-2-opt", 1.0), "cvrp": ("hgs", 3.0)}[problem]
            plan = methods.run(strong[0], item, strong[1], np.random.default_rng(99), None, time.process_time)
            found = {"at": [objective(item, plan)]}
        else:
            found = cell(method, item, limits, seed)
        rows.append({"table": table, "where": where, "method": method, "seed": seed, **found})
        temporary = RESULTS.with_suffix(".tmp")
        temporary.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
        temporary.replace(RESULTS)
        print(table, where, method, seed, found["at"], flush=True)
    print("complete")


def show():
    """Markdown tables: gap and primal integral, mean over instances (each the mean over its seeds) ± standard error.

    The error is over instances where there are three or more, else over seeds. Where a method has nothing by a limit on
    some runs, their number is printed and the rest is averaged.
    """
    rows = json.loads(RESULTS.read_text())
    known = {}
    if os.environ.get("SFUMATO_DATA"):
        with (Path(os.environ["SFUMATO_DATA"]) / "routing" / "best_known.csv").open() as handle:
            known = {r["name"]: float(r["reference_value"]) for r in csv.DictReader(handle)}

    def reference(row):
        same = [r for r in rows if r["table"] == row["table"] and r["where"] == row["where"] and r["seed"] == row["seed"]]
        return known.get(row["where"]) or min(v for r in same for v in r["at"] if v is not None)

    def gap(row, k):
        return 100 * (row["at"][k] / reference(row) - 1)

    def mean(some, figure, places):
        """Mean ± standard error of `figure` over the runs `some`."""
        one_each = isinstance(places, str)
        by = {}
        for r in some:
            by.setdefault(r["seed"] if one_each else r["where"], []).append(figure(r))
        return spread([np.mean(v) for v in by.values()] if one_each or len(by) > 2 else [figure(r) for r in some])

    for table, (_, places, limits, names) in TABLES.items():
        mine = [r for r in rows if r["table"] == table and r["method"] != "reference"]
        if not mine:
            continue
        # Only seeds that every method of the instance has seen: the comparison stays paired.
        seen = [{(r["where"], r["seed"]) for r in mine if r["method"] == m} for m in names]
        paired = set.intersection(*[cells for cells in seen if cells])
        mine = [r for r in mine if (r["where"], r["seed"]) in paired]
        per = [len({s for w, s in paired if w == where}) for where in {w for w, _ in paired}]
        where = "n = 100, an instance a seed" if isinstance(places, str) else ", ".join(w for w in places if w in {c[0] for c in paired})
        seeds = f"{min(per)} to {max(per)}" if min(per) < max(per) else f"{max(per)}"
        print(f"\n**{table}** ({where}; seeds: {seeds}); gap in %\n")
        print("| method | " + " | ".join(f"{t:g} s" for t in limits) + f" | primal integral to {limits[-1]:g} s | runs |")
        print("|---|" + "---|" * (len(limits) + 2))
        for method in names:
            some = [r for r in mine if r["method"] == method]
            if not some:
                continue
            columns = []
            for k in range(len(limits)):
                there = [r for r in some if r["at"][k] is not None]
                missing = f"none on {len(some) - len(there)}" if len(there) < len(some) else ""
                value = mean(there, lambda r, k=k: gap(r, k), places) if there else ""
                columns.append(f"{missing}; else {value}" if missing and value else missing or value)
            area = mean(some, lambda r, end=limits[-1]: primal(r, reference(r), end), places)
            print(f"| {WORDS.get(method, method)} | " + " | ".join(columns) + f" | {area} | {len(some)} |")
        if table == "warm":
            at = {(r["method"], r["where"], r["seed"]): r for r in mine}
            for method in names[1:]:
                deltas = []
                for k in range(len(limits)):
                    both = [(at[method, *c], at["pyvrp", *c]) for c in sorted(paired)]
                    both = [(ours, cold) for ours, cold in both if None not in (ours["at"][k], cold["at"][k])]
                    fewer = f" ({len(both)} runs)" if len(both) < len(paired) else ""
                    deltas.append(spread([gap(ours, k) - gap(cold, k) for ours, cold in both]) + fewer)
                print(f"| {WORDS[method]}, less cold (paired) | " + " | ".join(deltas) + f" | | {len(paired)} |")


def claims():
    """The network's decoders beside simple constructions on the same instances, from the claims' committed results."""
    import tomllib

    from sfumato_bqnco import reproduce

    folder = Path(next(iter(reproduce.__path__)))
    print("| claim | gap, % (95 % interval) | instances | CPU s each | on the same instances |\n|---|---|---|---|---|")
    for path in sorted(folder.glob("cpu-*.toml")):
        result = folder / "results" / f"{path.stem}.json"
        if not result.exists():
            continue
        title = tomllib.loads(path.read_text())["title"].split(" (scaled")[0]
        r = json.loads(result.read_text())
        near = ", ".join(f"{k} {v:.3g}" for k, v in r["details"].get("baselines", {}).items())
        used = r["details"]["cpu_seconds_per_instance"]
        figures = f"{r['value']:.3g} ({r['low']:.3g} to {r['high']:.3g})"
        print(f"| {title} | {figures} | {r['n']} | {used:.2g} | {near} |")


def primal(row, reference, limit):
    times, values = (np.array([s[k] for s in row["steps"]]) for k in (0, 1))
    return primal_integral(times, values, reference, limit)


def spread(values):
    if len(values) < 2:
        return f"{np.mean(values):.2f}"
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("run", "show", "claims"))
    parser.add_argument("--budget", type=float, default=1e9, help="CPU seconds of this call.")
    parser.add_argument("--only", nargs="*", choices=TABLES, default=[])
    a = parser.parse_args()
    if a.action == "run":
        run(a.budget, a.only)
    elif a.action == "show":
        show()
    else:
        claims()


if __name__ == "__main__":
    main()
