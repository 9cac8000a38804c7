"""Rebuild a bandit from its audit log and check that every decision comes out again."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from sfumato_ofs.audit import AuditLog, Head, read, verify
from sfumato_ofs.bandit_state import check_state
from sfumato_ofs.config import ObservedScoresConfig, OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import AuditError, OfsError
from sfumato_ofs.threshold_bandit import STATE_VERSION, ThresholdBandit


@attrs.frozen
class Replay:
    """A verified replay: the rebuilt bandit (logging to memory), decisions checked, and the log's head."""

    bandit: ThresholdBandit
    decisions: int
    head: Head


def replay(path: str | Path, head: Head | None = None) -> Replay:
    """Verify the chain, rebuild the state from the log alone and compare every decision.

    Arguments:
        head: a head exported earlier; a log that no longer holds it was cut off or is another one.

    Raises: AuditError naming the line whose decision does not come out, or the line that was altered.

    Notes: batches that still wait for labels keep only what the log holds (counts), so their labels can no longer be
    added; `resume` with a state keeps them. A log that contains `resume` starts from a state outside the log and cannot be
    replayed.
    """
    events = read(path, head)
    first = next(events, None)
    if first is None or first["event"] != "open":
        raise AuditError(
            f"{path}: expected an 'open' event on line 1, got {None if first is None else first['event']!r}"
        )
    if first.get("version") != STATE_VERSION or "settings" not in first:
        raise AuditError(
            f"{path}: version {first.get('version')!r} of the log is not {STATE_VERSION}, which this release reads"
        )
    bandit = rebuild(first["settings"])
    decisions, last = 0, Head(1, first["hash"])
    for event in events:
        decisions += _repeat(bandit, event, str(path))
        last = Head(event["seq"] + 1, event["hash"])
    return Replay(bandit, decisions, last)


def _repeat(bandit: ThresholdBandit, event: Mapping[str, Any], path: str) -> bool:
    """Let the bandit go through one event of a log; return whether it was a decision, which then came out again."""
    line, kind = event["seq"] + 1, event["event"]
    if kind == "select":
        bandit.select()
        ours = bandit.log.last
        keys = (set(event) | set(ours)) - {"hash", "prev", "seq"}
        odd = sorted(k for k in keys if ours.get(k) != event.get(k))
        if odd:
            # What was chosen says more than what it rested on.
            name = next((k for k in ("tau", "reason") if k in odd), odd[0])
            raise AuditError(
                f"{path}: line {line}: the decision does not come out again: {name} is {event.get(name)!r} in the log "
                f"and {ours.get(name)!r} on replay"
            )
        return True
    if kind in ("fit", "labels"):
        learn = bandit._learn if kind == "fit" else bandit._learn_labels
        try:
            learn(event)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise AuditError(
                f"{path}: line {line}: this {kind!r} event cannot be learned from: {error!r}"
            ) from error
    elif kind == "resume":
        raise AuditError(f"{path}: line {line}: the bandit resumed from a state that is not in this log")
    elif kind != "empty":
        raise AuditError(f"{path}: line {line}: unknown event {kind!r}")
    return False


def resume(
    path: str | Path, state: Mapping[str, Any] | None = None, head: Head | None = None
) -> ThresholdBandit:
    """Return the bandit that a log left behind, ready to go on writing to the same log.

    Arguments:
        state: a `state_dict` of the bandit that wrote this log. Batches that waited for labels then still can be completed,
            and lines written after the state are gone through again. Without it everything is rebuilt from the log alone.
        head: a head exported earlier, which the log must still hold.

    Raises: AuditError when the log does not verify, or does not hold the state's head; OfsError when the state is damaged.
    """
    if not Path(path).exists():  # opening it for more lines would make an empty one
        raise AuditError(f"{path}: there is no such log")
    log = AuditLog(path)  # locks the file first, so that nobody writes while it is read
    try:
        bandit = replay(path, head).bandit if state is None else _from_state(path, state, head)
    except BaseException:
        log.close()
        raise
    bandit.log = log
    return bandit


def _from_state(path: str | Path, state: Mapping[str, Any], head: Head | None) -> ThresholdBandit:
    verify(path, head)
    events = read(path)
    first = next(events, None)
    if first is None or first["event"] != "open" or first.get("version") != STATE_VERSION:
        raise AuditError(f"{path}: expected an 'open' event of version {STATE_VERSION} on line 1")
    bandit = rebuild(first["settings"])
    check_state(state, bandit.state_dict())
    at = Head(**state["head"])
    bandit._load(copy.deepcopy(dict(state)))
    held = at == Head(1, first["hash"])
    for event in events:
        if held:
            _repeat(bandit, event, str(path))
        held = held or at == Head(event["seq"] + 1, event["hash"])
    if not held:
        raise AuditError(
            f"{path}: the log does not hold the state's head (line {at.lines}, {at.hash[:12]}): the state is of another log, or "
            "lines were cut off"
        )
    return bandit


def rebuild(settings: Mapping[str, Any]) -> ThresholdBandit:
    """Return a fresh bandit with a log's settings, logging to memory.

    Raises: AuditError when the settings are none of this release.
    """
    given = dict(settings)
    try:
        given["constraints"] = Constraints(**given["constraints"])
        if given["settings"] is not None:
            given["settings"] = OptimisticFeasibleConfig(**given["settings"])
        if given["observed"] is not None:
            given["observed"] = ObservedScoresConfig(**given["observed"])
        return ThresholdBandit(**given)
    except (KeyError, TypeError, OfsError) as error:
        raise AuditError(f"the log's settings do not make a bandit: {error}") from error
