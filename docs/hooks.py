"""MkDocs hooks: a page for each plugin from its README, and a reference page from its public names. Nothing is written to disk."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "https://github.com/sfumato/sfumato/blob/main/"
CORE = ("protocols", "records", "errors", "hookspecs", "gym", "testing", "report.parts", "context", "trace", "store", "stats")


def folders() -> dict[str, Path]:
    """Return every distribution that has a page: name -> folder."""
    found = {p.name: p for p in sorted((ROOT / "plugins").iterdir()) if (p / "pyproject.toml").exists()}
    return {**found, "sandbox": ROOT / "sandbox"}


def package(name: str) -> Path:
    """Return the folder of a distribution's package."""
    return folders()[name] / "src" / f"sfumato_{name}"


def public(name: str) -> list[str]:
    """Return the dotted places of what a package exports, from the table of lazy names or the imports in its __init__."""
    prefix = f"sfumato_{name}"
    places = []
    for node in ast.parse((package(name) / "__init__.py").read_text()).body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(node.value, ast.Dict):
            places += [
                f"{prefix}.{module.value}.{symbol.value}"
                for symbol, module in zip(node.value.keys, node.value.values, strict=True)
                if isinstance(symbol, ast.Constant) and isinstance(module, ast.Constant)
            ]
            for value in node.value.values:  # **dict.fromkeys([names], module)
                if isinstance(value, ast.Call) and ast.unparse(value.func) == "dict.fromkeys":
                    names, module = (ast.literal_eval(argument) for argument in value.args)
                    places += [f"{prefix}.{module}.{symbol}" for symbol in names]
        elif isinstance(node, ast.ImportFrom) and node.module and (node.level or node.module.startswith(prefix)):
            module = node.module.removeprefix(prefix + ".")
            places += [f"{prefix}.{module}.{alias.name}" for alias in node.names]
    return sorted(set(places), key=lambda place: place.rpartition(".")[2].lower())


def readme(path: Path, links: dict[str, str]) -> str:
    """Return a README as a page: links to files become links to their page or their source."""

    def target(match: re.Match[str]) -> str:
        words, where = match.groups()
        if where.startswith(("http:", "https:", "#")):
            return match.group(0)
        return f"[{words}]({links.get(where) or SOURCE + str((path.parent / where).resolve().relative_to(ROOT))})"

    return re.sub(r"\[([^\]]+)\]\(([^)]+)\)", target, path.read_text())


def pages() -> dict[str, str]:
    """Return every generated page: path under docs -> text."""
    made = {}
    for name, folder in folders().items():
        made[f"plugins/{name}.md"] = readme(folder / "README.md", {"THREATS.md": "threats.md"})
        if places := public(name):
            made[f"reference/{name}.md"] = f"# {name.replace('_', '-')}\n\n" + "\n".join(f"::: {place}\n" for place in places)
    made["plugins/threats.md"] = readme(ROOT / "sandbox" / "THREATS.md", {"README.md": "sandbox.md"})
    made["reference/core.md"] = "# Core\n\n" + "\n".join(f"::: sfumato.{module}\n" for module in CORE)
    return made


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files
