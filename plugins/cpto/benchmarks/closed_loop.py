"""Closed loops of every family and driver: the table beside the baselines. Each row is written as soon as it is there.

python benchmarks/closed_loop.py --seeds 50 --baseline-seeds 20 --json table.json [--only cruise]
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

from sfumato_cpto import CPTOSolver, PlannerSettings, baselines
from sfumato_cpto.closed_loop import study
from sfumato_cpto.driver import Driver
from sfumato_cpto.simulator import scenes
from sfumato_cpto.solvers import warmed

FAMILIES = {
    "cruise": scenes.cruise,
    "racing": scenes.racing,
    "noisy": scenes.noisy,
    "occluded-intersection": scenes.occluded_intersection,
    "occluded-pedestrian": scenes.occluded_pedestrian,
    "dense": partial(scenes.cruise, n_cars=26, slow=True),
}
DRIVERS = {
    "planner": partial(Driver, certified=True),
    "uncertified": Driver,
    "independent": baselines.IndependentDriver,
    "worst-case": baselines.WorstCaseDriver,
    "most-likely": baselines.MostLikelyDriver,
    "control-tree": baselines.ControlTreeDriver,
    "ipopt": baselines.IpoptDriver,
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--baseline-seeds", type=int, default=10)
    parser.add_argument("--only", action="append")
    parser.add_argument("--driver", action="append")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = PlannerSettings()
    warmed(settings)
    table = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else {}
    for family in arguments.only or FAMILIES:
        for name in arguments.driver or DRIVERS:
            n = arguments.seeds if name == "planner" else 5 if name == "ipopt" else arguments.baseline_seeds
            m = 10 if family == "dense" else 6
            row = study(FAMILIES[family], lambda: DRIVERS[name](CPTOSolver(settings), m, 3), range(n))  # noqa: B023
            table[f"{family} {name}"] = row
            print(
                f"{family:<22}{name:<14}at fault {row['at_fault']}/{n} (95 % up to {row['at_fault_high']:.3f})  finished "
                f"{row.get('finished', float('nan')):.2f}  speed {row['mean_speed']:.2f} m/s  C1 {100 * row['c1']:.2f} cm  "
                f"feasible {row['feasible_share']:.4f}  cpu {row['cpu_ms_per_cycle']:.1f} ms/cycle",
                flush=True,
            )
            if arguments.json:
                arguments.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
