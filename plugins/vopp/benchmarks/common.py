"""What the benchmarks share."""

from __future__ import annotations

import numpy as np


def interval(values: np.ndarray) -> str:
    """Return mean and 95 % half-width as text."""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    return f"{values.mean():7.2f} ± {half:.2f}"
