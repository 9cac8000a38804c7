"""Starting costs: what `sfumato --help` and `sfumato list` import, and what they cost."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = ("numpy", "rich", "cattrs", "torch", "jax", "ortools", "cvxpy", "numba", "scipy")
PROBE = """
import sys
sys.argv = ["sfumato", {words}]
from sfumato.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
print("IMPORTED", *[m for m in {heavy!r} if m in sys.modules])
"""


@pytest.mark.parametrize("words", ["'--help'", "'list'", "'list', '--json'"])
def test_help_and_list_import_nothing_heavy(words):
    """In a fresh interpreter, with every plugin that is installed."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(words=words, heavy=HEAVY)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "IMPORTED"


def test_list_costs_little_more_than_its_three_libraries():
    """At most 2.5 times `import click, attrs, pluggy`, measured in turn; the median of the ratios counts."""
    pairs = ([sys.executable, "-m", "sfumato", "list"], [sys.executable, "-c", "import click, attrs, pluggy"])
    seconds = []
    for _ in range(9):
        pair = []
        for words in pairs:
            began = time.perf_counter()
            subprocess.run(words, capture_output=True, check=True)
            pair.append(time.perf_counter() - began)
        seconds.append(pair)
    ratios = sorted(a / b for a, b in seconds)
    assert ratios[len(ratios) // 2] <= 2.5, f"ratios {[round(r, 2) for r in ratios]}"
