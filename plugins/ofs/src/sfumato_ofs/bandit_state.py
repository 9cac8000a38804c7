"""The state of a `ThresholdBandit`: which parts move, and whether a state that comes from outside is whole."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np

from sfumato_ofs.batches import Batch
from sfumato_ofs.errors import OfsError
from sfumato_ofs.scored_stream import ScoredStream
from sfumato_ofs.stream import StreamSearch

_SEARCH = (
    "reason", "_swept", "_decisions", "_held", "_held_for", "_current", "_alarms", "_cusum", "_late", "_away",
    "_incumbent_mean", "_reward_mean", "_reward_root", "_residual_mean", "_residual_root",
)  # fmt: skip
_STATISTICS = (
    "round", "plays", "rewarded", "reward_sum", "seen", "residual_sum", "upper_reward", "lower", "worst", "violation", "_ring",
)  # fmt: skip
_RATES = ("seen", "total", "_ring", "_round")
_PERSONS = ("count", "accepted", "rewarded", "reward", "square")
_COUNTS = frozenset(
    ("selected", "plays", "rewarded", "seen", "total", "groups", "people", "labelled", "good", "squares", "people_squares")
    + ("count", "accepted", "square", "round", "next_batch", "_round", "_decisions", "_held_for", "_alarms")
)  # fmt: skip


_FINITE = frozenset(("reward_sum", "residual_sum", "reward"))


@attrs.frozen
class Waiting:
    """A batch whose labels are not all known: its arm, the people, and whether the search learned from it."""

    arm: int
    batch: Batch
    learned: bool


def parts(search: StreamSearch, scored: ScoredStream) -> dict[str, Any]:
    """Return what moves in the two learners."""
    return {
        "search": {name: getattr(search, name) for name in _SEARCH},
        "statistics": {name: getattr(search.statistics, name) for name in _STATISTICS},
        "rates": None if search._rates is None else {name: getattr(search._rates, name) for name in _RATES},
        "persons": None
        if search._persons is None
        else {name: getattr(search._persons, name) for name in _PERSONS},
        "scored": scored.state(),
    }


def load_parts(state: Mapping[str, Any], search: StreamSearch, scored: ScoredStream) -> None:
    """Put back what `parts` returned."""
    for thing, name in (
        (search, "search"),
        (search.statistics, "statistics"),
        (search._rates, "rates"),
        (search._persons, "persons"),
    ):
        if thing is not None:
            vars(thing).update(state[name])
    scored.load(state["scored"])


def check_state(state: object, own: Mapping[str, Any]) -> None:
    """Raise OfsError naming the first entry of a state that does not fit a bandit whose own state is given.

    Looks at versions, settings, names, types, shapes, and that counts are finite and not negative.
    """
    if not isinstance(state, Mapping):
        raise OfsError(f"state must be a mapping made by state_dict, got {type(state).__name__}")
    if state.get("version") != own["version"]:
        raise OfsError(f"state must be of version {own['version']}, got {state.get('version')!r}")
    settings = state.get("settings")
    if settings != own["settings"]:
        theirs = settings if isinstance(settings, Mapping) else {}
        odd = [k for k, v in own["settings"].items() if theirs.get(k) != v]
        raise OfsError(f"state belongs to a bandit with another {odd[0] if odd else 'set of settings'}")
    if state.get("mode") not in (None, "ofs", "observed-scores"):
        raise OfsError(f"state['mode'] must be None, ofs or observed-scores, got {state['mode']!r}")
    free = {"settings", "mode", "proposal", "waiting"}
    _alike(
        "state",
        {k: v for k, v in state.items() if k not in free},
        {k: v for k, v in own.items() if k not in free},
    )
    if not (state.get("proposal") is None or isinstance(state["proposal"], float)):
        raise OfsError(f"state['proposal'] must be a threshold or None, got {state['proposal']!r}")
    waiting = state.get("waiting")
    if not isinstance(waiting, Mapping) or not all(
        type(k) is int
        and 0 <= k < state["next_batch"]
        and isinstance(w, Waiting)
        and isinstance(w.batch, Batch)
        and 0 <= w.arm < len(own["selected"])
        for k, w in waiting.items()
    ):
        raise OfsError(
            "state['waiting'] must map numbers of earlier batches to the batches that wait for labels"
        )


def _alike(name: str, theirs: Any, own: Any) -> None:
    last = name.rsplit("'", 2)[-2] if name.endswith("']") else name
    if isinstance(own, Mapping):
        if not isinstance(theirs, Mapping) or theirs.keys() != own.keys():
            given = set(theirs) if isinstance(theirs, Mapping) else set()
            raise OfsError(
                f"{name} must have the entries that state_dict gives; missing {sorted(set(own) - given)}, unknown "
                f"{sorted(map(str, given - set(own)))}"
            )
        for key in own:
            _alike(f"{name}[{key!r}]", theirs[key], own[key])
    elif last in ("_held", "_ring", "_late"):
        kind = deque if last != "_held" else (np.ndarray, type(None))
        if not isinstance(theirs, kind):  # type: ignore[arg-type]
            raise OfsError(f"{name} must be as state_dict gives it, got {type(theirs).__name__}")
    elif isinstance(own, np.ndarray):
        if not isinstance(theirs, np.ndarray) or theirs.shape != own.shape or theirs.dtype != own.dtype:
            got = (
                f"{theirs.dtype} {theirs.shape}" if isinstance(theirs, np.ndarray) else type(theirs).__name__
            )
            raise OfsError(f"{name} must be an array {own.dtype} {own.shape}, got {got}")
    elif type(theirs) is not type(own):
        raise OfsError(f"{name} must be {type(own).__name__}, got {type(theirs).__name__}")
    if last in _COUNTS and not isinstance(own, Mapping):
        values = np.asarray(theirs, dtype=np.float64)
        if not (np.isfinite(values) & (values >= -1e-9)).all():
            raise OfsError(f"{name} must be finite and not negative")
    if last in _FINITE and not np.isfinite(theirs).all():
        raise OfsError(f"{name} must be finite")
