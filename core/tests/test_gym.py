"""Gymnasium both ways."""

from __future__ import annotations

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium", reason="needs the extra `gym`")

from gymnasium.utils.env_checker import check_env  # noqa: E402

from sfumato.context import RunContext  # noqa: E402
from sfumato.driver import drive  # noqa: E402
from sfumato.errors import ConfigError, ProtocolError  # noqa: E402
from sfumato.evaluators import Return  # noqa: E402
from sfumato.gym import GymConfig, GymTask, TaskEnv  # noqa: E402
from sfumato.protocols import Policy, Solver  # noqa: E402
from sfumato.runtimes import Direct  # noqa: E402
from sfumato_toys import shapes  # noqa: E402


class Random(Solver):
    """Draws actions from the space."""

    def solve(self, task, ctx):
        return RandomPolicy()


class RandomPolicy(Policy):
    def reset(self, start, rng):
        self.n, self.rng = start.public["action_space"].n, rng

    def act(self, observation):
        return int(self.rng.integers(self.n))


class Lean(Random):
    """Pushes the cart under the falling pole: a known good rule."""

    def solve(self, task, ctx):
        policy = RandomPolicy()
        policy.act = lambda seen: int(seen[2] + 0.3 * seen[3] > 0)
        return policy


def returns(solver, seed=0):
    ctx = RunContext(indices=range(10), seed=seed)
    rows = drive(GymTask(), solver, Direct(), {"r": Return()}, ctx).rows
    return [m["values"][0] for row in rows for m in row["metrics"] if m["name"] == "return"]


def test_an_environment_is_a_task_with_paired_instances():
    """CartPole: the rule balances far longer than chance, on the same starts, and a run repeats bit for bit."""
    assert np.mean(returns(Lean())) > 4 * np.mean(returns(Random()))
    assert returns(Random()) == returns(Random())
    assert returns(Random()) != returns(Random(), seed=1)


def test_an_action_outside_the_space_and_a_step_after_the_end_are_errors():
    """Gymnasium itself would go on."""
    ctx = RunContext()
    episode = GymTask().start(1, ctx, ctx.stream("world", 0))
    episode.reset()
    with pytest.raises(ValueError, match="expected an action in Discrete"):
        episode.step(7)
    while not episode.step(0).over:
        pass
    with pytest.raises(ProtocolError):
        episode.step(0)


def test_an_unknown_environment_is_explained():
    """With Gymnasium's own hint."""
    with pytest.raises(ConfigError, match="no Gymnasium environment 'CartPole-v99'"):
        GymTask(GymConfig(id="CartPole-v99"))


def test_a_task_is_an_environment_that_gymnasiums_checker_accepts():
    """Two reals seen, one real done."""
    box = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    env = TaskEnv(shapes.CartTask(), box, gymnasium.spaces.Box(-5, 5, (), np.float64))
    check_env(env, skip_render_check=True)


def test_an_environments_episodes_are_the_tasks():
    """The same item, seed and actions give the same observations on both sides; the step limit truncates."""
    task = shapes.CartTask()
    env = TaskEnv(task, gymnasium.spaces.Box(-9, 9, (2,)), gymnasium.spaces.Box(-5, 5, ()))
    first, _ = env.reset(seed=4)
    ctx = RunContext(seed=4)
    episode = task.start(next(iter(task.instances(ctx))), ctx, ctx.stream("world", 0))
    np.testing.assert_array_equal(first, episode.reset().observation)
    for t in range(40):
        seen, _, _, truncated, _ = env.step(0.5)
        np.testing.assert_array_equal(seen, episode.step(0.5).observation)
        assert truncated == (t == 39)


def test_a_batched_task_is_refused():
    """A batch is no single environment."""
    with pytest.raises(ProtocolError, match="batched"):
        TaskEnv(shapes.PickTask(), gymnasium.spaces.Discrete(2), gymnasium.spaces.Discrete(2))
