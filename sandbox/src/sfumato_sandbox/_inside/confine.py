"""The kernel's confinement, through ctypes: no_new_privs, capabilities, Landlock, seccomp, namespaces.

Everything here acts on the calling process and cannot be undone by it. Called by the zygote before
it forks, and by each child before it runs a line of code that nobody vouches for. Linux only.

Source: the kernel's own user-space API documentation (Landlock ABI 1 to 7, seccomp(2), prctl(2)).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_SET_DUMPABLE = 1, 36, 38, 4
SYS_LANDLOCK_CREATE, SYS_LANDLOCK_ADD, SYS_LANDLOCK_RESTRICT = 444, 445, 446  # the same on all modern ABIs
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER = 1, 8

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

# Landlock access bits of the file system, by the ABI that brought them.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR, MAKE_REG = 16, 32, 64, 128, 256
MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM = 512, 1024, 2048, 4096
REFER, TRUNCATE, IOCTL_DEV = 8192, 16384, 32768
READ_ONLY = READ_FILE | READ_DIR
SCRATCH = (
    READ_ONLY | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SYM | REFER | TRUNCATE
)
DEVICE = READ_FILE | WRITE_FILE

# Stands in the exported seccomp program where each child puts its own process id.
OWN_PID = 0x5EED_B0B5

libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _by_machine(table: dict[str, int]) -> int:
    machine = os.uname().machine
    if machine not in table:
        raise OSError(errno.ENOSYS, f"no system call numbers for machine {machine!r}")
    return table[machine]


def no_new_privileges() -> None:
    """Promise that no execve will ever gain privileges; what Landlock and seccomp ask for first."""
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def die_with_parent() -> None:
    """Ask for SIGKILL when the process that forked this one is gone."""
    _check(libc.prctl(PR_SET_PDEATHSIG, 9, 0, 0, 0), "parent death signal")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent has died, so that they can be reaped."""
    _check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "child subreaper")


def drop_capabilities() -> None:
    """Give up every capability: root inside is then an ordinary owner of root's files."""
    header = struct.pack("<Ii", 0x20080522, 0)
    _check(libc.syscall(_by_machine(SYS_CAPSET), header, bytes(24)), "capset")


def landlock_abi() -> int:
    """Return the Landlock ABI version of this kernel, 0 when it has none."""
    version = libc.syscall(SYS_LANDLOCK_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(int(version), 0)


def landlock_rights(abi: int) -> int:
    """Return all file-system rights that this ABI knows."""
    rights = (1 << 13) - 1
    for since, right in ((2, REFER), (3, TRUNCATE), (5, IOCTL_DEV)):
        if abi >= since:
            rights |= right
    return rights


def landlock_restrict(rules: list[tuple[int, int]], abi: int) -> None:
    """Deny every file access but `rules` (pairs of an open descriptor and its rights), for good.

    From ABI 4 on all TCP is denied as well, from ABI 6 on signals to, and abstract sockets of,
    processes outside. Layers add up: a second call can only narrow what the first one left.
    """
    rights = landlock_rights(abi)
    network = 3 if abi >= 4 else 0
    scoped = 3 if abi >= 6 else 0
    attributes = struct.pack("<QQQ", rights, network, scoped)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    size = ctypes.c_size_t(len(attributes))
    ruleset = _check(
        libc.syscall(SYS_LANDLOCK_CREATE, attributes, size, ctypes.c_uint32(0)), "landlock ruleset"
    )
    try:
        for fd, access in rules:
            rule = struct.pack("<Qi", access & rights, fd)
            _check(libc.syscall(SYS_LANDLOCK_ADD, ruleset, 1, rule, ctypes.c_uint32(0)), "landlock rule")
        _check(libc.syscall(SYS_LANDLOCK_RESTRICT, ruleset, ctypes.c_uint32(0)), "landlock restrict")
    finally:
        os.close(ruleset)


def seccomp_install(program: bytes, listener: bool = False) -> int:
    """Install a BPF program; with `listener` return the descriptor on which its notifications arrive."""
    program = program.replace(struct.pack("<I", OWN_PID), struct.pack("<I", os.getpid()))
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("@HxxxxxxP", len(program) // 8, ctypes.addressof(buffer))
    flags = SECCOMP_FILTER_FLAG_NEW_LISTENER if listener else 0
    result = libc.syscall(_by_machine(SYS_SECCOMP), SECCOMP_SET_MODE_FILTER, ctypes.c_uint(flags), fprog)
    return _check(result, "seccomp filter")


def unshare(flags: int) -> None:
    """Move this process (for CLONE_NEWPID: its children) into new namespaces."""
    _check(libc.unshare(flags), "unshare")
