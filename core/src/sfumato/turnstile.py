"""Keeps runs whose time is the result from running beside others, across every sweep of this user on this machine.

Two file locks: a run holds `timing.lock`, shared, or alone when its time is the result. Whoever wants it passes
`timing.gate` first and holds that while it waits, so that a run that must be alone is not kept out for ever by a
stream of others.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from sfumato.claims import Stop
from sfumato.errors import StoreError

WAIT_SECONDS = 0.05
SILENT_SECONDS = 1.0
"""Whoever waits for longer is told."""


def folder() -> Path:
    """Return where the locks lie: the directory for temporary files, which every sweep on this machine shares."""
    return Path(tempfile.gettempdir()) / f"sfumato-locks-{os.getuid()}"


@contextmanager
def place(
    alone: bool, stop: threading.Event | Stop, on_wait: Callable[[str], None] = lambda why: None
) -> Iterator[bool]:
    """Hold a place on this machine; yields False when `stop` was set before there was one.

    `on_wait` is called once, with the reason, when that takes more than a second.
    """
    with ExitStack() as stack:
        try:
            folder().mkdir(mode=0o700, exist_ok=True)
            gate = stack.enter_context((folder() / "timing.gate").open("w"))
            lock = stack.enter_context((folder() / "timing.lock").open("w"))
        except OSError as error:
            raise StoreError(
                f"the locks that keep timed runs alone cannot be opened in {folder()}: {error.strerror}. Point TMPDIR to "
                "a folder that can be written."
            ) from error
        late = _Late(on_wait, "waits until other runs on this machine end" if alone else "waits for a run that is timed")
        kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        yielded = _acquire(gate, fcntl.LOCK_EX, stop, late) and _acquire(lock, kind, stop, late)
        gate.close()
        yield yielded


class _Late:
    """Tells once that one has waited for long."""

    def __init__(self, on_wait: Callable[[str], None], why: str) -> None:
        self._on_wait, self._why = on_wait, why
        self._due: float | None = time.monotonic() + SILENT_SECONDS

    def look(self) -> None:
        if self._due is not None and time.monotonic() > self._due:
            self._due = None
            self._on_wait(self._why)


def _acquire(file: IO[str], kind: int, stop: threading.Event | Stop, late: _Late) -> bool:
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            late.look()
            if stop.wait(WAIT_SECONDS):
                return False
