"""What the README shows runs as printed."""

import pathlib
import re
import subprocess
import sys

import pytest

TEXT = (pathlib.Path(__file__).parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)\n```\n", TEXT, re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_prints_what_it_says(number):
    code = EXAMPLES[number]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for said in re.findall(r"print\(.*\) +# (\S.*)$", code, re.MULTILINE):
        if any(character.isdigit() for character in said):
            assert said in done.stdout
