"""Auxiliary losses that balance by gradient: the baselines that the bias replaces. Needs torch."""

from __future__ import annotations

import torch
from torch import Tensor


def _counts(experts: Tensor, n_experts: int, mask: Tensor | None) -> Tensor:
    """Return float32 counts [B, E] of experts [B, T, K]."""
    flat = experts.flatten(1)
    ones = torch.ones_like(flat, dtype=torch.float32)
    if mask is not None:
        ones = mask.unsqueeze(-1).expand_as(experts).flatten(1).to(torch.float32)
    zero = torch.zeros(flat.shape[0], n_experts, dtype=torch.float32, device=flat.device)
    return zero.scatter_add_(1, flat, ones)


def sequence_balance_loss(scores: Tensor, experts: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return mean over sequences of E * sum_k f_k P_k: 1 at balance, up to E/K when all is on K experts.

    scores: float [B, T, E]; experts: int64 [B, T, K]; mask: bool [B, T]. f_k is the share of the routed
    slots that expert k received in the sequence (no gradient), P_k the mean of its scores normalised to
    sum to one. A sequence without real tokens counts as balanced (1).
    Source: DeepSeek-V3, arXiv:2412.19437, equations 17 to 20 (there times alpha, and f as a multiple of
    the mean load).
    """
    n_experts = scores.shape[-1]
    probs = scores / (scores.sum(dim=-1, keepdim=True) + 1e-20)
    counts = _counts(experts, n_experts, mask)
    share = counts / counts.sum(dim=-1, keepdim=True).clamp(min=1)
    if mask is None:
        mean_prob = probs.mean(dim=1)
    else:
        real = mask.unsqueeze(-1).to(probs.dtype)
        mean_prob = (probs * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)
    value = n_experts * (share.detach() * mean_prob).sum(dim=-1)
    if mask is not None:
        value = torch.where(mask.any(dim=1), value, torch.ones_like(value))
    return value.mean()


def switch_loss(scores: Tensor, experts: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return E * sum_k f_k P_k over all tokens of the batch. Shapes [..., E], [..., K], [...].

    Source: Fedus et al., arXiv:2101.03961, equations 4 to 6, for K slots (GShard, arXiv:2006.16668);
    multiply by alpha, 0.01 there.
    """
    flat_mask = None if mask is None else mask.reshape(1, -1)
    return sequence_balance_loss(
        scores.reshape(1, -1, scores.shape[-1]), experts.reshape(1, -1, experts.shape[-1]), flat_mask
    )


def z_loss(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Return the mean of logsumexp(logits)**2 over real tokens; keeps logits small.

    Source: Zoph et al., ST-MoE, arXiv:2202.08906, equation 5; multiply by 1e-3 there.
    """
    squared = logits.float().logsumexp(dim=-1) ** 2
    if mask is None:
        return squared.mean()
    return (squared * mask).sum() / mask.sum().clamp(min=1)
