"""Find a model's routers, and learn from their own answers how they make weights. Needs torch.

Nothing here changes a model: what is found is handed to `attach`.
"""

from __future__ import annotations

import inspect

import attrs
import torch
from torch import Tensor, nn

from .errors import ArgumentError
from .router import SCORES, score_logits
from .state import BalanceState

BIAS_NAMES = ("e_score_correction_bias", "expert_bias", "expert_bias_E")
K_NAMES = ("top_k", "topk", "num_experts_per_tok")
_CHILDREN = ("gate", "router")
_SCORE_NAMES = ("score_func", "score_function")


@attrs.frozen
class Gate:
    """How a router turns logits into weights: score, then optionally normalise over the K, then scale."""

    score: str
    normalise: bool
    scale: float

    def weights(self, logits: Tensor, experts: Tensor) -> Tensor:
        """Return weights [..., K] of the chosen experts from logits [..., E], in float32."""
        chosen = score_logits(logits, self.score).gather(-1, experts)
        if self.normalise:
            chosen = chosen / (chosen.sum(dim=-1, keepdim=True) + 1e-20)
        return chosen * self.scale


@attrs.frozen(eq=False)
class Site:
    """One router of a model. `router` is the module whose output is the routing; `host` is where the bias is,
    under `bias_name`, or will be (bias_name None)."""

    name: str
    host: nn.Module
    router: nn.Module
    k: int
    n_experts: int
    bias_name: str | None


def find_sites(model: nn.Module) -> list[Site]:
    """Return the routers of a model in its own order.

    Raises ArgumentError when there are none, when one does not say how many experts a token takes, or when
    one has been attached already.
    """
    named = list(model.named_modules())
    parents = {id(child): parent for _, parent in named for child in parent.children()}
    biased: dict[int, tuple[str, nn.Module]] = {}
    claimed: set[int] = set()
    for name, module in named:
        if isinstance(module, BalanceState):
            continue
        if isinstance(getattr(module, "balance", None), BalanceState):
            raise ArgumentError(
                "model", "a model without attached routers", f"{name} has one", "Call detach() first."
            )
        bias_name = next((b for b in BIAS_NAMES if isinstance(getattr(module, b, None), Tensor)), None)
        if bias_name is None:
            continue
        router = _router_of(module)
        if _k_of(router) is None and id(module) in parents:
            router = parents[id(module)]  # the bias lies in a small module below the router, as in ERNIE 4.5
        biased[id(module)] = (bias_name, router)
        claimed |= {id(router), id(module)}
    sites: list[Site] = []
    for name, module in named:
        if id(module) in biased:
            bias_name, router = biased[id(module)]
            k = _k_of(router) or _k_of(module)
            if k is None:
                raise ArgumentError("model", f"a router with one of {', '.join(K_NAMES)}", f"{name} has none")
            sites.append(Site(name, module, router, k, int(getattr(module, bias_name).numel()), bias_name))
        elif id(module) not in claimed and _is_plain_router(module):
            k = _k_of(module)
            assert k is not None
            sites.append(Site(name, module, module, k, int(module.num_experts), None))  # type: ignore[call-overload]
    for site in sites:
        parts = [site.router.parameters(), [getattr(site.host, site.bias_name)] if site.bias_name else []]
        if any(hasattr(tensor, "to_local") for part in parts for tensor in part):
            raise ArgumentError(
                "model", "routers with plain tensors", f"DTensors in {site.name}",
                "Attach before fully_shard or parallelize_module; both leave the balance alone.",
            )  # fmt: skip
    if not sites:
        raise ArgumentError(
            "model", "routers as transformers 5, torchtitan or Megatron name them", f"none in {type(model).__name__}",
            "Older transformers route inside the block, where no hook reaches: use version 5.",
        )  # fmt: skip
    return sites


def _is_plain_router(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    n_experts = getattr(module, "num_experts", None)
    return (
        not isinstance(module, BalanceState)
        and isinstance(weight, Tensor)
        and isinstance(n_experts, int)
        and _k_of(module) is not None
        and weight.dim() == 2
        and weight.shape[0] == n_experts
    )


def _k_of(module: nn.Module) -> int | None:
    for name in K_NAMES:
        value = getattr(module, name, None)
        if isinstance(value, int):
            return value
    return None


def _router_of(module: nn.Module) -> nn.Module:
    """Return the module whose output is the routing: the bias may sit on the block around it."""
    for name in _CHILDREN:
        child = getattr(module, name, None)
        if isinstance(child, nn.Module) and (_k_of(child) is not None) and not isinstance(child, nn.Linear):
            return child
    return module


def recognise(site: Site) -> Gate:
    """Ask a plain router about random tokens; return the formula that its weights follow.

    Raises ArgumentError when it returns something else, when no formula fits, or when it chooses otherwise
    than by the K largest scores (groups, for instance), because its choice is about to be made in its stead.
    """
    answer = _answer(site)
    gate = None if answer is None else _formula(answer)
    kind = f"{site.name} ({type(site.router).__name__})"
    if answer is None:
        raise ArgumentError(
            "model", "a router that returns (logits, weights, indices)", f"{site.name} does not"
        )
    if gate is None:
        raise ArgumentError(
            "model", "weights that are softmax or sigmoid of the logits, normalised or not, times a constant",
            f"{kind} makes them in another way",
            "Wrap that router in BiasRouter, or leave the model as it is.",
        )  # fmt: skip
    logits, _, experts = answer
    best = score_logits(logits, gate.score).topk(site.k, dim=-1).indices
    if not torch.equal(best.sort(dim=-1).values, experts.sort(dim=-1).values):
        raise ArgumentError(
            "model", "routers that choose the K largest scores", f"{kind} chooses otherwise",
            "Where it limits tokens to groups, use BiasRouter with groups and top_groups.",
        )  # fmt: skip
    return gate


def score_of(site: Site) -> str:
    """Return 'sigmoid' or 'softmax': what a router with a bias of its own adds that bias to.

    Raises ArgumentError when neither the router's settings nor its answer tell.
    """
    for name in _SCORE_NAMES:
        value = getattr(site.router, name, None)
        if isinstance(value, str) and value in SCORES:
            return value
    answer = _answer(site)
    gate = None if answer is None else _formula(answer)
    if gate is None:
        raise ArgumentError(
            "score", f"to be told which of {', '.join(SCORES)} the bias is added to",
            f"{site.name} ({type(site.router).__name__}), which does not tell", "Pass score='sigmoid' or 'softmax'.",
        )  # fmt: skip
    return gate.score


def _answer(site: Site) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return (logits, weights, experts) for 16 random tokens, or None when the router answers otherwise."""
    router = site.router
    weight = next(
        (p for p in router.parameters() if p.dim() == 2 and p.shape[0] == site.n_experts and p.shape[1] > 1), None
    )  # fmt: skip
    if weight is None:
        return None
    if weight.is_meta:
        raise ArgumentError(
            "model", "weights on a device", f"{site.name} on the meta device", "Materialise the model first."
        )
    # A generator of its own: the model's and the global random state stay untouched.
    probe = torch.randn(16, weight.shape[1], generator=torch.Generator().manual_seed(0))
    probe = probe.to(weight.device, weight.dtype)
    needs_bias = False
    if site.bias_name is not None:
        wanted = inspect.signature(router.forward).parameters.values()
        needs_bias = sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in wanted) > 1
    arguments = (getattr(site.host, site.bias_name or ""),) if needs_bias else ()
    was_training = router.training
    router.eval()
    output = None
    try:
        with torch.no_grad():
            # Some routers want the batch axis kept.
            for x in (probe, probe.unsqueeze(0)):
                try:
                    output = router(x, *arguments)
                    break
                except (ValueError, RuntimeError, TypeError, IndexError):
                    continue
    finally:
        router.train(was_training)
    if not (isinstance(output, tuple) and len(output) == 3 and all(isinstance(p, Tensor) for p in output)):
        return None
    logits, weights, experts = (part.reshape(-1, part.shape[-1]) for part in output)
    fits = (
        logits.shape[-1] == site.n_experts
        and weights.shape == experts.shape
        and experts.shape[-1] == site.k
        and experts.dtype in (torch.int64, torch.int32)
    )
    return (logits.float(), weights, experts.long()) if fits else None


def _formula(answer: tuple[Tensor, Tensor, Tensor]) -> Gate | None:
    """Return the gate whose weights are those of the answer, or None."""
    logits, weights, experts = answer
    tolerance = 1e-4 if weights.dtype == torch.float32 else 2e-2
    weights = weights.float()
    for score in ("softmax", "sigmoid"):
        for normalise in (True, False):
            plain = Gate(score, normalise, 1.0).weights(logits, experts)
            scale = float((weights.sum() / plain.sum()).item())
            if torch.allclose(weights, plain * scale, rtol=tolerance, atol=tolerance / 10):
                return Gate(score, normalise, 1.0 if abs(scale - 1.0) < tolerance else scale)
    return None
