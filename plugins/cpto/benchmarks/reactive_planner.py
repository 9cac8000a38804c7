"""Recorded scenes driven by our planner and by commonroad-reactive-planner, in turn, on one machine.

python benchmarks/reactive_planner.py SCENES_FOLDER [--json results.json]

Needs `pip install commonroad-reactive-planner` in an environment of its own (it pins other packages than our extras do). Replan
every period of 0.1 s, one process, the reference path of commonroad-route-planner for both. Theirs checks its samples against
the recording itself, so it knows what the others will do; ours predicts constant velocity. Both are timed by process CPU
time per cycle.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from pathlib import Path

import numpy as np

from sfumato_cpto import CPTOSolver, PlannerSettings, State
from sfumato_cpto.closed_loop import drive
from sfumato_cpto.config import REPLAY_SCENES
from sfumato_cpto.driver import Driver
from sfumato_cpto.problem import Hypotheses, Obstacles
from sfumato_cpto.routes import planned_points
from sfumato_cpto.simulator import replay

warnings.filterwarnings("ignore")
logging.disable(logging.CRITICAL)


class Timed(Driver):
    """Notes process CPU time of every cycle."""

    cpu: list[float]

    def act(self, observation):  # type: ignore[no-untyped-def]
        """Act and take the time."""
        begun = time.process_time()
        command = super().act(observation)
        self.cpu.append(time.process_time() - begun)
        return command


def ours(path: Path) -> dict[str, object]:
    """Drive a scene with our planner."""
    driver = Timed(CPTOSolver(PlannerSettings()), 6, 3)
    driver.cpu = []
    world = drive(replay.from_file(path, route="commonroad"), driver, np.random.default_rng(0))
    ms = 1e3 * np.array(driver.cpu)
    return {
        "reached": bool(world.finished), "contacts": [bool(c.at_fault) for c in world.contacts], "cycles": len(ms),
        "ms_median": float(np.median(ms)), "ms_max": float(ms.max()),
        "mean_abs_acceleration": float(np.abs(np.array(world.ego_log)[1:, 6]).mean()),
    }  # fmt: skip


def _longer(points: np.ndarray, by: float = 150.0) -> np.ndarray:
    # Straight on at both ends, for their samples run past the goal.
    ahead, back = points[-1] - points[-2], points[0] - points[1]
    end = points[-1] + by * ahead / np.hypot(*ahead)
    start = points[0] + by * back / np.hypot(*back)
    steps = np.linspace(0.0, 1.0, 76)[1:, None]
    return np.concatenate(
        [(points[0] + steps * (start - points[0]))[::-1], points, points[-1] + steps * (end - points[-1])]
    )


def theirs(path: Path) -> dict[str, object]:
    """Drive a scene with the reactive planner."""
    from commonroad.common.file_reader import CommonRoadFileReader
    from commonroad_rp.reactive_planner import ReactivePlanner
    from commonroad_rp.utility.config import ReactivePlannerConfiguration
    from commonroad_rp.utility.utils_coordinate_system import create_coordinate_system

    scenario, problems = CommonRoadFileReader(str(path)).open()
    problem = next(iter(problems.planning_problem_dict.values()))
    config = ReactivePlannerConfiguration()
    config.planning.dt = scenario.dt
    config.planning.replanning_frequency = 1
    config.debug.multiproc = False
    config.update(scenario=scenario, planning_problem=problem)
    planner = ReactivePlanner(config)
    planner.set_reference_path(coordinate_system=create_coordinate_system(_longer(planned_points(path))))
    planner.record_state_and_input(planner.x_0)
    end = round(problem.goal.state_list[0].time_step.end)
    ms, failed = [], False
    while not planner.goal_reached() and planner.x_0.time_step < end:
        begun = time.process_time()
        planner.set_desired_velocity(current_speed=planner.x_0.velocity)
        found = planner.plan()
        ms.append(1e3 * (time.process_time() - begun))
        if not found:
            failed = True
            break
        planner.record_state_and_input(found[0].state_list[1])
        planner.reset(
            initial_state_cart=planner.record_state_list[-1], initial_state_curv=(found[1][1], found[2][1]),
            collision_checker=planner.collision_checker, coordinate_system=planner.coordinate_system,
        )  # fmt: skip
    speed = np.array([state.velocity for state in planner.record_state_list])
    return {
        "reached": bool(planner.goal_reached()), "no_plan": failed, "cycles": len(ms), "ms_median": float(np.median(ms)),
        "ms_max": float(max(ms)), "mean_abs_acceleration": float(np.abs(np.diff(speed) / scenario.dt).mean()),
    }  # fmt: skip


def main() -> None:
    """Drive every scene with both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    solver = CPTOSolver()
    solver.plan(
        State(0, 0, 0, 9), Obstacles([[15, 0.5]], [[6, 0]], [[5.6, 3.1]]), Hypotheses([[True]], [0.0], [9.0])
    )
    table: dict[str, dict[str, object]] = {}
    for name in REPLAY_SCENES:
        row: dict[str, object] = {}
        for who, run in (("ours", ours), ("reactive planner", theirs)):
            try:
                row[who] = run(arguments.folder / f"{name}.xml")
            except Exception as error:  # their failure on a scene is a result, too
                row[who] = {"error": f"{type(error).__name__}: {str(error)[:120]}"}
        table[name] = row
        print(name, json.dumps(row), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
