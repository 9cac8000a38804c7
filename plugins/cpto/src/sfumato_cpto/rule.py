"""A rule planner in the manner of PDM-Closed: a few proposals, rolled out, scored, and the best one driven.

Proposals follow the goal lane with three lateral offsets at five shares of the wanted speed, each behind its leader by the
intelligent driver model. They are scored as closed-loop benchmarks score a drive: contacts and leaving the road count as
factors, progress, time to collision and comfort as weighted terms. What is not seen is not thought of. When even the best proposal
meets somebody soon, it brakes as hard as it can.

Source: Dauner, Hallgarten, Geiger, Chitta, "Parting with misconceptions about learning-based vehicle motion planning"
(CoRL 2023), section on PDM-Closed; our own code, on straight frames and constant-velocity prediction.
"""

from __future__ import annotations

import time

import attrs
import numba
import numpy as np

from sfumato_cpto import coldstart
from sfumato_cpto.admm import Array
from sfumato_cpto.driver import Driver
from sfumato_cpto.hypotheses import Situation
from sfumato_cpto.problem import Hypotheses, Problem
from sfumato_cpto.safety import Certificate
from sfumato_cpto.simulator.geometry import overlap
from sfumato_cpto.solver import Plan
from sfumato_cpto.statuses import Status

SPEED_SHARES = (0.2, 0.4, 0.6, 0.8, 1.0)
OFFSETS = (-1.0, 0.0, 1.0)  # m
ACCELERATION, BRAKING, HEADWAY, JAM = 1.5, 3.0, 1.5, 1.0  # m/s^2, m/s^2, s, m
BLEND_SECONDS = 3.0
HORIZON = 4.0  # s over which proposals are scored
EMERGENCY_SECONDS = 2.0  # a contact sooner than this in the best proposal calls for the brakes
EMERGENCY_BRAKE = 8.0  # m/s^2
WEIGHTS = {"progress": 5.0, "ttc": 5.0, "comfort": 2.0}


@attrs.frozen(eq=False)
class Proposals:
    """Rolled-out proposals: position [K, 2, N], speed, heading and acceleration [K, N]."""

    position: Array
    speed: Array
    heading: Array
    acceleration: Array


@numba.njit(cache=True, error_model="numpy")
def _follow(x, v, a, y, wanted, centre, present, half, cap, dt):
    # Along each proposal behind whoever is ahead in its corridor at that time.
    for i in range(x.shape[0]):
        for k in range(x.shape[1] - 1):
            gap, closing = np.inf, 0.0
            for j in range(centre.shape[0]):
                if not present[j] or centre[j, 0, k] <= x[i, k]:
                    continue
                ahead = max(centre[j, 0, k] - x[i, k] - half[j, 0], 0.1)
                if abs(centre[j, 1, k] - y[i, k]) < half[j, 1] + 0.3 and ahead < gap:
                    gap = ahead
                    closing = v[i, k] - (centre[j, 0, k + 1] - centre[j, 0, k]) / dt
            wish = v[i, k] * HEADWAY + v[i, k] * closing / (2.0 * np.sqrt(ACCELERATION * BRAKING))
            wish = JAM + max(wish, 0.0)
            want = ACCELERATION * (1.0 - (v[i, k] / wanted[i]) ** 4 - (wish / gap) ** 2)
            a[i, k] = min(max(want, -BRAKING), ACCELERATION)
            v[i, k + 1] = min(max(v[i, k] + a[i, k] * dt, 0.0), cap[k + 1])
            x[i, k + 1] = x[i, k] + 0.5 * (v[i, k] + v[i, k + 1]) * dt


def roll_out(problem: Problem, users: Array, own: Array, dt: float) -> Proposals:
    """Return 15 proposals. Arguments: users [M, 2] sizes of the problem's obstacles; own [2] size, m."""
    n = problem.speed_cap.shape[1]
    share, offset = (v.ravel() for v in np.meshgrid(SPEED_SHARES, OFFSETS, indexing="ij"))
    wanted = np.maximum(share * problem.goal_speed[0], 0.5)
    (x0, vx0, _), (y0, vy0, _) = problem.start
    goal = problem.goal_y[0] + offset
    times = np.arange(n) * dt
    s = np.minimum(times / BLEND_SECONDS, 1.0)
    blend = s**3 * (10.0 - 15.0 * s + 6.0 * s * s)
    y = y0 + (goal[:, None] - y0) * blend + vy0 * times * (1.0 - s) ** 3
    x, v = np.full((len(share), n), x0), np.full((len(share), n), vx0)
    a = np.zeros_like(x)
    _follow(
        x, v, a, y, wanted, problem.centre, problem.present[0], 0.5 * (own + users), problem.speed_cap[0], dt
    )
    lateral = np.gradient(y, dt, axis=1) * (v > 0.3)
    # Who stands does not slide aside.
    y = y0 + np.concatenate([np.zeros((len(y), 1)), np.cumsum(lateral[:, :-1] * dt, axis=1)], axis=1)
    heading = np.where(v > 0.3, np.arctan2(lateral, np.maximum(v, 0.3)), problem.heading)
    return Proposals(np.stack([x, y], axis=1), np.hypot(v, lateral), heading, a)


def score(problem: Problem, proposals: Proposals, users: Array, own: Array, dt: float) -> tuple[Array, Array]:
    """Return (score [K], higher is better; time of the first contact [K] in s, inf for none)."""
    k = round(HORIZON / dt) + 1
    position, heading = proposals.position[:, :, :k], proposals.heading[:, :k]
    count = position.shape[2]
    contact = np.full(len(position), np.inf)
    ttc = np.full(len(position), np.inf)
    for j in range(problem.n_obstacles):
        if not problem.present[0, j]:
            continue
        centre = problem.centre[j, :, :count].T
        step = np.diff(problem.centre[j], axis=1)[:, 0] / dt
        angle = np.arctan2(step[1], step[0]) if np.hypot(*step) > 0.3 else 0.0
        for ahead, store in ((0.0, contact), (1.0, ttc)):
            # For the time to collision, both go on straight for another second.
            shift = ahead * proposals.speed[:, :count]
            own_at = position.transpose(0, 2, 1) + shift[:, :, None] * np.stack(
                [np.cos(heading), np.sin(heading)], axis=2
            )
            hit = overlap(own_at, heading, own, centre[None] + ahead * step, np.full(1, angle), users[j])
            behind = (centre[:, 0] < position[:, 0] - 0.5 * own[0]) & (step[0] > 0.0)
            hit &= ~behind
            first = np.where(hit.any(axis=1), hit.argmax(axis=1) * dt, np.inf)
            np.minimum(store, first, out=store)
    n = problem.speed_cap.shape[1]
    c = problem.n_candidates
    low, high = problem.low[c, :count], problem.high[c, :count]
    inside = ((position[:, 1] >= low - 0.3) & (position[:, 1] <= high + 0.3)).all(axis=1)
    progress = position[:, 0, -1] - position[:, 0, 0]
    progress = progress / max(float(progress.max()), 1.0)
    jerk = np.abs(np.diff(proposals.acceleration[:, : min(count, n - 1)], axis=1)).max(axis=1) / dt
    lateral = np.abs(np.diff(proposals.heading[:, :count], axis=1)).max(axis=1) / dt * proposals.speed[:, 0]
    comfort = ((jerk <= 8.0) & (lateral <= 4.0)).astype(float)
    total = WEIGHTS["progress"] * progress + WEIGHTS["ttc"] * np.isinf(ttc) + WEIGHTS["comfort"] * comfort
    return total / sum(WEIGHTS.values()) * np.isinf(contact) * inside, contact


class RuleDriver(Driver):
    """Drives the best-scored proposal; sees what is detected, and nothing else."""

    def question(self, situation: Situation) -> Situation:
        """Leave out what is only imagined."""
        h = situation.hypotheses
        present = (np.asarray(situation.user) >= 0)[None]
        cap = None if h.speed_cap is None else np.asarray(h.speed_cap)[:1]
        one = Hypotheses(
            present, np.asarray(h.goal_y)[:1], np.asarray(h.goal_speed)[:1], cap, np.array([1.0])
        )
        return attrs.evolve(situation, hypotheses=one)

    def solve(self, situation: Situation, previous: Plan | None) -> Plan:
        """Roll out, score, choose."""
        begun = time.monotonic()
        solver = self.solver
        posed = solver.pose(
            situation.state, situation.obstacles, situation.hypotheses, situation.bounds, previous, begun,
            start_within_bounds=False,
        )  # fmt: skip
        if isinstance(posed, Plan):
            return posed
        problem, brake = posed
        own = np.asarray(self._public["size"], dtype=float)
        users = np.array([self.interpreter.size_of(int(j), situation) for j in situation.user]).reshape(-1, 2)
        dt = solver.settings.dt
        proposals = roll_out(problem, users, own, dt)
        value, contact = score(problem, proposals, users, own, dt)
        best = int(np.argmax(np.where(value > 0.0, value, contact * 1e-3 - 1.0)))
        path = proposals.position[best]
        speed = float(proposals.speed[best, 1])
        if contact[best] < EMERGENCY_SECONDS:
            speed = max(situation.state.speed - EMERGENCY_BRAKE * dt, 0.0)
        turn = (proposals.heading[best, 1] - situation.state.heading) / dt
        coef = coldstart.fit(solver.transcription, problem, path[:, None]).reshape(2, -1)
        plan = solver.check(problem, coef, brake, begun)
        # Its own rules decide what it drives, not our ellipses.
        return attrs.evolve(plan, status=Status.CONVERGED, command=(speed, float(np.clip(turn, -0.5, 0.5))))

    def _command(
        self, plan: Plan, situation: Situation, certificate: Certificate | None
    ) -> tuple[float, float]:
        self._acceleration = None
        if plan.status is Status.BAD_INPUT:
            return max(situation.state.speed - 0.4, 0.0), 0.0
        self._driven, self._elapsed = plan, 0
        if situation.frame is not None and situation.world is not None:
            speed, turn = plan.command
            angle = situation.state.heading + turn * self.solver.settings.dt
            velocity = speed * np.array([np.cos(angle), np.sin(angle)])
            position = np.array([situation.state.x, situation.state.y]) + velocity * self.solver.settings.dt
            return situation.frame.command(situation.world, position, velocity, self.solver.settings.dt)
        return plan.command
