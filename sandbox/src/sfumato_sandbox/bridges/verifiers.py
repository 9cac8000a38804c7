"""A verifiers runtime (extra `verifiers`): programs of a rollout run confined instead of as host processes.

    async with sfumato_runtime() as runtime:
        await runtime.run(["python3", "-c", "print(6 * 7)"], {})

Python only (see `commands`): harnesses that install software, open ports or start servers need a container.
The package's own configuration knows a closed list of runtime types, so this one is handed over as an
object (`Agent.run(runtime=…)`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from pydantic_config import BaseConfig
from verifiers.v1.errors import SandboxError as VerifiersSandboxError
from verifiers.v1.runtimes.base import BaseRuntimeInfo, ProgramResult, Runtime, register

from sfumato_sandbox.bridges.commands import Box
from sfumato_sandbox.interpreter import Interpreter
from sfumato_sandbox.records import Limits


class SfumatoConfig(BaseConfig):
    """Settings: isolation level, seconds for one program, packages that it may import."""

    type: Literal["sfumato"] = "sfumato"
    level: int = 1
    strict: bool = True
    timeout_seconds: float = 60.0
    packages: tuple[str, ...] | None = None


class SfumatoRuntimeInfo(SfumatoConfig, BaseRuntimeInfo):
    """The settings, and the session's directory."""


class SfumatoRuntime(Runtime):
    """One rollout's box: every program a fresh process, files kept between them."""

    def __init__(self, config: SfumatoConfig | None = None, name: str | None = None) -> None:
        super().__init__(name)
        self.config = config or SfumatoConfig()
        self.info = SfumatoRuntimeInfo(**self.config.model_dump())
        self._interpreter: Interpreter | None = None
        self._box: Box | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Warm the interpreter and open the session."""
        self._interpreter = await asyncio.to_thread(
            Interpreter,
            persistent=False,
            keep_files=True,
            level=self.config.level,
            strict=self.config.strict,
            packages=None if self.config.packages is None else tuple(self.config.packages),
        )
        limits = Limits(timeout_seconds=self.config.timeout_seconds, output_bytes=1 << 20)
        self._box = Box(self._interpreter.open({}, limits))
        self.info.id = self.name

    async def run(self, argv: list[str], env: dict[str, str]) -> ProgramResult:
        """Run one program; one that takes too long ends with status 124, as `timeout` has it."""
        box = self._open()
        async with self._lock:
            try:
                ran = await asyncio.to_thread(box.run, argv, "", self.process_env(env))
            except TimeoutError as error:
                return ProgramResult(124, "", f"{error}\n")
        return ProgramResult(ran.status, ran.stdout, ran.stderr)

    async def _read(self, path: str, max_bytes: int | None = None) -> bytes:
        try:
            content = await asyncio.to_thread(self._open().read, path)
        except OSError as error:
            raise VerifiersSandboxError(f"read {path!r}: {error}") from error
        return content if max_bytes is None else content[:max_bytes]

    async def write(self, path: str, data: bytes) -> None:
        """Write a file of the box."""
        await asyncio.to_thread(self._open().write, path, data)

    def cleanup(self) -> None:
        """End the processes and remove the files."""
        if self._interpreter is not None:
            self._interpreter.close()
            self._interpreter = None
            self._box = None

    def _open(self) -> Box:
        if self._box is None:
            raise VerifiersSandboxError("the runtime is not running: call start() first")
        return self._box


@asynccontextmanager
async def sfumato_runtime(**settings: Any) -> AsyncIterator[SfumatoRuntime]:
    """Start a runtime and stop it at the end, whatever happens."""
    runtime = SfumatoRuntime(SfumatoConfig(**settings))
    register(runtime)
    try:
        await runtime.start()
        yield runtime
    finally:
        await runtime.stop()
