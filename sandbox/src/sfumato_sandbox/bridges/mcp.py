"""An MCP server that offers confined Python (extra `mcp`), with progress while an action runs.

    sfumato-sandbox-mcp [--stateless] [--level 1] [--strict] [--packages numpy,pandas] [--timeout 60]

One session per server process, which over stdio means one per client. Tools: `run_python`, and for a
persistent session `reset_python`; files that an action writes come back as named text or base64.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
from typing import Any

from mcp.server.mcpserver import Context, MCPServer

from sfumato_sandbox.interpreter import Interpreter
from sfumato_sandbox.records import Limits
from sfumato_sandbox.turns import NOTES, render

LARGEST_FILE = 256 << 10


def server(
    interpreter: Interpreter, persistent: bool, limits: Limits = Limits(timeout_seconds=60)
) -> MCPServer:
    """Return a server whose tools run code in one session of `interpreter`."""
    session = interpreter.open({}, limits)
    made: MCPServer = MCPServer("sfumato-sandbox", instructions=NOTES[persistent])

    @made.tool()
    async def run_python(code: str, ctx: Context[Any]) -> dict[str, Any]:
        """Run Python source in a confined process and return what it printed, its error, and its files."""
        loop = asyncio.get_running_loop()

        def tick(seconds: float, output: int) -> None:
            message = f"running for {seconds:.1f} s, {output} bytes of output"
            asyncio.run_coroutine_threadsafe(
                ctx.report_progress(seconds, limits.timeout_seconds, message), loop
            )

        result = await asyncio.to_thread(session.step, code, None, tick)
        return {
            "ok": result.ok,
            "output": render(result),
            "state": result.state,
            "isolation_level": result.isolation_level,
            "files": [_file(file.path, file.content) for file in result.artifacts],
        }

    if persistent:

        @made.tool()
        async def reset_python() -> str:
            """Forget all variables, imports and files."""
            await asyncio.to_thread(session.reset)
            return "The next action starts in a fresh process and an empty directory."

    return made


def _file(path: str, content: bytes) -> dict[str, Any]:
    if len(content) > LARGEST_FILE:
        return {"path": path, "bytes": len(content)}
    try:
        return {"path": path, "bytes": len(content), "text": content.decode()}
    except UnicodeDecodeError:
        return {"path": path, "bytes": len(content), "base64": base64.b64encode(content).decode()}


def main() -> None:
    """Serve over standard input and output."""
    parser = argparse.ArgumentParser(description="An MCP server that runs Python confined.")
    parser.add_argument("--stateless", action="store_true", help="a fresh process for every action")
    parser.add_argument("--level", type=int, default=1, choices=(0, 1, 2), help="isolation level (default 1)")
    parser.add_argument("--strict", action="store_true", help="refuse to start below that level")
    parser.add_argument(
        "--packages",
        help="comma-separated packages that the code may import, '' for none (default: those of numpy, pandas and "
        "matplotlib that are installed)",
    )
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds for one action (default 60)")
    options = parser.parse_args()
    with Interpreter(
        persistent=not options.stateless,
        level=options.level,
        strict=options.strict,
        packages=None if options.packages is None else tuple(filter(None, options.packages.split(","))),
        echo=True,
        top_level_await=True,
        artifacts=True,
    ) as interpreter:
        server(interpreter, not options.stateless, Limits(timeout_seconds=options.timeout)).run()


if __name__ == "__main__":
    main()
