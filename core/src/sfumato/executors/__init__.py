"""Executors start workers somewhere; results travel through the store. Entry-point group `sfumato.executors`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol

from sfumato.errors import UnknownName, did_you_mean
from sfumato.store import Store
from sfumato.supervisor import Job, Listener

__all__ = ["Executor", "Listener", "executor"]

GROUP = "sfumato.executors"


class Executor(Protocol):
    """Makes every job's record appear in the store, by `supervisor.settle` in a process that may be anywhere."""

    def run(self, store: Store, jobs: Sequence[Job], listener: Listener, stop: threading.Event) -> None: ...


def executor(name: str, **options: Any) -> Executor:
    """Return the executor registered under a name; raises UnknownName."""
    points = {p.name: p for p in entry_points(group=GROUP)}
    if name not in points:
        raise UnknownName(f"no executor {name!r} is installed.{did_you_mean(name, points)} There are: {', '.join(points)}.")
    make: Callable[..., Executor] = points[name].load()
    return make(**options)
