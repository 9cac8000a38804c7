"""The README's Python runs as it stands."""

import re
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="the README shows the compiled search")
TEXT = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, re.S), ids=lambda c: c.split("\n")[0][:30])
def test_a_listing_runs(code: str) -> None:
    if 'backend="torch"' in code:
        pytest.importorskip("torch", reason="this listing is of the torch backend")
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
