"""Read saved router scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

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
    arrays = load_npz(path)
    if arrays is not None:
        name = key if key in arrays else next(iter(arrays)) if len(arrays) == 1 else None
        if name is None:
            raise ArgumentError("path", f"an array named {key!r}", f"{path} with {', '.join(arrays)}")
        array = arrays[name]
    else:
        array = _open(path)
    if array.dtype.kind not in "fiu":
        raise ArgumentError("path", "an array of numbers", f"{path} with dtype {array.dtype}")
    return np.asarray(array, dtype=np.float64)


def load_npz(path: str | Path) -> dict[str, Any] | None:
    """Read all arrays of a .npz file by name; None when the file is a .npy. Never unpickles."""
    loaded = _open(path)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        return None
    with loaded:
        try:
            return {name: loaded[name] for name in loaded.files}
        except (ValueError, OSError, EOFError, BadZipFile) as error:
            raise ArgumentError("path", "a .npz file of numbers", f"{path} ({error})") from error


def _open(path: str | Path) -> Any:
    file = Path(path)
    if not file.is_file():
        raise ArgumentError("path", "an existing .npy or .npz file", str(file))
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise ArgumentError("path", "a .npy or .npz file of numbers", f"{file} ({error})") from error
