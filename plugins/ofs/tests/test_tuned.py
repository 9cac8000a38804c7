"""The tuner finds the best setting that is fast enough, whatever solver it tunes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("sfumato.context", reason="needs the core, sfumato")

from sfumato.context import RunContext
from sfumato.driver import drive
from sfumato.errors import Unsupported
from sfumato.protocols import Episode, Policy, Solver, Task
from sfumato.records import Refusal, Start, Step
from sfumato.runtimes import Direct
from sfumato_ofs.tuned import TunedSolver, _spread
from sfumato_ofs.tuned_config import TunedConfig

CLOCK = SimpleNamespace(now=0.0)
"""Time stands still but for what the policies below say that they took."""


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Let the tuner read that clock: on a busy machine a real one would tell of the machine."""
    now = SimpleNamespace(perf_counter=lambda: CLOCK.now, process_time=lambda: CLOCK.now)
    monkeypatch.setattr("sfumato_ofs.tuned.time", now)


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
    """Compiles for a second before its very first decision."""

    def __init__(self, effort):
        self.effort = effort
        self.compiled = False

    def reset(self, start, rng):
        return

    def act(self, observation):
        CLOCK.now += self.effort / 1000 + (0 if self.compiled else 1)
        self.compiled = True
        return self.effort / 10


class Context(RunContext):
    def component(self, ref, settings=None, kind="solver"):
        assert ref == "test/thinker"
        return Thinker(**settings)


def tuned(values, **settings):
    given = {"reward_scale": 0.5, "seconds_scale": 0.002, "deadline_seconds": 0.012, **settings}
    return TunedSolver(TunedConfig(solver="test/thinker", setting="effort", values=values, **given))


def played(solver, episodes):
    """The notes after so many episodes."""
    policies = []
    solve = solver.solve
    solver.solve = lambda task, ctx: policies.append(solve(task, ctx)) or policies[0]
    drive(Echo(), solver, Direct(), {}, Context(indices=range(episodes)))
    return policies[0].notes()


def test_the_best_setting_within_the_deadline_is_played_most():
    """5 ms is allowed, 20 ms earns more and is not."""
    notes = played(tuned((1, 5, 20)), 40)
    assert sum(notes["plays"]) == 40
    assert notes["recommended"] == 5
    assert notes["plays"][1] > notes["plays"][0] + notes["plays"][2]
    assert notes["mean_return"] == pytest.approx([0.3, 1.5, 6.0])


def test_without_a_solver_named_it_declines():
    """With the words that are missing."""
    assert "-s solver=NAME" in TunedSolver(TunedConfig()).supports(Echo(), Direct()).advice


def test_an_inner_solver_that_declines_is_named():
    """Which value, and why."""
    with pytest.raises(Unsupported, match="effort = 20 declines this task: too much"):
        tuned((1, 20), settings={"limit": 10}).solve(Echo(), Context())


def test_an_inner_solver_is_asked_about_the_runtime_at_hand(monkeypatch):
    """A solver that writes native calls fits the direct runtime alone, so what it is asked about must be that one."""
    asked = []
    monkeypatch.setattr(Thinker, "supports", lambda self, task, runtime: asked.append(runtime))
    solver, runtime = tuned((1, 20)), Direct()
    solver.supports(Echo(), runtime)
    solver.solve(Echo(), Context())
    assert asked == [runtime, runtime]


def test_thinking_while_it_is_reset_counts_as_deciding(monkeypatch):
    """20 ms of reset a policy of 5 ms: its first decisions are late, so the other one is played."""

    def reset(self, start, rng):
        CLOCK.now += 0.02 if self.effort == 5 else 0.0

    monkeypatch.setattr(Thinking, "reset", reset)
    notes = played(tuned((1, 5), quantile=1.0), 40)
    assert notes["recommended"] == 1
    assert notes["plays"][0] > 30 and notes["decision_seconds"][1] > 0.012


def test_regret_is_against_the_best_fixed_value_that_is_fast_enough():
    """Returns 0.3, 1.5, 6 an episode; 6 is too slow. What the 1s lost and the 20s gained, and how many were late."""
    notes = played(tuned((1, 5, 20)), 40)
    one, _, twenty = notes["plays"]
    assert notes["regret"] == pytest.approx(one * 1.2 - twenty * 4.5)
    assert notes["late"] == twenty
    nothing = played(tuned((20, 30)), 6)
    assert nothing["recommended"] is None and nothing["regret"] is None and nothing["late"] == 6


@pytest.mark.parametrize("kind", ["wall", "cpu"])
def test_spreads_are_taken_from_the_episodes_where_none_are_given(kind):
    """Without scales the same value is found; compilation before a value's first decision is not held against it."""
    notes = played(tuned((1, 5, 20), reward_scale=0.0, seconds_scale=0.0, clock=kind), 40)
    assert notes["recommended"] == 5 and notes["plays"][1] >= 30
    assert notes["decision_seconds"][:2] == pytest.approx([0.001, 0.005])
    held = played(tuned((1, 5, 20), warmup=0), 6)
    assert held["decision_seconds"][0] > 0.1


def test_one_decision_an_episode_is_tuned_though_the_first_one_compiles(monkeypatch):
    """Each value's first episode is all warm-up and is forgotten; the second below would take 1.005 s, far too long."""
    monkeypatch.setattr(EchoEpisode, "step", lambda self, action: Step(0, action, True))
    notes = played(tuned((1, 5, 20), reward_scale=0.0, seconds_scale=0.0), 43)
    assert notes["recommended"] == 5 and sum(notes["plays"]) == 40
    assert notes["decision_seconds"] == pytest.approx([0.001, 0.005, 0.020])


def test_pooled_spreads_by_hand():
    """Deviations within values, not between them; before any value has two episodes those between."""
    assert _spread([[1.0, 3.0], [10.0, 12.0], [5.0]]) == pytest.approx(2**0.5)
    assert _spread([[1.0], [3.0]]) == pytest.approx(2**0.5)
    assert _spread([[1.0]]) == 1.0


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"values": (1, 5, 1)}, "values must all be different"),
        ({"values": (1, 5), "settings": {"effort": 3}}, "effort is tuned and also given"),
    ],
)
def test_what_cannot_be_tuned_is_declined_with_the_reason(settings, reason):
    assert reason in tuned(**settings).supports(Echo(), Direct()).reason
