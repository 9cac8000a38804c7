"""Claims: every file is whole and its measurement runs."""

from __future__ import annotations

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import sfumato_ofs
from sfumato_ofs import claims

FILES = sorted((Path(sfumato_ofs.__file__).parent / "reproduce").glob("*.toml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_claim_names_its_source_its_band_and_something_that_exists(path: Path) -> None:
    claim = tomllib.loads(path.read_text())
    assert claim["id"] == path.stem and claim["title"] and claim["source"]
    assert claim["class"] in ("cpu-minutes", "cpu-hour", "gpu") and claim["band"][0] <= claim["band"][1]
    run = claim["run"]
    if "call" in run:
        module, name = run["call"].split(":")
        assert callable(getattr(import_module(module), name))
    else:
        assert run["task"].startswith("ofs/") and run["solver"].startswith("ofs/") and run["metric"]
    if "paper" in claim:
        # The source's abstract holds one figure; nothing else may be called its own.
        assert claim["paper"] == 0.003 and "tail-gap" in claim["id"]


def test_there_are_claims() -> None:
    assert len(FILES) >= 15


def test_measurements_have_value_interval_and_count() -> None:
    """Small runs of each measurement: low <= value <= high."""
    for answer in (
        claims.tail_gap("A", seeds=3, rounds=200),
        claims.violation_ratio("A", "unconstrained", seeds=3, rounds=200),
        claims.reward_lead("A-slow", "primal-dual", seeds=3, rounds=200),
        claims.observed_violation("A", seeds=2, rounds=60),
        claims.guarantees(seeds=10, rounds=40, n_thresholds=5),
    ):
        assert answer["low"] <= answer["value"] <= answer["high"] and answer["n"] >= 2
