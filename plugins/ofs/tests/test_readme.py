"""The README's listings run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sfumato_ofs import cli

README = Path(__file__).parent.parent / "README.md"
LISTINGS = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
SWEEPS = re.findall(r"^sfumato ofs sweep (.*)$", README.read_text(encoding="utf-8"), flags=re.M)


@pytest.mark.parametrize("code", LISTINGS, ids=range(len(LISTINGS)))
def test_a_listing_runs_and_prints_what_it_says(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The number in the first comment behind a print is what comes out."""
    exec(compile(code, str(README), "exec"), {})
    printed = capsys.readouterr().out.split()
    promised = re.search(r"print\(.*\)\s+# ([\d.]+)", code)
    assert promised is not None and printed[0] == promised[1].rstrip(".")


@pytest.mark.parametrize("line", SWEEPS)
def test_a_sweep_runs_as_printed(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All lines are of one file: the columns that one of them names are the columns that there are."""
    rng = np.random.default_rng(0)
    rows = [f"{rng.random():.3f},{'ns'[k % 2]},{'fm'[k // 2 % 2]},{k // 4 % 2}" for k in range(400)]
    (tmp_path / "scores.csv").write_text("\n".join(["score,region,sex,repaid", *rows]) + "\n")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.sweep, shlex.split(line, comments=True))
    assert result.exit_code == 0, result.output
    assert "Best of those that hold" in result.output
