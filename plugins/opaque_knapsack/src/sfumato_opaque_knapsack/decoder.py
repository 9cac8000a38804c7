"""A small decoder that can copy from birth, its training, and batched generation.

In half of the heads, query and key are one projection of the last seven positions; the key is delayed by one, so a
position attends to whatever followed a context like its own: an induction head before any training. A plain decoder
of this size learns the syntax of stateless code within minutes but not to copy literals, and then fails for a reason
that has nothing to do with interpreters. The other heads are ordinary, with rotary positions.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONTEXT = 7
"""Positions whose projection a copy head compares."""


@attrs.frozen
class DecoderConfig:
    """Shape of a decoder. Half of the heads copy; `copy_heads=False` makes all of them ordinary."""

    vocabulary: int
    width: int = 192
    layers: int = 4
    heads: int = 6
    copy_heads: bool = True
    mlp_ratio: int = 4
    positions: int = 4096

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class _Block(nn.Module):
    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        d, h = config.width, config.head_width
        self.n_copy = config.heads // 2 if config.copy_heads else 0
        self.n_plain = config.heads - self.n_copy
        self.h = h
        self.norm1, self.norm2 = nn.RMSNorm(d), nn.RMSNorm(d)
        self.plain_qk = nn.Linear(d, 2 * self.n_plain * h, bias=False)
        self.value = nn.Linear(d, d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        if self.n_copy:
            self.copy = nn.Linear(d, self.n_copy * h, bias=False)
            # One weight per channel and offset: random signs make the summary of a context depend on its order.
            signs = torch.randn(CONTEXT, self.n_copy * h)
            self.offsets = nn.Parameter(signs)
            self.temperature = nn.Parameter(torch.full((self.n_copy,), 12.0))
        self.up = nn.Linear(d, config.mlp_ratio * d, bias=False)
        self.down = nn.Linear(config.mlp_ratio * d, d, bias=False)

    def qkv(self, x: Tensor, rotary: tuple[Tensor, Tensor], past: Tensor | None, last: Tensor | None) -> Any:
        """Return q, k, v [B, heads, T, h], the projections to keep [B, CONTEXT-1, …], and the last summary."""
        b, t, _ = x.shape
        q, k = self.plain_qk(x).view(b, t, 2, self.n_plain, self.h).unbind(2)
        q, k = _rotate(q.transpose(1, 2), rotary), _rotate(k.transpose(1, 2), rotary)
        q = q / math.sqrt(self.h)
        v = self.value(x).view(b, t, self.n_plain + self.n_copy, self.h).transpose(1, 2)
        if not self.n_copy:
            return q, k, v, None, None
        u = self.copy(x)
        padded = F.pad(u, (0, 0, CONTEXT - 1, 0)) if past is None else torch.cat([past, u], 1)
        summary = sum(
            padded[:, CONTEXT - 1 - j : CONTEXT - 1 - j + t] * self.offsets[j] for j in range(CONTEXT)
        )
        summary = F.normalize(summary.view(b, t, self.n_copy, self.h), dim=-1)
        before = torch.zeros_like(summary[:, :1]) if last is None else last
        delayed = torch.cat([before, summary[:, :-1]], 1)
        copy_q = summary.transpose(1, 2) * self.temperature.view(1, -1, 1, 1)
        q = torch.cat([q, copy_q], 1)
        k = torch.cat([k, delayed.transpose(1, 2)], 1)
        return q, k, v, padded[:, -(CONTEXT - 1) :], summary[:, -1:]

    def rest(self, x: Tensor, attended: Tensor) -> Tensor:
        b, _, t, _ = attended.shape
        x = x + self.out(attended.transpose(1, 2).reshape(b, t, -1))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def _rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rotary
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class CopyDecoder(nn.Module):
    """Decoder-only language model with tied embeddings.

    Source: the idea of copy heads is that of induction heads (Olsson et al. 2022, "In-context learning and induction
    heads"), here built in instead of hoped for.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        nn.init.normal_(self.embedding.weight, std=1 / math.sqrt(config.width))
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width)
        half = config.head_width // 2
        frequency = 10_000 ** (-torch.arange(half) / half)
        angle = torch.arange(config.positions)[:, None] * frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits [B, T, vocabulary] for tokens [B, T]."""
        t = tokens.shape[1]
        x = self.embedding(tokens) * math.sqrt(self.config.width)
        rotary = (self.cos[:t], self.sin[:t])
        for block in self.blocks:
            q, k, v, _, _ = block.qkv(block.norm1(x), rotary, None, None)
            x = block.rest(x, F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0))
        return F.linear(self.norm(x), self.embedding.weight)

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


class Stream:
    """Batched step-by-step decoding: every row takes one token a step, forced or sampled, so no row is padded.

    Arguments:
        model: the decoder.
        rows: number of rows B.
        most: largest number of steps; the cache grows in chunks up to it.
    """

    def __init__(self, model: CopyDecoder, rows: int, most: int) -> None:
        self.model, self.most, self.t = model, min(most, model.config.positions), 0
        n, heads, h = model.config.layers, model.config.heads, model.config.head_width
        self._room = min(256, self.most)
        new = model.embedding.weight.new_zeros
        self._k = [new(rows, heads, self._room, h) for _ in range(n)]
        self._v = [new(rows, heads, self._room, h) for _ in range(n)]
        n_copy = heads // 2 if model.config.copy_heads else 0
        self._past = [new(rows, CONTEXT - 1, n_copy * h) if n_copy else None for _ in range(n)]
        self._last = [new(rows, 1, n_copy, h) if n_copy else None for _ in range(n)]

    @torch.inference_mode()
    def step(self, tokens: Tensor) -> Tensor:
        """Feed one token a row [B]; return logits [B, vocabulary] for what follows."""
        if self.t >= self.most:
            raise ValueError(f"expected at most {self.most} tokens, got one more; the context is full")
        if self.t == self._room:
            self._room = min(self._room + 256, self.most)
            for cache in (self._k, self._v):
                for i, old in enumerate(cache):
                    cache[i] = torch.cat(
                        [old, old.new_empty(*old.shape[:2], self._room - self.t, old.shape[3])], 2
                    )
        model, t = self.model, self.t
        x = model.embedding(tokens)[:, None] * math.sqrt(model.config.width)
        rotary = (model.cos[t : t + 1], model.sin[t : t + 1])
        for i, block in enumerate(model.blocks):
            q, k, v, self._past[i], self._last[i] = block.qkv(
                block.norm1(x), rotary, self._past[i], self._last[i]
            )
            self._k[i][:, :, t : t + 1], self._v[i][:, :, t : t + 1] = k, v
            attended = F.scaled_dot_product_attention(
                q, self._k[i][:, :, : t + 1], self._v[i][:, :, : t + 1], scale=1.0
            )
            x = block.rest(x, attended)
        self.t += 1
        return F.linear(model.norm(x), model.embedding.weight)[:, 0]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but those given, in the order given."""
        for cache in (self._k, self._v, self._past, self._last):
            for i, old in enumerate(cache):
                if old is not None:
                    cache[i] = old[rows]


def sample(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Return one token a row; temperature 0 takes the most likely."""
    if temperature == 0:
        return logits.argmax(-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]


@attrs.frozen
class TrainConfig:
    """How a decoder is trained: AdamW, cosine from `lr` after a short warm-up, loss on assistant tokens."""

    lr: float = 2e-3
    epochs: float = 1.0
    batch_tokens: int = 4096
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    seed: int = 3407
    seconds: float | None = None


Example = tuple[list[int], list[bool]]


def batches(examples: Sequence[Example], tokens: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Yield positions of examples in random batches of similar length, at most `tokens` padded tokens each."""
    order = torch.randperm(len(examples), generator=generator).tolist()
    pools = [sorted(order[i : i + 256], key=lambda k: len(examples[k][0])) for i in range(0, len(order), 256)]
    groups: list[list[int]] = []
    for pool in pools:
        group: list[int] = []
        for k in pool:
            if group and (len(group) + 1) * len(examples[k][0]) > tokens:
                groups.append(group)
                group = []
            group.append(k)
        groups.append(group)
    for i in torch.randperm(len(groups), generator=generator).tolist():
        yield groups[i]


def train(
    model: CopyDecoder,
    examples: Sequence[Example],
    config: TrainConfig,
    *,
    pad: int = 0,
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> dict[str, float]:
    """Train in place, on the device that the model is on (bf16 on CUDA), and return the last figures.

    They are loss on assistant tokens, tokens seen, steps, seconds, and seconds of this process's CPU time.

    With `seconds` set, the schedule still spans all epochs and training stops when the time is up; the result says so
    (`finished` 0). Bits are the same for a seed on the same machine and thread count, unless the time cut training.
    """
    device = model.embedding.weight.device
    generator = torch.Generator().manual_seed(config.seed)
    plan: list[list[int]] = []
    whole = math.ceil(config.epochs)
    for _ in range(whole):
        plan += list(batches(examples, config.batch_tokens, generator))
    plan = plan[: max(1, round(len(plan) * config.epochs / whole))]
    decay = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    optimiser = torch.optim.AdamW(
        [{"params": decay, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.lr,
        betas=(0.9, 0.98),
    )
    n_warm = max(1, round(config.warmup * len(plan)))
    begun, cpu, seen, smooth, done = time.perf_counter(), time.process_time(), 0, 0.0, 0
    model.train()
    row: dict[str, float] = {}
    for step, group in enumerate(plan):
        rate = (
            (step + 1) / n_warm
            if step < n_warm
            else 0.5 * (1 + math.cos(math.pi * (step - n_warm) / (len(plan) - n_warm + 1)))
        )
        for parameters in optimiser.param_groups:
            parameters["lr"] = config.lr * rate
        longest = max(len(examples[k][0]) for k in group)
        tokens = torch.full((len(group), longest), pad)
        learn = torch.zeros((len(group), longest), dtype=torch.bool)
        for i, k in enumerate(group):
            tokens[i, : len(examples[k][0])] = torch.tensor(examples[k][0])
            learn[i, : len(examples[k][1])] = torch.tensor(examples[k][1])
        tokens, target = tokens.to(device), learn[:, 1:].to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(tokens[:, :-1])
        loss = F.cross_entropy(logits[target].float(), tokens[:, 1:][target])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimiser.step()
        seen += sum(len(examples[k][0]) for k in group)
        done = step + 1
        smooth = loss.item() if step == 0 else 0.9 * smooth + 0.1 * loss.item()
        seconds = time.perf_counter() - begun
        row = {"step": done, "steps": len(plan), "loss": smooth, "tokens": seen, "seconds": seconds}
        row["cpu_seconds"] = time.process_time() - cpu
        report(row)
        if config.seconds is not None and seconds > config.seconds:
            break
    model.eval()
    return {**row, "finished": float(done == len(plan))}


def save(folder: Path, model: CopyDecoder) -> None:
    """Write a model's shape and weights."""
    (folder / "decoder.json").write_text(json.dumps(attrs.asdict(model.config)))
    torch.save(model.state_dict(), folder / "decoder.pt")


def load(folder: Path, device: str = "cpu") -> CopyDecoder:
    """Read a model that `save` wrote, onto a device."""
    model = CopyDecoder(DecoderConfig(**json.loads((folder / "decoder.json").read_text())))
    model.load_state_dict(torch.load(folder / "decoder.pt", weights_only=True, map_location="cpu"))
    return model.to(device).eval()
