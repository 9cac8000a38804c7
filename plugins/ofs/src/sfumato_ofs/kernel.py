"""The whole closed loop, learner and world, compiled: for thousands of seeds.

Same law, same uniforms, same rules as `simulate.play`; counts differ only where a spline (error below 1e-9) puts a
uniform on the other side of a step. Two groups, hidden scores, the plain rules (no window, block and the like): anything
else is refused, and runs in numpy. Needs numba (extra `numba`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.arm_statistics import log_term
from sfumato_ofs.config import BanditConfig, OptimisticFeasibleConfig, PrimalDualConfig, UnconstrainedConfig
from sfumato_ofs.constraints import Constraints, reward_scale
from sfumato_ofs.errors import OfsError, need
from sfumato_ofs.loops import BetaLoop, ClosedLoop, PoolLoop
from sfumato_ofs.oracle import Sweep

try:
    from numba import njit
except ImportError as error:
    raise need("numba", "numba", "the compiled simulation") from error

FloatArray = NDArray[np.float64]

_RULES = {OptimisticFeasibleConfig: 0, UnconstrainedConfig: 1, PrimalDualConfig: 2}
_TIE = 1e-12
N_POINTS = 100


@njit(cache=True)
def _binomial(u: float, n: int, p: float, log_factorial: FloatArray) -> int:
    """Smallest k with F(k) > u, summing from where the lower tail is below 1e-17."""
    if n == 0 or p <= 0.0:
        return 0
    if p >= 1.0:
        return n
    flip = p > 0.5
    if flip:
        p = 1.0 - p
    q = 1.0 - p
    k = 0
    start = n * p - 9.0 * math.sqrt(n * p * q) - 3.0
    if start > 0.0:
        k = int(start)
        mass = math.exp(
            log_factorial[n]
            - log_factorial[k]
            - log_factorial[n - k]
            + k * math.log(p)
            + (n - k) * math.log1p(-p)
        )
    else:
        mass = math.exp(n * math.log1p(-p))
    odds = p / q
    total = mass
    if flip:
        # X = n - X': the smallest k with P(X <= k) > u is n minus the smallest j with P(X' <= j) >= 1 - u.
        target = 1.0 - u
        while total < target and k < n:
            mass *= (n - k) * odds / (k + 1)
            k += 1
            total += mass
        return n - k
    while total <= u and k < n:
        mass *= (n - k) * odds / (k + 1)
        k += 1
        total += mass
    return k


@njit(cache=True)
def _pick(score: FloatArray, worst: FloatArray, plays: FloatArray) -> int:
    """The best score; ties by smaller worst bound, fewer plays, lower index."""
    n_arms = len(score)
    best = -np.inf
    at = 0
    for j in range(n_arms):
        if score[j] > best:
            best = score[j]
            at = j
    n_tied = 0
    for j in range(n_arms):
        if score[j] >= best - _TIE:
            n_tied += 1
    if n_tied == 1:
        return at
    least = np.inf
    for j in range(n_arms):
        if score[j] >= best - _TIE and worst[j] < least:
            least = worst[j]
    fewest = np.inf
    for j in range(n_arms):
        if score[j] >= best - _TIE and worst[j] <= least + _TIE and plays[j] < fewest:
            fewest = plays[j]
            at = j
    return at


@njit(cache=True)
def _lives(
    uniforms, horizon, n, loss, rule, by_size, width, margin, dual_step, dual_ceiling, dual_mean,
    reward_scale, scales, eps, rho_min, has_floor, rho_max, has_ceiling,
    is_beta, levels, pieces, accept_table, good_table, base_means, kappa, eta,
    base_share, share_memory, share_gain, low, high, infeasible, log_factorial, edges, out, curves, plays_out,
):  # fmt: skip
    n_items, n_arms = uniforms.shape[0], levels.shape[0]
    n_residuals = len(scales)
    n_pieces = pieces.shape[2]
    step = (high - low) / n_pieces
    tail_from = horizon - max(horizon // 5, 1)
    for b in range(n_items):
        plays = np.zeros(n_arms)
        reward_sum = np.zeros(n_arms)
        seen = np.zeros((n_arms, n_residuals))
        residual_sum = np.zeros((n_arms, n_residuals))
        upper = np.zeros(n_arms)
        lower = np.full((n_arms, n_residuals), -np.inf)
        worst = np.full(n_arms, -np.inf)
        violation_bound = np.zeros(n_arms)
        score = np.zeros(n_arms)
        dual = np.zeros(n_residuals)
        residual = np.zeros(n_residuals)
        mean0, mean1, share = base_means[0], base_means[1], base_share
        point, since, block_reward, block_violation = 0, 0, 0.0, 0.0
        for t in range(horizon):
            # ---- choose
            if t < n_arms:
                arm = t
            else:
                if rule == 0:
                    feasible = False
                    for j in range(n_arms):
                        if worst[j] <= 0.0:
                            score[j] = upper[j]
                            feasible = True
                        else:
                            score[j] = -np.inf
                    if not feasible:
                        for j in range(n_arms):
                            score[j] = -violation_bound[j]
                elif rule == 1:
                    for j in range(n_arms):
                        score[j] = upper[j]
                else:
                    for j in range(n_arms):
                        penalty = 0.0
                        for i in range(n_residuals):
                            if seen[j, i] > 0.0:
                                if dual_mean:
                                    penalty += dual[i] * (residual_sum[j, i] / seen[j, i] + margin)
                                else:
                                    penalty += dual[i] * lower[j, i]
                        score[j] = upper[j] - penalty
                arm = _pick(score, worst, plays)
            # ---- what is expected at this state
            k0, k1 = levels[arm, 0], levels[arm, 1]
            if is_beta:
                place = (mean0 - low) / step
                piece = min(max(int(place), 0), n_pieces - 1)
                x = (place - piece) * step
                c = pieces[0, k0, piece]
                accept0 = ((c[0] * x + c[1]) * x + c[2]) * x + c[3]
                c = pieces[1, k0, piece]
                good0 = ((c[0] * x + c[1]) * x + c[2]) * x + c[3]
                place = (mean1 - low) / step
                piece = min(max(int(place), 0), n_pieces - 1)
                x = (place - piece) * step
                c = pieces[0, k1, piece]
                accept1 = ((c[0] * x + c[1]) * x + c[2]) * x + c[3]
                c = pieces[1, k1, piece]
                good1 = ((c[0] * x + c[1]) * x + c[2]) * x + c[3]
            else:
                accept0, good0 = accept_table[arm, 0], good_table[arm, 0]
                accept1, good1 = accept_table[arm, 1], good_table[arm, 1]
            expected = (1.0 - share) * ((1.0 + loss) * good0 - loss * accept0) + share * (
                (1.0 + loss) * good1 - loss * accept1
            )
            rate = (1.0 - share) * accept0 + share * accept1
            violation = max(abs(accept0 - accept1) - eps, 0.0)
            if has_floor:
                violation += max(rho_min - rate, 0.0)
            if has_ceiling:
                violation += max(rate - rho_max, 0.0)
            # ---- the batch
            n1 = _binomial(uniforms[b, t, 0], n, share, log_factorial)
            n0 = n - n1
            a0 = _binomial(uniforms[b, t, 1], n0, accept0, log_factorial)
            a1 = _binomial(uniforms[b, t, 2], n1, accept1, log_factorial)
            g0 = _binomial(uniforms[b, t, 3], a0, good0 / accept0 if accept0 > 0.0 else 0.0, log_factorial)
            g1 = _binomial(uniforms[b, t, 4], a1, good1 / accept1 if accept1 > 0.0 else 0.0, log_factorial)
            reward = (g0 + g1 - loss * (a0 + a1 - g0 - g1)) / n
            both = n0 > 0 and n1 > 0
            rate0 = a0 / n0 if n0 > 0 else np.nan
            rate1 = a1 / n1 if n1 > 0 else np.nan
            overall = (a0 + a1) / n
            residual[0] = rate0 - rate1 - eps
            residual[1] = rate1 - rate0 - eps
            i = 2
            if has_floor:
                residual[i] = rho_min - overall
                i += 1
            if has_ceiling:
                residual[i] = overall - rho_max
            # ---- sums
            out[b, 0] += expected
            out[b, 2] += violation
            if t >= tail_from:
                out[b, 1] += expected
                out[b, 3] += violation
            for i in range(n_residuals):
                if not np.isnan(residual[i]):
                    out[b, 4] += max(residual[i], 0.0)
            if violation > 1e-12:
                out[b, 5] += 1.0
            if infeasible[arm]:
                out[b, 6] += 1.0
            other = 1.0 - share
            if min(share, other) <= low + 1e-12 or max(share, other) >= high - 1e-12:
                out[b, 7] += 1.0
            plays_out[b, arm] += 1
            block_reward += expected
            block_violation += violation
            since += 1
            if t + 1 == edges[point]:
                curves[b, point, 0] = block_reward / since
                curves[b, point, 1] = block_violation / since
                curves[b, point, 2] = accept0
                curves[b, point, 3] = accept1
                curves[b, point, 4] = share
                block_reward, block_violation, since = 0.0, 0.0, 0
                point += 1
            # ---- learn
            plays[arm] += 1.0
            reward_sum[arm] += reward
            upper[arm] = reward_sum[arm] / plays[arm] + reward_scale * width / math.sqrt(plays[arm])
            high_bound, total = -np.inf, 0.0
            gap_weight = 4.0 * n0 * n1 / (float(n) * n) if by_size else 1.0
            for i in range(n_residuals):
                if not np.isnan(residual[i]):
                    weight = gap_weight if i < 2 else 1.0
                    seen[arm, i] += weight
                    residual_sum[arm, i] += weight * residual[i]
                if seen[arm, i] > 0.0:
                    bound = (
                        residual_sum[arm, i] / seen[arm, i]
                        + margin
                        - scales[i] * width / math.sqrt(seen[arm, i])
                    )
                    lower[arm, i] = bound
                    high_bound = max(high_bound, bound)
                    total += max(bound, 0.0)
                if rule == 2 and not np.isnan(residual[i]):
                    dual[i] = min(max(dual[i] + dual_step * (residual[i] + margin), 0.0), dual_ceiling)
            worst[arm] = high_bound
            violation_bound[arm] = total
            # ---- the population answers
            lead = rate1 - rate0 if both else 0.0
            share = min(max(base_share + share_memory * (share - base_share) + share_gain * lead, low), high)
            if is_beta:
                push0 = rate0 - 0.5 if n0 > 0 else 0.0
                push1 = rate1 - 0.5 if n1 > 0 else 0.0
                mean0 = min(max(base_means[0] + kappa * (mean0 - base_means[0]) + eta * push0, low), high)
                mean1 = min(max(base_means[1] + kappa * (mean1 - base_means[1]) + eta * push1, low), high)
        # The recommendation: best mean reward among arms that hold on average and have 1% of the plays.
        best, choice, most = -np.inf, -1, 0
        for j in range(n_arms):
            if plays[j] > plays[most]:
                most = j
            holds = plays[j] > 0.0 and plays[j] >= 0.01 * horizon
            for i in range(n_residuals):
                if seen[j, i] == 0.0 or residual_sum[j, i] / seen[j, i] + margin > 0.0:
                    holds = False
            if holds and reward_sum[j] / plays[j] > best:
                best = reward_sum[j] / plays[j]
                choice = j
        out[b, 8] = choice if choice >= 0 else most


def play_many(
    loop: ClosedLoop,
    constraints: Constraints,
    oracle: Sweep,
    config: BanditConfig,
    horizon: int,
    generators: list[np.random.Generator],
    *,
    chunk: int = 64,
) -> dict[str, Any]:
    """Play len(generators) seeds for `horizon` rounds and return what `RunningSums.truth` returns, and `recommended`.

    Arguments:
        config: `OptimisticFeasibleConfig` (bounds and margin only), `UnconstrainedConfig` or `PrimalDualConfig`.
        chunk: seeds whose uniforms are held at once; 5 * 8 * horizon bytes each.

    Raises: OfsError for anything that the kernel does not do; nothing is done differently in silence.

    Notes: O(B T (M + sqrt(n))). One thread.
    """
    rule = _check(loop, constraints, config)
    n_items, n_arms = len(generators), loop.n_arms
    n_points = min(N_POINTS, horizon)
    edges = (np.arange(1, n_points + 1) * horizon) // n_points
    out = np.zeros((n_items, 9))
    curves = np.zeros((n_items, n_points, 5), dtype=np.float32)
    plays = np.zeros((n_items, n_arms), dtype=np.int32)
    term = log_term(n_arms, constraints.size, horizon, config.delta)
    is_beta = isinstance(loop, BetaLoop)
    dual = config if isinstance(config, PrimalDualConfig) else PrimalDualConfig()
    low, high = loop.clip
    common = (
        horizon, loop.n, loop.loss, rule, config.gap_weight == "group-sizes", config.beta * math.sqrt(2.0 * term),
        float(getattr(config, "margin", 0.0)), dual.step, dual.ceiling, dual.residual == "mean",
        reward_scale(loop.loss, loop.n), constraints.scales(loop.n), constraints.eps,
        constraints.rho_min or 0.0, constraints.rho_min is not None,
        constraints.rho_max or 0.0, constraints.rho_max is not None,
        is_beta, loop.levels,
        loop.splines if isinstance(loop, BetaLoop) else np.zeros((2, 1, 1, 4)),
        loop.table[0] if isinstance(loop, PoolLoop) else np.zeros((1, 2)),
        loop.table[1] if isinstance(loop, PoolLoop) else np.zeros((1, 2)),
        loop.base_means if isinstance(loop, BetaLoop) else np.zeros(2),
        loop.kappa if isinstance(loop, BetaLoop) else 0.0,
        loop.eta if isinstance(loop, BetaLoop) else 0.0,
        float(loop.base_shares[1]), loop.share_memory, loop.share_gain, low, high, ~oracle.is_feasible,
        np.array([math.lgamma(k + 1.0) for k in range(loop.n + 1)]), edges,
    )  # fmt: skip
    for first in range(0, n_items, chunk):
        part = slice(first, min(first + chunk, n_items))
        uniforms = np.empty((part.stop - first, horizon, loop.n_uniforms))
        for b, generator in enumerate(generators[part]):
            generator.random(out=uniforms[b])
        _lives(uniforms, *common, out[part], curves[part], plays[part])
    names = (
        "reward", "tail_reward", "violation", "tail_violation", "observed_violation", "violating_rounds",
        "infeasible_plays", "share_clipped",
    )  # fmt: skip
    truth: dict[str, Any] = {name: out[:, i] for i, name in enumerate(names)}
    truth.update(plays=plays, rounds=horizon, tail_rounds=max(horizon // 5, 1))
    truth.update(curve_reward=curves[:, :, 0], curve_violation=curves[:, :, 1], curve_rates=curves[:, :, 2:4])
    truth["curve_shares"] = np.stack([1.0 - curves[:, :, 4], curves[:, :, 4]], axis=2)
    truth["recommended"] = out[:, 8].astype(np.int64)
    return truth


def can_play(loop: ClosedLoop, constraints: Constraints, config: BanditConfig) -> bool:
    """Return whether the kernel does this; what it does not do runs in `simulate.play`."""
    try:
        _check(loop, constraints, config)
    except OfsError:
        return False
    return True


def _check(loop: ClosedLoop, constraints: Constraints, config: BanditConfig) -> int:
    """Return the rule's number, or raise for what the kernel does not do."""
    if type(config) not in _RULES:
        raise OfsError(
            f"config must be one of {[c.__name__ for c in _RULES]}, got {type(config).__name__}; use simulate.play"
        )
    plain = type(config)()
    allowed = ("beta", "delta", "margin", "step", "ceiling", "residual", "gap_weight")
    for field in config.__attrs_attrs__:  # type: ignore[attr-defined]
        if field.name not in allowed and getattr(config, field.name) != getattr(plain, field.name):
            raise OfsError(f"{field.name} is not in the compiled loop; use simulate.play for it")
    if constraints.measure != "parity":
        raise OfsError(
            f"measure = {constraints.measure} is not in the compiled loop; use simulate.play for it"
        )
    if loop.n_groups != 2 or constraints.gap != "signed":
        raise OfsError(
            f"the compiled loop has two groups and signed gaps, got {loop.n_groups} and {constraints.gap!r}"
        )
    if not isinstance(loop, BetaLoop | PoolLoop):
        raise OfsError(f"loop must be a BetaLoop or a PoolLoop, got {type(loop).__name__}")
    return _RULES[type(config)]
