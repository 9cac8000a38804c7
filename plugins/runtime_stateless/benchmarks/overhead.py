"""What the runtime adds to a bare sandbox session: milliseconds of one action, interleaved.

python benchmarks/overhead.py [--rounds 300]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

import numpy as np

from sfumato.protocols import Episode
from sfumato.records import Start, Step
from sfumato_runtime_stateless import StatelessPython


class Echo(Episode[Any, Any]):
    """A task with one tool that answers with its argument."""

    def reset(self) -> Start[Any]:
        return Start("", {"tools": {"echo": {"signature": "(x)", "doc": ""}}})

    def step(self, action: Any) -> Step[Any]:
        return Step({"ok": True, "value": action["args"][0]}, 0.0, False)


class Context:
    """The one method of a run's context that runtimes use."""

    def stream(self, name: str, *keys: int) -> np.random.Generator:
        return np.random.default_rng(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    rounds = parser.parse_args().rounds
    runtime = StatelessPython()
    context: Any = Context()
    with runtime.open(Echo(), context) as episode:
        episode.reset()
        interpreter = runtime._interpreter
        assert interpreter is not None
        with interpreter.open({"echo": lambda x: x}) as session:
            times: dict[str, list[float]] = {"bare session": [], "runtime": []}
            for _ in range(rounds):
                for name, step in (("bare session", session.step), ("runtime", episode.step)):
                    started = time.perf_counter()
                    step("for i in range(5): echo(i)\nprint(i)")
                    times[name].append(time.perf_counter() - started)
    runtime.close()
    print(f"one action with 5 tool calls, {rounds} rounds, interleaved, load {os.getloadavg()}")
    for name, values in times.items():
        print(f"  {name:14} median {statistics.median(values) * 1e3:.3f} ms, min {min(values) * 1e3:.3f} ms")


if __name__ == "__main__":
    main()
