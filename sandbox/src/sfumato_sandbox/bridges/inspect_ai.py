"""An Inspect AI sandbox provider named `sfumato` (extra `inspect`): no container, no daemon, Python only.

    import sfumato_sandbox.bridges.inspect_ai
    Task(…, sandbox="sfumato")

`exec` runs what asks for Python (see `commands`), Inspect's own `python()` tool included. Each run is a
fresh confined process; files last for the sample.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Literal, overload

from inspect_ai.util import ExecResult, SandboxEnvironment, SandboxEnvironmentConfigType, sandboxenv

from sfumato_sandbox.bridges.commands import Box
from sfumato_sandbox.interpreter import Interpreter
from sfumato_sandbox.records import Limits
from sfumato_sandbox.session import Session

DEFAULT_SECONDS = 180


@sandboxenv(name="sfumato")
class SfumatoSandboxEnvironment(SandboxEnvironment):
    """One sample's files, and an interpreter shared by all samples of the task."""

    _interpreters: dict[int, Interpreter] = {}

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.box = Box(session)

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """Open a session for the sample, at isolation level 1 and no lower."""
        interpreter = cls._interpreters.get(os.getpid())
        if interpreter is None:
            interpreter = Interpreter(persistent=False, strict=True, keep_files=True)
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
            environment.as_type(SfumatoSandboxEnvironment).box.session.close()

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
        ran = await asyncio.to_thread(self.box.run, cmd, text, env, cwd, float(timeout) if timeout else None)
        return ExecResult(ran.status == 0, ran.status, ran.stdout, ran.stderr)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file of the sample."""
        self.box.write(file, contents.encode() if isinstance(contents, str) else contents)

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> Any:
        """Read a file of the sample."""
        content = self.box.read(file)
        return content.decode() if text else content
