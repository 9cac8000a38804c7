"""Named random streams: same seed, name and keys, same draws, whoever else draws.

The world's randomness, the policy's and the training's are separate streams, so a policy that draws more does
not change the world, and comparisons are paired.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=256)
def _words(name: str) -> tuple[int, ...]:
    digest = hashlib.sha256(name.encode()).digest()
    return tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))


def stream(seed: int, name: str, *keys: int) -> np.random.Generator:
    """Return the PCG64 generator of stream `name` under `seed`, one for each tuple of non-negative `keys`.

    Stable across processes, platforms and PYTHONHASHSEED: the name enters through SHA-256.
    """
    if any(not 0 <= key < 2**32 for key in keys):
        raise ValueError(f"stream {name!r}: keys are whole numbers from 0 to 2**32 - 1, got {keys}")
    # The word count separates (name, keys) from one another: keys come after a fixed-length name part.
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, *_words(name), *keys))))
