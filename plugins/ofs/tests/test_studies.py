"""Named loops and runs over many seeds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.errors import OfsError
from sfumato_ofs.oracle import sweep
from sfumato_ofs.studies import CONSTRAINTS, interval, named_loop, run_many


def test_the_slow_preset_by_name_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert named_loop("A-slow").contraction_factor() > 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "message"), [("B", "loop must be"), ("compas", "needs data_dir")])
def test_unknown_loops_and_missing_data_are_named(name: str, message: str) -> None:
    with pytest.raises(OfsError, match=message):
        named_loop(name)


@pytest.mark.parametrize("name", ["german", "compas"])
def test_a_missing_file_is_named_with_the_fetch_command(name: str, tmp_path) -> None:
    with pytest.raises(OfsError, match="is not there. Run 'sfumato ofs fetch'"):
        named_loop(name, tmp_path)


def test_options_that_the_compiled_loop_lacks_run_in_arrays() -> None:
    """A window is not compiled; the run is the array simulation's."""
    loop = named_loop("A", n_thresholds=5)
    run = run_many(loop, sweep(loop, CONSTRAINTS), OptimisticFeasibleConfig(window=20), n_seeds=2, horizon=60)
    assert run["plays"].sum() == 120 and not run["compiled"]


def test_an_error_inside_a_compiled_run_is_not_taken_for_a_missing_option(monkeypatch) -> None:
    """Only what the kernel says that it does not do runs in arrays; anything else comes through."""
    kernel = pytest.importorskip("sfumato_ofs.kernel", reason="needs numba (extra numba)")

    def fail(*args: object) -> None:
        raise OfsError("loop is broken")

    monkeypatch.setattr(kernel, "play_many", fail)
    loop = named_loop("A", n_thresholds=5)
    with pytest.raises(OfsError, match="loop is broken"):
        run_many(loop, sweep(loop, CONSTRAINTS), OptimisticFeasibleConfig(), n_seeds=1, horizon=10)


def test_a_bootstrap_interval_covers_the_mean() -> None:
    values = np.random.default_rng(1).normal(3.0, 1.0, 400)
    low, high = interval(values)
    assert low < values.mean() < high and high - low == pytest.approx(4 * values.std() / 20, rel=0.15)
