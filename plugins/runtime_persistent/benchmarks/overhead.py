"""What the runtime adds to a bare sandbox session: milliseconds of one action, interleaved in random order.

    python benchmarks/overhead.py [--rounds 300] [--json FILE]

Wall time of an action, and of it the CPU time of this process, which is where all that the runtime adds is spent.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import statistics
import time
from typing import Any

import numpy as np

from sfumato.protocols import Episode
from sfumato.records import Start, Step
from sfumato_runtime_persistent import PersistentPython


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
    parser.add_argument("--json")
    options = parser.parse_args()
    runtime = PersistentPython()
    context: Any = Context()
    order = random.Random(0)
    with runtime.open(Echo(), context) as episode:
        episode.reset()
        interpreter = runtime._interpreter
        assert interpreter is not None
        with interpreter.open({"echo": lambda x: x}) as session:
            arms = [("bare session", session.step), ("runtime", episode.step)]
            wall: dict[str, list[float]] = {name: [] for name, _ in arms}
            cpu: dict[str, list[float]] = {name: [] for name, _ in arms}
            for _ in range(options.rounds):
                order.shuffle(arms)
                for name, step in arms:
                    used, started = time.process_time(), time.perf_counter()
                    step("for i in range(5): echo(i)\nprint(i)")
                    wall[name].append((time.perf_counter() - started) * 1e3)
                    cpu[name].append((time.process_time() - used) * 1e3)
    runtime.close()
    rows = {
        name: {
            "median_ms": statistics.median(wall[name]),
            "min_ms": min(wall[name]),
            "host_cpu_median_ms": statistics.median(cpu[name]),
        }
        for name in wall
    }
    print(f"one action with 5 tool calls, {options.rounds} rounds, interleaved, load {os.getloadavg()}")
    for name, row in rows.items():
        print(f"  {name:14} " + ", ".join(f"{key} {value:.3f}" for key, value in row.items()))
    if options.json:
        text = json.dumps({"rounds": options.rounds, "load": os.getloadavg(), "rows": rows}, indent=1)
        pathlib.Path(options.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
