"""A memory limit kept by the kernel, where this process may make control groups (version 1 or 2)."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OURS = Path("/proc/self/cgroup")
CGROUP = "SFUMATO_CGROUP"
"""Environment variable that tells a worker which group to enter."""


class Group:
    """One control group with a memory limit; the worker enters it by itself, before it imports anything."""

    def __init__(self, path: Path, version: int = 1) -> None:
        self.path = path
        self.version = version

    @classmethod
    def make(cls, name: str, limit_bytes: int) -> Group | None:
        """Return a new group with a limit on memory, None where none can be made."""
        for base, version in _bases():
            path = base / f"sfumato-{name}"
            try:
                path.mkdir()
            except OSError:
                continue
            group = cls(path, version)
            try:
                group.limit(limit_bytes)
                os.close(os.open(group.entrance, os.O_WRONLY))
            except OSError:
                group.remove()
                continue
            return group
        return None

    @property
    def entrance(self) -> str:
        """The file that a process writes 0 to, so as to enter."""
        return str(self.path / "cgroup.procs")

    def limit(self, limit_bytes: int) -> None:
        """Set the limit; swap is no way around it where the kernel counts swap."""
        if self.version == 2:
            (self.path / "memory.max").write_text(str(limit_bytes))
            with suppress(OSError):
                (self.path / "memory.swap.max").write_text("0")
        else:
            (self.path / "memory.limit_in_bytes").write_text(str(limit_bytes))
            with suppress(OSError):
                (self.path / "memory.memsw.limit_in_bytes").write_text(str(limit_bytes))

    def kills(self) -> int:
        """Return how many processes the kernel has killed for passing the limit."""
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        with suppress(OSError, ValueError):
            for line in (self.path / name).read_text().splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
        return 0

    def kill(self) -> None:
        """Kill whoever is in the group: nobody leaves one by a new session, another parent or another environment."""
        with suppress(OSError):
            for line in (self.path / "cgroup.procs").read_text().split():
                if int(line) != os.getpid():
                    with suppress(ProcessLookupError):
                        os.kill(int(line), signal.SIGKILL)

    def remove(self) -> None:
        """Take the group away. Processes that were just killed may take a moment to leave it."""
        for _ in range(50):
            try:
                self.path.rmdir()
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(0.02)
            else:
                return


def _bounded(group: Path) -> bool:
    """Return whether a group of version 2 has a limit of its own."""
    for name in ("memory.max", "memory.high", "memory.swap.max", "cpu.max", "pids.max"):
        with suppress(OSError):
            if (group / name).read_text().split()[:1] != ["max"]:
                return True
    return False


@lru_cache(maxsize=1)
def _bases() -> tuple[tuple[Path, int], ...]:
    """Return the folders in which new groups might be made.

    Version 2: no group that holds processes may hand memory on to groups of its own, so ours is made beside our own
    one, in the parent, unless that would free us from a limit which our own group has.
    """
    found = []
    with suppress(OSError):
        for line in OURS.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            inside = path.lstrip("/")
            if controllers == "":
                own = ROOT / inside
                for base in (own, own.parent) if inside and not _bounded(own) else (own,):
                    with suppress(OSError):
                        if "memory" in (base / "cgroup.subtree_control").read_text().split():
                            found.append((base, 2))
            elif "memory" in controllers.split(","):
                base = ROOT / "memory" / inside
                found.append((base if base.is_dir() else ROOT / "memory", 1))
    return tuple(found)
