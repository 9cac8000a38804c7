"""The ladder of reference policies, played natively."""

import numpy as np
import pytest

from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE, generate, level_named
from sfumato_opaque_knapsack.ladder import LADDER, Answer, play
from sfumato_opaque_knapsack.prompts import public_part
from sfumato_opaque_knapsack.world import BadToolCall, ToolFailure, World

# Mean score in per cent over 1,000 instances, from an independent implementation of the same policies.
REFERENCE = {
    "easy": {"dp-known": 89.3, "dp": 89.0, "greedy": 88.0, "inspect-10": 45.3, "oracle-greedy": 98.3},
    "hard": {"dp-known": 85.3, "dp": 85.3, "greedy": 84.9, "inspect-10": 13.3, "oracle-greedy": 99.3},
}


def play_natively(policy, instance, level, seed):
    world = World(instance)

    def call(tool, arguments):
        try:
            return Answer(True, world.call(tool, arguments))
        except (BadToolCall, ToolFailure) as error:
            return Answer(False, None, str(error))

    play(
        LADDER[policy](
            public_part(instance, reveal_allowed=True, reveal_items=True), np.random.default_rng(seed)
        ),
        call,
    )
    return world.outcome()


@pytest.mark.parametrize("policy", list(LADDER))
@pytest.mark.parametrize("name", ["easy", "hard"])
def test_a_policy_scores_what_the_reference_design_found(name, policy):
    """Within 1.5 points plus three standard errors on a part of the 1,000; the full run is a claim."""
    level, n = level_named(name), 300 if name == "easy" else 100
    outcomes = [play_natively(policy, generate(level, EVAL_SEED_BASE + k), level, k) for k in range(n)]
    scores = np.array([outcome.score for outcome in outcomes])
    assert all(outcome.finished for outcome in outcomes)
    slack = 1.5 + 300 * scores.std() / np.sqrt(n)
    assert 100 * scores.mean() == pytest.approx(REFERENCE[name][policy], abs=slack)


def test_more_knowledge_never_lowers_the_mean():
    """The ladder is ordered: ten inspections < greedy < full information."""
    level = level_named("micro")
    mean = {
        policy: np.mean([play_natively(policy, generate(level, k), level, k).score for k in range(200)])
        for policy in ("greedy", "dp", "oracle-greedy")
    }
    assert mean["greedy"] <= mean["dp"] + 0.01 < mean["oracle-greedy"]
