"""The model against Gymnasium's own physics, the sensors, the filter, and the whole way through the runner."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from sfumato_crossings.cartpole import CartPoleModel, HiddenCartPole, advance
from sfumato_crossings.config import CartPoleConfig

from sfumato.context import RunContext
from sfumato_vopp.model import check_model


def rollout(seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return states [n+1, 4] and actions [n] of Gymnasium's CartPole under random pushes."""
    env = gymnasium.make("CartPole-v1").unwrapped
    env.reset(seed=seed)
    actions = np.random.default_rng(seed).integers(0, 2, n)
    states = [env.state]
    for action in actions:
        env.step(int(action))
        states.append(env.state)
    return np.array(states, float), actions


@pytest.mark.parametrize("seed", range(5))
def test_the_model_moves_as_gymnasium_does(seed):
    """The same pushes give the same states, to rounding."""
    states, actions = rollout(seed, 10)
    np.testing.assert_allclose(advance(states[:-1], np.where(actions == 1, 10.0, -10.0)), states[1:], atol=1e-12)


def test_the_compiled_model_is_the_batched_one():
    """Scalar and batched forms agree on states, marks, falls and hints."""
    kernels = pytest.importorskip("sfumato_crossings.cartpole_numba", reason="numba is not installed")
    model = CartPoleModel(CartPoleConfig())
    rng = np.random.default_rng(0)
    before = rng.uniform(-1, 1, (200, 4)) * [2.5, 2, 0.25, 2]
    actions = rng.integers(0, 2, 200)
    batch = model.step(before, actions, None)
    scalar, floats = before.copy(), model.compiled().floats
    for i, action in enumerate(actions):
        marks, reward, down = kernels.step(scalar, i, action, None, None, floats)
        assert (marks, reward, down) == (batch.observations[i], 1.0, batch.terminal[i])
        assert kernels.hint(scalar, i, action, None, floats) == pytest.approx(model.value_hint(batch.states, actions)[i])
        likelihood = model.log_likelihood(int(batch.observations[0]), before, 0, batch.states)[i]
        assert kernels.log_likelihood(batch.observations[0], before, i, 0, scalar, i, None, floats) == pytest.approx(likelihood)
    np.testing.assert_allclose(scalar, batch.states, atol=1e-12)


def test_the_model_keeps_the_planners_contract():
    """vopp's own check of a user's model passes."""
    check_model(CartPoleModel(CartPoleConfig()), np.random.default_rng(0))


def test_the_filter_finds_the_hidden_velocities():
    """After fifteen readings the spin is known far better than a guess, though it was never seen."""
    config = CartPoleConfig()
    model = CartPoleModel(config)
    states, actions = rollout(3, 15)
    marks = [config.position_mark, config.angle_mark]
    seen = np.rint(states[:, [0, 2]] / marks) * marks
    kept = model.make_filter(2000, np.random.default_rng(0), seen[0])
    for action, reading in zip(actions, seen[1:], strict=True):
        kept.update(int(action), reading)
    error = abs(kept.belief.particles[:, 3].mean() - states[-1, 3])
    assert error < 0.15 < abs(states[:, 3]).max()


def test_nothing_hidden_is_shown():
    """The observation is two rounded numbers; with hidden = false it is Gymnasium's four."""
    ctx = RunContext(seed=0, indices=range(1))
    for hidden, size in ((True, 2), (False, 4)):
        task = HiddenCartPole(CartPoleConfig(hidden=hidden))
        start = task.start(next(iter(task.instances(ctx))), ctx, ctx.stream("world", 0)).reset()
        assert start.observation.shape == (size,)
        assert ("pomdp_model" in start.public) == hidden == ("pomdp_model" in task.offers)
