"""The repository keeps its own rules: an environment a plugin, layers that point one way, light modules, no strays."""

from __future__ import annotations

import ast
import configparser
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
PLUGINS = sorted(p for p in (ROOT / "plugins").iterdir() if (p / "pyproject.toml").exists())
DISTRIBUTIONS = [ROOT / "core", ROOT / "sandbox", *PLUGINS]
HEAVY = ("numpy", "rich", "cattrs", "torch", "jax", "numba", "scipy", "ortools", "cvxpy", "sklearn", "transformers")

CORE_LAYERS = [
    {"errors", "hookspecs"},
    {"records"},
    {"protocols", "builtin"},
    {"seeding", "plugins", "backends", "config", "stats", "provenance"},
    {"processes", "guard", "cgroups", "claims"},
    {"trace", "context", "store", "index", "runtimes", "evaluators"},
    {"driver", "worker", "supervisor", "experiment", "runner", "executors", "group", "child", "turnstile", "replay", "staleness"},
    {"compare", "aggregate", "ledger", "report", "gym", "testing", "templates", "export"},
    {"cli", "measure", "__main__"},
]
"""A module may import from its own layer and those above it here."""


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports when it is loaded (TYPE_CHECKING blocks left out)."""
    found = set()

    def visit(nodes):
        for node in nodes:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                visit(node.orelse)
            elif isinstance(node, ast.Import):
                found.update(a.name for a in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module)
                found.update(f"{node.module}.{a.name}" for a in node.names)
            else:
                for field in ("body", "orelse", "finalbody", "handlers"):
                    children = getattr(node, field, None)
                    if isinstance(children, list):
                        visit(children)

    visit(ast.parse(path.read_text()).body)
    return found


def layer(module: str) -> int:
    for number, names in enumerate(CORE_LAYERS):
        if module in names:
            return number
    raise AssertionError(f"core module {module!r} is in no layer: add it to CORE_LAYERS where it belongs")


def test_the_cores_dependencies_point_one_way():
    """`protocols` and `records` know nobody; the command line knows the runner; never back."""
    source = ROOT / "core" / "src" / "sfumato"
    wrong = []
    for path in sorted(source.rglob("*.py")):
        own = path.relative_to(source).parts[0].removesuffix(".py")
        if own == "__init__":
            continue
        for module in imports(path):
            parts = module.split(".")
            if parts[0] != "sfumato" or len(parts) < 2:
                continue
            other = parts[1]
            known = (source / f"{other}.py").exists() or (source / other).is_dir()
            if known and other != own and layer(other) > layer(own):
                wrong.append(f"{path.relative_to(ROOT)} imports sfumato.{other}")
    assert not wrong, "\n".join(wrong)


def test_no_plugin_imports_another_and_the_core_imports_none():
    """They meet through the protocols alone."""
    packages = {p.name: f"sfumato_{p.name}" for p in PLUGINS}
    packages["sandbox"] = "sfumato_sandbox"
    allowed = {"runtime_persistent": {"sfumato_sandbox"}, "runtime_stateless": {"sfumato_sandbox"}}
    wrong = []
    for folder in DISTRIBUTIONS:
        own = packages.get(folder.name, "sfumato")
        for path in (folder / "src").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [a.name for a in node.names]
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                for name in names:
                    top = name.split(".")[0]
                    if top.startswith("sfumato_") and top != own and top not in allowed.get(folder.name, ()):
                        wrong.append(f"{path.relative_to(ROOT)} imports {top}")
                    if folder.name == "sandbox" and top == "sfumato":
                        wrong.append(f"{path.relative_to(ROOT)} imports the core")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_every_plugin_has_its_environment_and_its_parts(folder):
    """pyproject, README, tests, benchmarks, claims, and a tox environment which CI runs."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    assert f"testenv:{folder.name}{{,-py312,-py313}}" in tox
    labels = dict(line.split(" = ") for line in tox["tox"]["labels"].strip().splitlines())
    assert folder.name in labels["ci"].split(", ")
    assert {f"{folder.name}-py312", f"{folder.name}-py313"} <= set(labels["versions"].split(", "))
    for part in ("pyproject.toml", "README.md", "tests", "benchmarks", f"src/sfumato_{folder.name}/py.typed"):
        assert (folder / part).exists(), f"{folder.name} lacks {part}"


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_a_plugins_metadata_is_in_order(folder):
    """Name, licence, entry point."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "sfumato-" + folder.name.replace("_", "-")
    assert project["license"] == "Apache-2.0"
    (key, module), *others = project["entry-points"]["sfumato"].items()
    assert not others
    assert key == folder.name.replace("_", "-")
    assert module == f"sfumato_{folder.name}.plugin"


def test_pythons_that_pyenv_and_uv_keep_are_found(tmp_path):
    """Of each minor version the newest; neither old ones, nor what is no interpreter, nor other implementations."""
    interpreters = runpy.run_path(str(ROOT / "dev"))["interpreters"]
    kept = ("3.9.18", "3.11.7", "3.12.1", "3.12.10", "3.13.0t", "pypy3.11-7.3")
    places = [tmp_path / ".pyenv" / "versions" / name for name in kept]
    places.append(tmp_path / ".local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu")
    for place in places:
        (place / "bin").mkdir(parents=True)
        for minor in (9, 11, 12, 13):
            (place / "bin" / f"python3.{minor}").touch()
    found = interpreters(tmp_path, {})
    assert [Path(f).parent.parent.name for f in found] == ["3.11.7", "3.12.10", "cpython-3.13.1-linux-x86_64-gnu"]
    assert interpreters(tmp_path, {"PYENV_ROOT": str(tmp_path / "none"), "UV_PYTHON_INSTALL_DIR": str(tmp_path)}) == []


def test_environments_are_removed_as_they_pass_where_the_disk_is_small(capsys):
    """With 100 GB free nothing is removed; with 5, or in CI, environments go as they pass; with 1 it is said that tests may stop."""
    tidy = runpy.run_path(str(ROOT / "dev"))["tidy"]
    assert not tidy(100.0, {})
    assert capsys.readouterr().err == ""
    assert tidy(5.0, {}) and tidy(100.0, {"CI": "true"})
    assert "removed as they pass" in capsys.readouterr().err
    assert tidy(1.0, {})
    assert "1.0 GB are free here and the tests need about 4" in capsys.readouterr().err


@pytest.mark.parametrize(("wanted", "status", "stays"), [("1", 0, False), ("1", 1, True), ("0", 0, True)])
def test_only_an_environment_that_passed_is_removed(tmp_path, monkeypatch, wanted, status, stays):
    """The hook removes the folder of an environment that passed, where that was wanted, and of no other."""
    monkeypatch.setitem(sys.modules, "tox", ModuleType("tox"))
    monkeypatch.setitem(sys.modules, "tox.plugin", SimpleNamespace(impl=lambda hook: hook))
    hook = runpy.run_path(str(ROOT / "toxfile.py"))["tox_after_run_commands"]
    folder = tmp_path / "ofs"
    (folder / "bin").mkdir(parents=True)
    monkeypatch.setenv("SFUMATO_TIDY", wanted)
    hook(SimpleNamespace(env_dir=folder), status, [])
    assert folder.exists() == stays


def test_the_oldest_dependencies_that_ci_pins_are_the_cores_lower_bounds():
    """What `tox -e core-oldest` installs is what core/pyproject.toml promises to work with."""
    project = tomllib.loads((ROOT / "core" / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(d for name, deps in extras.items() if name != "ray" for d in deps)]
    bounds = {tuple(d.split(">=")) for d in asked}
    pinned = [line.split("==") for line in (ROOT / "tests" / "oldest.txt").read_text().splitlines() if "==" in line]
    assert {name for name, _ in bounds} == {name for name, _ in pinned}
    for name, version in pinned:
        assert any(n == name and f"{version}.".startswith(f"{low}.") for n, low in bounds), f"{name}=={version} is not the lower bound"


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda p: p.name)
def test_a_plugins_light_modules_are_light(folder):
    """In a fresh interpreter, the package and its plugin.py import no array library."""
    package = f"sfumato_{folder.name}"
    code = f"import sys, {package}, {package}.plugin; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_list_with_every_plugin_installed_has_no_error_and_imports_nothing_heavy():
    """What a user with eight plugins meets."""
    code = (
        "import sys; sys.argv = ['sfumato', 'list']\nfrom sfumato.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        f"print('HEAVY', *[m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY"
    assert "error" not in done.stderr
    for folder in PLUGINS:
        assert folder.name.replace("_", "-") + "/" in done.stdout, f"{folder.name} offers nothing"


def test_tracked_files_name_no_machine_and_no_registry_host():
    """Nothing of the place where it was written."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    bad = []
    hosts = ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.org")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.stat().st_size > 1 << 20:
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        bad += [f"{name}: {host}" for host in hosts if host in text]
    assert not bad, "\n".join(bad)
