"""The state that balances one router: bias, step counter and counts, and the one place that updates them.

Needs torch. Only integers travel between ranks, so every rank computes the same bits.
Source: L. Wang et al., arXiv:2408.15664, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from .errors import ArgumentError
from .problem import checked_count, checked_k
from .rules import BiasRule


def in_recomputation() -> bool:
    """Whether autograd is running a backward pass, so that a forward now repeats an earlier one.

    Activation checkpointing runs the forward of a block again inside the backward pass, whichever of its
    two implementations is used; no router is called there for any other reason.
    """
    return torch._C._current_graph_task_id() != -1


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a DTensor, sharing its memory; a plain tensor as it is."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def _add_to_counts(counts: Tensor, experts: Tensor, weight: Tensor | None) -> None:
    """Add flat experts int64 [n] to counts [E], each weight int64 [n] times, unless this is a recomputation."""
    if in_recomputation():
        return
    # scatter_add on integers is exact in any order and, unlike bincount, does not wait for the GPU.
    counts.scatter_add_(0, experts, torch.ones_like(experts) if weight is None else weight)


# A compiled graph is traced once, in a forward pass, and then also run where a checkpoint around it
# recomputes it. Only an operator that the compiler does not look into can ask which of the two it is in.
_add_to_counts_op = torch.library.custom_op(
    "sfumato_alflb::add_to_counts", _add_to_counts, mutates_args={"counts"},
    schema="(Tensor(a!) counts, Tensor experts, Tensor? weight) -> ()",
)  # fmt: skip


@attrs.frozen(eq=False)
class LoadReport:
    """What one update saw. counts: int64 [E], summed over ranks. max_vio, min_vio: dimensionless.

    max_abs_bias: in units of score; a bias that grows without bound means an expert that cannot be
    balanced at this step size. rank_counts: int64 [n_ranks], the load of each expert-parallel rank, and
    rank_max_vio that of the busiest, where the ranks' number was given.
    """

    counts: Tensor
    max_vio: float
    min_vio: float
    max_abs_bias: float
    step: int
    rank_counts: Tensor | None = None
    rank_max_vio: float | None = None


class BalanceState(nn.Module):
    """Bias, counts and update rule of one router with E experts of which each token takes K.

    Buffers: `bias` float32 [E], persistent, and kept float32 (bit for bit) when the model is cast;
    `step` int64 [], persistent, the updates made. `counts` int64 [E], not saved, are this rank's tokens
    since the last update. They follow the module between devices but are no registered buffer: DDP sends
    the buffers of rank 0 to all ranks before a forward, and would overwrite what the others have counted.
    Nothing here takes part in autograd. FSDP2 leaves all three whole; `distribute_module` may make
    replicated DTensors of the buffers.

    Counting happens in training mode only, never while frozen, and never in a recomputed forward, whether
    the checkpoint lies inside a compiled graph or around it.
    """

    bias: Tensor
    step: Tensor
    counts: Tensor

    def __init__(
        self,
        n_experts: int,
        k: int,
        rule: BiasRule | str = "sign",
        u: float = 1e-3,
        *,
        recentre: bool = False,
        clip: float | None = None,
        device: Any = None,
    ) -> None:
        super().__init__()
        self.n_experts = checked_count(n_experts, "experts", least=2)
        self.k = checked_k(k, n_experts)
        if clip is not None and (isinstance(clip, str) or not clip > 0):
            raise ArgumentError("clip", "a number > 0 or None", repr(clip))
        self.rule = rule if isinstance(rule, BiasRule) else BiasRule(rule, u)
        self.recentre, self.clip = recentre, clip
        self.is_frozen = False
        # Called with scores [..., E] and mask of every counted forward, for instance by a `RouterLog`.
        self.on_scores: Callable[[Tensor, Tensor | None], None] | None = None
        self.register_buffer("bias", torch.zeros(n_experts, dtype=torch.float32, device=device))
        self.register_buffer("step", torch.zeros((), dtype=torch.int64, device=device))
        self.counts = torch.zeros(n_experts, dtype=torch.int64, device=device)

    # -- life in a model ---------------------------------------------------------------------------

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BalanceState:
        # Casting a model with .half() or .to(bfloat16) must not round the bias: it is moved, never cast.
        before, was_meta = self.bias, self.counts.is_meta
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.bias.dtype != torch.float32:
            if before.is_meta:
                self.bias = torch.empty_like(self.bias, dtype=torch.float32)
            else:
                self.bias = before.to(device=self.bias.device)
        self.counts = fn(self.counts)
        if was_meta and not self.counts.is_meta:
            self.reset_balance()  # to_empty() leaves what was in memory before
        return self

    def _load_from_state_dict(
        self, state_dict: Mapping[str, Any], prefix: str, local_metadata: Any, strict: bool,
        missing_keys: list[str], unexpected_keys: list[str], error_msgs: list[str],
    ) -> None:  # fmt: skip
        saved = state_dict.get(prefix + "bias")
        problem = None
        if isinstance(saved, Tensor):
            if tuple(saved.shape) != (self.n_experts,):
                problem = f"expected shape ({self.n_experts},), got {tuple(saved.shape)}"
            elif saved.dtype != torch.float32:
                problem = (
                    f"expected float32, got {saved.dtype}, whose rounding undoes the balance. "
                    "Save it in float32, or convert it knowingly with .float() before loading"
                )
            elif not saved.is_meta and not bool(torch.isfinite(local(saved)).all()):
                problem = "expected finite values, got NaN or infinity"
        if problem is not None:
            error_msgs.append(f"{prefix}bias: {problem}. Nothing of this router was loaded.")
            return
        super()._load_from_state_dict(  # type: ignore[no-untyped-call]
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def reset_balance(self) -> None:
        """Set bias, step and counts to zero, as `to_empty()` does to a router on the meta device."""
        with torch.no_grad():
            for tensor in (self.bias, self.step, self.counts):
                local(tensor).zero_()

    def freeze(self, frozen: bool = True) -> None:
        """Stop counting and updating (serving), or start again with `frozen=False`."""
        self.is_frozen = frozen

    def show_scores(self, scores: Tensor, mask: Tensor | None) -> None:
        """Hand scores [..., E] of a forward that counts to `on_scores`, where one is set."""
        if self.on_scores is None or torch.compiler.is_compiling():
            return
        if self.training and not self.is_frozen and not in_recomputation():
            self.on_scores(local(scores.detach()), None if mask is None else local(mask))

    # -- counting ----------------------------------------------------------------------------------

    @torch.no_grad()
    def count(self, experts: Tensor, mask: Tensor | None = None) -> None:
        """Add a routing to the counts. experts: int64 [..., K]; mask: bool [...], True for real tokens.

        Of DTensors this rank's part is counted. Does nothing in evaluation mode, while frozen, or in a
        recomputed forward.
        """
        if not self.training or self.is_frozen:
            return
        experts = local(experts)
        weight = None
        if mask is not None:
            weight = local(mask).unsqueeze(-1).expand_as(experts).reshape(-1).to(torch.int64)
        self._add(experts.reshape(-1), weight)

    @torch.no_grad()
    def count_map(self, routing_map: Tensor, mask: Tensor | None = None) -> None:
        """Add a routing given as a map, bool [..., E]; else as `count`."""
        if not self.training or self.is_frozen:
            return
        chosen = local(routing_map)
        if mask is not None:
            chosen = chosen & local(mask).unsqueeze(-1)
        self.count_sums(chosen.reshape(-1, self.n_experts).sum(dim=0))

    @torch.no_grad()
    def count_sums(self, sums: Tensor) -> None:
        """Add the loads of one forward, int64 [E], already summed over its tokens; else as `count`."""
        if self.training and not self.is_frozen:
            self._add(torch.arange(self.n_experts, device=sums.device), sums)

    def _add(self, experts: Tensor, weight: Tensor | None) -> None:
        if self.counts.device != experts.device:
            # fully_shard moves buffers to the accelerator, and the counts are none.
            self.counts = self.counts.to(experts.device)
        add = _add_to_counts_op if torch.compiler.is_compiling() else _add_to_counts
        add(self.counts, experts, weight)

    @torch.no_grad()
    def add_counts(self, counts: Tensor, n_tokens: int) -> None:
        """Add counts [E] made elsewhere. They must be integers >= 0 that sum to K * n_tokens."""
        if counts.shape != (self.n_experts,):
            raise ArgumentError("counts", f"shape ({self.n_experts},)", f"{tuple(counts.shape)}")
        if counts.is_floating_point():
            raise ArgumentError(
                "counts", "an integer dtype", f"{counts.dtype}",
                "Low-precision floats cannot hold counts: in bfloat16 they are 256 apart at 40,000.",
            )  # fmt: skip
        if bool((counts < 0).any()) or int(counts.sum()) != self.k * n_tokens:
            raise ArgumentError(
                "counts", f"entries >= 0 that sum to k * n_tokens = {self.k * n_tokens}", f"{counts.tolist()}"
            )
        self.counts += counts.to(self.counts.device, torch.int64)

    # -- the update --------------------------------------------------------------------------------

    @torch.no_grad()
    def delta(self, counts: Tensor) -> Tensor:
        """Return the change [E], float64, that the rule makes for these counts; no host synchronisation."""
        total = counts.sum()
        n = (local(self.step) + 1).to(torch.float64)
        rule = self.rule
        if rule.name.endswith("_sqrt"):
            rate = rule.u / n.sqrt()
        elif rule.name.endswith("_inv"):
            rate = rule.u / n
        elif rule.name == "ogd":
            assert rule.mu is not None
            rate = 1.0 / (rule.mu * n)
        else:
            rate = torch.full_like(n, rule.u)
        # E*L - E*A in integers: the sign is exact even where L = T*K/E is not an integer.
        gap = total - self.n_experts * counts
        if rule.is_sign:
            direction = gap.sign().to(torch.float64)
        elif rule.name == "ogd":
            direction = gap.to(torch.float64) / self.n_experts
        else:
            direction = gap.to(torch.float64) / total.clamp(min=1).to(torch.float64)
        return torch.where(total > 0, rate * direction, torch.zeros_like(direction))

    @torch.no_grad()
    def apply_counts(self, counts: Tensor) -> None:
        """Move the bias by the rule for these counts [E] (already summed over ranks); empty: no change.

        Raises ArgumentError for another length.
        """
        if counts.shape != (self.n_experts,):
            raise ArgumentError("counts", f"shape ({self.n_experts},)", f"{tuple(counts.shape)}")
        bias, step = local(self.bias), local(self.step)
        moved = bias.to(torch.float64) + self.delta(counts)
        if self.recentre:
            moved = moved - moved.mean()
        if self.clip is not None:
            moved = moved.clamp(-self.clip, self.clip)
        routed = counts.sum() > 0
        bias.copy_(torch.where(routed, moved.to(torch.float32), bias))
        step += routed.to(torch.int64)

    def update_(self, group: Any = None) -> None:
        """Update from the counts since the last update, summed over the ranks of `group`, and zero them.

        Call once per optimiser step, after gradient accumulation. With several routers use
        `update_biases`, which needs a single reduction for all of them.
        """
        update_biases([self], group)


@torch.no_grad()
def update_biases(states: Iterable[BalanceState], group: Any = None) -> list[Tensor]:
    """Update every router with one reduction; return each one's summed counts, int64 [E].

    group: the process group of all ranks that route different tokens (data, context and, where experts
    see different tokens, expert parallel ranks; not tensor parallel replicas of the same tokens). None
    is the default group when torch.distributed is initialised, and no reduction otherwise.
    Routers may have different numbers of experts. Frozen routers take part in the reduction, so that
    ranks agree on its shape, and are not changed.
    """
    states = list(states)
    if not states:
        return []
    device = states[0].counts.device
    flat = torch.cat([state.counts.to(device) for state in states])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(flat, group=group)
    summed = list(flat.split([state.n_experts for state in states]))
    for state, counts in zip(states, summed, strict=True):
        if not state.is_frozen:
            state.apply_counts(counts.to(local(state.bias).device))
        state.counts.zero_()
    return summed


def load_report(state: BalanceState, counts: Tensor, expert_ranks: int | None = None) -> LoadReport:
    """Return the figures of one update for a log; reads back from the device."""
    host = counts.detach().to("cpu", torch.float64)
    mean = float(host.mean())
    by_rank = None if expert_ranks is None else host.view(expert_ranks, -1).sum(dim=1)
    return LoadReport(
        counts=counts.detach().cpu(),
        max_vio=float(host.max()) / mean - 1.0 if mean else 0.0,
        min_vio=1.0 - float(host.min()) / mean if mean else 0.0,
        max_abs_bias=float(local(state.bias).abs().max()),
        step=int(local(state.step)),
        rank_counts=None if by_rank is None else by_rank.to(torch.int64),
        rank_max_vio=None
        if by_rank is None
        else (float(by_rank.max() / by_rank.mean()) - 1.0 if mean else 0.0),
    )
