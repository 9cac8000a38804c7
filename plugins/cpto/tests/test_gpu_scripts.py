"""The script for a lent GPU runs to its end here at a small size, so that no lease is lost on a typing error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("jax", reason="needs jax: pip install 'sfumato-cpto[jax]'")
pytest.importorskip("numba", reason="needs numba: pip install 'sfumato-cpto[numba]'")


def test_the_batch_script_compares_and_measures(tmp_path: Path) -> None:
    """Every size has both times and a floor, and the kernels agree."""
    out = tmp_path / "batch.json"
    script = Path(__file__).parents[1] / "benchmarks" / "gpu_batch.py"
    small = ("--device", "cpu", "--scenes", "4", "--iterations", "2", "--out", str(out))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), *small], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["scenes"] for row in rows] == [4]
    assert all(row["floor_s"] > 0.0 and row["greatest_difference"] < 1e-6 for row in rows)
