"""The tuner finds the best setting that is fast enough, whatever solver it tunes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("sfumato.context", reason="needs the core, sfumato")

from sfumato.context import RunContext
from sfumato.driver import drive
from sfumato.protocols import Episode, Policy, Solver, Task
from sfumato.records import Refusal, Start, Step
from sfumato.runtimes import Direct
from sfumato_ofs.errors import OfsError
from sfumato_ofs.tuned import TunedSolver
from sfumato_ofs.tuned_config import TunedConfig

CLOCK = SimpleNamespace(now=0.0)
"""Time stands still but for what the policies below say that they took."""


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Let the tuner read that clock: on a busy machine a real one would tell of the machine."""
    monkeypatch.setattr("sfumato_ofs.tuned.time", SimpleNamespace(perf_counter=lambda: CLOCK.now))


class Echo(Task):
    """Pays what the action is worth."""

    def instances(self, ctx):
        return iter(ctx.indices)

    def start(self, instance, ctx, rng):
        return EchoEpisode()


class EchoEpisode(Episode):
    t = 0

    def reset(self):
        return Start(0)

    def step(self, action):
        self.t += 1
        return Step(0, action, self.t == 3)


class Thinker(Solver):
    """Earns more the longer it thinks: `effort` milliseconds a decision, effort / 10 a step."""

    def __init__(self, effort, limit=100):
        self.effort, self.limit = effort, limit

    def supports(self, task, runtime):
        return Refusal("too much") if self.effort > self.limit else None

    def solve(self, task, ctx):
        return Thinking(self.effort)


class Thinking(Policy):
    def __init__(self, effort):
        self.effort = effort

    def reset(self, start, rng):
        return

    def act(self, observation):
        CLOCK.now += self.effort / 1000
        return self.effort / 10


class Context(RunContext):
    def component(self, ref, settings=None, kind="solver"):
        assert ref == "test/thinker"
        return Thinker(**settings)


def tuned(values, **settings):
    config = TunedConfig(
        solver="test/thinker", setting="effort", values=values, deadline_seconds=0.012, reward_scale=0.5, seconds_scale=0.002,
        **settings,
    )  # fmt: skip
    return TunedSolver(config)


def test_the_best_setting_within_the_deadline_is_played_most():
    """5 ms is allowed, 20 ms earns more and is not."""
    solver = tuned((1, 5, 20))
    policies = []
    solve = solver.solve
    solver.solve = lambda task, ctx: policies.append(solve(task, ctx)) or policies[0]
    drive(Echo(), solver, Direct(), {}, Context(indices=range(40)))
    notes = policies[0].notes()
    assert sum(notes["plays"]) == 40
    assert notes["recommended"] == 5
    assert notes["plays"][1] > notes["plays"][0] + notes["plays"][2]
    assert notes["mean_return"] == pytest.approx([0.3, 1.5, 6.0])


def test_without_a_solver_named_it_declines():
    """With the words that are missing."""
    assert "-s solver=NAME" in TunedSolver(TunedConfig()).supports(Echo(), Direct()).advice


def test_an_inner_solver_that_declines_is_named():
    """Which value, and why."""
    with pytest.raises(OfsError, match="effort = 20 declines this task: too much"):
        tuned((1, 20), settings={"limit": 10}).solve(Echo(), Context())
