"""Documentation that is generated agrees with its sources, and the author's guide runs as printed."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("script", ["draw_architecture.py", "write_results.py"])
def test_generated_pages_are_up_to_date(script):
    """The picture follows the imports, the results page the ledgers."""
    done = subprocess.run([sys.executable, ROOT / "docs" / script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_results_page_tells_a_claims_text_as_the_ledger_does():
    """A result that answers another text is not shown; so both must mean the same by a text."""
    from sfumato.ledger import read_claim

    spec = importlib.util.spec_from_file_location("write_results", ROOT / "docs" / "write_results.py")
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    paths = sorted(ROOT.glob("plugins/*/src/*/reproduce/*.toml"))
    assert len(paths) > 50
    for path in paths:
        assert page.digest(tomllib.loads(path.read_text())) == read_claim(path, "x").digest


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


def test_the_section_of_the_authors_guide_is_drawn(tmp_path):
    """The guide's plugin with its section, a policy that always says the same, and a report with text, plot, table and film."""
    pytest.importorskip("plotly", reason="needs the extra `report`")
    first, *others = blocks("authors.md", "python")
    section = next(code for code in others if "ReportSection" in code)
    policy = (
        '\nfrom sfumato.protocols import Policy, Solver\n'
        "class Low(Policy):\n    def reset(self, start, rng):\n        pass\n    def act(self, shown):\n        return shown < 4\n"
        "class LowSolver(Solver):\n    def solve(self, task, ctx):\n        return Low()\n"
    )
    offer = 'summary="Is the next die higher?")'
    code = first.replace(offer, offer + '\n    yield ComponentSpec("solver", "dice/low", target="sfumato_dice:LowSolver", summary="High when low.")')
    (tmp_path / "sfumato_dice.py").write_text(code + section + policy)
    info = tmp_path / "sfumato_dice-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sfumato-dice\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[sfumato]\ndice = sfumato_dice\n")
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "SFUMATO_STORE": str(tmp_path / "store")}
    run = [sys.executable, "-m", "sfumato"]
    done = subprocess.run([*run, "run", "dice/higher", "--solver", "dice/low", "--seeds", "40"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    subprocess.run([*run, "report", "-o", str(tmp_path / "site")], env=env, capture_output=True, text=True, check=True)
    (page,) = (tmp_path / "site" / "runs").glob("*.html")
    text = page.read_text()
    assert "could not be drawn" not in text, text[text.index("could not be drawn") :][:300]
    assert all(word in text for word in ("The rolls", "of 40 right", "How often each of 6 faces", 'class="playback"'))


def generated() -> set[str]:
    """The pages that the site makes of READMEs and docstrings."""
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs" / "hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return {str((ROOT / "docs" / name).resolve()) for name in hooks.pages()}


def test_every_link_between_pages_leads_somewhere():
    """Offline: files and generated pages of this documentation, and what READMEs point to."""
    made = generated()
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "plugins").glob("*/README.md")]:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith(("http:", "https:")):
                path = (page.parent / target).resolve()
                assert path.exists() or str(path) in made, f"{page.relative_to(ROOT)}: {target}"


PAGES = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "sandbox" / "README.md", *(ROOT / "plugins").glob("*/README.md")]


def test_every_command_that_the_documentation_names_exists():
    """`sfumato <word>` in code is a command or a plugin, and `sfumato <plugin> <word>` a command of that plugin."""
    from sfumato.cli import COMMANDS
    from sfumato.plugins import Registry

    plugins = {p.name.replace("_", "-") for p in (ROOT / "plugins").iterdir()}
    registry = Registry()
    offered = {(plugin, command.name) for plugin in plugins for command in registry.plugin_commands(plugin)}
    for page in PAGES:
        for word, rest in re.findall(r"(?:^|\$ |`| {4})sfumato ([a-z][a-z-]*)(?: ([a-z][a-z0-9-]*))?", page.read_text(), re.M):
            assert word in COMMANDS or word in plugins or word == "mine", f"{page.name} names 'sfumato {word}'"
            if word in plugins and word not in COMMANDS:
                assert (word, rest) in offered, f"{page.name} names 'sfumato {word} {rest}'"


def test_every_component_that_a_run_in_the_documentation_names_is_offered():
    """In lines that begin with `sfumato run`, words of the form plugin/thing."""
    from sfumato.plugins import Registry

    offered = {component.name for component in Registry().components()}
    plugins = {p.name.replace("_", "-") for p in (ROOT / "plugins").iterdir()}
    for page in PAGES:
        for line in re.findall(r"^[ $]*sfumato run (.*(?:\\\n.*)*)", page.read_text(), re.M):
            for name in re.findall(r"(?:^|\s)([a-z][a-z-]*/[a-z][a-z-]*)(?=\s|$)", line):
                if name.split("/")[0] in plugins:
                    assert name in offered, f"{page.relative_to(ROOT)}: sfumato run … {name}"
