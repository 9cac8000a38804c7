"""Each method alone: the first program of a README, in a bare environment that holds that distribution and what it declares.

Slow for what it is (an environment each), so it has a tox environment of its own: `tox -e alone`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = [ROOT / "sandbox", *sorted(p for p in (ROOT / "plugins").iterdir() if (p / "pyproject.toml").exists())]
SOURCES = {"sfumato": ROOT / "core", "sfumato-sandbox": ROOT / "sandbox"}
EXTRAS = {"vopp": "numba"}
LORRIES = (
    "NAME: X-n101-k25\nTYPE: CVRP\nDIMENSION: 5\nCAPACITY: 2\nEDGE_WEIGHT_TYPE: EUC_2D\nNODE_COORD_SECTION\n"
    "1 0 0\n2 10 0\n3 10 5\n4 -10 0\n5 -10 5\nDEMAND_SECTION\n1 0\n2 1\n3 1\n4 1\n5 1\nDEPOT_SECTION\n1\n-1\nEOF\n"
)
"""A stand-in for the file that bqnco's program reads, which is not ours to carry."""


def program(folder: Path) -> str:
    """The first program of a README."""
    return re.search(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.S | re.M).group(1)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Wheels of every distribution, in one folder."""
    out = tmp_path_factory.mktemp("wheels")
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out)]
    subprocess.run([*words, str(ROOT / "core"), *map(str, FOLDERS)], check=True)
    return out


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_a_method_does_its_job_alone(folder, wheels, tmp_path):
    """At most 30 lines; no other plugin is there, and the core is not imported."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    name = "sfumato-" + folder.name.replace("_", "-")
    if extra := EXTRAS.get(folder.name):
        name += f"[{extra}]"
    words = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--find-links", str(wheels)]
    done = subprocess.run([*words, "-c", str(ROOT / "constraints.txt"), name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listed = subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "list"], capture_output=True, text=True, check=True)
    ours = {line.split()[0] for line in listed.stdout.splitlines() if line.startswith("sfumato")}
    assert ours <= {name.partition("[")[0], *SOURCES}
    text = program(folder)
    assert len(text.strip().splitlines()) <= 30
    (tmp_path / "X-n101-k25.vrp").write_text(LORRIES)
    text = text.replace("time_limit=10", "time_limit=1")
    path = tmp_path / "program.py"
    path.write_text(text + "\nimport sys\nassert 'sfumato' not in sys.modules, 'the core was imported'\n")
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SFUMATO_DATA")}
    done = subprocess.run([str(python), "-I", str(path)], capture_output=True, text=True, timeout=900, cwd=tmp_path, env={**env, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
