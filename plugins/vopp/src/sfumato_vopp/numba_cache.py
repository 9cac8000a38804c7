"""A cache on disk for kernels that are closures over a model's compiled functions."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numba
from numba import njit

__all__ = ["with_disk_cache"]


def with_disk_cache(function: Any, cache_key: str | None) -> Any:
    """Compile a closure lazily, with a cache on disk that is keyed by the model as well as by the source.

    Numba's own cache cannot tell two closures over different compiled functions apart, so the model's key, and the code
    of this package, become part of the index. Where numba's internals differ from what this expects, nothing is cached and
    the kernel is compiled in each process.
    """
    compiled: Any = njit(nogil=True)(function)
    if cache_key is None:
        return compiled
    key = f"{cache_key}:{_package_digest()}"
    try:
        from numba.core.caching import FunctionCache
    except ImportError:
        return compiled

    class ModelCache(FunctionCache):
        def _index_key(self, sig: Any, codegen: Any) -> Any:
            return (sig, codegen.magic_tuple(), key)

    try:
        compiled._cache = ModelCache(function)
    except (RuntimeError, AttributeError):
        return njit(nogil=True)(function)
    return compiled


_DIGEST: list[str] = []


def _package_digest() -> str:
    if not _DIGEST:
        digest = hashlib.sha256(numba.__version__.encode())
        for file in sorted(Path(__file__).parent.rglob("*numba*.py")):
            digest.update(file.read_bytes())
        _DIGEST.append(digest.hexdigest()[:16])
    return _DIGEST[0]
