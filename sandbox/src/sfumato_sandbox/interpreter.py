"""The entrance: an interpreter whose sessions run code that nobody vouches for."""

from __future__ import annotations

import os
import sys
import sysconfig
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from sfumato_sandbox import capability, packages
from sfumato_sandbox.cgroup import ControlGroup
from sfumato_sandbox.errors import IsolationUnavailable
from sfumato_sandbox.records import Isolation, Limits, Tool
from sfumato_sandbox.session import Options, Session, ToolState
from sfumato_sandbox.zygote import Zygote

# Landlock access bits; _inside/confine.py names them (it cannot be imported where there is no Linux).
READ_FILE, READ_DIR, READ_WRITE_FILE = 4, 8, 6
SYSTEM_PATHS = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/etc/localtime",
                "/usr/share/zoneinfo", "/usr/share/fonts")  # fmt: skip
DEVICES = (("/dev/null", READ_WRITE_FILE), ("/dev/zero", READ_FILE), ("/dev/urandom", READ_FILE),
           ("/dev/random", READ_FILE))  # fmt: skip


class Interpreter:
    """A warmed Python whose sessions are confined processes forked from it.

    Arguments:
        persistent: one process a session, whose variables last (True), or one process an action (False).
        level: isolation level 0, 1 or 2 (see `capability.isolation`).
        strict: refuse to start below `level`; otherwise the level that holds is in every result.
        packages: import names that the code may use besides the standard library, loaded once before
            the fork. None, the default, takes those of numpy, pandas and matplotlib that are installed; an empty
            tuple takes none, which starts sooner and makes stateless actions quicker.
        echo: show the value of a last expression as `StepResult.value_repr`.
        top_level_await: allow `await` outside functions.
        cues: "values_preview" adds a bounded preview to `StepResult.globals`; else "none" or "globals_list".
        restore_names: after each action give tools their names back and drop globals that hide a builtin.
        artifacts: return files that an action wrote in its working directory.
        keep_files: carry the files of the working directory over to the next action's process (stateless,
            or after a kill); otherwise they go with the process.
        spare: make the next process ahead of time, so that a stateless action does not wait for it.
        scratch_dir: where the sessions' directories are made. None: in memory (/dev/shm) where that has at
            least 1 GiB free, else the system's temporary folder.
        total_memory_bytes, total_processes: limits on all sessions together, by a control group (threads
            count as processes). None: no such limit.

    Raises IsolationUnavailable (strict, or no control group can be made), ModuleNotFoundError (a declared package is missing), and
    SandboxError when the process cannot be started.
    """

    def __init__(
        self,
        *,
        persistent: bool = True,
        level: int = 1,
        strict: bool = False,
        packages: tuple[str, ...] | None = None,
        echo: bool = False,
        top_level_await: bool = False,
        cues: str = "none",
        restore_names: bool = True,
        artifacts: bool = False,
        keep_files: bool = False,
        spare: bool = True,
        scratch_dir: str | None = None,
        total_memory_bytes: int | None = None,
        total_processes: int | None = None,
    ) -> None:
        if sys.platform == "win32":
            raise IsolationUnavailable("sessions are forked processes, which Windows lacks. Use WSL 2.")
        self.isolation: Isolation = capability.isolation(level, strict)
        self._options = Options(
            persistent, echo, top_level_await, cues, restore_names, artifacts, spare, keep_files=keep_files
        )
        self.packages = _resolve(packages)
        if self.isolation.level < level:
            missing = "; ".join(self.isolation.missing)
            warnings.warn(
                f"isolation level {level} asked for, {self.isolation.level} holds: {missing}", stacklevel=2
            )
        group = None
        if total_memory_bytes is not None or total_processes is not None:
            group = ControlGroup(total_memory_bytes, total_processes)
        self._zygote = Zygote(_config(self.isolation, self.packages), scratch_dir, group)
        if self._zygote.ready["threads"] > 1:
            warnings.warn("a declared package started threads before the fork; they are missing in sessions",
                          stacklevel=2)  # fmt: skip

    @property
    def failed_packages(self) -> tuple[str, ...]:
        """Declared packages whose import failed in the warmed interpreter, each with the reason."""
        return tuple(self._zygote.ready["failed"])

    def open(
        self,
        tools: Mapping[str, Callable[..., Any] | Tool] | None = None,
        limits: Limits = Limits(),
        *,
        seed: int = 0,
        modules: tuple[str, ...] = (),
        snapshots: int = 0,
        tool_state: ToolState | None = None,
    ) -> Session:
        """Open a session in which the code may call `tools` by name.

        Arguments:
            tools: host functions (or `Tool`s with a signature and documentation) by name.
            limits: what the session may use.
            seed: of `random` and `numpy.random` inside; non-negative.
            modules: put into each fresh namespace.
            snapshots: the most snapshots kept at a time; 0 takes none. Persistent sessions only.
            tool_state: (save, load) of what the tools act on, so that a snapshot holds it too, or
                `STATELESS` when they act on nothing.
        """
        import attrs

        if snapshots and not self._options.persistent:
            raise ValueError(
                "a stateless session has nothing to snapshot; open an Interpreter(persistent=True)"
            )

        made = {
            name: tool if isinstance(tool, Tool) else Tool(name, tool, doc=tool.__doc__ or "")
            for name, tool in (tools or {}).items()
        }
        options = attrs.evolve(self._options, modules=tuple(modules), snapshots=snapshots)
        return Session(self._zygote, made, limits, options, seed, self.isolation.level, tool_state)

    def close(self) -> None:
        """End all sessions and the warmed process. May be called again."""
        self._zygote.close()

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def _resolve(names: tuple[str, ...] | None) -> packages.Packages:
    if names is None:
        return packages.resolve(packages.DEFAULT, required=False)
    return packages.resolve(tuple(names), required=True)


def _config(isolation: Isolation, found: packages.Packages) -> dict[str, Any]:
    """What the zygote must know, as plain data."""
    stdlib = os.path.realpath(sysconfig.get_path("stdlib"))
    shared = os.path.realpath(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    readable = [stdlib, *(path for path in SYSTEM_PATHS if os.path.exists(path)), *found.readable]
    if not (dynload := os.path.realpath(sysconfig.get_config_var("DESTSHARED") or stdlib)).startswith(stdlib):
        readable.append(dynload)
    if sysconfig.get_config_var("Py_ENABLE_SHARED"):
        readable.append(os.path.join(shared, sysconfig.get_config_var("INSTSONAME") or ""))
    readable = [path for path in readable if os.path.exists(path)]
    paths = [(path, READ_FILE | (READ_DIR if os.path.isdir(path) else 0)) for path in readable]
    paths += [(folder, READ_DIR) for folder in found.folders]
    paths += [device for device in DEVICES if os.path.exists(device[0])]
    programs = ("", "", "")
    if isolation.level >= 1:
        from sfumato_sandbox import seccomp

        programs = (
            seccomp.child_program().hex(),
            seccomp.child_program(True).hex(),
            seccomp.zygote_program().hex(),
        )
    return {
        "level": isolation.level,
        "paths": paths,
        "without": [stdlib, ["site-packages", "dist-packages", "test", "idlelib"]],
        "package_path": list(found.folders),
        "preload": list(found.preload),
        "importable": sorted({os.path.basename(path).split(".")[0] for path in found.readable}),
        "seccomp": programs[0],
        "seccomp_notified": programs[1],
        "seccomp_zygote": programs[2],
        "namespaces": capability.NAMESPACE_FLAGS if isolation.level >= 2 else 0,
        "platform": sys.platform,
    }
