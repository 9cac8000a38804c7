"""What a planner's decisions lose on Tag, measured without playing for luck: a quiet way to compare settings.

    python benchmarks/loss.py --seconds 0.03 --beliefs 150 '{"hint_weight": 1.0}' '{"hint_weight": 0.6, "eta": 2}'

A near-optimal policy is found once (heuristic search value iteration, kept in a file), beliefs are drawn along its episodes,
and each decision is charged max_a Q(b, a) - Q(b, chosen), Q by one exact look-ahead on the proven lower bound. The mean over
the same beliefs has a tenth of the noise of returns. `hint_weight` goes to the model, all else to SearchConfig.
± is a standard error; differences are from the first setting, paired.
"""

from __future__ import annotations

import argparse
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from sfumato_vopp import VOPP, Belief, ExactFilter, SearchConfig, Tag
from sfumato_vopp.exact import bracket
from sfumato_vopp.simulate import listed_starts
from sfumato_vopp.tabular import Tables, numbering, tabulate


def action_values(tables: Tables, vectors: np.ndarray, states: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Q [A] at a belief: the exact reward and next beliefs, then the lower bound."""
    q = tables.reward[states].T @ weights
    for a in range(tables.n_actions):
        ahead = np.zeros(tables.n_states)
        for s, p in zip(states, weights, strict=True):
            row = slice(tables.indptr[a * tables.n_states + s], tables.indptr[a * tables.n_states + s + 1])
            np.add.at(ahead, tables.indices[row], tables.data[row] * p)
        reached = np.flatnonzero(ahead)
        if len(reached):
            joint = tables.observe[a, reached] * ahead[reached, None]
            q[a] += tables.discount * np.max(vectors[:, reached] @ joint, axis=0).sum()
    return q


def beliefs(count: int, tables: Tables, vectors: np.ndarray) -> list[tuple[Belief, np.ndarray]]:
    """Return beliefs met by the near-optimal policy with 15 % random moves, each with its Q [A]."""
    model, number, rng = Tag(), numbering(tables.states), np.random.default_rng(5)
    starts, out = listed_starts(model), []
    while len(out) < 4 * count:
        state, filtered = starts[rng.integers(len(starts))][None], ExactFilter(model)
        for _ in range(25):
            belief = filtered.belief
            q = action_values(tables, vectors, number(belief.particles), belief.weights)
            out.append((belief, q))
            action = int(np.argmax(q)) if rng.random() > 0.15 else int(rng.integers(4))
            step = model.step(state, np.array([action]), rng)
            state = step.states
            if step.terminal[0]:
                break
            filtered.update(action, int(step.observations[0]))
    return [out[i] for i in rng.permutation(len(out))[:count]]


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+")
    parser.add_argument("--seconds", type=float, default=0.03)
    parser.add_argument("--beliefs", type=int, default=150)
    parser.add_argument("--trials", type=int, default=1500)
    parser.add_argument("--keep", type=Path, default=Path("tag-policy.pickle"))
    options = parser.parse_args()
    if not options.keep.exists():
        tables = tabulate(Tag())
        found = bracket(tables, 1e-3, 3600.0, options.trials)
        options.keep.write_bytes(pickle.dumps((tables, found.vectors, found.low, found.high)))
    tables, vectors, low, high = pickle.loads(options.keep.read_bytes())
    print(f"value of the near-optimal policy at the start at least {low:.3f}, of the optimal one at most {high:.3f}")
    chosen, first = beliefs(options.beliefs, tables, vectors), None
    for text in options.settings:
        settings: dict[str, Any] = json.loads(text)
        model = Tag(hint_weight=settings.pop("hint_weight", 0.6))
        planner = VOPP(model, SearchConfig(seconds=options.seconds, clock="cpu", **settings))
        planner.warmup()
        loss = np.empty(len(chosen))
        for i, (belief, q) in enumerate(chosen):
            planner.reseed(np.random.default_rng(i))
            loss[i] = q.max() - q[planner.plan(belief).action]
        first = loss if first is None else first
        change, n = loss - first, len(loss) ** 0.5
        print(f"{text:40} {loss.mean():.4f} ± {loss.std() / n:.4f}   {change.mean():+.4f} ± {change.std() / n:.4f}", flush=True)


if __name__ == "__main__":
    main()
