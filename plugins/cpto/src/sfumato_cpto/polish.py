"""The polish: successive convex programs around the ADMM's answer, with the start and the consensus exact.

The scaled distance to an ellipse is a convex function of position, so its tangent at the present point lies below
it: asking that the tangent be at least 1 cuts out a half-plane wholly inside the safe set. Every feasible program
therefore gives safe curves without any slack, and since the present curves stay feasible the cost never rises.

Source: ours; the half-planes are those of sequential convex programming with an inner approximation (Marks and
Wright, 1978).
"""

from __future__ import annotations

import time

import attrs
import numba
import numpy as np

from sfumato_cpto import activeset
from sfumato_cpto.admm import Array, fixed_coefficients
from sfumato_cpto.problem import Problem
from sfumato_cpto.transcription import N_FIXED, Transcription

TOLERANCE = 1e-10  # on every row, in its own unit
SOFTNESS = 1e-7  # diagonal of the elastic program: a distance short by 0.1 costs 5e4
CAPACITY = 320
MAX_SOFT = 3


@numba.njit(cache=True, fastmath={"nnan", "nsz", "contract", "reassoc"}, error_model="numpy")
def tangents(sample, centre, axes, present, margin, floor, normal, level, norm, square):
    """Write the half-planes at the present positions: normal . p >= level, with `floor` [C, M, N] in place of 1."""
    c = present.shape[0]
    m = centre.shape[0]
    n = centre.shape[2]
    for i in range(c):
        for j in range(m):
            if not present[i, j]:
                continue
            for k in range(n):
                a = axes[j, 0, k] * margin
                b = axes[j, 1, k] * margin
                u = (sample[i, k] - centre[j, 0, k]) / a
                w = (sample[c + i, k] - centre[j, 1, k]) / b
                d = np.sqrt(u * u + w * w)
                if d < 1e-6:
                    u, w, d = 0.0, 1.0, 1.0
                nx = u / d / a
                ny = w / d / b
                normal[0, i, j, k] = nx
                normal[1, i, j, k] = ny
                level[i, j, k] = floor[i, j, k] + nx * centre[j, 0, k] + ny * centre[j, 1, k]
                norm[i, j, k] = np.sqrt(nx * nx * square[0, i, k] + ny * ny * square[1, i, k]) + 1e-12


@attrs.define(eq=False)
class Polished:
    """Result of the polish.

    Attributes: coef [2 C, n + 1]; sample [2 C, 4 N]; cost: the objective (without the heading term, which is
    not convex in the positions); feasible: whether the last hard program had a solution; converged: whether the
    cost had stopped falling; programs, iterations: counts; soft: how many programs needed slack.
    """

    coef: Array
    sample: Array
    cost: float
    feasible: bool
    converged: bool
    programs: int
    iterations: int
    soft: int
    contradiction: bool


class Polisher:
    """Prepared constants and buffers of the polish for one transcription, weight vector and C."""

    def __init__(self, t: Transcription) -> None:
        self.t = t
        self.rows_t = np.ascontiguousarray(t.rows.transpose(0, 2, 1))
        n_tail = t.n_tail
        self.tail_square = (t.rows[:, :, :n_tail] ** 2).sum(axis=2)
        self.shared_square = (t.rows[:, :, n_tail:] ** 2).sum(axis=2)
        self.ids = np.zeros((CAPACITY, 5), dtype=np.int64)

    def unconstrained(self, problem: Problem) -> tuple[Array, Array, Array, Array]:
        """Return u0_tail [C, 2, n_tail], u0_shared [2, n_shared], sqrt(p) [C], and fixed samples [2, 4 N]."""
        t, s = self.t, self.t.settings
        fixed, _ = fixed_coefficients(t, problem)
        w = problem.weight
        gradient = np.stack(
            [
                s.weights.speed * problem.goal_speed[:, None] * t.p1.sum(axis=0),
                problem.goal_y[:, None] * t.lane_gradient,
            ]
        )
        gradient = gradient - np.einsum("aij,aj->ai", t.hessian[:, :, :N_FIXED], fixed)[:, None]
        unit = np.einsum("aci,aij->acj", gradient[:, :, t.order], t.root)
        root_p = np.sqrt(w)
        tail = np.ascontiguousarray(unit[:, :, : t.n_tail].transpose(1, 0, 2)) * root_p[:, None, None]
        shared = np.einsum("c,ack->ak", w, unit[:, :, t.n_tail :])
        base = fixed @ t.samples[:N_FIXED]
        return tail, np.ascontiguousarray(shared), root_p, base

    def coefficients(self, problem: Problem, u_tail: Array, u_shared: Array) -> Array:
        """Return coefficients [2 C, n + 1] from u."""
        t, c = self.t, problem.n_candidates
        fixed, _ = fixed_coefficients(t, problem)
        root_p = np.sqrt(problem.weight)
        unit = np.concatenate(
            [(u_tail / root_p[:, None, None]).transpose(1, 0, 2), np.repeat(u_shared[:, None], c, axis=1)],
            axis=2,
        )
        coef = np.empty((2, c, t.n_coefficients))
        coef[:, :, t.order] = np.einsum("aci,aji->acj", unit, t.root)
        coef[:, :, :N_FIXED] = fixed[:, None]
        # Shared points come out of one number each; copying removes the last rounding differences.
        m = t.settings.shared_points
        coef[:, :, N_FIXED:m] = coef[:, :1, N_FIXED:m]
        return coef.reshape(2 * c, -1)

    def run(
        self,
        problem: Problem,
        sample: Array,
        max_programs: int,
        deadline: float | None = None,
        tolerance: float | None = None,
        limit: int | None = None,
    ) -> Polished:
        """Polish curves with samples [2 C, 4 N] (any point, feasible or not).

        Arguments: deadline: `time.monotonic()` value after which no further program is started.
        """
        t, s = self.t, self.t.settings
        c, m, n = problem.n_candidates, problem.n_obstacles, t.n
        tail, shared, root_p, base = self.unconstrained(problem)
        w = problem.weight
        row_square = self.tail_square[:, None] / w[:, None] + self.shared_square[:, None]  # [2, C, 4 N]
        row_norm = np.sqrt(row_square) + 1e-12
        normal, level = np.zeros((2, c, m, n)), np.zeros((c, m, n))
        norm = np.ones((c, m, n))
        floor = recovery_floor(t, problem)
        current = np.ascontiguousarray(sample).copy()
        u_tail, u_shared = tail.copy(), shared.copy()
        tolerance = s.polish_tolerance if tolerance is None else tolerance
        # Median programs need 10 to 50 steps; far longer ones are contradictory ones in disguise.
        limit = 60 + 30 * c if limit is None else limit
        cost, programs, iterations, soft, n_active = np.inf, 0, 0, 0, 0
        feasible = converged = contradiction = False
        kept = (u_tail.copy(), u_shared.copy(), current.copy())
        while programs < max_programs:
            if deadline is not None and programs and time.monotonic() > deadline:
                break
            tangents(
                current,
                problem.centre,
                problem.axes,
                problem.present,
                s.margin,
                floor,
                normal,
                level,
                norm,
                row_square,
            )
            arguments = (
                tail, shared, root_p, t.rows, self.rows_t, row_norm, base, problem.low, problem.high, problem.bounded,
                problem.speed_cap, problem.present, normal, level, norm, t.gamma,
            )  # fmt: skip
            outcome, steps, n_active, _ = activeset.solve(
                *arguments,
                0.0,
                s.barrier_rows,
                1,
                TOLERANCE,
                limit,
                self.ids,
                n_active,
                current,
                u_tail,
                u_shared,
            )
            programs += 1
            iterations += steps
            if outcome != activeset.SOLVED:
                if feasible:  # rounding at the edge of feasibility; the previous curves stand
                    u_tail, u_shared, current = kept
                    break
                if soft >= MAX_SOFT or m == 0:
                    contradiction = outcome == activeset.INFEASIBLE
                    u_tail, u_shared, current = kept
                    break
                outcome, steps, n_active, _ = activeset.solve(
                    *arguments,
                    SOFTNESS,
                    s.barrier_rows,
                    1,
                    TOLERANCE,
                    limit,
                    self.ids,
                    0,
                    current,
                    u_tail,
                    u_shared,
                )
                programs += 1
                iterations += steps
                soft += 1
                n_active = 0
                if outcome != activeset.SOLVED:
                    contradiction = outcome == activeset.INFEASIBLE
                    u_tail, u_shared, current = kept
                    break
                kept = (u_tail.copy(), u_shared.copy(), current.copy())
                continue
            new = self.cost(problem, current)
            feasible = True
            kept = (u_tail.copy(), u_shared.copy(), current.copy())
            if cost - new <= tolerance * abs(new):
                cost, converged = min(new, cost), True
                break
            cost = new
        coef = self.coefficients(problem, u_tail, u_shared)
        exact = coef @ t.samples
        return Polished(
            coef,
            exact,
            self.cost(problem, exact),
            feasible,
            converged,
            programs,
            iterations,
            soft,
            contradiction,
        )

    def cost(self, problem: Problem, sample: Array) -> float:
        """Return the weighted objective of samples [2 C, 4 N]: smoothness, speed and lane terms."""
        t, c, n = self.t, problem.n_candidates, self.t.n
        weights = t.settings.weights
        acceleration = sample[:, 2 * n : 3 * n]
        smooth = (acceleration**2).sum(axis=1)
        speed = ((sample[:c, n : 2 * n] - problem.goal_speed[:, None]) ** 2).sum(axis=1)
        lane = ((sample[c:, :n] - problem.goal_y[:, None])[:, t.lane_rows] ** 2).sum(axis=1)
        each = 0.5 * (
            weights.smooth * (smooth[:c] + smooth[c:]) + weights.speed * speed + weights.lane * lane
        )
        return float(problem.weight @ each)


def start_distance(problem: Problem) -> Array:
    """Return the scaled distance [M] of the start to each obstacle's ellipse."""
    offset = (problem.start[:, 0][None] - problem.centre[:, :, 0]) / problem.axes[:, :, 0]
    distance: Array = np.sqrt((offset**2).sum(axis=1))
    return distance


def recovery_floor(t: Transcription, problem: Problem) -> Array:
    """Return the distance to keep [C, M, N]: 1, or the barrier's way back to 1 when the start is inside."""
    c, m, n = problem.n_candidates, problem.n_obstacles, t.n
    floor = np.ones((c, m, n))
    if m == 0:
        return floor
    margin = t.settings.margin
    d0 = start_distance(problem) / margin
    inside = d0 < 1.0
    if inside.any():
        keep = np.concatenate([[1.0], np.cumprod(1.0 - t.gamma)])
        floor[:, inside] += ((d0[inside] - 1.0)[:, None] * keep)[None]
    return floor
