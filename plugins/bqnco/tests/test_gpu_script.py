"""The training script for a lent GPU, tried here on a few instances: it trains, stops, goes on, and writes weights that load."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from sfumato_bqnco import weights
from sfumato_bqnco.labels import generate_labels

SCRIPT = Path(__file__).parents[1] / "training" / "gpu.py"
SHORT = ("--device", "cpu", "--small", "--eager", "--workers", "0", "--tokens", "60", "--total-minutes", "1")


def leg(monkeypatch: pytest.MonkeyPatch, problem: str, folder: Path, minutes: float) -> Path:
    """Run one leg and return the weights' path."""
    out = folder / f"{problem}.safetensors"
    arguments = (problem, "--labels", str(folder), "--out", str(out), "--minutes", str(minutes), *SHORT)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    return out


@pytest.mark.parametrize("problem", ["tsp", "atsp", "cvrp", "op", "kp"])
def test_a_leg_trains_and_writes_weights_with_their_card(
    problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The card says how many steps and what gap, and the weights pass their own check."""
    generate_labels(problem, 10, 30, tmp_path, effort=20)
    out = leg(monkeypatch, problem, tmp_path, 0.02)
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["validation"]["instances"] == 3
    assert weights.load(out, problem).config.problem == problem


def test_a_second_leg_goes_on_where_the_first_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Steps add up over legs, and another seed is refused rather than mixed in."""
    generate_labels("tsp", 10, 30, tmp_path, effort=20)
    out = leg(monkeypatch, "tsp", tmp_path, 0.02)
    first = json.loads(out.with_suffix(".json").read_text())["training"]["steps"]
    leg(monkeypatch, "tsp", tmp_path, 0.05)
    assert f"going on at step {first}" in capsys.readouterr().out
    assert json.loads(out.with_suffix(".json").read_text())["training"]["steps"] > first
    monkeypatch.setattr(
        "sys.argv", [str(SCRIPT), "tsp", "--labels", str(tmp_path), "--out", str(out), "--seed", "2", *SHORT]
    )
    with pytest.raises(SystemExit, match="another"):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_a_folder_without_labels_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was expected, what was found, and the command to run."""
    with pytest.raises(SystemExit):
        leg(monkeypatch, "tsp", tmp_path, 0.02)
    assert "sfumato bqnco labels" in capsys.readouterr().err
