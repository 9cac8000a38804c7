"""What the report and the command line show of agents: every figure with its interval, every test of the 2 x 2."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

import sfumato_opaque_knapsack
from sfumato_opaque_knapsack import summary

pytest.importorskip("sfumato.report.parts", reason="needs the core")
from sfumato_opaque_knapsack.report import agent

COMMITTED = Path(sfumato_opaque_knapsack.__file__).with_name("reproduce") / "results"


def view_of(solver, **columns):
    rows = [{"metrics": [{"name": k, "values": v} for k, v in columns.items()]}]
    metric = lambda name: iter(columns.get(name, []))  # noqa: E731
    return SimpleNamespace(
        rows=rows,
        metric=metric,
        record=SimpleNamespace(spec=SimpleNamespace(solver=SimpleNamespace(name=solver))),
    )


def test_figures_carry_intervals_and_counts():
    (table,) = agent(view_of("opaque-knapsack/expert", score=[0.5, 1.0], missing_var_strict=[1.0, 0.0]))
    assert [row[0] for row in table.rows] == ["missing_var_strict", "score"]
    assert table.rows[0][1:] == [0.5, 0.0126, 0.9874, 2], "Clopper-Pearson for one of two"
    assert table.rows[1][1:] == [0.75, 0.5, 1.0, 2]


def test_nothing_known_makes_no_section():
    assert agent(view_of("opaque-knapsack/expert")) == []


def test_the_learned_agent_brings_the_committed_study_with_every_test():
    _, _, cells, tests, interaction = agent(view_of("opaque-knapsack/copy-decoder", score=[1.0]))
    assert [row[0] for row in cells.rows] == ["P->P", "P->S", "S->P", "S->S"]
    assert len(tests.rows) == 6 and all(len(row) == len(tests.head) for row in tests.rows)
    assert "sign flips" in interaction.text
    for word in ("Wilcoxon", "Holm", "TOST", "McNemar"):
        assert any(word in head for head in tests.head)
    assert [head for head in cells.head if head in ("tokens completion", "unique", "cumulative")]


def test_the_command_line_shows_the_same():
    study = json.loads((COMMITTED / "two-by-two-quality.json").read_text())["details"]
    text = "\n".join(summary.lines(study))
    wilcoxon = study["tests"]["score_wilcoxon"]["P->P | S->S"]
    assert f"{wilcoxon['p_holm']:.2g}" in text and "P->S" in text
    del study["tests"]["token_interaction"]
    assert "sign flips" not in "\n".join(summary.lines(study))
