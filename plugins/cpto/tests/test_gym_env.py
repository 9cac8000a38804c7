"""The Gymnasium environment keeps Gymnasium's promises, for our courses and for highway-env's traffic."""

import numpy as np
import pytest

from sfumato_cpto import CPTOSolver
from sfumato_cpto.driver import Driver

pytestmark = pytest.mark.optional


@pytest.fixture(scope="module")
def gym():
    return pytest.importorskip("gymnasium", reason="the extra gym is not installed")


@pytest.mark.parametrize("family", ["cruise", "noisy", "occluded-intersection", "occluded-pedestrian"])
def test_gymnasiums_own_checker_finds_nothing_wrong(gym, family):
    from gymnasium.utils.env_checker import check_env

    from sfumato_cpto.gym_env import DrivingEnv

    check_env(DrivingEnv(family), skip_render_check=True)


def test_an_unknown_family_is_named(gym):
    from sfumato_cpto.gym_env import DrivingEnv

    with pytest.raises(ValueError, match="cruise"):
        DrivingEnv("crusie")


def test_a_command_that_is_no_number_is_refused(gym):
    from sfumato_cpto.gym_env import DrivingEnv

    env = DrivingEnv()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite"):
        env.step(np.array([np.nan, 0.0]))


def test_the_planner_drives_through_the_environment(gym):
    from sfumato_cpto.gym_env import DrivingEnv

    env, driver = DrivingEnv("cruise"), Driver(CPTOSolver())
    _, info = env.reset(seed=3)
    driver.reset(info["scene"])
    gained = 0.0
    for _ in range(20):
        _, reward, ended, _, info = env.step(np.array(driver.act(info["observation"])))
        gained += reward
        assert not ended
    assert gained > 15.0


def test_nearest_users_are_told_when_there_are_more_than_rows(gym):
    from sfumato_cpto.gym_env import DrivingEnv

    few, many = DrivingEnv("cruise", n_users=3), DrivingEnv("cruise")
    a, b = few.reset(seed=1)[0]["users"], many.reset(seed=1)[0]["users"]
    distance = np.hypot(b[:, 1], b[:, 2])[b[:, 0] > 0]
    assert a.shape == (3, 8)
    np.testing.assert_allclose(np.sort(np.hypot(a[:, 1], a[:, 2])), np.sort(distance)[:3])
