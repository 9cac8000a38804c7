"""The scripts for a lent GPU run to their end here at a small size, so that no lease is lost on a typing error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'sfumato-alflb[torch]'")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(*arguments: str) -> str:
    """Run a script of the folder and return what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=BENCHMARKS,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_router_script_writes_a_row_for_every_contender(tmp_path: Path) -> None:
    """Plain, bincount and scatter at four sizes, each with its floor."""
    out = tmp_path / "router.json"
    run("gpu_router.py", "--device", "cpu", "--tokens", "64", "--repeats", "2", "--out", str(out))
    rows = json.loads(out.read_text())["rows"]
    assert len(rows) == 12
    assert all(row["floor_ms"] > 0.0 for row in rows)


def test_the_training_script_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A second call adds only the arm that is missing."""
    out = tmp_path / "training.json"
    common = (
        "gpu_training.py",
        "--device",
        "cpu",
        "--tiny",
        "--steps",
        "2",
        "--seeds",
        "1",
        "--out",
        str(out),
        "--arms",
    )
    run(*common, "none")
    first = json.loads(out.read_text())["rows"]
    run(*common, "none", "sign 1e-2")
    rows = json.loads(out.read_text())["rows"]
    assert [row["arm"] for row in rows] == ["none", "sign 1e-2"]
    assert rows[0] == first[0]
    assert "sign 1e-2" not in run(*common, "none", "sign 1e-2")
