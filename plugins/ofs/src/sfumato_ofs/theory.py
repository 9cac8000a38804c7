"""The standard guarantees of confidence-bound search on a frozen population, counted over many seeds.

With stationary rewards and residuals, valid sub-Gaussian proxies and beta = 1, all bounds hold together in all of the first T
rounds with probability 1 - delta, and then, with L = ln(4 M (I + 1) T / delta):

(a) the best feasible arm always looks feasible, so the played arm's upper reward bound is at least its reward;
(b) the reward regret is at most M + 2 beta s_r sqrt(2 L) 2 sqrt(M T);
(c) the summed positive part of residual i is at most M + 2 beta s_i sqrt(2 L) 2 sqrt(M T);
(d) an arm violating residual i by D is played at most 1 + 8 beta^2 s_i^2 L / D^2 times.

In (c) and (d) rounds count by their weight (`Constraints.weights`): one whose groups are 19/81 tells 0.62 of what one of equal
halves tells, so there may be that many more of them. Standard theory, not the source's.

With `anytime`, T is replaced by max(t, 2)^2 in round t. Then the bounds hold in all rounds at once: an arm's N-th observation
is made in round N or later, where its radius is at least that of T = max(N, 2)^2, and the failure chances
delta / 2 * (1/4 + sum over N >= 2 of 1/N^2) sum to less than delta.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.arm_statistics import log_term
from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints, reward_scale
from sfumato_ofs.loops import ClosedLoop
from sfumato_ofs.oracle import sweep
from sfumato_ofs.search import OptimisticFeasible
from sfumato_ofs.simulate import World

BoolArray = NDArray[np.bool_]


@attrs.frozen
class Guarantees:
    """Which seeds broke each guarantee, bool [B], and how much of each bound was used at most (0 to 1)."""

    a: BoolArray
    b: BoolArray
    c: BoolArray
    d: BoolArray
    used: dict[str, float]

    @property
    def failures(self) -> dict[str, float]:
        """Share of seeds that broke each guarantee."""
        return {name: float(getattr(self, name).mean()) for name in "abcd"}


def count_failures(
    loop: ClosedLoop, n_seeds: int, horizon: int, *, delta: float = 0.05, seed: int = 0
) -> Guarantees:
    """Play the search at beta = 1 on a frozen loop and count broken guarantees.

    Arguments: loop must be frozen (`studies.named_loop("frozen")`): its state must not move.
    """
    constraints = Constraints()
    truth = sweep(loop, constraints)
    config = OptimisticFeasibleConfig(beta=1.0, delta=delta)
    s_r, s_i = reward_scale(loop.loss, loop.n), constraints.scales(loop.n)
    learner = OptimisticFeasible(n_seeds, loop.n_arms, horizon, config, reward_scale=s_r, residual_scales=s_i)
    rngs = [np.random.default_rng([seed, k]) for k in range(n_seeds)]
    world = World(loop, constraints, horizon, rngs, ~truth.is_feasible)
    best, m = truth.best, loop.n_arms
    rows = np.arange(n_seeds)
    weighed = np.zeros((n_seeds, m, constraints.size))
    broken_a = np.zeros(n_seeds, dtype=bool)
    plays = np.zeros((n_seeds, m))
    for t in range(horizon):
        arm = learner.select()
        if t >= m:
            s = learner.statistics
            broken_a |= (s.worst[:, best] > 0.0) | (s.upper_reward[rows, arm] < truth.reward[best])
        plays[rows, arm] += 1
        seen = world.step(arm)
        weighed[rows, arm] += seen.weights
        learner.update(arm, seen.reward, seen.residuals, seen.rates, 1.0, seen.weights, seen.people)
    term = log_term(m, constraints.size, horizon, delta)
    root = 2.0 * np.sqrt(2.0 * term) * 2.0 * np.sqrt(m * horizon)
    regret = plays @ (truth.reward[best] - truth.reward)
    violation = (weighed * np.maximum(truth.residuals, 0.0)).sum(axis=1)
    regret_bound, violation_bound = m + s_r * root, m + s_i * root
    excess = np.maximum(truth.residuals, 0.0)
    with np.errstate(divide="ignore"):
        most = 1.0 + 8.0 * s_i**2 * term / excess**2
    limit = np.where(excess > 0, most, np.inf)
    return Guarantees(
        a=broken_a,
        b=regret > regret_bound,
        c=(violation > violation_bound).any(axis=1),
        d=np.asarray((weighed > limit).any(axis=(1, 2))),
        used={
            "b": float(regret.max() / regret_bound),
            "c": float((violation / violation_bound).max()),
            "d": float((weighed / limit).max()),
        },
    )
