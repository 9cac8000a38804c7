"""The README's program runs."""

from __future__ import annotations

import re
from pathlib import Path


def test_the_program_of_the_readme_runs_and_prints_what_it_says(capsys):
    """Fair coins: half of ten tosses, within five standard errors of a hundred episodes."""
    text = (Path(__file__).parents[1] / "README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(program, {"__name__": "readme"})
    value = float(re.search(r"value=([\d.]+)", capsys.readouterr().out)[1])
    assert abs(value - 5) < 5 * (10 * 0.25 / 100) ** 0.5
