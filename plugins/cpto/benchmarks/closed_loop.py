"""Closed loops of every family and driver: the table beside the baselines, on seeds that nothing was tuned on.

python benchmarks/closed_loop.py --rows courses.jsonl --json benchmarks/results/closed_loop.json [--only cruise] [--minutes 5]
    [--replay DATA/traffic] [--code COMMIT] [--table] [--claims src/sfumato_cpto/reproduce/results]

Every course is appended to `--rows` as soon as it has been driven, and courses that are there already are not driven
again, so that the study can be interrupted. Of each planner 200 courses, of each baseline 50, of IPOPT 5. Recorded scenes
(`--replay`, a folder with the scene files) are no random family: each is driven once. `--code` is written into every course. `--table`
drives nothing and prints the table of what is there as Markdown, with courses of claims where these are more.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sfumato_cpto import CPTOSolver, PlannerSettings
from sfumato_cpto.closed_loop import course, summary
from sfumato_cpto.config import REPLAY_SCENES
from sfumato_cpto.families import DRIVERS, FAMILIES, HELD_OUT, n_obstacles
from sfumato_cpto.simulator import replay
from sfumato_cpto.simulator.world import Scene
from sfumato_cpto.solvers import warmed

# Courses of claims, which stand for the code as it is: result, where in its details, family, driver.
CLAIMS = (
    ("cruise-contacts", "", "cruise", "planner"),
    ("intersection-contacts", "", "occluded-intersection", "planner"),
    ("pedestrian-contacts", "", "occluded-pedestrian", "planner"),
    ("faster-where-optimists-hit", "ours", "wet-intersection", "planner"),
    ("faster-where-optimists-hit", "worst_case", "wet-intersection", "worst-case"),
    ("faster-where-optimists-hit", "optimistic", "wet-intersection", "most-likely"),
    ("faster-than-worst-case", "ours", "tight-intersection", "uncertified"),
    ("faster-than-worst-case", "worst_case", "tight-intersection", "worst-case"),
    ("faster-than-worst-case", "optimistic", "tight-intersection", "most-likely"),
    ("steadier-than-reguessing", "ours", "occluded-pedestrian", "uncertified"),
    ("steadier-than-reguessing", "reguessing", "occluded-pedestrian", "re-guessing"),
    ("steadier-at-intersection", "ours", "occluded-intersection", "uncertified"),
    ("steadier-at-intersection", "reguessing", "occluded-intersection", "re-guessing"),
)
SEEDS = {"planner": 200, "uncertified": 200, "ipopt": 5, "control-tree": 20}


def _recorded(path: Path) -> Callable[[np.random.Generator], Scene]:
    return lambda rng: replay.from_file(path)


def markdown(table: dict[str, dict]) -> str:
    """Return the table: one row a family and driver, contacts with the upper end of the 95 % interval."""
    lines = [
        "| family | driver | at fault | finished | m/s | C1 | reversals | accel. | jerk | TTC | feasible | certified | ms | code |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for key, row in table.items():
        family, driver = key.rsplit(" ", 1)
        share = row.get("certified_share")
        finished = f"{row['finished']:.2f}" if "finished" in row else "–"
        lines.append(
            f"| {family} | {driver} | {row['at_fault']}/{row['seeds']} (≤ {100 * row['at_fault_high']:.1f} %) | {finished} | "
            f"{row['mean_speed']:.2f} | {100 * row['c1']:.2f} | {row['lateral_reversals']:.1f} | "
            f"{row['mean_acceleration']:.2f} / {row['max_acceleration']:.1f} | {row['mean_jerk']:.1f} | {row['min_ttc']:.1f} | "
            f"{row['feasible_share']:.3f} | {'–' if share is None else f'{share:.3f}'} | {row['cpu_ms_per_cycle']:.1f} | "
            f"{row.get('code', '')} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Drive what is missing, then write the table of what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, required=True, help="Courses, one JSON object a line.")
    parser.add_argument("--json", type=Path, help="The table.")
    parser.add_argument("--only", action="append", help="Family.")
    parser.add_argument("--driver", action="append")
    parser.add_argument("--seeds", type=int, help="Courses, in place of the numbers above.")
    parser.add_argument("--minutes", type=float, default=1e9, help="Stop after so long; run again to go on.")
    parser.add_argument("--replay", type=Path, help="Drive the recorded scenes in this folder, once each.")
    parser.add_argument("--code", default="", help="What the courses are driven by, for the table.")
    parser.add_argument("--table", action="store_true", help="Drive nothing, print Markdown.")
    parser.add_argument("--claims", type=Path, help="Folder with results of claims, for --table.")
    arguments = parser.parse_args()
    families = dict(FAMILIES)
    if arguments.replay:
        families = {f"replay {name}": _recorded(arguments.replay / f"{name}.xml") for name in REPLAY_SCENES}
    end = time.monotonic() + 60.0 * arguments.minutes
    known: dict[tuple[str, str], dict[int, dict]] = {}
    if arguments.rows.exists():
        for line in arguments.rows.read_text().splitlines():
            row = json.loads(line)
            known.setdefault((row["family"], row["driver"]), {})[row["seed"]] = row
    settings = PlannerSettings()
    if not arguments.table:
        warmed(settings)
    with arguments.rows.open("a") as stream:
        for name in () if arguments.table else arguments.driver or DRIVERS:
            for family in arguments.only or families:
                count = 1 if arguments.replay else arguments.seeds or SEEDS.get(name, 50)
                there = known.setdefault((family, name), {})
                driver = None
                for seed in range(HELD_OUT, HELD_OUT + count):
                    if seed in there or time.monotonic() > end:
                        continue
                    driver = driver or DRIVERS[name](CPTOSolver(settings), n_obstacles(family), 3)
                    row = {
                        "family": family,
                        "driver": name,
                        "code": arguments.code,
                        **course(families[family], driver, seed),
                    }
                    there[seed] = row
                    stream.write(json.dumps(row) + "\n")
                    stream.flush()
    table = {" ".join(key): summary(list(rows.values())) for key, rows in sorted(known.items()) if rows}
    for key, rows in known.items():
        if rows:
            table[" ".join(key)]["code"] = ", ".join(sorted({row.get("code", "") for row in rows.values()}))
    for claim, part, family, driver_name in CLAIMS:
        path = arguments.claims / f"{claim}.json" if arguments.claims else None
        if path is None or not path.exists():
            continue
        details = json.loads(path.read_text())["details"]
        details = details[part] if part else details
        key = f"{family} {driver_name}"
        if details["seeds"] >= table.get(key, {"seeds": 0})["seeds"]:
            table[key] = {**details, "code": "claim"}
    table = dict(sorted(table.items()))
    if arguments.table:
        print(markdown(table))
    for key, row in () if arguments.table else table.items():
        print(
            f"{key:<36}at fault {row['at_fault']}/{row['seeds']} (95 % up to {row['at_fault_high']:.3f})  finished "
            f"{row.get('finished', float('nan')):.2f}  speed {row['mean_speed']:.2f} m/s  C1 {100 * row['c1']:.2f} cm  "
            f"feasible {row['feasible_share']:.4f}  cpu {row['cpu_ms_per_cycle']:.1f} ms/cycle"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
