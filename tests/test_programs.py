"""The first program of every README runs as printed, with that distribution alone on its path."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = [ROOT / "sandbox", *sorted(p for p in (ROOT / "plugins").iterdir() if (p / "pyproject.toml").exists())]
NEEDS = {"bqnco": "its program solves a file and needs torch; its own tests run it"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_the_first_program_of_the_readme_is_short_and_runs(folder, tmp_path):
    """At most 30 lines, no import of the core, and no other plugin."""
    program = re.search(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.S | re.M).group(1)
    assert len(program.strip().splitlines()) <= 30
    imported = set(re.findall(r"^\s*(?:from|import) (sfumato\w*)", program, re.M))
    allowed = {f"sfumato_{folder.name}", "sfumato_sandbox"} if folder.name.startswith("runtime") else {f"sfumato_{folder.name}"}
    assert imported
    assert imported <= allowed
    if folder.name in NEEDS:
        pytest.skip(NEEDS[folder.name])
    path = tmp_path / "program.py"
    path.write_text(program + "\nimport sys\nassert 'sfumato' not in sys.modules, 'the core was imported'\n")
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
