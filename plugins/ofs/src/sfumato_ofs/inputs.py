"""Numbers that come from outside, checked at the border: what was expected and what was got, by the argument's name."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence

import numpy as np

from sfumato_ofs.errors import OfsError


def number(
    name: str,
    value: object,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float | None = None,
    unknown: bool = False,
) -> float:
    """Return value as a finite float in [least, most], and above `above` where given; NaN where `unknown` allows it.

    Raises: OfsError naming the argument.
    """
    # The quick ways first: these run for every batch of a stream.
    if type(value) is float and least <= value <= most and math.isfinite(value) and above is None:
        return value
    good = isinstance(value, numbers.Real) and not isinstance(value, bool)
    try:
        x = float(value) if good else math.nan  # type: ignore[arg-type]
    except OverflowError:  # an integer beyond all floats
        good, x = False, math.nan
    if good and unknown and math.isnan(x):
        return x
    if good and math.isfinite(x) and least <= x <= most and (above is None or x > above):
        return x
    limits = [f"above {above:g}"] if above is not None else []
    if least > -math.inf and most < math.inf:
        limits.append(f"in [{least:g}, {most:g}]")
    elif least > -math.inf:
        limits.append(f"at least {least:g}")
    elif most < math.inf:
        limits.append(f"at most {most:g}")
    wanted = " ".join(["a finite number", *limits]) + (" or NaN" if unknown else "")
    raise OfsError(f"{name} must be {wanted}, got {value!r}")


EXACT = 2**53
"""Largest count that a float holds exactly."""


def whole(name: str, value: object, *, least: int = 0, most: float = math.inf) -> int:
    """Return value as an integer of at least `least` and at most `most`; 200.0 passes, 0.5 and True do not.

    Raises: OfsError naming the argument.
    """
    if type(value) is int and least <= value <= most:
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            x = float(value)
        except OverflowError:  # an integer beyond all floats
            x = math.nan
        if math.isfinite(x) and x == int(x) and least <= x <= most:
            return int(x)
    limit = "" if most == math.inf else f" and at most {most}"
    raise OfsError(f"{name} must be an integer of at least {least}{limit}, got {value!r}")


def row(
    name: str, values: object, size: int, what: str, *, least: float, most: float, unknown: bool = True
) -> list[float]:
    """Return `size` numbers in [least, most], NaN for unknown ones where allowed.

    Raises: OfsError naming the argument and, for one bad entry, its position.
    """
    if type(values) is not list and (
        isinstance(values, str | bytes)
        or not isinstance(values, Sequence | np.ndarray)
        or (isinstance(values, np.ndarray) and (values.ndim == 0 or isinstance(values, np.ma.MaskedArray)))
    ):
        raise OfsError(f"{name} must be {size} numbers, {what}; got {type(values).__name__}")
    if len(values) != size:  # type: ignore[arg-type]
        raise OfsError(f"{name} must have {size} entries, {what}; got {len(values)}")
    out = []
    for x in values:  # type: ignore[attr-defined]
        if type(x) is float and (least <= x <= most or (unknown and x != x)):
            out.append(x)
        else:
            out.append(number(f"{name}[{len(out)}]", x, least=least, most=most, unknown=unknown))
    return out
