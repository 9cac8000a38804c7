"""Recorded traffic as a scene: CommonRoad files played back around the ego vehicle.

Replay is open-loop: recorded users do not react, so being struck from behind is reported apart and is no fault.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sfumato_cpto import commonroad
from sfumato_cpto.curvilinear import ReferencePath
from sfumato_cpto.simulator.geometry import Array
from sfumato_cpto.simulator.movers import Replay
from sfumato_cpto.simulator.world import Perception, Scene

EGO_SIZE = (4.5, 1.7)
SPEED_LIMIT = 20.0  # m/s


def from_file(path: str | Path, route: str = "own") -> Scene:
    """Return the scene of a CommonRoad file. Raises commonroad.SceneError when it cannot be driven.

    Arguments: route: "own", or "commonroad" to have the reference path planned by commonroad-route-planner.
    """
    if route == "commonroad":
        from sfumato_cpto.routes import planned_points

        return from_scene(commonroad.read(path), planned_points(path))
    return from_scene(commonroad.read(path))


def from_scene(road: commonroad.RoadScene, points: Array | None = None) -> Scene:
    """Return a replay of `road`: the reference path is its route (or `points` [K, 2]), the goal its goal region in the
    time allowed."""
    rough = ReferencePath(commonroad.reference_points(road) if points is None else points)
    points = rough.curve(np.linspace(-30.0, rough.length + 30.0, max(int(rough.length + 60.0), 10)))
    path = ReferencePath(points, smoothing=1e-5)  # the agent builds the same frame from the same points
    first = commonroad.start_lanelet(road)
    start = path.to_frame(np.array(road.start[:2]))
    middle = (
        np.mean([region.mean(axis=0) for region in road.goal.regions], axis=0) if road.goal.regions else None
    )
    goal = path.to_frame(middle) if middle is not None else np.array([path.length, 0.0])
    # How far to either side the carriageway goes: our lanelet and its neighbours of the same direction.
    low = high = 0.0
    for lanelet in _beside(road, first):
        d = path.to_frame(np.concatenate([lanelet.left, lanelet.right]))[:, 1]
        s = path.to_frame(np.concatenate([lanelet.left, lanelet.right]))[:, 0]
        near = np.abs(s - start[0]) < 15.0
        if near.any():
            low, high = min(low, float(d[near].min())), max(high, float(d[near].max()))
    low, high = min(low, -1.6), max(high, 1.6)
    half = 0.5 * EGO_SIZE[1] + 0.1
    edge = (low + half, high - half)
    lateral = float(np.clip(goal[1], *edge))
    if abs(goal[1]) > 30.0 or not edge[0] - 2.0 <= goal[1] <= edge[1] + 2.0:
        lateral = float(np.clip(start[1], *edge))  # the goal lies round a corner; keep the lane
    end = road.goal.time[1]

    def arrived(ego: Array, time: float) -> bool:
        if not road.goal.time[0] - 1e-6 <= time <= end + 1e-6:
            return False
        if road.goal.regions and not any(commonroad.inside(r, ego[:2]) for r in road.goal.regions):
            return False
        if road.goal.orientation is not None:
            low, high = road.goal.orientation
            if not (ego[2] - low + 1e-6) % (2 * np.pi) <= high - low + 2e-6:
                return False
        speed = road.goal.speed
        return speed is None or speed[0] - 1e-6 <= ego[3] <= speed[1] + 1e-6

    bounds = [np.concatenate([lanelet.left, lanelet.right[::-1]]) for lanelet in road.lanelets.values()]

    def on_road(ego: Array) -> bool:
        near = [b for b in bounds if np.abs(b - ego[:2]).sum(axis=1).min() < 60.0]
        return any(commonroad.inside(b, ego[:2]) for b in near)

    speeds = road.goal.speed or (0.0, SPEED_LIMIT)
    public = {
        "kind": "road",
        "path": points,
        "lanes": np.array([lateral]),
        "road": np.array([min(edge[0], start[1]), max(edge[1], start[1])]),
        "goal_s": float(goal[0]),
        "goal_y": lateral,
        "goal_time": np.array(road.goal.time),
        "goal_speeds": np.array(speeds),
        "goal_speed": float(
            np.clip((goal[0] - start[0]) / max(np.mean(road.goal.time), 0.1), 1.0, SPEED_LIMIT)
        ),
        "speed_limit": SPEED_LIMIT,
        "lateral_limit": 3.0,
        "goal_x": float("inf"),
        "dt": road.dt,
        "size": np.array(EGO_SIZE),
        "walls": np.zeros((0, 2, 2)),
        "certain_range": 200.0,
        "sigma": np.zeros(3),
    }
    return Scene(
        f"replay {road.name}", (Replay(road.track, road.size, road.dt),), road.start, EGO_SIZE, np.zeros((0, 2, 2)),
        (), public, 0.0, end, Perception(range=200.0), dt=road.dt, arrived=arrived, on_road=on_road,
    )  # fmt: skip


def _beside(road: commonroad.RoadScene, first: int) -> list[commonroad.Lanelet]:
    found, queue = {first}, [first]
    while queue:
        lanelet = road.lanelets[queue.pop()]
        for number in (lanelet.neighbour_left, lanelet.neighbour_right):
            if number is not None and number in road.lanelets and number not in found:
                found.add(number)
                queue.append(number)
    return [road.lanelets[n] for n in found]
