"""Closed loops: nobody is hit, and the same seed gives the same course."""

import numpy as np
import pytest

from sfumato_cpto import CPTOSolver
from sfumato_cpto.driver import Driver
from sfumato_cpto.simulator import scenes
from sfumato_cpto.simulator.world import World


def _drive(family, seed, seconds, **settings):
    rng = np.random.default_rng(seed)
    scene = getattr(scenes, family)(rng, **settings)
    world, driver = World(scene, rng), Driver(CPTOSolver())
    driver.reset(scene.public)
    while not world.finished and world.time < seconds:
        world.step(*driver.act(world.observe()))
    return world, driver


@pytest.mark.parametrize("seed", [0, 1])
def test_the_cruise_is_driven_without_contact_and_with_progress(seed):
    world, driver = _drive("cruise", seed, 8.0)
    assert not [c for c in world.contacts if c.at_fault]
    assert world.ego[0] + 50.0 > 8.0 * 8.0
    assert np.mean([row["status"] in ("CONVERGED", "MAX_ITER_FEASIBLE") for row in driver.log]) > 0.9


def test_the_occluded_intersection_is_crossed():
    world, _ = _drive("occluded_intersection", 1, 40.0)
    assert world.finished
    assert not world.contacts


def test_the_same_seed_gives_the_same_course():
    courses = [np.array(_drive("cruise", 3, 2.0)[0].ego_log) for _ in range(2)]
    assert courses[0].tobytes() == courses[1].tobytes()


def test_a_lane_change_that_is_broken_off_does_not_end_in_a_followers_way():
    """Here a vehicle stopped askew between two lanes, and whoever came up behind grazed its front corner."""
    from sfumato_cpto import CPTOSolver
    from sfumato_cpto.driver import Driver
    from sfumato_cpto.simulator import scenes
    from sfumato_cpto.simulator.world import World

    rng = np.random.default_rng([6, 7])
    world = World(scenes.cruise(rng), rng)
    driver = Driver(CPTOSolver(), 6, 5, certified=True)
    driver.reset(world.scene.public)
    while not world.timed_out:
        world.step(*driver.act(world.observe()))
    assert not any(contact.at_fault for contact in world.contacts)
