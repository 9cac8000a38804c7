"""PPO learns, and the plugin keeps its promises."""

import numpy as np
import pytest
from sfumato_sb3.solvers import PPOSolver, RandomSolver
from sfumato_sb3.tasks import CartPole

from sfumato.context import ArtifactStore, RunContext
from sfumato.driver import drive
from sfumato.evaluators import Return
from sfumato.runtimes import Direct
from sfumato.testing import PROMISES, check


def mean_return(solver, folder):
    ctx = RunContext(indices=range(10), artifacts=ArtifactStore(folder))
    rows = drive(CartPole(), solver, Direct(), {"r": Return()}, ctx).rows
    return np.mean([m["values"][0] for row in rows for m in row["metrics"] if m["name"] == "return"])


def test_ppo_balances_ten_times_as_long_as_chance(tmp_path):
    """About 20 steps by chance; trained, most of 500."""
    assert mean_return(PPOSolver(), tmp_path) > 10 * mean_return(RandomSolver(), tmp_path)


@pytest.mark.parametrize("promise", PROMISES)
def test_the_plugin_keeps_its_promises(promise):
    """As `sfumato check sb3`."""
    assert check("sb3", [promise]) == []
