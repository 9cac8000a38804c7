"""Fixtures of the core's tests. The toys (toys/) are a plugin that is importable but not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOYS = Path(__file__).parent / "toys"
sys.path.insert(0, str(TOYS))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TOYS), os.environ.get("PYTHONPATH", ""))))


@pytest.fixture
def sfumato(tmp_path):
    """Call the command line in a process of its own, with the toys installed and a store under tmp_path."""

    def call(*words: str, check: int | None = None, env: dict[str, str] | None = None, timeout: float = 60):
        done = subprocess.run(
            [sys.executable, "-m", "sfumato", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=tmp_path,
            env={**os.environ, "SFUMATO_STORE": str(tmp_path / "store"), "COLUMNS": "100", **(env or {})},
        )
        if check is not None:
            assert done.returncode == check, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call
