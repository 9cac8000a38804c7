"""Geometry, car-following and contacts on cases known by hand."""

import numpy as np
import pytest

from sfumato_cpto.hypotheses import CAR_AXES, PHANTOM_AXES, WALKER_AXES
from sfumato_cpto.simulator import scenes
from sfumato_cpto.simulator.geometry import overlap, shadow, visible
from sfumato_cpto.simulator.movers import IdmParameters, idm
from sfumato_cpto.simulator.world import World

CAR = np.array([4.0, 1.8])


def test_rectangles_touch_only_when_they_do():
    zero = np.zeros(2)
    assert overlap(zero, 0.0, CAR, np.array([3.9, 0.0]), 0.0, CAR)
    assert not overlap(zero, 0.0, CAR, np.array([4.1, 0.0]), 0.0, CAR)
    assert overlap(zero, 0.0, CAR, np.array([0.0, 2.8]), 0.5 * np.pi, CAR)
    assert not overlap(zero, 0.0, CAR, np.array([3.2, 3.2]), 0.25 * np.pi, CAR)


@pytest.mark.parametrize(
    ("axes", "size", "base", "spread"),
    [(CAR_AXES, CAR, 0.0, 15), (PHANTOM_AXES, CAR, 90, 0), (WALKER_AXES, np.array([0.6, 0.6]), 90, 0)],
)
def test_the_safety_ellipse_covers_both_bodies(axes, size, base, spread):
    angle = np.linspace(0, 2 * np.pi, 181)
    centre = np.stack([axes[0] * np.cos(angle), axes[1] * np.sin(angle)], axis=1)
    for own in np.deg2rad([-spread, 0, spread]):
        hit = overlap(
            np.zeros((181, 2)), np.full(181, own), CAR, centre, np.full(181, np.deg2rad(base)), size
        )
        assert not hit.any()


def test_a_wall_hides_what_lies_behind_it_and_nothing_else():
    wall = np.array([[[5.0, -1.0], [5.0, 1.0]]])
    position = np.array([[10.0, 0.0], [10.0, 6.0], [3.0, 0.0]])
    seen = visible(np.zeros(2), position, np.zeros(3), np.tile([1.0, 1.0], (3, 1)), wall)
    assert seen.tolist() == [False, True, True]


def test_a_shadow_follows_similar_triangles():
    wall = np.array([[-4.5, 12.0], [-4.5, 32.0]])
    low, high = shadow(np.array([-9.0, 0.0]), wall, 0.0)
    assert (low, high) == pytest.approx((24.0, 64.0))
    assert shadow(np.array([-4.0, 0.0]), wall, 0.0) is None


def test_the_shadow_and_the_line_of_sight_agree():
    rng = np.random.default_rng(0)
    wall = np.array([[-4.5, 12.0], [-4.5, 32.0]])
    for _ in range(50):
        eye = np.array([rng.uniform(-50, -5), rng.uniform(-1, 1)])
        low, high = shadow(eye, wall, 3.75)
        y = rng.uniform(0, 100)
        point = np.array([[3.75, y]])
        seen = visible(eye, point, np.zeros(1), np.array([[1e-9, 1e-9]]), wall[None])[0]
        assert seen == (not low <= y <= high)


def test_a_free_car_at_its_desired_speed_keeps_it_and_a_blocked_one_brakes():
    p = IdmParameters()
    a = idm(np.array([10.0, 10.0]), np.array([10.0, 10.0]), np.array([np.inf, 5.0]), np.array([0.0, 8.0]), p)
    assert a[0] == 0.0
    assert a[1] == -p.limit


def test_cars_in_a_lane_never_run_into_each_other():
    rng = np.random.default_rng(1)
    world = World(scenes.cruise(rng), rng)
    for _ in range(150):
        world.step(15.0, 0.0)
        users = world.user_log[-1]
        for lane in np.unique(users[:, 1]):
            s = np.sort(users[users[:, 1] == lane, 0])
            assert np.diff(s).min(initial=10.0) > 4.0


def test_running_into_a_standing_car_is_our_fault_and_being_struck_from_behind_is_not():
    rng = np.random.default_rng(2)
    world = World(scenes.cruise(rng), rng)
    traffic = world.scene.movers[0]
    traffic.yields = False
    traffic.s[:] = np.linspace(500, 900, len(traffic.s))
    traffic.s[3], traffic.v[3], traffic.desired[3] = -80.0, 20.0, 20.0  # lane y = 0, behind
    for _ in range(60):
        world.step(0.0, 0.0)
    assert [c.at_fault for c in world.contacts] == [False]
    rng = np.random.default_rng(2)
    world = World(scenes.cruise(rng), rng)
    traffic = world.scene.movers[0]
    traffic.s[:] = np.linspace(500, 900, len(traffic.s))
    traffic.s[3], traffic.v[3], traffic.desired[3] = -30.0, 0.0, 1e-3
    for _ in range(60):
        world.step(15.0, 0.0)
        if world.contacts:
            break
    assert [c.at_fault for c in world.contacts] == [True]


def test_the_observation_holds_no_hidden_user():
    rng = np.random.default_rng(3)
    world = World(scenes.occluded_intersection(rng), rng)
    seen = world.observe()
    assert not seen["detected"].all()
    hidden = ~seen["detected"]
    assert not seen["position"][hidden].any()


def test_recycled_cars_do_not_appear_near_the_vehicle():
    rng = np.random.default_rng(4)
    world = World(scenes.cruise(rng, slow=True), rng)
    before = world.user_log[-1][:, 0]
    for _ in range(200):
        world.step(20.0, 0.0)
        after = world.user_log[-1][:, 0]
        for i in np.flatnonzero(np.abs(after - before) > 10.0):
            assert abs(after[i] - world.ego[0]) > 20.0
        before = after


def test_commands_beyond_the_brakes_are_limited():
    rng = np.random.default_rng(5)
    world = World(scenes.cruise(rng), rng)
    world.step(0.0, 0.0)
    assert world.ego[3] == pytest.approx(15.0 - 0.9)
