"""From settings to matrices: sample maps, the objective's Hessians, and the factors that never change.

All rows are ordered as the kernels want them: row r = axis * C + c; within a row the samples are
[position N | velocity N | acceleration N | jerk N], times contiguous. One product with `samples` gives all
four for all candidates.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_cpto.barrier import decay
from sfumato_cpto.bernstein import derivative_matrices, shift_matrix
from sfumato_cpto.config import PlannerSettings, Stage

Array = NDArray[np.float64]

N_FIXED = 3  # position, velocity and acceleration at the start fix the first three control points
UNBOUNDED = 1e9  # infinite bounds, as a number: kernels are compiled without care for infinities


@attrs.frozen(eq=False)
class Factors:
    """Constant maps of one ADMM stage for given penalties, M, and bounded groups.

    With targets R [2 C, 4 N] (already weighted), the coefficients that minimise the stage's quadratic are
    R @ tail[axis] + (sum_c p_c R_c) @ shared[axis] + fixed @ start[axis].

    Attributes:
        tail, shared: [2, 4 N, n + 1].
        start: [2, 3, n + 1], response to the three fixed coefficients.
        box_weight: [2, 4], penalty of each group of bounds, 0 where nothing is bounded.
        heading_tail, heading_shared: [N, n + 1]; heading_start: [2, n + 1].
        tail_rows [2, f, 4 N], shared_rows [2, g, 4 N], heading_tail_rows [f', N], heading_shared_rows [g', N]: the columns
            of the maps that are not zero, as rows, for the compiled kernel: they belong to the last f, g, f', g'
            coefficients; g = g' = 0 where nothing is shared exactly.
    """

    tail: Array
    shared: Array
    start: Array
    box_weight: Array
    heading_tail: Array
    heading_shared: Array
    heading_start: Array
    tail_rows: Array
    shared_rows: Array
    heading_tail_rows: Array
    heading_shared_rows: Array


def _solve_maps(q: Array, n_fixed: int, n_shared: int) -> tuple[Array, Array, Array]:
    """Return (K_tail, K_shared, K_start) for 1/2 c'Qc - q'c with fixed first and shared next coefficients."""
    n = len(q)
    free = np.arange(n_fixed, n)
    tail = np.arange(max(n_shared, n_fixed), n)
    together, apart = np.zeros((n, n)), np.zeros((n, n))
    together[np.ix_(free, free)] = np.linalg.inv(q[np.ix_(free, free)])
    apart[np.ix_(tail, tail)] = np.linalg.inv(q[np.ix_(tail, tail)])
    response = np.zeros((n_fixed, n))
    response[:, :n_fixed] = np.eye(n_fixed)
    response -= q[:n_fixed] @ together
    # The response of shared and tail coefficients to the fixed ones is that of a single candidate.
    return apart, together - apart, response


class Transcription:
    """Matrices of the discretised problem; built once for given settings, then shared by every cycle."""

    def __init__(self, settings: PlannerSettings) -> None:
        s = self.settings = settings
        self.n, self.dt = s.n_samples, s.dt
        self.duration = (s.n_samples - 1) * s.dt
        self.n_coefficients = s.degree + 1
        self.p, self.p1, self.p2, self.p3 = derivative_matrices(s.degree, s.n_samples, s.dt)
        self.samples = np.ascontiguousarray(np.vstack([self.p, self.p1, self.p2, self.p3]).T)  # [n + 1, 4 N]
        self.heading_curves = np.ascontiguousarray(self.p[:, 2:].T)  # heading and yaw rate fix the first two
        self.times = np.arange(self.n) * s.dt
        self.shift = shift_matrix(s.degree, s.dt / self.duration)
        self.gamma = np.linspace(s.gamma[0], s.gamma[1], self.n - 1)
        self.decay = decay(self.gamma)
        self.lane_rows = np.arange(self.n) >= s.n_consensus + 2
        w = s.weights
        lane = self.p[self.lane_rows]
        self.hessian = np.stack(
            [
                w.smooth * self.p2.T @ self.p2 + w.speed * self.p1.T @ self.p1,
                w.smooth * self.p2.T @ self.p2 + w.lane * lane.T @ lane,
            ]
        )
        self.lane_gradient = w.lane * lane.sum(axis=0)
        # Polish: a square root of the Hessian over the free coefficients of one candidate, tail first.
        m = s.shared_points
        self.order = np.r_[np.arange(m, self.n_coefficients), np.arange(N_FIXED, m)]
        self.n_tail = self.n_coefficients - m
        self.root = np.stack(
            [np.linalg.inv(np.linalg.cholesky(h[np.ix_(self.order, self.order)])).T for h in self.hessian]
        )
        g = self.samples.T[:, self.order]
        self.rows = np.stack([g @ root for root in self.root])  # [2, 4 N, n_free]
        self._factors: dict[tuple[object, ...], Factors] = {}

    def factors(self, stage: Stage, n_obstacles: int, bounded: NDArray[np.bool_]) -> Factors:
        """Return the cached factors of a stage. `bounded` [2, 4]: which groups have a finite bound."""
        key = (attrs.astuple(stage)[1:], n_obstacles, bounded.tobytes())
        if key not in self._factors:
            if len(self._factors) > 64:  # scenes with ever changing M must not grow memory
                self._factors.clear()
            self._factors[key] = self._build(stage, n_obstacles, bounded)
        return self._factors[key]

    def _build(self, stage: Stage, n_obstacles: int, bounded: NDArray[np.bool_]) -> Factors:
        s = self.settings
        blocks = (self.p, self.p1, self.p2, self.p3)
        exact = s.consensus == "control-points"
        n_shared = s.shared_points if exact else 0
        box_weight = stage.rho_box * bounded.astype(np.float64)
        tails, shareds, starts = [], [], []
        for axis in range(2):
            q = self.hessian[axis] + stage.rho_motion * self.p1.T @ self.p1
            q = q + stage.rho_obstacle * n_obstacles * self.p.T @ self.p
            for weight, block in zip(box_weight[axis], blocks, strict=True):
                q = q + weight * block.T @ block
            if not exact:
                for block in blocks[:3]:
                    q = q + stage.rho_consensus * block[: s.n_consensus].T @ block[: s.n_consensus]
            apart, rest, response = _solve_maps(q, N_FIXED, n_shared)
            tails.append(self.samples.T @ apart)
            shareds.append(self.samples.T @ rest)
            starts.append(response)
        q = s.weights.heading * self.p2.T @ self.p2 + stage.rho_heading * self.p.T @ self.p
        if not exact:
            near = self.p[: s.n_consensus]
            q = q + stage.rho_consensus * near.T @ near
        apart, rest, response = _solve_maps(q, 2, n_shared)
        if not exact:
            shareds = [np.zeros_like(t) for t in tails]
            rest = np.zeros_like(rest)
        tail, shared = np.ascontiguousarray(np.stack(tails)), np.ascontiguousarray(np.stack(shareds))
        heading_tail, heading_shared = self.p @ apart, self.p @ rest
        first, first_heading = max(N_FIXED, n_shared), max(2, n_shared)
        common = N_FIXED if exact else self.n_coefficients
        common_heading = 2 if exact else self.n_coefficients
        return Factors(
            tail=tail,
            shared=shared,
            start=np.stack(starts),
            box_weight=box_weight,
            heading_tail=np.ascontiguousarray(heading_tail),
            heading_shared=np.ascontiguousarray(heading_shared),
            heading_start=response,
            tail_rows=np.ascontiguousarray(tail[:, :, first:].transpose(0, 2, 1)),
            shared_rows=np.ascontiguousarray(shared[:, :, common:].transpose(0, 2, 1)),
            heading_tail_rows=np.ascontiguousarray(heading_tail[:, first_heading:].T),
            heading_shared_rows=np.ascontiguousarray(heading_shared[:, common_heading:].T),
        )
