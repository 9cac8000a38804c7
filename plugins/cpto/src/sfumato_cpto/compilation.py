"""Compilation kept apart from computation.

A process that compiles runs other machine code than one that loads what was compiled before: helpers which both a module and its
callers contain are linked in another order, and the last bits of sums differ. So that the same input gives the same bits from
the first run on, compilation is left to a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

PROGRAM = "from sfumato_cpto import CPTOSolver; CPTOSolver().warm_up(apart=False)"


def _entries() -> list[Any]:
    from sfumato_cpto import activeset, coldstart, kernel_numba, polish

    return [kernel_numba._run, coldstart._roll, activeset.solve, polish.tangents]


def kept() -> bool:
    """Return whether what is called from Python lies in numba's cache, made from the sources as they are."""
    try:
        return all(entry._cache._cache_file._load_index() for entry in _entries())
    except (AttributeError, OSError):  # no cache that can be read: then there is nothing to load either
        return False


def compile_apart(run: Callable[..., Any] = subprocess.run) -> bool:
    """Compile in a child process unless that has been done; return whether this process can load the result.

    Where the child fails (no place for the cache can be written), this process compiles for itself, which changes the last
    bits of results and nothing else.
    """
    if kept():
        return True
    path = os.pathsep.join(entry for entry in sys.path if entry)
    try:
        run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "PYTHONPATH": path},
            check=False,
            capture_output=True,
        )
    except OSError:  # no second process to be had
        return False
    return kept()
