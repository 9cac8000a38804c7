"""The scene families: cruise, high speed, noisy perception, occluded intersection, occluded pedestrian.

Numbers of the cruise and the intersection follow the authors' released scenarios; starting positions and desired
speeds are jittered with the seed, which those were not.
"""

from __future__ import annotations

import itertools

import attrs
import numpy as np

from sfumato_cpto.simulator.movers import IdmParameters, LaneTraffic, Standing, Users, Walker
from sfumato_cpto.simulator.world import Perception, Scene

CAR = (4.0, 1.8)
LANES = (-11.25, -7.5, -3.75, 0.0, 3.75, 7.5)
CRUISE_X = (-10, 25, 60, 40, -20, 55, 70, 105, 120, 10, 80, 190, 130, 140, 180, 160, 205, 95)
CRUISE_SPEED = (10, 11, 8, 9.5, 18.5, 22, 7.5, 8.5, 7, 9, 18.5, 19, 10, 9.5, 7.2, 9.5, 15, 20.5)
CROSS_Y = (-10, 30, -20, 20, -30, 10, -40, 40, -50, 50)
CROSS_SPEED = (9, -9.5, 4, -7, 5, -5.5, 6.5, -7.5, 8.5, -9)
WALL_X = -4.5
WALLS = ((12.0, 32.0), (-38.5, -8.5))


def cruise(
    rng: np.random.Generator,
    *,
    kind: str = "cruise",
    n_cars: int = 18,
    slow: bool = False,
    goal_speed: float = 15.0,
    start_speed: float = 15.0,
    spacing: float = 1.0,
    max_time: float = 20.0,
    perception: Perception | None = None,
    control_noise: float = 0.0,
) -> Scene:
    """Return six lanes of IDM traffic. `slow` draws desired speeds of 4 to 10 m/s; `spacing` stretches the start."""
    index = np.arange(n_cars) % len(CRUISE_X)
    x = np.array(CRUISE_X, dtype=float)[index] * spacing + (np.arange(n_cars) // len(CRUISE_X)) * 45.0
    x = x + rng.uniform(-3.0, 3.0, n_cars)
    lane = np.arange(n_cars) % len(LANES)
    desired = np.array(CRUISE_SPEED, dtype=float)[index] * rng.uniform(0.9, 1.1, n_cars)
    if slow:
        desired = rng.uniform(4.0, 10.0, n_cars)
    if start_speed > 15.0:
        desired = desired * start_speed / 18.0
    for number in range(len(LANES)):  # no two cars of a lane start closer than 9 m
        inside = np.flatnonzero(lane == number)
        inside = inside[np.argsort(x[inside], kind="stable")]
        for first, second in itertools.pairwise(inside):
            x[second] = max(x[second], x[first] + 9.0)
    traffic = LaneTraffic(
        origin=np.array([[0.0, y] for y in LANES]),
        direction=np.tile([1.0, 0.0], (len(LANES), 1)),
        lane=lane,
        s=x,
        v=desired.copy(),
        desired=desired,
        size=np.tile(CAR, (n_cars, 1)).astype(float),
        noise=control_noise,
    )
    public = {
        "kind": kind,
        "lanes": np.array(LANES),
        "road": np.array([LANES[0] - 1.9, LANES[-1] + 1.9]),
        "goal_speed": goal_speed,
        "speed_limit": 24.0,
        "goal_x": float("inf"),
        "dt": 0.1,
        "size": np.array(CAR),
        "walls": np.zeros((0, 2, 2)),
        "certain_range": (perception or Perception()).certain_range,
        "sigma": np.array((perception or Perception()).sigma),
    }
    return Scene(
        kind, (traffic,), (-50.0, 0.0, 0.0, start_speed), CAR, np.zeros((0, 2, 2)), (), public, float("inf"), max_time,
        perception or Perception(), off_road=max(abs(LANES[0]), LANES[-1]) + 1.9,
    )  # fmt: skip


def occluded_intersection(
    rng: np.random.Generator, *, max_time: float = 40.0, hidden_speed: float = 10.0, yields: bool = False,
    start_speed: float = 5.0, n_cars: int = len(CROSS_Y), walls: tuple[tuple[float, float], ...] = WALLS,
    goal_speed: float = 7.0,
) -> Scene:  # fmt: skip
    """Return a crossing with two lanes of traffic hidden by buildings; crossing cars do not yield by default.

    Arguments: n_cars: at most 10; fewer are drawn without replacement from the ten of the released scenario, anywhere on
    their lanes. walls: intervals of y that the buildings take up at x = -4.5 m.
    """
    y = np.array(CROSS_Y, dtype=float) + rng.uniform(-3.0, 3.0, len(CROSS_Y))
    speed = np.array(CROSS_SPEED) * rng.uniform(0.9, 1.1, len(CROSS_Y))
    if n_cars < len(CROSS_Y):
        chosen = np.sort(rng.choice(len(CROSS_Y), n_cars, replace=False))
        speed, y = speed[chosen], rng.uniform(-75.0, 75.0, n_cars)
        for upward in (False, True):  # no two cars of a lane start closer than 10 m
            lane = np.flatnonzero((speed > 0.0) == upward)
            lane = lane[np.argsort(y[lane], kind="stable")]
            for first, second in itertools.pairwise(lane):
                y[second] = max(y[second], y[first] + 10.0)
    n = n_cars
    up = speed > 0.0
    traffic = LaneTraffic(
        origin=np.array([[0.0, 0.0], [3.75, 0.0]]),
        direction=np.array([[0.0, -1.0], [0.0, 1.0]]),
        lane=up.astype(np.int64),
        s=np.where(up, y, -y),
        v=np.abs(speed),
        desired=np.abs(speed),
        size=np.tile(CAR, (n, 1)).astype(float),
        parameters=IdmParameters(jam=3.0, headway=1.0, acceleration=4.0, free_acceleration=4.0, braking=4.0),
        yields=yields,
        recycle_about_ego=False,
        recycle_behind=75.0,
        recycle_ahead=75.0,
    )
    edges = np.array([[[WALL_X, low], [WALL_X, high]] for low, high in walls]).reshape(-1, 2, 2)
    perception = Perception()
    public = {
        "kind": "occluded-intersection",
        "lanes": np.array([0.0]),
        "road": np.array([-0.05, 0.05]),
        "crossing_x": np.array([0.0, 3.75]),
        "crossing_direction": np.array([-1.0, 1.0]),
        "goal_speed": goal_speed,
        "speed_limit": 10.0,
        "hidden_speed": hidden_speed,
        "hidden_density": 0.5 * n / 150.0,
        "goal_x": 25.0,
        "dt": 0.1,
        "size": np.array(CAR),
        "walls": edges,
        "certain_range": perception.range,
        "sigma": np.zeros(3),
    }
    return Scene(
        "occluded-intersection", (traffic,), (-50.0, 0.0, 0.0, start_speed), CAR, edges, (), public, 25.0, max_time,
        perception, off_road=2.0,
    )  # fmt: skip


def tight_intersection(rng: np.random.Generator, *, max_time: float = 60.0) -> Scene:
    """Return a crossing with four cars, buildings up to 5 m from the lane's middle, and 9 m/s wanted.

    Sight is short here: the first metres of either crossing lane that can be seen are few until the buildings end.
    """
    return occluded_intersection(
        rng, max_time=max_time, n_cars=4, walls=((5.0, 32.0), (-38.5, -5.0)), goal_speed=9.0
    )


def wet_intersection(rng: np.random.Generator, *, max_time: float = 60.0) -> Scene:
    """Return a narrow crossing on a wet road: four cars, buildings up to 3 m from the lane's middle, 10 m/s wanted.

    Brakes give 4.5 m/s^2, a little more than the planner counts on: whoever does not think of the hidden cannot make up for
    it by braking harder than planned.
    """
    dry = occluded_intersection(
        rng, max_time=max_time, n_cars=4, walls=((3.0, 32.0), (-38.5, -3.0)), goal_speed=10.0, start_speed=9.0
    )
    return attrs.evolve(dry, speed_limits=WET_BRAKES)


WET_BRAKES = (-4.5, 5.0)  # m/s^2
PARKED_X = (30.0, 37.0, 44.0, 51.0)
PARKED_Y = 2.9
WALKER_SIZE = (0.6, 0.6)
STEP_OUT = 0.6  # m from a gap's middle within which somebody steps out
GAP_REACH = (
    0.15  # m from it within which the planner's check expects that; see the README on what more would cost
)
HIDDEN_SIZE = 0.3  # m; a small child's shoulders are about that broad


def occluded_pedestrian(
    rng: np.random.Generator, *, max_time: float = 40.0, hidden_speed: float = 2.0, probability: float = 0.5,
    start_speed: float = 5.0, goal_speed: float = 7.0, parked_y: float = PARKED_Y, pace: tuple[float, float] = (1.0, 2.0),
    body: float = WALKER_SIZE[0], hidden_size: float = HIDDEN_SIZE, gap_reach: float = GAP_REACH,
) -> Scene:  # fmt: skip
    """Return a straight 80 m course past four parked cars; with `probability` somebody steps out of one of the gaps.

    Arguments: parked_y: lateral position of the row, m; pace: slowest and fastest walk, m/s; body: length and width of whoever
    steps out, m; hidden_size: the least that is assumed of somebody who is hidden, m; gap_reach: how far from a gap's middle
    the planner's check expects somebody to step out, m (they do within STEP_OUT).
    """
    parked = Standing(
        Users(
            np.array([[x, parked_y] for x in PARKED_X]),
            np.zeros(4),
            np.zeros(4),
            np.tile(CAR, (4, 1)).astype(float),
        )
    )
    gaps = (np.array(PARKED_X[:-1]) + np.array(PARKED_X[1:])) / 2
    # Every draw is made in every episode, so seeds differ in luck and not in how many draws were made.
    exists = rng.random() < probability
    gap = int(rng.integers(len(gaps)))
    x = gaps[gap] + rng.uniform(-STEP_OUT, STEP_OUT)
    walk = rng.uniform(*pace)
    lead = rng.uniform(0.6, 1.4)
    start_y = parked_y + 2.1
    # Timed so that a vehicle at the goal speed would meet the pedestrian near the lane's middle, more or less.
    trigger = lead * goal_speed * start_y / walk
    movers: tuple[Standing | Walker, ...] = (parked,)
    if exists:
        walker = Users(np.array([[x, start_y]]), np.array([-0.5 * np.pi]), np.zeros(1), np.full((1, 2), body))
        movers = (parked, Walker(walker, trigger, walk))
    perception = Perception()
    public = {
        "kind": "occluded-pedestrian",
        "lanes": np.array([0.0]),
        "road": np.array([-1.5, 0.6]),
        "pavement_y": start_y + 0.1,
        "goal_speed": goal_speed,
        "speed_limit": 10.0,
        "hidden_speed": hidden_speed,
        "hidden_size": hidden_size,
        "gap_reach": gap_reach,
        "goal_x": 80.0,
        "dt": 0.1,
        "size": np.array(CAR),
        "walls": np.zeros((0, 2, 2)),
        "parked": np.array([[x, parked_y] for x in PARKED_X]),
        "gaps": gaps,
        "certain_range": perception.range,
        "sigma": np.zeros(3),
    }
    return Scene(
        "occluded-pedestrian", movers, (0.0, 0.0, 0.0, start_speed), CAR, np.zeros((0, 2, 2)), (0,), public, 80.0,
        max_time, perception, off_road=2.0,
    )  # fmt: skip


def wet_pedestrian(rng: np.random.Generator) -> Scene:
    """Return the pedestrian's course on a wet road: somebody always comes out, at 2 to 3 m/s; 9 m/s is wanted.

    Brakes give 4.5 m/s^2, a little more than the planner counts on, so that whoever does not think of the hidden cannot make
    up for it by braking harder than planned. Hidden runners are taken to be grown up (0.6 m): for a child as fast, a vehicle
    that may not count on seeing a part of it stands before the first gap for good.
    """
    dry = occluded_pedestrian(
        rng, probability=1.0, pace=(2.0, 3.0), hidden_speed=3.0, goal_speed=9.0, hidden_size=WALKER_SIZE[0]
    )
    return attrs.evolve(dry, speed_limits=WET_BRAKES)


def noisy(
    rng: np.random.Generator, *, scale: float = 1.0, released: bool = False, detection: float = 0.7
) -> Scene:
    """Return the cruise seen through noisy sensors; `scale` multiplies the deviations 1.0 m, 0.5 m, 0.5 m/s."""
    perception = Perception(
        sigma=(1.0 * scale, 0.5 * scale, 0.5 * scale),
        model="released" if released else "grows",
        detection=detection,
    )
    return attrs.evolve(cruise(rng, kind="noisy", perception=perception, control_noise=0.2), kind="noisy")


def racing(rng: np.random.Generator) -> Scene:
    """Return the high-speed variant: same road, sparser lanes, 22 m/s wanted."""
    return cruise(rng, kind="racing", n_cars=12, goal_speed=22.0, start_speed=20.0, spacing=1.4)
