"""Read CommonRoad scenes (XML 2018b and 2020a) with the standard library, and find a route through their lanelets.

Format: Althoff, Koschi, Manzinger, "CommonRoad: Composable benchmarks for motion planning on roads" (IV 2017).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import attrs
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class SceneError(ValueError):
    """Raised when a scene file is damaged or lacks what driving needs; names file and element."""


@attrs.frozen(eq=False)
class Lanelet:
    """One lanelet: bounds [K, 2] m; ids of successors, and of left and right neighbours of the same direction."""

    number: int
    left: Array
    right: Array
    successors: tuple[int, ...]
    neighbour_left: int | None
    neighbour_right: int | None

    @property
    def centre(self) -> Array:
        """Centre line [K, 2]."""
        k = min(len(self.left), len(self.right))
        if len(self.left) == len(self.right):
            return 0.5 * (self.left + self.right)
        t = np.linspace(0, 1, max(k, 10))
        sides = []
        for side in (self.left, self.right):
            u = np.linspace(0, 1, len(side))
            sides.append(np.stack([np.interp(t, u, side[:, i]) for i in range(2)], axis=1))
        return 0.5 * (sides[0] + sides[1])


@attrs.frozen(eq=False)
class Goal:
    """Where and when to arrive: polygons [K, 2] of the region, time in s, speed in m/s, orientation in rad (or None)."""

    regions: tuple[Array, ...]
    time: tuple[float, float]
    speed: tuple[float, float] | None
    orientation: tuple[float, float] | None


@attrs.frozen(eq=False)
class RoadScene:
    """A scene: lanelets, recorded users track [K, M, 4] (x, y, heading, speed; NaN while absent), size [M, 2], the
    ego vehicle's start (x, y, heading, speed), its goal, and the record's period dt in s; ids of the planning problem and
    version of the file format, which a solution has to name."""

    name: str
    dt: float
    lanelets: dict[int, Lanelet]
    track: Array
    size: Array
    kinds: tuple[str, ...]
    start: tuple[float, float, float, float]
    goal: Goal
    problem: int = -1
    version: str = "2020a"


def _number(element: ET.Element | None, path: str, where: str) -> float:
    found = None if element is None else element.find(path)
    if found is None or found.text is None:
        raise SceneError(
            f"expected a number at <{path}> in {where}, got nothing; the file is damaged or incomplete"
        )
    try:
        value = float(found.text)
    except ValueError as error:
        raise SceneError(f"expected a number at <{path}> in {where}, got {found.text!r}") from error
    if not np.isfinite(value):
        raise SceneError(f"expected a finite number at <{path}> in {where}, got {found.text!r}")
    return value


def _quantity(element: ET.Element | None, name: str, where: str) -> float:
    # A value is given exactly or as an interval, whose middle we take.
    if element is not None and element.find(f"{name}/exact") is not None:
        return _number(element, f"{name}/exact", where)
    return 0.5 * (
        _number(element, f"{name}/intervalStart", where) + _number(element, f"{name}/intervalEnd", where)
    )


def _interval(element: ET.Element, name: str, where: str) -> tuple[float, float] | None:
    if element.find(name) is None:
        return None
    if element.find(f"{name}/exact") is not None:
        value = _number(element, f"{name}/exact", where)
        return value, value
    return _number(element, f"{name}/intervalStart", where), _number(element, f"{name}/intervalEnd", where)


def _points(element: ET.Element | None, where: str) -> Array:
    found = [] if element is None else element.findall("point")
    points = [(_number(p, "x", where), _number(p, "y", where)) for p in found]
    if len(points) < 2:
        raise SceneError(f"expected at least two points in {where}, got {len(points)}; the file is damaged")
    return np.array(points)


def _rectangle(element: ET.Element, where: str) -> Array:
    length, width = _number(element, "length", where), _number(element, "width", where)
    angle = _number(element, "orientation", where) if element.find("orientation") is not None else 0.0
    x = y = 0.0
    if element.find("center") is not None:
        x, y = _number(element, "center/x", where), _number(element, "center/y", where)
    unit = np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]]) * [length, width]
    c, s = np.cos(angle), np.sin(angle)
    return unit @ np.array([[c, s], [-s, c]]) + [x, y]


def read(path: str | Path) -> RoadScene:
    """Return the scene in an XML file. Raises SceneError when it is damaged, has no goal, or no lanelets."""
    path = Path(path)
    try:
        root = ET.parse(path).getroot()
    except FileNotFoundError as error:
        raise SceneError(
            f"expected a scene file at {path}, found none; check the path or SFUMATO_DATA"
        ) from error
    except ET.ParseError as error:
        raise SceneError(
            f"expected well-formed XML in {path.name}, got an error: {error}; fetch the file again"
        ) from error
    if root.tag != "commonRoad":
        raise SceneError(f"expected a <commonRoad> file, {path.name} begins with <{root.tag}>")
    dt = float(root.get("timeStepSize", "nan"))
    if not dt > 0.0:
        raise SceneError(f"expected a positive timeStepSize in {path.name}, got {root.get('timeStepSize')!r}")
    lanelets = {}
    for element in root.findall("lanelet"):
        number = int(element.get("id", "-1"))
        where = f"{path.name}, lanelet {number}"
        neighbours: list[int | None] = []
        for name in ("adjacentLeft", "adjacentRight"):
            found = element.find(name)
            same = found is not None and found.get("drivingDir", "same") == "same"
            neighbours.append(int(found.get("ref", "-1")) if same and found is not None else None)
        lanelets[number] = Lanelet(
            number, _points(element.find("leftBound"), where), _points(element.find("rightBound"), where),
            tuple(int(s.get("ref", "-1")) for s in element.findall("successor")), *neighbours,
        )  # fmt: skip
    if not lanelets:
        raise SceneError(f"expected lanelets in {path.name}, found none; a road is needed to drive on")
    problem = root.find("planningProblem")
    if problem is None:
        raise SceneError(
            f"expected a <planningProblem> in {path.name}, found none; choose a scene with a task"
        )
    where = f"{path.name}, planning problem {problem.get('id')}"
    initial, goal_state = problem.find("initialState"), problem.find("goalState")
    if goal_state is None:
        raise SceneError(f"expected a <goalState> in {where}, found none; a goal is needed to drive to")
    start = (
        _number(initial, "position/point/x", where), _number(initial, "position/point/y", where),
        _quantity(initial, "orientation", where), _quantity(initial, "velocity", where),
    )  # fmt: skip
    time = _interval(goal_state, "time", where)
    if time is None:
        raise SceneError(f"expected a time in the goal of {where}, found none")
    regions = []
    for position in goal_state.findall("position"):
        for element in position:
            if element.tag == "rectangle":
                regions.append(_rectangle(element, where))
            elif element.tag == "lanelet":
                lanelet = lanelets.get(int(element.get("ref", "-1")))
                if lanelet is None:
                    raise SceneError(
                        f"expected the goal lanelet {element.get('ref')} of {where} to exist; it does not"
                    )
                regions.append(np.concatenate([lanelet.left, lanelet.right[::-1]]))
            elif element.tag == "polygon":
                regions.append(_points(element, where))
    goal = Goal(
        tuple(regions), (time[0] * dt, time[1] * dt), _interval(goal_state, "velocity", where),
        _interval(goal_state, "orientation", where),
    )  # fmt: skip
    tracks, sizes, kinds = [], [], []
    for element in [
        *root.findall("dynamicObstacle"),
        *root.findall("obstacle"),
        *root.findall("staticObstacle"),
    ]:
        where = f"{path.name}, obstacle {element.get('id')}"
        shape = element.find("shape")
        rectangle = None if shape is None else shape.find("rectangle")
        if rectangle is not None:
            size = (_number(rectangle, "length", where), _number(rectangle, "width", where))
        elif shape is not None and shape.find("circle") is not None:
            size = (2.0 * _number(shape, "circle/radius", where),) * 2
        else:
            raise SceneError(
                f"expected a rectangle or circle as the shape in {where}; other shapes are not supported"
            )
        first = element.find("initialState")
        states = [] if first is None else [first]
        trajectory = element.find("trajectory")
        if trajectory is not None:
            states += trajectory.findall("state")
        rows = {}
        for state in states:
            rows[round(_quantity(state, "time", where))] = (
                _number(state, "position/point/x", where), _number(state, "position/point/y", where),
                _quantity(state, "orientation", where),
                _quantity(state, "velocity", where) if state.find("velocity") is not None else 0.0,
            )  # fmt: skip
        if not rows:
            raise SceneError(f"expected at least one state in {where}, found none")
        standing = trajectory is None
        if (
            abs(rows[min(rows)][0] - start[0]) < 0.5
            and abs(rows[min(rows)][1] - start[1]) < 0.5
            and min(rows) == 0
        ):
            continue  # the record of the very vehicle that we are to drive
        tracks.append((rows, standing))
        sizes.append(size)
        kinds.append((element.findtext("type") or "car").strip())
    last = max([max(rows) for rows, _ in tracks] + [round(goal.time[1] / dt)])
    track = np.full((last + 1, len(tracks), 4), np.nan)
    for m, (rows, standing) in enumerate(tracks):
        for k, row in rows.items():
            track[k, m] = row
        if standing:
            track[:, m] = rows[min(rows)]
    return RoadScene(
        path.stem, dt, lanelets, track, np.array(sizes).reshape(-1, 2), tuple(kinds), start, goal,
        int(problem.get("id", "-1")), root.get("commonRoadVersion", "2020a"),
    )  # fmt: skip


def inside(polygon: Array, point: Array) -> bool:
    """Return whether a point [2] lies in a polygon [K, 2], by the even-odd rule."""
    x, y = polygon[:, 0], polygon[:, 1]
    x1, y1 = np.roll(x, -1), np.roll(y, -1)
    crosses = (y > point[1]) != (y1 > point[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        at = x + (point[1] - y) / (y1 - y) * (x1 - x)
    return bool((crosses & (point[0] < at)).sum() % 2)


def goal_lanelets(scene: RoadScene) -> set[int]:
    """Return ids of lanelets that hold the middle of a goal region."""
    found = set()
    for region in scene.goal.regions:
        middle = region.mean(axis=0)
        for number, lanelet in scene.lanelets.items():
            if inside(np.concatenate([lanelet.left, lanelet.right[::-1]]), middle):
                found.add(number)
    return found


def start_lanelet(scene: RoadScene) -> int:
    """Return the lanelet under the start whose direction fits best. Raises SceneError when the start is off the road."""
    point, heading = np.array(scene.start[:2]), scene.start[2]
    best, score = None, np.inf
    for number, lanelet in scene.lanelets.items():
        centre = lanelet.centre
        k = int(np.argmin(((centre - point) ** 2).sum(axis=1)))
        k = min(k, len(centre) - 2)
        direction = np.arctan2(*(centre[k + 1] - centre[k])[::-1])
        off = abs((direction - heading + np.pi) % (2 * np.pi) - np.pi)
        within = inside(np.concatenate([lanelet.left, lanelet.right[::-1]]), point)
        distance = float(np.sqrt(((centre[k] - point) ** 2).sum()))
        value = off * 5.0 + distance + (0.0 if within else 20.0)
        if value < score and off < 1.0:
            best, score = number, value
    if best is None or score > 30.0:
        raise SceneError(
            f"expected the start {scene.start[:2]} of {scene.name} on a lanelet; it is off the road"
        )
    return best


def route(scene: RoadScene) -> list[int]:
    """Return the lanelets to follow from the start to a goal lanelet: fewest lane changes, then fewest lanelets.

    Where the goal cannot be reached, the chain of first successors; scenes cut from a longer record have such.
    """
    from heapq import heappop, heappush

    first, goals = start_lanelet(scene), goal_lanelets(scene)
    queue: list[tuple[float, int, tuple[int, ...]]] = [(0.0, first, (first,))]
    done: set[int] = set()
    while queue:
        cost, number, path = heappop(queue)
        if number in goals:
            return list(path)
        if number in done:
            continue
        done.add(number)
        lanelet = scene.lanelets[number]
        for following in lanelet.successors:
            if following in scene.lanelets:
                heappush(queue, (cost + 1.0, following, (*path, following)))
        for beside in (lanelet.neighbour_left, lanelet.neighbour_right):
            if beside is not None and beside in scene.lanelets:
                heappush(queue, (cost + 5.0, beside, (*path, beside)))
    return [first]


def reference_points(scene: RoadScene) -> Array:
    """Return the centre line [K, 2] to follow: along the route, and on through first successors.

    A lane change in the route moves the line over within the lanelet: the reference stays on the lane of the start and
    the goal becomes a lateral offset, so that the path bends only where the road does.
    """
    path = route(scene)
    chain = [path[0]]
    for number in path[1:]:
        if number in scene.lanelets[chain[-1]].successors:
            chain.append(number)
        elif scene.lanelets[chain[-1]].successors:
            # The route changed lanes: follow our own lane beside it.
            beside = [n for n in scene.lanelets[chain[-1]].successors if n in scene.lanelets]
            if beside and any(number in scene.lanelets[p].successors for p in path):
                chain.append(beside[0])
    while len(chain) < len(path) + 3:
        following = [
            n for n in scene.lanelets[chain[-1]].successors if n in scene.lanelets and n not in chain
        ]
        if not following:
            break
        chain.append(following[0])
    return np.concatenate([scene.lanelets[n].centre for n in chain])
