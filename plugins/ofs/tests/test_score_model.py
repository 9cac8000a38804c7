"""The score model and the oracles of the two semi-synthetic loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfumato_ofs import data
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.loops import PoolLoop, shared_arms, threshold_grid
from sfumato_ofs.oracle import sweep

pytest.importorskip("sklearn", reason="the score model needs scikit-learn (extra data)")
from sfumato_ofs.score_model import out_of_fold_scores


def auc(scores: np.ndarray, good: np.ndarray) -> float:
    """Area under the curve as the share of (good, bad) pairs in the right order, ties one half."""
    positive, negative = scores[good == 1], scores[good == 0]
    order = np.sort(negative)
    below, upto = np.searchsorted(order, positive, "left"), np.searchsorted(order, positive, "right")
    return float(((below + upto) / 2).mean() / len(negative))


def test_german_scores_and_oracle(data_dir: Path) -> None:
    """AUC 0.792; best feasible threshold 0.35 with reward 0.4800, gap 0.0966, rate 0.882; 0.425 without constraints."""
    table = data.load_german(data_dir / data.GERMAN_FILE)
    scores = out_of_fold_scores(table)
    assert auc(scores, table.good) == pytest.approx(0.792, abs=0.002)
    loop = PoolLoop(shared_arms(threshold_grid(41)), scores, table.good, table.groups)
    s = sweep(loop, Constraints())
    assert s.arms[s.best, 0] == 0.35
    assert (s.reward[s.best], s.gap[s.best], s.overall[s.best]) == pytest.approx(
        (0.4800, 0.0966, 0.882), abs=1e-3
    )
    assert s.arms[s.unconstrained, 0] == 0.425


def test_compas_scores_and_oracle(data_dir: Path) -> None:
    """AUC 0.7275; threshold 0.25 with reward 0.1366885366786939 to 1e-6; 0.50 without constraints."""
    table = data.load_compas(data_dir / data.COMPAS_MINIMAL_FILE)
    scores = out_of_fold_scores(table)
    assert auc(scores, table.good) == pytest.approx(0.7275, abs=1e-3)
    loop = PoolLoop(shared_arms(threshold_grid(41)), scores, table.good, table.groups)
    s = sweep(loop, Constraints())
    assert s.arms[s.best, 0] == 0.25
    assert s.reward[s.best] == pytest.approx(0.1366885366786939, abs=1e-6)
    assert s.gap[s.best] == pytest.approx(0.0921800, abs=1e-6)
    assert s.overall[s.best] == pytest.approx(0.9126275, abs=1e-6)
    assert s.state[s.best, 1] == pytest.approx(0.5093736, abs=1e-6)
    assert s.arms[s.unconstrained, 0] == 0.50
    assert s.reward[s.unconstrained] == pytest.approx(0.2352858, abs=1e-6)


def test_parity_by_sex_does_not_bind(data_dir: Path) -> None:
    """The inactive constraint: at eps 0.05 the constrained and the unconstrained best threshold are one."""
    table = data.load_german(data_dir / data.GERMAN_FILE, group="sex")
    loop = PoolLoop(shared_arms(threshold_grid(41)), out_of_fold_scores(table), table.good, table.groups)
    s = sweep(loop, Constraints(eps=0.05))
    assert s.best == s.unconstrained
