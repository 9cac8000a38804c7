"""A process and all that came from it: seen, measured and ended, also what left the process group.

Linux: read from /proc. Elsewhere a tree is its process group, and its memory is not known.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from sfumato.claims import start_time

MARKER = "SFUMATO_WORKER"
"""Environment variable that a worker's descendants inherit, whatever session or parent they move to."""
HAS_PROC = Path("/proc/self/statm").exists()
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Tree:
    """The processes that descend from one, remembered from look to look, so that orphans stay known."""

    def __init__(self, pid: int, marker: str) -> None:
        self.pid = pid
        self._marker = marker
        self._known: dict[int, int] = {}  # pid -> start time: a reused pid is a stranger
        self.ignored: frozenset[int] = frozenset()  # whose memory is not the run's
        self.peak_mb = 0.0

    def look(self) -> float:
        """Note who belongs to the tree now; return its resident size in MB (10^6 bytes)."""
        if not HAS_PROC:
            return 0.0
        pages = 0
        found: dict[int, int] = {}
        front = [self.pid, *(p for p, born in self._known.items() if start_time(p) == born)]
        while front:
            pid = front.pop()
            if pid in found or (born := start_time(pid)) is None:
                continue
            found[pid] = born
            with suppress(OSError, ValueError, IndexError):
                pages += pid not in self.ignored and int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            front.extend(_children(pid))
        self._known = found
        size = pages * _PAGE / 1e6
        self.peak_mb = max(self.peak_mb, size)
        return size

    def kill_children(self, spare: frozenset[int] = frozenset()) -> None:
        """Kill every descendant but the root that is known now: while the root lives, its children are told by it."""
        if HAS_PROC:
            self.look()
            self._kill(self._known.keys() - spare)

    def kill_strays(self) -> None:
        """Kill whoever is left, also those that changed session and parent: they carry the marker."""
        if not HAS_PROC:
            return
        for _ in range(20):
            if not self._kill({*self._known, *marked(self._marker)}):
                return
            time.sleep(0.005)  # who was born while we looked is found the next time

    def _kill(self, pids: Iterable[int]) -> int:
        count = 0
        for pid in set(pids) - {self.pid, os.getpid()}:
            born = start_time(pid)
            if born is not None and self._known.get(pid, born) == born:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
                    count += 1
        return count


def adopt() -> None:
    """Have orphans among the descendants of this process become its own children (Linux).

    Then they are seen from outside as long as it lives, though they changed session and cleared their environment.
    """
    if HAS_PROC:
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: <linux/prctl.h>


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                found.extend(map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split()))
    return found


def marked(marker: str) -> list[int]:
    """Return the processes whose environment holds `marker`. Costs a read for each process of the machine."""
    wanted = f"{MARKER}={marker}".encode()
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                if wanted in Path(f"/proc/{name}/environ").read_bytes():
                    found.append(int(name))
    return found
