"""T5: how strongly convex the expected dual is, and where.

The Hessian of E[D] is T times the Laplacian of a graph on the experts whose weight w[a, b] is the density
at zero of "a and b are exactly the K-th and (K+1)-th choice". Its modulus on the subspace sum(p) = 0 is
mu = T * lambda_2(w). Curvature is local: experts whose score ranges never meet share no weight, and a
graph in two parts has mu = 0. Derived here.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs
import numpy as np
from numpy.typing import ArrayLike

from .errors import ArgumentError
from .problem import Floats, checked_bias, checked_count, checked_k, checked_scores, route
from .rules import checked_rate


def pair_weight(
    n_experts: int,
    k: int,
    pdf: Callable[[Floats], Floats],
    cdf: Callable[[Floats], Floats],
    support: tuple[float, float],
    n_points: int = 400,
) -> float:
    """Return w[a, b] of i.i.d. scores with a known density, by Gauss-Legendre quadrature.

    w = integral of f(x)^2 C(E-2, K-1) F^(E-K-1) (1-F)^(K-1) dx: two scores meet at x, K - 1 of the other
    E - 2 lie above and the rest below. Uniform on [0, 1]: 1/(E - 1), whatever K.
    """
    from scipy.special import gammaln, xlog1py, xlogy

    checked_k(k, n_experts)
    nodes, weights = np.polynomial.legendre.leggauss(n_points)
    low, high = support
    x = 0.5 * (high - low) * (nodes + 1) + low
    below = np.clip(cdf(x), 0.0, 1.0)
    log_ways = gammaln(n_experts - 1) - gammaln(k) - gammaln(n_experts - k)
    log_rest = log_ways + xlogy(n_experts - k - 1, below) + xlog1py(k - 1, -below)
    return float(0.5 * (high - low) * (weights * pdf(x) ** 2 * np.exp(log_rest)).sum())


def iid_modulus(n_tokens: int, n_experts: int, weight: float) -> float:
    """Return mu = T * E * w for i.i.d. scores: the graph is complete, and lambda_2 of its Laplacian E * w."""
    return n_tokens * n_experts * weight


def uniform_modulus(n_tokens: int, n_experts: int) -> float:
    """Return mu = T * E / (E - 1), exact at p = 0 for scores i.i.d. uniform on [0, 1], whatever K."""
    checked_count(n_experts, "n_experts", least=2)
    return n_tokens * n_experts / (n_experts - 1)


@attrs.frozen(eq=False)
class Convexity:
    """Estimated curvature of the expected dual at a bias, for batches of the size of the sample.

    mu: modulus, tokens per unit of score; 0 when the experts fall into parts that no token joins. It is the
    smallest of E - 1 eigenvalues, which noise pulls down: trust it when n_used is many times E^2.
    mean: the mean of those eigenvalues, tokens per unit of score; steadier, and equal to mu when all
    experts are alike, but no lower bound.
    laplacian: float [E, E], per token. n_parts: connected parts of the graph. bandwidth: h. n_used: tokens
    within h of a boundary; with few of them the estimate is noise.
    """

    mu: float
    mean: float
    laplacian: Floats
    n_parts: int
    bandwidth: float
    n_used: int


def estimate_convexity(
    scores: ArrayLike, k: int, bias: ArrayLike | None = None, bandwidth: float | None = None
) -> Convexity:
    """Estimate mu from one sample of scores [T, E] by counting tokens near each pair's boundary.

    A token whose K-th and (K+1)-th choices are a and b, less than h apart, adds 1/(2 h T) to w[a, b].
    bandwidth: h, in units of score; by default the median margin. A wide h
    averages the curvature over a region, a narrow one rests on few tokens.
    """
    g = checked_scores(scores)
    n_tokens, n_experts = g.shape
    checked_k(k, n_experts)
    if n_tokens == 0:
        raise ArgumentError("scores", "at least one token", "an empty batch")
    p = checked_bias(bias, n_experts)
    order = np.argpartition(-(g + p), (k - 1, k), axis=1)
    first, second = order[:, k - 1], order[:, k]
    row = np.arange(n_tokens)
    total = g + p
    margin = total[row, first] - total[row, second]
    h = float(np.median(margin)) if bandwidth is None else checked_rate(bandwidth, "bandwidth")
    if not h > 0:
        raise ArgumentError(
            "bandwidth",
            "a number > 0",
            repr(h),
            "With many tied scores there is no density to estimate; give a bandwidth.",
        )
    near = margin < h
    weight = np.zeros((n_experts, n_experts))
    # Margins thin out away from zero, so a plain count over (0, h) underestimates the density at zero. The
    # boundary kernel 4 - 6 m/h is free of that bias to first order, but of either sign for single tokens:
    # apply its mean to all of them, which keeps every weight positive.
    lift = float(np.clip((4.0 - 6.0 * margin[near] / h).mean(), 0.5, 2.0)) if near.any() else 1.0
    np.add.at(weight, (first[near], second[near]), lift / (2.0 * h * n_tokens))
    weight += weight.T
    laplacian = np.diag(weight.sum(axis=1)) - weight
    values = np.linalg.eigvalsh(laplacian)
    n_parts = int((values <= 1e-9 * max(float(values[-1]), 1e-300)).sum())
    mu = 0.0 if n_parts > 1 else float(n_tokens * values[1])
    mean = float(n_tokens * values[1:].mean())
    return Convexity(mu, mean, laplacian, n_parts, h, int(near.sum()))


def curvature_along(scores: ArrayLike, k: int, direction: ArrayLike, step: float) -> float:
    """Return the second difference of the sample's dual at p = 0, per token and unit of direction.

    (D(hv) - 2 D(0) + D(-hv)) / (h^2 T) for a unit vector v with sum(v) = 0: an independent measurement of
    the same curvature. The linear term drops out.
    """
    g = checked_scores(scores)
    v = checked_bias(direction, g.shape[1], "direction")
    v = v - v.mean()
    v = v / np.linalg.norm(v)
    zero = np.zeros_like(v)
    values = [route(g, at, k).value for at in (step * v, zero, -step * v)]
    return float((values[0] - 2 * values[1] + values[2]) / (step**2 * g.shape[0]))
