"""A small grid of settings for each peer, so that the best is reported and not the first one tried.

    python benchmarks/peer_grid.py            # writes benchmarks/peer_grid.json, going on where it was interrupted

Each setting plays environment A on two seeds that the tables do not use. Peers know no constraint, so they are compared by
reward minus violation, both a round. The best of each kind is what `study_tables.py peers` runs.
"""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np

from sfumato.context import RunContext
from sfumato_ofs.config import MabwiserConfig, SyntheticConfig, VowpalWabbitConfig
from sfumato_ofs.peers import MabwiserSolver, VowpalWabbitSolver
from sfumato_ofs.tasks import SyntheticTask

FILE = Path(__file__).parent / "peer_grid.json"
SEEDS = range(900, 902)


def grid() -> dict[str, list[MabwiserConfig | VowpalWabbitConfig]]:
    """Return the settings tried, by kind."""
    penalties = (0.5, 1.0, 3.0)
    return {
        "mabwiser UCB1, reward alone": [
            MabwiserConfig(policy="ucb1", alpha=a) for a in (0.03, 0.1, 0.3, 1.0)
        ],
        "mabwiser UCB1, penalised": [
            MabwiserConfig(policy="ucb1", alpha=a, penalty=c) for a in (0.01, 0.03, 0.1) for c in penalties
        ],
        "mabwiser softmax, penalised": [
            MabwiserConfig(policy="softmax", temperature=t, penalty=c)
            for t in (0.003, 0.01, 0.03)
            for c in penalties
        ],
        "mabwiser Thompson, penalised": [MabwiserConfig(policy="thompson", penalty=c) for c in penalties],
        "Vowpal Wabbit, reward alone": [
            VowpalWabbitConfig(exploration=e)
            for e in ("--epsilon 0.02", "--epsilon 0.05", "--bag 5", "--cover 3")
        ],
        "Vowpal Wabbit, penalised": [
            VowpalWabbitConfig(exploration=e, penalty=c)
            for e in ("--epsilon 0.02", "--epsilon 0.05", "--bag 5", "--cover 3", "--squarecb")
            for c in (1.0, 3.0)
        ],
    }


def solver(config: MabwiserConfig | VowpalWabbitConfig) -> MabwiserSolver | VowpalWabbitSolver:
    """Return the peer that a setting belongs to."""
    return MabwiserSolver(config) if isinstance(config, MabwiserConfig) else VowpalWabbitSolver(config)


def play(made, indices, scores: str = "hidden") -> dict[str, np.ndarray]:
    """Return the world's sums after a whole episode on the given seeds."""
    task = SyntheticTask(SyntheticConfig(scores=scores))
    ctx = RunContext(indices=indices)
    (instance,) = list(task.instances(ctx))
    episode, policy = task.start(instance, ctx, ctx.stream("world", 0)), made.solve(task, ctx)
    start = episode.reset()
    policy.reset(start, ctx.stream("policy", 0))
    observation, over = start.observation, False
    while not over:
        step = episode.step(policy.act(observation))
        policy.observe(step)
        observation, over = step.observation, step.over
    return episode.truth()


def best(kind: str) -> MabwiserConfig | VowpalWabbitConfig:
    """Return the best setting found for a kind. Raises: FileNotFoundError, KeyError when the grid has not been run."""
    found = json.loads(FILE.read_text())
    return max(grid()[kind], key=lambda config: found[kind][name(config)]["score"])


def name(config: MabwiserConfig | VowpalWabbitConfig) -> str:
    """Return a setting in words: its class's short name and what differs from the defaults."""
    plain = type(config)()
    changed = {k: v for k, v in attrs.asdict(config).items() if v != getattr(plain, k)}
    return ", ".join(f"{k} {v}" for k, v in changed.items()) or "defaults"


def main() -> None:
    found: dict[str, dict[str, dict[str, float]]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    for kind, settings in grid().items():
        rows = found.setdefault(kind, {})
        for config in settings:
            if name(config) in rows:
                continue
            truth = play(solver(config), SEEDS)
            reward = float(np.mean(truth["reward"]) / truth["rounds"])
            violation = float(np.mean(truth["violation"]) / truth["rounds"])
            rows[name(config)] = {
                "reward": round(reward, 5),
                "violation": round(violation, 5),
                "score": round(reward - violation, 5),
            }
            FILE.write_text(json.dumps(found, indent=1) + "\n")
            print(f"{kind:32s} {name(config):40s} {rows[name(config)]}", flush=True)


if __name__ == "__main__":
    main()
