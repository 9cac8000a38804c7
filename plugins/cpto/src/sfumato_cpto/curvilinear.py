"""A curvilinear frame along a reference path: s along it, d to its left.

The planner works in this frame as if it were flat; what the bend changes is handled here: states go in, commands come
out, and the lateral acceleration that the bend itself takes is handed over as tighter bounds.

Source: Werling et al., "Optimal trajectory generation for dynamic street scenarios in a Frenet frame" (ICRA 2010) for
the transformation of velocities and accelerations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline, splev, splprep

from sfumato_cpto.problem import State

Array = NDArray[np.float64]


WHEELBASE = 2.5789  # m
STEERING_RATE = 0.4  # rad/s
STEERING_MAX = 0.6  # rad


class PathError(ValueError):
    """Raised when a reference path cannot carry a frame (too short, not finite)."""


class ReferencePath:
    """A smooth path parameterised by arc length, prolonged straight at both ends.

    Arguments: points [K, 2], m, in driving order; smoothing: mean squared deviation allowed from them, m^2.
    """

    def __init__(self, points: ArrayLike, smoothing: float = 0.02, extend: float = 60.0) -> None:
        raw = np.array(points, dtype=np.float64)
        if raw.ndim != 2 or raw.shape[1] != 2 or not np.isfinite(raw).all():
            raise PathError(
                f"expected finite points [K, 2] for a reference path, got shape {list(raw.shape)}"
            )
        step = np.hypot(*np.diff(raw, axis=0).T)
        raw = raw[np.concatenate([[True], step > 0.05])]
        if len(raw) < 2:
            raise PathError(f"expected at least two distinct points for a reference path, got {len(raw)}")
        arc = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(raw, axis=0).T))])
        if len(raw) < 8:  # a polyline of few corners is a drawing, not a sampled curve: fill it up
            even = np.linspace(0.0, arc[-1], max(int(arc[-1] / 2.0), 8) + 1)
            raw = np.stack([np.interp(even, arc, raw[:, k]) for k in range(2)], axis=1)
            arc = even
        # Weights by spacing, so that smoothing does not depend on how densely a stretch of the map was drawn.
        spacing = np.gradient(arc)
        weight = np.sqrt(spacing / spacing.mean())
        spline, _ = splprep(raw.T, u=arc, w=weight, s=smoothing * len(raw), k=5)
        fine = np.linspace(0.0, arc[-1], max(int(arc[-1] / 0.25), 8) + 1)
        middle = np.array(splev(fine, spline)).T
        ends = np.array(splev([fine[0], fine[-1]], spline, der=1)).T
        ends = ends / np.hypot(*ends.T)[:, None]
        out = np.arange(0.5, extend + 0.25, 0.5)
        whole = np.concatenate(
            [middle[0] - ends[0] * out[::-1, None], middle, middle[-1] + ends[1] * out[:, None]]
        )
        s = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(whole, axis=0).T))]) - extend
        # Twice: chord lengths fall short of arc lengths on the first pass.
        for _ in range(2):
            curve = CubicSpline(s, whole)
            quarter = 0.25 * np.diff(s)
            middle_speed = np.hypot(*curve(s[:-1] + 2 * quarter, 1).T)
            start_speed, stop_speed = np.hypot(*curve(s[:-1], 1).T), np.hypot(*curve(s[1:], 1).T)
            length = np.diff(s) * (start_speed + 4 * middle_speed + stop_speed) / 6.0
            s = np.concatenate([[0.0], np.cumsum(length)]) + s[0]
        self.curve = CubicSpline(s, whole)
        self.grid, self.points = s, whole
        self.length = float(s[-1] - extend)

    def heading(self, s: ArrayLike) -> Array:
        """Return the path's heading at s, rad."""
        tangent = self.curve(s, 1)
        result: Array = np.arctan2(tangent[..., 1], tangent[..., 0])
        return result

    def curvature(self, s: ArrayLike) -> Array:
        """Return the path's signed curvature at s, 1/m."""
        one, two = self.curve(s, 1), self.curve(s, 2)
        result: Array = (one[..., 0] * two[..., 1] - one[..., 1] * two[..., 0]) / np.hypot(
            one[..., 0], one[..., 1]
        ) ** 3
        return result

    def to_frame(self, position: ArrayLike) -> Array:
        """Return (s, d) [..., 2] of positions [..., 2]; the nearest point of the path, by Newton's method."""
        p = np.asarray(position, dtype=np.float64)
        flat = p.reshape(-1, 2)
        s = np.empty(len(flat))
        for i, point in enumerate(flat):
            s[i] = self.grid[np.argmin(((self.points - point) ** 2).sum(axis=1))]
        low, high = self.grid[0], self.grid[-1]
        for _ in range(8):
            offset, one, two = flat - self.curve(s), self.curve(s, 1), self.curve(s, 2)
            slope = (one * one).sum(axis=1) - (offset * two).sum(axis=1)
            move = (offset * one).sum(axis=1) / np.where(np.abs(slope) < 0.1, 0.1, slope)
            s = np.clip(s + np.clip(move, -1.0, 1.0), low, high)
        offset, tangent = flat - self.curve(s), self.curve(s, 1)
        tangent = tangent / np.hypot(*tangent.T)[:, None]
        d = tangent[:, 0] * offset[:, 1] - tangent[:, 1] * offset[:, 0]
        result: Array = np.stack([s, d], axis=1).reshape(p.shape)
        return result

    def from_frame(self, sd: ArrayLike) -> Array:
        """Return positions [..., 2] of (s, d) [..., 2]."""
        sd = np.asarray(sd, dtype=np.float64)
        s, d = np.clip(sd[..., 0], self.grid[0], self.grid[-1]), sd[..., 1]
        heading = self.heading(s)
        result: Array = self.curve(s) + d[..., None] * np.stack([-np.sin(heading), np.cos(heading)], axis=-1)
        return result

    def state_to_frame(self, state: State) -> State:
        """Return the state in the frame: x = s, y = d, and heading, speed, yaw rate, acceleration of the (s, d) motion."""
        s, d = self.to_frame(np.array([state.x, state.y]))
        kappa = float(self.curvature(s))
        bend = (float(self.curvature(s + 0.5)) - float(self.curvature(s - 0.5))) / 1.0
        relative = (state.heading - float(self.heading(s)) + np.pi) % (2 * np.pi) - np.pi
        scale = max(1.0 - kappa * d, 0.1)
        c, n = np.cos(relative), np.sin(relative)
        s_dot, d_dot = state.speed * c / scale, state.speed * n
        turn = state.yaw_rate - kappa * s_dot
        along = state.acceleration * c - state.speed * n * turn
        d_ddot = state.acceleration * n + state.speed * c * turn
        s_ddot = (along + s_dot * (bend * s_dot * d + kappa * d_dot)) / scale
        speed = float(np.hypot(s_dot, d_dot))
        heading = float(np.arctan2(d_dot, s_dot)) if speed > 1e-6 else float(relative)
        ch, sh = np.cos(heading), np.sin(heading)
        yaw = float((d_ddot * ch - s_ddot * sh) / speed) if speed > 0.3 else 0.0
        return State(float(s), float(d), heading, speed, yaw, float(s_ddot * ch + d_ddot * sh))

    def velocity_to_frame(self, sd: Array, velocity: Array) -> Array:
        """Return (s_dot, d_dot) [M, 2] of velocities [M, 2] at (s, d) [M, 2]."""
        heading, kappa = self.heading(sd[:, 0]), self.curvature(sd[:, 0])
        c, n = np.cos(heading), np.sin(heading)
        along, across = velocity[:, 0] * c + velocity[:, 1] * n, -velocity[:, 0] * n + velocity[:, 1] * c
        return np.stack([along / np.maximum(1.0 - kappa * sd[:, 1], 0.1), across], axis=1)

    def command(self, state: State, sd: Array, sd_dot: Array, dt: float) -> tuple[float, float]:
        """Return (speed, yaw rate) that bring the Cartesian `state` to frame position sd with frame velocity sd_dot."""
        s, d = float(sd[0]), float(sd[1])
        scale = max(1.0 - float(self.curvature(s)) * d, 0.1)
        along, across = float(sd_dot[0]) * scale, float(sd_dot[1])
        speed = float(np.hypot(along, across))
        if speed < 0.3:
            return speed, 0.0
        heading = float(self.heading(s)) + float(np.arctan2(across, max(along, 1e-3)))
        turn = (heading - state.heading + np.pi) % (2 * np.pi) - np.pi
        # The wheels turn at a finite rate, which matters where the vehicle creeps.
        pace = max(speed, 0.3)
        now = float(np.arctan(WHEELBASE * state.yaw_rate / max(state.speed, 0.3)))
        wanted = float(np.arctan(WHEELBASE * turn / (pace * dt)))
        step = 0.95 * STEERING_RATE * dt
        steering = float(np.clip(np.clip(wanted, now - step, now + step), -STEERING_MAX, STEERING_MAX))
        return speed, float(pace * np.tan(steering) / WHEELBASE)
