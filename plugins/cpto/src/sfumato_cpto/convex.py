"""The joint convex program as plain matrices, and one interface to several solvers that check ours.

With every obstacle replaced by its tangent half-planes at given positions (or left out), the problem is

    min 1/2 z'Pz + q'z + constant   subject to   A z = b,  l <= G z <= u,

z being all control points of all candidates. It is written out row by row here, independently of the compact form the
polish works on.
"""

from __future__ import annotations

import time

import attrs
import numpy as np
import scipy.sparse as sp

from sfumato_cpto.admm import Array, fixed_coefficients
from sfumato_cpto.polish import recovery_floor
from sfumato_cpto.problem import Problem
from sfumato_cpto.transcription import N_FIXED, UNBOUNDED, Transcription


@attrs.frozen(eq=False)
class ConvexProgram:
    """Sparse data of the program. Variables: coefficient k of axis a, candidate c at (a C + c)(n + 1) + k."""

    p: sp.csc_matrix
    q: Array
    constant: float
    a: sp.csc_matrix
    b: Array
    g: sp.csc_matrix
    low: Array
    high: Array

    def objective(self, z: Array) -> float:
        """Return the objective at z."""
        return float(0.5 * z @ (self.p @ z) + self.q @ z + self.constant)

    def violation(self, z: Array) -> float:
        """Return the greatest violation of any row at z, in the row's unit."""
        rows = self.g @ z
        worst = max(float(np.max(rows - self.high, initial=0.0)), float(np.max(self.low - rows, initial=0.0)))
        return max(worst, float(np.abs(self.a @ z - self.b).max()))


@attrs.frozen(eq=False)
class ConvexSolution:
    """What one solver returned: solution, its own word on success, objective, violation, seconds (setup + solve)."""

    solver: str
    ok: bool
    z: Array
    objective: float
    violation: float
    seconds: float


def program(t: Transcription, problem: Problem, at: Array | None = None) -> ConvexProgram:
    """Return the joint program; with `at` (samples [2 C, 4 N]) also the half-planes tangent there."""
    c, n, s = problem.n_candidates, t.n, t.settings
    size = t.n_coefficients
    fixed, _ = fixed_coefficients(t, problem)
    w = problem.weight
    p = sp.block_diag([w[i] * t.hessian[axis] for axis in range(2) for i in range(c)], format="csc")
    q_x = -s.weights.speed * problem.goal_speed[:, None] * t.p1.sum(axis=0) * w[:, None]
    q_y = -problem.goal_y[:, None] * t.lane_gradient * w[:, None]
    q = np.concatenate([q_x.ravel(), q_y.ravel()])
    lanes = int(t.lane_rows.sum())
    constant = 0.5 * float(
        w @ (s.weights.speed * n * problem.goal_speed**2 + s.weights.lane * lanes * problem.goal_y**2)
    )
    rows, values = [], []
    for axis in range(2):
        for i in range(c):
            first = (axis * c + i) * size
            for k in range(N_FIXED):
                rows.append({first + k: 1.0})
                values.append(fixed[axis, k])
            for k in range(N_FIXED, s.shared_points):
                if i:
                    rows.append({first + k: 1.0, axis * c * size + k: -1.0})
                    values.append(0.0)
    a = sp.lil_matrix((len(rows), 2 * c * size))
    for r, entries in enumerate(rows):
        for column, value in entries.items():
            a[r, column] = value
    blocks, low, high = [], [], []
    free = [k for k in range(4 * n) if k % n or k // n == 3]
    for axis in range(2):
        for i in range(c):
            r = axis * c + i
            keep = [k for k in free if problem.bounded[axis, k // n]]
            block = sp.lil_matrix((len(keep), 2 * c * size))
            block[:, r * size : (r + 1) * size] = t.samples.T[keep]
            blocks.append(block.tocsc())
            low.append(problem.low[r, keep])
            high.append(problem.high[r, keep])
    if at is not None:
        floor = recovery_floor(t, problem)
        for i in range(c):
            for j in np.flatnonzero(problem.present[i]):
                axes = problem.axes[j] * s.margin
                offset = np.stack([at[i, :n], at[c + i, :n]]) - problem.centre[j]
                scaled = offset / axes
                distance = np.sqrt((scaled**2).sum(axis=0))
                normal = scaled / distance / axes
                level = floor[i, j] + (normal * problem.centre[j]).sum(axis=0)
                block = sp.lil_matrix((n - 1, 2 * c * size))
                for axis in range(2):
                    r = axis * c + i
                    block[:, r * size : (r + 1) * size] = normal[axis, 1:, None] * t.p[1:]
                blocks.append(block.tocsc())
                low.append(level[1:])
                high.append(np.full(n - 1, UNBOUNDED))
    return ConvexProgram(
        p, q, constant, a.tocsc(), np.array(values), sp.vstack(blocks, format="csc"), np.concatenate(low),
        np.concatenate(high),
    )  # fmt: skip


def _ends(c: ConvexProgram, infinity: float = np.inf) -> tuple[Array, Array]:
    # Our large finite stand-in for infinity would be taken at its word, as a badly scaled bound.
    low = np.where(c.low <= -UNBOUNDED / 2, -infinity, c.low)
    return low, np.where(c.high >= UNBOUNDED / 2, infinity, c.high)


def _clarabel(c: ConvexProgram) -> tuple[bool, Array]:
    import clarabel

    upper, lower = c.high < UNBOUNDED / 2, c.low > -UNBOUNDED / 2
    a = sp.vstack([c.a, c.g[upper], -c.g[lower]], format="csc")
    b = np.concatenate([c.b, c.high[upper], -c.low[lower]])
    cones = [clarabel.ZeroConeT(len(c.b)), clarabel.NonnegativeConeT(int(upper.sum() + lower.sum()))]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-10
    result = clarabel.DefaultSolver(sp.triu(c.p, format="csc"), c.q, a, b, cones, settings).solve()
    return "Solved" in str(result.status), np.array(result.x)


def _osqp(c: ConvexProgram) -> tuple[bool, Array]:
    import osqp

    a = sp.vstack([c.a, c.g], format="csc")
    low, high = _ends(c)
    data = (sp.triu(c.p, format="csc"), c.q, a, np.concatenate([c.b, low]), np.concatenate([c.b, high]))
    settings = {"verbose": False, "eps_abs": 1e-6, "eps_rel": 1e-6, "max_iter": 50_000}
    solver = osqp.OSQP()
    try:
        solver.setup(*data, polishing=True, **settings)
    except TypeError:  # called "polish" before OSQP 1.0
        solver = osqp.OSQP()
        solver.setup(*data, polish=True, **settings)
    result = solver.solve()
    return result.info.status == "solved", np.asarray(result.x, dtype=float)


def _piqp(c: ConvexProgram) -> tuple[bool, Array]:
    import piqp

    solver = piqp.SparseSolver()
    solver.settings.verbose = False
    # Tighter than this it stalls on our scaling (objective near 1e4) and reports failure at a solved point.
    solver.settings.eps_abs, solver.settings.eps_rel = 1e-6, 1e-9
    solver.settings.eps_duality_gap_abs, solver.settings.eps_duality_gap_rel = 1e-6, 1e-9
    low, high = _ends(c)
    unit = len(c.q)
    solver.setup(c.p, c.q, c.a, c.b, c.g, low, high, np.full(unit, -np.inf), np.full(unit, np.inf))
    status = solver.solve()
    return "SOLVED" in str(status), np.array(solver.result.x)


def _proxqp(c: ConvexProgram) -> tuple[bool, Array]:
    import proxsuite

    qp = proxsuite.proxqp.sparse.QP(len(c.q), c.a.shape[0], c.g.shape[0])
    qp.settings.eps_abs, qp.settings.max_iter = 1e-8, 10_000
    low, high = _ends(c, 1e20)
    qp.init(c.p, c.q, c.a, c.b, c.g, low, high)
    qp.solve()
    return "SOLVED" in str(qp.results.info.status).upper(), np.array(qp.results.x)


SOLVERS = {"clarabel": _clarabel, "piqp": _piqp, "proxqp": _proxqp, "osqp": _osqp}


def solve(c: ConvexProgram, solver: str) -> ConvexSolution:
    """Solve with "clarabel", "piqp", "proxqp" or "osqp"; each at a tight tolerance, time includes setup.

    Raises: KeyError for another name, ImportError when its package is not installed.
    """
    begun = time.perf_counter()
    ok, z = SOLVERS[solver](c)
    seconds = time.perf_counter() - begun
    if not np.isfinite(z).all():
        return ConvexSolution(solver, False, z, float("nan"), float("inf"), seconds)
    return ConvexSolution(solver, ok, z, c.objective(z), c.violation(z), seconds)
