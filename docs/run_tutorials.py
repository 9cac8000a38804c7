"""Runs the programs of docs/tutorials and compares what they print with what the pages show.

`python docs/run_tutorials.py [--write] [PAGE …]`: a page's Python blocks are run in order, in one process, in an empty
folder; a `text` block that follows one is its output. With --write the output is put into the page.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "tutorials"
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.S | re.M)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")
RUNNER = """
import contextlib, io, json, sys
shown, scope = [], {"__name__": "__main__"}
for number, code in enumerate(json.load(sys.stdin), 1):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, f"block {number}", "exec"), scope)
    shown.append("".join(line.rstrip() + "\\n" for line in out.getvalue().splitlines()))
print(json.dumps(shown))
"""


@attrs.frozen
class Block:
    """A program of a page and the output that the page shows."""

    code: str
    output: str


def blocks(page: str) -> list[Block]:
    """Return a page's programs, in order."""
    return [Block(m.group(1), m.group(2) or "") for m in BLOCK.finditer(page)]


def run(programs: list[Block]) -> list[str]:
    """Return what each program prints; raise RuntimeError with the traceback when one fails."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", RUNNER], input=json.dumps([b.code for b in programs]), capture_output=True, text=True,
            cwd=folder, env={**os.environ, "MPLBACKEND": "agg", "PYTHONHASHSEED": "0"},
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return list(json.loads(done.stdout.splitlines()[-1]))


def alike(shown: str, printed: str) -> bool:
    """Return whether two outputs have the same words, and numbers within a twentieth: processors round differently."""
    if NUMBER.sub("#", shown).split() != NUMBER.sub("#", printed).split():
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=0.05, abs_tol=0.02) for a, b in pairs)


def difference(path: Path) -> str:
    """Return how what a page shows differs from what its programs print; empty when it does not."""
    programs = blocks(path.read_text())
    lines: list[str] = []
    for number, (block, printed) in enumerate(zip(programs, run(programs), strict=True), 1):
        if not alike(block.output, printed):
            lines += difflib.unified_diff(
                block.output.splitlines(), printed.splitlines(), f"{path.name}, block {number}, as shown", "as printed", lineterm=""
            )
    return "\n".join(lines)


def write(path: Path) -> None:
    """Put what the programs print into the page."""
    text = path.read_text()
    printed = iter(run(blocks(text)))

    def fill(match: re.Match[str]) -> str:
        output = next(printed)
        return f"```python\n{match.group(1)}```\n" + (f"\n```text\n{output}```\n" if output else "")

    path.write_text(BLOCK.sub(fill, text))


if __name__ == "__main__":
    words = [w for w in sys.argv[1:] if w != "--write"]
    pages = [PAGES / f"{w.removesuffix('.md')}.md" for w in words] or sorted(p for p in PAGES.glob("*.md") if p.name != "index.md")
    wrong = 0
    for each in pages:
        if "--write" in sys.argv:
            write(each)
        elif found := difference(each):
            wrong += 1
            print(found)
    sys.exit(f"{wrong} page(s) differ: python docs/run_tutorials.py --write" if wrong else 0)
