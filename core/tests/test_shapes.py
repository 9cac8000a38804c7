"""Six unlike shapes of problem go through one driver which does not know them apart."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato.context import ArtifactStore, RunContext
from sfumato.driver import drive, run_episode
from sfumato.errors import UsageError
from sfumato.evaluators import Return
from sfumato.runtimes import Direct
from sfumato_toys import faults, shapes


def values(result, name):
    return [v for row in result.rows for m in row["metrics"] if m["name"] == name for v in m["values"]]


def run(task, solver, runtime=None, n=4, evaluators=None, **options):
    ctx_options = {k: options.pop(k) for k in ("seed", "batch_size", "train_seed", "artifacts", "indices") if k in options}
    ctx = RunContext(**{"indices": range(n), **ctx_options})
    every = {"return": Return(), **(evaluators or {})}
    return drive(task, solver, runtime or Direct(), every, ctx, **options)


def test_a_batch_of_one_shot_instances_is_an_episode_of_one_step():
    """(a) Every item is solved at once, and the evaluator recomputes the gap per item."""
    result = run(shapes.PickTask(), shapes.BestSolver(), n=128, evaluators={"gap": shapes.PickEvaluator()})
    assert len(result.rows) == 1
    assert result.rows[0]["steps"] == 1
    assert values(result, "gap") == [0.0] * 128


def test_a_thousand_seeds_of_a_bandit_are_one_episode():
    """(b) An online learner over a stream, with a leading axis of 1,000 seeds."""
    result = run(shapes.BanditTask(), shapes.GreedySolver(), n=1000)
    returns = np.array(values(result, "return"))
    assert returns.shape == (1000,)
    assert 0.45 * 50 < returns.mean() < 50


def test_finished_items_of_a_batch_are_frozen_and_earn_nothing():
    """Items end after 1 to 50 rounds; the episode is over when the last one is, and nothing is reset."""
    config = shapes.BanditConfig(n_rounds=50, stop_early=True)
    result = run(shapes.BanditTask(config), shapes.GreedySolver(), n=50)
    assert values(result, "length") == [1 + k for k in range(50)]
    assert all(r <= n for r, n in zip(values(result, "return"), values(result, "length"), strict=True))


@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_an_items_world_does_not_depend_on_the_batch_it_is_in(batch_size):
    """A policy that always plays one arm earns the same in any company."""
    whole = values(run(shapes.BanditTask(), FixedArmSolver(), n=20), "return")
    parts = values(run(shapes.BanditTask(), FixedArmSolver(), n=20, batch_size=batch_size), "return")
    assert parts == whole


class FixedArmSolver(shapes.Solver):
    def solve(self, task, ctx):
        return shapes.FixedArm(2)


def test_a_planner_gets_the_tasks_model_and_keeps_a_belief():
    """(c) The model comes in `public`; the truth goes to the evaluator alone; notes are kept as claims."""
    ctx = RunContext(indices=range(20))
    task, policy = shapes.CoinTask(), shapes.BeliefSolver().solve(shapes.CoinTask(), ctx)
    right = []
    for k, coin in enumerate(task.instances(ctx)):
        trace = run_episode(task, policy, Direct(), coin, ctx, (k,))
        assert trace.truth == {"coin": coin}
        assert set(trace.notes) == {"belief"}
        right.append(trace.native.actions[-1] - 1 == coin)
    assert np.mean(right) >= 0.8


def test_a_controller_ticks_slower_than_its_plant():
    """(d) Forty decisions, four hundred ticks of the world."""
    ctx = RunContext(indices=range(1))
    task = shapes.CartTask()
    instance = next(iter(task.instances(ctx)))
    trace = run_episode(task, shapes.ControllerSolver().solve(task, ctx), Direct(), instance, ctx)
    assert len(trace.actions) == 40
    assert len(trace.truth["path"]) == 400
    assert trace.step_limit_reached
    assert abs(trace.truth["path"][-1]) < abs(instance[0])


@pytest.mark.parametrize(("runtime", "steps", "failed"), [(shapes.Remembering(), 2, 0), (shapes.Forgetting(), 3, 1)])
def test_an_agent_writes_code_under_two_runtimes(runtime, steps, failed):
    """(e) What the policy says is code, what reaches the task are tool calls, what the runtime saw is in the truth."""
    ctx = RunContext(indices=range(1))
    task = shapes.ToolTask()
    trace = run_episode(task, shapes.CoderSolver().solve(task, ctx), runtime, 42, ctx)
    assert len(trace.actions) == steps
    assert all(isinstance(code, str) for code in trace.actions)
    assert [call["tool"] for call in trace.native.actions] == ["look"] + ["look"] * failed + ["answer"]
    assert sum(not seen["ok"] for seen in trace.truth["runtime"]["actions"]) == failed
    assert sum(trace.native.rewards) == 1.0


def test_a_solver_trains_first_and_may_refuse(tmp_path):
    """(f) Training writes an artifact under a seed of its own; a task that does not fit is declined with a reason."""
    solver = shapes.TrainedSolver()
    assert solver.supports(shapes.CoinTask(), Direct()).reason
    assert solver.supports(shapes.BanditTask(), Direct()) is None
    store = ArtifactStore(tmp_path)
    arms = {
        train_seed: run(shapes.BanditTask(), solver, train_seed=train_seed, artifacts=store).digest
        for train_seed in range(8)
    }
    assert len(set(arms.values())) > 1, "the train seed changes what is learnt"
    again = run(shapes.BanditTask(), solver, train_seed=3, artifacts=store).digest
    assert again == arms[3]


@pytest.mark.parametrize("shape", ["coin", "cart", "tools"])
@pytest.mark.parametrize("concurrency", [2, 5])
def test_results_do_not_depend_on_how_many_episodes_run_together(shape, concurrency):
    """A policy keeps an episode's things where `spawn` does not share them."""
    task, solver, runtime = {
        "coin": (shapes.CoinTask(), shapes.BeliefSolver(), Direct()),
        "cart": (shapes.CartTask(), shapes.ControllerSolver(), Direct()),
        "tools": (shapes.ToolTask(), shapes.CoderSolver(), shapes.Forgetting()),
    }[shape]
    one = run(task, solver, runtime, n=12)
    many = run(task, solver, runtime, n=12, concurrency=concurrency)
    assert many.digest == one.digest
    assert values(many, "return") == values(one, "return")
    assert [row["items"] for row in many.rows] == [row["items"] for row in one.rows]


def test_a_solver_that_learns_across_episodes_is_not_run_in_lanes():
    """Concurrency would change what it learns, so it is refused, not silently serialised."""
    solver = faults.NoopSolver()
    solver.carries_over = True
    with pytest.raises(UsageError, match="learns across episodes"):
        run(faults.FaultTask(), solver, concurrency=2)
