"""How long a population remembers the arm before: block lengths and allowances from its contraction factor.

In a loop that contracts by a factor q a round, an observation k rounds after a switch of arms is off its steady state by at
most C q^k. Two remedies follow: hold each choice long enough and learn only from its second half (`block`), or widen the
bounds by what may be left over (`bias`). Standard reasoning, not the source's.
"""

from __future__ import annotations

import math

from sfumato_ofs.errors import OfsError
from sfumato_ofs.inputs import number, whole


def block_length(factor: float, tolerance: float = 0.05) -> int:
    """Return the block length whose second half is off by at most `tolerance` of what a switch disturbs.

    Arguments:
        factor: contraction factor q in (0, 1) of the slowest part of the state (`BetaLoop.contraction_factor`, and the memory
            of the shares).
        tolerance: share of the disturbance that may be left, in (0, 1).

    Notes: twice ceil(ln(1 / tolerance) / ln(1 / q)), because learning begins at the half.
    """
    factor, tolerance = _open_unit("factor", factor), _open_unit("tolerance", tolerance)
    return 2 * max(math.ceil(math.log(tolerance) / math.log(factor)), 1)


def bias_allowance(disturbance: float, factor: float, switches: int = 1) -> float:
    """Return b for the allowance b / N: at most `disturbance` * switches / (1 - factor) is ever summed up in an arm's N plays.

    Arguments:
        disturbance: the largest amount C by which the first observation after a switch is off, in units of a residual.
        factor: contraction factor q in (0, 1).
        switches: how often play comes to an arm from another one. It is not known beforehand; 1 covers a first sweep that then
            settles, which is where lock-out comes from.
    """
    disturbance = number("disturbance", disturbance, least=0.0)
    return disturbance * whole("switches", switches, least=1) / (1.0 - _open_unit("factor", factor))


def _open_unit(name: str, value: float) -> float:
    if not 0.0 < number(name, value) < 1.0:
        raise OfsError(f"{name} must lie between 0 and 1, got {value!r}: the loop must contract")
    return float(value)
