"""Three hundred tiny runs: nothing leaks, nothing grows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parents[1] / "benchmarks" / "soak.py"


@pytest.mark.slow
@pytest.mark.parametrize(("n_runs", "isolation"), [(260, "group"), (40, "run")])
def test_no_process_file_or_directory_leaks_and_the_supervisor_does_not_grow(n_runs, isolation):
    """With two runs at a time; 5,000 with the same script by hand."""
    words = [sys.executable, str(SOAK), "--runs", str(n_runs), "--blocks", "4", "-j", "2", "--isolation", isolation, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout, done.stderr
    result = json.loads(done.stdout)
    assert result["faults"] == []
    assert done.returncode == 0
    assert [b["stored"] for b in result["blocks"]] == [n_runs * k // 4 for k in (1, 2, 3, 4)]
