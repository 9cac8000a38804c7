"""Models made from a user's simulator."""

import numpy as np
import pytest

from sfumato_vopp import VOPP, ModelError, ParticleFilter, SearchConfig, check_model
from sfumato_vopp.adapters import ContinuousModel, ScalarSimulator


def corridor(**options) -> ScalarSimulator:  # type: ignore[no-untyped-def]
    """Walk right to the end of a corridor of five cells; going left costs the same and leads nowhere."""

    def step(state, action, rng):  # type: ignore[no-untyped-def]
        x = state[0] + (1 if action == 1 else -1)
        return np.array([max(0.0, x)]), int(x >= 3), (10.0 if x >= 5 else -1.0), bool(x >= 5)

    return ScalarSimulator(
        initial=lambda rng: np.array([float(rng.integers(0, 2))]), step=step,
        log_likelihood=lambda o, s, a, t: 0.0 if int(t[0] >= 3) == o else -np.inf,
        n_actions=2, state_width=1, reward_range=(-1.0, 10.0), n_observations=2, **options,
    )  # fmt: skip


def test_a_simulator_of_one_state_can_be_planned_with(rng) -> None:  # type: ignore[no-untyped-def]
    model = corridor()
    check_model(model, rng)
    planner = VOPP(model, SearchConfig(seconds=None, max_episodes=600, n_episodes=100, depth_factor=3), rng)
    assert planner.plan(model.initial(50, rng)).action == 1


def test_the_number_of_threads_changes_nothing() -> None:
    def plan(n_threads: int):  # type: ignore[no-untyped-def]
        model = corridor(n_threads=n_threads, chunk=16)
        planner = VOPP(model, SearchConfig(seconds=None, max_episodes=200, n_episodes=50), np.random.default_rng(4))
        return planner.plan(np.zeros((10, 1)))

    np.testing.assert_array_equal(plan(1).preferences, plan(3).preferences)


class Beacon(ContinuousModel):
    """A point on a line hears its distance to a beacon at 0 with noise of 0.1; action 0 stops, which pays near 0."""

    n_actions, discount, state_width, state_dtype = 3, 0.95, 1, np.float64
    reward_range = (-1.0, 10.0)
    cell = (0.5,)

    def initial(self, n, rng):  # type: ignore[no-untyped-def]
        return rng.uniform(-3, 3, (n, 1))

    def step_continuous(self, states, actions, rng):  # type: ignore[no-untyped-def]
        x = states[:, 0] + np.where(actions == 1, 1.0, np.where(actions == 2, -1.0, 0.0))
        stop = actions == 0
        reward = np.where(stop, np.where(np.abs(x) < 0.6, 10.0, -10.0), -1.0)
        return x[:, None], (x + 0.1 * rng.standard_normal(len(x)))[:, None], reward, stop

    def log_density(self, reading, states, action, next_states):  # type: ignore[no-untyped-def]
        return -0.5 * ((reading[0] - next_states[:, 0]) / 0.1) ** 2


def test_real_readings_are_put_into_cells_by_the_library(rng) -> None:  # type: ignore[no-untyped-def]
    model = Beacon()
    check_model(model, rng)
    assert len(set(model.encode(np.array([[0.1], [0.4], [0.6], [-0.1]])).tolist())) == 3
    belief = ParticleFilter(model, 4000, rng)
    updated = belief.update(1, model.remember(np.array([2.0])))
    assert np.average(updated.particles[:, 0], weights=updated.weights) == pytest.approx(2.0, abs=0.05)
    planner = VOPP(model, SearchConfig(seconds=None, max_episodes=20_000, n_episodes=1000, depth_factor=2), rng)
    assert planner.plan(updated).action == 2
    at_goal = ParticleFilter(model, 4000, rng).update(2, model.remember(np.array([0.0])))
    assert planner.plan(at_goal).action == 0


def test_a_reading_that_is_no_number_is_refused() -> None:
    with pytest.raises(ModelError, match="finite readings"):
        Beacon().encode(np.array([[np.nan]]))
    with pytest.raises(ModelError, match="widen"):
        Beacon().encode(np.array([[1e30]]))


class Lidar(ContinuousModel):
    """A robot in one of two rooms, 4 m and 8 m wide, hears eight noisy ranges; it is paid for naming the right room."""

    n_actions, discount, state_width, state_dtype = 3, 0.95, 2, np.float64  # look, small, large
    reward_range = (-1.0, 10.0)
    cell = None
    n_cells = 8

    def initial(self, n, rng):  # type: ignore[no-untyped-def]
        return np.column_stack([rng.integers(0, 2, n), rng.uniform(0.2, 0.8, n)])

    def ranges(self, states):  # type: ignore[no-untyped-def]
        width = np.where(states[:, 0] > 0, 8.0, 4.0)[:, None]
        return width * np.abs(np.linspace(0, 1, 8)[None] - states[:, 1:])

    def step_continuous(self, states, actions, rng):  # type: ignore[no-untyped-def]
        named = actions > 0
        right = states[:, 0] == actions - 1
        reward = np.where(named, np.where(right, 10.0, -50.0), -1.0)
        return states, self.ranges(states) + 0.8 * rng.standard_normal((len(states), 8)), reward, named

    def log_density(self, reading, states, action, next_states):  # type: ignore[no-untyped-def]
        return -0.5 * (((reading - self.ranges(next_states)) / 0.8) ** 2).sum(axis=1)


def test_cells_of_a_lidar_are_made_by_the_library_and_looking_pays(rng) -> None:  # type: ignore[no-untyped-def]
    model = Lidar()
    check_model(model, rng)
    states = model.initial(4000, rng)
    codes = model.encode(model.step_continuous(states, np.zeros(4000, np.int64), rng)[1])
    share = np.bincount(codes, minlength=8) / 4000
    assert len(share) == 8 and share.min() > 0.06, "about equal probability"
    planner = VOPP(model, SearchConfig(seconds=None, max_episodes=20_000, n_episodes=1000, depth_factor=3), rng)
    decision = planner.plan(states)
    assert decision.action == 0 and decision.stats.n_beliefs < 5000
    belief = ParticleFilter(model, 4000, rng)
    for _ in range(3):
        belief.update(0, model.remember(model.ranges(np.array([[1.0, 0.5]]))[0]))
    assert planner.plan(belief.belief).action == 2


def test_a_grid_over_eight_ranges_would_never_see_a_cell_twice(rng) -> None:  # type: ignore[no-untyped-def]
    class Grid(Lidar):
        cell = (0.3,) * 8

    model = Grid()
    states = model.initial(500, rng)
    assert len(np.unique(model.encode(model.step_continuous(states, np.zeros(500, np.int64), rng)[1]))) > 495
