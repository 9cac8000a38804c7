"""The 2 x 2 for a lent GPU, tried here at the smallest size: it stops in time, goes on, and ends with the paired tests."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'sfumato-opaque-knapsack[torch]'")
pytest.importorskip("sfumato_runtime_persistent", reason="needs sfumato-runtime-persistent")
pytest.importorskip("sfumato_runtime_stateless", reason="needs sfumato-runtime-stateless")
SCRIPT = Path(__file__).parents[1] / "training" / "gpu.py"


def test_the_study_is_done_in_legs_and_ends_with_four_cells_and_their_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A leg without time does nothing; the next does all; a third finds nothing to do again."""
    out = tmp_path / "study.json"
    small = ("--device", "cpu", "--size", "smoke", "--levels", "micro", "--seeds", "3407")

    def leg(minutes: str) -> None:
        where = ("--out", str(out), "--models", str(tmp_path / "models"), "--minutes", minutes)
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *small, *where])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    leg("0")
    assert "the leg is over" in capsys.readouterr().out
    assert not out.exists()
    leg("9")
    content = json.loads(out.read_text())
    assert set(content["studies"]["micro-3407"]["figures"]) == {"P->P", "P->S", "S->P", "S->S"}
    assert "score_wilcoxon" in content["studies"]["micro-3407"]["tests"]
    assert all(row["fraction_of_floor"] > 0 for row in content["training"].values())
    capsys.readouterr()
    leg("9")
    assert capsys.readouterr().out == ""
