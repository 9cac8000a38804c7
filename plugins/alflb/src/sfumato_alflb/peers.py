"""Other ways to balance one batch: quantile prices, BIP, Sinkhorn, expert choice, the Switch loss.

All but the last look at the whole batch before routing any of it, so in a causal model they let a token
see the tokens after it; the bias rule and the Switch loss use past batches alone.
"""

from __future__ import annotations

import attrs
import numpy as np

from .errors import ArgumentError
from .problem import (
    AlfProblem,
    Bools,
    Floats,
    checked_bias,
    checked_count,
    checked_k,
    checked_scores,
    route,
    top_k_stable,
)
from .rules import checked_rate


@attrs.frozen(eq=False)
class PeerRouting:
    """An assignment and, where the method has one, the bias [E] that makes it.

    chosen: bool [T, E]. tokens_per_row is K for all methods but expert choice.
    """

    chosen: Bools
    bias: Floats | None

    @property
    def choices_range(self) -> tuple[int, int]:
        """Fewest and most experts that any token got."""
        counts = self.chosen.sum(axis=1)
        return (int(counts.min()), int(counts.max())) if counts.size else (0, 0)


def _kth_largest(values: Floats, k: int, axis: int) -> Floats:
    """Return the k-th largest along an axis (k = 1 is the maximum), or -inf beyond the end."""
    size = values.shape[axis]
    if k > size:
        return np.full(values.shape[1 - axis], -np.inf)
    return np.take(np.partition(values, size - k, axis=axis), size - k, axis=axis)


def bip(problem: AlfProblem, sweeps: int = 4) -> PeerRouting:
    """Route by prices from dual coordinate sweeps, clipped at zero.

    p_i = max(0, (K+1)-th largest of g[i, :] - q), q_k = max(0, (L+1)-th largest of g[:, k] - p).
    Source: after BIP-based balancing, arXiv:2502.15451 (our reading of it). With the ceiling of T*K/E for L.
    """
    q = np.zeros(problem.n_experts)
    for _ in range(checked_count(sweeps, "sweeps")):
        p = np.maximum(0.0, _kth_largest(problem.scores - q, problem.k + 1, axis=1))
        q = np.maximum(0.0, _kth_largest(problem.scores - p[:, None], problem.capacity + 1, axis=0))
        q = np.where(np.isfinite(q), q, 0.0)
    return PeerRouting(problem.route(-q).chosen, -q)


def two_sided_quantile(problem: AlfProblem, sweeps: int = 8) -> PeerRouting:
    """Route by prices that sit midway between the last served and the first refused, on both sides.

    p_i = mean of the K-th and (K+1)-th largest of g[i, :] - q, q_k = mean of the L-th and (L+1)-th largest
    of g[:, k] - p, without clipping. Each side's update is exact coordinate descent on the full dual, and
    the midpoint keeps it off the kinks where clipping to an order statistic stalls.
    """
    q = np.zeros(problem.n_experts)
    if problem.n_tokens == 0 or problem.capacity >= problem.n_tokens:
        return PeerRouting(problem.route(-q).chosen, -q)
    k, cap, n_experts, n_tokens = problem.k, problem.capacity, problem.n_experts, problem.n_tokens
    for _ in range(checked_count(sweeps, "sweeps")):
        row = np.partition(problem.scores - q, (n_experts - k - 1, n_experts - k), axis=1)
        p = 0.5 * (row[:, n_experts - k - 1] + row[:, n_experts - k])
        column = np.partition(problem.scores - p[:, None], (n_tokens - cap - 1, n_tokens - cap), axis=0)
        q = 0.5 * (column[n_tokens - cap - 1] + column[n_tokens - cap])
    return PeerRouting(problem.route(-q).chosen, -q)


def sinkhorn(problem: AlfProblem, tau: float = 0.15, iterations: int = 100) -> PeerRouting:
    """Scale exp(g/tau) to row sums K and column sums L, then take each token's top K of the plan.

    tau: temperature, in units of score. Works on logarithms, so small tau does not underflow. A row's factor
    does not change its order, so the routing is by g + tau * (log column factor): again a bias.
    Source: Cuturi, NeurIPS 2013; used for routing in BASE layers and S-BASE, arXiv:2202.01169.
    """
    _checked_tau(tau)
    column = np.zeros(problem.n_experts)
    if problem.n_tokens == 0:
        return PeerRouting(problem.route(column).chosen, column)
    log_kernel = problem.scores / tau
    for _ in range(checked_count(iterations, "iterations")):
        row = np.log(problem.k) - _logsumexp(log_kernel + column, axis=1)
        column = np.log(problem.mean_load) - _logsumexp(log_kernel + row[:, None], axis=0)
    bias = tau * (column - column.mean())
    return PeerRouting(problem.route(bias).chosen, bias)


def _checked_tau(tau: float) -> float:
    if checked_rate(tau, "tau") == 0.0:
        raise ArgumentError("tau", "a number > 0", repr(tau))
    return float(tau)


def _logsumexp(values: Floats, axis: int) -> Floats:
    top = values.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis))


def expert_choice(problem: AlfProblem) -> PeerRouting:
    """Let every expert take its `capacity` best tokens: balanced by construction, but tokens get 0 to E experts.

    Not an assignment in the sense of the other methods, so it has no certificate.
    Source: Zhou et al., arXiv:2202.09368.
    """
    n_tokens, capacity = problem.n_tokens, problem.capacity
    chosen = np.zeros_like(problem.scores, dtype=np.bool_)
    if n_tokens:
        best = np.argsort(-problem.scores, axis=0, kind="stable")[: min(capacity, n_tokens)]
        np.put_along_axis(chosen, best, True, axis=0)
    return PeerRouting(chosen, None)


def group_limited(problem: AlfProblem, bias: Floats, n_groups: int, top_groups: int) -> PeerRouting:
    """Route by `score + bias`, but every token within its top_groups best of n_groups runs of experts.

    A group counts as much as the sum of its two best entries. Ties go to the lowest index. Groups keep a
    token's traffic on few machines; they are a further constraint, so balance costs more affinity.
    Source: DeepSeek-V3, arXiv:2412.19437, section 2.1.2.
    """
    bias = checked_bias(bias, problem.n_experts)
    checked_count(n_groups, "groups")
    checked_count(top_groups, "top_groups")
    size = problem.n_experts // n_groups
    if problem.n_experts % n_groups:
        raise ArgumentError("groups", f"a divisor of E = {problem.n_experts}", repr(n_groups))
    if not 1 <= top_groups <= n_groups or top_groups * size < problem.k:
        raise ArgumentError(
            "top_groups", f"1..{n_groups} groups that hold at least k = {problem.k} experts", repr(top_groups)
        )
    total = problem.scores + bias
    grouped = total.reshape(-1, n_groups, size)
    n_best = min(2, size)
    strength = np.partition(grouped, size - n_best, axis=2)[:, :, size - n_best :].sum(axis=2)
    keep = np.zeros(strength.shape, dtype=np.bool_)
    np.put_along_axis(keep, top_k_stable(strength, top_groups), True, axis=1)
    limited = np.where(keep[:, :, None], grouped, -np.inf).reshape(total.shape)
    return PeerRouting(route(limited, np.zeros(problem.n_experts), problem.k).chosen, np.asarray(bias))


class SwitchOffsets:
    """The Switch loss on a stream of scores: an offset per expert, trained by its gradient alone.

    Where a real router would change all its weights, this trains the only part that a stream of given
    scores leaves free. Scores plus offsets pass through a softmax at temperature tau; the loss is
    alpha * E * sum_k f_k P_k, f the routed share (no gradient), P the mean probability; `learning_rate`
    steps of plain gradient descent. The offsets act on routing and would act on the gates too, which is the
    interference that the bias avoids.
    Source: Fedus et al., arXiv:2101.03961, equations 4 to 6.
    """

    def __init__(
        self, n_experts: int, k: int, alpha: float = 0.01, learning_rate: float = 10.0, tau: float = 1.0
    ):
        checked_rate(alpha, "alpha")
        checked_rate(learning_rate, "learning_rate")
        _checked_tau(tau)
        checked_k(k, n_experts)
        self.k, self.alpha, self.learning_rate, self.tau = k, alpha, learning_rate, tau
        self.offsets: Floats = np.zeros(n_experts)

    def loss_and_gradient(self, scores: Floats) -> tuple[float, Floats, Bools]:
        """Return the loss, its gradient [E] in the offsets, and the routing [T, E]."""
        chosen = route(scores, self.offsets, self.k)
        share = chosen.loads / max(1, scores.shape[0] * self.k)
        z = (scores + self.offsets) / self.tau
        z = np.exp(z - z.max(axis=1, keepdims=True))
        probs = z / z.sum(axis=1, keepdims=True)
        scale = self.alpha * scores.shape[1]
        loss = scale * float(share @ probs.mean(axis=0))
        inner = probs @ share
        gradient = scale / self.tau * (probs * (share - inner[:, None])).mean(axis=0)
        return loss, gradient, chosen.chosen

    def update(self, scores: Floats) -> Bools:
        """Route the batch [T, E] with the present offsets, take one step, and return the routing."""
        scores = checked_scores(scores)
        if scores.shape[0] == 0:
            return np.zeros(scores.shape, dtype=np.bool_)
        _, gradient, chosen = self.loss_and_gradient(scores)
        self.offsets = self.offsets - self.learning_rate * gradient
        return chosen
