"""Compiled CPU kernel of the ADMM: the iteration of `admm.iterate`, row by row and without temporaries.

Every block of the iteration is a loop over the contiguous samples of one row, with few enough arrays in it for the compiler
to prove them apart and emit vector code. Three things are left out where they change nothing: fixed coefficients are
not multiplied, obstacles whose distances satisfy the barrier as they are need no projection, and residuals are formed only
in the iterations that test them.
"""

from __future__ import annotations

from math import floor, pi

import numba
import numpy as np

from sfumato_cpto.admm import FREEZE_SPEED, PROJECTIONS, AdmmState, Array, fixed_coefficients
from sfumato_cpto.barrier import _pool
from sfumato_cpto.config import Stage
from sfumato_cpto.problem import Problem
from sfumato_cpto.products import combine, dots
from sfumato_cpto.transcription import Factors, Transcription
from sfumato_cpto.trigonometry import angles, cosines

# No infinities reach the kernels (bounds are clipped), so every fast-math flag is allowed but for reciprocals.
_FAST = {"nnan", "nsz", "contract", "reassoc"}


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _unwrap(sample, i, heading, phi):
    # Continuous from `heading` and frozen where nearly at rest. Mostly nothing is to be done, which is seen at once.
    n = phi.shape[1]
    angles(sample[0, i, 1], sample[1, i, 1], phi[i])
    # Counting vectorises where a running maximum would not.
    odd = 0
    for k in range(n):
        vx, vy = sample[0, i, 1, k], sample[1, i, 1, k]
        odd += 1 if vx * vx + vy * vy < FREEZE_SPEED * FREEZE_SPEED else 0
    for k in range(n - 1):
        odd += 1 if abs(phi[i, k + 1] - phi[i, k]) >= pi else 0
    if odd == 0 and abs(phi[i, 0] - heading) < pi:
        return
    last = heading
    for k in range(n):
        vx, vy = sample[0, i, 1, k], sample[1, i, 1, k]
        if vx * vx + vy * vy >= FREEZE_SPEED * FREEZE_SPEED:
            step = phi[i, k] - last
            last += step - 2.0 * pi * floor(step / (2.0 * pi) + 0.5)
        phi[i, k] = last


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _box(sample, low, high, relaxation, dual, box):
    # All rows at once; where nothing is bounded the ends are far away and the dual stays 0.
    keep = 1.0 - relaxation
    if relaxation == 1.0:
        for k in range(sample.shape[0]):
            v = sample[k] + dual[k]
            value = v if v > low[k] else low[k]
            value = value if value < high[k] else high[k]
            dual[k] = v - value
            box[k] = value
        return
    for k in range(sample.shape[0]):
        v = relaxation * sample[k] + keep * box[k] + dual[k]
        value = v if v > low[k] else low[k]
        value = value if value < high[k] else high[k]
        dual[k] = v - value
        box[k] = value


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _greatest_difference(a, b, weight, most):
    for i in range(a.shape[0]):
        for j in range(a.shape[1]):
            for g in range(a.shape[2]):
                if weight[i, g] > 0.0:
                    for k in range(a.shape[3]):
                        gap = abs(a[i, j, g, k] - b[i, j, g, k])
                        most = gap if gap > most else most
    return most


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _motion(sample, direction, dual, cap, start, speed):
    for i in range(speed.shape[0]):
        for k in range(speed.shape[1]):
            along = (sample[0, i, 1, k] + dual[0, i, k]) * direction[0, i, k]
            along += (sample[1, i, 1, k] + dual[1, i, k]) * direction[1, i, k]
            along = along if along > 0.0 else 0.0
            speed[i, k] = along if along < cap[i, k] else cap[i, k]
        speed[i, 0] = start
        for axis in range(2):
            for k in range(speed.shape[1]):
                dual[axis, i, k] += sample[axis, i, 1, k] - speed[i, k] * direction[axis, i, k]


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _motion_residual(sample, direction, speed):
    most = 0.0
    for axis in range(2):
        for i in range(speed.shape[0]):
            for k in range(speed.shape[1]):
                gap = abs(sample[axis, i, 1, k] - speed[i, k] * direction[axis, i, k])
                most = gap if gap > most else most
    return most


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _obstacles(
    sample, centre, inverse, present, gamma, keep, product, block_of, projection, check, raw, short, distance, dual, pull
):  # fmt: skip
    # Distances along the barrier, duals and the summed pull; returns the greatest residual (0 unless asked to check).
    c, m, n = present.shape[0], present.shape[1], raw.shape[0]
    worst = 0.0
    for i in range(c):
        absent = 0.0
        for j in range(m):
            absent += 0.0 if present[i, j] else 1.0
        for axis in range(2):
            for k in range(n):
                pull[axis, i, k] = absent * sample[axis, i, 0, k]
        for j in range(m):
            if not present[i, j]:
                continue
            for k in range(n):
                u = (sample[0, i, 0, k] - centre[j, 0, k]) * inverse[j, 0, k]
                w = (sample[1, i, 0, k] - centre[j, 1, k]) * inverse[j, 1, k]
                raw[k] = np.sqrt(u * u + w * w)
            if projection == 0:
                broken = 0
                for k in range(n - 1):
                    broken += 1 if keep[k] * (raw[k] - 1.0) > raw[k + 1] - 1.0 else 0
                if broken == 0:
                    # Distances that satisfy the condition along time as they are, are their own projection.
                    for axis in range(2):
                        for k in range(n):
                            pull[axis, i, k] += sample[axis, i, 0, k] - dual[axis, i, j, k]
                    continue
                last = raw[0] - 1.0
                short[0] = raw[0]
                for k in range(1, n):
                    least = keep[k - 1] * last
                    last = raw[k] - 1.0
                    last = last if last > least else least
                    short[k] = 1.0 + last
            elif projection == 1:
                _pool(raw, product, block_of, short)
            else:
                short[0] = max(raw[0], 1.0)
                for k in range(1, n):
                    step = 1.0 + keep[k - 1] * (distance[i, j, k - 1] - 1.0)
                    short[k] = max(max(raw[k], 1.0), step)
                for k in range(n):
                    distance[i, j, k] = short[k]
            for k in range(n):
                short[k] = 1.0 - short[k] / (raw[k] if raw[k] > 1e-9 else 1e-9)
            for axis in range(2):
                if check:
                    for k in range(n):
                        r = abs((sample[axis, i, 0, k] - centre[j, axis, k]) * short[k])
                        worst = r if r > worst else worst
                for k in range(n):
                    r = (sample[axis, i, 0, k] - centre[j, axis, k]) * short[k]
                    u = dual[axis, i, j, k] + r
                    dual[axis, i, j, k] = u
                    pull[axis, i, k] += sample[axis, i, 0, k] - r - u
    return worst


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _targets(
    axis,
    box,
    dual_box,
    box_weight,
    pull,
    rho_obstacle,
    lane,
    speed,
    direction,
    dual_motion,
    rho_motion,
    drive,
    out,
):
    # Weighted targets [C, 4, N] of the position step in one axis.
    c, n = speed.shape
    for i in range(c):
        for group in range(4):
            rho = box_weight[axis, group]
            for k in range(n):
                out[i, group, k] = rho * (box[axis, i, group, k] - dual_box[axis, i, group, k])
        for k in range(n):
            out[i, 0, k] += rho_obstacle * pull[axis, i, k] + lane[axis, i, k]
        for k in range(n):
            pace = rho_motion * (speed[i, k] * direction[axis, i, k] - dual_motion[axis, i, k])
            out[i, 1, k] += pace + drive[axis, i]


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _mean(weight, rows, out):
    for k in range(rows.shape[1]):
        out[0, k] = weight[0] * rows[0, k]
    for i in range(1, rows.shape[0]):
        for k in range(rows.shape[1]):
            out[0, k] += weight[i] * rows[i, k]


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _share(n_consensus, weight, sample, share, dual):
    # Consensus by a penalty on the first samples' positions, velocities and accelerations.
    worst = 0.0
    for axis in range(2):
        for part in range(3):
            for k in range(n_consensus):
                total = 0.0
                for i in range(sample.shape[1]):
                    total += weight[i] * (sample[axis, i, part, k] + dual[axis, i, part, k])
                share[axis, part, k] = total
                for i in range(sample.shape[1]):
                    gap = sample[axis, i, part, k] - total
                    dual[axis, i, part, k] += gap
                    worst = max(worst, abs(gap))
    return worst


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _run(
    n_iterations, check_every, tolerance,
    coef, sample, heading, speed, box, dual_box, dual_motion, dual_heading, dual_obstacle, distance, pull,
    share, dual_share, share_heading, dual_share_heading,
    weight, lane, drive, low, high, speed_cap, centre, inverse, present, start_speed, heading0,
    curves, heading_curves, gamma, keep, product, block_of,
    tail, shared, offset, base, box_weight, heading_tail, heading_shared, heading_offset, heading_base,
    rho_obstacle, rho_motion, rho_heading, rho_consensus,
    relaxation, penalty, n_consensus, projection,
):  # fmt: skip
    c, n = speed.shape
    n_coef = coef.shape[1]
    rows, flat, flat_box, flat_dual = (
        sample.reshape(2 * c, 4 * n),
        sample.reshape(-1),
        box.reshape(-1),
        dual_box.reshape(-1),
    )
    flat_low, flat_high = low.reshape(-1), high.reshape(-1)
    free, free_heading = n_coef - curves.shape[0], n_coef - heading_curves.shape[0]
    n_tail, n_tail_heading = tail.shape[1], heading_tail.shape[0]
    n_common, n_common_heading = shared.shape[1], heading_shared.shape[0]
    phi = np.empty((c, n))
    target_heading = np.empty((c, n))
    direction = np.empty((2, c, n))
    targets = np.zeros((c, 4, n))
    target_rows = targets.reshape(c, 4 * n)
    mean = np.empty((1, 4 * n))
    mean_heading = np.empty((1, n))
    new = np.empty(n_coef)
    common = np.zeros(n_coef)
    coef_heading = np.zeros((c, n_coef))
    old_box = np.empty_like(box)
    raw = np.empty(n)
    short = np.empty(n)
    residual = np.zeros(6)
    done = 0
    for iteration in range(n_iterations):
        done = iteration + 1
        check = done % check_every == 0 or done == n_iterations
        # Heading.
        for i in range(c):
            _unwrap(sample, i, heading0, phi)
            for k in range(n):
                target_heading[i, k] = rho_heading * (phi[i, k] - dual_heading[i, k])
            if penalty:
                for k in range(n_consensus):
                    target_heading[i, k] += rho_consensus * (share_heading[k] - dual_share_heading[i, k])
        if n_common_heading:
            _mean(weight, target_heading, mean_heading)
            dots(mean_heading, 0, heading_shared, common)
        for i in range(c):
            for f in range(n_coef):
                coef_heading[i, f] = heading_offset[f]
            for f in range(n_common_heading):
                coef_heading[i, n_coef - n_common_heading + f] += common[f]
            dots(target_heading, i, heading_tail, new)
            for f in range(n_tail_heading):
                coef_heading[i, n_coef - n_tail_heading + f] += new[f]
            combine(heading_base, 0, coef_heading, i, free_heading, heading_curves, heading, i)
            cosines(heading[i], direction[0, i], direction[1, i])
        # Positions.
        for axis in range(2):
            _targets(
                axis, box, dual_box, box_weight, pull, rho_obstacle, lane, speed, direction, dual_motion, rho_motion,
                drive, targets,
            )  # fmt: skip
            if penalty:
                for i in range(c):
                    for part in range(3):
                        for k in range(n_consensus):
                            gap = share[axis, part, k] - dual_share[axis, i, part, k]
                            targets[i, part, k] += rho_consensus * gap
            if n_common:
                _mean(weight, target_rows, mean)
                dots(mean, 0, shared[axis], common)
            for i in range(c):
                r = axis * c + i
                for f in range(n_coef):
                    coef[r, f] = offset[axis, f]
                for f in range(n_common):
                    coef[r, n_coef - n_common + f] += common[f]
                dots(target_rows, i, tail[axis], new)
                for f in range(n_tail):
                    coef[r, n_coef - n_tail + f] += new[f]
                combine(base, axis, coef, r, free, curves, rows, r)
        _motion(sample, direction, dual_motion, speed_cap, start_speed, speed)
        residual[0] = _obstacles(
            sample, centre, inverse, present, gamma, keep, product, block_of, projection, check, raw, short, distance,
            dual_obstacle, pull,
        )  # fmt: skip
        if check:
            old_box[:] = box
        _box(flat, flat_low, flat_high, relaxation, flat_dual, flat_box)
        for i in range(c):
            for k in range(n):
                dual_heading[i, k] += heading[i, k] - phi[i, k]
        residual[4] = 0.0
        if penalty:
            residual[4] = _share(n_consensus, weight, sample, share, dual_share)
            for k in range(n_consensus):
                total = 0.0
                for i in range(c):
                    total += weight[i] * (heading[i, k] + dual_share_heading[i, k])
                share_heading[k] = total
                for i in range(c):
                    dual_share_heading[i, k] += heading[i, k] - total
        if check:
            residual[1] = _greatest_difference(sample, box, box_weight, 0.0)
            residual[2] = _motion_residual(sample, direction, speed)
            residual[3] = np.abs(heading - phi).max()
            residual[5] = _greatest_difference(box, old_box, box_weight, 0.0)
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
    s, n, c = t.settings, t.n, problem.n_candidates
    fixed, fixed_heading = fixed_coefficients(t, problem)
    n_fixed, n_fixed_heading = fixed.shape[1], len(fixed_heading)
    offset = np.stack([fixed[axis] @ factors.start[axis] for axis in range(2)])
    product, block = t.decay
    lane, drive = np.zeros((2, c, n)), np.zeros((2, c))
    lane[1] = s.weights.lane * problem.goal_y[:, None] * t.lane_rows
    drive[0] = s.weights.speed * problem.goal_speed

    def grid(rows: Array) -> Array:
        return rows.reshape(2, c, 4, n)

    done, residual = _run(
        n_iterations, check_every, tolerance,
        state.coef, grid(state.sample), state.heading, state.speed, grid(state.box), grid(state.dual_box),
        state.dual_motion.reshape(2, c, n), state.dual_heading, state.dual_obstacle, state.distance,
        state.pull.reshape(2, c, n), state.share.reshape(2, 4, n), grid(state.dual_share),
        state.share_heading, state.dual_share_heading,
        problem.weight, lane, drive, grid(problem.low), grid(problem.high), problem.speed_cap,
        problem.centre, 1.0 / problem.axes, problem.present,
        float(np.hypot(problem.start[0, 1], problem.start[1, 1])), problem.heading,
        t.samples[n_fixed:], t.heading_curves, t.gamma, 1.0 - t.gamma, product, block,
        factors.tail_rows, factors.shared_rows, offset, fixed @ t.samples[:n_fixed], factors.box_weight,
        factors.heading_tail_rows, factors.heading_shared_rows,
        fixed_heading @ factors.heading_start, (t.p[:, :n_fixed_heading] @ fixed_heading)[None],
        stage.rho_obstacle, stage.rho_motion, stage.rho_heading, stage.rho_consensus,
        s.relaxation, s.consensus == "admm", s.n_consensus, PROJECTIONS[s.projection],
    )  # fmt: skip
    return int(done), residual
