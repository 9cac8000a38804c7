"""Replays: kept promises, broken ones, and those of which nothing can be said."""

from __future__ import annotations

import json
import threading
from itertools import product

import numpy as np
import pytest

from sfumato.errors import UsageError
from sfumato.executors.local import LocalExecutor
from sfumato.replay import replay, sign_flip_test
from sfumato.runner import plan, sweep


@pytest.fixture
def made(store, make_jobs, listener, tmp_path):
    """Make one run; return what its replay finds."""

    def make(task="toys/echo", solver="toys/noisy", *, before=lambda: None, seeds=20, **solver_settings):
        (job,) = make_jobs(task, solver, solver_settings=solver_settings, seeds=seeds)
        sweep(store, plan(store, [job]), LocalExecutor(1, "none"), listener, threading.Event())
        before()
        scratch = tmp_path / f"replay {job.run_id}"
        scratch.mkdir()
        return replay(store, job.run_id, scratch)

    return make


def test_bits_come_out_again(made):
    """In another process than the first time."""
    result = made("toys/coin", "toys/belief")
    assert result.kept is True
    assert result.promise == "bits"
    assert "digest" in result.found
    assert result.warnings == ()


def test_a_broken_promise_of_bits_is_shown_with_episode_and_step(made):
    """The solver draws from the operating system and promises bits all the same."""
    result = made(noise=1e-9, seeds=3)
    assert result.kept is False
    assert "3 of 3 episodes differ" in result.found
    assert "episode 0: actions differs at step 0" in result.differences[0]


def test_a_tolerance_is_kept_by_what_is_close_and_broken_by_what_is_not(made):
    """Relative 1e-4."""
    close, far = made(promise="tolerance", noise=1e-6, seeds=3), made(promise="tolerance", noise=1e-2, seeds=3)
    assert close.kept is True
    assert "largest relative difference" in close.found
    assert far.kept is False
    assert any("return was" in line for line in far.differences)
    assert any("native.rewards differs at step" in line for line in far.differences)


def test_a_statistical_promise_allows_noise_and_finds_drift(made, tmp_path):
    """Twenty episodes: their mean must not have moved."""
    assert made(promise="statistical", noise=0.5).kept is True
    drift = tmp_path / "drift"
    moved = made(promise="statistical", noise=0.5, drift_file=str(drift), before=drift.touch)
    assert moved.kept is False
    assert "return: mean difference" in moved.differences[0]


def test_too_few_episodes_leave_a_statistical_promise_undecided(made):
    """Five signs cannot show anything at one in a thousand."""
    result = made(promise="statistical", noise=0.5, seeds=5)
    assert result.kept is None
    assert "5 of 5 items differ, too few" in result.differences[0]


def test_a_failed_run_is_not_replayed(made):
    """There is nothing to compare with."""
    with pytest.raises(UsageError, match="only a run that ended ok"):
        made("toys/coin", "toys/best")


def test_the_sign_flip_test_counts_exactly():
    """Against counting all signs one by one; and at both ends."""
    gap = np.array([0.3, -1.0, 2.0, 0.7, 0.0, 1.1])
    moved = gap[gap != 0]
    sums = [abs(np.dot(signs, moved)) for signs in product((-1, 1), repeat=5)]
    assert sign_flip_test(gap) == np.mean([s >= abs(moved.sum()) - 1e-9 for s in sums])
    assert sign_flip_test(np.zeros(9)) == 1.0
    assert sign_flip_test(np.ones(10)) == 2 / 2**10
    assert sign_flip_test(np.ones(100)) == 1 / 20_001
    assert sign_flip_test(np.array([1.0, np.nan])) == 0.0


def test_the_level_of_the_sign_flip_test_holds():
    """At 5 %, about one of twenty samples without any shift is rejected: 400 samples, bounds at 4 standard errors."""
    rng = np.random.default_rng(0)
    rejected = sum(sign_flip_test(rng.normal(size=12)) <= 0.05 for _ in range(400))
    assert abs(rejected - 20) <= 4 * np.sqrt(400 * 0.05 * 0.95)


def test_the_command_proves_a_run_and_leaves_the_store_alone(sfumato, tmp_path):
    """Exit status 0 for a kept promise, 1 for a broken one."""
    words = ("run", "toys/echo", "--solver", "toys/noisy", "--json")
    (good, bad) = (json.loads(sfumato(*words, "-s", f"noise={n}", check=0).stdout)["run_id"] for n in ("0.0", "1.0"))
    before = sorted(p.relative_to(tmp_path) for p in (tmp_path / "store").rglob("*"))
    assert "promise 'bits' kept" in sfumato("replay", good, check=0).stdout
    broken = json.loads(sfumato("replay", bad, "--json", check=1).stdout)
    assert broken["kept"] is False
    assert sorted(p.relative_to(tmp_path) for p in (tmp_path / "store").rglob("*")) == before
