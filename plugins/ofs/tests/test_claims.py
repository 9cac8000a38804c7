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


def test_a_gap_is_claimed_both_ways() -> None:
    """A learner that ignores the constraint earns more than the best feasible threshold: a gap far below 0 is no success."""
    for path in FILES:
        claim = tomllib.loads(path.read_text())
        if "tail-gap" in claim["id"]:
            assert claim["band"] == [-0.003, 0.003] and "our reference design" in claim["title"]


def test_baselines_are_named_with_their_beta() -> None:
    for path in FILES:
        claim = tomllib.loads(path.read_text())
        if "-vs-" in claim["id"]:
            beta = claim["run"]["settings"].get("baseline_beta", 1.0)
            assert f"(beta {beta:g})" in claim["title"]


def test_wilsons_interval_says_something_at_zero() -> None:
    """None of 1,000: up to 0.38%; 50 of 1,000: 3.8% to 6.5%."""
    assert claims.wilson(0.0, 1000) == (0.0, pytest.approx(0.00383, abs=1e-5))
    assert claims.wilson(1.0, 1000) == (pytest.approx(0.99617, abs=1e-5), 1.0)
    assert claims.wilson(0.05, 1000) == pytest.approx((0.0381, 0.0653), abs=1e-4)
