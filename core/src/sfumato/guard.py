"""What a worker does before anything else: keep to itself what is its supervisor's, and never outlive it.

A guardian is forked off while the worker is still a bare interpreter, without threads and before any GPU library is
loaded. It waits for the supervisor's end of the pipe to close, which happens also when the supervisor is killed, and
then kills all that the worker started. It needs nothing from the worker: not its signal handlers, not its GIL.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from pathlib import Path

from sfumato.cgroups import CGROUP, Group
from sfumato.processes import MARKER, Tree


def guard() -> int:
    """Fork the guardian of this process; file descriptor 0 must be a pipe from the supervisor. Return its pid."""
    worker = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            _watch(worker)
        finally:
            os._exit(0)
    return pid


def dismiss(guardian: int) -> None:
    """End the guardian and reap it."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(guardian, signal.SIGKILL)
        os.waitpid(guardian, 0)


def _watch(worker: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    poll = select.poll()
    poll.register(0, 0)  # no event asked for: only that the other end was closed is told
    poll.poll()
    tree = Tree(worker, os.environ.get(MARKER, ""))
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGSTOP)  # it starts nothing more while we look
    tree.kill_children()
    with suppress(ProcessLookupError):
        os.kill(worker, signal.SIGKILL)
    tree.kill_strays()
    if entrance := os.environ.get(CGROUP):
        group = Group(Path(entrance).parent)
        group.kill()
        group.remove()
    os.killpg(os.getpgrp(), signal.SIGKILL)
