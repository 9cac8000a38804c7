"""An Inspect AI sandbox provider named `sfumato` (extra `inspect`): no container, no daemon, Python only.

    import sfumato_sandbox.bridges.inspect_ai
    Task(…, sandbox="sfumato")

`exec` runs what asks for Python: `python3 -c CODE`, `python3 FILE`, `python3 -` with input, and the
`bash --login -c "python3 -"` of Inspect's own `python()` tool. Each run is a fresh confined process; files
last for the sample. Any other command answers 127, as a shell does: there is no shell in here.
"""

from __future__ import annotations

import asyncio
import os
import posixpath
import shlex
from typing import Any, Literal, overload

from inspect_ai.util import ExecResult, SandboxEnvironment, SandboxEnvironmentConfigType, sandboxenv

from sfumato_sandbox.interpreter import Interpreter
from sfumato_sandbox.records import Limits
from sfumato_sandbox.session import Session

DEFAULT_SECONDS = 180
PYTHONS = ("python", "python3")


@sandboxenv(name="sfumato")
class SfumatoSandboxEnvironment(SandboxEnvironment):
    """One sample's files, and an interpreter shared by all samples of the task."""

    _interpreters: dict[int, Interpreter] = {}

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """Open a session for the sample, at isolation level 1 and no lower."""
        interpreter = cls._interpreters.get(os.getpid())
        if interpreter is None:
            interpreter = Interpreter(persistent=False, strict=True, keep_files=True, packages=None)
            cls._interpreters[os.getpid()] = interpreter
        limits = Limits(timeout_seconds=DEFAULT_SECONDS, output_bytes=10 << 20)
        return {"default": cls(interpreter.open({}, limits))}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: dict[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        """End the sample's process and remove its files."""
        for environment in environments.values():
            environment.as_type(SfumatoSandboxEnvironment).session.close()

    @classmethod
    async def task_cleanup(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, cleanup: bool
    ) -> None:
        """End the warmed interpreter."""
        interpreter = cls._interpreters.pop(os.getpid(), None)
        if interpreter is not None:
            interpreter.close()

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Run Python as `cmd` asks for; raises TimeoutError after `timeout` seconds."""
        text = input.decode("utf-8", "replace") if isinstance(input, bytes) else input or ""
        if len(cmd) == 4 and cmd[:3] == ["bash", "--login", "-c"]:
            cmd = shlex.split(cmd[3])
        if not cmd or posixpath.basename(cmd[0]) not in PYTHONS:
            return ExecResult(
                False, 127, "", f"{(cmd or [''])[0]}: not found: this sandbox runs python3 only\n"
            )
        arguments = cmd[1:]
        program, name, stdin = text, "-", ""
        if arguments[:1] == ["-c"] and len(arguments) > 1:
            program, name, stdin, arguments = arguments[1], "-c", text, arguments[1:]
        elif arguments and arguments[0] != "-":
            try:
                program, name, stdin = await self.read_file(arguments[0]), arguments[0], text
            except FileNotFoundError:
                return ExecResult(False, 2, "", f"python3: can't open file {arguments[0]!r}\n")
        # The program begins on the first line, so that its tracebacks name the right lines.
        prelude = (
            f"import sys, os, io; sys.argv = {[name, *arguments[1:]]!r}; sys.stdin = io.StringIO({stdin!r}); "
        )
        prelude += f"os.environ.update({dict(env or {})!r}); "
        if cwd:
            prelude += f"os.makedirs({cwd!r}, exist_ok=True); os.chdir({cwd!r}); "
        program = f"{prelude}exec(compile({program!r}, {name!r}, 'exec'), {{'__name__': '__main__'}})"
        result = await asyncio.to_thread(self.session.step, program, float(timeout) if timeout else None)
        if result.error is None:
            return ExecResult(True, 0, result.stdout, result.stderr)
        if result.error.type == "ActionTimeout":
            raise TimeoutError(f"the command ran longer than {timeout or DEFAULT_SECONDS} s")
        if result.error.type == "SystemExit":
            status = result.error.message
            code = int(status) if status.isdigit() else 0 if not status or status == "None" else 1
            return ExecResult(code == 0, code, result.stdout, result.stderr)
        shown = result.error.traceback or f"{result.error.type}: {result.error.message}"
        return ExecResult(False, 1, result.stdout, f"{result.stderr}{shown}\n")

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file of the sample."""
        content = contents.encode() if isinstance(contents, str) else contents
        files = self.session.files()
        if file in files and files[file] is None:
            raise IsADirectoryError(f"{file} is a directory")
        self.session.put_file(posixpath.normpath(file), content)

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> Any:
        """Read a file of the sample."""
        files = self.session.files()
        name = posixpath.normpath(file)
        if name not in files:
            raise FileNotFoundError(f"{file}: no such file in the sandbox")
        content = files[name]
        if content is None:
            raise IsADirectoryError(f"{file} is a directory")
        return content.decode() if text else content
