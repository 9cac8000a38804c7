"""Tables for people: what is left out is said, and where it is to be had."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import attrs
import pytest

from sfumato.aggregate import Aggregate
from sfumato.cli import tables
from sfumato.compare import Comparison
from sfumato.ledger import Result
from sfumato.plugins import Registry
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
    for letter in "ab":
        (line,) = (line for line in short.splitlines() if f"sfumato show {letter * 8}" in line)
        assert line.split() == ["sfumato", "show", letter * 8, "…", "3", "more"]
    tables.figures_table(records)
    assert "figure-6" in (whole := capsys.readouterr().out) and "more" not in whole


def test_a_line_is_not_left_out_to_say_that_it_was(records, capsys):
    """Five figures where four are wanted are five lines either way."""
    tables.figures_table([attrs.evolve(r, figures=r.figures[:5]) for r in records], most=4)
    assert capsys.readouterr().out.count("figure-4") == 2


def test_where_the_others_are_is_said_in_one_line_however_few_columns_there_are(records, capsys, monkeypatch):
    """At 80 columns below the table, in which it would be folded; a sum of shards belongs to no run."""
    monkeypatch.setenv("COLUMNS", "80")
    tables.figures_table(records, most=4)
    assert "… 3 more: sfumato show aaaaaaaa\n" in capsys.readouterr().out
    tables.figures_table([attrs.evolve(records[0], run_id="")], most=4)
    assert "… 3 more: --all-figures\n" in capsys.readouterr().out


def test_markup_is_shown_as_it_is(records, capsys, monkeypatch):
    """The markup and emoji of the library that draws the tables, in a label, a figure, a unit, a title, a claim."""
    markup = "[red]:bug:[/]"
    figure = Figure(markup, 1.0, markup, "none", "mean", 2)
    result = Result(markup, markup, markup, "S", markup, (0.0, 1.0), "not run", reason=markup)
    said = Comparison("toys/x", markup, markup, "max", "mean", markup, markup, 2, 1, 2, 1, None, None, None, 1, 0, 1, None, None)
    sides = (1.0, None, None, None)
    whole = Aggregate((markup,), markup, markup, "max", "mean", markup, markup, 2, *sides, *sides, 0.0, None, None)
    for columns in ("70", "140"):
        monkeypatch.setenv("COLUMNS", columns)
        tables.figures_table([attrs.evolve(records[0], label=markup, figures=(figure,))])
        assert capsys.readouterr().out.count(markup) == 3
        tables.comparison_table([said])
        assert capsys.readouterr().out.count(markup) == 4
        tables.aggregate_table([whole])
        assert capsys.readouterr().out.count(markup) == 5
        tables.ledger_table([result])
        assert "".join(capsys.readouterr().out.split()).count(markup) == 4


def test_what_a_run_waits_for_is_said_under_quiet_too(capsys):
    """A timed run may wait for hours; a bar shows it where there is one."""
    with tables.progress_listener([], Registry(), quiet=True) as listener:
        job = SimpleNamespace(run_id="ab", label="slow")
        listener.progress(job, 0.0, "waits for a timed run")
        listener.progress(job, 0.5, "half")
    out, err = capsys.readouterr()
    assert (out, err) == ("", "ab slow waits for a timed run\n")


def test_a_console_that_is_no_terminal_is_as_wide_as_it_is_told(monkeypatch):
    """COLUMNS, else 100."""
    monkeypatch.setenv("COLUMNS", "80")
    assert tables.console().width == 80
    monkeypatch.delenv("COLUMNS")
    assert tables.console().width == 100
