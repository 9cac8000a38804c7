"""The loop: streams, clocks, truth, limits, and components that break their promises."""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType

import numpy as np
import pytest

from sfumato.context import RunContext
from sfumato.driver import drive, run_episode
from sfumato.errors import ProtocolError
from sfumato.protocols import Episode, Policy, Solver, Task
from sfumato.records import Metric, Start, Step
from sfumato.runtimes import Direct
from sfumato_toys import faults, shapes


def fault(kind="none", **settings):
    return faults.FaultTask(faults.FaultConfig(fault=kind, **settings))


def play(task, solver=None, runtime=None, **options):
    ctx = RunContext(indices=range(1))
    solver = solver or faults.NoopSolver()
    instance = next(iter(task.instances(ctx)))
    return run_episode(task, solver.solve(task, ctx), runtime or Direct(), instance, ctx, **options)


def test_a_policy_that_draws_more_does_not_change_the_world():
    """Two policies say the same and differ in their appetite for randomness; the world draws in every step."""

    class Hungry(Policy):
        def __init__(self, appetite):
            self.appetite = appetite

        def reset(self, start, rng):
            self.rng = rng

        def act(self, observation):
            self.rng.random(self.appetite)
            return 0

    class HungrySolver(Solver):
        def __init__(self, appetite):
            self.appetite = appetite

        def solve(self, task, ctx):
            ctx.stream("train").random(self.appetite)
            return Hungry(self.appetite)

    class Dice(Episode):
        def __init__(self, rng):
            self.rng, self.t = rng, 0

        def reset(self):
            return Start(0)

        def step(self, action):
            self.t += 1
            return Step(0, self.rng.random(), self.t == 20)

    class DiceTask(Task):
        def instances(self, ctx):
            return (0 for _ in ctx.indices)

        def start(self, instance, ctx, rng):
            return Dice(rng)

    frugal, hungry = (play(DiceTask(), HungrySolver(n)).native.rewards.array() for n in (1, 1000))
    np.testing.assert_array_equal(frugal, hungry)
    assert len(set(frugal)) == 20


def test_what_solve_sees_is_not_what_is_scored():
    """A solver that plays the task while it trains meets other instances and other luck."""
    seen = []

    class Peeping(Solver):
        def solve(self, task, ctx):
            seen.extend(task.instances(ctx))
            seen.append(ctx.stream("world", 0).random())
            return faults.NoopPolicy(faults.NoopConfig())

    ctx = RunContext(indices=range(3))
    task = shapes.CartTask()
    drive(task, Peeping(), Direct(), {}, ctx, max_steps=1)
    scored = list(task.instances(ctx))
    assert not any(np.array_equal(a, b) for a in seen[:3] for b in scored)
    assert seen[3] != ctx.stream("world", 0).random()


def test_a_policy_cannot_rewrite_what_is_scored():
    """Neither the instance's arrays nor an action that it said before."""

    class Cheat(Solver):
        def solve(self, task, ctx):
            policy = shapes.BestPolicy()
            policy.act = lambda observation: observation.fill(0)
            return policy

    with pytest.raises(ValueError, match="read-only"):
        play(shapes.PickTask(), Cheat())

    class Editor(Policy):
        def reset(self, start, rng):
            self.said = {"x": 0}

        def act(self, observation):
            self.said["x"] += 1
            return self.said

    class EditorSolver(Solver):
        def solve(self, task, ctx):
            return Editor()

    assert list(play(fault(n_steps=3), EditorSolver()).native.actions) == [{"x": 1}, {"x": 2}, {"x": 3}]


class Batch(Episode):
    """Two items; `steps` are the (reward, terminated) of each step."""

    def __init__(self, steps):
        self.steps = iter(steps)

    def reset(self):
        return Start(0)

    def step(self, action):
        reward, terminated, *rest = next(self.steps)
        return Step(0, np.array(reward, float), np.array(terminated), np.zeros(2, bool), {}, *rest)


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([([1, 1], [True, False]), ([1, 1], [True, True])], "finished item 0 earned"),
        ([([1, 1], [True, False]), ([0, 1], [False, True])], "item 0 was finished and is alive again"),
        ([([1, 1], [True, False], True)], "over is True, but 1 of 2 items are finished"),
        ([([1], [True, False])], r"reward has shape \(1,\) and flags \(2,\)"),
        ([([1, np.inf], [True, False])], "expected a finite number"),
    ],
)
def test_a_batch_is_held_to_its_promises(steps, message):
    """Finished items stay finished and earn nothing, and `over` says so truly."""

    class BatchTask(Task):
        batched = True

        def instances(self, ctx):
            yield 0

        def start(self, instance, ctx, rng):
            return Batch(steps)

    with pytest.raises(ProtocolError, match=message):
        play(BatchTask())


def test_a_step_limit_never_lengthens_a_tasks_own_horizon():
    """The smaller of the two holds."""
    assert len(play(shapes.CartTask(), shapes.ControllerSolver(), max_steps=1000).actions) == 40
    assert len(play(shapes.CartTask(), shapes.ControllerSolver(), max_steps=7).actions) == 7


def test_instances_do_not_depend_on_the_solver_or_the_shard():
    """Instance 5 is instance 5, whether it is asked for alone or among others."""
    task = shapes.CartTask()
    alone = next(iter(task.instances(RunContext(indices=range(5, 6), seed=1))))
    among = list(task.instances(RunContext(indices=range(9), seed=1)))[5]
    np.testing.assert_array_equal(alone, among)


def test_a_policy_cannot_reach_the_truth():
    """Nothing handed to the policy leads to the episode: not the start, not a step, not the session's truth."""
    seen = []

    class Spy(Policy):
        def reset(self, start, rng):
            seen.append(start)

        def act(self, observation):
            return 1

        def observe(self, step):
            seen.append(step)

    class SpySolver(Solver):
        def solve(self, task, ctx):
            return Spy()

    class Nosy:
        """A runtime that asks the episode it wraps for the truth."""

        def open(self, episode, ctx):
            self.truth = episode.truth()
            return Direct().open(episode, ctx)

    nosy = Nosy()
    trace = play(shapes.CoinTask(), SpySolver(), nosy)
    assert trace.truth is not None
    assert nosy.truth is None
    reachable, frontier = set(), list(seen)
    while frontier:
        thing = frontier.pop()
        if id(thing) in reachable or isinstance(thing, (type, FunctionType, ModuleType)):
            continue
        reachable.add(id(thing))
        frontier.append(getattr(thing, "__self__", None))  # a bound method leads to its object
        assert not isinstance(thing, Episode), f"a policy can reach {thing!r}"
        frontier.extend(gc.get_referents(thing))


def test_time_spent_in_reset_and_observe_is_counted_as_deciding():
    """A solver that thinks outside `act` gains nothing by it."""
    config = faults.NoopConfig(reset_seconds=0.05, observe_seconds=0.02)
    trace = play(fault(n_steps=3), faults.NoopSolver(config))
    assert trace.clocks.wall["reset"] >= 0.05
    assert trace.clocks.wall["observe"] >= 0.06
    assert trace.clocks.decision_seconds >= 0.11
    assert trace.clocks.decision_cpu_seconds < trace.clocks.decision_seconds


def test_a_nan_reward_names_task_instance_and_step():
    """A reward that is no number stops the run with the step it came from."""
    with pytest.raises(ProtocolError, match=r"FaultTask, instance 0: the reward of step 1 is nan"):
        play(fault("nan-reward"))


def test_an_episode_that_never_ends_is_cut_at_the_limit_and_the_trace_says_so():
    """A limit truncates, and the policy sees the truncated step."""
    trace = play(fault("endless"), max_steps=25)
    assert len(trace.actions) == 25
    assert trace.step_limit_reached


def test_an_episode_without_any_limit_is_an_error(monkeypatch):
    """A task that declares no limit and does not end is a defect, not a result."""
    monkeypatch.setattr("sfumato.driver.MAX_STEPS", 100)
    with pytest.raises(ProtocolError, match="did not end within 100 steps. Set a limit with --step-limit"):
        play(fault("endless"))


def test_an_action_outside_the_space_is_the_tasks_error():
    """The task says what it expected and what it got."""

    class Wild(Solver):
        def solve(self, task, ctx):
            return shapes.FixedArm(99)

    with pytest.raises(ValueError, match="expected indices 0 to 9"):
        play(shapes.PickTask(), Wild())


def test_a_task_that_yields_too_few_instances_is_found_out():
    """Every index gets exactly one instance."""
    with pytest.raises(ProtocolError, match="yielded 1 instances, expected 3"):
        drive(fault("too-few"), faults.NoopSolver(), Direct(), {}, RunContext(indices=range(3)))


def test_a_step_after_the_end_is_an_error():
    """The recorder holds runtimes to it."""

    class Pushy:
        def open(self, episode, ctx):
            return Direct().open(PushyEpisode(episode), ctx)

    class PushyEpisode(Episode):
        def __init__(self, inner):
            self.inner = inner

        def reset(self):
            return self.inner.reset()

        def step(self, action):
            for _ in range(4):
                step = self.inner.step(action)
            return step

    with pytest.raises(ProtocolError, match="step was called after the episode was over"):
        play(fault(n_steps=3), runtime=Pushy())


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.zeros(3), "has shape \\(3,\\); expected a number, or one for each of the 2 items"), (np.zeros((2, 2)), "shape")],
)
def test_a_metric_of_the_wrong_shape_is_refused(value, message):
    """A batched metric has one value an item."""

    class Bad(shapes.PickEvaluator):
        def score(self, instance, trace):
            yield Metric("bad", value)

    with pytest.raises(ProtocolError, match=message):
        drive(shapes.PickTask(), shapes.BestSolver(), Direct(), {"bad": Bad()}, RunContext(indices=range(2)))


def test_two_evaluators_may_not_give_one_name():
    """A table with two columns of one name would hide one of them."""
    pair = {"a": shapes.PickEvaluator(), "b": shapes.PickEvaluator()}
    with pytest.raises(ProtocolError, match="two evaluators gave a metric named 'gap'"):
        drive(shapes.PickTask(), shapes.BestSolver(), Direct(), pair, RunContext(indices=range(2)))


def test_what_a_component_returns_is_checked():
    """An episode that returns a tuple as in Gymnasium is told what was expected."""

    class Tuples(Episode):
        def reset(self):
            return Start(0)

        def step(self, action):
            return 0, 0.0, True, False, {}

    class TupleTask(Task):
        def instances(self, ctx):
            yield 0

        def start(self, instance, ctx, rng):
            return Tuples()

    with pytest.raises(ProtocolError, match="step must return a Step, got tuple"):
        play(TupleTask())


def test_full_level_records_observations_infos_and_notes():
    """Level `full` keeps what the agent saw and claimed, step by step."""
    trace = play(shapes.CoinTask(), shapes.BeliefSolver(), level="full")
    assert len(trace.native.observations) == len(trace.native) + 1
    assert len(trace.native.infos) == len(trace.native)
    assert play(shapes.CoinTask(), shapes.BeliefSolver()).native.observations is None


def test_over_is_true_when_every_item_is_finished():
    """Gymnasium's five fields and one more."""
    assert Step(0, 0.0, True).over
    assert not Step(0, 0.0, False).over
    assert not Step(0, np.zeros(2), np.array([True, False]), np.array([False, False])).over
    assert Step(0, np.zeros(2), np.array([True, False]), np.array([False, True])).over
