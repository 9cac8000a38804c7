"""Reference paths planned by `commonroad-route-planner` (extra `commonroad`), beside the route search of `commonroad`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sfumato_cpto.commonroad import Array, SceneError


def planned_points(path: str | Path) -> Array:
    """Return the reference path [K, 2], m, that the route planner finds for the file's first planning problem.

    Raises: SceneError when it finds none; ImportError, saying what to install, without the packages.
    """
    try:
        from commonroad.common.file_reader import CommonRoadFileReader
        from commonroad_route_planner.reference_path_planner import ReferencePathPlanner
        from commonroad_route_planner.route_planner import RoutePlanner
    except ImportError as error:
        raise ImportError(
            "expected commonroad-io and commonroad-route-planner for planned routes, found them missing; "
            "run pip install 'sfumato-cpto[commonroad]'"
        ) from error
    scenario, problems = CommonRoadFileReader(str(path)).open()
    problem = next(iter(problems.planning_problem_dict.values()))
    try:
        routes = RoutePlanner(scenario.lanelet_network, problem).plan_routes()
        found = ReferencePathPlanner(
            lanelet_network=scenario.lanelet_network, planning_problem=problem, routes=routes
        ).plan_shortest_reference_path(retrieve_shortest=True, consider_least_lance_changes=True)
    except Exception as error:
        raise SceneError(
            f"expected a route in {Path(path).name}, the route planner failed: {error}"
        ) from error
    points = np.asarray(found.reference_path, dtype=float)
    keep = np.concatenate([[True], np.hypot(*np.diff(points, axis=0).T) > 1e-6])
    return points[keep]
