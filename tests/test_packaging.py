"""Wheels: what they hold, what their metadata says, and that they work when installed without the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = [ROOT / "core", ROOT / "sandbox", *sorted(p.parent for p in (ROOT / "plugins").glob("*/pyproject.toml"))]
EXAMPLE = ROOT / "examples" / "sfumato-sb3"

pytest.importorskip("hatchling", reason="needs hatchling to build wheels")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Every distribution's wheel, built once: name of the folder -> file."""
    out = tmp_path_factory.mktemp("wheels")
    made = {}
    for folder in (*DISTRIBUTIONS, EXAMPLE):
        target = out / folder.name
        words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(target), str(folder)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, f"{folder.name}: {done.stderr}"
        (made[folder.name],) = target.glob("*.whl")
    listing = out / "wheels.txt"
    with listing.open("w") as lines:
        for wheel in made.values():
            infos = zipfile.ZipFile(wheel).infolist()
            print(f"{wheel.name}: {wheel.stat().st_size} bytes, {len(infos)} files", file=lines)
            lines.writelines(f"  {info.file_size:9d}  {info.filename}\n" for info in infos)
    if (ROOT / ".tox").is_dir():  # kept beside the reports, for whoever asks what a wheel holds
        shutil.copy(listing, ROOT / ".tox" / "wheels.txt")
    return made


def test_a_wheel_holds_its_package_its_claims_and_nothing_else(wheels):
    """py.typed, plugin.py, every claim with its result, shipped weights; no tests, no caches, no data."""
    for name, wheel in wheels.items():
        names = zipfile.ZipFile(wheel).namelist()
        package = {"core": "sfumato", "sandbox": "sfumato_sandbox"}.get(name, f"sfumato_{name}")
        parent = {"core": ROOT, "sandbox": ROOT, EXAMPLE.name: ROOT / "examples"}.get(name, ROOT / "plugins")
        package = package.replace("sfumato_sfumato-", "sfumato_")
        folder = parent / name / "src" / package
        tops = {n.split("/")[0] for n in names if ".dist-info" not in n}
        assert tops == {package}, f"{name}: {tops}"
        assert f"{package}/py.typed" in names
        wanted = {p for pattern in ("*.py", "*.toml", "*.json", "*.safetensors", "*.tmpl", "*.html", "*.css", "*.js") for p in folder.rglob(pattern)}
        missing = {p for p in wanted if str(p.relative_to(folder.parent)) not in names and "__pycache__" not in p.parts}
        assert not missing, f"{name}: not in the wheel: {sorted(map(str, missing))[:5]}"
        assert not [n for n in names if "__pycache__" in n or ("/tests/" in n and "sfumato/testing" not in n)]


def test_metadata_passes_twines_check(wheels):
    """As an index would look at it."""
    pytest.importorskip("twine", reason="needs twine")
    done = subprocess.run([sys.executable, "-m", "twine", "check", *map(str, wheels.values())], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_installed_wheels_list_every_component(wheels, tmp_path):
    """In a new environment, not editable, without any array library: discovery needs three small packages."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    words = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*words, "attrs", "click", "pluggy"], check=True, capture_output=True)
    ours = [str(wheel) for name, wheel in wheels.items() if name != EXAMPLE.name]
    subprocess.run([*words, "--no-deps", *ours], check=True, capture_output=True)
    done = subprocess.run([str(python), "-m", "sfumato", "list"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for name in wheels:
        if name not in ("core", "sandbox", EXAMPLE.name):
            assert f"{name.replace('_', '-')}/" in done.stdout
