"""What `sfumato new-plugin` writes: plain files, one `.tmpl` each, in which $name, $package and the like are filled in."""

from __future__ import annotations

import keyword
import re
import shutil
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from string import Template

from sfumato.errors import UsageError
from sfumato.plugins import reserved

PARTS = ("task", "solver", "evaluator", "runtime")
KINDS = {"full": ("task", "solver", "evaluator"), "task": ("task", "evaluator"), "solver": ("solver",), "runtime": ("runtime",)}

COMMON = {
    "pyproject.toml": "pyproject.toml.tmpl",
    "README.md": "README.md.tmpl",
    "tox.ini": "tox.ini.tmpl",
    ".gitignore": "gitignore.tmpl",
    ".github/workflows/test.yml": "workflow.yml.tmpl",
    "src/$package/__init__.py": "init.py.tmpl",
    "src/$package/py.typed": "empty.tmpl",
    "src/$package/config.py": "config.py.tmpl",
    "tests/conftest.py": "conftest.py.tmpl",
    "tests/test_promises.py": "test_promises.py.tmpl",
}
OF_PART = {
    "task": {"src/$package/tasks.py": "tasks.py.tmpl", "tests/test_tasks.py": "test_tasks.py.tmpl"},
    "solver": {"src/$package/solvers.py": "solvers.py.tmpl", "tests/test_solvers.py": "test_solvers.py.tmpl"},
    "evaluator": {"src/$package/evaluators.py": "evaluators.py.tmpl"},
    "runtime": {"src/$package/runtimes.py": "runtimes.py.tmpl", "tests/test_runtimes.py": "test_runtimes.py.tmpl"},
}


LONGEST_NAME = 64
"""A folder's name has at most 255 bytes almost everywhere, and a plugin's name is typed in every command."""


def write_plugin(name: str, folder: Path, kind: str = "full", author: str = "") -> list[Path]:
    """Write a distribution `sfumato-<name>` into `folder` (created; must not exist, or be empty); return the files.

    Raises UsageError for a name that is no plugin name, an author that is no text, a folder that holds something, and
    one that cannot be written: then nothing stays of what was written before.
    """
    _check_name(name)
    package = "sfumato_" + name.replace("-", "_")
    parts = KINDS[kind]
    values = {"name": name, "package": package, "author": _toml_text(author, f"The authors of sfumato-{name}"), "kind": kind}
    values["config_imports"], values["configs"] = _configs(parts)
    values["example"] = _example(name, parts)
    wanted = {**COMMON, **{path: source for part in parts for path, source in OF_PART[part].items()}}
    texts = {
        folder / Template(path).substitute(values): Template(
            (files(__name__) / "plugin" / source).read_text(encoding="utf-8")
        ).substitute(values)
        for path, source in wanted.items()
    }
    texts[folder / "src" / package / "plugin.py"] = _plugin_module(name, package, parts)
    try:
        there = folder.exists()
        if there and not (folder.is_dir() and not any(folder.iterdir())):
            raise UsageError(f"{folder} exists already; nothing was written. Choose another name or give --output DIR.")
        try:
            for path, text in texts.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
        except OSError:
            for left in list(folder.iterdir()) if there else [folder]:
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(f"cannot write the plugin to {str(folder)!r}: {reason}. Give a folder that can be written: --output DIR.") from error
    return list(texts)


def _check_name(name: str) -> None:
    """Raise UsageError for what is no plugin name, or is spoken for."""
    if len(name) > LONGEST_NAME:
        raise UsageError(f"a plugin's name has at most {LONGEST_NAME} letters, got {len(name)}.")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UsageError(f"a plugin's name is lower-case words joined by dashes, as in 'my-planner'; got {name!r}.")
    if keyword.iskeyword(name):
        raise UsageError(f"{name!r} is a reserved word of Python. Choose another name, as in 'my-{name}'.")
    if name in reserved():
        raise UsageError(
            f"{name!r} is a reserved word of sfumato: {reserved()[name]!r} is the core's. Choose another name, as in 'my-{name}'."
        )


def _toml_text(text: str, default: str) -> str:
    """Return a text as a TOML string on one line: what is no printable character becomes a blank.

    Raises UsageError for what no file can hold (bytes of the command line that are not UTF-8).
    """
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise UsageError(f"--author must be text in UTF-8, got {text!r}.")
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split()) or default
    return '"' + line.replace("\\", "\\\\").replace('"', '\\"') + '"'


_SPECS = {
    "task": '''    yield ComponentSpec(
        "task",
        "{name}/guess",
        target="{package}.tasks:GuessTask",
        config="{package}.config:GuessConfig",
        summary="A hidden whole number; a guess is answered by lower, equal or higher",
        source="own work",
        evaluators=({evaluators}),
        sample={{"limit": 20}},
    )''',
    "solver": '''    yield ComponentSpec(
        "solver",
        "{name}/bisection",
        target="{package}.solvers:BisectionSolver",
        config="{package}.config:BisectionConfig",
        summary="Halves the range that is left",
        source="own work",
    )''',
    "evaluator": '''    yield ComponentSpec(
        "evaluator",
        "{name}/guesses",
        target="{package}.evaluators:Guesses",
        summary="Guesses used beside the fewest that always suffice",
    )''',
    "runtime": '''    yield ComponentSpec(
        "runtime",
        "{name}/repeat",
        target="{package}.runtimes:Repeat",
        config="{package}.config:RepeatConfig",
        summary="Carries every action out several times",
    )''',
}


def _plugin_module(name: str, package: str, parts: Iterable[str]) -> str:
    evaluators = f'"{name}/guesses",' if "evaluator" in parts else ""
    specs = "\n".join(_SPECS[p].format(name=name, package=package, evaluators=evaluators) for p in parts)
    return (
        f'"""What sfumato-{name} offers. Light: imports nothing but sfumato and attrs."""\n\n'
        "from collections.abc import Iterator\n\n"
        "from sfumato import ComponentSpec, hookimpl\n\n"
        "PLUGIN_API = 1\n\n\n"
        "@hookimpl\ndef sfumato_components() -> Iterator[ComponentSpec]:\n"
        f"{specs}\n"
    )


_CONFIGS = {
    "task": '''@attrs.frozen
class GuessConfig:
    """Settings of the task."""

    limit: int = attrs.field(default=1000, validator=attrs.validators.ge(1), metadata={"help": "largest hidden number"})
''',
    "solver": '''@attrs.frozen
class BisectionConfig:
    """Settings of the solver."""

    first: float = attrs.field(
        default=0.5,
        validator=[attrs.validators.gt(0), attrs.validators.lt(1)],
        metadata={"help": "where in the range the guess lies, 0 to 1"},
    )
''',
    "runtime": '''@attrs.frozen
class RepeatConfig:
    """Settings of the runtime."""

    times: int = attrs.field(default=2, validator=attrs.validators.ge(1), metadata={"help": "how often an action is carried out"})
''',
}


def _configs(parts: Iterable[str]) -> tuple[str, str]:
    return "import attrs", "\n\n".join(_CONFIGS[p] for p in parts if p in _CONFIGS)


def _example(name: str, parts: Iterable[str]) -> str:
    if "task" in parts and "solver" in parts:
        return f"sfumato run {name}/guess --solver {name}/bisection --seeds 20"
    if "task" in parts:
        return f"sfumato info {name}/guess"
    if "solver" in parts:
        return f"sfumato info {name}/bisection"
    return f"sfumato info {name}/repeat"
