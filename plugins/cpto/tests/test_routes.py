"""Routes of commonroad-route-planner lead where ours do."""

import numpy as np
import pytest

from sfumato_cpto import commonroad
from sfumato_cpto.config import REPLAY_SCENES

pytestmark = pytest.mark.optional


@pytest.fixture(autouse=True)
def packages():
    pytest.importorskip("commonroad_route_planner", reason="the extra commonroad is not installed")


@pytest.mark.parametrize("name", [name for name in REPLAY_SCENES if "Pedestrian" not in name])
def test_the_planned_path_starts_near_the_vehicle_and_reaches_the_goal(name, traffic):
    from sfumato_cpto.routes import planned_points

    road = commonroad.read(traffic / f"{name}.xml")
    points = planned_points(traffic / f"{name}.xml")
    assert np.hypot(*(points - np.array(road.start[:2])).T).min() < 3.0
    if road.goal.regions:
        assert any(commonroad.inside(region, p) for region in road.goal.regions for p in points)


def test_a_scene_with_a_planned_route_can_be_driven(traffic):
    from sfumato_cpto import CPTOSolver
    from sfumato_cpto.closed_loop import drive
    from sfumato_cpto.driver import Driver
    from sfumato_cpto.simulator.replay import from_file

    scene = from_file(traffic / "USA_US101-4_1_T-1.xml", route="commonroad")
    world = drive(scene, Driver(CPTOSolver()), np.random.default_rng(0))
    assert not [c for c in world.contacts if c.at_fault]
