"""Which isolation level this machine permits, and why not a higher one."""

from __future__ import annotations

import functools
import json
import pathlib
import subprocess
import sys

from sfumato_sandbox.errors import IsolationUnavailable
from sfumato_sandbox.records import Isolation

PROBE = pathlib.Path(__file__).with_name("_inside") / "probe.py"
NAMESPACES = (("user", 0x10000000), ("pid", 0x20000000), ("net", 0x40000000), ("ipc", 0x8000000))

NAMESPACE_FLAGS = sum(flag for _, flag in NAMESPACES)


@functools.cache
def _probe() -> tuple[int, bool, tuple[str, ...], tuple[str, ...]]:
    """Return (Landlock ABI, seccomp usable, namespaces permitted, reasons for what is missing)."""
    if sys.platform != "linux":
        return 0, False, (), (f"{sys.platform} has neither Landlock, seccomp nor namespaces",)
    from sfumato_sandbox import seccomp

    missing = []
    program = b""
    try:
        program = seccomp.zygote_program()
    except IsolationUnavailable as error:
        missing.append(str(error))
    # In a process of its own: these tries cannot be undone, and the host may have threads.
    answer = subprocess.run(
        [sys.executable, "-S", "-P", "-s", str(PROBE), str(NAMESPACE_FLAGS)],
        input=program.hex(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found = json.loads(answer.stdout)
    if not found["landlock_abi"]:
        missing.append("the kernel has no Landlock (it came with 5.13; it must also be in the lsm= list)")
    if program and not found["seccomp"]:
        missing.append(
            "the kernel refuses a seccomp filter (gVisor, or a kernel without CONFIG_SECCOMP_FILTER)"
        )
    if not found["namespaces"]:
        missing.append(
            "unprivileged user namespaces are refused (Docker's default profile, or "
            "kernel.apparmor_restrict_unprivileged_userns=1, or user.max_user_namespaces=0)"
        )
    permitted = tuple(name for name, _ in NAMESPACES) if found["namespaces"] else ()
    return found["landlock_abi"], found["seccomp"], permitted, tuple(missing)


def isolation(requested: int, strict: bool) -> Isolation:
    """Return the isolation that will hold when level `requested` is asked for.

    Levels: 0 a process of its own; 1 adds resource limits, seccomp and Landlock; 2 adds namespaces
    (user, pid, net, ipc). Raises ValueError for another number, and IsolationUnavailable when
    `strict` and the machine permits less. Without `strict` the level that holds is returned, and
    recorded in every result.
    """
    if requested not in (0, 1, 2):
        raise ValueError(f"isolation level must be 0, 1 or 2, got {requested!r}")
    abi, seccomp, namespaces, missing = _probe()
    level = 0
    if abi and seccomp:
        level = 2 if namespaces else 1
    if strict and level < requested:
        raise IsolationUnavailable(
            f"isolation level {requested} was asked for with strict, but this machine permits {level}: "
            f"{'; '.join(missing)}. Ask for level {level}, or leave strict out and read the level in the results."
        )
    return Isolation(min(level, requested), requested, abi, seccomp, namespaces, missing)
