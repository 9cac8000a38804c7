"""The frame along a path: known curves, and there and back again."""

import numpy as np
import pytest

from sfumato_cpto.curvilinear import PathError, ReferencePath
from sfumato_cpto.problem import State

ANGLE = np.linspace(0.0, 1.5, 60)
ARC = ReferencePath(50.0 * np.stack([np.sin(ANGLE), 1.0 - np.cos(ANGLE)], axis=1), smoothing=1e-8)
LINE = ReferencePath([[0.0, 0.0], [30.0, 40.0]])


def test_a_circle_has_its_curvature_and_length():
    assert ARC.length == pytest.approx(75.0, rel=1e-3)
    np.testing.assert_allclose(ARC.curvature(np.linspace(10.0, 65.0, 20)), 1.0 / 50.0, rtol=1e-2)


def test_positions_go_into_the_frame_and_back():
    rng = np.random.default_rng(0)
    for path in (ARC, LINE):
        sd = np.stack([rng.uniform(2.0, 48.0, 50), rng.uniform(-6.0, 6.0, 50)], axis=1)
        np.testing.assert_allclose(path.to_frame(path.from_frame(sd)), sd, atol=1e-6)


def test_a_straight_path_is_a_rotation():
    np.testing.assert_allclose(LINE.to_frame([[3.0, 4.0], [-4.0, 3.0]]), [[5.0, 0.0], [0.0, 5.0]], atol=1e-8)


def test_following_the_circle_is_straight_driving_in_the_frame():
    speed = 10.0
    x, y = ARC.from_frame(np.array([20.0, 0.0]))
    state = ARC.state_to_frame(State(x, y, float(ARC.heading(20.0)), speed, speed / 50.0, 0.5))
    assert (state.x, state.y) == pytest.approx((20.0, 0.0), abs=1e-6)
    assert state.heading == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(state.flat()[:, 1:], [[10.0, 0.5], [0.0, 0.0]], atol=2e-2)


def test_derivatives_in_the_frame_agree_with_finite_differences():
    # A Cartesian circle with its own radius, driven across the bent frame.
    dt, speed, yaw = 1e-3, 8.0, 0.15

    def pose(t):
        theta = 0.2 + yaw * t
        return State(
            10.0 + speed / yaw * (np.sin(theta) - np.sin(0.2)), 3.0 - speed / yaw * (np.cos(theta) - np.cos(0.2)), theta,
            speed, yaw, 0.0,
        )  # fmt: skip

    frames = [ARC.to_frame(np.array([pose(k * dt).x, pose(k * dt).y])) for k in (-1, 0, 1)]
    flat = ARC.state_to_frame(pose(0.0)).flat()
    np.testing.assert_allclose(flat[:, 1], (frames[2] - frames[0]) / (2 * dt), atol=1e-3)
    np.testing.assert_allclose(flat[:, 2], (frames[2] - 2 * frames[1] + frames[0]) / dt**2, atol=2e-2)


def test_the_command_reproduces_steady_circular_driving():
    x, y = ARC.from_frame(np.array([20.0, 0.0]))
    state = State(x, y, float(ARC.heading(20.0)), 10.0, yaw_rate=0.2)
    speed, yaw = ARC.command(state, np.array([21.0, 0.0]), np.array([10.0, 0.0]), 0.1)
    assert (speed, yaw) == pytest.approx((10.0, 0.2), rel=1e-2)


@pytest.mark.parametrize("points", [[[0.0, 0.0]], [[0.0, 0.0], [np.nan, 1.0]], [[1.0, 1.0], [1.0, 1.0]]])
def test_a_path_that_is_none_is_refused(points):
    with pytest.raises(PathError):
        ReferencePath(points)


@pytest.mark.optional
def test_the_frame_agrees_with_commonroad_clcs():
    clcs = pytest.importorskip("commonroad_clcs.clcs", reason="curvilinear extra not installed")
    points = 50.0 * np.stack(
        [np.sin(np.linspace(0, 1.5, 400)), 1.0 - np.cos(np.linspace(0, 1.5, 400))], axis=1
    )
    config = pytest.importorskip("commonroad_clcs.config", reason="curvilinear extra not installed")
    system = clcs.CurvilinearCoordinateSystem(points, config.CLCSParams(), preprocess_path=False)
    fine = ReferencePath(points, smoothing=1e-9)
    shift = None
    for s, d in [(10.0, 2.0), (30.0, -3.0), (60.0, 1.0)]:
        x, y = fine.from_frame(np.array([s, d]))
        other = np.array(system.convert_to_curvilinear_coords(float(x), float(y)))
        shift = other[0] - s if shift is None else shift
        assert other[1] == pytest.approx(d, abs=0.02)
        assert other[0] - s == pytest.approx(shift, abs=0.05)


def test_the_wheels_turn_no_faster_than_they_can():
    from sfumato_cpto.curvilinear import STEERING_RATE, WHEELBASE

    x, y = ARC.from_frame(np.array([20.0, 0.0]))
    state = State(x, y, float(ARC.heading(20.0)) + 0.3, 1.0)
    speed, yaw = ARC.command(state, np.array([20.1, 0.0]), np.array([1.0, 0.0]), 0.1)
    assert abs(np.arctan(WHEELBASE * yaw / speed)) <= STEERING_RATE * 0.1
