"""Reachable occupancy and certificates on cases known by hand; monitors that see their assumption broken."""

import attrs
import numpy as np
import pytest

from sfumato_cpto.safety import Assumptions, Monitor, certify, occupancy

A = Assumptions(position_error=0.0, speed_error=0.0)
CAR = np.array([[4.0, 1.8]])
PATH = np.stack([np.linspace(0.0, 49.0, 50) * 1.5, np.zeros(50)])
STRAIGHT = np.zeros(50)


def _certify(position, velocity, speed=15.0, assumptions=A):
    return certify(
        PATH, STRAIGHT, speed, CAR[0], np.array([position]), np.array([velocity]), CAR, assumptions
    )


def test_occupancy_spans_full_braking_to_full_acceleration():
    centre, heading, extent = occupancy(
        np.zeros((1, 2)), np.array([[8.0, 0.0]]), CAR, np.array([0.0, 1.0, 5.0]), A
    )
    assert heading[0] == 0.0
    front = centre[0, :, 0] + 0.5 * extent[0, :, 0]
    rear = centre[0, :, 0] - 0.5 * extent[0, :, 0]
    np.testing.assert_allclose(front, [2.0, 8.0 + 1.0 + 2.0, 40.0 + 25.0 + 2.0])
    np.testing.assert_allclose(rear, [-2.0, 8.0 - 2.0 - 2.0, 8.0 - 2.0])


def test_behind_a_standing_car_the_stopping_distance_decides():
    # One period at 15 m/s, then 15^2 / 16 m at 8 m/s^2; two half lengths apart.
    need = 1.5 + 15.0**2 / 16.0 + 4.0
    assert _certify([need + 1.0, 0.0], [0.0, 0.0]).clear
    assert not _certify([need - 1.5, 0.0], [0.0, 0.0]).clear


def test_a_leader_as_fast_as_we_are_may_be_close():
    assert _certify([8.0, 0.0], [15.0, 0.0]).clear


def test_a_follower_has_to_brake_itself_and_the_next_lane_is_free():
    assert _certify([-6.0, 0.0], [25.0, 0.0]).clear
    assert _certify([1.0, 3.75], [10.0, 0.0]).clear


def test_one_may_not_stop_in_front_of_crossing_traffic_but_may_clear_the_crossing():
    assert _certify([10.0, -80.0], [0.0, 10.0]).manoeuvre
    blocked = _certify([20.0, -8.0], [0.0, 10.0])
    assert not blocked.clear or blocked.manoeuvre in ("brake", "hard brake")
    assert not _certify([6.0, -6.0], [0.0, 10.0]).clear


@pytest.mark.parametrize(("y", "clear"), [(0.4, True), (1.5, True), (1.84, False), (2.5, True)])
def test_one_may_stand_where_a_follower_sees_the_rear_but_not_where_it_would_graze_a_front_corner(y, clear):
    """Standing 0.07 rad askew beside a lane: from 1.5 m on, the user's path passes the rear; up to 2.0 m it meets the front corner."""
    path = np.stack([np.linspace(0.0, 9.8, 50) * np.cos(0.07), np.linspace(0.0, 9.8, 50) * np.sin(0.07)])
    found = certify(
        path, np.full(50, 0.07), 0.0, CAR[0], np.array([[-25.0, y]]), np.array([[7.0, 0.0]]), CAR,
        attrs.evolve(A, hard_brake=8.0, user_accelerate=0.01), horizon=6.0,
    )  # fmt: skip
    assert (found.clear and found.manoeuvre == "brake") is clear


def _observation(time, position, velocity, speed=10.0):
    return {
        "time": np.array(time), "ego": np.array([0.0, 0.0, 0.0, speed, 0.0, 0.0]), "detected": np.array([True]),
        "position": np.array([position]), "velocity": np.array([velocity]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("second", "public", "name"),
    [
        (_observation(0.1, [33.0, 0.0], [10.0, 0.0]), {}, "perception"),
        (_observation(0.1, [31.0, 0.0], [10.0, 0.0], speed=9.9), {}, "braking"),
    ],
)
def test_monitors_see_a_broken_assumption(second, public, name):
    monitor = Monitor(Assumptions(), public)
    monitor.watch(_observation(0.0, [30.0, 0.0], [10.0, 0.0]))
    monitor.tell(10.0, 9.6)
    monitor.watch(second)
    assert name in monitor.violations


def test_a_hidden_user_faster_than_assumed_is_reported_and_a_slow_one_is_not():
    for speed, expected in ((14.0, True), (8.0, False)):
        monitor = Monitor(Assumptions(), {"walls": [1], "hidden_speed": 10.0})
        empty = _observation(0.0, [0.0, 0.0], [0.0, 0.0])
        empty["detected"] = np.array([False])
        monitor.watch(empty)
        monitor.watch(_observation(0.1, [5.0, 20.0], [0.0, -speed]))
        assert ("hidden speed" in monitor.violations) == expected


def test_a_user_that_was_hidden_for_a_while_is_judged_anew_when_it_comes_out():
    monitor = Monitor(Assumptions(), {"walls": [1], "hidden_speed": 10.0})
    monitor.watch(_observation(0.0, [5.0, 60.0], [0.0, -9.0]))
    away = _observation(0.1, [0.0, 0.0], [0.0, 0.0])
    away["detected"] = np.array([False])
    monitor.watch(away)
    monitor.watch(_observation(3.0, [5.0, 20.0], [0.0, -14.0]))
    assert monitor.violations == {"hidden speed": 1}


def test_ordinary_driving_breaks_no_assumption():
    from sfumato_cpto import CPTOSolver
    from sfumato_cpto.driver import Driver
    from sfumato_cpto.simulator import scenes
    from sfumato_cpto.simulator.world import World

    rng = np.random.default_rng(0)
    world = World(scenes.cruise(rng), rng)
    driver = Driver(CPTOSolver(), certified=True)
    driver.reset(world.scene.public)
    for _ in range(40):
        world.step(*driver.act(world.observe()))
    assert "braking" not in driver.monitor.violations
    assert "perception" not in driver.monitor.violations
    assert np.mean([row["certified"] for row in driver.log]) > 0.8
    assert not world.contacts


def test_behind_a_hidden_users_foremost_point_the_whole_shadow_is_taken_and_nobody_there_is_faster_than_assumed():
    times = np.array([0.0, 1.0, 5.0])
    centre, _, extent = occupancy(
        np.zeros((1, 2)),
        np.array([[10.0, 0.0]]),
        CAR,
        times,
        Assumptions(position_error=0.0),
        np.array([30.0]),
    )
    np.testing.assert_allclose(centre[0, :, 0] + 0.5 * extent[0, :, 0], 10.0 * times)  # no part is out yet
    np.testing.assert_allclose(centre[0, :, 0] - 0.5 * extent[0, :, 0], -32.0)


def test_one_may_not_pass_behind_a_phantom_for_another_may_follow():
    """A car that is seen will have passed; a shadow of the same front may hold a second one."""
    arguments = (PATH, STRAIGHT, 6.0, CAR[0], np.array([[14.0, -12.0]]), np.array([[0.0, 10.0]]), CAR, A)
    calm = Assumptions(position_error=0.0, speed_error=0.0, user_brake=0.1, brake=0.5, hard_brake=0.6)
    seen = certify(*arguments[:-1], calm)
    hidden = certify(*arguments[:-1], calm, depth=np.array([40.0]))
    assert seen.clear
    assert not hidden.clear


def test_a_user_that_appears_close_by_with_nothing_to_hide_it_is_reported_as_a_failure_of_the_sensors():
    monitor = Monitor(Assumptions(), {})
    empty = _observation(0.0, [0.0, 0.0], [0.0, 0.0])
    empty["detected"] = np.array([False])
    monitor.watch(empty)
    monitor.watch(_observation(0.1, [30.0, 0.0], [10.0, 0.0]))
    assert monitor.violations == {"sensing": 1}


def test_a_shadows_breadth_and_the_errors_widen_what_may_be_occupied():
    _, _, extent = occupancy(
        np.zeros((1, 2)), np.array([[0.0, -2.0]]), np.array([[0.6, 0.6]]), np.array([0.0, 1.0]),
        Assumptions(position_error=0.1), np.array([1.0]), np.array([0.4]),
    )  # fmt: skip
    np.testing.assert_allclose(extent[0, :, 1], 0.6 + 0.2 + 0.4)


@pytest.mark.parametrize(
    ("x", "size", "expected"),
    [
        (33.6, 0.6, set()),
        (33.6, 0.25, {"hidden size"}),
        (34.0, 0.6, {"hidden place"}),
        (32.9, 0.25, {"hidden size", "hidden place"}),
    ],
)
def test_whoever_comes_out_of_a_gap_smaller_or_elsewhere_than_assumed_is_reported(x, size, expected):
    public = {
        "parked": [1],
        "gaps": np.array([33.5, 40.5]),
        "gap_reach": 0.15,
        "hidden_size": 0.3,
        "hidden_speed": 2.0,
    }
    monitor = Monitor(Assumptions(), public)
    empty = _observation(0.0, [0.0, 0.0], [0.0, 0.0])
    empty["detected"] = np.array([False])
    monitor.watch(empty)
    monitor.watch({**_observation(0.1, [x, 3.0], [0.0, -1.5]), "size": np.array([[size, size]])})
    assert set(monitor.violations) == expected


def test_the_check_is_told_of_everybody_not_only_of_the_nearest_few():
    from sfumato_cpto.config import Bounds
    from sfumato_cpto.hypotheses import Interpreter
    from sfumato_cpto.simulator import scenes
    from sfumato_cpto.simulator.world import World

    rng = np.random.default_rng(0)
    world = World(scenes.cruise(rng), rng)
    observation = world.observe()
    situation = Interpreter(world.scene.public, Bounds(), n_obstacles=3).interpret(observation)
    assert len(situation.user) == 3
    assert len(situation.known.user) == observation["detected"].sum() > 3
