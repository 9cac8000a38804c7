"""The dozen array operations that the level-order search needs, for NumPy; ``ops_torch`` has them for torch.

Keeping them apart is what lets one text of the method run on every array library.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["NumpyOps"]


class NumpyOps:
    """NumPy arrays, int64 ids, floats of one dtype (float64 unless float32 is asked for)."""

    name = "numpy"

    def __init__(self, dtype: str = "float64") -> None:
        self.float_dtype: Any = np.dtype(dtype)

    def ids(self, values: Any) -> Any:
        """Return int64 ids."""
        return np.asarray(values, np.int64)

    def floats(self, values: Any) -> Any:
        """Return floats of this object's dtype."""
        return np.asarray(values, self.float_dtype)

    def full(self, shape: Any, value: float, like: str) -> Any:
        """Return an array filled with a value; ``like`` is "ids", "floats" or "flags"."""
        return np.full(shape, value, {"ids": np.int64, "floats": self.float_dtype, "flags": np.bool_}[like])

    def arange(self, first: int, last: int) -> Any:
        """Return the ids first … last-1."""
        return np.arange(first, last, dtype=np.int64)

    def concatenate(self, arrays: list[Any]) -> Any:
        """Join along the first axis."""
        return np.concatenate(arrays)

    def unique(self, keys: Any) -> tuple[Any, Any]:
        """Return sorted distinct keys and, for each key given, its place among them."""
        return np.unique(keys, return_inverse=True)

    def argsort(self, keys: Any) -> Any:
        """Return the stable order of keys."""
        return np.argsort(keys, kind="stable")

    def searchsorted(self, sorted_keys: Any, keys: Any) -> Any:
        """Return the first place whose key is not smaller."""
        return np.searchsorted(sorted_keys, keys)

    def first_above(self, cumulative: Any, x: Any) -> Any:
        """Return, row by row of ``cumulative`` [n, m], the number of entries not above ``x`` [n]."""
        return np.minimum((cumulative <= x[:, None]).sum(axis=1), cumulative.shape[1] - 1)

    def nonzero(self, flags: Any) -> Any:
        """Return the ids at which flags are set."""
        return np.flatnonzero(flags)

    def add_at(self, target: Any, ids: Any, values: Any) -> None:
        """Add values into ``target`` at ids, repeated ids included, in order."""
        np.add.at(target, ids, values)

    def segment_sum(self, values: Any, segments: Any, n: int) -> Any:
        """Return the sum of values in each of n segments."""
        return np.bincount(segments, weights=values, minlength=n).astype(self.float_dtype, copy=False)

    def segment_max(self, values: Any, segments: Any, n: int) -> Any:
        """Return the largest value in each of n segments, -inf where there is none."""
        out = np.full(n, -np.inf, self.float_dtype)
        np.maximum.at(out, segments, values)
        return out

    def cumsum(self, values: Any, axis: int = 0) -> Any:
        """Return running sums in float64, for a long float32 sum would lose its tail."""
        return np.cumsum(values, axis=axis, dtype=np.float64)

    exp = staticmethod(np.exp)
    log = staticmethod(np.log)
    where = staticmethod(np.where)
    maximum = staticmethod(np.maximum)
    isfinite = staticmethod(np.isfinite)

    def max_rows(self, values: Any) -> Any:
        """Return the largest entry of each row."""
        return values.max(axis=1)

    def truncate(self, values: Any) -> Any:
        """Return floats cut to int64 ids."""
        return values.astype(np.int64)

    def to_numpy(self, values: Any) -> Any:
        """Return a NumPy array."""
        return np.asarray(values)

    def draws(self, keys: Any, position: int, limit: int | None = None) -> Any:
        """Return the counter-based source of one batched call."""
        from sfumato_vopp.counter import CounterDraws

        return CounterDraws(keys, position, limit)

    def keys(self, seed: int, first: int, count: int) -> Any:
        """Return the stream keys of episodes first … first+count-1."""
        from sfumato_vopp.counter import episode_keys

        return episode_keys(seed, first, count)
