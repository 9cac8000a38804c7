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

from sfumato_cpto.products import combine

SOLVED, INFEASIBLE, LIMIT = 0, 1, 2
BOX, OBSTACLE, SPEED, BARRIER = 0, 1, 2, 3
_FAST = {"nnan", "nsz", "contract", "reassoc"}


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
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


@numba.njit(cache=True, error_model="numpy")
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


@numba.njit(cache=True, error_model="numpy")
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


@numba.njit(cache=True, error_model="numpy")
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


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
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


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _limit(kind, i, group, j, k, sign, direction, base, low, high, speed_cap, normal, level, gamma):
    # Right-hand side of the row of that name, the fixed coefficients' share taken off.
    if kind == BOX:
        axis, part = group // 4, group % 4
        end = high[axis, i, part, k] if sign > 0.0 else -low[axis, i, part, k]
        return end - sign * base[axis, part, k]
    if kind == SPEED:
        return speed_cap[i, k] - direction[0] * base[0, 1, k] - direction[1] * base[1, 1, k]
    value = normal[0, i, j, k] * base[0, 0, k] + normal[1, i, j, k] * base[1, 0, k] - level[i, j, k]
    if kind == BARRIER:
        before = normal[0, i, j, k - 1] * base[0, 0, k - 1] + normal[1, i, j, k - 1] * base[1, 0, k - 1]
        value -= (1.0 - gamma[k - 1]) * (before - level[i, j, k - 1])
    return value


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _evaluate(u_tail, u_shared, root_p, rows_t, base, buffer, sample):
    c, _, n_tail = u_tail.shape
    for axis in range(2):
        for i in range(c):
            for h in range(n_tail):
                buffer[0, h] = u_tail[i, axis, h] / root_p[i]
            for h in range(u_shared.shape[1]):
                buffer[0, n_tail + h] = u_shared[axis, h]
            combine(base, axis, buffer, 0, 0, rows_t[axis], sample, axis * c + i)


@numba.njit(cache=True, error_model="numpy")
def _known(ids, count, kind, i, j, k):
    for q in range(count):
        if ids[q, 0] == kind and ids[q, 1] == i and ids[q, 3] == j and ids[q, 4] == k:
            return True
    return False


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _worst_box(i, sample, low, high, active_group, row_norm, tolerance, best, score):
    # Most groups are satisfied, and counting (which vectorises) shows that; only the others are looked through.
    n = sample.shape[3]
    for axis in range(2):
        for part in range(4):
            if not active_group[axis, part]:
                continue
            broken = 0
            for k in range(n):
                value = sample[axis, i, part, k]
                broken += (
                    1
                    if (value - high[axis, i, part, k] > tolerance)
                    | (low[axis, i, part, k] - value > tolerance)
                    else 0
                )
            if broken == 0:
                continue
            for k in range(0 if part == 3 else 1, n):
                over = sample[axis, i, part, k] - high[axis, i, part, k]
                under = low[axis, i, part, k] - sample[axis, i, part, k]
                most = max(over, under)
                if most > tolerance and most / row_norm[axis, i, part, k] > score[0]:
                    score[0], score[1] = most / row_norm[axis, i, part, k], most
                    score[2] = 1.0 if over > under else -1.0
                    best[0], best[1], best[2], best[3] = BOX, axis * 4 + part, 0, k


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _worst_speed(i, sample, speed_cap, row_norm, tolerance, best, score):
    n = sample.shape[3]
    broken = 0
    for k in range(n):
        vx, vy, cap = sample[0, i, 1, k], sample[1, i, 1, k], speed_cap[i, k]
        broken += 1 if vx * vx + vy * vy > cap * cap + tolerance else 0
    if broken == 0:
        return
    for k in range(1, n):
        vx, vy = sample[0, i, 1, k], sample[1, i, 1, k]
        norm = sqrt(vx * vx + vy * vy)
        over = norm - speed_cap[i, k]
        if over > tolerance and over / row_norm[0, i, 1, k] > score[0]:
            score[0], score[1], score[2] = over / row_norm[0, i, 1, k], over, 1.0
            score[3], score[4] = vx / norm, vy / norm
            best[0], best[1], best[2], best[3] = SPEED, 0, 0, k


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _worst_obstacle(
    kind, i, first, sample, present, normal, level, obstacle_norm, gamma, soft, ids, count, tolerance, short, best, score
):  # fmt: skip
    # Half-planes (OBSTACLE), or the barrier condition between neighbours in time (BARRIER).
    n = sample.shape[3]
    for j in range(present.shape[1]):
        if not present[i, j]:
            continue
        for k in range(n):
            across = normal[0, i, j, k] * sample[0, i, 0, k] + normal[1, i, j, k] * sample[1, i, 0, k]
            short[k] = level[i, j, k] - across
        if kind == BARRIER:
            for k in range(n - 1, first - 1, -1):
                short[k] -= (1.0 - gamma[k - 1]) * short[k - 1]
        broken = 0
        for k in range(n):
            broken += 1 if short[k] > tolerance else 0
        if broken == 0:
            continue
        for k in range(first, n):
            if short[k] > tolerance and short[k] / obstacle_norm[i, j, k] > score[0]:
                # A soft row rests where its multiplier pays for the slack; it is not violated again.
                if soft and _known(ids, count, kind, i, j, k):
                    continue
                score[0], score[1], score[2] = short[k] / obstacle_norm[i, j, k], short[k], 1.0
                best[0], best[1], best[2], best[3] = kind, 0, j, k


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _settle(row, cand, soft, rhs, ids, multiplier, chol, count, u0_tail, u0_shared, target, step):
    # Multipliers that make every kept row tight; where one would be negative, walk to it and drop it.
    n_tail, n_shared = u0_tail.shape[2], u0_shared.shape[1]
    n_free = n_tail + n_shared
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
    return count


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _primal(row, cand, multiplier, count, u0_tail, u0_shared, u_tail, u_shared):
    n_tail, n_shared = u0_tail.shape[2], u0_shared.shape[1]
    n_free = n_tail + n_shared
    u_tail[:] = u0_tail
    u_shared[:] = u0_shared
    for i in range(count):
        for axis in range(2):
            for h in range(n_tail):
                u_tail[cand[i], axis, h] -= multiplier[i] * row[i, axis * n_free + h]
            for h in range(n_shared):
                u_shared[axis, h] -= multiplier[i] * row[i, axis * n_free + n_tail + h]


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def _let_go(row, cand, soft, rhs, ids, multiplier, chol, count, step):
    # The row to enter depends on the active ones: move along the dual ray until one of them lets go.
    # Returns (number of rows left, how far); -1 rows if none ever does, which proves a contradiction.
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
        return -1, 0.0
    for h in range(count):
        multiplier[h] = max(multiplier[h] - length * step[h], 0.0)
    return _remove(row, cand, soft, rhs, ids, multiplier, chol, count, at), length


@numba.njit(cache=True, fastmath=_FAST, error_model="numpy")
def solve(
    u0_tail, u0_shared, root_p, rows, rows_t, row_norm, base, low, high, active_group, speed_cap, present, normal, level,
    obstacle_norm, gamma, softness, barrier, first_obstacle, tolerance, limit, ids, n_warm, sample, u_tail, u_shared,
):  # fmt: skip
    """Solve one least-distance program; see the module's description.

    Arguments: u0_tail [C, 2, n_tail], u0_shared [2, n_shared]: the unconstrained minimiser; rows [2, 4 N, n_free]
    and its transpose: what a unit of w does to each sample; row_norm [2, C, 4 N]; base [2, 4 N]: samples of the fixed
    coefficients; low, high [2 C, 4 N]; normal [2, C, M, N], level [C, M, N]: half-planes normal . position >= level;
    softness: 0, or the diagonal added for obstacle rows (an L2 slack of weight 1 / softness);
    ids [capacity, 5]: names of the active rows, on entry n_warm of them to start from. Outputs: sample, u_tail,
    u_shared, ids.
    Returns: (outcome, iterations, number of active rows, greatest violation seen last).
    """
    c = u0_tail.shape[0]
    n_tail = u0_tail.shape[2]
    n_free = n_tail + u0_shared.shape[1]
    n = level.shape[2]
    capacity = ids.shape[0]
    samples, lows, highs = sample.reshape(2, c, 4, n), low.reshape(2, c, 4, n), high.reshape(2, c, 4, n)
    norms, bases = row_norm.reshape(2, c, 4, n), base.reshape(2, 4, n)
    row = np.empty((capacity, 2 * n_free))
    cand = np.empty(capacity, dtype=np.int64)
    soft = np.zeros(capacity)
    rhs = np.empty(capacity)
    multiplier = np.zeros(capacity)
    target = np.empty(capacity)
    step = np.empty(capacity)
    chol = np.empty((capacity, capacity))
    buffer = np.empty((1, n_free))
    short = np.empty(n)
    best = np.zeros((c, 4), dtype=np.int64)  # kind, group, j, k of each candidate's most violated row
    score = np.zeros((c, 5))  # violation in units of u, violation, sign, direction of a speed row
    count = 0
    iterations = 0
    worst = 0.0
    # Warm start: the same names with this program's normals and no force; bad signs are dropped below.
    for at in range(n_warm):
        kind, i, group, j, k = ids[at, 0], ids[at, 1], ids[at, 2], ids[at, 3], ids[at, 4]
        if kind == SPEED:
            continue
        sign = -1.0 if kind == BOX and group >= 8 else 1.0
        part = group % 8
        _fill(
            row,
            count,
            kind,
            i,
            part,
            j,
            k,
            sign,
            rows,
            normal,
            gamma,
            score[0, 3:],
            root_p,
            n_tail,
            n_free,
            n,
        )
        rhs[count] = _limit(
            kind, i, part, j, k, sign, score[0, 3:], bases, lows, highs, speed_cap, normal, level, gamma
        )
        cand[count] = i
        soft[count] = 0.0 if kind == BOX else softness
        if _append(row, cand, soft, chol, count, n_tail, n_free) > 1e-9:
            for h in range(5):
                ids[count, h] = ids[at, h]
            multiplier[count] = 0.0
            count += 1
    while True:
        count = _settle(row, cand, soft, rhs, ids, multiplier, chol, count, u0_tail, u0_shared, target, step)
        _primal(row, cand, multiplier, count, u0_tail, u0_shared, u_tail, u_shared)
        _evaluate(u_tail, u_shared, root_p, rows_t, base, buffer, sample)
        # The most violated row of each candidate, in units of u.
        worst = 0.0
        lead = -1
        for i in range(c):
            score[i, 0] = 0.0
            _worst_box(i, samples, lows, highs, active_group, norms, tolerance, best[i], score[i])
            _worst_speed(i, samples, speed_cap, norms, tolerance, best[i], score[i])
            for kind in (OBSTACLE, BARRIER):
                if kind == OBSTACLE or barrier:
                    _worst_obstacle(
                        kind, i, first_obstacle, samples, present, normal, level, obstacle_norm, gamma,
                        softness > 0.0, ids, count, tolerance, short, best[i], score[i],
                    )  # fmt: skip
            if score[i, 0] > 0.0:
                worst = max(worst, score[i, 1])
                if lead < 0 or score[i, 0] > score[lead, 0]:
                    lead = i
        if lead < 0:
            return SOLVED, iterations, count, worst
        if iterations >= limit or count >= capacity - c - 1:
            return LIMIT, iterations, count, worst
        iterations += 1
        for turn in range(c):
            i = lead if turn == 0 else turn - 1 if turn - 1 < lead else turn
            if score[i, 0] <= 0.0:
                continue
            kind, group, j, k, sign = best[i, 0], best[i, 1], best[i, 2], best[i, 3], score[i, 2]
            entering = 0.0
            while True:
                _fill(
                    row, count, kind, i, group, j, k, sign, rows, normal, gamma, score[i, 3:], root_p, n_tail, n_free, n
                )  # fmt: skip
                rhs[count] = _limit(
                    kind,
                    i,
                    group,
                    j,
                    k,
                    sign,
                    score[i, 3:],
                    bases,
                    lows,
                    highs,
                    speed_cap,
                    normal,
                    level,
                    gamma,
                )
                cand[count] = i
                soft[count] = softness if kind in (OBSTACLE, BARRIER) else 0.0
                multiplier[count] = entering
                ids[count, 0] = kind
                ids[count, 1] = i
                ids[count, 2] = group + (8 if kind == BOX and sign < 0.0 else 0)
                ids[count, 3] = j
                ids[count, 4] = k
                if _append(row, cand, soft, chol, count, n_tail, n_free) > 1e-10:
                    count += 1
                    break
                if turn > 0:
                    break  # a dependent row waits until it leads
                left, length = _let_go(row, cand, soft, rhs, ids, multiplier, chol, count, step)
                if left < 0:
                    return INFEASIBLE, iterations, count, worst
                count = left
                entering += length
