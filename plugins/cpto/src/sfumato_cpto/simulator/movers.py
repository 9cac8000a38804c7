"""How road users move: car-following in lanes, walking, standing, replay of recorded tracks.

Source of the car-following law: Treiber, Hennecke, Helbing (2000), "Congested traffic states in empirical
observations and microscopic simulations", with acceleration clipped and separate free-road acceleration.
"""

from __future__ import annotations

from typing import Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@attrs.define(eq=False)
class Users:
    """Ground truth of the road users of one mover: position [M, 2], heading [M], speed [M], size [M, 2]."""

    position: Array
    heading: Array
    speed: Array
    size: Array

    @property
    def velocity(self) -> Array:
        """Velocity [M, 2], m/s."""
        return self.speed[:, None] * np.stack([np.cos(self.heading), np.sin(self.heading)], axis=1)


class Mover(Protocol):
    """Moves its users by one period, given the ego vehicle's pose and speed."""

    users: Users

    def step(self, time: float, dt: float, ego: Array, rng: np.random.Generator) -> None:
        """Advance to time + dt. `ego` = (x, y, heading, speed)."""


@attrs.frozen
class IdmParameters:
    """Car-following constants: m, s, m/s^2."""

    jam: float = 3.0
    headway: float = 1.0
    acceleration: float = 4.0
    free_acceleration: float = 3.0
    braking: float = 3.0
    exponent: float = 4.0
    length: float = 5.6
    limit: float = 4.0


def idm(v: Array, desired: Array, gap: Array, closing: Array, p: IdmParameters) -> Array:
    """Return accelerations [M]; gap is inf where there is no leader (bumper to bumper, m), closing in m/s."""
    free = 1.0 - (v / desired) ** p.exponent
    wish = p.jam + np.maximum(0.0, p.headway * v + v * closing / (2.0 * np.sqrt(p.acceleration * p.braking)))
    follow = p.acceleration * (free - (wish / np.maximum(gap, 0.1)) ** 2)
    result: Array = np.clip(np.where(np.isfinite(gap), follow, p.free_acceleration * free), -p.limit, p.limit)
    return result


@attrs.define(eq=False)
class LaneTraffic:
    """Cars in straight lanes that follow one another, and the ego vehicle too where `yields`.

    Attributes:
        origin, direction: [L, 2], a point of each lane and its unit direction of travel.
        lane: [M]; s: [M], metres along the lane; v, desired: [M], m/s.
        recycle_behind, recycle_ahead: a car further behind than this (along its lane, from the ego vehicle or from
            the lane's origin, see `recycle_about_ego`) re-enters that far ahead of the last car there.
        noise: standard deviation of the acceleration, m/s^2.
    """

    origin: Array
    direction: Array
    lane: NDArray[np.int64]
    s: Array
    v: Array
    desired: Array
    size: Array
    parameters: IdmParameters = IdmParameters()
    yields: bool = True
    lane_half_width: float = 1.9
    recycle_about_ego: bool = True
    recycle_behind: float = 60.0
    recycle_ahead: float = 150.0
    noise: float = 0.0
    users: Users = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.users = self._users()

    def _users(self) -> Users:
        d = self.direction[self.lane]
        return Users(
            self.origin[self.lane] + d * self.s[:, None],
            np.arctan2(d[:, 1], d[:, 0]),
            self.v.copy(),
            self.size,
        )

    def step(self, time: float, dt: float, ego: Array, rng: np.random.Generator) -> None:
        """Advance one period."""
        s, v = self.s, self.v
        same = self.lane[:, None] == self.lane[None]
        distance = s[None] - s[:, None]
        ahead = np.where(same & (distance > 0.0), distance, np.inf)
        leader = ahead.argmin(axis=1)
        rows = np.arange(len(s))
        gap = ahead[rows, leader] - self.parameters.length
        lead_v = v[leader]
        offset = ego[:2] - self.origin
        along = (offset * self.direction).sum(axis=1)
        across = np.abs(offset[:, 0] * self.direction[:, 1] - offset[:, 1] * self.direction[:, 0])
        if self.yields:
            cosine = np.cos(ego[2]) * self.direction[:, 0] + np.sin(ego[2]) * self.direction[:, 1]
            ego_ahead = along[self.lane] - s
            nearer = (across[self.lane] < self.lane_half_width) & (ego_ahead > 0.0)
            nearer &= ego_ahead - self.parameters.length < gap
            gap = np.where(nearer, ego_ahead - self.parameters.length, gap)
            lead_v = np.where(nearer, ego[3] * np.maximum(cosine[self.lane], 0.0), lead_v)
        a = idm(v, self.desired, gap, v - lead_v, self.parameters)
        if self.noise > 0.0:
            a = np.clip(
                a + rng.normal(0.0, self.noise, len(v)), -self.parameters.limit, self.parameters.limit
            )
        stop = np.maximum(-v / np.where(a < 0.0, a, -1.0), 0.0)
        moving = np.where(a < 0.0, np.minimum(dt, stop), dt)
        self.s = s + v * moving + 0.5 * a * moving**2
        self.v = np.maximum(v + a * dt, 0.0)
        self._recycle(along)
        self.users = self._users()

    def _recycle(self, along: Array) -> None:
        for i in range(len(self.s)):
            lane = self.lane[i]
            centre = along[lane] if self.recycle_about_ego else 0.0
            out = self.s[i] - centre
            lost = out < -self.recycle_behind if self.recycle_about_ego else out > self.recycle_ahead
            if not lost:
                continue
            others = self.s[(self.lane == lane) & (np.arange(len(self.s)) != i)]
            if self.recycle_about_ego:
                edge = float(others.max(initial=centre)) + 20.0
                self.s[i] = max(centre + self.recycle_ahead, edge)
            else:
                edge = float(others.min(initial=0.0)) - 15.0
                self.s[i] = min(-self.recycle_behind, edge)
            self.v[i] = (
                self.desired[i] if not self.recycle_about_ego else min(self.desired[i], self.v[i] + 1e-9)
            )


@attrs.define(eq=False)
class Standing:
    """Users that do not move (parked cars)."""

    users: Users

    def step(self, time: float, dt: float, ego: Array, rng: np.random.Generator) -> None:
        """Do nothing."""


@attrs.define(eq=False)
class Walker:
    """One pedestrian who sets off straight across when the ego vehicle comes within `trigger` metres (along x)."""

    users: Users
    trigger: float
    pace: float

    def step(self, time: float, dt: float, ego: Array, rng: np.random.Generator) -> None:
        """Walk on, or wait."""
        if self.users.speed[0] == 0.0 and self.users.position[0, 0] - ego[0] <= self.trigger:
            self.users.speed[0] = self.pace
        self.users.position = self.users.position + self.users.velocity * dt


@attrs.define(eq=False)
class Replay:
    """Recorded tracks, played back whatever the ego vehicle does.

    Attributes: track [K, M, 4] (x, y, heading, speed), NaN where a user is absent; size [M, 2]; dt of the record.
    """

    track: Array
    size: Array
    dt: float
    users: Users = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._at(0.0)

    def _at(self, time: float) -> None:
        k = min(round(time / self.dt), len(self.track) - 1)
        row = self.track[k]
        self.users = Users(row[:, :2].copy(), row[:, 2].copy(), row[:, 3].copy(), self.size)

    def step(self, time: float, dt: float, ego: Array, rng: np.random.Generator) -> None:
        """Show the record at time + dt."""
        self._at(time + dt)
