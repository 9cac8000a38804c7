"""The full problem as a nonlinear program in CasADi, solved by IPOPT: the judge of the polish.

Start and shared control points are eliminated; ellipses enter as they are (not linearised), with exact Hessians. The
program is built once for given sizes and takes each scene as parameters.
"""

from __future__ import annotations

import time
from typing import Any

import attrs
import numpy as np

from sfumato_cpto.admm import Array, fixed_coefficients
from sfumato_cpto.polish import recovery_floor
from sfumato_cpto.problem import Problem
from sfumato_cpto.transcription import N_FIXED, Transcription


@attrs.frozen(eq=False)
class NlpSolution:
    """What IPOPT returned: samples [2 C, 4 N], objective, its own word on success, iterations, seconds (solve only)."""

    sample: Array
    coef: Array
    objective: float
    ok: bool
    iterations: int
    seconds: float


class EliminatedNlp:
    """IPOPT on the eliminated variables: 2 (m - 3 + (n + 1 - m) C) unknowns."""

    def __init__(
        self, t: Transcription, n_candidates: int, n_obstacles: int, bounded: np.ndarray, max_iter: int = 500
    ):
        import casadi as ca

        self.t, self.c, self.m = t, n_candidates, n_obstacles
        c, m, n, s = n_candidates, n_obstacles, t.n, t.settings
        size, shared = t.n_coefficients, s.shared_points
        n_shared, n_tail = shared - N_FIXED, size - shared
        z = ca.MX.sym("z", 2 * (n_shared + c * n_tail))
        fixed = ca.MX.sym("fixed", 3, 2)
        goal = ca.MX.sym("goal", c, 2)
        weight = ca.MX.sym("weight", c)
        centre = ca.MX.sym("centre", n, 2 * m) if m else ca.MX(n, 0)
        axes = ca.MX.sym("axes", n, 2 * m) if m else ca.MX(n, 0)
        present = ca.MX.sym("present", c, m) if m else ca.MX(c, 0)
        floor = ca.MX.sym("floor", n, m) if m else ca.MX(n, 0)
        w = s.weights
        p, p1, p2, p3 = (ca.DM(block) for block in (t.p, t.p1, t.p2, t.p3))
        lanes = np.flatnonzero(t.lane_rows)
        cost: Any = 0
        rows: list[Any] = []
        self._rows: list[tuple[str, int, int, int]] = []
        for i in range(c):
            axis_samples = []
            for axis in range(2):
                at = axis * n_shared
                tail = 2 * n_shared + (axis * c + i) * n_tail
                coef = ca.vertcat(fixed[:, axis], z[at : at + n_shared], z[tail : tail + n_tail])
                axis_samples.append([ca.mtimes(block, coef) for block in (p, p1, p2, p3)])
            (x, vx, ax, _), (y, _, ay, _) = axis_samples
            cost += (
                weight[i]
                * 0.5
                * (
                    w.smooth * (ca.sumsqr(ax) + ca.sumsqr(ay))
                    + w.speed * ca.sumsqr(vx - goal[i, 0])
                    + w.lane * ca.sumsqr(y[lanes.tolist()] - goal[i, 1])
                )
            )  # type: ignore[operator]
            for axis in range(2):
                for group in range(4):
                    if bounded[axis, group]:
                        first = 0 if group == 3 else 1
                        rows.append(axis_samples[axis][group][first:])
                        self._rows.append(("box", i, axis * 4 + group, first))
            rows.append((vx**2 + axis_samples[1][1] ** 2)[1:])
            self._rows.append(("speed", i, 0, 1))
            for j in range(m):
                h = ((x - centre[:, 2 * j]) / axes[:, 2 * j]) ** 2 + (
                    (y - centre[:, 2 * j + 1]) / axes[:, 2 * j + 1]
                ) ** 2
                rows.append((present[i, j] * (h - floor[:, j] ** 2))[1:])
                self._rows.append(("obstacle", i, j, 1))
        parameters = ca.vertcat(*[ca.vec(v) for v in (fixed, goal, weight, centre, axes, present, floor)])
        options: dict[str, Any] = {
            "print_time": False,
            "ipopt": {"print_level": 0, "sb": "yes", "max_iter": max_iter, "tol": 1e-8},
        }
        nlp = {"x": z, "f": cost, "g": ca.vertcat(*rows), "p": parameters}
        self._solver = ca.nlpsol("cpto", "ipopt", nlp, options)
        self.n_variables = int(z.numel())

    def variables(self, coef: Array) -> Array:
        """Return z from coefficients [2 C, n + 1]; shared points are averaged with equal weights."""
        c, shared = self.c, self.t.settings.shared_points
        grid = coef.reshape(2, c, -1)
        return np.concatenate([grid[:, :, N_FIXED:shared].mean(axis=1).ravel(), grid[:, :, shared:].ravel()])

    def solve(self, problem: Problem, coef: Array) -> NlpSolution:
        """Solve from coefficients [2 C, n + 1]."""
        t, c, m, n = self.t, self.c, self.m, self.t.n
        fixed, _ = fixed_coefficients(t, problem)
        floor = recovery_floor(t, problem)
        floor = floor.max(axis=0) if m else np.zeros((0, n))
        goal = np.stack([problem.goal_speed, problem.goal_y], axis=1)
        grow = problem.axes * t.settings.margin
        parameters = np.concatenate(
            [
                fixed.ravel(), goal.T.ravel(), problem.weight, problem.centre.reshape(2 * m, n).ravel(),
                grow.reshape(2 * m, n).ravel(), problem.present.astype(float).T.ravel(), floor.ravel(),
            ]
        )  # fmt: skip
        low, high = [], []
        for kind, i, what, first in self._rows:
            if kind == "box":
                axis, group = divmod(what, 4)
                block = slice(group * n + first, (group + 1) * n)
                low.append(problem.low[axis * c + i, block])
                high.append(problem.high[axis * c + i, block])
            elif kind == "speed":
                low.append(np.full(n - 1, -np.inf))
                high.append(problem.speed_cap[i, 1:] ** 2)
            else:
                low.append(np.zeros(n - 1))
                high.append(np.full(n - 1, np.inf))
        begun = time.perf_counter()
        result = self._solver(
            x0=self.variables(coef), p=parameters, lbg=np.concatenate(low), ubg=np.concatenate(high)
        )
        seconds = time.perf_counter() - begun
        stats = self._solver.stats()
        z = np.array(result["x"]).ravel()
        shared = t.settings.shared_points
        n_shared = shared - N_FIXED
        out = np.empty((2, c, t.n_coefficients))
        out[:, :, :N_FIXED] = fixed[:, None]
        out[:, :, N_FIXED:shared] = z[: 2 * n_shared].reshape(2, 1, n_shared)
        out[:, :, shared:] = z[2 * n_shared :].reshape(2, c, -1)
        solution = out.reshape(2 * c, -1)
        return NlpSolution(
            solution @ t.samples,
            solution,
            float(result["f"]),
            bool(stats["success"]),
            int(stats["iter_count"]),
            seconds,
        )
