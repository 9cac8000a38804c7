"""Many live sessions, and many hostile actions: what leaks, what hangs, what it costs.

python benchmarks/endurance.py [--sessions 256] [--steps 20000] [--hostile 1000] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import time
from concurrent.futures import ThreadPoolExecutor

from sfumato_sandbox import Interpreter, Limits, Session

HOSTILE = {
    "exit": "import os; os._exit(random_status)",
    "segfault": "import ctypes; ctypes.string_at(0)",
    "abort": "import os; os.abort()",
    "fork bomb": "import os\nwhile True: os.fork()",
    "memory": "b = []\nwhile True: b.append(bytearray(1 << 22))",
    "threads": "import threading, time\nfor i in range(40): threading.Thread(target=time.sleep, args=(99,)).start()",
    "descriptors": "import os\nwhile True: os.pipe()",
    "files": "import os\nfor i in range(150): os.makedirs(f'{i}/a', exist_ok=True)\nos.mkdir('closed', 0)",
    "too many files": "for i in range(2000): open(f'f{i}', 'w').close()",
    "output": "print('x' * 10_000_000)",
    "raw output": "import os\nfor i in range(200): os.write(2, b'y' * 65536)",
    "noise on the channel": "import os; os.write(3, b'noise' * 99)",
    "closed channel": "import os; os.close(3)",
    "closed output": "import os; os.close(1); os.close(2)",
    "stopped": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "busy": "while True: x = 1",
    "busy in C": "sum(range(10**15))",
    "deaf": "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: x = 1",
    "recursion": "def f(): f()\nf()",
    "exit by exception": "raise SystemExit(4)",
}
HUNG_SECONDS = 1.0
LIMITS = Limits(
    timeout_seconds=0.25, grace_seconds=0.1, memory_bytes=128 << 20, disk_bytes=16 << 20, disk_files=500
)


def census(interpreter: Interpreter) -> dict[str, int]:
    """Count what could leak: processes of the zygote's, own descriptors, directories."""
    zygote = interpreter._zygote
    processes = 0
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        processes += parent == zygote.process.pid
    return {
        "processes": processes,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "directories": len(os.listdir(zygote.root)),
    }


def hostile(n: int, seed: int = 0) -> dict[str, object]:
    """Run hostile actions, a few a session, both kinds of runtime; compare the census before and after."""
    result: dict[str, object] = {"actions": n}
    draw = random.Random(seed)
    for persistent in (True, False):
        with Interpreter(persistent=persistent, level=1, strict=True) as interpreter:
            with interpreter.open({}, LIMITS) as session:
                session.step("1")
            before, kinds, slowest, done = census(interpreter), {}, 0.0, 0
            started = time.monotonic()
            while done < n // 2:
                with interpreter.open({}, LIMITS) as session:
                    for _ in range(min(draw.randint(1, 8), n // 2 - done)):
                        name = draw.choice(list(HOSTILE))
                        begun = time.monotonic()
                        outcome = session.step(
                            HOSTILE[name].replace("random_status", str(draw.randint(0, 9)))
                        )
                        slowest = max(slowest, time.monotonic() - begun)
                        kind = outcome.error.type if outcome.error else "ok"
                        kinds[kind] = kinds.get(kind, 0) + 1
                        done += 1
            time.sleep(0.3)
            after = census(interpreter)
        name = "persistent" if persistent else "stateless"
        result[name] = {
            "seconds": time.monotonic() - started, "slowest_action_seconds": slowest,
            "limit_seconds": LIMITS.timeout_seconds, "outcomes": kinds, "before": before, "after": after,
            "leaked": before != after,
        }  # fmt: skip
    return result


def memory_of(pids: list[int]) -> tuple[float, float]:
    """Return mean (unshared, proportional) resident megabytes of processes."""
    unshared = proportional = 0
    for pid in pids:
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(("Private_Clean", "Private_Dirty")):
                unshared += int(line.split()[1])
            elif line.startswith("Pss:"):
                proportional += int(line.split()[1])
    return unshared / 1024 / len(pids), proportional / 1024 / len(pids)


def crowd(n_sessions: int, n_steps: int, seed: int = 0) -> dict[str, object]:
    """Keep many persistent sessions alive and step them in random order, from one thread and from eight."""
    draw = random.Random(seed)
    with Interpreter(level=1, strict=True) as interpreter:
        started = time.monotonic()
        sessions = [interpreter.open({"double": lambda n: 2 * n}) for _ in range(n_sessions)]
        for k, session in enumerate(sessions):
            assert session.step(f"me = {k}; log = []").ok
        opened = time.monotonic() - started
        times = []
        count = [0] * n_sessions

        def one(k: int) -> None:
            session: Session = sessions[k]
            count[k] += 1
            begun = time.perf_counter()
            result = session.step(f"log.append(double({count[k]}))\nprint(me, len(log), log[-1])")
            times.append(time.perf_counter() - begun)
            assert result.stdout == f"{k} {count[k]} {2 * count[k]}\n", (k, result)

        for _ in range(n_steps):
            one(draw.randrange(n_sessions))
        single = sorted(times)
        times.clear()
        with ThreadPoolExecutor(8) as pool:  # lanes own disjoint sessions, as concurrent episodes do

            def lane(first: int) -> None:
                mine = random.Random(first)
                for _ in range(n_steps // 40):
                    one(mine.randrange(first, n_sessions, 8))

            list(pool.map(lane, range(8)))
        several = sorted(times)
        unshared, proportional = memory_of([session._child.pid for session in sessions])
        for session in sessions:
            session.close()

    def at(values: list[float], q: float) -> float:
        return values[int(q * (len(values) - 1))] * 1e3

    return {
        "sessions": n_sessions, "steps": n_steps, "open_seconds": opened, "hung": sum(seconds > HUNG_SECONDS for seconds in single + several),
        "one_thread_ms": {"p50": at(single, 0.5), "p99": at(single, 0.99), "max": at(single, 1)},
        "eight_threads_ms": {"p50": at(several, 0.5), "p99": at(several, 0.99), "max": at(several, 1)},
        "unshared_mb_per_session": unshared, "proportional_mb_per_session": proportional,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--hostile", type=int, default=1000)
    parser.add_argument("--json")
    options = parser.parse_args()
    result = {
        "load_before": os.getloadavg(),
        "crowd": crowd(options.sessions, options.steps),
        "hostile": hostile(options.hostile),
        "load_after": os.getloadavg(),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        pathlib.Path(options.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
