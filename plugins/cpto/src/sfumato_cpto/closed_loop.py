"""Closed loops without the runner: drive seeds of a family with a driver, and gather the figures with intervals."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from sfumato_cpto import measures
from sfumato_cpto.driver import Driver
from sfumato_cpto.simulator.world import Scene, World

GOOD = ("CONVERGED", "MAX_ITER_FEASIBLE")
AVERAGES: dict[str, Callable[[list[float]], Any]] = {
    "struck": np.mean, "mean_speed": np.mean, "speed_error": np.mean, "mean_acceleration": np.mean,
    "mean_jerk": np.mean, "c1": np.mean, "c2": np.mean, "lateral_reversals": np.mean, "finished": np.mean,
    "left_road": np.mean, "gap": max, "max_acceleration": max, "max_jerk": max, "late_cycles": sum, "min_ttc": min, "min_clearance": min,
}  # fmt: skip


def drive(scene: Scene, driver: Driver, rng: np.random.Generator) -> World:
    """Drive one course to its end, or to the first contact that the vehicle is to blame for."""
    world = World(scene, rng)
    driver.reset(scene.public)
    while not (world.finished or world.timed_out):
        world.step(*driver.act(world.observe()))
        if any(contact.at_fault for contact in world.contacts):
            break
    return world


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson interval of a share; zero of n has the upper end z^2 / (n + z^2)."""
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def course(make_scene: Callable[[np.random.Generator], Scene], driver: Driver, seed: int) -> dict[str, Any]:
    """Drive one course and return its figures; the same seed gives the same scene for every driver.

    Planning times are wall times per cycle; `cpu_seconds` is process CPU time of the course with its simulation.
    """
    begun = time.process_time()
    rng = np.random.default_rng([seed, 0])
    world = drive(make_scene(rng), driver, rng)
    truth = {
        "ego": np.array(world.ego_log), "users": np.array(world.user_log), "finished": world.finished,
        "contacts": [{"at_fault": c.at_fault} for c in world.contacts], "dt": world.scene.dt,
        "has_goal": bool(np.isfinite(world.scene.goal_x)), "left_road": world.left_road,
        "goal_speed": float(world.scene.public["goal_speed"]), "ego_size": np.array(world.scene.size),
    }  # fmt: skip
    row: dict[str, Any] = {name: value[0] for name, value in measures.from_truth(truth).items()}
    segments = np.full((len(driver.log), 2, 24), np.nan)
    for k, entry in enumerate(driver.log):
        if entry["segment"] is not None and entry["status"] in GOOD:
            segments[k] = entry["segment"][:, :24]
    n_consensus = driver.solver.settings.n_consensus
    gaps = [entry["gap"] for entry in driver.log if entry["status"] in GOOD]
    certified = [entry["certified"] for entry in driver.log if entry["certified"] is not None]
    row |= {
        "seed": seed, "c1": measures.consistency(segments, n_consensus + 1), "c2": measures.consistency(segments, 21),
        "gap": max(gaps, default=0.0), "statuses": dict(Counter(entry["status"] for entry in driver.log)),
        "violations": dict(driver.monitor.violations), "n_certified": int(sum(certified)), "n_checked": len(certified),
        "late_cycles": sum(entry["seconds"] > world.scene.dt for entry in driver.log),
        "plan_ms": [round(1e3 * entry["plan_seconds"], 2) for entry in driver.log],
        "cpu_seconds": time.process_time() - begun,
    }  # fmt: skip
    return row


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the table row of courses: contacts with their Wilson interval, finished, speed, comfort, consistency, times."""
    statuses: Counter[str] = Counter()
    violations: Counter[str] = Counter()
    for row in rows:
        statuses.update(row["statuses"])
        violations.update(row["violations"])
    n, cycles = len(rows), sum(statuses.values())
    at_fault = [row["seed"] for row in rows if row["at_fault"]]
    low, high = wilson(len(at_fault), n)
    ms = np.concatenate([row["plan_ms"] for row in rows])
    checked = sum(row["n_checked"] for row in rows)
    result: dict[str, Any] = {
        "seeds": n, "first_seed": min(row["seed"] for row in rows), "at_fault": len(at_fault), "at_fault_low": low,
        "at_fault_high": high, "at_fault_seeds": at_fault, "cycles": cycles, "statuses": dict(statuses),
        "feasible_share": sum(statuses[name] for name in GOOD) / max(cycles, 1),
        "certified_share": sum(row["n_certified"] for row in rows) / checked if checked else None,
        "violations": dict(violations), "plan_ms_mean": float(ms.mean()),
        "plan_ms_p95": float(np.percentile(ms, 95)), "plan_ms_max": float(ms.max()),
        "cpu_ms_per_cycle": 1e3 * sum(row["cpu_seconds"] for row in rows) / max(cycles, 1),
    }  # fmt: skip
    for name, reduce in AVERAGES.items():
        values = [row[name] for row in rows if name in row]
        if values:
            result[name] = float(reduce(values))
    return result


def study(
    make_scene: Callable[[np.random.Generator], Scene],
    make_driver: Callable[[], Driver],
    seeds: range,
    keep: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Drive `seeds` and return their `summary`; `keep` is handed each course's row as soon as it is there."""
    driver = make_driver()
    rows = []
    for seed in seeds:
        rows.append(course(make_scene, driver, seed))
        if keep is not None:
            keep(rows[-1])
    return summary(rows)
