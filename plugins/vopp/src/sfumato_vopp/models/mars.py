"""MARS(n, m): two rovers share a grid of m rocks; each step both act at once.

Source: Cai, Luo, Hsu, Lee, "HyP-DESPOT: a hybrid parallel algorithm for online planning under uncertainty", RSS 2018, §V, in
the form used by the evaluation of VOPP (arXiv:2510.27191).
"""

from __future__ import annotations

import numpy as np

from sfumato_vopp.model import Array, CompiledModel, Model
from sfumato_vopp.scalar import ScalarModel

__all__ = ["Mars"]


class Mars(ScalarModel):
    """State: two whole numbers, the bits of good rocks, and x0 | y0<<8 | x1<<16 | y1<<24 | there0<<32 | there1<<33.

    Each rover: east, north, south, west, sample, sense 0 … m-1; the joint action is a0·(5+m) + a1, so |A| = (5+m)². Each
    reads none, bad or good; the joint observation is o0·3 + o1. Rewards add up: leaving by the east edge 10 (that rover is
    gone), any other move off the grid -100, sampling a good rock 10 (it turns bad), a bad one -10, no rock -100. A reading
    at distance d is right with probability (1 + 2^(-d/20))/2. Rover 0 acts first within a step.

    Arguments:
        n, m: size of the grid, number of rocks (at most 60); ``layout_seed`` places them.
    """

    n_observations = 9
    state_width = 2
    reward_range = (-10.0, 20.0)

    def __init__(self, n: int = 20, m: int = 20, layout_seed: int = 0, discount: float = 0.983) -> None:
        if not 1 <= m <= 60 or not 4 <= n <= 200:
            raise ValueError(f"expected 1 … 60 rocks on a grid of 4 … 200, got {m} on {n}")
        self.n, self.m, self.layout_seed, self.discount = n, m, layout_seed, discount
        self.n_actions = (5 + m) ** 2
        self.starts = ((0, n // 2 - 1), (0, n // 2 + 1))
        free = [c for c in range(n * n) if (c % n, c // n) not in self.starts]
        cells = np.random.default_rng(layout_seed).choice(free, m, replace=False)
        self.rocks = tuple((int(c) % n, int(c) // n) for c in cells)
        x, y = np.arange(n * n) % n, np.arange(n * n) // n
        rx, ry = cells % n, cells // n
        rock_at = np.full(n * n, -1, np.int64)
        rock_at[cells] = np.arange(m)
        distance = np.hypot(x[:, None] - rx, y[:, None] - ry)
        manhattan = np.abs(x[:, None] - rx) + np.abs(y[:, None] - ry)
        self._ints = np.concatenate([[n, m], rock_at]).astype(np.int64)
        self._floats = np.concatenate(
            [
                [max(12.0 * discount, 10.0)], 10.0 * discount ** (n - 1 - x), (0.5 + 0.5 * 2.0 ** (-distance / 20.0)).ravel(),
                distance.ravel(), (discount**manhattan).ravel(),
            ]
        )  # fmt: skip
        (x0, y0), (x1, y1) = self.starts
        self._start = x0 | y0 << 8 | x1 << 16 | y1 << 24 | 3 << 32

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states, each rock good with probability one half; int64 [n, 2]."""
        return np.column_stack([rng.integers(0, 1 << self.m, n), np.full(n, self._start)])

    def reinvigorate(self, prior: Array, action: int, observation: int, posterior: Array, rng: np.random.Generator) -> Array:
        """Draw the rocks that this action did not concern anew from their marginals.

        Exact, for the rocks are independent and positions are known; it undoes the loss of variety by resampling.
        """
        if len(posterior) == 0:
            return posterior
        kept = self._concerned(int(prior[0, 1]), action)
        bits = posterior[:, 0].copy()
        for rock in range(self.m):
            if rock not in kept:
                good = rng.random(len(posterior)) < np.mean(prior[:, 0] >> rock & 1)
                bits = np.where(good, bits | (1 << rock), bits & ~(1 << rock))
        return np.column_stack([bits, posterior[:, 1]])

    def _concerned(self, packed: int, action: int) -> set[int]:
        out = set()
        for rover, a in enumerate(divmod(action, 5 + self.m)):
            x, y = packed >> (16 * rover) & 0xFF, packed >> (16 * rover + 8) & 0xFF
            if a >= 5:
                out.add(a - 5)
            elif a == 4:
                out.add(int(self._ints[2 + y * self.n + x]))
        return out

    def compiled(self) -> CompiledModel:
        """Return the compiled functions."""
        from sfumato_vopp.models import mars_numba as k

        return CompiledModel(k.step, k.hint, k.log_likelihood, self._ints, self._floats, "builtin:mars")

    def on_tensors(self, device: str) -> Model | None:
        """Return the same map on torch tensors; None for a subclass, whose rules may differ."""
        if type(self) is not Mars:
            return None
        from sfumato_vopp.models.mars_torch import TorchMars

        return TorchMars(self.n, self.m, self.layout_seed, self.discount, device=device)

    def describe_state(self, state: Array) -> str:
        """Name the rovers' cells and the good rocks."""
        p = int(state[1])
        rovers = [
            f"({p >> 16 * r & 0xFF}, {p >> (16 * r + 8) & 0xFF})" if p >> (32 + r) & 1 else "gone" for r in range(2)
        ]
        return f"rovers {rovers[0]} and {rovers[1]}, good rocks {[i for i in range(self.m) if int(state[0]) >> i & 1]}"
