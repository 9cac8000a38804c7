"""Write a driven course as a CommonRoad solution, with the standard library.

The vehicle is the kinematic single-track model (KS): its yaw rate v tan(delta) / L is that of our unicycle, so the course
is carried over exactly and the steering angle follows from it.

Format: CommonRoad solution files 2020a; Althoff, Koschi, Manzinger (IV 2017).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np

from sfumato_cpto.admm import Array
from sfumato_cpto.commonroad import RoadScene, SceneError

WHEELBASE = {1: 2.3914, 2: 2.5789, 3: 2.5200}  # m, of CommonRoad's vehicles 1 to 3
SLOW = 0.1  # m/s; below it the steering angle says nothing and is held
STEERING_MAX = 1.066  # rad


def states(ego: Array, wheelbase: float) -> Array:
    """Return rows (x, y, steering angle, velocity, orientation) [T, 5] from ego rows [T, 7] (t, x, y, heading, speed, yaw
    rate, acceleration). The state of a row carries the command that leads to the next one."""
    x, y, heading, speed = ego[:, 1], ego[:, 2], ego[:, 3], ego[:, 4]
    turn = np.append(ego[1:, 5], ego[-1, 5])
    pace = np.append(ego[1:, 4], ego[-1, 4])
    steering = np.where(pace > SLOW, np.arctan(wheelbase * turn / np.maximum(pace, SLOW)), 0.0)
    return np.column_stack([x, y, np.clip(steering, -STEERING_MAX, STEERING_MAX), speed, np.unwrap(heading)])


def solution(
    road: RoadScene, ego: Array, vehicle: int = 2, cost: str = "TR1", seconds: float | None = None
) -> str:
    """Return the solution file of a course as text.

    Arguments: road: the scene that was driven; ego [T, 7]: its log at the scene's period; vehicle: CommonRoad's number;
        cost: name of the cost function; seconds: computation time to be told.
    Raises: SceneError when the scene's file named no planning problem, ValueError for a vehicle that is not known or a log
        that is empty.
    """
    if road.problem < 0:
        raise SceneError(f"expected the id of a planning problem in {road.name}, found none")
    if vehicle not in WHEELBASE:
        raise ValueError(f"expected a CommonRoad vehicle among {sorted(WHEELBASE)}, got {vehicle}")
    if ego.ndim != 2 or ego.shape[1] != 7 or len(ego) < 2:
        raise ValueError(f"expected a log [T, 7] of at least two states, got shape {list(ego.shape)}")
    root = ET.Element(
        "CommonRoadSolution", benchmark_id=f"KS{vehicle}:{cost}:{road.name}:{road.version}", date="1970-01-01T00:00:00"
    )  # fmt: skip
    if seconds is not None:
        root.set("computation_time", repr(float(seconds)))
    trajectory = ET.SubElement(root, "ksTrajectory", planningProblem=str(road.problem))
    for row, values in zip(ego, states(ego, WHEELBASE[vehicle]), strict=True):
        state = ET.SubElement(trajectory, "ksState")
        names = ("x", "y", "steeringAngle", "velocity", "orientation")
        for name, value in zip(names, values, strict=True):
            ET.SubElement(state, name).text = repr(float(value))
        ET.SubElement(state, "time").text = str(round(row[0] / road.dt))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def write(path: str | Path, road: RoadScene, ego: Array, vehicle: int = 2, cost: str = "TR1") -> Path:
    """Write `solution` to `path` and return it."""
    path = Path(path)
    path.write_text(solution(road, ego, vehicle, cost))
    return path
