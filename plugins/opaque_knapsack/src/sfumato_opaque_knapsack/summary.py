"""A learned 2 x 2 as rows of text: its cells with intervals, and every test between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CELL_HEAD = (
    "trained -> runs in", "score [95 %]", "of the expert", "solved", "missing any", "missing strict",
    "tokens completion", "unique", "cumulative", "with prefix cache", "turns", "finished",
)  # fmt: skip
TEST_HEAD = (
    "pair", "score difference", "Wilcoxon p", "Holm", "rank-biserial", "TOST p (5 points)",
    "solved: McNemar p", "Holm", "missing: McNemar p", "Holm",
)  # fmt: skip


def _between(figure: Mapping[str, float], form: str) -> str:
    return f"{figure['value']:{form}} [{figure['low']:{form}}, {figure['high']:{form}}]"


def cell_rows(study: Mapping[str, Any]) -> list[list[str]]:
    """Return a row a cell, under `CELL_HEAD`; tokens are means an episode, intervals 95 %."""
    rows = []
    for name, cell in study["cells"].items():
        rows.append(
            [
                name,
                _between(cell["score"], ".3f"),
                f"{cell['share_of_expert']:.2f}",
                _between(cell["solved"], ".2f"),
                _between(cell["missing_var_any"], ".2f"),
                _between(cell["missing_var_strict"], ".2f"),
                *(
                    _between(cell[count], ".0f")
                    for count in ("completion_tokens", "unique_tokens", "cumulative_tokens", "cached_cost")
                ),
                _between(cell["turns"], ".1f"),
                f"{cell['finished']['value']:.2f}",
            ]
        )
    return rows


def test_rows(study: Mapping[str, Any]) -> list[list[str]]:
    """Return a row a pair of cells, under `TEST_HEAD`."""
    tests = study["tests"]
    rows = []
    for pair, wilcoxon in tests["score_wilcoxon"].items():
        solved, missing = tests["solved_mcnemar"][pair], tests["missing_mcnemar"][pair]
        rows.append(
            [
                pair,
                f"{wilcoxon['difference']:+.3f}",
                f"{wilcoxon['p']:.2g}",
                f"{wilcoxon['p_holm']:.2g}",
                f"{wilcoxon['effect']:+.2f}",
                f"{tests['score_equivalence'][pair]['p']:.2g}",
                *(f"{test[p]:.2g}" for test in (solved, missing) for p in ("p", "p_holm")),
            ]
        )
    return rows


def interaction_line(study: Mapping[str, Any]) -> str:
    """Return the test of the interaction in a sentence; empty when a cell is missing."""
    test = study["tests"].get("token_interaction")
    if not test:
        return ""
    return (
        "Training x runtime on log completion tokens, (P->P - P->S) - (S->P - S->S): "
        f"{test['difference']:+.3f}, p {test['p']:.2g} by {test['n']} paired sign flips"
    )


def lines(study: Mapping[str, Any]) -> list[str]:
    """Return both tables and the interaction as lines of text, columns aligned."""
    out: list[str] = []
    for head, rows in ((CELL_HEAD, cell_rows(study)), (TEST_HEAD, test_rows(study))):
        widths = [max(len(row[k]) for row in [list(head), *rows]) for k in range(len(head))]
        out += [
            "  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip()
            for row in [list(head), *rows]
        ]
        out.append("")
    return [*out, interaction_line(study)] if interaction_line(study) else out[:-1]
