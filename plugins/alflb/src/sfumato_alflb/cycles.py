"""T4: with a constant step, the sign rule lives on a lattice and ends in an exact cycle.

The state of the rule on fixed scores is the bias alone, biases are p0 + u*z with z integer, and a state
seen twice repeats for ever. So what held over one turn of the cycle holds for all time to come. A common
shift of all biases changes no routing (with all scores equal the biases drift together for ever), so
points that differ by one count as the same.
"""

from __future__ import annotations

import numpy as np

from .errors import ArgumentError
from .problem import Floats, Ints, as_floats
from .rules import checked_rate


class LatticeWatch:
    """Remember lattice points and say when one comes back. Memory: 8*E bytes a step."""

    def __init__(self) -> None:
        self._first: dict[bytes, int] = {}
        self.cycle: tuple[int, int] | None = None

    def seen(self, lattice: Ints, n: int) -> bool:
        """Record point z at step n; return whether it was there before (then `cycle` is set)."""
        if self.cycle is not None:
            return True
        before = self._first.setdefault((lattice - lattice[0]).tobytes(), n)
        if before != n:
            self.cycle = (before, n - before)
        return self.cycle is not None


def find_cycle(biases: Floats, u: float) -> tuple[int, int] | None:
    """Return (start, period) of the first exact cycle in recorded biases [n, E], or None.

    The biases are hashed as round((p - p0)/u), so a history logged in float32 works too.
    """
    if checked_rate(u) == 0.0:
        raise ArgumentError("u", "a number > 0", repr(u), "Without a step every bias repeats.")
    biases = as_floats(biases, "biases", "an array [n, E]")
    if biases.ndim != 2 or not biases.size or not np.isfinite(biases).all():
        raise ArgumentError("biases", "a finite array [n, E] with n >= 1", f"shape {biases.shape}")
    watch = LatticeWatch()
    for n, point in enumerate(np.rint((biases - biases[0]) / u).astype(np.int64)):
        if watch.seen(point, n):
            break
    return watch.cycle


def peak_to_peak(biases: Floats) -> Floats:
    """Return the range [E] of each expert's bias over the recorded steps [n, E]."""
    return np.asarray(biases.max(axis=0) - biases.min(axis=0))
