"""Tables for people: what is left out is said, and where it is to be had."""

from __future__ import annotations

import threading

import attrs
import pytest

from sfumato.cli import tables
from sfumato.records import Figure


@pytest.fixture
def records(store, make_jobs, listener):
    """Two records with seven figures each."""
    from sfumato.executors import executor
    from sfumato.runner import plan, sweep

    jobs = make_jobs("toys/bandit", "toys/greedy", instances="0:2")
    (record,) = sweep(store, plan(store, jobs), executor("local", n_jobs=1), listener, threading.Event())
    figures = tuple(Figure(f"figure-{k}", float(k), "1", "none", "mean", 2) for k in range(7))
    return [attrs.evolve(record, run_id=letter * 16, figures=figures) for letter in "ab"]


def test_the_first_figures_are_shown_and_where_the_others_are(records, capsys):
    """The count of those left out and the command that shows them; all of them when no limit is set."""
    tables.figures_table(records, most=4)
    short = capsys.readouterr().out
    assert short.count("figure-3") == 2 and "figure-4" not in short
    assert "… 3 more: sfumato show aaaaaaaa" in short and "… 3 more: sfumato show bbbbbbbb" in short
    tables.figures_table(records)
    assert "figure-6" in (whole := capsys.readouterr().out) and "more" not in whole


def test_a_line_is_not_left_out_to_say_that_it_was(records, capsys):
    """Five figures where four are wanted are five lines either way."""
    tables.figures_table([attrs.evolve(r, figures=r.figures[:5]) for r in records], most=4)
    assert capsys.readouterr().out.count("figure-4") == 2


def test_a_console_that_is_no_terminal_is_as_wide_as_it_is_told(monkeypatch):
    """COLUMNS, else 100."""
    monkeypatch.setenv("COLUMNS", "80")
    assert tables.console().width == 80
    monkeypatch.delenv("COLUMNS")
    assert tables.console().width == 100
