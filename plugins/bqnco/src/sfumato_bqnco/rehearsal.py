"""Compile before the clock starts: what Numba has not compiled in this installation is run once on a small piece.

Numba compiles a function when it is first called and keeps the result on disk. In a new installation that takes the
better part of a minute, and none of it should come out of a user's time limit. A stamp beside Numba's own files says which
parts have been through it, so that later calls rehearse nothing.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import threading
import time
from collections.abc import Callable
from pathlib import Path

import attrs
import numba

from .baselines import cvrp_local
from .instances import Instance

_SOURCES = Path(__file__).parent
_LOG = logging.getLogger(__name__)
# Where nothing can be kept on disk, this process at least rehearses once.
_here: set[str] = set()


def piece(instance: Instance, n: int = 12) -> Instance:
    """The first `n` nodes or items with the same limit and the same rule of distances."""
    if instance.n <= n:
        return instance
    cut = {
        name: getattr(instance, name)[:n].copy()
        for name in ("xy", "demand", "prize", "windows", "service", "value", "weight")
        if getattr(instance, name) is not None
    }
    if instance.matrix is not None:
        cut["matrix"] = instance.matrix[:n, :n].copy()
    fields = {
        f.name: getattr(instance, f.name) for f in attrs.fields(Instance) if f.init and f.name not in cut
    }
    return Instance(**fields | cut)


def _state() -> str:
    """What the compiled files depend on: our sources, Numba, and the processor."""
    files = [*_SOURCES.glob("*.py"), *(_SOURCES / "baselines").glob("*.py")]
    newest = max(f.stat().st_mtime_ns for f in files)
    processor = getattr(numba.config, "CPU_NAME", None) or platform.processor()
    return f"{newest} {numba.__version__} {platform.python_version()} {processor}"


def _stamp() -> Path | None:
    folder = cvrp_local._uniform.stats.cache_path
    return Path(folder) / "rehearsed.json" if folder else None


def _done() -> set[str]:
    path = _stamp()
    try:
        kept = json.loads(path.read_text()) if path else {}
    except (OSError, ValueError):
        return set()
    return set(kept["parts"]) if kept.get("state") == _state() else set()


def needed(part: str) -> bool:
    """Whether `part` (a problem, a method, a rule of distances) has not been compiled here."""
    return part not in _here and part not in _done()


def rehearse(part: str, run: Callable[[], object], about: float) -> float:
    """Call `run` when `part` has not been compiled here, and say so (`about` seconds); returns seconds."""
    if not needed(part):
        return 0.0
    began = time.perf_counter()
    # Numba's files may be there from before there was a stamp: speak only when it does take time.
    text = "compiling (once in this installation, about %.0f s on a free core, not counted in the time limit)"
    voice = threading.Timer(0.5, _LOG.warning, (text, about))
    voice.daemon = True
    voice.start()
    try:
        run()
    finally:
        voice.cancel()
    _here.add(part)
    path = _stamp()
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            temporary.write_text(json.dumps({"state": _state(), "parts": sorted(_done() | {part})}))
            temporary.replace(path)
        except OSError:
            pass
    return time.perf_counter() - began
