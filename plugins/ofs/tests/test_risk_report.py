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


@pytest.mark.parametrize("hide", [False, True])
def test_labels_that_never_arrived_are_counted_from_the_log(tmp_path: Path, hide: bool) -> None:
    """Six batches without labels; two are completed, one in part: four wait, and two have a reward."""
    bandit = ThresholdBandit(log=tmp_path / "audit.jsonl")
    rng = np.random.default_rng(0)
    for _ in range(6):
        tau = bandit.select()
        scores = rng.random(100)
        bandit.partial_fit(
            tau, groups=np.arange(100) % 2, accepted=scores >= tau, scores=None if hide else scores
        )
    for k in (1, 3):
        assert bandit.add_labels(k, np.ones(100))
    assert not bandit.add_labels(5, [1.0] + [np.nan] * 99)
    text = risk_report(tmp_path / "audit.jsonl")
    assert "Batches whose labels never arrived in full: 4." in text
    rewards = [e["reward"] for e in bandit.log.events() if e["event"] == "labels" and e["complete"]]
    assert f"| reward a person | {np.mean(rewards):.4f} (2 of 6 batches) |" in text


def test_reward_shares_and_the_feasibility_map_are_in_the_report(tmp_path: Path) -> None:
    """A group grows from a quarter to three quarters of the applicants; the first and last period say so."""
    bandit = ThresholdBandit(log=tmp_path / "audit.jsonl", corridor=None)
    rng = np.random.default_rng(0)
    rewards = []
    for t in range(16):
        groups = (np.arange(200) < (50 if t < 8 else 150)).astype(int)
        scores = rng.random(200)
        tau = bandit.select()
        labels = (rng.random(200) < scores).astype(float)
        accepted = scores >= tau
        rewards.append((2 * labels[accepted] - 1).sum() / 200)
        bandit.partial_fit(tau, groups=groups, accepted=accepted, labels=labels, scores=scores)
    text = risk_report(tmp_path / "audit.jsonl")
    assert f"| reward a person | {np.mean(rewards):.4f} |" in text
    over_time = text[text.index("## Over time") : text.index("## Feasibility map")].splitlines()
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in over_time if line.startswith("| ")]
    assert rows[0][3:] == ["reward a person", "rate 0", "rate 1", "share 0", "share 1"]
    assert rows[1][-2:] == ["0.750", "0.250"] and rows[-1][-2:] == ["0.250", "0.750"]
    assert float(rows[1][3]) == pytest.approx(np.mean(rewards[:2]), abs=5e-5)
    lines = text[text.index("## Feasibility map") : text.index("## Thresholds in force")].splitlines()
    table = {line.split("|")[1].strip(): line for line in lines if line.startswith("| 0")}
    assert len(table) == 40 and len([line for line in lines if line.startswith("| 1 ")]) == 1
    assert "| holds |" in table["0.5"] or "| certified |" in table["0.5"]
    assert "ruled out" in table["0.9"]  # nine in ten are rejected, and three in ten must be accepted


def test_what_was_learned_before_going_live_is_no_decision(tmp_path: Path) -> None:
    """5,000 people of a warm start are told apart from those who were decided upon."""
    bandit = ThresholdBandit(log=tmp_path / "audit.jsonl")
    rng = np.random.default_rng(0)
    scores, groups = rng.random(5000), rng.integers(0, 2, 5000)
    taken = rng.random(5000) < scores
    bandit.warm_start(scores=scores, groups=groups, accepted=taken, labels=np.where(taken, 1.0, np.nan))
    text = risk_report(tmp_path / "audit.jsonl")
    assert "| people | 0 |" in text and "| people of earlier decisions (warm start) | 5000 |" in text
    assert "never arrived in full: 0." in text
    assert "Indicated feasible: " in text and "They carry no guarantee (decayed counts" in text
