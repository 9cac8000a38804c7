"""The sequential oracle."""

import numpy as np
import pytest

from sfumato_vopp import PORPP, VOPP, PORPPConfig, SearchConfig, Tiger
from sfumato_vopp.porpp import PORPPTree
from sfumato_vopp.tabular import TabularModel


def test_one_action_with_a_sure_end_is_worth_what_it_pays() -> None:
    model = TabularModel(
        np.array([[[0.0, 1.0], [0.0, 1.0]]]), np.ones((1, 2, 1)), np.full((1, 2), 3.5), np.array([1.0, 0.0]), 0.9,
        np.array([False, True]),
    )  # fmt: skip
    tree = PORPPTree(model, PORPPConfig(), 1.0)
    tree.begin(np.zeros((1, 1), np.int64), None, 0)
    tree.iterate(0, 10, 0, 3)
    psi, visits, q, value = tree.root()
    assert q[0] == value == psi[0] == 3.5 and visits[0] == 10


def test_the_sequential_method_plays_tiger() -> None:
    planner = PORPP(Tiger(), PORPPConfig(seconds=None, max_episodes=4000, max_depth=4, eta=0.3, k_a=3.0))
    assert planner.plan(np.array([[0], [1]])).action == 0
    assert planner.plan((np.array([[0], [1]]), np.array([0.99, 0.01]))).action == 2


def test_vopp_with_one_episode_an_iteration_agrees_with_the_oracle() -> None:
    # The same formulas in another order of visits. Two steps of Tiger are worth -1 - 0.95 by listening twice.
    model, belief = Tiger(), np.array([[0], [1]])
    for seed in range(3):
        rng = np.random.default_rng(seed)
        vopp = VOPP(
            model,
            SearchConfig(
                seconds=None, max_episodes=3000, n_episodes=1, eta=0.1, max_depth=2, depth_power=0, depth_factor=2,
                log_sum="children", initial_preference="constant",
            ),
            rng, backend="numba",
        )  # fmt: skip
        porpp = PORPP(model, PORPPConfig(seconds=None, max_episodes=3000, max_depth=2, eta=0.1, k_a=3.0), rng)
        for decision in (vopp.plan(belief), porpp.plan(belief)):
            assert decision.action == 0
            assert decision.values[0] == pytest.approx(-1.95, abs=0.4)
