"""Find the routers that a model already has, and balance them by a bias. Needs torch.

Two kinds are found:

* routers without a bias, as in Hugging Face's mixture-of-experts models (transformers 5): a module with
  `top_k`, `num_experts` and a weight [E, dim] whose forward returns (logits, weights, indices). Its output
  is replaced: experts by `score + bias`, weights recomputed from the unbiased scores as the model does it;
* routers that already add a bias: `e_score_correction_bias` (DeepSeek-V3 and its kin in transformers,
  MiniMax-M2), `expert_bias` (torchtitan, Megatron). Only counting and the update are added. Switch
  off the update that the training framework would make itself.

How a router makes its weights is not guessed from its name: at `attach` it is asked about a few random
tokens, and the answer is compared with each formula. A router that fits none is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from .balancer import Balancer
from .errors import ArgumentError
from .router import score_logits, softmax_rate
from .rules import BiasRule
from .state import BalanceState

_BIAS_NAMES = ("e_score_correction_bias", "expert_bias")
_K_NAMES = ("top_k", "topk", "num_experts_per_tok")
_CHILDREN = ("gate", "router")


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


class Attached(Balancer):
    """A `Balancer` for a model's own routers, with the way back.

    Counting leaves out padding when the model is called with a two-dimensional `attention_mask`.
    """

    def __init__(
        self, states: list[BalanceState], names: list[str], hooks: list[Any], hosts: list[nn.Module]
    ) -> None:
        super().__init__(states)
        self.names, self._hooks, self._hosts = names, hooks, hosts
        self.mask: Tensor | None = None

    def detach(self) -> None:
        """Remove hooks and state; routers that had a bias of their own keep its last value."""
        for hook in self._hooks:
            hook.remove()
        for host in self._hosts:
            if hasattr(host, "balance"):
                del host.balance
        self._hooks, self._hosts = [], []

    def token_mask(self, n_tokens: int) -> Tensor | None:
        """Return the flat mask [n_tokens] of the present call, or None when it was given none."""
        if self.mask is None:
            return None
        if self.mask.numel() != n_tokens:
            raise ArgumentError(
                "attention_mask", f"one entry for each of the {n_tokens} routed tokens", f"{self.mask.numel()}",
                "Pad to the length that is fed to the model, or pass the model a mask of four dimensions.",
            )  # fmt: skip
        return self.mask.reshape(-1)


def attach(
    model: nn.Module,
    rule: BiasRule | str = "sign",
    u: float = 1e-3,
    *,
    group: Any = None,
    scale_softmax: bool = True,
    recentre: bool = False,
    clip: float | None = None,
) -> Attached:
    """Balance every router of `model`; return the balancer, on which to call `install(optimizer)`.

    rule, u: see `BiasRule`; u is meant for sigmoid scores, and for softmax gates it is multiplied by
    `softmax_rate(1, E)` of each layer unless scale_softmax is false. group: see `update_biases`.
    The state lies in the routers as submodule `balance`, so `model.state_dict()` holds it; attach before
    loading a checkpoint that has it. Attach copies of a model (deepcopy) apart: hooks of a copy would still
    count into the original.
    Raises ArgumentError when the model has no routers that are understood, when one makes its weights
    in an unknown way, or when it is attached already.
    """
    base = rule if isinstance(rule, BiasRule) else BiasRule(rule, u)
    states: list[BalanceState] = []
    names: list[str] = []
    hosts: list[nn.Module] = []
    plans: list[tuple[nn.Module, BalanceState, Gate | None, str | None]] = []
    claimed: set[int] = set()
    for name, module in model.named_modules():
        if id(module) in claimed or isinstance(module, BalanceState):
            continue
        if isinstance(getattr(module, "balance", None), BalanceState):
            raise ArgumentError(
                "model", "a model without attached routers", f"{name} has one", "Call detach() first."
            )
        bias_name = next((b for b in _BIAS_NAMES if isinstance(getattr(module, b, None), Tensor)), None)
        router = _router_of(module) if bias_name else module
        if bias_name is None and not _is_plain_router(module):
            continue
        claimed.add(id(router))
        k = _k_of(router) or _k_of(module)
        if k is None:
            raise ArgumentError("model", f"a router with one of {', '.join(_K_NAMES)}", f"{name} has none")
        if bias_name:
            n_experts = int(getattr(module, bias_name).shape[0])
            gate = None
            law = base
        else:
            n_experts = int(module.num_experts)
            gate = _recognise(module, k, name)
            law = scaled_rule(base, n_experts) if gate.score == "softmax" and scale_softmax else base
        device = next((p.device for p in router.parameters()), torch.device("cpu"))
        state = BalanceState(n_experts, k, law, recentre=recentre, clip=clip, device=device)
        plans.append((module, state, gate, bias_name))
        states.append(state)
        names.append(name)
        hosts.append(module)
    if not states:
        raise ArgumentError(
            "model", "routers as transformers 5, torchtitan or Megatron name them", f"none in {type(model).__name__}",
            "Older transformers route inside the block, where no hook reaches: use version 5.",
        )  # fmt: skip
    # Nothing is changed before everything has been understood, so that a refusal leaves the model as it was.
    hooks: list[Any] = []
    attached = Attached(states, names, hooks, hosts)
    attached.group = group
    for module, state, gate, bias_name in plans:
        state.train(module.training)
        module.add_module("balance", state)
        if gate is not None:
            hooks.append(module.register_forward_hook(_replace(state, gate, attached)))
        else:
            assert bias_name is not None
            _share(module, bias_name, state)
            hooks.append(module.register_forward_pre_hook(_relink(bias_name, state)))
            hooks.append(_router_of(module).register_forward_hook(_observe(state, attached)))
    hooks.append(model.register_forward_pre_hook(_remember_mask(attached), with_kwargs=True))
    return attached


def scaled_rule(rule: BiasRule, n_experts: int) -> BiasRule:
    """Return the rule with its step made for softmax scores of E experts; `ogd` is scaled by its mu already."""
    return rule if rule.name == "ogd" else attrs.evolve(rule, u=softmax_rate(rule.u, n_experts))


def _is_plain_router(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    n_experts = getattr(module, "num_experts", None)
    return (
        isinstance(weight, Tensor)
        and isinstance(n_experts, int)
        and _k_of(module) is not None
        and weight.dim() == 2
        and weight.shape[0] == n_experts
    )


def _k_of(module: nn.Module) -> int | None:
    for name in _K_NAMES:
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


def _recognise(router: nn.Module, k: int, name: str) -> Gate:
    """Ask the router about random tokens and return the formula that its weights follow."""
    weight: Tensor = router.weight  # type: ignore[assignment]
    if weight.is_meta:
        raise ArgumentError(
            "model", "weights on a device", f"{name} on the meta device", "Materialise the model first."
        )
    # A generator of its own: the model's and the global random state stay untouched.
    probe = torch.randn(16, weight.shape[1], generator=torch.Generator().manual_seed(0))
    was_training = router.training
    router.eval()
    try:
        with torch.no_grad():
            output = router(probe.to(weight.device, weight.dtype))
    finally:
        router.train(was_training)
    fits = isinstance(output, tuple) and len(output) == 3 and all(isinstance(part, Tensor) for part in output)
    if (
        not fits
        or output[0].shape[-1] != weight.shape[0]
        or output[2].shape[-1] != k
        or output[2].is_floating_point()
    ):
        raise ArgumentError("model", "a router that returns (logits, weights, indices)", f"{name} does not")
    logits, weights, experts = output[0].float(), output[1].float(), output[2]
    tolerance = 1e-4 if weight.dtype == torch.float32 else 2e-2
    if weights.shape == experts.shape:
        for score in ("softmax", "sigmoid"):
            for normalise in (True, False):
                gate = Gate(score, normalise, 1.0)
                plain = gate.weights(logits, experts)
                scale = float((weights.sum() / plain.sum()).item())
                if torch.allclose(weights, plain * scale, rtol=tolerance, atol=tolerance / 10):
                    return Gate(score, normalise, 1.0 if abs(scale - 1.0) < tolerance else scale)
    raise ArgumentError(
        "model", "weights that are softmax or sigmoid of the logits, normalised or not, times a constant",
        f"{name} ({type(router).__name__}) makes them in another way",
        "Wrap that router in BiasRouter, or leave the model as it is.",
    )  # fmt: skip


def _replace(state: BalanceState, gate: Gate, attached: Attached) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        logits, weights, _ = output
        with torch.no_grad():
            selection = score_logits(logits, gate.score) + state.bias
            experts = selection.topk(state.k, dim=-1).indices
        state.count(experts, attached.token_mask(experts.shape[:-1].numel()) if state.training else None)
        return logits, gate.weights(logits, experts).to(weights.dtype), experts

    return hook


def _observe(state: BalanceState, attached: Attached) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        if not state.training:
            return
        parts = [
            part for part in (output if isinstance(output, tuple) else (output,)) if isinstance(part, Tensor)
        ]
        for part in parts:
            if part.dtype in (torch.int64, torch.int32) and part.shape[-1] == state.k and part.dim() > 1:
                experts = part.detach().to(torch.int64)
                break
            if part.dtype == torch.bool and part.shape[-1] == state.n_experts:
                # A routing map [tokens, E] with K true entries a row.
                experts = part.detach().nonzero()[:, 1].view(-1, state.k)
                break
        else:
            raise ArgumentError(
                "model", "a router that returns indices [tokens, K] or a map [tokens, E]", "neither"
            )
        state.count(experts, attached.token_mask(experts.shape[:-1].numel()))

    return hook


def _share(host: nn.Module, name: str, state: BalanceState) -> None:
    """Make the host's bias and the state's one float32 tensor, saved under the host's name alone."""
    own: Tensor = getattr(host, name)
    state.bias.copy_(own.detach())
    state._non_persistent_buffers_set.add("bias")
    _set(host, name, state.bias)


def _set(host: nn.Module, name: str, value: Tensor) -> None:
    if name in host._buffers:
        host._buffers[name] = value
    elif name in host._parameters:
        host._parameters[name] = nn.Parameter(value, requires_grad=False)
    else:
        setattr(host, name, value)


def _relink(name: str, state: BalanceState) -> Callable[..., None]:
    """Keep the two biases one tensor after casts, moves and checkpoints loaded with assign=True."""

    def hook(host: nn.Module, args: Any) -> None:
        own: Tensor = getattr(host, name)
        if own.data_ptr() == state.bias.data_ptr() and own.dtype == torch.float32:
            return
        if own.dtype == torch.float32:
            state.bias = own.detach()
        else:
            _set(host, name, state.bias)  # a cast rounded it: the state kept every bit

    return hook


def _remember_mask(attached: Attached) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        mask = kwargs.get("attention_mask")
        is_padding = isinstance(mask, Tensor) and mask.dim() == 2
        attached.mask = mask.to(torch.bool) if is_padding else None

    return hook
