"""Improve a policy without labels: decode with what it knows, repair by re-construct, train on the best, repeat.

A pool of instances keeps the best solution seen of each. A round draws some of them, solves them with the current
network (beam, then re-construct), keeps what became better, and trains on the pool. No solver is asked.

Sources: Pirnay and Grimm, "Self-improvement for neural combinatorial optimization: sample without replacement, but
improve", TMLR 2024 (the loop); Luo et al., NeurIPS 2023 (re-construct as the improver).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray

from .config import TrainConfig
from .env import environment
from .instances import Plan
from .network import BQNetwork
from .pieces import Data
from .policy import BQPolicy
from .reconstruct import reconstruct
from .train import Trainer


@frozen
class Round:
    """What a round did: `cost` mean over the pool before and after, `improved` items, `loss` of the last step."""

    before: float
    after: float
    improved: int
    loss: float


def labels_of(problem: str, arrays: Mapping[str, Any], plans: list[Plan]) -> Data:
    """Instances and their best solutions as training data (see `pieces`)."""
    data: dict[str, NDArray[Any]] = {
        k: np.asarray(a, dtype=np.float32 if k in ("xy", "prize", "value", "weight", "matrix") else None)
        for k, a in arrays.items()
    }
    count = len(plans)
    if problem in ("tsp", "atsp"):
        return data | {"tour": np.array(plans, dtype=np.int16)}
    n = len(data["xy"][0]) if "xy" in data else len(data["value"][0])
    if problem in ("cvrp", "cvrptw"):
        seq, starts = np.zeros((count, n - 1), np.int16), np.zeros((count, n - 1), np.bool_)
        for b, routes in enumerate(plans):
            seq[b] = [v for r in routes for v in r]
            starts[b, np.cumsum([0, *map(len, routes)])[:-1]] = True
        return data | {"seq": seq, "starts": starts}
    if problem == "op":
        path = np.full((count, n), -1, np.int16)
        for b, plan in enumerate(plans):
            path[b, : len(plan)] = plan
        return data | {"path": path}
    chosen = np.zeros((count, n), np.bool_)
    for b, plan in enumerate(plans):
        chosen[b, plan] = True
    return data | {"chosen": chosen}


@define(eq=False)
class SelfImprover:
    """A pool of instances (arrays as in `generate`), their best solutions, and the network that is trained on them."""

    network: BQNetwork
    arrays: Mapping[str, NDArray[Any]]
    rng: np.random.Generator
    width: int = 16
    n_rounds: int = 10
    plans: list[Plan] = field(init=False)
    cost: NDArray[np.float64] = field(init=False)

    def __attrs_post_init__(self) -> None:
        found = BQPolicy(self.network).solve(self.arrays)
        self.plans, self.cost = found.solutions, found.cost

    def search(self, count: int) -> int:
        """Solve `count` drawn items anew; keep what is better. Returns how many became better."""
        size = len(self.plans)
        drawn = np.sort(self.rng.choice(size, size=min(count, size), replace=False))
        some = {k: np.asarray(a)[drawn] for k, a in self.arrays.items()}
        policy = BQPolicy(self.network)
        env = environment(policy.problem, some)
        fresh = policy.solve(env, width=self.width)
        # Whichever is better, the pool's best or the fresh one, goes on to re-construct.
        start = [
            fresh.solutions[b] if fresh.cost[b] < self.cost[i] - 1e-9 else self.plans[i]
            for b, i in enumerate(drawn)
        ]
        plans, cost = reconstruct(policy.scorer, env, start, self.rng, n_rounds=self.n_rounds)
        improved = 0
        for b, i in enumerate(drawn):
            if cost[b] < self.cost[i] - 1e-9:
                self.plans[i], self.cost[i] = plans[b], cost[b]
                improved += 1
        return improved

    def round(self, config: TrainConfig, count: int, report: Callable[[Round], None] | None = None) -> Round:
        """Search on `count` items, then train by `config` on the whole pool; the averaged network takes over."""
        before = float(self.cost.mean())
        improved = self.search(count)
        data = labels_of(self.network.config.problem, self.arrays, self.plans)
        trainer = Trainer(self.network.config, config, data, initial=self.network)
        trainer.run()
        self.network = trainer.averaged_network()
        done = Round(before, float(self.cost.mean()), improved, trainer.loss)
        if report:
            report(done)
        return done
