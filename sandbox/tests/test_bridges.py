"""Each bridge against the real package."""

import asyncio
import sys

import pytest

pytestmark = pytest.mark.optional


def test_smolagents_runs_a_whole_agent_through_the_executor():
    """A CodeAgent with a scripted model: state lasts, tools are called, an error is shown, the answer ends it."""
    smolagents = pytest.importorskip("smolagents", reason="extra 'smolagents'")
    from sfumato_sandbox.bridges.smolagents import SandboxExecutor

    class Scripted(smolagents.Model):
        def __init__(self, codes):
            super().__init__()
            self.codes = list(codes)
            self.seen = []

        def generate(self, messages, **kwargs):
            self.seen.append(str(messages[-1].content))
            return smolagents.ChatMessage(
                role=smolagents.models.MessageRole.ASSISTANT,
                content=f"Thought: go on\n<code>\n{self.codes.pop(0)}\n</code>",
            )

    @smolagents.tool
    def area(width: int, height: int) -> int:
        """Area of a rectangle.

        Args:
            width: metres
            height: metres
        """
        return width * height

    model = Scripted(
        [
            "a = area(3, height=4)\nprint('area', a)",
            "undefined",
            "import os\nos.fork()",
            "final_answer(a + extra['one'])",
        ]
    )
    executor = SandboxExecutor(packages=())
    agent = smolagents.CodeAgent(tools=[area], model=model, executor=executor, verbosity_level=0, max_steps=6)
    try:
        assert agent.run("How large?", additional_args={"extra": {"one": 1}}) == 13
    finally:
        executor.cleanup()
    assert "area 12" in model.seen[1]
    assert "is not defined" in model.seen[2] and "Operation not permitted" in model.seen[3]


def test_smolagents_variables_must_be_plain():
    pytest.importorskip("smolagents", reason="extra 'smolagents'")
    from sfumato_sandbox.bridges.smolagents import SandboxExecutor

    executor = SandboxExecutor(packages=())
    try:
        executor.send_tools({})
        executor.send_variables({"x": [1, {"y": "'\n"}]})
        assert executor("x").output == repr([1, {"y": "'\n"}])
        with pytest.raises(TypeError, match="cannot be sent"):
            executor.send_variables({"x": object()})
    finally:
        executor.cleanup()


def test_inspect_ai_provider_runs_python_and_keeps_files():
    pytest.importorskip("inspect_ai", reason="extra 'inspect'")
    from sfumato_sandbox.bridges.inspect_ai import SfumatoSandboxEnvironment as Provider

    async def scenario():
        environments = await Provider.sample_init("t", None, {})
        box = environments["default"]
        assert (await box.exec(["python3", "-c", "x = 1; print(x)"])).stdout == "1\n"
        lost = await box.exec(["python3", "-c", "print(x)"])
        assert not lost.success and lost.returncode == 1 and "NameError" in lost.stderr
        await box.write_file(
            "src/a.py", "import sys; print(sys.argv, sys.stdin.read()); open('out', 'wb').write(b'\\xff')"
        )
        ran = await box.exec(["python3", "src/a.py", "p"], input="in")
        assert ran.stdout == "['src/a.py', 'p'] in\n", ran
        assert await box.read_file("out", text=False) == b"\xff"
        with pytest.raises(UnicodeDecodeError):
            await box.read_file("out")
        with pytest.raises(FileNotFoundError):
            await box.read_file("none")
        with pytest.raises(IsADirectoryError):
            await box.read_file("src")
        with pytest.raises(TimeoutError):
            await box.exec(["python3", "-c", "while True: x = 1"], timeout=1)
        assert (await box.exec(["python3", "-c", "import sys; sys.exit(3)"])).returncode == 3
        assert (await box.exec(["ls"])).returncode == 127
        assert (
            await box.exec(
                ["python3", "-c", "import os; print(os.environ['A'], os.getcwd()[-1])"],
                env={"A": "b"},
                cwd="d",
            )
        ).stdout == "b d\n"
        await Provider.sample_cleanup("t", None, environments, False)
        await Provider.task_cleanup("t", None, True)

    asyncio.run(scenario())


def test_inspect_ai_evaluates_a_task_in_it(tmp_path):
    """A whole evaluation, with Inspect's own python() tool, its files and its scorer; no model is asked."""
    inspect_ai = pytest.importorskip("inspect_ai", reason="extra 'inspect'")
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import includes
    from inspect_ai.solver import solver
    from inspect_ai.tool import python

    import sfumato_sandbox.bridges.inspect_ai  # noqa: F401  (registers the provider)

    @solver
    def scripted():
        async def solve(state, generate):
            tool = python(timeout=20)
            first = await tool(code="x = 6\nprint(open('data.txt').read(), 7 * x)")
            second = await tool(code="print(x)")
            state.output = ModelOutput.from_content("none", f"{first}|{second}")
            state.completed = True
            return state

        return solve

    task = inspect_ai.Task(
        dataset=[Sample(input="6 times 7?", target="hello 42", files={"data.txt": "hello"})],
        solver=scripted(),
        scorer=includes(),
        sandbox="sfumato",
    )
    (log,) = inspect_ai.eval(task, model="mockllm/model", log_dir=str(tmp_path), display="none")
    assert log.status == "success", log.error
    assert "NameError" in log.samples[0].output.completion, "each run is a fresh process"
    assert log.results.scores[0].metrics["accuracy"].value == 1.0


def test_mcp_serves_python_with_progress():
    pytest.importorskip("mcp", reason="extra 'mcp'")
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    heard = []

    async def progress(done, total, message):
        heard.append((done, total, message))

    async def scenario():
        command = StdioServerParameters(
            command=sys.executable, args=["-m", "sfumato_sandbox.bridges.mcp", "--timeout", "20"]
        )
        async with stdio_client(command) as streams, ClientSession(*streams) as client:
            await client.initialize()
            assert {tool.name for tool in (await client.list_tools()).tools} == {"run_python", "reset_python"}
            code = "import time\nx = 5\nopen('f.txt', 'w').write('hi')\nprint('started')\ntime.sleep(0.7)\nx"
            first = await client.call_tool("run_python", {"code": code}, progress_callback=progress)
            second = await client.call_tool("run_python", {"code": "x + 1"})
            await client.call_tool("reset_python", {})
            third = await client.call_tool("run_python", {"code": "x"})
            return [result.structured_content for result in (first, second, third)]

    first, second, third = asyncio.run(asyncio.wait_for(scenario(), 60))
    assert first["ok"] and first["output"] == "started\n5" and first["isolation_level"] >= 0
    assert first["files"] == [{"path": "f.txt", "bytes": 2, "text": "hi"}]
    assert second["output"] == "6" and not third["ok"]
    assert heard and heard[-1][1] == 20.0 and "8 bytes of output" in heard[-1][2]


def test_verifiers_runs_programs_in_it():
    """Through the package's own Runtime class: its bounded reads, its environment views, its teardown."""
    pytest.importorskip("verifiers", reason="extra 'verifiers'")
    from verifiers.v1.errors import SandboxError
    from verifiers.v1.runtimes.base import Runtime

    from sfumato_sandbox.bridges.verifiers import sfumato_runtime

    async def scenario():
        async with sfumato_runtime(timeout_seconds=1) as runtime:
            assert isinstance(runtime, Runtime) and await runtime.alive()
            await runtime.write(
                "task/solve.py",
                b"import os, sys\nprint(os.environ['WHO'], sys.argv[1])\nopen('r', 'w').write('12345')",
            )
            seen = await runtime.with_env({"WHO": "me"}).run_program(["python3", "task/solve.py", "x"], {})
            assert (seen.exit_code, seen.stdout) == (0, "me x\n"), seen
            assert await runtime.read("r") == b"12345"
            with pytest.raises(SandboxError, match="over the 3 byte limit"):
                await runtime.read("r", max_bytes=3)
            with pytest.raises(SandboxError, match="no such file"):
                await runtime.read("none")
            assert (await runtime.run(["python3", "-c", "while True: x = 1"], {})).exit_code == 124
            assert (await runtime.run(["python3", "-c", "import os; os.fork()"], {})).exit_code == 1
            assert (await runtime.run(["uv", "--version"], {})).exit_code == 127
            assert await runtime.read("r") == b"12345", "files outlive a killed program"
        assert runtime.stopped and not await runtime.alive()

    asyncio.run(scenario())
