"""A control group for all processes of an interpreter together, where the system lets us make one.

Resource limits bound each process; this bounds their sum. Both kernel interfaces are known: version 1 with a
hierarchy for each controller, version 2 with one for all. Making a group takes root or a delegated subtree.
"""

from __future__ import annotations

import contextlib
import pathlib
import secrets
import time

from sfumato_sandbox.errors import IsolationUnavailable

MOUNT = pathlib.Path("/sys/fs/cgroup")
FILES = {
    1: {"memory": "memory.limit_in_bytes", "pids": "pids.max"},
    2: {"memory": "memory.max", "pids": "pids.max"},
}


class ControlGroup:
    """A group that holds at most `memory_bytes` and `processes` (threads count too); None: no limit.

    When the memory is used up the kernel kills one of the group's processes, usually the largest; it may
    be the warmed one, and then all sessions end. Choose it well above a session's own limit.

    Raises IsolationUnavailable where the system does not let this user make a group.
    """

    def __init__(self, memory_bytes: int | None, processes: int | None) -> None:
        wanted = {"memory": memory_bytes, "pids": processes}
        self.folders: list[pathlib.Path] = []
        name = f"sfumato-{secrets.token_hex(6)}"
        try:
            for controller, limit in wanted.items():
                if limit is None:
                    continue
                version, parent = _parent(controller)
                folder = parent / name
                if folder not in self.folders:
                    folder.mkdir()
                    self.folders.append(folder)
                (folder / FILES[version][controller]).write_text(str(limit))
        except OSError as error:
            self.close()
            raise IsolationUnavailable(
                f"a control group was asked for (total_memory_bytes, total_processes), but this system does not let "
                f"us make one: {error}. Run as root or in a delegated subtree (systemd-run --user -p Delegate=yes), "
                "or leave these limits out."
            ) from error

    def add(self, pid: int) -> None:
        """Move a process, and with it all that it forks from now on, into the group."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def close(self) -> None:
        """Remove the group; its processes must have ended."""
        for folder in self.folders:
            for _ in range(20):  # the kernel lets go of a dead process a moment later
                with contextlib.suppress(OSError):
                    folder.rmdir()
                if not folder.exists():
                    break
                time.sleep(0.01)
        self.folders = []


def _parent(controller: str) -> tuple[int, pathlib.Path]:
    """Return the interface's version and the group that this process is in, for one controller."""
    own = {}
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            own[name] = path
    if controller in own:
        return 1, MOUNT / controller / own[controller].lstrip("/")
    return 2, MOUNT / own.get("", "/").lstrip("/")
