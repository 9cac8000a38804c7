"""One GPU kernel for sigmoid or softmax, bias, top-k and the load histogram. Needs triton and CUDA.

Without a GPU it can be run, slowly, by triton's own interpreter (TRITON_INTERPRET=1): that checks what it
computes, not how fast.

A program handles BLOCK_T tokens and keeps all E scores of each in registers. The k best experts are
found by k masked arg-max passes (k <= 8, so this beats sorting). Loads are first added up within the
block, by summing one-hot rows, and reach memory with one atomic per expert per block.
Ties go to the lowest expert index, so this path equals the stable reference, which torch.topk need not.
"""

# No `from __future__ import annotations`: triton reads `tl.constexpr` from the signature.
import os

import torch
from torch import Tensor

from .errors import ArgumentError, MissingExtraError

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise MissingExtraError("kernel='triton'", "triton") from error

MAX_EXPERTS, MAX_K = 256, 8
LEAST = tl.constexpr(-3.0e38)


@triton.jit
def _route_kernel(
    logits_ptr, bias_ptr, mask_ptr, experts_ptr, scores_ptr, counts_ptr, n_tokens,
    E: tl.constexpr, K: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_T: tl.constexpr,
    SOFTMAX: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    expert = tl.arange(0, BLOCK_E)
    is_token = token < n_tokens
    is_expert = expert < E
    inside = is_token[:, None] & is_expert[None, :]
    logits = tl.load(logits_ptr + token[:, None] * E + expert[None, :], mask=inside, other=-float("inf"))
    if SOFTMAX:
        # Rows beyond the last token are all -inf; shifting them by zero keeps NaN out.
        top = tl.max(logits, axis=1)
        top = tl.where(is_token, top, 0.0)
        exps = tl.exp(logits - top[:, None])
        total = tl.where(is_token, tl.sum(exps, axis=1), 1.0)
        scores = exps / total[:, None]
    else:
        scores = 1.0 / (1.0 + tl.exp(-logits))
    tl.store(scores_ptr + token[:, None] * E + expert[None, :], scores, mask=inside)
    bias = tl.load(bias_ptr + expert, mask=is_expert, other=0.0)
    total = scores + bias[None, :]
    # NaN and -inf become the least finite number, so that every slot gets an expert of its own and none
    # of the padding beyond E, whatever the router was fed; -inf is for padding and for experts taken.
    total = tl.where(total > LEAST, total, LEAST)
    left = tl.where(is_expert[None, :], total, -float("inf"))
    counted = is_token
    if MASKED:
        counted = counted & (tl.load(mask_ptr + token, mask=is_token, other=0) != 0)
    histogram = tl.zeros((BLOCK_E,), dtype=tl.int32)
    # A loop, not tl.static_range: unrolled, the code for E=64, K=6 is five times as long.
    for slot in range(K):
        best = tl.argmax(left, axis=1, tie_break_left=True)
        tl.store(experts_ptr + token * K + slot, best.to(tl.int64), mask=is_token)
        hit = expert[None, :] == best[:, None]
        histogram += tl.sum((hit & counted[:, None]).to(tl.int32), axis=0)
        left = tl.where(hit, -float("inf"), left)
    tl.atomic_add(counts_ptr + expert, histogram.to(tl.int64), mask=is_expert & (histogram > 0))


class _Scores(torch.autograd.Function):
    """Attach the gradient of the scores to what the kernel computed; the choice itself has none."""

    @staticmethod
    def forward(ctx: object, logits: Tensor, scores: Tensor, softmax: bool) -> Tensor:
        ctx.save_for_backward(scores)  # type: ignore[attr-defined]
        ctx.softmax = softmax  # type: ignore[attr-defined]
        return scores.view_as(scores)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None, None]:
        (scores,) = ctx.saved_tensors  # type: ignore[attr-defined]
        if ctx.softmax:  # type: ignore[attr-defined]
            return scores * (grad - (grad * scores).sum(-1, keepdim=True)), None, None
        return grad * scores * (1.0 - scores), None, None


def fused_route(
    logits: Tensor, bias: Tensor, k: int, score: str = "sigmoid", mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return experts int64 [..., K], scores float32 [..., E] (differentiable) and counts int64 [E].

    logits: float32 [..., E] on a CUDA device (or anywhere in triton's interpreter), E <= 256. bias: float32 [E]. k <= 8, best expert first.
    mask: bool [...], True for tokens to count.
    Raises ArgumentError for another device or a size beyond the kernel; use kernel='eager' there.
    """
    n_experts = logits.shape[-1]
    if not logits.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ArgumentError("kernel", "logits on a CUDA device", f"{logits.device}", "Use kernel='eager'.")
    if n_experts > MAX_EXPERTS or not 1 <= k <= min(MAX_K, n_experts - 1):
        raise ArgumentError(
            "kernel", f"E <= {MAX_EXPERTS} and k <= {MAX_K}", f"E={n_experts}, k={k}", "Use kernel='eager'."
        )
    flat = logits.detach().reshape(-1, n_experts).contiguous()
    n_tokens = flat.shape[0]
    experts = torch.empty(n_tokens, k, dtype=torch.int64, device=flat.device)
    scores = torch.empty_like(flat)
    counts = torch.zeros(n_experts, dtype=torch.int64, device=flat.device)
    if n_tokens:
        block_e = triton.next_power_of_2(n_experts)
        block_t = max(1, min(32, 2048 // block_e))
        flags = flat if mask is None else mask.reshape(-1).to(torch.uint8).contiguous()
        _route_kernel[(triton.cdiv(n_tokens, block_t),)](
            flat, bias, flags, experts, scores, counts, n_tokens,
            E=n_experts, K=k, BLOCK_E=block_e, BLOCK_T=block_t,
            SOFTMAX=score == "softmax", MASKED=mask is not None,
        )  # fmt: skip
    scores = _Scores.apply(logits, scores.view(logits.shape), score == "softmax")
    return experts.view(*logits.shape[:-1], k), scores, counts
