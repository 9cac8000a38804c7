"""Documentation that is generated agrees with its sources, and the author's guide runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("script", ["draw_architecture.py", "write_results.py"])
def test_generated_pages_are_up_to_date(script):
    """The picture follows the imports, the results page the ledgers."""
    done = subprocess.run([sys.executable, ROOT / "docs" / script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)


def test_the_first_plugin_of_the_authors_guide_runs(tmp_path):
    """Fifteen lines of plugin, as printed: found, described, and played by a policy."""
    (tmp_path / "sfumato_dice.py").write_text(blocks("authors.md", "python")[0])
    info = tmp_path / "sfumato_dice-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sfumato-dice\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[sfumato]\ndice = sfumato_dice\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    shown = subprocess.run([sys.executable, "-m", "sfumato", "info", "dice/higher"], env=env, capture_output=True, text=True)
    assert "Is the next die higher?" in shown.stdout, shown.stderr
    play = (
        "from sfumato.context import RunContext\nfrom sfumato_dice import Dice\nctx = RunContext(indices=range(200))\n"
        "print(sum(Dice().start(i, ctx, None).step(i[0] < 4).reward for i in Dice().instances(ctx)))"
    )
    done = subprocess.run([sys.executable, "-c", play], env=env, capture_output=True, text=True, check=True)
    assert 110 < float(done.stdout) < 190


def test_every_link_between_pages_leads_somewhere():
    """Offline: files and anchors of this documentation."""
    for page in (ROOT / "docs").rglob("*.md"):
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http:", "https:")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_command_that_the_documentation_names_exists():
    """`sfumato <word>` in code is a command or a plugin."""
    from sfumato.cli import COMMANDS

    plugins = {p.name.replace("_", "-") for p in (ROOT / "plugins").iterdir()}
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for word in re.findall(r"(?:^|`)sfumato ([a-z][a-z-]*)", page.read_text(), re.M):
            assert word in COMMANDS or word in plugins or word == "mine", f"{page.name} names 'sfumato {word}'"
