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


def test_each_environment_has_weights_of_its_own(tmp_path):
    """The same name with other settings is another environment; the same settings again load what is there."""
    from click.testing import CliRunner

    from sfumato.cli import cli

    for slippery, trained in (("true", 1), ("false", 2), ("true", 2)):
        words = ["run", "gym/env", "-t", "id=FrozenLake-v1", "-t", f"kwargs={{is_slippery={slippery}}}", "--solver", "sb3/ppo"]
        words += ["-s", "total_steps=512", "-s", "n_steps=256", "--seeds", "1", "--store", str(tmp_path), "--isolation", "none"]
        done = CliRunner().invoke(cli, words)
        assert done.exit_code == 0, done.output
        assert len(list(tmp_path.rglob("ppo.zip"))) == trained


@pytest.mark.parametrize("promise", PROMISES)
def test_the_plugin_keeps_its_promises(promise):
    """As `sfumato check sb3`."""
    assert check("sb3", [promise]) == []
