"""Rebuild a bandit from its audit log and check that every decision comes out again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np

from sfumato_ofs.audit import AuditLog, Head, read
from sfumato_ofs.config import ObservedScoresConfig, OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import AuditError
from sfumato_ofs.threshold_bandit import STATE_VERSION, ThresholdBandit


@attrs.frozen
class Replay:
    """A verified replay: the rebuilt bandit (logging to memory), decisions checked, and the log's head."""

    bandit: ThresholdBandit
    decisions: int
    head: Head


def replay(path: str | Path) -> Replay:
    """Verify the chain, rebuild the state from the log alone and compare every decision.

    Raises: AuditError naming the line whose decision does not come out, or the line that was altered.

    Notes: batches that still wait for labels keep only what the log holds (counts), so their labels can no longer be
    added. A log that contains `resume` starts from a state outside the log and cannot be replayed.
    """
    events = read(path)
    first = next(events, None)
    if first is None or first["event"] != "open":
        raise AuditError(
            f"{path}: expected an 'open' event on line 1, got {None if first is None else first['event']!r}"
        )
    if first["version"] != STATE_VERSION:
        raise AuditError(
            f"{path}: version {first['version']} of the log is not {STATE_VERSION}, which this release reads"
        )
    bandit = rebuild(first["settings"])
    decisions, head = 0, Head(1, first["hash"])
    for event in events:
        line = event["seq"] + 1
        if event["event"] == "select":
            bandit.select()
            ours = bandit.log.last
            odd = [k for k in event if k not in ("hash", "prev", "seq") and ours.get(k) != event[k]]
            if odd:
                raise AuditError(
                    f"{path}: line {line}: the decision does not come out again: {odd[0]} is {event[odd[0]]!r} in the log "
                    f"and {ours.get(odd[0])!r} on replay"
                )
            decisions += 1
        elif event["event"] == "fit":
            _fit(bandit, event)
        elif event["event"] == "labels":
            _labels(bandit, event)
        elif event["event"] == "resume":
            raise AuditError(f"{path}: line {line}: the bandit resumed from a state that is not in this log")
        elif event["event"] != "empty":
            raise AuditError(f"{path}: line {line}: unknown event {event['event']!r}")
        head = Head(event["seq"] + 1, event["hash"])
    return Replay(bandit, decisions, head)


def resume(path: str | Path) -> ThresholdBandit:
    """Return the bandit that a log left behind, ready to go on writing to the same log."""
    bandit = replay(path).bandit
    bandit.log = AuditLog(path)
    return bandit


def rebuild(settings: dict[str, Any]) -> ThresholdBandit:
    """Return a fresh bandit with a log's settings, logging to memory."""
    given = dict(settings)
    given["constraints"] = Constraints(**given["constraints"])
    if given["settings"] is not None:
        given["settings"] = OptimisticFeasibleConfig(**given["settings"])
    if given["observed"] is not None:
        given["observed"] = ObservedScoresConfig(**given["observed"])
    return ThresholdBandit(**given)


def _number(x: float | None) -> float:
    return float("nan") if x is None else x


def _fit(bandit: ThresholdBandit, event: dict[str, Any]) -> None:
    if event["mode"] == "observed-scores":
        bandit._scored.add(
            {k: np.array(v, dtype=np.float64) for k, v in event["counts"].items()}, event["arm"]
        )
    else:
        rates = None if event["rates"] is None else np.array([_number(r) for r in event["rates"]])
        bandit._search.update_one(
            event["arm"],
            _number(event["reward"]),
            [_number(g) for g in event["residuals"]],
            rates,
            event["n"] / bandit.batch_size,
        )
    bandit._mode = event["mode"]
    bandit._next_batch = event["batch"] + 1


def _labels(bandit: ThresholdBandit, event: dict[str, Any]) -> None:
    if event["mode"] == "observed-scores":
        bandit._scored.add_labels({k: np.array(v, dtype=np.float64) for k, v in event["counts"].items()})
    elif event["complete"]:
        bandit._search.add_late_reward(event["arm"], _number(event["reward"]), event["n"] / bandit.batch_size)
