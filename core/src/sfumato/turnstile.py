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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from sfumato.claims import Stop
from sfumato.errors import StoreError

WAIT_SECONDS = 0.05


def folder() -> Path:
    """Return where the locks lie: the directory for temporary files, which every sweep on this machine shares."""
    return Path(tempfile.gettempdir()) / f"sfumato-locks-{os.getuid()}"


@contextmanager
def place(alone: bool, stop: threading.Event | Stop) -> Iterator[bool]:
    """Hold a place on this machine; yields False when `stop` was set before there was one."""
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
        yielded = _acquire(gate, fcntl.LOCK_EX, stop) and _acquire(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, stop)
        gate.close()
        yield yielded


def _acquire(file: IO[str], kind: int, stop: threading.Event | Stop) -> bool:
    while True:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if stop.wait(WAIT_SECONDS):
                return False
