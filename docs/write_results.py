"""Writes the results page and README's table from the committed ledgers. `python docs/write_results.py [--check]`.

Reads files alone: no plugin has to be installed.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE, README, MARK = ROOT / "docs" / "results.md", ROOT / "README.md", "<!-- ledger -->"


def figure(value: float | None) -> str:
    """Return four significant digits."""
    return "-" if value is None else f"{value:.4g}"


def table(plugin: Path) -> list[str]:
    """Return a plugin's rows: every claim, with its committed result or none."""
    rows = []
    for path in sorted(plugin.glob("src/*/reproduce/*.toml")):
        claim = tomllib.loads(path.read_text())
        result_path = path.parent / "results" / f"{path.stem}.json"
        result = json.loads(result_path.read_text()) if result_path.exists() else {}
        here, verdict = "-", f"not run: class {claim.get('class', 'cpu-minutes')}"
        if result.get("value") is not None:
            here = figure(result["value"])
            if result.get("low") is not None and result.get("high") is not None:
                here += f" [{figure(result['low'])}, {figure(result['high'])}]"
            verdict = result["verdict"]
        paper = figure(claim["paper"]) if "paper" in claim else "-"
        unit = "" if claim["unit"] == "1" else f" ({claim['unit']})"
        rows.append(f"| {claim['title']}{unit} | {claim['source']} | {paper} | {here} | {result.get('n') or '-'} | {verdict} |")
    return rows


def page() -> str:
    """Return the results page."""
    parts = [PAGE.read_text().partition(MARK)[0] + MARK + "\n"]
    for plugin in sorted((ROOT / "plugins").iterdir()):
        if rows := table(plugin):
            head = ["| claim | source | paper | here (95 % interval) | n | verdict |", "|---|---|---|---|---|---|"]
            parts.append(f"\n## {plugin.name.replace('_', '-')}\n\n" + "\n".join(head + rows) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    text = page()
    if "--check" in sys.argv:
        sys.exit(0 if PAGE.read_text() == text else "docs/results.md is out of date: python docs/write_results.py")
    PAGE.write_text(text)
