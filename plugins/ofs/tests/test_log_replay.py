"""Resuming in the same log, with and without a state, and heads that a log must still hold."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from sfumato_ofs import ThresholdBandit, replay, resume
from sfumato_ofs.audit import AuditLog, Head, read, verify
from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.errors import AuditError, OfsError


def batches(n: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        groups = (rng.random(200) < 0.4).astype(int)
        scores = rng.beta(5, 4, 200)
        rows.append({"groups": groups, "scores": scores, "labels": (rng.random(200) < scores).astype(float)})
    return rows


def go(bandit: ThresholdBandit, rows: list[dict[str, np.ndarray]], hide: bool, late: bool) -> list[float]:
    """Decide each batch; labels at once, or not yet."""
    taus = []
    for row in rows:
        taus.append(bandit.select())
        accepted = row["scores"] >= taus[-1]
        bandit.partial_fit(
            taus[-1],
            groups=row["groups"],
            accepted=accepted,
            labels=None if late else np.where(accepted, row["labels"], np.nan),
            scores=None if hide else row["scores"],
        )
    return taus


@pytest.mark.parametrize("hide", [False, True])
@pytest.mark.parametrize("block", [1, 4])
def test_batches_that_wait_are_completed_after_a_restart_in_the_same_log(
    tmp_path: Path, hide: bool, block: int
) -> None:
    """State saved at batch 10, three more batches, a crash: the twin that never stopped decides the same, and one log replays."""
    rows = batches(24)
    settings = {"corridor": None, "settings": OptimisticFeasibleConfig(block=block)}
    first, twin = ThresholdBandit(**settings, log=tmp_path / "a.jsonl"), ThresholdBandit(**settings)
    for bandit in (first, twin):
        go(bandit, rows[:10], hide, late=True)
    saved = pickle.dumps(first.state_dict())
    for bandit in (first, twin):
        go(bandit, rows[10:13], hide, late=False)
    first.log.close()
    again = resume(tmp_path / "a.jsonl", pickle.loads(saved))
    assert again.round == 13 and len(again._waiting) == 10
    for bandit in (again, twin):
        for k in range(10):
            accepted = bandit._waiting[k].batch.accepted
            assert bandit.add_labels(k, np.where(accepted, rows[k]["labels"], np.nan))
    assert go(again, rows[13:], hide, late=False) == go(twin, rows[13:], hide, late=False)
    assert again.head == twin.head == verify(tmp_path / "a.jsonl")
    proof = replay(tmp_path / "a.jsonl")
    assert proof.decisions == 24 and proof.head == again.head
    # What was learned too, bit for bit.
    s, t = again._search.statistics, twin._search.statistics
    assert (s.reward_sum == t.reward_sum).all() and (s.seen == t.seen).all()
    assert all((again._scored._counts[k] == v).all() for k, v in twin._scored._counts.items())


def test_a_state_of_another_log_or_of_lines_that_are_gone_is_refused(tmp_path: Path) -> None:
    one, two = (ThresholdBandit(log=tmp_path / name) for name in ("one.jsonl", "two.jsonl"))
    go(one, batches(4), hide=False, late=False)
    go(two, batches(4, seed=1), hide=False, late=False)
    state = one.state_dict()
    for bandit in (one, two):
        bandit.log.close()
    with pytest.raises(AuditError, match="does not hold the state's head"):
        resume(tmp_path / "two.jsonl", state)
    whole = (tmp_path / "one.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "one.jsonl").write_bytes(b"".join(whole[:-2]))
    with pytest.raises(AuditError, match="does not hold the state's head"):
        resume(tmp_path / "one.jsonl", state)
    with pytest.raises(AuditError, match="lines were cut off"):
        resume(tmp_path / "one.jsonl", head=Head(**state["head"]))
    del state["round"]
    with pytest.raises(OfsError, match="state must have the entries"):
        resume(tmp_path / "two.jsonl", state)
    AuditLog(tmp_path / "two.jsonl").close()  # a refusal leaves no lock behind


def test_a_log_that_is_open_is_not_resumed_by_a_second_writer(tmp_path: Path) -> None:
    bandit = ThresholdBandit(log=tmp_path / "a.jsonl")
    with pytest.raises(AuditError, match="open for writing elsewhere"):
        resume(tmp_path / "a.jsonl")
    bandit.select()
    assert replay(tmp_path / "a.jsonl", bandit.head).decisions == 1


def test_a_new_log_names_the_head_that_its_state_came_from(tmp_path: Path) -> None:
    """Two files, one history: the second begins where the first ended."""
    first = ThresholdBandit(log=tmp_path / "a.jsonl")
    go(first, batches(3), hide=False, late=False)
    second = ThresholdBandit(log=tmp_path / "b.jsonl")
    second.load_state_dict(first.state_dict())
    event = list(read(tmp_path / "b.jsonl"))[1]
    assert event["event"] == "resume" and Head(**event["from"]) == first.head


def test_a_decision_dropped_from_a_line_is_named(tmp_path: Path) -> None:
    """A forged log that leaves out what a decision rested on does not pass for the true one."""
    true = ThresholdBandit(corridor=None)
    go(true, batches(5), hide=True, late=False)
    forged = AuditLog(tmp_path / "forged.jsonl")
    for event in true.log.events():
        facts = {k: v for k, v in event.items() if k not in ("event", "prev", "seq", "hash")}
        facts.pop("plays", None)
        forged.append(event["event"], facts)
    forged.close()
    with pytest.raises(AuditError, match="does not come out again: plays is None in the log"):
        replay(tmp_path / "forged.jsonl")


@pytest.mark.parametrize(
    "change", [{"residuals": ...}, {"arm": 99}, {"reward": "much"}, {"people": None}], ids=str
)
def test_a_forged_event_that_nothing_can_be_learned_from_is_named(change: dict, tmp_path: Path) -> None:
    """The chain fits, the content does not: an AuditError with the line, whatever is wrong with it."""
    true = ThresholdBandit(corridor=None)
    go(true, batches(3), hide=True, late=False)
    forged = AuditLog(tmp_path / "forged.jsonl")
    for event in true.log.events():
        facts = {k: v for k, v in event.items() if k not in ("event", "prev", "seq", "hash")}
        if event["event"] == "fit":
            facts = {k: v for k, v in {**facts, **change}.items() if v is not ...}
        forged.append(event["event"], facts)
    forged.close()
    with pytest.raises(AuditError, match="line 3: this 'fit' event cannot be learned from"):
        replay(tmp_path / "forged.jsonl")


def test_a_log_that_is_not_there_is_named_and_not_made(tmp_path: Path) -> None:
    for reader in (replay, resume):
        with pytest.raises(AuditError, match="no such log|cannot be read"):
            reader(tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()
