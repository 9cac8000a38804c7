"""The model-risk report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sfumato_ofs import ThresholdBandit
from sfumato_ofs.errors import AuditError
from sfumato_ofs.risk_report import risk_report


def write_log(path: Path, hide: bool) -> ThresholdBandit:
    rng = np.random.default_rng(0)
    bandit = ThresholdBandit(log=path, margin=0.01)
    for _ in range(25):
        groups = (rng.random(200) < 0.4).astype(int)
        scores = rng.beta(5, 4, 200)
        tau = bandit.select()
        accepted = scores >= tau
        labels = np.where(accepted, rng.random(200) < scores, np.nan)
        bandit.partial_fit(
            tau, groups=groups, accepted=accepted, labels=labels, scores=None if hide else scores
        )
    bandit.log.close()
    return bandit


@pytest.mark.parametrize("hide", [False, True])
def test_the_report_states_what_the_log_proves(tmp_path: Path, hide: bool) -> None:
    """Head, decisions, people, recommended threshold and each constraint are in it, from the log alone."""
    bandit = write_log(tmp_path / "audit.jsonl", hide)
    text = risk_report(tmp_path / "audit.jsonl")
    assert bandit.head.hash in text and "all 25 decisions come out again" in text
    assert "| people | 5000 |" in text
    assert f"0.5, {bandit.recommend():g} |" in text
    for name in bandit.constraints.names:
        assert f"| {name} | 25 |" in text


def test_a_tampered_log_gets_no_report(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    write_log(path, True)
    path.write_text(path.read_text().replace('"n":200', '"n":201', 1))
    with pytest.raises(AuditError, match="was altered"):
        risk_report(path)
