"""The zygote: warmed once, confined, then it forks a child whenever the host asks.

Run by path with `python -S -P -s`, single-threaded, standard library only (plus the packages that
the operator declared). Its one argument is the number of the control socket; the first message
on it is the configuration. It ends when the host's end of that socket closes, and its children
with it.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import stat
import sys
import time
from typing import Any

FOLDER = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, FOLDER)
import declared  # noqa: E402
import wire  # noqa: E402
from runner import Runner  # noqa: E402

if sys.platform == "linux":
    import confine

PRELOAD = """
abc ast asyncio base64 bisect calendar collections contextlib copy csv dataclasses datetime decimal enum
fractions functools hashlib heapq inspect io itertools json logging math operator pathlib pprint random
re statistics string struct tempfile textwrap threading time traceback typing unicodedata warnings
"""


INSIDE_ID = 1000  # what the user is called in a user namespace of its own


class Zygote:
    """Answers one request at a time: fork, signal, kill."""

    def __init__(self, control: socket.socket, config: dict[str, Any]) -> None:
        self.control = control
        self.config = config
        self.level = config["level"]
        self.children: set[int] = set()
        self.rules: list[tuple[int, int]] = []

    def warm(self) -> list[str]:
        """Import what children will want. Returns the declared packages that failed, with the reason."""
        import builtins

        def leave(code: object = None) -> None:
            """End the action."""
            raise SystemExit(code)

        builtins.exit = builtins.quit = leave  # type: ignore[assignment]
        for name in PRELOAD.split():
            __import__(name)
        failed = []
        sys.path.extend(self.config["package_path"])
        for name in self.config["preload"]:
            try:
                __import__(name)
            except Exception as error:
                failed.append(f"{name}: {type(error).__name__}: {error}")
        if "numpy" in sys.modules:
            __import__("numpy.random")  # newer numpy loads it when asked; each child seeds it
        if "matplotlib" in self.config["preload"] and not any(
            row.startswith("matplotlib:") for row in failed
        ):
            declared.figures_on_show()
        sys.path.remove(FOLDER)
        sys.meta_path.insert(0, declared.DeclaredFinder(self.config["importable"], self.config["preload"]))
        return failed

    def confine(self) -> None:
        """Take from this process, and so from all children, what none of them needs."""
        if sys.platform == "linux":
            confine.adopt_orphans()
            confine.no_new_privileges()
            confine.drop_capabilities()
        if self.level >= 1:
            self.abi = confine.landlock_abi()
            self.rules = [
                (os.open(path, os.O_PATH | os.O_CLOEXEC), access) for path, access in self.config["paths"]
            ]
            # Layers intersect: the children's rules name whole trees, which is quick, this one leaves
            # out what lies in the standard library's folder without belonging to it.
            folder, without = self.config["without"]
            fine = [(path, access) for path, access in self.config["paths"] if path != folder]
            fine += [
                (entry.path, confine.READ_ONLY) for entry in os.scandir(folder) if entry.name not in without
            ]
            fine += [(folder, confine.READ_DIR), (self.config["scratch_root"], confine.SCRATCH)]
            rules = []
            for path, access in fine:
                fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
                if not stat.S_ISDIR(os.fstat(fd).st_mode):
                    access &= ~confine.READ_DIR
                rules.append((fd, access))
            confine.landlock_restrict(rules, self.abi)
            for fd, _ in rules:
                os.close(fd)
            confine.seccomp_install(bytes.fromhex(self.config["seccomp_zygote"]))
            self.program = bytes.fromhex(self.config["seccomp"])
            self.notified = bytes.fromhex(self.config["seccomp_notified"])

    def serve(self) -> None:
        gc.collect()
        gc.freeze()
        while True:
            request, fds = wire.receive_with_fds(self.control)
            if request is None:
                break
            answer: dict[str, Any] = {}
            try:
                if request["op"] == "fork":
                    answer = {"pid": self.fork(request, fds)}
                elif request["op"] == "kill":
                    answer = self.kill(request["pid"], request["leader"], request["group"])
                elif request["op"] == "signal" and self.alive(request["pid"], request["leader"]):
                    os.kill(request["pid"], request["number"])
            except OSError as error:
                answer = {"error": str(error)}
            finally:
                for fd in fds:
                    os.close(fd)
            if request["op"] != "signal":
                wire.send_with_fds(self.control, answer, [])
        for pid in list(self.children):
            self.kill(pid, pid, True)

    def alive(self, pid: int, leader: int) -> bool:
        """Say whether `pid` is a living process of that session.

        The number of a restored process was told by the copy that forked it, which may lie: a process
        counts only if it is in the session's group, which nothing inside can leave or join.
        """
        try:
            if leader not in self.children or os.getpgid(pid) != leader:
                return False
            return not hasattr(os, "waitid") or (
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
            )
        except ChildProcessError:
            return True  # its parent, the parked snapshot, keeps its number taken
        except ProcessLookupError:
            return False

    def kill(self, pid: int, leader: int, group: bool) -> dict[str, Any]:
        """End a process and say how it ended; a death before this shows as it was.

        With `group` all descendants of the session end as well, parked snapshots among them.
        """
        if leader not in self.children:
            return {"error": f"no session {leader}"}
        if group:
            self.children.discard(leader)
            try:
                os.killpg(leader, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass  # not yet a leader of its group, or all gone
        try:
            if pid != leader and os.getpgid(pid) != leader:
                raise ProcessLookupError  # not of this session: the copy that named it has lied
            os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            answer: dict[str, Any] = {
                "status": os.waitstatus_to_exitcode(status),
                "cpu": usage.ru_utime + usage.ru_stime,
                "rss": usage.ru_maxrss * 1024,
            }
        except (ProcessLookupError, ChildProcessError):
            answer = {"status": None}
        while group:  # orphans of the session have become children of this process
            try:
                os.waitpid(-leader, 0)
            except ChildProcessError:
                break
        return answer

    def fork(self, request: dict[str, Any], fds: list[int]) -> int:
        pid = os.fork()
        if pid:
            self.children.add(pid)
            return pid
        try:
            runner = self.become_child(request, fds)
        except BaseException as error:
            try:
                wire.write_all(
                    fds[0], wire.encode({"t": "fatal", "message": f"{type(error).__name__}: {error}"})
                )
            finally:
                os._exit(70)
        try:
            runner.serve()
        finally:
            os._exit(71)

    def become_child(self, request: dict[str, Any], fds: list[int]) -> Runner:
        """Give up everything but the channel, the output pipes and the scratch directory."""
        channel, out, err, scratch = fds
        os.setsid()
        self.control.close()
        os.fchdir(scratch)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.environ.update(HOME=request["scratch"], TMPDIR=request["scratch"], PWD=request["scratch"])
        notify = -1
        if sys.platform == "linux":
            confine.die_with_parent()
        if self.level >= 1:
            confine.landlock_restrict([*self.rules, (scratch, confine.SCRATCH)], self.abi)
        if channel != 3:
            os.dup2(channel, 3, inheritable=False)
        os.closerange(4, 1 << 20)
        limit_resources(request["limits"], self.config["base_bytes"])
        if self.level >= 1:
            if request["snapshots"]:
                notify = confine.seccomp_install(self.notified, listener=True)
            else:
                confine.seccomp_install(self.program)
        runner = Runner(3)
        with socket.socket(fileno=os.dup(3)) as carrier:
            wire.send_with_fds(
                carrier, {"t": "ready", "n": request["nonce"]}, [notify] if notify >= 0 else []
            )
        if notify >= 0:
            os.close(notify)
        return runner


def limit_resources(limits: dict[str, Any], base_bytes: int) -> None:
    """Set resource limits: address space beyond what is mapped now, CPU, file size, descriptors, core."""
    if sys.platform == "linux":
        soft = base_bytes + limits["memory_bytes"]
        # Room above the soft limit lets the runner report a MemoryError when the namespace is full.
        resource.setrlimit(resource.RLIMIT_AS, (soft, soft + (64 << 20)))
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_seconds"], limits["cpu_seconds"] + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["file_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits["open_files"],) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def enter_namespaces(flags: int) -> None:
    """Move into new namespaces, as the first process of the new pid namespace; the old one waits outside."""
    user, group = os.getuid(), os.getgid()
    confine.unshare(flags)
    for name, content in (
        ("setgroups", "deny"),
        ("uid_map", f"{INSIDE_ID} {user} 1"),
        ("gid_map", f"{INSIDE_ID} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(content)
    pid = os.fork()
    if pid:
        os.closerange(3, 1 << 20)
        os._exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0))
    confine.die_with_parent()


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    config, _ = wire.receive_with_fds(control)
    if config is None:
        return
    started = time.monotonic()
    if config["namespaces"]:
        try:
            enter_namespaces(config["namespaces"])
        except OSError as error:
            wire.send_with_fds(control, {"error": f"entering namespaces failed: {error}"}, [])
            return
    zygote = Zygote(control, config)
    failed = zygote.warm()
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
    if os.path.exists("/proc/self/statm"):
        with open("/proc/self/statm") as file:
            config["base_bytes"] = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    else:
        config["base_bytes"] = 0
    try:
        zygote.confine()
    except OSError as error:
        wire.send_with_fds(control, {"error": f"confining the zygote failed: {error}"}, [])
        return
    ready = {"failed": failed, "threads": threads, "seconds": time.monotonic() - started}
    wire.send_with_fds(control, ready, [])
    zygote.serve()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
