"""Balance the routers that a model already has, by a bias. Needs torch.

Two kinds are found:

* routers without a bias, as in Hugging Face's mixture-of-experts models (transformers 5): a module with
  `top_k`, `num_experts` and a weight [E, dim] whose forward returns (logits, weights, indices). Its output
  is replaced: experts by `score + bias`, weights recomputed from the unbiased scores as the model does it;
* routers that already add a bias: `e_score_correction_bias` (DeepSeek-V3 and its kin in transformers,
  MiniMax-M2, ERNIE 4.5), `expert_bias` and `expert_bias_E` (torchtitan, Megatron). Only counting and the
  update are added. Switch off the update that the training framework would make itself.

How a router makes its weights is not guessed from its name: at `attach` it is asked about a few random
tokens, and the answer is compared with each formula (see `sfumato_alflb.gates`). A router that fits none is
refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from .balancer import Balancer
from .errors import ArgumentError
from .gates import Gate, Site, find_sites, recognise, score_of
from .router import SCORES, like, refuse_non_finite, score_logits, softmax_rate
from .rules import BiasRule
from .state import BalanceState, local


class Attached(Balancer):
    """A `Balancer` for a model's own routers, with the way back.

    Counting leaves out padding when the model is called with a two-dimensional `attention_mask`.
    """

    def __init__(
        self, states: list[BalanceState], sites: list[Site], group: Any, expert_ranks: int | None
    ) -> None:
        super().__init__(states, group, expert_ranks=expert_ranks)
        self.names = [site.name or "router" for site in sites]
        self._hosts = [site.host for site in sites]
        self._were_parameters = [
            (site.host, site.bias_name)
            for site in sites
            if site.bias_name is not None and site.bias_name in site.host._parameters
        ]
        self._hooks: list[Any] = []
        self.mask: Tensor | None = None

    def detach(self) -> None:
        """Remove hooks and state; routers that had a bias of their own keep its last value."""
        for hook in self._hooks:
            hook.remove()
        for host in self._hosts:
            if hasattr(host, "balance"):
                del host.balance
        for host, name in self._were_parameters:
            value: Tensor = getattr(host, name)
            delattr(host, name)
            host.register_parameter(name, nn.Parameter(value, requires_grad=False))
        self._hooks, self._hosts, self._were_parameters = [], [], []

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
    score: str | None = None,
    recentre: bool = False,
    clip: float | None = None,
    expert_ranks: int | None = None,
) -> Attached:
    """Balance every router of `model`; return the balancer, on which to call `install(optimizer)`.

    rule, u: see `BiasRule`; u is meant for sigmoid scores, and for softmax gates, with or without a bias
    of their own, it is multiplied by `softmax_rate(1, E)` of each layer unless scale_softmax is false.
    group: see `update_biases`. score: 'sigmoid' or 'softmax', for routers with a bias of their own that do
    not tell which of them they add it to. expert_ranks: see `Balancer`.
    The state lies in the routers as submodule `balance`, so `model.state_dict()` holds it; attach before
    loading a checkpoint that has it, and before DDP or `fully_shard` wraps the model. Attach copies of a model (deepcopy) apart: hooks of a copy would still
    count into the original.
    Raises ArgumentError when the model has no routers that are understood, when one makes its weights or
    its choice in an unknown way, or when it is attached already; the model is then as it was.
    """
    base = rule if isinstance(rule, BiasRule) else BiasRule(rule, u)
    if score is not None and score not in SCORES:
        raise ArgumentError("score", f"None or one of {', '.join(SCORES)}", repr(score))
    sites = find_sites(model)
    states: list[BalanceState] = []
    gates: list[Gate | None] = []
    for site in sites:
        gate = recognise(site) if site.bias_name is None else None
        kind = gate.score if gate is not None else score or (score_of(site) if scale_softmax else "sigmoid")
        law = scaled_rule(base, site.n_experts) if kind == "softmax" and scale_softmax else base
        device = next((p.device for p in site.router.parameters()), torch.device("cpu"))
        states.append(BalanceState(site.n_experts, site.k, law, recentre=recentre, clip=clip, device=device))
        gates.append(gate)
    # Nothing is changed before everything has been understood, so that a refusal leaves the model as it was.
    attached = Attached(states, sites, group, expert_ranks)
    hooks = attached._hooks
    for site, state, gate in zip(sites, states, gates, strict=True):
        state.train(site.host.training)
        site.host.add_module("balance", state)
        if gate is not None:
            hooks.append(site.host.register_forward_hook(_replace(state, gate, attached)))
        else:
            assert site.bias_name is not None
            _share(site.host, site.bias_name, state)
            relink = _relink(site.host, site.bias_name, state)
            # On the router too: it may be called without its host, and reads the bias when it runs.
            hooks.append(site.host.register_forward_pre_hook(relink))
            # A model that was cast and is saved before its next forward must not save a rounded bias.
            hooks.append(site.host.register_state_dict_pre_hook(lambda m, *_, relink=relink: relink(m, ())))
            if site.router is not site.host:
                hooks.append(site.router.register_forward_pre_hook(relink))
            hooks.append(site.router.register_forward_hook(_observe(state, attached)))
    hooks.append(model.register_forward_pre_hook(_remember_mask(model, attached), with_kwargs=True))
    hooks.append(model.register_forward_hook(_forget_mask(attached), always_call=True))
    return attached


def scaled_rule(rule: BiasRule, n_experts: int) -> BiasRule:
    """Return the rule with its step made for softmax scores of E experts; `ogd` is scaled by its mu already."""
    return rule if rule.name == "ogd" else attrs.evolve(rule, u=softmax_rate(rule.u, n_experts))


def _replace(state: BalanceState, gate: Gate, attached: Attached) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        logits, weights, _ = output
        refuse_non_finite(logits, None)
        with torch.no_grad():
            scores = score_logits(logits, gate.score)
            experts = (scores + like(state.bias, scores)).topk(state.k, dim=-1).indices
        mask = attached.token_mask(experts.shape[:-1].numel()) if state.training else None
        state.count(experts, mask)
        state.show_scores(scores, mask)
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
                experts = local(part.detach()).to(torch.int64).reshape(-1, state.k)
                state.count(experts, attached.token_mask(len(experts)))
                return
            if part.dtype == torch.bool and part.shape[-1] == state.n_experts:
                # A routing map [tokens, E]; tokens that were dropped or are padding have fewer than K entries.
                chosen = local(part.detach()).reshape(-1, state.n_experts)
                state.count_map(chosen, attached.token_mask(len(chosen)))
                return
        raise ArgumentError(
            "model", "a router that returns indices [tokens, K] or a map [tokens, E]", "neither"
        )

    return hook


def _share(host: nn.Module, name: str, state: BalanceState) -> None:
    """Make the host's bias and the state's one float32 tensor, saved under the host's name alone.

    A bias that the model holds as a parameter becomes a buffer: FSDP would shard a parameter and hand out
    copies of it that it frees after each forward.
    """
    own: Tensor = getattr(host, name)
    if name in host._parameters:
        del host._parameters[name]
        host.register_buffer(name, own.detach())
    state.bias.copy_(local(own.detach()).reshape(-1))
    state._non_persistent_buffers_set.add("bias")
    if own.dtype == torch.float32 and own.device == state.bias.device and not hasattr(own, "to_local"):
        # Keep the host's own tensor where it can serve: others may hold on to it.
        state.bias = own.detach().reshape(-1)
    else:
        _set(host, name, state.bias.view(own.shape))


def _set(host: nn.Module, name: str, value: Tensor) -> None:
    if name in host._buffers:
        host._buffers[name] = value
    else:
        setattr(host, name, value)


def _relink(host: nn.Module, name: str, state: BalanceState) -> Callable[..., None]:
    """Keep the two biases one tensor after casts, moves and checkpoints loaded with assign=True."""

    def hook(module: nn.Module, args: Any) -> None:
        own: Tensor = getattr(host, name)
        mine = local(own.detach())
        if mine.data_ptr() == local(state.bias).data_ptr() and own.dtype == torch.float32:
            return
        if own.dtype == torch.float32:
            state.bias = mine.reshape(-1)
        else:
            _set(host, name, state.bias.view(own.shape))  # a cast rounded it: the state kept every bit

    return hook


def _remember_mask(model: nn.Module, attached: Attached) -> Callable[..., None]:
    names = list(inspect.signature(model.forward).parameters)
    place = names.index("attention_mask") if "attention_mask" in names else None

    def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
        mask = kwargs.get("attention_mask")
        if mask is None and place is not None and len(args) > place:
            mask = args[place]
        is_padding = isinstance(mask, Tensor) and mask.dim() == 2
        attached.mask = mask.to(torch.bool) if is_padding else None

    return hook


def _forget_mask(attached: Attached) -> Callable[..., None]:
    """The mask belongs to one call: a part of the model may be called alone afterwards."""

    def hook(module: nn.Module, args: Any, output: Any) -> None:
        attached.mask = None

    return hook
