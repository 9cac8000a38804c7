"""Time of one action, ours against the named peers, interleaved in one process.

    python benchmarks/speed.py [--rounds 200] [--json FILE]

Every round runs each arm once, in a shuffled order, so that whatever else the machine does falls on all of
them alike. Read the ratios; the milliseconds are this machine's, at that moment. Needs the extra `benchmark`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable

from peers import Arm, FreshPython, InProcess, IpyKernel, Ours, Smolagents

from sfumato_sandbox import STATELESS, Interpreter, Limits

CELL = "x = 1 + 1\nprint(x)"
PACKAGES = "default packages"
LOOP = "t = 0\nfor i in range(100_000):\n    t += i\nprint(t)"


def interleave(arms: dict[str, Callable[[], object]], rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """Return seconds per arm, one a round, after one warm-up round."""
    order = random.Random(seed)
    times: dict[str, list[float]] = {name: [] for name in arms}
    for round_ in range(rounds + 1):
        names = list(arms)
        order.shuffle(names)
        for name in names:
            started = time.perf_counter()
            arms[name]()
            if round_:
                times[name].append(time.perf_counter() - started)
    return times


def table(title: str, times: dict[str, list[float]], against: dict[str, str]) -> list[dict[str, object]]:
    """Print and return medians, minima and 95th percentiles in ms, and the ratio to a named arm."""
    print(f"\n{title} ({len(next(iter(times.values())))} rounds, interleaved)")
    print(f"  {'arm':44} {'median ms':>10} {'min ms':>9} {'p95 ms':>9}   ratio of medians")
    rows = []
    for name, values in times.items():
        median = statistics.median(values)
        row: dict[str, object] = {
            "arm": name,
            "rounds": len(values),
            "median_ms": median * 1e3,
            "min_ms": min(values) * 1e3,
            "p95_ms": sorted(values)[int(0.95 * len(values))] * 1e3,
        }
        note = ""
        if name in against:
            ratio = statistics.median(times[against[name]]) / median
            row |= {"ratio": ratio, "against": against[name]}
            note = f"{ratio:.1f}x faster than {against[name]}"
        print(f"  {name:44} {median * 1e3:10.3f} {row['min_ms']:9.3f} {row['p95_ms']:9.3f}   {note}")
        rows.append(row)
    return rows


def actions(rounds: int) -> list[dict[str, object]]:
    """A trivial cell, persistent and stateless, at each level without packages, at level 1 with the default ones."""
    interpreters = {
        f"ours, {mode}, level {level}": Interpreter(
            persistent=mode == "persistent", level=level, strict=True, packages=()
        )
        for mode in ("persistent", "stateless")
        for level in (0, 1, 2)
    }
    interpreters |= {
        f"ours, {mode}, level 1, {PACKAGES}": Interpreter(
            persistent=mode == "persistent", level=1, strict=True
        )
        for mode in ("persistent", "stateless")
    }
    loaded = interpreters[f"ours, stateless, level 1, {PACKAGES}"].packages.preload
    assert loaded == ("numpy", "pandas", "matplotlib"), f"install the extra 'data'; there is only {loaded}"
    fast: dict[str, Arm] = {name: Ours(interpreter) for name, interpreter in interpreters.items()}
    # Acting at once after the last action shows throughput, a pause in between what an agent waits for.
    slow: dict[str, Arm] = {
        "exec in the host's process": InProcess(),
        "ipykernel, persistent": IpyKernel(),
        "ipykernel, %reset -f, then the cell": IpyKernel(reset=True),
        "fresh python -I -S": FreshPython(),
        "smolagents LocalPythonExecutor": Smolagents(),
    }
    arms = {**fast, **slow}
    for name, arm in arms.items():
        assert arm.step(CELL) == "2\n", name
    against = {
        name: "ipykernel, persistent" if "persistent" in name else "fresh python -I -S" for name in fast
    }
    rows = table(
        "One trivial action",
        interleave({n: lambda a=a: a.step(CELL) for n, a in arms.items()}, rounds),
        against,
    )
    loops = {
        name: arms[name]
        for name in ("ours, persistent, level 1", "smolagents LocalPythonExecutor", "ipykernel, persistent")
    }
    rows += table(
        "A loop of 100,000 additions",
        interleave({n: lambda a=a: a.step(LOOP) for n, a in loops.items()}, max(rounds // 10, 5)),
        {"ours, persistent, level 1": "smolagents LocalPythonExecutor"},
    )
    back_to_back = {
        name: arms[name]
        for name in (
            "ours, stateless, level 1",
            f"ours, stateless, level 1, {PACKAGES}",
            "fresh python -I -S",
        )
    }

    def ten(arm: Arm) -> None:
        for _ in range(10):
            arm.step(CELL)

    rows += table(
        "Ten stateless actions with nothing in between (throughput)",
        interleave({n: lambda a=a: ten(a) for n, a in back_to_back.items()}, max(rounds // 5, 5)),
        {name: "fresh python -I -S" for name in back_to_back if name.startswith("ours")},
    )
    for arm in arms.values():
        arm.close()
    for interpreter in interpreters.values():
        interpreter.close()
    return rows


def tools(rounds: int) -> list[dict[str, object]]:
    """21 tool calls in one action."""
    with Interpreter() as lasting, Interpreter(persistent=False) as fresh:
        arms = {}
        for name, interpreter in ((f"persistent, {PACKAGES}", lasting), (f"stateless, {PACKAGES}", fresh)):
            session = interpreter.open({"inspect": lambda item: '{"class":"A","value":10,"weight":5}'})
            arms[f"ours, level 1, {name}"] = lambda s=session: s.step(
                "for i in range(21): inspect(f'item_{i:012x}')"
            )
        return table("One action with 21 tool calls", interleave(arms, rounds), {})


def heaps(rounds: int) -> list[dict[str, object]]:
    """Snapshot and restore by size of the heap."""
    rows = []
    with Interpreter() as interpreter:
        for size in (1, 10, 100, 400):
            limits = Limits(memory_bytes=2 << 30)
            with interpreter.open({"size": len}, limits, snapshots=1, tool_state=STATELESS) as session:
                fill = f"data = [bytearray(b'x' * 1000) for _ in range({size * 1000})]"
                assert session.step(fill).ok
                taken, restored, again = [], [], []
                check = "print(len(data), data[-1][:1])"
                for _ in range(rounds):  # each snapshot is of a restored process: the chain grows
                    started = time.perf_counter()
                    mark = session.snapshot()
                    middle = time.perf_counter()
                    session.restore(mark)
                    taken.append(middle - started)
                    restored.append(time.perf_counter() - middle)
                    assert session.step(check).stdout == f"{size * 1000} bytearray(b'x')\n"
                for _ in range(rounds):  # one snapshot, restored again and again
                    session.step("data.clear()")
                    started = time.perf_counter()
                    session.restore(mark)
                    again.append(time.perf_counter() - started)
                    assert session.step(check).stdout == f"{size * 1000} bytearray(b'x')\n"
            rows += table(
                f"A heap of {size} MB in objects of 1 kB",
                {"snapshot": taken, "restore": restored, "restore the same again": again},
                {},
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json")
    options = parser.parse_args()
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()}"
    )
    rows = actions(options.rounds) + tools(options.rounds) + heaps(max(options.rounds // 20, 5))
    print(f"load at the end {os.getloadavg()}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(
                {"load": os.getloadavg(), "platform": platform.platform(), "rows": rows}, file, indent=1
            )


if __name__ == "__main__":
    main()
