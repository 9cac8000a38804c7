"""Pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="drawing needs matplotlib (extra plots)")
from sfumato_ofs.plots import save_all
from sfumato_ofs.studies import picture_runs

pytestmark = pytest.mark.optional


def test_the_same_run_draws_the_same_files(tmp_path: Path) -> None:
    """Regret, violation, feasibility and a population picture a run; byte for byte the same twice."""
    runs, oracle, bounds = picture_runs("synthetic", 2, 110, tmp_path)
    first = save_all(tmp_path / "a", runs, oracle, bounds)
    again = save_all(tmp_path / "b", runs, oracle, bounds)
    assert [p.name for p in first] == [
        "regret.svg",
        "violation.svg",
        "feasibility.svg",
        "population-optimistic-feasible.svg",
        "population-primal-dual.svg",
        "population-unconstrained.svg",
    ]
    for a, b in zip(first, again, strict=True):
        assert a.read_bytes() == b.read_bytes() and a.stat().st_size > 2000
