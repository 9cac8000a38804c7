"""What the driver itself costs: microseconds a step on a task and a policy that do nothing.

    python core/benchmarks/driver_overhead.py

A bare loop over the same objects is timed in turn with the driver; the difference is the driver's own cost. Target:
at most 20 microseconds a step. Also states the size of traces on disk for two large shapes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from sfumato.context import RunContext
from sfumato.driver import run_episode
from sfumato.protocols import Episode, Policy, Task
from sfumato.records import Start, Step
from sfumato.runtimes import Direct
from sfumato.trace import EpisodeColumns, TraceFile

N_STEPS = 20_000


class Nothing(Episode):
    """Counts steps."""

    def __init__(self) -> None:
        self.t = 0

    def reset(self) -> Start:
        return Start(0)

    def step(self, action: int) -> Step:
        self.t += 1
        return Step(self.t, 0.5, self.t == N_STEPS)


class NothingTask(Task):
    """One episode of N_STEPS."""

    def instances(self, ctx):
        yield 0

    def start(self, instance, ctx, rng):
        return Nothing()


class Idle(Policy):
    """Says 1."""

    def reset(self, start, rng):
        return

    def act(self, observation):
        return 1


def bare() -> float:
    """Seconds of the same loop without the driver."""
    episode, policy = Nothing(), Idle()
    began = time.perf_counter()
    observation, over = episode.reset().observation, False
    while not over:
        step = episode.step(policy.act(observation))
        policy.observe(step)
        observation, over = step.observation, step.over
    return time.perf_counter() - began


def driven() -> float:
    """Seconds of the loop under the driver, trace file included."""
    with tempfile.TemporaryDirectory() as folder:
        file = TraceFile(Path(folder) / "trace.zip")
        began = time.perf_counter()
        run_episode(NothingTask(), Idle(), Direct(), 0, RunContext(), trace_file=file)
        seconds = time.perf_counter() - began
        file.close()
    return seconds


def trace_size(name: str, n_steps: int, action, reward) -> None:
    """Print the bytes on disk of one episode's trace at level `actions`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.zip"
        file, columns = TraceFile(path, limit=1 << 30), EpisodeColumns()
        for t in range(n_steps):
            value = action(t)
            columns.said.append(value)
            columns.actions.append(value)
            columns.rewards.append(reward(t))
            columns.terminated.append(np.zeros(len(value), bool))
            columns.truncated.append(np.zeros(len(value), bool))
            if t % 512 == 0:
                file.write_chunks(0, columns)
        file.write_chunks(0, columns)
        file.close()
        print(f"{name:55s} {path.stat().st_size / 2**20:8.2f} MB")


def main() -> None:
    """Print the figures."""
    rounds = [(driven(), bare()) for _ in range(7)]
    own = [(a - b) / N_STEPS * 1e6 for a, b in rounds]
    print(f"driver's own cost: median {statistics.median(own):.1f} us a step (min {min(own):.1f}, max {max(own):.1f})")
    rng = np.random.default_rng(0)
    best = rng.integers(8, 14, 1000)
    trace_size(
        "1,000 seeds x 5,000 rounds, arm of 41 (5 % exploring)",
        5000,
        lambda t: np.where(rng.random(1000) < 0.05, rng.integers(0, 41, 1000), best),
        lambda t: rng.binomial(200, 0.6, 1000) / 200,
    )
    trace_size(
        "128 routing instances x 1,000 nodes, one step",
        1,
        lambda t: np.stack([rng.permutation(1000) for _ in range(128)]),
        lambda t: -rng.random(128),
    )


if __name__ == "__main__":
    main()
