"""The README's listings run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
LISTINGS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)


@pytest.mark.parametrize("code", LISTINGS, ids=range(len(LISTINGS)))
def test_a_listing_runs_and_prints_what_it_says(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The number in the first comment behind a print is what comes out."""
    exec(compile(code, str(README), "exec"), {})
    printed = capsys.readouterr().out.split()
    promised = re.search(r"print\(.*\)\s+# ([\d.]+)", code)
    assert promised is not None and printed[0] == promised[1].rstrip(".")
