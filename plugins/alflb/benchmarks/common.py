"""Interleaved timing: each round runs every contender once, so that a busy machine disturbs all alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def interleaved(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, dict[str, float]]:
    """Return medians of wall and process CPU milliseconds, after one unmeasured call of each."""
    for run in contenders.values():
        run()
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    cpu: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            c, w = time.process_time(), time.perf_counter()
            run()
            wall[name].append((time.perf_counter() - w) * 1e3)
            cpu[name].append((time.process_time() - c) * 1e3)
    return {
        n: {
            "cpu_ms": statistics.median(cpu[n]),
            "wall_ms": statistics.median(wall[n]),
            "cpu_ms_least": min(cpu[n]),
            "rounds": rounds,
        }
        for n in contenders
    }


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge a time: the load tells whether the machine was shared."""
    return {"processor": platform.processor() or platform.machine(), "cpus": os.cpu_count(),
            "load": os.getloadavg()[0], "python": platform.python_version()}  # fmt: skip


def save(name: str, table: Any) -> None:
    """Write a table beside this file, with the machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "table": table}, indent=1) + "\n")
    print(f"wrote {path}")
