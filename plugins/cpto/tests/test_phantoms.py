"""Phantoms are where a hidden user would be in the way, and nowhere that can be seen."""

import numpy as np
import pytest

from sfumato_cpto.phantoms import CREEP, HYSTERESIS, Shadows, arrival, hidden_cars, hidden_walkers, meeting
from sfumato_cpto.problem import State
from sfumato_cpto.simulator import scenes

TIMES = np.arange(50) * 0.1
PUBLIC = scenes.tight_intersection(np.random.default_rng(0)).public


def test_the_vehicle_arrives_as_constant_acceleration_says():
    assert arrival(20.0, 10.0, 10.0) == pytest.approx(2.0)
    assert arrival(3.0, 0.0, 10.0) == pytest.approx(2.0)  # 1.5 m/s^2 for 2 s
    assert arrival(-1.0, 5.0, 5.0) == 0.0


@pytest.mark.parametrize("meet", [0.5, 2.0, 4.0])
def test_a_phantom_meets_the_vehicle_unless_even_the_foremost_would_come_later(meet):
    along = meeting(10.0, 30.0, 10.0, meet, TIMES, waits=False)
    assert 10.0 <= along[0] <= 30.0
    assert np.interp(meet, TIMES, along) == pytest.approx(max(10.0 - 10.0 * meet, 0.0), abs=1e-9)
    assert (-np.diff(along) / 0.1 <= 10.0 + 1e-9).all()


def test_a_walker_who_would_be_too_early_waits():
    along = meeting(2.0, 6.0, 2.0, 4.0, TIMES, waits=True)
    assert along[0] == along[9] == 6.0
    assert np.interp(4.0, TIMES, along) == pytest.approx(0.0, abs=1e-9)


def test_phantoms_start_inside_the_shadow_and_the_check_is_told_its_foremost_point():
    found = hidden_cars(PUBLIC, State(-20.0, 0.0, 0.0, 7.0), TIMES)
    assert sorted(found) == [0, 1]
    for lane, phantom in found.items():
        direction = float(PUBLIC["crossing_direction"][lane])
        behind = (phantom.front[1] - phantom.centres[1, 0]) * direction
        assert 0.0 <= behind <= phantom.depth + 1e-9
        # Similar triangles: the corner at 5 m, 4.5 m before the lane at x = 0.
        lane_x = float(PUBLIC["crossing_x"][lane])
        assert abs(phantom.front[1]) == pytest.approx(5.0 * (20.0 + lane_x) / 15.5)


def test_there_are_none_beyond_the_horizon_or_past_the_buildings():
    assert not hidden_cars(PUBLIC, State(-70.0, 0.0, 0.0, 5.0), TIMES)
    assert not hidden_cars(PUBLIC, State(-4.0, 0.0, 0.0, 5.0), TIMES)


def test_gaps_hide_walkers_until_they_are_looked_into():
    public = scenes.occluded_pedestrian(np.random.default_rng(0)).public
    found = hidden_walkers(public, State(22.0, -1.0, 0.0, 6.0), TIMES)
    assert 0 in found
    assert found[0].front[1] <= found[0].centres[1, 0] <= public["pavement_y"] + 1e-9
    assert 0 not in hidden_walkers(public, State(float(public["gaps"][0]), -1.0, 0.0, 6.0), TIMES)


def test_a_phantom_outlives_its_shadow_by_two_cycles():
    shadows = Shadows(0.1)
    found = hidden_cars(PUBLIC, State(-15.0, 0.0, 0.0, 7.0), TIMES)
    assert len(shadows.update(found, 7.0)) == 2
    for _ in range(HYSTERESIS):
        assert len(shadows.update({}, 7.0)) == 2
    assert not shadows.update({}, 7.0)


def test_for_a_waiting_vehicle_the_phantom_comes_on_and_for_a_driving_one_it_is_timed_anew():
    state = State(-7.0, 0.0, 0.0, 0.0)
    found = hidden_cars(PUBLIC, state, TIMES)
    for speed, expected in ((0.5 * CREEP, 0.1), (2.0 * CREEP, 0.0)):
        shadows = Shadows(0.1)
        first = shadows.update(found, speed)[0].centres[1, 0]
        second = shadows.update(hidden_cars(PUBLIC, state, TIMES), speed)[0].centres[1, 0]
        assert abs(first - second) == pytest.approx(10.0 * expected, abs=1e-6)


@pytest.mark.parametrize("size", [0.2, 0.3, 0.6])
def test_a_shadow_without_room_for_the_smallest_body_hides_nobody_and_every_other_one_does(size):
    scene = scenes.occluded_pedestrian(np.random.default_rng(0), hidden_size=size)
    public = scene.public
    depths = []
    for x in np.linspace(20.0, 31.5, 400):
        found = hidden_walkers(public, State(x, -0.96, 0.0, 0.0), np.arange(50) * 0.1)
        if 0 in found:
            depths.append(found[0].spots[:, 2])
    least = min(row.min() for row in depths)
    assert 0.5 * size <= least < 0.5 * size + 0.1


@pytest.mark.parametrize("body", [0.3, 0.45, 0.6])
def test_whoever_is_wholly_hidden_where_assumed_stands_in_a_strip_that_the_check_is_told_of(body):
    """Against the simulator's own sight: five points of the body past the parked cars' edges."""
    from sfumato_cpto.simulator.geometry import rectangle_walls, visible

    public = scenes.occluded_pedestrian(np.random.default_rng(0)).public
    walls = rectangle_walls(public["parked"], np.zeros(4), np.tile([4.0, 1.8], (4, 1)))
    rng = np.random.default_rng(1)
    hidden = 0
    for _ in range(2000):
        eye = np.array([rng.uniform(15.0, 31.5), rng.uniform(-1.4, 0.0)])
        x = public["gaps"][0] + rng.uniform(-public["gap_reach"], public["gap_reach"])
        y = rng.uniform(1.2, public["pavement_y"])
        if visible(eye, np.array([[x, y]]), np.zeros(1), np.array([[body, body]]), walls)[0]:
            continue
        hidden += 1
        found = hidden_walkers(public, State(*eye, 0.0, 6.0), TIMES)
        strips = found[0].spots
        inside = np.abs(x - strips[:, 0]) <= 0.5 * strips[:, 3] + 1e-9
        # No part of the body is before the edge of its strip.
        assert inside.any()
        assert (y - 0.5 * body >= strips[inside, 1].min() - 1e-9).all()
    assert hidden > 200


def test_a_wet_road_past_hidden_walkers_is_driven_to_its_end():
    # Here a vehicle that counted every sliver stood for good: the ellipse ended where the sliver would have cleared.
    from sfumato_cpto import CPTOSolver
    from sfumato_cpto.closed_loop import drive
    from sfumato_cpto.driver import Driver

    rng = np.random.default_rng([1000, 0])
    world = drive(scenes.wet_pedestrian(rng), Driver(CPTOSolver(), 6, 3), rng)
    assert world.finished
    assert not world.contacts
