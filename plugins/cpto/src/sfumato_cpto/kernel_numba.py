"""Compiled CPU kernel of the ADMM: the iteration of `admm.iterate`, fused and without temporaries."""

from __future__ import annotations

from math import atan2, cos, floor, pi, sin, sqrt

import numba
import numpy as np

from sfumato_cpto.admm import FREEZE_SPEED, PROJECTIONS, AdmmState, Array, fixed_coefficients
from sfumato_cpto.barrier import _pool, decay
from sfumato_cpto.config import Stage
from sfumato_cpto.problem import Problem
from sfumato_cpto.transcription import Factors, Transcription

# No infinities reach the kernels (bounds are clipped), so every fast-math flag is allowed but for reciprocals.
_FAST = {"nnan", "nsz", "contract", "reassoc"}


@numba.njit(cache=True, fastmath=_FAST)
def _run(
    n_iterations, check_every, tolerance,
    coef, sample, heading, speed, box, dual_box, dual_motion, dual_heading, dual_obstacle, distance, pull,
    share, dual_share, share_heading, dual_share_heading,
    weight, goal_y, goal_speed, low, high, speed_cap, centre, axes, present, start_speed, heading0,
    samples, p_t, lane_rows, gamma, product, block_of,
    tail, shared, offset, box_weight, heading_tail, heading_shared, heading_offset,
    rho_obstacle, rho_motion, rho_heading, rho_consensus, w_lane, w_speed,
    relaxation, penalty, n_consensus, projection,
):  # fmt: skip
    c = goal_y.shape[0]
    m = centre.shape[0]
    n = speed.shape[1]
    phi = np.empty((c, n))
    target_heading = np.empty((c, n))
    direction = np.empty((2 * c, n))
    targets = np.empty((2 * c, 4 * n))
    mean = np.empty((1, 4 * n))
    mean_heading = np.empty((1, n))
    raw = np.empty(n)
    projected = np.empty(n)
    residual = np.zeros(6)
    done = 0
    for iteration in range(n_iterations):
        done = iteration + 1
        check = done % check_every == 0 or done == n_iterations
        # Heading.
        for i in range(c):
            last = heading0
            for k in range(n):
                vx = sample[i, n + k]
                vy = sample[c + i, n + k]
                if vx * vx + vy * vy >= FREEZE_SPEED * FREEZE_SPEED:
                    turn = atan2(vy, vx) - last
                    last += turn - 2.0 * pi * floor(turn / (2.0 * pi) + 0.5)
                phi[i, k] = last
                target_heading[i, k] = rho_heading * (last - dual_heading[i, k])
            if penalty:
                for k in range(n_consensus):
                    target_heading[i, k] += rho_consensus * (share_heading[k] - dual_share_heading[i, k])
        coef_heading = np.dot(target_heading, heading_tail)
        if not penalty:
            for k in range(n):
                total = 0.0
                for i in range(c):
                    total += weight[i] * target_heading[i, k]
                mean_heading[0, k] = total
            common = np.dot(mean_heading, heading_shared)
            for i in range(c):
                coef_heading[i] += common[0]
        for i in range(c):
            coef_heading[i] += heading_offset
        heading[:] = np.dot(coef_heading, p_t)
        for i in range(c):
            for k in range(n):
                direction[i, k] = cos(heading[i, k])
                direction[c + i, k] = sin(heading[i, k])
        # Targets of the position step.
        for axis in range(2):
            for i in range(c):
                r = axis * c + i
                for group in range(4):
                    rho = box_weight[axis, group]
                    lo = group * n
                    if rho > 0.0:
                        for k in range(lo, lo + n):
                            targets[r, k] = rho * (box[r, k] - dual_box[r, k])
                    else:
                        for k in range(lo, lo + n):
                            targets[r, k] = 0.0
                for k in range(n):
                    targets[r, k] += rho_obstacle * pull[r, k]
                for k in range(n):
                    targets[r, n + k] += rho_motion * (speed[i, k] * direction[r, k] - dual_motion[r, k])
                if axis == 0:
                    for k in range(n):
                        targets[r, n + k] += w_speed * goal_speed[i]
                else:
                    for k in range(n):
                        targets[r, k] += w_lane * goal_y[i] * lane_rows[k]
                if penalty:
                    for part in range(3):
                        for k in range(part * n, part * n + n_consensus):
                            targets[r, k] += rho_consensus * (share[axis, k] - dual_share[r, k])
        for axis in range(2):
            rows = targets[axis * c : (axis + 1) * c]
            new = np.dot(rows, tail[axis])
            if not penalty:
                for k in range(4 * n):
                    mean[0, k] = 0.0
                for i in range(c):
                    for k in range(4 * n):
                        mean[0, k] += weight[i] * rows[i, k]
                common = np.dot(mean, shared[axis])
                for i in range(c):
                    new[i] += common[0]
            for i in range(c):
                for k in range(coef.shape[1]):
                    coef[axis * c + i, k] = new[i, k] + offset[axis, k]
        np.dot(coef, samples, sample)
        # Speed, and the dual of the motion constraint.
        worst_motion = 0.0
        for i in range(c):
            for k in range(n):
                along = (sample[i, n + k] + dual_motion[i, k]) * direction[i, k]
                along += (sample[c + i, n + k] + dual_motion[c + i, k]) * direction[c + i, k]
                speed[i, k] = min(max(along, 0.0), speed_cap[i, k])
            speed[i, 0] = start_speed
            for k in range(n):
                rx = sample[i, n + k] - speed[i, k] * direction[i, k]
                ry = sample[c + i, n + k] - speed[i, k] * direction[c + i, k]
                dual_motion[i, k] += rx
                dual_motion[c + i, k] += ry
                worst_motion = max(worst_motion, max(abs(rx), abs(ry)))
        # Obstacles: distance along the barrier, duals and the summed pull.
        worst_obstacle = 0.0
        for i in range(c):
            for k in range(n):
                pull[i, k] = 0.0
                pull[c + i, k] = 0.0
            absent = 0
            for j in range(m):
                if not present[i, j]:
                    absent += 1
                    continue
                for k in range(n):
                    u = (sample[i, k] - centre[j, 0, k]) / axes[j, 0, k]
                    w = (sample[c + i, k] - centre[j, 1, k]) / axes[j, 1, k]
                    raw[k] = sqrt(u * u + w * w)
                if projection == 0:
                    last = raw[0]
                    projected[0] = last
                    for k in range(1, n):
                        last = max(raw[k], 1.0 + (1.0 - gamma[k - 1]) * (last - 1.0))
                        projected[k] = last
                elif projection == 1:
                    _pool(raw, product, block_of, projected)
                else:
                    projected[0] = max(raw[0], 1.0)
                    for k in range(1, n):
                        step = 1.0 + (1.0 - gamma[k - 1]) * (distance[i, j, k - 1] - 1.0)
                        projected[k] = max(max(raw[k], 1.0), step)
                    for k in range(n):
                        distance[i, j, k] = projected[k]
                for k in range(n):
                    short = 1.0 - projected[k] / max(raw[k], 1e-9)
                    rx = (sample[i, k] - centre[j, 0, k]) * short
                    ry = (sample[c + i, k] - centre[j, 1, k]) * short
                    dual_obstacle[0, i, j, k] += rx
                    dual_obstacle[1, i, j, k] += ry
                    pull[i, k] += sample[i, k] - rx - dual_obstacle[0, i, j, k]
                    pull[c + i, k] += sample[c + i, k] - ry - dual_obstacle[1, i, j, k]
                    worst_obstacle = max(worst_obstacle, max(abs(rx), abs(ry)))
            for k in range(n):
                pull[i, k] += absent * sample[i, k]
                pull[c + i, k] += absent * sample[c + i, k]
        # Bounds.
        worst_box = 0.0
        worst_dual = 0.0
        for axis in range(2):
            for i in range(c):
                r = axis * c + i
                for group in range(4):
                    if box_weight[axis, group] <= 0.0:
                        continue
                    for k in range(group * n, (group + 1) * n):
                        relaxed = relaxation * sample[r, k] + (1.0 - relaxation) * box[r, k]
                        value = min(max(relaxed + dual_box[r, k], low[r, k]), high[r, k])
                        dual_box[r, k] += relaxed - value
                        worst_dual = max(worst_dual, abs(value - box[r, k]))
                        worst_box = max(worst_box, abs(sample[r, k] - value))
                        box[r, k] = value
        # Heading dual, consensus.
        worst_heading = 0.0
        for i in range(c):
            for k in range(n):
                gap = heading[i, k] - phi[i, k]
                dual_heading[i, k] += gap
                worst_heading = max(worst_heading, abs(gap))
        worst_share = 0.0
        if penalty:
            for part in range(3):
                for k in range(part * n, part * n + n_consensus):
                    for axis in range(2):
                        total = 0.0
                        for i in range(c):
                            total += weight[i] * (sample[axis * c + i, k] + dual_share[axis * c + i, k])
                        share[axis, k] = total
                        for i in range(c):
                            gap = sample[axis * c + i, k] - total
                            dual_share[axis * c + i, k] += gap
                            worst_share = max(worst_share, abs(gap))
            for k in range(n_consensus):
                total = 0.0
                for i in range(c):
                    total += weight[i] * (heading[i, k] + dual_share_heading[i, k])
                share_heading[k] = total
                for i in range(c):
                    dual_share_heading[i, k] += heading[i, k] - total
        if check:
            residual[0] = worst_obstacle
            residual[1] = worst_box
            residual[2] = worst_motion
            residual[3] = worst_heading
            residual[4] = worst_share
            residual[5] = worst_dual
            if residual.max() <= tolerance:
                break
    return done, residual


def run(
    t: Transcription,
    factors: Factors,
    stage: Stage,
    problem: Problem,
    state: AdmmState,
    n_iterations: int,
    tolerance: float,
    check_every: int = 10,
) -> tuple[int, Array]:
    """Iterate in place up to `n_iterations`; return the number done and the last residuals checked."""
    s = t.settings
    fixed, fixed_heading = fixed_coefficients(t, problem)
    offset = np.stack([fixed[axis] @ factors.start[axis] for axis in range(2)])
    product, block = decay(t.gamma)
    done, residual = _run(
        n_iterations, check_every, tolerance,
        state.coef, state.sample, state.heading, state.speed, state.box, state.dual_box, state.dual_motion,
        state.dual_heading, state.dual_obstacle, state.distance, state.pull, state.share, state.dual_share,
        state.share_heading, state.dual_share_heading,
        problem.weight, problem.goal_y, problem.goal_speed, problem.low, problem.high, problem.speed_cap,
        problem.centre, problem.axes, problem.present,
        float(np.hypot(problem.start[0, 1], problem.start[1, 1])), problem.heading,
        t.samples, np.ascontiguousarray(t.p.T), t.lane_rows.astype(np.float64), t.gamma, product, block,
        factors.tail, factors.shared, offset, factors.box_weight, factors.heading_tail, factors.heading_shared,
        fixed_heading @ factors.heading_start,
        stage.rho_obstacle, stage.rho_motion, stage.rho_heading, stage.rho_consensus,
        s.weights.lane, s.weights.speed,
        s.relaxation, s.consensus == "admm", s.n_consensus, PROJECTIONS[s.projection],
    )  # fmt: skip
    return int(done), residual
