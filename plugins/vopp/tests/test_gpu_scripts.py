"""The script for a lent GPU runs to its end here at a small size, so that no lease is lost on a typing error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is an extra")
pytestmark = pytest.mark.optional


def test_the_script_measures_counts_plays_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    out, script = tmp_path / "gpu.json", Path(__file__).parents[1] / "benchmarks" / "gpu.py"
    command = [sys.executable, str(script), "--device", "cpu", "--small", "--out", str(out)]
    environment, found = {**os.environ, "OMP_NUM_THREADS": "1"}, []
    for _ in range(2):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(out.read_text()))
    first, second = found
    # Where tables grow every level reads; in fixed shapes there is one list an iteration, which is none of these operations.
    assert first["waits fixed"]["reads"] == 0
    assert first["waits eager"]["reads"] > 3 * first["waits eager"]["levels"]
    rates = [value for key, value in first.items() if key.startswith("rate")]
    assert rates and all(0.0 < value["floor_s"] < value["seconds"] for value in rates)
    assert sum(key.startswith("quality") for key in first) == 2
    measured = [key for key in first if key.startswith(("rate", "waits", "quality"))]
    assert [second[key] for key in measured] == [first[key] for key in measured]
