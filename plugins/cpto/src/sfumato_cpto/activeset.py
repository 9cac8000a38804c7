"""A dual active-set method for the polish: least distance under many two-sample linear rows.

Every convex program of the polish reads  min 1/2 ||u - u0||^2  subject to  a_i . u <= b_i  once the objective's
square root has been divided out. A row touches one candidate (its tail) and the shared control points, so it is
kept as a short vector and products of rows of different candidates involve the shared part alone. Rows are found by
evaluating the curves, never stored: thousands of bounds cost a matrix product, and only active rows are kept.

The method follows Goldfarb and Idnani (1983) in the dual form of Arnstrom, Bemporad and Axehill, "A dual
active-set solver for embedded quadratic programming using recursive LDL updates" (IEEE TAC, 2022): multipliers
stay non-negative, the objective rises monotonically, and an unbounded dual ray proves that the rows contradict
each other.
"""

from __future__ import annotations

from math import sqrt

import numba
import numpy as np

SOLVED, INFEASIBLE, LIMIT = 0, 1, 2
BOX, OBSTACLE, SPEED, BARRIER = 0, 1, 2, 3
_FAST = {"nnan", "nsz", "contract", "reassoc"}


@numba.njit(cache=True, fastmath=_FAST)
def _inner(row, cand, i, j, n_tail, n_free):
    # Rows hold [tail x | shared x | tail y | shared y]; tails meet only within one candidate.
    total = 0.0
    for half in range(2):
        base = half * n_free
        if cand[i] == cand[j]:
            for k in range(base, base + n_tail):
                total += row[i, k] * row[j, k]
        for k in range(base + n_tail, base + n_free):
            total += row[i, k] * row[j, k]
    return total


@numba.njit(cache=True)
def _append(row, cand, soft, chol, count, n_tail, n_free):
    # Extend the Cholesky factor of A A' (+ softness) by row number `count`; return its squared pivot, relative.
    own = _inner(row, cand, count, count, n_tail, n_free) + soft[count]
    pivot = own
    for i in range(count):
        value = _inner(row, cand, count, i, n_tail, n_free)
        for j in range(i):
            value -= chol[count, j] * chol[i, j]
        value /= chol[i, i]
        chol[count, i] = value
        pivot -= value * value
    relative = pivot / own
    chol[count, count] = sqrt(max(pivot, 1e-300))
    return relative


@numba.njit(cache=True)
def _remove(row, cand, soft, rhs, ids, multiplier, chol, count, at):
    # Drop row `at`; the trailing factor absorbs the deleted column by a rank-one update.
    size = count - at - 1
    x = np.empty(size)
    for i in range(size):
        x[i] = chol[at + 1 + i, at]
    for i in range(at, count - 1):
        for k in range(row.shape[1]):
            row[i, k] = row[i + 1, k]
        cand[i] = cand[i + 1]
        soft[i] = soft[i + 1]
        rhs[i] = rhs[i + 1]
        multiplier[i] = multiplier[i + 1]
        for k in range(ids.shape[1]):
            ids[i, k] = ids[i + 1, k]
        for k in range(at):
            chol[i, k] = chol[i + 1, k]
        for k in range(at, i + 1):
            chol[i, k] = chol[i + 1, k + 1]
    for i in range(size):
        p = at + i
        r = sqrt(chol[p, p] * chol[p, p] + x[i] * x[i])
        c = r / chol[p, p]
        s = x[i] / chol[p, p]
        chol[p, p] = r
        for k in range(i + 1, size):
            chol[at + k, p] = (chol[at + k, p] + s * x[k]) / c
            x[k] = c * x[k] - s * chol[at + k, p]
    return count - 1


@numba.njit(cache=True)
def _solve_factor(chol, count, b, out):
    for i in range(count):
        value = b[i]
        for j in range(i):
            value -= chol[i, j] * out[j]
        out[i] = value / chol[i, i]
    for i in range(count - 1, -1, -1):
        value = out[i]
        for j in range(i + 1, count):
            value -= chol[j, i] * out[j]
        out[i] = value / chol[i, i]


@numba.njit(cache=True, fastmath=_FAST)
def _fill(row, at, kind, i, group, j, k, sign, rows, normal, gamma, direction, root_p, n_tail, n_free, n):
    # Write the row named by (kind, candidate i, group or axis, obstacle j, sample k) in u coordinates.
    for h in range(2 * n_free):
        row[at, h] = 0.0
    if kind == BOX:
        axis = group // 4
        index = (group % 4) * n + k
        for h in range(n_free):
            row[at, axis * n_free + h] = sign * rows[axis, index, h]
    elif kind == OBSTACLE:
        for axis in range(2):
            for h in range(n_free):
                row[at, axis * n_free + h] = -normal[axis, i, j, k] * rows[axis, k, h]
    elif kind == BARRIER:
        keep = 1.0 - gamma[k - 1]
        for axis in range(2):
            for h in range(n_free):
                row[at, axis * n_free + h] = (
                    keep * normal[axis, i, j, k - 1] * rows[axis, k - 1, h]
                    - normal[axis, i, j, k] * rows[axis, k, h]
                )
    else:
        for axis in range(2):
            for h in range(n_free):
                row[at, axis * n_free + h] = direction[axis] * rows[axis, n + k, h]
    for axis in range(2):
        for h in range(n_tail):
            row[at, axis * n_free + h] /= root_p[i]


@numba.njit(cache=True, fastmath=_FAST)
def _evaluate(u_tail, u_shared, root_p, rows_t, base, sample, buffer, n_tail, n_free):
    c = u_tail.shape[0]
    for axis in range(2):
        for i in range(c):
            for h in range(n_tail):
                buffer[i, h] = u_tail[i, axis, h] / root_p[i]
            for h in range(n_tail, n_free):
                buffer[i, h] = u_shared[axis, h - n_tail]
        np.dot(buffer, rows_t[axis], sample[axis * c : (axis + 1) * c])
        for i in range(c):
            for k in range(sample.shape[1]):
                sample[axis * c + i, k] += base[axis, k]


@numba.njit(cache=True, fastmath=_FAST)
def solve(
    u0_tail, u0_shared, root_p, rows, rows_t, row_norm, base, low, high, active_group, speed_cap, present, normal, level,
    obstacle_norm, gamma, softness, barrier, first_obstacle, tolerance, limit, ids, n_warm, sample, u_tail, u_shared,
):  # fmt: skip
    """Solve one least-distance program; see the module's description.

    Arguments: u0_tail [C, 2, n_tail], u0_shared [2, n_shared]: the unconstrained minimiser; rows [2, 4 N, n_free]
    and its transpose: what a unit of w does to each sample; row_norm [2, 4 N, C]; base [2, 4 N]: samples of the fixed
    coefficients; low, high [2 C, 4 N]; normal [2, C, M, N], level [C, M, N]: half-planes normal . position >= level;
    softness: 0, or the diagonal added for obstacle rows (an L2 slack of weight 1 / softness);
    ids [capacity, 5]: names of the active rows, on entry n_warm of them to start from. Outputs: sample, u_tail,
    u_shared, ids.
    Returns: (outcome, iterations, number of active rows, greatest violation seen last).
    """
    c = u0_tail.shape[0]
    n_tail = u0_tail.shape[2]
    n_shared = u0_shared.shape[1]
    n_free = n_tail + n_shared
    n = level.shape[2]
    m = level.shape[1]
    capacity = ids.shape[0]
    row = np.empty((capacity, 2 * n_free))
    cand = np.empty(capacity, dtype=np.int64)
    soft = np.zeros(capacity)
    rhs = np.empty(capacity)
    multiplier = np.zeros(capacity)
    target = np.empty(capacity)
    step = np.empty(capacity)
    chol = np.zeros((capacity, capacity))
    buffer = np.empty((c, n_free))
    best_kind = np.empty(c, dtype=np.int64)
    best_group = np.empty(c, dtype=np.int64)
    best_j = np.empty(c, dtype=np.int64)
    best_k = np.empty(c, dtype=np.int64)
    best_sign = np.empty(c)
    best_direction = np.zeros((c, 2))
    best_rhs = np.empty(c)
    best_score = np.empty(c)
    direction = np.zeros(2)
    count = 0
    iterations = 0
    worst = 0.0
    # Warm start: the same names with this program's normals and no force; bad signs are dropped below.
    for at in range(n_warm):
        kind, i, group, j, k = ids[at, 0], ids[at, 1], ids[at, 2], ids[at, 3], ids[at, 4]
        if kind == SPEED:
            continue
        sign = 1.0
        if kind == BOX and group >= 8:
            sign = -1.0
            group -= 8
        _fill(
            row, count, kind, i, group, j, k, sign, rows, normal, gamma, direction, root_p, n_tail, n_free, n
        )
        axis = group // 4
        index = (group % 4) * n + k
        cand[count] = i
        soft[count] = 0.0
        if kind == BOX:
            r = axis * c + i
            rhs[count] = (high[r, index] if sign > 0 else -low[r, index]) - sign * base[axis, index]
        elif kind == OBSTACLE:
            rhs[count] = -level[i, j, k] + normal[0, i, j, k] * base[0, k] + normal[1, i, j, k] * base[1, k]
            soft[count] = softness
        else:
            keep = 1.0 - gamma[k - 1]
            rhs[count] = -(level[i, j, k] - keep * level[i, j, k - 1])
            for ax in range(2):
                rhs[count] += (
                    normal[ax, i, j, k] * base[ax, k] - keep * normal[ax, i, j, k - 1] * base[ax, k - 1]
                )
            soft[count] = softness
        if _append(row, cand, soft, chol, count, n_tail, n_free) > 1e-9:
            for h in range(5):
                ids[count, h] = ids[at, h]
            multiplier[count] = 0.0
            count += 1
    while True:
        # Multipliers that make every kept row tight; where one would be negative, walk to it and drop it.
        while count > 0:
            for i in range(count):
                value = -rhs[i]
                for axis in range(2):
                    for h in range(n_tail):
                        value += row[i, axis * n_free + h] * u0_tail[cand[i], axis, h]
                    for h in range(n_shared):
                        value += row[i, axis * n_free + n_tail + h] * u0_shared[axis, h]
                target[i] = value
            _solve_factor(chol, count, target, step)
            length = 1.0
            at = -1
            for i in range(count):
                if step[i] < 0.0:
                    ratio = multiplier[i] / (multiplier[i] - step[i])
                    if at < 0 or ratio < length:
                        length = ratio
                        at = i
            for i in range(count):
                multiplier[i] += length * (step[i] - multiplier[i])
            if at < 0:
                break
            count = _remove(row, cand, soft, rhs, ids, multiplier, chol, count, at)
        u_tail[:] = u0_tail
        u_shared[:] = u0_shared
        for i in range(count):
            for axis in range(2):
                for h in range(n_tail):
                    u_tail[cand[i], axis, h] -= multiplier[i] * row[i, axis * n_free + h]
                for h in range(n_shared):
                    u_shared[axis, h] -= multiplier[i] * row[i, axis * n_free + n_tail + h]
        _evaluate(u_tail, u_shared, root_p, rows_t, base, sample, buffer, n_tail, n_free)
        # The most violated row of each candidate, in units of u.
        worst = 0.0
        lead = -1
        for i in range(c):
            best_score[i] = 0.0
            found = 0.0
            for axis in range(2):
                r = axis * c + i
                for group in range(4):
                    if not active_group[axis, group]:
                        continue
                    lo = group * n
                    score = 0.0
                    for k in range(lo + 1, lo + n):
                        score = max(
                            score,
                            max(sample[r, k] - high[r, k], low[r, k] - sample[r, k]) / row_norm[axis, k, i],
                        )
                    if group == 3:
                        k = lo
                        score = max(
                            score,
                            max(sample[r, k] - high[r, k], low[r, k] - sample[r, k]) / row_norm[axis, k, i],
                        )
                    if score > best_score[i]:
                        first = lo if group == 3 else lo + 1
                        for k in range(first, lo + n):
                            over = sample[r, k] - high[r, k]
                            under = low[r, k] - sample[r, k]
                            scaled = max(over, under) / row_norm[axis, k, i]
                            if scaled > best_score[i] and max(over, under) > tolerance:
                                best_score[i] = scaled
                                found = max(over, under)
                                best_kind[i] = BOX
                                best_sign[i] = 1.0 if over > under else -1.0
                                best_group[i] = axis * 4 + group
                                best_j[i] = 0
                                best_k[i] = k - lo
                                if over > under:
                                    best_rhs[i] = high[r, k] - base[axis, k]
                                else:
                                    best_rhs[i] = -low[r, k] + base[axis, k]
            for k in range(1, n):
                vx = sample[i, n + k]
                vy = sample[c + i, n + k]
                cap = speed_cap[i, k]
                square = vx * vx + vy * vy
                if square > cap * cap + tolerance:
                    norm = sqrt(square)
                    if norm - cap > tolerance:
                        scaled = (norm - cap) / row_norm[0, n + k, i]
                        if scaled > best_score[i]:
                            best_score[i] = scaled
                            found = norm - cap
                            best_kind[i] = SPEED
                            best_group[i] = 0
                            best_j[i] = 0
                            best_k[i] = k
                            best_sign[i] = 1.0
                            best_direction[i, 0] = vx / norm
                            best_direction[i, 1] = vy / norm
                            best_rhs[i] = cap
                            for axis in range(2):
                                best_rhs[i] -= best_direction[i, axis] * base[axis, n + k]
            for j in range(m):
                if not present[i, j]:
                    continue
                score = 0.0
                for k in range(first_obstacle, n):
                    value = (
                        level[i, j, k]
                        - normal[0, i, j, k] * sample[i, k]
                        - normal[1, i, j, k] * sample[c + i, k]
                    )
                    score = max(score, value / obstacle_norm[i, j, k])
                if score > best_score[i]:
                    for k in range(first_obstacle, n):
                        value = (
                            level[i, j, k]
                            - normal[0, i, j, k] * sample[i, k]
                            - normal[1, i, j, k] * sample[c + i, k]
                        )
                        scaled = value / obstacle_norm[i, j, k]
                        # A soft row rests where its multiplier pays for the slack; it is not violated again.
                        if scaled > best_score[i] and value > tolerance:
                            known = False
                            if softness > 0.0:
                                for q in range(count):
                                    if (
                                        ids[q, 0] == OBSTACLE
                                        and ids[q, 1] == i
                                        and ids[q, 3] == j
                                        and ids[q, 4] == k
                                    ):
                                        known = True
                            if not known:
                                best_score[i] = scaled
                                found = value
                                best_kind[i] = OBSTACLE
                                best_group[i] = 0
                                best_j[i] = j
                                best_k[i] = k
                                best_sign[i] = 1.0
                                best_rhs[i] = -level[i, j, k]
                                for axis in range(2):
                                    best_rhs[i] += normal[axis, i, j, k] * base[axis, k]
                if barrier:
                    for k in range(first_obstacle, n):
                        keep = 1.0 - gamma[k - 1]
                        value = (
                            level[i, j, k]
                            - normal[0, i, j, k] * sample[i, k]
                            - normal[1, i, j, k] * sample[c + i, k]
                        )
                        before = (
                            normal[0, i, j, k - 1] * sample[i, k - 1]
                            + normal[1, i, j, k - 1] * sample[c + i, k - 1]
                        )
                        value += keep * (before - level[i, j, k - 1])
                        scaled = value / obstacle_norm[i, j, k]
                        if scaled > best_score[i] and value > tolerance:
                            known = False
                            if softness > 0.0:
                                for q in range(count):
                                    if (
                                        ids[q, 0] == BARRIER
                                        and ids[q, 1] == i
                                        and ids[q, 3] == j
                                        and ids[q, 4] == k
                                    ):
                                        known = True
                            if not known:
                                best_score[i] = scaled
                                found = value
                                best_kind[i] = BARRIER
                                best_group[i] = 0
                                best_j[i] = j
                                best_k[i] = k
                                best_sign[i] = 1.0
                                best_rhs[i] = -(level[i, j, k] - keep * level[i, j, k - 1])
                                for axis in range(2):
                                    best_rhs[i] += normal[axis, i, j, k] * base[axis, k]
                                    best_rhs[i] -= keep * normal[axis, i, j, k - 1] * base[axis, k - 1]
            if best_score[i] > 0.0:
                worst = max(worst, found)
                if lead < 0 or best_score[i] > best_score[lead]:
                    lead = i
        if lead < 0:
            return SOLVED, iterations, count, worst
        if iterations >= limit or count >= capacity - c - 1:
            return LIMIT, iterations, count, worst
        iterations += 1
        for turn in range(c):
            i = lead if turn == 0 else turn - 1 if turn - 1 < lead else turn
            if best_score[i] <= 0.0:
                continue
            kind, group, j, k = best_kind[i], best_group[i], best_j[i], best_k[i]
            entering = 0.0
            while True:
                direction[0] = best_direction[i, 0]
                direction[1] = best_direction[i, 1]
                _fill(
                    row, count, kind, i, group, j, k, best_sign[i], rows, normal, gamma, direction, root_p, n_tail,
                    n_free, n,
                )  # fmt: skip
                cand[count] = i
                rhs[count] = best_rhs[i]
                soft[count] = softness if kind in (OBSTACLE, BARRIER) else 0.0
                multiplier[count] = entering
                ids[count, 0] = kind
                ids[count, 1] = i
                ids[count, 2] = group + (8 if kind == BOX and best_sign[i] < 0.0 else 0)
                ids[count, 3] = j
                ids[count, 4] = k
                if _append(row, cand, soft, chol, count, n_tail, n_free) > 1e-10:
                    count += 1
                    break
                if turn > 0:
                    break  # a dependent row waits until it leads
                # The row depends on the active ones: move along the dual ray until one of them lets go.
                for h in range(count - 1, -1, -1):
                    value = chol[count, h]
                    for q in range(h + 1, count):
                        value -= chol[q, h] * step[q]
                    step[h] = value / chol[h, h]
                length = -1.0
                at = -1
                for h in range(count):
                    if step[h] > 1e-12 and (at < 0 or multiplier[h] / step[h] < length):
                        length = multiplier[h] / step[h]
                        at = h
                if at < 0:
                    return INFEASIBLE, iterations, count, worst
                for h in range(count):
                    multiplier[h] = max(multiplier[h] - length * step[h], 0.0)
                entering += length
                count = _remove(row, cand, soft, rhs, ids, multiplier, chol, count, at)
