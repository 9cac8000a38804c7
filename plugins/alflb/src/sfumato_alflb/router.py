"""BiasRouter: a mixture-of-experts router that keeps its experts evenly loaded without a loss term.

Needs torch. Source: L. Wang et al., arXiv:2408.15664 (bias for selection, unbiased gate); DeepSeek-V3,
arXiv:2412.19437, section 2.1.2 (group-limited routing, normalised sigmoid gates).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .errors import ArgumentError
from .problem import checked_count
from .rules import BiasRule, checked_rate
from .state import BalanceState, local

SCORES = ("sigmoid", "softmax")


class Routed(NamedTuple):
    """What a router returns for tokens with leading shape [...].

    experts: int64 [..., K]. weights: float32 [..., K], made from the unbiased scores; zero for masked
    tokens. scores, logits: float32 [..., E], for the losses of `sfumato_alflb.losses`.
    """

    experts: Tensor
    weights: Tensor
    scores: Tensor
    logits: Tensor


def score_logits(logits: Tensor, score: str) -> Tensor:
    """Return sigmoid or softmax of router logits [..., E] in float32."""
    if score == "sigmoid":
        return logits.float().sigmoid()
    if score == "softmax":
        return logits.float().softmax(dim=-1)
    raise ArgumentError("score", f"one of {', '.join(SCORES)}", repr(score))


def limit_to_groups(selection: Tensor, n_groups: int, top_groups: int) -> Tensor:
    """Return selection scores [..., E] with -inf outside each token's best groups.

    Experts are split into n_groups runs of equal length; a group counts as much as the sum of its two
    best selection scores, and each token keeps its top_groups best groups.
    Source: arXiv:2412.19437, section 2.1.2 (node-limited routing).
    """
    grouped = selection.unflatten(-1, (n_groups, -1))
    strength = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(dim=-1)
    best = strength.topk(top_groups, dim=-1).indices
    keep = torch.zeros_like(strength, dtype=torch.bool).scatter_(-1, best, True)
    return grouped.masked_fill(~keep.unsqueeze(-1), float("-inf")).flatten(-2)


class BiasRouter(BalanceState):
    """Route tokens [..., dim] to K of E experts by `score + bias`; gate them by the score alone.

    dim: width of a token. experts, k: E and K, 1 <= K < E. score: 'sigmoid' (the design point of u) or
    'softmax'. rule, u: see `BiasRule`; for softmax scores see `softmax_rate`. groups, top_groups: limit
    every token to top_groups of that many groups. normalise: make the K weights sum to one. scale:
    factor on the weights. recentre: keep the mean of the bias at zero. clip: bound on |bias|.
    kernel: 'eager', or 'triton' on a GPU. check_finite: whether a forward refuses NaN and infinite logits
    before it counts anything; by default on a CPU only, because elsewhere the host would have to wait for
    the device at every call.

    In training mode every forward is counted; call `update_()` once per optimiser step, or let a
    `Balancer` do it. The arithmetic is float32 whatever the dtype of the model or autocast.
    """

    def __init__(
        self,
        dim: int,
        experts: int,
        k: int,
        score: str = "sigmoid",
        rule: BiasRule | str = "sign",
        u: float = 1e-3,
        groups: int | None = None,
        *,
        top_groups: int | None = None,
        normalise: bool = True,
        scale: float = 1.0,
        recentre: bool = False,
        clip: float | None = None,
        kernel: str = "eager",
        check_finite: bool | None = None,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(experts, k, rule, u, recentre=recentre, clip=clip, device=device)
        if score not in SCORES:
            raise ArgumentError("score", f"one of {', '.join(SCORES)}", repr(score))
        if groups is not None:
            if checked_count(groups, "groups") and experts % groups:
                raise ArgumentError("groups", f"a divisor of experts = {experts}", repr(groups))
            top_groups = groups if top_groups is None else top_groups
            if (
                not 1 <= checked_count(top_groups, "top_groups", least=0) <= groups
                or top_groups * (experts // groups) < k
            ):
                raise ArgumentError(
                    "top_groups", f"1..{groups} groups that hold at least k = {k} experts", repr(top_groups)
                )
        elif top_groups is not None:
            raise ArgumentError("top_groups", "None without groups", repr(top_groups))
        if kernel not in ("eager", "triton"):
            raise ArgumentError("kernel", "'eager' or 'triton'", repr(kernel))
        if kernel == "triton" and groups is not None:
            raise ArgumentError("kernel", "'eager' with groups", repr(kernel))
        if not math.isfinite(scale):
            raise ArgumentError("scale", "a finite number", repr(scale))
        self.dim = checked_count(dim, "dim")
        self.score, self.groups, self.top_groups = score, groups, top_groups
        self.normalise, self.scale = normalise, float(scale)
        self.kernel, self.check_finite = kernel, check_finite
        self.weight = nn.Parameter(torch.empty(experts, dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weight as nn.Linear does, from `generator` when given."""
        if not self.weight.is_meta:
            bound = self.dim**-0.5
            nn.init.uniform_(self.weight, -bound, bound, generator=generator)

    def extra_repr(self) -> str:
        """Return what `print(model)` shows."""
        rule = f"{self.rule.name}, u={self.rule.u:g}"
        return f"dim={self.dim}, experts={self.n_experts}, k={self.k}, score={self.score}, rule={rule}"

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Routed:
        """Route tokens x [..., dim]. mask: bool [...], True for real tokens; padding is not counted.

        Raises ArgumentError when shapes do not fit.
        """
        if x.shape[-1] != self.dim:
            raise ArgumentError("x", f"a last axis of dim = {self.dim}", f"shape {tuple(x.shape)}")
        if mask is not None and (mask.shape != x.shape[:-1] or mask.dtype != torch.bool):
            raise ArgumentError(
                "mask", f"a bool tensor of shape {tuple(x.shape[:-1])}", f"{mask.dtype} {tuple(mask.shape)}"
            )
        with torch.autocast(x.device.type, enabled=False):
            logits = nn.functional.linear(x.float(), self.weight.float())
            return self.route_logits(logits, mask)

    def route_logits(self, logits: Tensor, mask: Tensor | None = None) -> Routed:
        """Route router logits [..., E], for models that compute them elsewhere.

        Raises ArgumentError for logits that are NaN or infinite, where that is checked (`check_finite`).
        """
        if logits.shape[-1] != self.n_experts:
            raise ArgumentError(
                "logits", f"a last axis of experts = {self.n_experts}", f"shape {tuple(logits.shape)}"
            )
        logits = logits.float()
        refuse_non_finite(logits, self.check_finite)
        if self.kernel == "triton":
            from .triton_kernels import fused_route

            experts, scores, counts = fused_route(logits, self.bias, self.k, self.score, mask)
            self.count_sums(counts)
        else:
            scores = score_logits(logits, self.score)
            experts = self.select(scores)
            self.count(experts, mask)
        self.show_scores(scores, mask)
        weights = scores.gather(-1, experts)
        if self.normalise:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        weights = weights * self.scale
        if mask is not None:
            weights = weights * mask.unsqueeze(-1)
        return Routed(experts, weights, scores, logits)

    @torch.no_grad()
    def select(self, scores: Tensor) -> Tensor:
        """Return the experts [..., K] with the largest `score + bias`. No gradient passes through."""
        selection = scores + like(self.bias, scores)
        if self.groups is not None and self.top_groups is not None and self.top_groups < self.groups:
            selection = limit_to_groups(selection, self.groups, self.top_groups)
        return selection.topk(self.k, dim=-1, sorted=False).indices


def refuse_non_finite(logits: Tensor, check: bool | None) -> None:
    """Raise ArgumentError when any of the logits is NaN or infinite; None checks on a CPU alone."""
    if torch.compiler.is_compiling() or not (logits.device.type == "cpu" if check is None else check):
        return
    values = local(logits.detach())
    # One pass: a sum is NaN or infinite when an entry is. Finite entries can overflow it, hence the second look.
    if math.isfinite(float(values.sum())):
        return
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        raise ArgumentError(
            "logits", "finite values", f"{int((~finite).sum())} of {finite.numel()} NaN or infinite",
            "Look at the loss and the learning rate; nothing was counted. Mask padding, do not poison it.",
        )  # fmt: skip


def like(bias: Tensor, scores: Tensor) -> Tensor:
    """Return the bias as a replicated DTensor where the scores are a DTensor and it is not one yet."""
    if not hasattr(scores, "to_local") or hasattr(bias, "to_local"):
        return bias
    from torch.distributed.tensor import DTensor, Replicate

    mesh = scores.device_mesh  # type: ignore[attr-defined]
    return DTensor.from_local(bias, mesh, [Replicate()] * mesh.ndim, run_check=False)


def softmax_rate(u: float, experts: int) -> float:
    """Return the step for softmax scores that moves logits as far as u moves them for sigmoid scores.

    Near even routing a softmax score is 1/E with slope (1/E)(1 - 1/E) in its logit; a sigmoid's slope is
    at most 1/4. So u = 1e-3 becomes 4e-3 (E-1)/E^2: 1.6e-5 at E = 256, where the scores are about 4e-3.
    Derived here. Raises ArgumentError for u < 0 or fewer than 2 experts.
    """
    u = checked_rate(u)
    if isinstance(experts, bool) or not isinstance(experts, int) or experts < 2:
        raise ArgumentError("experts", "an integer >= 2", repr(experts))
    return 4.0 * u * (experts - 1) / experts**2
