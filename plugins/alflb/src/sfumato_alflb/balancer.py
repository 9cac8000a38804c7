"""One object that balances all routers of a model, once per optimiser step. Needs torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ArgumentError
from .state import BalanceState, LoadReport, load_report, update_biases


class Balancer:
    """Update every `BalanceState` of a model with one reduction over ranks.

    model: a module that contains routers, or the routers themselves. group: the ranks that see different
    tokens, see `update_biases`.

        balancer = Balancer(model)
        balancer.install(optimizer)      # or call balancer.step() yourself, before optimizer.step()

    expert_ranks: how many expert-parallel ranks hold the experts, in equal runs; reports then have the load of
    each rank too. None where experts are not spread over ranks.

    The hook runs when the optimiser steps, so gradient accumulation needs nothing more, and a step that
    a gradient scaler skips leaves its counts for the next (a fused optimiser skips it only within its own
    kernel, after the hook: the bias then moves by one step of true counts).
    """

    def __init__(
        self,
        model: nn.Module | Iterable[BalanceState],
        group: Any = None,
        *,
        expert_ranks: int | None = None,
    ) -> None:
        if isinstance(model, nn.Module):
            named = [(name, m) for name, m in model.named_modules() if isinstance(m, BalanceState)]
        else:
            named = [(f"router {i}", m) for i, m in enumerate(model)]
        if not named:
            raise ArgumentError(
                "model", "a module with at least one BiasRouter or attached router", "none",
                "Use BiasRouter in the model, or attach(model) for a model that has its own routers.",
            )  # fmt: skip
        self.names = [name or "router" for name, _ in named]
        self.states = [state for _, state in named]
        self.group = group
        if expert_ranks is not None:
            for state in self.states:
                _checked_ranks("expert_ranks", expert_ranks, state.n_experts)
        self.expert_ranks = expert_ranks
        self.last_counts: list[Tensor] = []
        self._totals: list[Tensor] = []
        # Called after every step, for instance by a `RouterLog`.
        self.observers: list[Callable[[], None]] = []

    def step(self) -> list[Tensor]:
        """Update all biases from the counts since the last call; return the summed counts, int64 [E] each."""
        self.last_counts = update_biases(self.states, self.group)
        if not self._totals:
            self._totals = [torch.zeros_like(counts) for counts in self.last_counts]
        for total, counts in zip(self._totals, self.last_counts, strict=True):
            total += counts
        for observer in self.observers:
            observer()
        return self.last_counts

    def install(self, optimizer: torch.optim.Optimizer) -> Any:
        """Call `step` whenever the optimiser steps; return the handle whose remove() undoes it."""
        return optimizer.register_step_pre_hook(lambda *_: (self.step(), None)[1])

    def reports(self) -> dict[str, LoadReport]:
        """Return the figures of the last update of every router, by its name in the model."""
        counts = self.last_counts or [torch.zeros_like(state.counts) for state in self.states]
        return {
            name: load_report(state, c, self.expert_ranks)
            for name, state, c in zip(self.names, self.states, counts, strict=True)
        }

    def totals(self, *, reset: bool = True) -> dict[str, Tensor]:
        """Return the counts of all updates since the last call: the global load of that stretch of training."""
        totals = self._totals or [torch.zeros_like(state.counts) for state in self.states]
        answer = {name: total.clone() for name, total in zip(self.names, totals, strict=True)}
        if reset:
            self._totals = []
        return answer


def loads_by_rank(counts: Tensor, ranks: int | Tensor) -> Tensor:
    """Return the load [n_ranks] of expert-parallel ranks, from the experts' counts [E].

    ranks: their number, where they hold equal runs of the experts; or int64 [E], the rank of each expert
    (`Placement.rank_of`).
    """
    if isinstance(ranks, Tensor):
        if ranks.shape != counts.shape or ranks.is_floating_point() or bool((ranks < 0).any()):
            raise ArgumentError("ranks", f"a rank >= 0 for each of the {counts.shape[0]} experts", f"{ranks}")
        size = int(ranks.max()) + 1
        return torch.zeros(size, dtype=counts.dtype, device=counts.device).index_add_(
            0, ranks.to(counts.device), counts
        )
    return counts.view(_checked_ranks("ranks", ranks, counts.shape[0]), -1).sum(dim=1)


def _checked_ranks(argument: str, n_ranks: int, n_experts: int) -> int:
    if isinstance(n_ranks, bool) or not isinstance(n_ranks, int) or n_ranks < 1 or n_experts % n_ranks:
        raise ArgumentError(argument, f"a divisor of the {n_experts} experts", repr(n_ranks))
    return n_ranks
