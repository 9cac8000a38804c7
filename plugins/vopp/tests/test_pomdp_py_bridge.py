"""Problems and planners cross to pomdp_py and back."""

import numpy as np
import pytest

pytest.importorskip("pomdp_py", reason="pomdp_py is an extra")
pytest.importorskip("numba", reason="tables are searched by the compiled backend")
import pomdp_py
from pomdp_py.problems.tiger.tiger_problem import TigerProblem

from sfumato_vopp import ModelError, RockSample, SearchConfig, Tiger
from sfumato_vopp.exact import bracket
from sfumato_vopp.pomdp_py_bridge import PomdpPyPlanner, from_pomdp_py, to_pomdp_py
from sfumato_vopp.tabular import tabulate

pytestmark = pytest.mark.optional


def tiger_agent():  # type: ignore[no-untyped-def]
    return TigerProblem.create("tiger-left", 0.5, 0.15).agent


def test_their_tiger_has_the_value_of_ours() -> None:
    theirs = bracket(tabulate(from_pomdp_py(tiger_agent(), discount=0.95)), gap=0.05, seconds=20)
    assert theirs.low <= 19.38 and theirs.high >= 19.36


def test_vopp_is_a_planner_of_theirs() -> None:
    agent = tiger_agent()
    planner = PomdpPyPlanner(agent, discount=0.95, config=SearchConfig(seconds=None, max_steps=60_000))
    action = planner.plan(agent)
    assert action.name == "listen"
    heard = next(o for o in planner.model.observations.things if o.name == "tiger-left")
    for _ in range(3):
        planner.update(agent, action, heard)
    assert planner.plan(agent).name == "open-right"
    with pytest.raises(ModelError, match="does not have"):
        planner.update(agent, action, "thunder")


def test_what_cannot_be_listed_is_sampled_and_says_that_it_is_slow() -> None:
    agent = to_pomdp_py(Tiger(), np.random.default_rng(0), 50)
    model = from_pomdp_py(agent, discount=0.95, reward_range=(-1.0, 10.0))
    assert model.is_slow_loop
    out = model.step(model.initial(20, np.random.default_rng(1)), np.zeros(20, np.int64), np.random.default_rng(2))
    assert set(out.rewards) == {-1.0}
    with pytest.raises(ModelError, match="reward_range"):
        from_pomdp_py(agent, discount=0.95)


def test_a_planner_of_theirs_runs_on_a_model_of_ours() -> None:
    agent = to_pomdp_py(RockSample(), np.random.default_rng(0), 100)
    uct = pomdp_py.POMCP(
        max_depth=10, discount_factor=0.95, num_sims=60, exploration_const=20, rollout_policy=agent.policy_model
    )
    assert 0 <= int(uct.plan(agent).name) < RockSample().n_actions


def test_probabilities_that_do_not_sum_to_one_are_refused() -> None:
    agent = tiger_agent()
    states = list(agent.transition_model.get_all_states())
    with pytest.raises(ModelError, match="sum to 1"):
        from_pomdp_py(agent, discount=0.95, states=states[:1])
