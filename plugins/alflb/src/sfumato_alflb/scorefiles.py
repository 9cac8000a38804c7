"""Read saved router scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import ArgumentError
from .problem import Floats


def load_scores(path: str | Path) -> Floats:
    """Read scores [T, E] from a .npy file, or from key 'scores' (or the only array) of a .npz file.

    Raises ArgumentError naming the file and what is wrong with it. Never unpickles.
    """
    array = load_array(path, "scores")
    if array.ndim > 2:
        # Logs keep batch and time apart; tokens are tokens.
        array = array.reshape(-1, array.shape[-1])
    return array


def load_array(path: str | Path, key: str) -> Floats:
    """Read an array of numbers from a .npy file, or from `key` (or the only array) of a .npz file, as float64."""
    file = Path(path)
    if not file.is_file():
        raise ArgumentError("path", "an existing .npy or .npz file", str(file))
    try:
        loaded = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ArgumentError("path", "a .npy or .npz file of numbers", f"{file} ({error})") from error
    if isinstance(loaded, np.lib.npyio.NpzFile):
        with loaded:
            names = list(loaded.files)
            name = key if key in names else names[0] if len(names) == 1 else None
            if name is None:
                raise ArgumentError("path", f"an array named {key!r}", f"{file} with {', '.join(names)}")
            array = loaded[name]
    else:
        array = loaded
    if array.dtype.kind not in "fiu":
        raise ArgumentError("path", "an array of numbers", f"{file} with dtype {array.dtype}")
    return np.asarray(array, dtype=np.float64)
