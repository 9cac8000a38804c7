"""From traces to a trained decoder on disk, and from two decoders to the four cells of the 2 x 2."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from sfumato_opaque_knapsack import decoder, study
from sfumato_opaque_knapsack.config import TaskConfig
from sfumato_opaque_knapsack.decoder import CopyDecoder, DecoderConfig, TrainConfig
from sfumato_opaque_knapsack.experts import REGIMES
from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE, TRAIN_SEED_BASE, generate, level_named
from sfumato_opaque_knapsack.tasks import KnapsackEpisode
from sfumato_opaque_knapsack.tokenizer import TraceTokenizer
from sfumato_opaque_knapsack.traces import TraceSettings, make_pairs, matched_by_tokens

RUNTIMES = {regime: f"runtime-{regime}/python" for regime in REGIMES}
TOKENIZER_PAIRS = 200
RECIPE = 1
"""Raised whenever traces, tokenizer, model or training change, so that kept models are not taken for new ones."""


@attrs.frozen
class Size:
    """A size of the 2 x 2: level, writing (see `TraceSettings`), model, training, and how many episodes a cell has."""

    name: str
    level: str = "micro"
    style: str = "compact"
    words: bool = False
    pairs: int = 1200
    epochs: float = 1.0
    width: int = 192
    layers: int = 4
    heads: int = 6
    vocabulary: int = 800
    lr: float = 2e-3
    batch_tokens: int = 6144
    batch_tokens_persistent: int = (
        2400  # shorter episodes in smaller batches: about as many updates as stateless
    )
    episodes: int = 60
    context: int = 2048
    max_turns: int = 40
    cues: str = "none"
    losses: float = 0.0


SIZES = {
    size.name: size
    for size in (
        Size("smoke", pairs=8, width=32, layers=1, heads=2, episodes=2, context=96, max_turns=3),
        Size("cpu"),
        Size(
            "gpu", level="easy", style="varied", words=True, pairs=5000, width=512, layers=12, heads=8,
            vocabulary=4096, lr=6e-4, batch_tokens=65_536, batch_tokens_persistent=32_768, episodes=100, context=8192,
        ),
    )
}  # fmt: skip


def train_decoder(
    folder: Path,
    size: Size,
    regime: str,
    *,
    seed: int = 3407,
    match: str = "episodes",
    device: str = "cpu",
    seconds: float | None = None,
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> dict[str, Any]:
    """Train a decoder on one regime's traces, write model, tokenizer and `training.json` to a folder, return the last.

    `match="tokens"` gives the stateless regime as many completion tokens as the persistent one has, instead of as
    many episodes. Both regimes share one tokenizer, trained on both.
    """
    settings = TraceSettings(
        level=size.level,
        style=size.style,
        prompt="short",
        words=size.words,
        cues=size.cues,
        losses=size.losses,
    )
    seeds = range(TRAIN_SEED_BASE, TRAIN_SEED_BASE + size.pairs)
    records = list(make_pairs(settings, seeds))
    tokenizer = TraceTokenizer.train(
        (m["content"] for record in records[: 2 * TOKENIZER_PAIRS] for m in record["messages"]),
        size.vocabulary,
    )
    mine = [record for record in records if record["regime"] == regime]
    if match == "tokens":
        other = [record for record in records if record["regime"] == "persistent"]
        mine = matched_by_tokens(mine, sum(r["meta"]["tokens"]["completion"] for r in other))
    examples = [tokenizer.render(record["messages"]) for record in mine]
    torch.manual_seed(seed)
    model = CopyDecoder(
        DecoderConfig(len(tokenizer), size.width, size.layers, size.heads, positions=max(size.context, 4096))
    ).to(device)
    config = TrainConfig(
        lr=size.lr,
        epochs=size.epochs,
        batch_tokens=size.batch_tokens if regime == "stateless" else size.batch_tokens_persistent,
        seed=seed,
        seconds=seconds,
    )
    last = decoder.train(model, examples, config, report=report)
    decoder.save(folder, model)
    tokenizer.save(folder / "tokenizer.json")
    figures = {
        "size": attrs.asdict(size),
        "regime": regime,
        "seed": seed,
        "match": match,
        "episodes": len(examples),
        "parameters": model.n_parameters,
        **last,
    }
    (folder / "training.json").write_text(json.dumps(figures, indent=1))
    return figures


def trained(
    ctx: Any,
    size: Size,
    regime: str,
    *,
    seed: int = 3407,
    match: str = "episodes",
    device: str = "cpu",
    report: Callable[[dict[str, float]], None] = lambda row: None,
) -> Path:
    """Return the folder of a trained decoder, training it when the context's artifact store has none."""
    key = {"size": attrs.asdict(size), "regime": regime, "seed": seed, "match": match, "recipe": RECIPE}

    def build(folder: Path) -> None:
        train_decoder(folder, size, regime, seed=seed, match=match, device=device, report=report)

    folder: Path = ctx.artifacts.get_or_build("opaque-knapsack/decoder", key, build)
    return folder


def load(folder: Path, device: str = "cpu") -> tuple[CopyDecoder, TraceTokenizer]:
    """Read what `train_decoder` wrote."""
    return decoder.load(folder, device), TraceTokenizer.load(folder / "tokenizer.json")


def play_cell(
    folder: Path,
    size: Size,
    runtime: Any,
    ctx: Any,
    *,
    batch: int = 60,
    device: str = "cpu",
    settings: study.PlaySettings | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[study.Played]:
    """Play the evaluation instances of a size with one model in one runtime."""
    model, tokenizer = load(folder, device)
    level = level_named(size.level)
    settings = attrs.evolve(settings or study.PlaySettings(), context=size.context)
    played: list[study.Played] = []
    for first in range(0, size.episodes, batch):
        seeds = range(EVAL_SEED_BASE + first, EVAL_SEED_BASE + min(first + batch, size.episodes))
        instances = [generate(level, seed) for seed in seeds]
        config = TaskConfig(max_turns=size.max_turns)
        episodes = [(instance, KnapsackEpisode(instance, level, config)) for instance in instances]
        played += study.play_batch(
            model, tokenizer, runtime, episodes, ctx, settings, max_turns=size.max_turns
        )
        report(f"{len(played)} of {size.episodes} episodes")
    return played


def expert_reference(size: Size) -> list[float]:
    """Return the scripted expert's scores on a size's evaluation instances."""
    return study.expert_scores(
        [generate(size.level, EVAL_SEED_BASE + k) for k in range(size.episodes)], size.style
    )


def two_by_two(
    ctx: Any,
    size: Size,
    *,
    seed: int = 3407,
    match: str = "episodes",
    device: str = "cpu",
    train_regimes: Sequence[str] = REGIMES,
    settings: study.PlaySettings | None = None,
    runtime_settings: dict[str, Any] | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Train on each regime, play in each runtime, and return cells, tests and training figures.

    `ctx` is a context of the core: it keeps trained models (`artifacts`) and builds the runtimes by name.
    """
    expert = expert_reference(size)
    cells: dict[str, list[study.Played]] = {}
    training = {}
    for regime in train_regimes:

        def trained_so_far(row: dict[str, float], regime: str = regime) -> None:
            report(f"train {regime}: step {row['step']:.0f} of {row['steps']:.0f}, loss {row['loss']:.3f}")

        folder = trained(ctx, size, regime, seed=seed, match=match, device=device, report=trained_so_far)
        training[regime] = json.loads((folder / "training.json").read_text())
        for name, ref in RUNTIMES.items():
            runtime = ctx.component(ref, dict(runtime_settings or {}), kind="runtime")
            cell = f"{regime[0].upper()}->{name[0].upper()}"

            def played_so_far(line: str, cell: str = cell) -> None:
                report(f"{cell}: {line}")

            cells[cell] = play_cell(
                folder, size, runtime, ctx, device=device, settings=settings, report=played_so_far
            )
    return {
        "expert": expert,
        "training": training,
        "cells": {name: study.cell_figures(played, expert) for name, played in cells.items()},
        "tests": study.compare_cells(cells),
        "played": cells,
    }
