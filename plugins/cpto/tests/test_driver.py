"""The agent answers bad observations at once and drives on when the next one is good."""

import numpy as np
import pytest

from sfumato_cpto import CPTOSolver
from sfumato_cpto.driver import Driver
from sfumato_cpto.simulator import scenes
from sfumato_cpto.simulator.world import World


def _spoil(name, change):
    def spoiled(observation):
        observation = dict(observation)
        observation[name] = change(observation[name])
        return observation

    return spoiled


FAULTS = {
    "nothing was observed": lambda observation: None,
    "ego is not a number": _spoil("ego", lambda v: v * np.nan),
    "ego is missing": _spoil("ego", lambda v: None),
    "ego is too short": _spoil("ego", lambda v: v[:4]),
    "a position is not a number": _spoil("position", lambda v: v * np.nan),
    "a velocity is infinite": _spoil("velocity", lambda v: v + np.inf),
    "sizes are negative": _spoil("size", lambda v: -v),
    "the mask has another length": _spoil("detected", lambda v: v[:-1]),
    "there is no time": lambda observation: {k: v for k, v in observation.items() if k != "time"},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("family", ["cruise", "occluded_pedestrian"])
def test_a_bad_observation_is_answered_by_braking_and_the_drive_goes_on(fault, family):
    rng = np.random.default_rng(0)
    world = World(getattr(scenes, family)(rng), rng)
    driver = Driver(CPTOSolver(), certified=True)
    driver.reset(world.scene.public)
    for k in range(5):
        observation = world.observe()
        bad = k == 2
        before = world.ego[3]
        command = driver.act(FAULTS[fault](observation) if bad else observation)
        assert np.isfinite(command).all()
        if bad:
            assert driver.plan.status.name == "BAD_INPUT"
            assert "expected" in driver.plan.message
            assert command[0] < before
        world.step(*command)
    assert driver.plan.status.is_feasible
    assert [row["status"] == "BAD_INPUT" for row in driver.log] == [False, False, True, False, False]
    assert np.isfinite(world.ego).all()


def test_a_bad_first_observation_is_no_reason_to_move():
    driver = Driver(CPTOSolver())
    rng = np.random.default_rng(0)
    world = World(scenes.cruise(rng), rng)
    driver.reset(world.scene.public)
    assert driver.act({**world.observe(), "ego": None}) == (0.0, 0.0)
