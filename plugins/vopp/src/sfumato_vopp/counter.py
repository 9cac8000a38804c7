"""Random numbers that depend on their place alone: (seed, episode, step, slot), never on the order of the work.

Every backend computes the same numbers for the same place, so that a search done episode by episode (compiled) and one
done level by level (arrays) can be held against each other exactly, and so that a thread count changes nothing.

The generator is SplitMix64 used as a counter: number ``p`` of a stream with key ``k`` is ``mix(k + (p+1)·g)``.

Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014 (the mixing constants).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["SLOTS_PER_STEP", "CounterDraws", "episode_keys", "mix64"]

#: Places reserved for one step of one episode: one for the action, the rest for the model.
SLOTS_PER_STEP = 64

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_TO_UNIT = 1.0 / (1 << 53)


def mix64(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return the SplitMix64 finaliser of each element; uint64 in, uint64 out, same shape."""
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * _M1
        z = (z ^ (z >> np.uint64(27))) * _M2
        return z ^ (z >> np.uint64(31))


def episode_keys(seed: int, first: int, count: int) -> NDArray[np.uint64]:
    """Return the stream keys of episodes ``first … first+count-1``; uint64 [count]."""
    with np.errstate(over="ignore"):
        ids = np.arange(first + 1, first + count + 1, dtype=np.uint64)
        return mix64(np.uint64(seed & 0xFFFFFFFFFFFFFFFF) + ids * _GAMMA)


class CounterDraws:
    """A random source for one batched call, with the part of NumPy's Generator interface that our models use.

    Arguments:
        keys: uint64 [B], the stream of each item.
        position: first place of this call in each stream; the same for the whole batch.

    ``random(n)`` and ``standard_normal(n)`` return float64 [B] and need ``n == B``: each item takes the number at its own
    place, so a batch from which some items have been dropped still draws the same numbers for the others.
    """

    def __init__(self, keys: NDArray[np.uint64], position: int = 0, limit: int | None = None) -> None:
        self._keys = keys
        self._position = position
        self._end = None if limit is None else position + limit

    def streams(self) -> NDArray[np.uint64]:
        """Return the state of each stream at this position, as compiled code takes it; uint64 [B]."""
        with np.errstate(over="ignore"):
            return self._keys + np.uint64(self._position) * _GAMMA

    def random(self, size: int | None = None) -> NDArray[np.float64]:
        """Return uniform numbers on [0, 1); float64 [B]."""
        if size is not None and size != self._keys.size:
            raise ValueError(f"expected a draw for each of the {self._keys.size} items, got size={size}")
        if self._end is not None and self._position >= self._end:
            raise ValueError(
                f"the model drew more than {SLOTS_PER_STEP - 1} numbers in one step; give it a NumPy generator instead "
                "(uses_counter_draws = False)"
            )
        self._position += 1
        with np.errstate(over="ignore"):
            z = mix64(self._keys + np.uint64(self._position) * _GAMMA)
        return (z >> np.uint64(11)).astype(np.float64) * _TO_UNIT

    def standard_normal(self, size: int | None = None) -> NDArray[np.float64]:
        """Return standard normal numbers by Box and Muller's transform, two places each; float64 [B]."""
        radius = np.sqrt(-2.0 * np.log(1.0 - self.random(size)))
        return radius * np.cos(2.0 * np.pi * self.random(size))
