"""`ofs/tuned` on another plugin's solver: tuned online under a deadline, beside every fixed value on the same episodes.

    python benchmarks/study_tuned.py              # needs sfumato-vopp[numba] beside this package
    python benchmarks/study_tuned.py resample     # the expected regret, from the episodes that the first one wrote down

One run's regret is mostly the luck of its episodes. So the tuner is also played many times on episodes drawn from those of the
fixed values, where each value's mean is known.

Fixed values run on the same worlds, timed in the same way; regret is to the best of them that keeps the deadline. Times are
this process's CPU seconds, because other programs shared the machine.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sfumato import config as configs
from sfumato import plugins
from sfumato.context import RunContext
from sfumato.driver import drive
from sfumato.runtimes import Direct
from sfumato_ofs.studies import interval
from sfumato_ofs.tuned import TunedPolicy, TunedSolver
from sfumato_ofs.tuned_config import TunedConfig

STUDIES: dict[str, dict[str, Any]] = {
    "vopp": {
        "task": "vopp/rocksample",
        "task_settings": {},
        "solver": "vopp/planner",
        "setting": "max_episodes",
        "values": (20, 100, 800, 3200, 12800),
        "settings": {"seconds": None, "n_episodes": 20},
        "deadline_seconds": 0.010,
        "episodes": 100,
    },
}


class Keeping(TunedSolver):
    """The tuner, keeping the policy that it makes so that its episodes can be read afterwards; one value is allowed."""

    policy: TunedPolicy

    def solve(self, task: Any, ctx: Any) -> TunedPolicy:
        self.policy = super().solve(task, ctx)
        return self.policy

    def supports(self, task: Any, runtime: Any) -> None:
        return None


def run(
    study: dict[str, Any], values: tuple[Any, ...], n: int
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Return returns [n], decision times [n] and notes of the tuner over the given values."""
    registry = plugins.Registry()
    task = plugins.build(registry.find("task", study["task"]), study["task_settings"], configs.structure)
    solver = Keeping(
        TunedConfig(
            solver=study["solver"],
            setting=study["setting"],
            values=values,
            settings=study["settings"],
            deadline_seconds=study["deadline_seconds"],
            clock="cpu",
        )
    )
    drive(task, solver, Direct(), {}, RunContext(indices=range(n)))
    history = [*solver.policy._history, solver.policy._finished()]
    reward = np.array([p.reward for p in history if p is not None])
    seconds = np.array([p.seconds for p in history if p is not None])
    return reward, seconds, dict(solver.policy.notes())


def main(name: str) -> None:
    study = STUDIES[name]
    n, deadline = study["episodes"], study["deadline_seconds"]
    print(f"{study['solver']} on {study['task']}, {study['setting']} in {list(study['values'])}, deadline {deadline * 1e3:g} ms CPU, {n} episodes\n")  # fmt: skip
    print(
        "| setting | mean return | decision, 95% quantile, ms CPU | episodes over the deadline |\n|---|---|---|---|"
    )
    fixed: dict[Any, tuple[np.ndarray, np.ndarray]] = {}
    for value in study["values"]:
        reward, seconds, _ = run(study, (value,), n)
        fixed[value] = (reward, seconds)
        show(str(value), reward, seconds, deadline)
    reward, seconds, notes = run(study, study["values"], n)
    show("tuned", reward, seconds, deadline)
    fast = [v for v, (_, s) in fixed.items() if s.mean() <= deadline]
    best = max(fast, key=lambda v: float(fixed[v][0].mean()))
    regret = np.cumsum(fixed[best][0].mean() - reward)
    late = len(reward) - len(reward) // 3
    print(
        f"\nbest fixed value within the deadline: {best}; tuned recommends {notes['recommended']}, plays {notes['plays']}"
    )
    print(f"regret to it: {regret[-1]:.2f} over {len(reward)} episodes ({regret[late - 1]:.2f} of it in the first two thirds); in its own notes {notes['regret']:.2f}")  # fmt: skip
    out = Path(__file__).parent / f"study_tuned_{name}.json"
    facts = {
        "study": {k: list(v) if isinstance(v, tuple) else v for k, v in study.items()},
        "fixed": {str(v): {"reward": r.round(5).tolist(), "seconds": s.round(6).tolist()} for v, (r, s) in fixed.items()},
        "tuned": {"reward": reward.round(5).tolist(), "seconds": seconds.round(6).tolist(), "notes": notes},
        "regret_to_best_fixed": round(float(regret[-1]), 4),
    }  # fmt: skip
    out.write_text(json.dumps(facts) + "\n")


class Drawn:
    """Stands for the inner policy: its episodes are drawn from a table."""

    def reset(self, start: Any, rng: Any) -> None:
        return


def resample(name: str, n_episodes: int = 100, n_repeats: int = 60) -> None:
    """Print expected regret and late episodes for several widths of the bounds."""
    facts = json.loads((Path(__file__).parent / f"study_tuned_{name}.json").read_text())
    deadline = facts["study"]["deadline_seconds"]
    rewards = [np.array(v["reward"]) for v in facts["fixed"].values()]
    seconds = [np.array(v["seconds"]) for v in facts["fixed"].values()]
    best = max(r.mean() for r, s in zip(rewards, seconds, strict=True) if s.mean() <= deadline)
    print(
        f"{n_repeats} times {n_episodes} episodes; the best fixed value within the deadline earns {best:.1f} an episode\n"
    )
    print("| beta | expected regret an episode | late episodes |\n|---|---|---|")
    for beta in (0.1, 0.25, 0.5, 1.0):
        regret, late = np.zeros(n_repeats), np.zeros(n_repeats)
        for k in range(n_repeats):
            rng = np.random.default_rng(k)
            config = TunedConfig(
                values=tuple(range(len(rewards))), deadline_seconds=deadline, beta=beta, warmup=0
            )
            policy = TunedPolicy(config, [Drawn()] * len(rewards))  # type: ignore[list-item]
            for _ in range(n_episodes):
                policy.reset(None, rng)  # type: ignore[arg-type]
                j, i = policy._arm, rng.integers(len(rewards[policy._arm]))
                policy._reward, policy._seconds = float(rewards[j][i]), [float(seconds[j][i])]
                regret[k] += (best - rewards[j].mean()) / n_episodes
                late[k] += seconds[j][i] > deadline
        low, high = interval(regret)
        print(f"| {beta:g} | {regret.mean():.2f} [{low:.2f}, {high:.2f}] | {late.mean():.1f} |", flush=True)


def show(name: str, reward: np.ndarray, seconds: np.ndarray, deadline: float) -> None:
    low, high = interval(reward)
    print(
        f"| {name} | {reward.mean():.2f} [{low:.2f}, {high:.2f}] | {seconds.mean() * 1e3:.1f} | {np.mean(seconds > deadline):.0%} |",
        flush=True,
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["resample"]:
        resample("vopp")
    else:
        main("vopp")
