"""A small character model with mixture-of-experts layers, to train routers for real. Needs torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .balancer import Balancer
from .config import CharLmConfig, RouterChoice
from .errors import ArgumentError
from .losses import sequence_balance_loss, switch_loss, z_loss
from .router import BiasRouter, Routed
from .rules import BiasRule
from .text import CharText


class Experts(nn.Module):
    """E two-layer networks of one width, of which each token passes through K."""

    def __init__(self, n_experts: int, dim: int, width: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.empty(n_experts, dim, width))
        self.down = nn.Parameter(torch.empty(n_experts, width, dim))

    def forward(self, x: Tensor, routed: Routed) -> Tensor:
        """Return the weighted sum of the chosen experts' outputs for tokens x [n, dim]."""
        k = routed.experts.shape[1]
        expert, order = routed.experts.reshape(-1).sort(stable=True)
        sizes = torch.bincount(expert, minlength=self.up.shape[0]).tolist()
        token = order // k
        parts = x.index_select(0, token).split(sizes)
        hidden = [F.gelu(part @ w) for part, w in zip(parts, self.up.to(x.dtype).unbind(), strict=True)]
        out = torch.cat([h @ w for h, w in zip(hidden, self.down.to(x.dtype).unbind(), strict=True)])
        gate = routed.weights.reshape(-1).index_select(0, order).to(out.dtype)
        return torch.zeros_like(x).index_add(0, token, out * gate.unsqueeze(-1))


class Block(nn.Module):
    """Causal attention, then a mixture of experts, each with its norm and residual."""

    def __init__(self, config: CharLmConfig, choice: RouterChoice) -> None:
        super().__init__()
        dim = config.dim
        self.heads = config.heads
        self.attention_norm, self.expert_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.router = BiasRouter(
            dim, config.experts, config.k, choice.score,
            rule=BiasRule("sign", 0.0) if choice.rule == "none" else BiasRule(choice.rule, choice.u, choice.mu or None),
            groups=choice.groups or None, top_groups=choice.top_groups or None,
        )  # fmt: skip
        self.experts = Experts(config.experts, dim, config.expert_width)
        width = config.shared * config.expert_width
        self.shared = (
            nn.Sequential(nn.Linear(dim, width), nn.GELU(), nn.Linear(width, dim)) if width else None
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Routed]:
        """Return the block's output [B, T, dim] and its routing with shapes [B, T, ...]."""
        n_batch, n_time, dim = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(n_batch, n_time, 3, self.heads, -1).unbind(2)
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(n_batch, n_time, dim))
        y = self.expert_norm(x)
        routed = self.router(y)
        flat = Routed(*(part.flatten(0, 1) for part in routed))
        mixture = self.experts(y.flatten(0, 1), flat).view_as(y)
        if self.shared is not None:
            mixture = mixture + self.shared(y)
        return x + mixture, routed


class CharLm(nn.Module):
    """A decoder over characters whose feed-forward layers are mixtures of experts."""

    def __init__(
        self, n_characters: int, config: CharLmConfig, choice: RouterChoice, generator: torch.Generator
    ) -> None:
        super().__init__()
        if config.dim % config.heads:
            raise ArgumentError("heads", f"a divisor of dim = {config.dim}", repr(config.heads))
        self.embed = nn.Embedding(n_characters, config.dim)
        self.place = nn.Embedding(config.context, config.dim)
        self.blocks = nn.ModuleList(Block(config, choice) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.dim)
        self._initialise(generator, (2 * config.n_layers) ** -0.5)

    @torch.no_grad()
    def _initialise(self, generator: torch.Generator, residual: float) -> None:
        """Draw all weights from `generator`; layers that write to the residual stream are scaled down."""
        for weight in (self.embed.weight, self.place.weight):
            weight.normal_(0.0, 0.02, generator=generator)
        writers: list[Any] = []
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.weight.normal_(0.0, module.in_features**-0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, Experts):
                module.up.normal_(0.0, module.up.shape[1] ** -0.5, generator=generator)
                module.down.normal_(0.0, module.down.shape[1] ** -0.5 * residual, generator=generator)
            elif isinstance(module, BiasRouter):
                module.reset_parameters(generator)
            elif isinstance(module, Block):
                writers.append(module.out)
                if module.shared is not None:
                    writers.append(module.shared[2])
        for writer in writers:
            writer.weight.mul_(residual)

    def forward(self, tokens: Tensor) -> tuple[Tensor, list[Routed]]:
        """Return logits [B, T, n_characters] and each layer's routing."""
        x = self.embed(tokens) + self.place.weight[: tokens.shape[1]]
        routings = []
        for block in self.blocks:
            x, routed = block(x)
            routings.append(routed)
        return self.norm(x) @ self.embed.weight.t(), routings


@attrs.frozen(eq=False)
class TrainingReport:
    """What training gave.

    valid_loss: nats per character over the validation text. max_vio_global, min_vio_global: of the counts
    summed over that text, mean over layers. max_vio_batch: mean over the last 50 training steps and
    layers. max_abs_bias. losses: float [steps], training. vio: float [steps, n_layers], MaxVio_batch.
    loads: int [steps // 10, n_layers, E], every tenth step's counts, for pictures. cpu_seconds.
    """

    valid_loss: float
    max_vio_global: float
    min_vio_global: float
    max_vio_batch: float
    max_abs_bias: float
    losses: np.ndarray
    vio: np.ndarray
    loads: np.ndarray
    n_weights: int
    cpu_seconds: float
    model: CharLm


def train(
    text: CharText,
    config: CharLmConfig,
    choice: RouterChoice,
    rng: np.random.Generator,
    *,
    device: str = "cpu",
    on_step: Callable[[int, float], None] | None = None,
) -> TrainingReport:
    """Train one model under one router choice; every draw comes from `rng`.

    Two choices given generators in the same state start from the same weights and see the same batches.
    Optimiser: AdamW, betas (0.9, 0.95), weight decay 0.01, gradient norm clipped at 1, warm-up of 50 steps.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    model = CharLm(len(text.characters), config, choice, generator).to(device)
    n_weights = sum(weight.numel() for weight in model.parameters())
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, betas=(0.9, 0.95), weight_decay=0.01
    )
    balancer = Balancer(model)
    balancer.install(optimizer)
    data = torch.from_numpy(text.train)
    if len(data) <= config.context or len(text.valid) <= config.context:
        raise ArgumentError(
            "context", f"fewer characters than the text has ({len(text.valid)})", repr(config.context)
        )
    losses, vio, loads = np.empty(config.steps), np.empty((config.steps, config.n_layers)), []
    begin = time.process_time()
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (step + 1) / 50)
        starts = torch.from_numpy(rng.integers(0, len(data) - config.context - 1, config.batch))
        window = data[starts[:, None] + torch.arange(config.context + 1)].to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.bf16):
            logits, routings = model(window[:, :-1])
        loss = F.cross_entropy(logits.float().flatten(0, 1), window[:, 1:].flatten())
        total = loss + _auxiliary(routings, choice)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        counts = torch.stack(balancer.last_counts).cpu().numpy()
        losses[step] = float(loss.detach())
        vio[step] = counts.max(axis=1) / counts.mean(axis=1) - 1.0
        if step % 10 == 0:
            loads.append(counts)
        if on_step is not None:
            on_step(step, losses[step])
    seconds = time.process_time() - begin
    valid_loss, global_counts = validate(model, text, config, device)
    mean = global_counts.mean(axis=1)
    return TrainingReport(
        valid_loss=valid_loss,
        max_vio_global=float((global_counts.max(axis=1) / mean - 1.0).mean()),
        min_vio_global=float((1.0 - global_counts.min(axis=1) / mean).mean()),
        max_vio_batch=float(vio[-50:].mean()),
        max_abs_bias=max(float(state.bias.abs().max()) for state in balancer.states),
        losses=losses,
        vio=vio,
        loads=np.array(loads),
        n_weights=n_weights,
        cpu_seconds=seconds,
        model=model,
    )


def _auxiliary(routings: list[Routed], choice: RouterChoice) -> Tensor | float:
    terms: list[Any] = []
    for routed in routings:
        if choice.switch:
            terms.append(choice.switch * switch_loss(routed.scores, routed.experts))
        if choice.sequence:
            terms.append(choice.sequence * sequence_balance_loss(routed.scores, routed.experts))
        if choice.z:
            terms.append(choice.z * z_loss(routed.logits))
    return sum(terms) if terms else 0.0


@torch.no_grad()
def validate(model: CharLm, text: CharText, config: CharLmConfig, device: str) -> tuple[float, np.ndarray]:
    """Return nats per character and the loads [n_layers, E] over the validation text."""
    model.eval()
    n_characters = min(len(text.valid), config.valid_characters or len(text.valid))
    n_windows = max(1, (n_characters - 1) // config.context)
    data = torch.from_numpy(text.valid[: n_windows * config.context + 1]).to(device)
    inputs, targets = (part.view(n_windows, config.context) for part in (data[:-1], data[1:]))
    counts = np.zeros((config.n_layers, config.experts), dtype=np.int64)
    loss = 0.0
    for x, y in zip(inputs.split(4 * config.batch), targets.split(4 * config.batch), strict=True):
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=config.bf16):
            logits, routings = model(x)
        loss += float(F.cross_entropy(logits.float().flatten(0, 1), y.flatten(), reduction="sum"))
        for layer, routed in enumerate(routings):
            counts[layer] += torch.bincount(routed.experts.flatten(), minlength=config.experts).cpu().numpy()
    model.train()
    return loss / (n_windows * config.context), counts
