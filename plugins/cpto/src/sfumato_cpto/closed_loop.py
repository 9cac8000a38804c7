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


def study(
    make_scene: Callable[[np.random.Generator], Scene], make_driver: Callable[[], Driver], seeds: range
) -> dict[str, Any]:
    """Drive `seeds` and return the table row: contacts with interval, finished, speed, comfort, consistency, times.

    Every seed has its own world stream; the same seeds give the same scenes for every driver. Planning times are process
    CPU time per cycle beside the wall time, since machines are shared.
    """
    driver = make_driver()
    rows: list[dict[str, float]] = []
    statuses: Counter[str] = Counter()
    seconds: list[float] = []
    at_fault: list[int] = []
    violations: Counter[str] = Counter()
    certified: list[bool] = []
    cpu = time.process_time()
    for seed in seeds:
        rng = np.random.default_rng([seed, 0])
        world = drive(make_scene(rng), driver, rng)
        truth = {
            "ego": np.array(world.ego_log), "users": np.array(world.user_log), "finished": world.finished,
            "contacts": [{"at_fault": c.at_fault} for c in world.contacts], "dt": world.scene.dt,
            "has_goal": bool(np.isfinite(world.scene.goal_x)), "left_road": world.left_road,
            "goal_speed": float(world.scene.public["goal_speed"]), "ego_size": np.array(world.scene.size),
        }  # fmt: skip
        row = {name: value[0] for name, value in measures.from_truth(truth).items()}
        segments = np.full((len(driver.log), 2, 24), np.nan)
        for k, entry in enumerate(driver.log):
            if entry["segment"] is not None and entry["status"] in ("CONVERGED", "MAX_ITER_FEASIBLE"):
                segments[k] = entry["segment"][:, :24]
        n_consensus = driver.solver.settings.n_consensus
        row["c1"] = measures.consistency(segments, n_consensus + 1)
        row["c2"] = measures.consistency(segments, 21)
        rows.append(row)
        statuses.update(entry["status"] for entry in driver.log)
        violations.update(driver.monitor.violations)
        certified += [entry["certified"] for entry in driver.log if entry["certified"] is not None]
        seconds += [entry["plan_seconds"] for entry in driver.log]
        if row["at_fault"]:
            at_fault.append(seed)
    n = len(rows)
    cycles = sum(statuses.values())
    low, high = wilson(len(at_fault), n)
    ms = 1e3 * np.array(seconds)
    good = statuses["CONVERGED"] + statuses["MAX_ITER_FEASIBLE"]
    result: dict[str, Any] = {
        "seeds": n, "at_fault": len(at_fault), "at_fault_low": low, "at_fault_high": high, "at_fault_seeds": at_fault,
        "cycles": cycles, "statuses": dict(statuses), "feasible_share": good / max(cycles, 1),
        "certified_share": float(np.mean(certified)) if certified else None, "violations": dict(violations), "plan_ms_mean": float(ms.mean()), "plan_ms_p95": float(np.percentile(ms, 95)),
        "plan_ms_max": float(ms.max()), "cpu_ms_per_cycle": 1e3 * (time.process_time() - cpu) / max(cycles, 1),
    }  # fmt: skip
    for name in (
        "struck",
        "mean_speed",
        "speed_error",
        "mean_acceleration",
        "mean_jerk",
        "c1",
        "c2",
        "finished",
    ):
        values = [row[name] for row in rows if name in row]
        if values:
            result[name] = float(np.mean(values))
    for name in ("max_acceleration",):
        result[name] = float(max(row[name] for row in rows))
    for name in ("min_ttc", "min_clearance"):
        values = [row[name] for row in rows if name in row]
        if values:
            result[name] = float(min(values))
    return result
