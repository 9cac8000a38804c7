"""highway-env: its traffic sees the vehicle that we pose, and the planner drives through it."""

import numpy as np
import pytest

from sfumato_cpto import CPTOSolver
from sfumato_cpto.driver import Driver

pytestmark = pytest.mark.optional


@pytest.fixture(scope="module")
def highway():
    pytest.importorskip("highway_env", reason="the extra gym is not installed")
    from sfumato_cpto import highway

    return highway


def test_the_vehicle_follows_the_commanded_arc(highway):
    world = highway.HighwayWorld(seed=0, vehicles=2)
    x, y = world.ego[:2]
    for _ in range(10):
        world.step(20.0, 0.0)
    np.testing.assert_allclose(world.ego, [x + 20.0, y, 0.0, 20.0], atol=1e-9)
    world.close()


def test_cars_behind_brake_for_the_posed_vehicle(highway):
    world = highway.HighwayWorld(seed=0, vehicles=2)
    follower = next(v for v in world.env.unwrapped.road.vehicles if v is not world.vehicle)
    follower.position = world.vehicle.position - np.array([25.0, 0.0])
    follower.lane_index = follower.target_lane_index = world.vehicle.lane_index
    follower.speed = follower.target_speed = 25.0
    for _ in range(30):
        world.step(world.ego[3] - 0.3, 0.0)
    assert follower.speed < 24.0
    world.close()


def test_the_planner_drives_in_their_traffic_without_a_contact_to_blame_it_for(highway):
    world = highway.HighwayWorld(seed=1, seconds=6.0)
    driver = Driver(CPTOSolver(), n_obstacles=6, n_candidates=3)
    driver.reset(world.scene.public)
    start = world.ego[0]
    while not world.timed_out:
        world.step(*driver.act(world.observe()))
    assert not [c for c in world.contacts if c.at_fault]
    assert world.ego[0] - start > 80.0
    good = [row["status"] in ("CONVERGED", "MAX_ITER_FEASIBLE") for row in driver.log]
    assert np.mean(good) > 0.8
    world.close()


def test_gymnasiums_checker_accepts_their_traffic_in_our_environment(highway):
    from gymnasium.utils.env_checker import check_env

    from sfumato_cpto.gym_env import DrivingEnv

    def make(rng):
        return highway.HighwayWorld(seed=int(rng.integers(2**31)), vehicles=12)

    check_env(DrivingEnv(make_world=make), skip_render_check=True)
