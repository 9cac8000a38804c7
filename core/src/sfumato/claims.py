"""Who is making a run: claims that outlive nobody.

A claim is a file made by exclusive creation. On one machine its owner is told by pid and start time (a reused pid is
another process), across machines by a lease: the owner touches the file every HEARTBEAT_SECONDS, and a claim not
touched for LEASE_SECONDS has lost its owner.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs

HEARTBEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0


@attrs.frozen
class Owner:
    """Who holds a claim: process, its start time, the machine's boot and the pid namespace (containers share hosts)."""

    host: str
    pid: int
    start_time: int
    boot_id: str
    namespace: str = ""

    @classmethod
    def me(cls) -> Owner:
        """Return this process."""
        host, boot_id, namespace = _machine()
        return cls(host, os.getpid(), start_time(os.getpid()) or 0, boot_id, namespace)

    @classmethod
    def of(cls, data: Any) -> Owner | None:
        """Return the owner that a claim file names, None when it names none."""
        try:
            owner = cls(**data)
            return owner if isinstance(owner.pid, int) and isinstance(owner.host, str) else None
        except TypeError:
            return None

    def alive(self) -> bool | None:
        """Return whether the owner still runs; None when only its lease can tell, because it is not of this machine."""
        if (self.host, self.boot_id, self.namespace) != _machine():
            return None
        if self.start_time == 0:  # no /proc here
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                return True
            return True
        return start_time(self.pid) == self.start_time


def owner_of(path: Path) -> Owner | None:
    """Return whose claim a file is, None when there is none or it names nobody."""
    try:
        return Owner.of(json.loads(path.read_text(encoding="utf-8"))["owner"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


@lru_cache(maxsize=1)
def _machine() -> tuple[str, str, str]:
    boot_id = namespace = ""
    with suppress(OSError):
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return os.uname().nodename, boot_id, namespace


def start_time(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot, or None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def expired(path: Path) -> bool:
    """Return whether a claim's lease has run out, by the clock of the machine that holds the files."""
    try:
        touched = path.stat().st_mtime
    except OSError:
        return False
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".clock.") as probe:
            now = os.fstat(probe.fileno()).st_mtime
    except OSError:  # read-only: our own clock must do
        now = time.time()
    return now - touched > LEASE_SECONDS


def touch(path: Path) -> None:
    """Renew a lease; a claim that was taken away meanwhile is left alone."""
    with suppress(OSError):
        os.utime(path)


class Stop:
    """Asked to stop by the user, or by the loss of what one was working on."""

    def __init__(self, asked: threading.Event) -> None:
        self._asked = asked
        self.lost = threading.Event()

    def is_set(self) -> bool:
        return self._asked.is_set() or self.lost.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait so long at most; return whether to stop."""
        return self.lost.is_set() or self._asked.wait(seconds) or self.lost.is_set()


@contextmanager
def heartbeat(path: Path, lost: threading.Event) -> Iterator[None]:
    """Renew the lease on a claim of ours, from a thread; sets `lost` when the claim has become another's.

    That happens to a process that was asleep for longer than the lease: it must not go on beside its successor.
    """
    ended = threading.Event()
    me = Owner.me()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_SECONDS):
            if (owner := owner_of(path)) is not None and owner != me:
                lost.set()
                return
            touch(path)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
