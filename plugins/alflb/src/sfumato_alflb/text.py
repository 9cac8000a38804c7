"""Text that every CPython ships: the help topics of pydoc, about 465,000 characters (PSF licence)."""

from __future__ import annotations

import hashlib

import attrs
import numpy as np
from numpy.typing import NDArray


@attrs.frozen(eq=False)
class CharText:
    """A text as numbers. train, valid: int64 [n]. characters: the vocabulary, sorted. sha256: of the text.

    The text differs a little between Python versions, so the digest goes with every figure.
    """

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    characters: str
    sha256: str


def help_topics(valid_share: float = 0.1) -> CharText:
    """Return the help topics in order of their keys; the last `valid_share` is for validation."""
    from pydoc_data.topics import topics

    text = "".join(topics[key] for key in sorted(topics))
    characters = "".join(sorted(set(text)))
    index = {c: i for i, c in enumerate(characters)}
    data = np.fromiter((index[c] for c in text), dtype=np.int64, count=len(text))
    split = int(len(data) * (1.0 - valid_share))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return CharText(data[:split], data[split:], characters, digest)
