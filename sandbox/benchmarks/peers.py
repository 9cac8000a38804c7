"""The named peers behind one small protocol: `step(code) -> stdout`, `close()`."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from typing import Any, Protocol

from sfumato_sandbox import Interpreter, Limits


class Arm(Protocol):
    """Something that runs code and returns what it printed."""

    def step(self, code: str) -> str: ...

    def close(self) -> None: ...


class Ours:
    """This package."""

    def __init__(self, interpreter: Interpreter, **opening: Any) -> None:
        self.session = interpreter.open(limits=Limits(timeout_seconds=60), **opening)

    def step(self, code: str) -> str:
        result = self.session.step(code)
        if not result.ok:
            raise RuntimeError(result.error)
        return result.stdout

    def close(self) -> None:
        self.session.close()


class IpyKernel:
    """A Jupyter kernel through jupyter_client, one per session; output read until the kernel is idle."""

    def __init__(self, reset: bool = False) -> None:
        from jupyter_client.manager import start_new_kernel

        self.reset = reset
        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def step(self, code: str) -> str:
        if self.reset:
            self._run("%reset -f")
        return self._run(code)

    def _run(self, code: str) -> str:
        out = io.StringIO()

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                out.write(message["content"]["text"])

        self.client.execute_interactive(code, output_hook=hook, timeout=60)
        return out.getvalue()

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


class FreshPython:
    """A new `python -I -S` for each action."""

    def step(self, code: str) -> str:
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
        ).stdout

    def close(self) -> None:
        pass


class Smolagents:
    """smolagents' LocalPythonExecutor: an interpreter of the syntax tree in the host's own process."""

    def __init__(self) -> None:
        from smolagents.local_python_executor import LocalPythonExecutor

        self.executor = LocalPythonExecutor([])
        self.executor.send_tools({})

    def step(self, code: str) -> str:
        return self.executor(code).logs

    def close(self) -> None:
        pass


class InProcess:
    """`exec` in the host: the floor, and no isolation at all."""

    def __init__(self) -> None:
        self.namespace: dict[str, Any] = {}

    def step(self, code: str) -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(code, self.namespace)
        return out.getvalue()

    def close(self) -> None:
        pass
