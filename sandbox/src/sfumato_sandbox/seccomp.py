"""The seccomp policy, compiled to BPF by libseccomp on the host, installed without it inside.

Two filters: a long allow-list that the zygote puts on itself once, which its children inherit, and a
short one that each child adds (installing the long one anew would cost a child half a millisecond).
Default is EPERM, so that code which tries something forbidden sees an ordinary PermissionError and
the episode goes on.

Three rules deserve a word:

* Signals go only to the process itself. Its id is not known here, so the program carries the
  placeholder `OWN_PID`, which each child replaces (`confine.seccomp_install`).
* Modes, owners, times and extended attributes of files cannot be changed at all: Landlock does not
  yet govern these calls, and a child of root owns the files of the host.
* `fcntl` and `ioctl` are cut down to the commands that ordinary file use needs: F_SETOWN with
  F_SETSIG sends signals without `kill`, and terminal ioctls type into the operator's shell.
"""

from __future__ import annotations

import errno
import functools
import tempfile
from typing import Any

from sfumato_sandbox._inside.confine import OWN_PID
from sfumato_sandbox.errors import IsolationUnavailable


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CLONE_THREAD = 0x10000
CLONE_NEW = 0x7E020000  # every namespace flag of clone(2) that fits its 32-bit argument
AF_UNIX, SOCK_STREAM, SOCK_TYPE_MASK = 1, 1, 0xF

FILES = _words("""
read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range fstat stat
lstat newfstatat statx access faccessat faccessat2 open openat creat lseek getdents64 getdents readlink
readlinkat getcwd chdir fchdir mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 symlink
symlinkat ftruncate truncate fallocate fsync fdatasync umask dup dup2 dup3 statfs fstatfs flock
copy_file_range sendfile fadvise64 readahead pipe pipe2
""")
WAITING = _words("""
poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
eventfd2 timerfd_create timerfd_settime timerfd_gettime recvfrom recvmsg shutdown getsockname
getpeername getsockopt sendmsg
""")
MEMORY = _words("""
mmap munmap mprotect mremap madvise brk msync mincore futex futex_waitv set_robust_list rseq
set_tid_address arch_prctl membarrier mlock munlock
""")
PROCESS = _words("""
rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack rt_sigtimedwait rt_sigpending rt_sigsuspend pause
alarm setitimer getitimer nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times
getrusage sysinfo uname getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid
getgroups getpgrp getpgid getsid sched_yield sched_getaffinity sched_getparam sched_getscheduler
sched_get_priority_max sched_get_priority_min getpriority getrandom getrlimit setrlimit exit exit_group
restart_syscall wait4 waitid getcpu
""")
FCNTL_COMMANDS = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1032, 1034)
IOCTL_COMMANDS = (
    0x5401,
    0x5413,
    0x541B,
    0x5421,
    0x5450,
    0x5451,
)  # TCGETS WINSZ FIONREAD FIONBIO FIONCLEX FIOCLEX
PRCTL_COMMANDS = (15, 16, 0x53564D41)  # set and get the thread's name; name a mapping


# What the zygote needs besides, and takes from its children in a second filter.
ZYGOTE = _words("""
setsid seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self kill tgkill prlimit64 fork vfork
""")
ZYGOTE_PRCTL = (1, 38)  # parent death signal, no_new_privs


def _library() -> Any:
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError) as error:
        raise IsolationUnavailable(
            f"level 1 needs pyseccomp and the system's libseccomp, but importing it failed: {error}. "
            "Install libseccomp2 (Debian, Ubuntu) or libseccomp (Fedora, Alpine)."
        ) from error
    return pyseccomp


def _number(sc: Any, name: str) -> int:
    """Return the system call's number; negative where this machine has none (open and stat on arm64)."""
    try:
        return int(sc.resolve_syscall(sc.Arch.NATIVE, name))
    except (OSError, ValueError):
        return -1


def _compile(program: Any) -> bytes:
    with tempfile.TemporaryFile() as file:
        program.export_bpf(file)
        file.seek(0)
        return file.read()


@functools.cache
def zygote_program() -> bytes:
    """Compile the allow-list that the zygote puts on itself once it is warm, and so on every child.

    Raises IsolationUnavailable when pyseccomp or the system's libseccomp is missing.
    """
    sc = _library()
    program = sc.SyscallFilter(sc.ERRNO(errno.EPERM))

    def allow(name: str, *conditions: object) -> None:
        if (number := _number(sc, name)) >= 0:
            program.add_rule(sc.ALLOW, number, *conditions)

    for name in FILES + WAITING + MEMORY + PROCESS + ZYGOTE:
        allow(name)
    for command in FCNTL_COMMANDS:
        allow("fcntl", sc.Arg(1, sc.EQ, command))
    for command in IOCTL_COMMANDS:
        allow("ioctl", sc.Arg(1, sc.MASKED_EQ, 0xFFFFFFFF, command))
    for command in PRCTL_COMMANDS + ZYGOTE_PRCTL:
        allow("prctl", sc.Arg(0, sc.EQ, command))
    allow("sendto", sc.Arg(4, sc.EQ, 0))  # to the connected peer only
    allow("socketpair", sc.Arg(0, sc.EQ, AF_UNIX), sc.Arg(1, sc.MASKED_EQ, SOCK_TYPE_MASK, SOCK_STREAM))
    allow("clone", sc.Arg(0, sc.MASKED_EQ, CLONE_NEW, 0))
    program.add_rule(sc.ERRNO(errno.ENOSYS), "clone3")  # the C library then falls back to clone
    return _compile(program)


@functools.cache
def child_program(allow_notified_fork: bool = False) -> bytes:
    """Compile what a child adds before it runs untrusted code: short, because it is installed per child.

    It takes away what the zygote's list still allows: new processes, signals to others, another
    process's limits, leaving the group, further filters. With `allow_notified_fork` a fork is put
    before the listener (the host, which lets exactly that of a snapshot pass) instead of being refused.
    """
    sc = _library()
    refuse = sc.ERRNO(errno.EPERM)
    program = sc.SyscallFilter(sc.ALLOW)

    def deny(action: int, name: str, *conditions: object) -> None:
        if (number := _number(sc, name)) >= 0:
            program.add_rule(action, number, *conditions)

    fork = sc.NOTIFY if allow_notified_fork else refuse
    deny(fork, "clone", sc.Arg(0, sc.MASKED_EQ, CLONE_THREAD, 0))
    deny(refuse, "prlimit64", sc.Arg(0, sc.NE, 0))
    for name in ("kill", "tgkill"):
        deny(refuse, name, sc.Arg(0, sc.NE, OWN_PID))
    for command in ZYGOTE_PRCTL:
        deny(refuse, "prctl", sc.Arg(0, sc.EQ, command))
    if not allow_notified_fork:  # with a listener, its descriptor is sent to the host by this call
        deny(refuse, "sendmsg")  # a descriptor on its way through a socket keeps a file that nobody can see
    for name in ZYGOTE:
        if name not in ("kill", "tgkill", "prlimit64"):
            deny(refuse, name)
    return _compile(program)
