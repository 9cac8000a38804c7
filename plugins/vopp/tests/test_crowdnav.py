"""CrowdNav: the hall, the planner's view of it, and what is learnt about people."""

import numpy as np
import pytest

pytest.importorskip("numba", reason="CrowdNav is compiled")
from sfumato_vopp import check_model
from sfumato_vopp.models.crowdnav import YELL, CrowdFilter, CrowdNav, CrowdWorld


def test_the_planner_s_view_moves_people_as_the_world_does(rng) -> None:  # type: ignore[no-untyped-def]
    model = CrowdNav()
    check_model(model, rng)
    state = np.full((20_000, 20), 30.0)
    state[:, :2] = (10.0, 0.0)
    for k in range(6):
        state[:, 2 + 3 * k : 5 + 3 * k] = (10.0, 2.0 + k, k % 2)
    moved = model.step(state, np.full(20_000, 1), rng).states
    gone = moved[:, 3::3].mean(axis=0) - (2.0 + np.arange(6))
    # Within 4 m (k = 0, 1, 2): shy +0.8·0.9, curious -0.3·0.9; beyond nothing but jitter.
    np.testing.assert_allclose(gone, [0.72, -0.27, 0.72, 0, 0, 0], atol=0.02)
    yelled = model.step(state, np.full(20_000, YELL), rng)
    np.testing.assert_allclose(yelled.states[:, 3::3].mean(axis=0) - (2.0 + np.arange(6)), [2, 2, 2, 0, 0, 0], atol=0.02)
    assert np.all(yelled.rewards == -26)


def test_the_far_end_pays_and_ends() -> None:
    model = CrowdNav()
    state = np.full((1, 20), 0.0)
    state[0, :2] = (49.5, 0.0)
    out = model.step(state, np.array([0]), np.random.default_rng(0))
    assert out.terminal[0] and out.rewards[0] == 999


def test_one_who_comes_nearer_is_curious(rng) -> None:  # type: ignore[no-untyped-def]
    world = CrowdWorld(rng, 20)
    world.people[:] = [[30.0, 10.0]]
    world.people[0] = (3.0, 0.0)
    belief = CrowdFilter(CrowdNav(), 5000, rng, world.observe())
    assert belief.belief.particles[:, 4].mean() == pytest.approx(0.5, abs=0.03)
    seen = world.observe()
    seen[3] -= 0.3
    updated = belief.update(1, seen)
    assert updated.particles[:, 4].mean() == pytest.approx(0.77, abs=0.03)
    seen[3] += 0.8
    assert belief.update(1, seen).particles[:, 4].mean() == pytest.approx(0.5, abs=0.03)


def test_the_world_is_crossed_by_walking(rng) -> None:  # type: ignore[no-untyped-def]
    world = CrowdWorld(rng, 6)
    world.people[:] = (25.0, 19.0)
    rewards = []
    for _ in range(60):
        _, reward, done = world.step(0)
        rewards.append(reward)
        if done:
            break
    assert done and len(rewards) == 49 and rewards[-1] >= 799
