"""The update rules: how the bias moves once the loads of a past batch are known.

Every rule is `p[k] += eps[k] * (L - A[k])`, subgradient descent on the dual with a step of its own for
each expert. Counts must come from batches already routed: using the current batch would let a token see
the tokens after it.

Source: arXiv:2408.15664, algorithm 1 (`sign`) and its ablation (`prop`); the damped forms and `ogd`
follow the step sizes of the online analysis of arXiv:2512.03915.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike

from .errors import ArgumentError
from .problem import Floats, checked_loads

# name -> (direction, damping): `direction` is sign or proportional, damping divides u by a power of n.
_FORMS: dict[str, tuple[str, float]] = {
    "sign": ("sign", 0.0),
    "sign_sqrt": ("sign", 0.5),
    "sign_inv": ("sign", 1.0),
    "prop": ("prop", 0.0),
    "prop_sqrt": ("prop", 0.5),
    "prop_inv": ("prop", 1.0),
    "ogd": ("ogd", 1.0),
}
RULES: tuple[str, ...] = tuple(_FORMS)


def checked_rate(u: float, argument: str = "u") -> float:
    """Return u when it is a finite number >= 0, or raise ArgumentError."""
    if isinstance(u, bool) or not isinstance(u, (int, float, np.number)) or not 0 <= float(u) < np.inf:
        raise ArgumentError(argument, "a finite number >= 0", repr(u))
    return float(u)


@attrs.frozen
class BiasRule:
    """One update rule.

    name: one of `RULES`. u: step size, >= 0, in units of score (`sign*`) or of score per relative
    overload (`prop*`, so that it means the same at any batch size). mu: modulus of strong convexity of
    the expected dual, needed by `ogd` alone, whose step is 1/(mu*n); see `sfumato_alflb.convexity`.
    """

    name: str = attrs.field(default="sign")
    u: float = attrs.field(default=1e-3, converter=checked_rate)
    mu: float | None = attrs.field(default=None)

    @name.validator
    def _check_name(self, _: Any, value: str) -> None:
        if value not in _FORMS:
            raise ArgumentError("rule", f"one of {', '.join(RULES)}", repr(value))

    @mu.validator
    def _check_mu(self, _: Any, value: float | None) -> None:
        given = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        if self.name == "ogd" and not (given and 0 < float(value or 0.0) < np.inf):
            raise ArgumentError("mu", "a number > 0 with rule 'ogd'", repr(value), "Estimate it first.")

    @property
    def is_sign(self) -> bool:
        """Whether every expert moves by the same distance, so that biases stay on a lattice."""
        return _FORMS[self.name][0] == "sign"

    @property
    def is_constant(self) -> bool:
        """Whether the step does not shrink with n."""
        return _FORMS[self.name][1] == 0.0

    def rate(self, n: int) -> float:
        """Return the scalar step of update n (the first is n = 1)."""
        kind, power = _FORMS[self.name]
        if kind == "ogd":
            assert self.mu is not None
            return 1.0 / (self.mu * n)
        return self.u if power == 0.0 else self.u / (float(np.sqrt(n)) if power == 0.5 else float(n))

    def delta(self, loads: ArrayLike, n: int, mean_load: float | None = None) -> Floats:
        """Return the change of the bias [E] after update n, given the loads [E] of the batch.

        mean_load: L; the mean of the loads when None. An empty batch gives no change.
        """
        loads, mean = checked_loads(loads, mean_load)
        if n < 1:
            raise ArgumentError("n", "an integer >= 1, the number of the update", repr(n))
        if mean == 0.0:
            return np.zeros_like(loads)
        gap = mean - loads
        kind = _FORMS[self.name][0]
        if kind == "sign":
            return self.rate(n) * np.sign(gap)
        return self.rate(n) * (gap / mean if kind == "prop" else gap)
