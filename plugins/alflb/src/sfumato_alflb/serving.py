"""Serving with a frozen bias: expected loads, where to put the experts, and slow updates that are written down."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from .errors import ArgumentError
from .rules import BiasRule
from .state import BalanceState


@attrs.frozen(eq=False)
class Placement:
    """Which rank holds each expert. rank_of: int64 [E]. loads: float64 [n_ranks], share of all routed tokens.

    max_vio, in_order_max_vio: of the ranks' loads, as placed and with experts in their given order.
    """

    rank_of: Tensor
    loads: Tensor
    max_vio: float
    in_order_max_vio: float


def place_experts(counts: Tensor, n_ranks: int) -> Placement:
    """Return a placement of E experts on n_ranks ranks, E/n_ranks each, that evens out the ranks' loads.

    Heaviest expert first onto the lightest rank with room (longest processing time, with equal numbers).
    counts: [E] from a sample of traffic. A heuristic: within a few per cent of even for loads of one kind.
    """
    n_experts = counts.shape[0]
    if n_ranks < 1 or n_experts % n_ranks:
        raise ArgumentError("n_ranks", f"a divisor of the {n_experts} experts", repr(n_ranks))
    if not bool(torch.isfinite(counts).all()) or bool((counts < 0).any()):
        raise ArgumentError("counts", "finite numbers >= 0", f"{counts.tolist()}")
    total = float(counts.sum())
    if total <= 0:
        raise ArgumentError("counts", "a sample with at least one token", "none")
    share = (counts.to(torch.float64) / total).tolist()
    room, loads = [n_experts // n_ranks] * n_ranks, [0.0] * n_ranks
    rank_of = [0] * n_experts
    for expert in sorted(range(n_experts), key=lambda e: (-share[e], e)):
        rank = min((r for r in range(n_ranks) if room[r]), key=lambda r: (loads[r], r))
        rank_of[expert], loads[rank], room[rank] = rank, loads[rank] + share[expert], room[rank] - 1
    in_order = torch.tensor(share, dtype=torch.float64).view(n_ranks, -1).sum(dim=1)
    placed = torch.tensor(loads, dtype=torch.float64)
    return Placement(
        torch.tensor(rank_of), placed, float(placed.max()) * n_ranks - 1, float(in_order.max()) * n_ranks - 1
    )


@attrs.frozen(eq=False)
class Change:
    """One recorded update in serving. bias: float32 [E] after it; max_vio: of the traffic that led to it."""

    number: int
    n_tokens: int
    max_vio: float
    max_move: float
    bias: Tensor


class ServingMonitor:
    """Watch the loads of a router that serves, and, only if asked to, let its bias follow the traffic slowly.

    state: a router or attached state; it is frozen and put into evaluation mode. adapt: whether `step`
    may move the bias, by the router's rule at a tenth of its step. Every change is kept in `changes`.
    """

    def __init__(self, state: BalanceState, *, adapt: bool = False, slower: float = 10.0) -> None:
        if not slower >= 1:
            raise ArgumentError("slower", "a number >= 1", repr(slower))
        self.state, self.adapt = state, adapt
        state.freeze()
        state.eval()
        rule = state.rule
        # The theory step takes mu in the place of u.
        mu = None if rule.mu is None else rule.mu * slower
        self._rule = BiasRule(rule.name, rule.u / slower, mu)
        self.counts = torch.zeros_like(state.counts)
        self.n_tokens = 0
        self.changes: list[Change] = []

    @torch.no_grad()
    def see(self, experts: Tensor) -> None:
        """Count a served routing, int64 [..., K]. Raises ArgumentError for another K."""
        if experts.shape[-1:] != (self.state.k,) or experts.dtype != torch.int64:
            raise ArgumentError(
                "experts",
                f"int64 with a last axis of k = {self.state.k}",
                f"{experts.dtype} {tuple(experts.shape)}",
            )
        flat = experts.reshape(-1)
        self.counts.scatter_add_(0, flat, torch.ones_like(flat))
        self.n_tokens += flat.numel() // self.state.k

    def expected_load(self) -> Tensor:
        """Return each expert's share of the routed tokens seen since the last step, float64 [E]."""
        return self.counts.to(torch.float64) / max(1, int(self.counts.sum()))

    def step(self) -> Change | None:
        """End a window of traffic: with `adapt`, move the bias and record it; the counts begin anew."""
        counts, n_tokens = self.counts.clone(), self.n_tokens
        self.counts.zero_()
        self.n_tokens = 0
        if not self.adapt or n_tokens == 0:
            return None
        state, training_rule = self.state, self.state.rule
        before = state.bias.clone()
        try:
            state.rule = self._rule
            state.apply_counts(counts)
        finally:
            state.rule = training_rule
        mean = float(counts.to(torch.float64).mean())
        change = Change(
            len(self.changes) + 1, n_tokens, float(counts.max()) / mean - 1.0,
            float((state.bias - before).abs().max()), state.bias.clone(),
        )  # fmt: skip
        self.changes.append(change)
        return change
