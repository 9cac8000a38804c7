"""Where a figure comes from: versions, commit, processor, threads, digests of code and data."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

DECIDING = frozenset(
    {
        "context.py", "driver.py", "evaluators.py", "gym.py", "protocols.py", "records.py", "runtimes.py", "seeding.py",
        "stats.py", "trace.py",
    }  # fmt: skip
)
"""The core's own files that decide what a run gives. A change of the command line makes no run stale."""
REPORTED = ("sfumato", "numpy", "scipy", "numba", "torch", "jax")


def now() -> str:
    """Return the time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@lru_cache(maxsize=64)
def code_digest(package: str) -> str:
    """Return the SHA-256 (16 hex digits) over a package's Python files, without importing it; "" when not found."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        return ""
    if not spec.submodule_search_locations:  # a plugin of one module
        origin = Path(spec.origin or "")
        return hashlib.sha256(origin.read_bytes()).hexdigest()[:16] if origin.is_file() else ""
    digest = hashlib.sha256()
    for location in spec.submodule_search_locations:
        root = Path(location)
        for path in sorted(root.rglob("*.py")):
            if package == "sfumato" and str(path.relative_to(root)) not in DECIDING:
                continue
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def code_of(targets: Iterable[str]) -> dict[str, str]:
    """Return package -> code digest for the packages that hold these `module:name` targets."""
    packages = sorted({t.partition(":")[0].partition(".")[0] for t in targets})
    return {p: code_digest(p) for p in packages}


def versions(extra: Iterable[str] = ()) -> dict[str, str]:
    """Return distribution -> version for those that are installed."""
    found = {}
    for name in (*REPORTED, *extra):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@lru_cache(maxsize=1)
def processor() -> str:
    """Return the processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def commit() -> dict[str, Any]:
    """Return the commit of the checkout that holds this package and whether it is dirty; {} when it is none."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ("git", "-C", str(here), *words), capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}


def provenance(device: str = "", data: Mapping[str, str] | None = None, threads: int = 1) -> dict[str, Any]:
    """Return what a reader needs to judge a figure: software, machine, data."""
    return {**_here(), "device": device, "threads": threads, "data": dict(data or {})}


@lru_cache(maxsize=1)
def _here() -> dict[str, Any]:
    """Return what stays the same while this process lives."""
    return {
        "versions": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        **commit(),
    }
