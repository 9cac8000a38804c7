"""What programs read of us: JSON that every reader takes."""

from __future__ import annotations

import json
import math

import pytest

from sfumato.cli.text import json_text


def strict(text):
    """Read JSON as other languages do: without the bare words NaN and Infinity."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_numbers_that_are_none_are_null_or_text():
    """At any depth; Python's float() takes the texts back."""
    value = {"a": math.nan, "b": [math.inf, {"c": (-math.inf, 1.5)}], "d": "NaN", "e": 1}
    read = strict(json_text(value))
    assert read == {"a": None, "b": ["Infinity", {"c": ["-Infinity", 1.5]}], "d": "NaN", "e": 1}
    assert float(read["b"][0]) == math.inf


def test_every_command_writes_valid_json_for_a_figure_that_is_no_number(sfumato):
    """run, status, show, show --rows, compare."""
    words = ("run", "toys/echo", "--seeds", "2", "--evaluator", "toys/half", "--isolation", "none", "--json")
    for solver in ("toys/noop", "toys/noisy"):
        (line,) = sfumato(*words, "--solver", solver, check=0).stdout.splitlines()
        record = strict(line)
        assert {f["name"]: f["value"] for f in record["figures"]}["half"] is None
    said = [
        ("status", "--json"),
        ("show", record["run_id"], "--json"),
        ("show", record["run_id"], "--rows"),
        ("compare", "toys/noop", "toys/noisy", "--metric", "half", "--json"),
    ]
    for words in said:
        lines = sfumato(*words, check=0).stdout.splitlines()
        assert lines
        assert any("null" in line for line in lines)
        for line in lines:
            strict(line)
