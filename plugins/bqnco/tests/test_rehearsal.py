"""Compiling before the clock starts: what is rehearsed, once, and what a torn stamp does."""

from __future__ import annotations

import logging
import time

import numpy as np
import pytest

from sfumato_bqnco import generate, rehearsal, solve
from sfumato_bqnco.instances import from_arrays
from sfumato_bqnco.validate import objective


@pytest.fixture
def stamp(tmp_path, monkeypatch):
    """A stamp of this test's own, and a process that has rehearsed nothing."""
    monkeypatch.setattr(rehearsal, "_stamp", lambda: tmp_path / "rehearsed.json")
    monkeypatch.setattr(rehearsal, "_here", set())
    return tmp_path / "rehearsed.json"


@pytest.mark.parametrize("problem", ["tsp", "atsp", "cvrp", "cvrptw", "op", "kp"])
def test_a_piece_is_an_instance_of_its_own(problem):
    """It is small, of the same kind, and can be solved."""
    arrays = generate.random_set(problem, np.random.default_rng(0), 1, 30)
    small = rehearsal.piece(from_arrays(problem, arrays, 0))
    assert (small.n, small.problem) == (12, problem)
    answer = solve(small, 0.0)
    assert answer.objective == objective(small, answer.solution)


def test_each_part_is_rehearsed_once(stamp):
    """The second time, and in the next process, nothing runs; another part does."""
    ran = []
    assert rehearsal.rehearse("a", lambda: ran.append("a"), 1.0) > 0.0
    assert rehearsal.rehearse("a", lambda: ran.append("a"), 1.0) == 0.0
    rehearsal._here.clear()
    assert not rehearsal.needed("a")
    rehearsal.rehearse("b", lambda: ran.append("b"), 1.0)
    assert ran == ["a", "b"]


def test_it_speaks_only_when_it_takes_time(stamp, caplog):
    """What was compiled already is loaded without a word; real compiling is announced while it goes on."""
    caplog.set_level(logging.WARNING)
    rehearsal.rehearse("quick", lambda: None, 5.0)
    assert not caplog.records
    rehearsal.rehearse("slow", lambda: time.sleep(0.8), 5.0)
    assert "about 5 s" in caplog.text and "not counted" in caplog.text


@pytest.mark.parametrize("content", ["", "{", '{"state": "of other code", "parts": ["a"]}'])
def test_a_torn_or_old_stamp_counts_for_nothing(stamp, content):
    """It is written anew."""
    stamp.write_text(content)
    assert rehearsal.needed("a")
    rehearsal.rehearse("a", lambda: None, 1.0)
    rehearsal._here.clear()
    assert not rehearsal.needed("a")


def test_a_failing_rehearsal_is_not_taken_for_done(stamp):
    """The error is raised, and the part stays to be rehearsed."""
    with pytest.raises(ZeroDivisionError):
        rehearsal.rehearse("a", lambda: 1 / 0, 1.0)
    assert rehearsal.needed("a")


def test_the_log_says_what_was_compiled_before_the_clock(stamp):
    """`seconds` of the answer leave it out."""
    item = from_arrays("op", generate.random_set("op", np.random.default_rng(1), 1, 20), 0)
    answer = solve(item, 0.0)
    assert answer.log[0].part == "compiling" and "before the clock" in answer.log[0].remark
    assert all(entry.part != "compiling" for entry in solve(item, 0.0).log)
