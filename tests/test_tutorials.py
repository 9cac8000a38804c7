"""The tutorials print what they show: their programs are run as printed, each page in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(p for p in (ROOT / "docs" / "tutorials").glob("*.md") if p.name != "index.md")

spec = importlib.util.spec_from_file_location("run_tutorials", ROOT / "docs" / "run_tutorials.py")
run_tutorials = importlib.util.module_from_spec(spec)
sys.modules["run_tutorials"] = run_tutorials
spec.loader.exec_module(run_tutorials)


def code(page: Path) -> str:
    return "\n".join(b.code for b in run_tutorials.blocks(page.read_text()))


def test_every_plugin_has_a_tutorial():
    """One page each; the two runtimes share theirs."""
    wanted = {p.name for p in (ROOT / "plugins").iterdir() if (p / "pyproject.toml").exists() and not p.name.startswith("runtime_")}
    assert {p.stem for p in PAGES} == wanted | {"runtimes"}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_tutorial_is_short_and_uses_the_plugin_as_a_library(page):
    """At most 60 lines of code, no runner."""
    lines = [line for line in code(page).splitlines() if line.strip()]
    assert len(lines) <= 60
    package = "sfumato_sandbox" if page.stem == "runtimes" else f"sfumato_{page.stem}"
    assert set(re.findall(r"^\s*(?:from|import) (sfumato\w*)", code(page), re.M)) == {package}


def test_outputs_are_alike_when_words_agree_and_numbers_nearly():
    """Another word, another count of numbers or a number that is off by more than a twentieth is a difference."""
    shown = "route 0 4 2, gap 1.50 %\n"
    assert run_tutorials.alike(shown, "route 0 4 2, gap 1.52 %\n")
    for other in ("route 0 2 4, gap 1.50 %\n", "route 0 4 2, gap 1.70 %\n", "path 0 4 2, gap 1.50 %\n", "route 0 4, gap 1.50 %\n", ""):
        assert not run_tutorials.alike(shown, other)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_tutorial_prints_what_it_shows(page):
    """Word for word, numbers to a twentieth: another processor rounds differently."""
    if page.stem == "ofs" and not os.environ.get("SFUMATO_DATA"):
        pytest.skip("needs German Credit: set SFUMATO_DATA to the folder that holds them")
    if page.stem == "bqnco":
        pytest.importorskip("torch", reason="needs torch")
    assert run_tutorials.difference(page) == ""
