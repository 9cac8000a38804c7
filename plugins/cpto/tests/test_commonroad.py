"""Scene files: a small one written by hand, damaged ones, and the recorded ones where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from sfumato_cpto import commonroad
from sfumato_cpto.config import REPLAY_SCENES

DATA = Path(os.environ.get("SFUMATO_DATA", "/nonexistent")) / "traffic"
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="SFUMATO_DATA is not set or holds no traffic folder"
)


def _bound(name, y):
    points = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x in (0, 50, 100))
    return f"<{name}>{points}</{name}>"


def _state(x, y, v, k, tag="state"):
    return (
        f"<{tag}><position><point><x>{x}</x><y>{y}</y></point></position><orientation><exact>0</exact></orientation>"
        f"<time><exact>{k}</exact></time><velocity><exact>{v}</exact></velocity></{tag}>"
    )


SCENE = f"""<?xml version="1.0"?><commonRoad commonRoadVersion="2020a" timeStepSize="0.1">
<lanelet id="1">{_bound("leftBound", 2)}{_bound("rightBound", -2)}<adjacentLeft ref="2" drivingDir="same"/></lanelet>
<lanelet id="2">{_bound("leftBound", 6)}{_bound("rightBound", 2)}</lanelet>
<dynamicObstacle id="7"><type>car</type><shape><rectangle><length>4</length><width>2</width></rectangle></shape>
{_state(30, 0, 5, 0, "initialState")}<trajectory>{_state(30.5, 0, 5, 1)}{_state(31, 0, 5, 2)}</trajectory></dynamicObstacle>
<planningProblem id="9">{_state(5, 0, 10, 0, "initialState")}<goalState><position><rectangle><length>4</length>
<width>2</width><orientation>0</orientation><center><x>60</x><y>4</y></center></rectangle></position>
<time><intervalStart>40</intervalStart><intervalEnd>50</intervalEnd></time></goalState></planningProblem></commonRoad>"""


def test_a_scene_is_read(tmp_path):
    path = tmp_path / "scene.xml"
    path.write_text(SCENE)
    scene = commonroad.read(path)
    assert sorted(scene.lanelets) == [1, 2]
    assert scene.start == (5.0, 0.0, 0.0, 10.0)
    np.testing.assert_allclose(scene.track[:3, 0, 0], [30.0, 30.5, 31.0])
    assert np.isnan(scene.track[3:]).all()
    assert scene.goal.time == pytest.approx((4.0, 5.0))
    assert commonroad.start_lanelet(scene) == 1
    assert commonroad.route(scene) == [1, 2]


def test_a_scene_of_the_reader_can_be_driven(tmp_path):
    from sfumato_cpto.simulator.replay import from_file
    from sfumato_cpto.simulator.world import World

    path = tmp_path / "scene.xml"
    path.write_text(SCENE)
    world = World(from_file(path), np.random.default_rng(0))
    assert world.observe()["detected"].tolist() == [True]
    world.step(10.0, 0.0)
    assert not world.left_road


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("</commonRoad>", "", "well-formed"),
        ('timeStepSize="0.1"', 'timeStepSize="0"', "timeStepSize"),
        ("<goalState>", "<goalstate>", "well-formed"),
        ("<time><intervalStart>40</intervalStart><intervalEnd>50</intervalEnd></time>", "", "time"),
        ("<x>30.5</x>", "<x>wide</x>", "wide"),
        ("<length>4</length><width>2</width></rectangle></shape>", "</rectangle></shape>", "length"),
        ("<x>5</x>", "<x>5000</x>", "off the road"),
    ],
)
def test_a_damaged_scene_is_refused_with_its_reason(tmp_path, old, new, word):
    from sfumato_cpto.simulator.replay import from_file

    path = tmp_path / "scene.xml"
    path.write_text(SCENE.replace(old, new))
    with pytest.raises(commonroad.SceneError, match=word):
        from_file(path)


def test_a_scene_without_a_task_or_a_file_is_refused(tmp_path):
    with pytest.raises(commonroad.SceneError, match="found none"):
        commonroad.read(tmp_path / "absent.xml")
    path = tmp_path / "scene.xml"
    start = SCENE.index("<planningProblem")
    path.write_text(SCENE[:start] + "</commonRoad>")
    with pytest.raises(commonroad.SceneError, match="planningProblem"):
        commonroad.read(path)


@needs_data
@pytest.mark.data
@pytest.mark.parametrize("name", REPLAY_SCENES)
def test_recorded_scenes_can_be_read_and_begun(name):
    from sfumato_cpto.simulator.replay import from_file
    from sfumato_cpto.simulator.world import World

    scene = from_file(DATA / f"{name}.xml")
    world = World(scene, np.random.default_rng(0))
    assert world.observe()["detected"].any()
    world.step(scene.ego[3], 0.0)
    assert not world.contacts
    assert not world.left_road


@needs_data
@pytest.mark.data
@pytest.mark.optional
@pytest.mark.parametrize("name", REPLAY_SCENES[:2])
def test_our_reader_agrees_with_commonroad_io(name):
    reader = pytest.importorskip("commonroad.common.file_reader", reason="commonroad extra not installed")
    scenario, _ = reader.CommonRoadFileReader(str(DATA / f"{name}.xml")).open()
    ours = commonroad.read(DATA / f"{name}.xml")
    assert len(ours.lanelets) == len(scenario.lanelet_network.lanelets)
    theirs = sorted(
        tuple(np.round(o.state_at_time(0).position, 3))
        for o in scenario.dynamic_obstacles
        if o.state_at_time(0)
    )
    mine = sorted(tuple(np.round(row[:2], 3)) for row in ours.track[0] if np.isfinite(row[0]))
    np.testing.assert_allclose(mine, theirs, atol=1e-3)


@needs_data
@pytest.mark.data
def test_a_real_highway_scene_is_driven_to_its_goal():
    from sfumato_cpto import CPTOSolver
    from sfumato_cpto.driver import Driver
    from sfumato_cpto.simulator.replay import from_file
    from sfumato_cpto.simulator.world import World

    world = World(from_file(DATA / "USA_US101-3_3_T-1.xml"), np.random.default_rng(0))
    driver = Driver(CPTOSolver(), 6, 2)
    driver.reset(world.scene.public)
    while not (world.finished or world.timed_out):
        world.step(*driver.act(world.observe()))
    assert world.finished
    assert not world.contacts
    assert not world.left_road
