"""T6: fresh scores at every iteration, and regret against the best fixed bias.

The loss of batch n is its dual D_n(p_n). With step 1/(mu n) the expected regret after N batches is at most
G^2/(2 mu) (1 + ln N), the standard bound for online gradient descent on strongly convex losses (Hazan,
Agarwal, Kale 2007), here with G and mu of this problem. Derived here; arXiv:2512.03915 proves a
logarithmic bound with constants of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs
import numpy as np

from .errors import ArgumentError
from .problem import Floats, Routing, checked_bias, checked_k, checked_scores, max_vio, route
from .rules import BiasRule

Route = Callable[[Floats, Floats, int], Routing]


@attrs.frozen(eq=False)
class OnlineRun:
    """One rule on one stream; arrays [N], entry n - 1 for batch n.

    regret: cumulative D_n(p_n) - D_n(p*), in units of score. smooth: the same with the noise whose mean is
    zero removed: each term is D_n(p_n) - D_n(p*) - <A_n(p*) - L, p_n - p*>, which has the same expectation,
    because the batch is independent of p_n and p* has expected gradient zero, is never negative (D_n is
    convex) and varies far less. max_vio: of the batch as routed. max_abs_bias.
    """

    regret: Floats
    smooth: Floats
    max_vio: Floats
    max_abs_bias: Floats
    loads: Floats
    bias: Floats


def online_run(
    batches: Iterable[Floats],
    k: int,
    rule: BiasRule,
    best_bias: Callable[[], Floats] | None = None,
    p0: Floats | None = None,
    engine: str = "numpy",
) -> OnlineRun:
    """Route each batch [T, E] with the bias made of the batches before it, then update.

    best_bias: returns p* [E] for the batch just drawn; without it the regrets are NaN.
    Steps use the counts of past batches only, so no token's routing depends on its own batch.
    """
    router: Route = route
    if engine == "compiled":
        from .kernels import route_compiled as router
    elif engine != "numpy":
        raise ArgumentError("engine", "'numpy' or 'compiled'", repr(engine))
    rows: list[tuple[float, float, float, float]] = []
    bias: Floats | None = p0
    total: Floats | None = None
    n = 0
    for batch in batches:
        scores = checked_scores(batch, "batches")
        bias = checked_bias(bias, scores.shape[1], "p0" if total is None else "batches")
        checked_k(k, scores.shape[1])
        n += scores.shape[0] > 0  # an empty batch is no update
        mean = scores.shape[0] * k / scores.shape[1]
        here = router(scores, bias, k)
        loss = excess = np.nan
        if best_bias is not None:
            star = checked_bias(best_bias(), scores.shape[1], "best_bias")
            there = router(scores, star, k)
            loss = (here.value - mean * bias.sum()) - (there.value - mean * star.sum())
            excess = loss - float((there.loads - mean) @ (bias - star))
        rows.append((loss, excess, max_vio(here.loads, mean), float(np.abs(bias).max())))
        total = here.loads.astype(np.float64) if total is None else total + here.loads
        bias = bias + rule.delta(here.loads, max(n, 1), mean)
    if bias is None or total is None:
        raise ArgumentError("batches", "at least one batch", "none")
    table = np.array(rows)
    return OnlineRun(np.cumsum(table[:, 0]), np.cumsum(table[:, 1]), table[:, 2], table[:, 3], total, bias)


def _checked_mu(mu: float) -> None:
    if not 0 < mu < np.inf:
        raise ArgumentError("mu", "a number > 0", repr(mu), "Where mu is 0 there is no logarithmic bound.")


def gradient_bound(n_tokens: int, n_experts: int, k: int) -> float:
    """Return G^2 = K T^2 (1 - K/E) >= ||A - L||^2, reached when all tokens take the same K experts."""
    return k * n_tokens**2 * (1.0 - k / n_experts)


def regret_bound(n_batches: int, n_tokens: int, n_experts: int, k: int, mu: float) -> float:
    """Return G^2/(2 mu) (1 + ln N), the worst-case bound on the expected regret of step 1/(mu n)."""
    _checked_mu(mu)
    return gradient_bound(n_tokens, n_experts, k) / (2.0 * mu) * (1.0 + float(np.log(n_batches)))


def regret_slope(n_tokens: int, n_experts: int, k: int, mu: float) -> float:
    """Return the asymptotic regret per unit of ln N for independent tokens: T K (1 - K/E)/(2 mu).

    Near the optimum ||A - L||^2 is the variance of the loads rather than its worst case. With uniform
    scores this is K (1 - K/E)(E - 1)/(2E), free of T.
    """
    _checked_mu(mu)
    return n_tokens * k * (1.0 - k / n_experts) / (2.0 * mu)


def spectral_slope(hessian: Floats, noise: Floats, mu: float) -> float:
    """Return the asymptotic regret of the step 1/(mu n) per unit of ln n when experts are not alike.

    hessian: float [E, E], of a batch's expected dual at the best bias; noise: float [E, E], the covariance of
    a batch's loads there. Along an eigenvector with curvature l and variance s2 the error's variance tends
    to s2/(mu (2 l - mu) n), and half of l times it is paid, so the slope is the sum of
    l s2 / (2 mu (2 l - mu)). With all l equal to mu it is `regret_slope`.
    Raises ArgumentError unless 0 < mu < 2 l for all of them: with larger mu the error dies out more slowly.
    Derived here.
    """
    _checked_mu(mu)
    curvature, vectors = np.linalg.eigh(hessian)
    if not mu < 2 * curvature[1]:
        raise ArgumentError("mu", f"less than twice the smallest curvature, {2 * curvature[1]:.3g}", repr(mu))
    variance = np.einsum("ei,ef,fi->i", vectors, noise, vectors)[1:]
    curvature = curvature[1:]  # the first belongs to a common shift of all biases, which changes nothing
    return float((curvature * variance / (2.0 * mu * (2.0 * curvature - mu))).sum())


def fitted_slope(regret: Floats, first: int = 100) -> float:
    """Return the least-squares slope of regret [N] against ln n over n >= first, one point per 1/20 of ln n."""
    n_batches = len(regret)
    if not 1 <= first < n_batches:
        raise ArgumentError("first", f"1 <= first < {n_batches} batches", repr(first))
    n_points = max(3, int(20 * np.log(n_batches / first)))
    points = np.unique(np.geomspace(first, n_batches, n_points).astype(int))
    return float(np.polyfit(np.log(points), regret[points - 1], 1)[0])


def growth_exponent(regret: Floats, first: int = 400) -> float:
    """Return the exponent of the regret's growth over n >= first, read off the cost per batch.

    The mean cost in geometric bins is fitted as n^(a - 1): a is 1 for linear growth, 0.5 for a square
    root, 0 for a logarithm. The cumulative curve itself would be bent by what the first batches cost.
    """
    if not 1 <= first < len(regret) / 4:
        raise ArgumentError(
            "first", f"at least 1 and less than a quarter of {len(regret)} batches", repr(first)
        )
    edges = np.unique(np.geomspace(first, len(regret), 9).astype(int))
    cost = np.diff(regret[edges - 1]) / np.diff(edges)
    middle = np.sqrt(edges[1:] * edges[:-1])
    return 1.0 + float(np.polyfit(np.log(middle), np.log(np.maximum(cost, 1e-300)), 1)[0])
