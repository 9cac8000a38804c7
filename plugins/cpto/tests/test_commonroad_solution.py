"""Solutions: written with the standard library, read by CommonRoad's own reader, and accepted by its checker."""

import numpy as np
import pytest

from sfumato_cpto import commonroad, commonroad_solution


@pytest.fixture
def road(tmp_path, straight_road):
    path = tmp_path / "USA_Test-1_1_T-1.xml"
    path.write_text(straight_road)
    return commonroad.read(path)


def _arc(speed=8.0, turn=0.1, n=20, dt=0.1):
    rows = [(0.0, 5.0, 0.0, 0.0, speed, 0.0, 0.0)]
    for k in range(1, n):
        _, x, y, theta, *_ = rows[-1]
        middle, chord = theta + 0.5 * turn * dt, speed * dt * np.sinc(0.5 * turn * dt / np.pi)
        rows.append(
            (
                k * dt,
                x + chord * np.cos(middle),
                y + chord * np.sin(middle),
                theta + turn * dt,
                speed,
                turn,
                0.0,
            )
        )
    return np.array(rows)


def test_steering_reproduces_the_yaw_rate_of_the_unicycle():
    rows = commonroad_solution.states(_arc(), 2.5789)
    np.testing.assert_allclose(rows[:, 3] * np.tan(rows[:, 2]) / 2.5789, 0.1, rtol=1e-12)


def test_the_file_names_problem_vehicle_and_cost(road):
    text = commonroad_solution.solution(road, _arc())
    assert 'benchmark_id="KS2:TR1:USA_Test-1_1_T-1:2020a"' in text
    assert 'planningProblem="9"' in text
    assert text.count("<ksState>") == 20


def test_what_cannot_be_written_is_refused(road):
    with pytest.raises(ValueError, match="vehicle"):
        commonroad_solution.solution(road, _arc(), vehicle=9)
    with pytest.raises(ValueError, match="two states"):
        commonroad_solution.solution(road, _arc(n=1))


@pytest.mark.optional
def test_commonroads_own_reader_accepts_the_file(road, tmp_path):
    reader = pytest.importorskip("commonroad.common.solution", reason="the extra commonroad is not installed")
    ego = _arc()
    path = commonroad_solution.write(tmp_path / "solution.xml", road, ego)
    found = reader.CommonRoadSolutionReader.open(str(path))
    assert found.benchmark_id == "KS2:TR1:USA_Test-1_1_T-1:2020a"
    problem = found.planning_problem_solutions[0]
    assert problem.planning_problem_id == 9
    assert [s.time_step for s in problem.trajectory.state_list] == list(range(20))
    np.testing.assert_array_equal([s.position for s in problem.trajectory.state_list], ego[:, 1:3])


@pytest.mark.optional
def test_a_driven_recorded_scene_is_written_and_read_back(tmp_path, traffic):
    reader = pytest.importorskip("commonroad.common.solution", reason="the extra commonroad is not installed")
    from sfumato_cpto import CPTOSolver
    from sfumato_cpto.closed_loop import drive
    from sfumato_cpto.driver import Driver
    from sfumato_cpto.simulator.replay import from_file

    file = traffic / "USA_US101-4_1_T-1.xml"
    rng = np.random.default_rng(0)
    world = drive(from_file(file), Driver(CPTOSolver()), rng)
    road = commonroad.read(file)
    path = commonroad_solution.write(tmp_path / "solution.xml", road, np.array(world.ego_log))
    found = reader.CommonRoadSolutionReader.open(str(path))
    assert found.planning_problem_solutions[0].planning_problem_id == road.problem
