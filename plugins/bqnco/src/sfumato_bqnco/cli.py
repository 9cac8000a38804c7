"""Commands `sfumato bqnco solve`, `labels` and `train`. Results go to the output stream, progress to the error stream."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .config import PROBLEMS
from .errors import BqncoError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--time-limit", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Wall seconds."
)
@click.option(
    "--method", default="auto", show_default=True, help="auto, policy, or the name of a classical method."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write the solution (.tour, .sol) here."
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the solution as SVG (or PNG) here.")
@click.option(
    "--weights", type=click.Path(path_type=Path), help="A safetensors file instead of the shipped weights."
)
@click.option(
    "--width", type=click.IntRange(min=0), default=0, help="Beam width of the policy (default: chosen by size and time)."
)
@click.option(
    "--warm-start", type=click.Choice(["pyvrp"]), help="Improve the best construction by this solver."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def solve(
    file: Path, time_limit: float, method: str, output: Path | None, plot: Path | None, weights: Path | None, width: int,
    warm_start: str | None, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Solve FILE (TSPLIB, CVRPLIB, OPLib, Solomon, JSON, npz) within a time limit."""
    from .solving import solve as run
    from .writers import write_solution

    def heard(seconds: float, value: float) -> None:
        click.echo(f"{seconds:8.2f} s  {value:.10g}", err=True)

    try:
        answer = run(
            file, time_limit, method=method, seed=seed, weights=weights, width=width, warm_start=warm_start,
            on_incumbent=None if as_json else heard,
        )  # fmt: skip
    except BqncoError as error:
        raise click.UsageError(str(error)) from error
    if output:
        write_solution(output, answer.instance, answer.solution, answer.objective)
    if plot:
        from .plots import draw_solution

        draw_solution(
            answer.instance, answer.solution, plot, title=f"{answer.instance.name}: {answer.objective:.10g}"
        )
    if as_json:
        log = [[round(e.seconds, 3), e.part, e.objective, e.remark] for e in answer.log]
        click.echo(json.dumps({
            "instance": answer.instance.name, "problem": answer.instance.problem, "objective": answer.objective,
            "solution": answer.solution, "found_by": answer.found_by, "seconds": answer.seconds, "log": log,
        }))  # fmt: skip
        return
    for entry in answer.log:
        value = "" if entry.objective is None else f"{entry.objective:.10g}"
        click.echo(f"{entry.seconds:8.2f} s  {entry.part:<34} {value:>12}  {entry.remark}")
    word = {"op": "prize", "kp": "value"}.get(answer.instance.problem, "length")
    click.echo(
        f"{answer.instance.name}: {word} {answer.objective:.10g}, feasible, found by {answer.found_by}"
    )
    if output:
        click.echo(f"solution: {output}")
    if plot:
        click.echo(f"picture: {plot}")


@click.command()
@click.argument("problem", type=click.Choice(PROBLEMS))
@click.option(
    "--n", type=click.IntRange(min=5), default=100, show_default=True, help="Nodes, customers or items."
)
@click.option("--count", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--effort", type=click.IntRange(min=1), help="Search steps for each label.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
@click.argument("folder", type=click.Path(path_type=Path))
def labels(problem: str, n: int, count: int, seed: int, effort: int | None, jobs: int, folder: Path) -> None:
    """Write labelled random instances of PROBLEM into FOLDER; run it again to go on where it stopped."""
    from .labels import generate_labels

    def report(done: int, total: int) -> None:
        click.echo(f"shard {done} of {total}", err=True)

    paths = generate_labels(problem, n, count, folder, seed=seed, effort=effort, n_jobs=jobs, report=report)
    click.echo(f"{count} labels in {len(paths)} shards: {folder}")


@click.command()
@click.argument("problem", type=click.Choice(PROBLEMS))
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Safetensors file to write."
)
@click.option("--steps", type=click.IntRange(min=1), default=5000, show_default=True)
@click.option("--network", type=click.Choice(["cpu", "paper", "perceiver"]), default="cpu", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@click.option(
    "--devices", type=click.IntRange(min=1), default=1, show_default=True,
    help="Number of devices of that kind (extra fabric); of the CPU, processes.",
)
@click.option("--compile", "compiled", is_flag=True, help="torch.compile by length bucket (for a GPU).")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
def train(
    problem: str, folder: Path, output: Path, steps: int, network: str, device: str, devices: int, compiled: bool,
    seed: int,
) -> None:  # fmt: skip
    """Train weights for PROBLEM on the labels in FOLDER; run it again after an interruption to resume exactly."""
    from .config import NetworkConfig, TrainConfig, cpu_network
    from .labels import load_labels
    from .network import BQNetwork
    from .train import Trainer
    from .weights import save

    paths = sorted(folder.glob(f"{problem}*.npz"))
    if not paths:
        raise click.UsageError(
            f"{folder}: expected shards {problem}*.npz, found none; run 'sfumato bqnco labels' first"
        )
    kinds: dict[str, Any] = {
        "cpu": lambda: cpu_network(problem),
        "paper": lambda: NetworkConfig(problem=problem),
        "perceiver": lambda: NetworkConfig(problem=problem, kind="perceiver"),
    }
    shape = kinds[network]()
    try:
        config = TrainConfig(n_steps=steps, seed=seed, compile=compiled)
        checkpoint = output.with_suffix(".checkpoint")
        if devices > 1:
            from .distributed import train_on

            state, step, loss = train_on(
                devices, shape, config, paths, accelerator=device.partition(":")[0], checkpoint=checkpoint, report=_progress
            )
            made = BQNetwork(shape)
            made.load_state_dict(state)
        else:
            trainer = Trainer(shape, config, load_labels(paths), device)
            trainer.run(checkpoint, report=_progress)
            made, step, loss = trainer.averaged_network(), trainer.step, trainer.loss
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    count = sum(len(next(iter(load_labels([p]).values()))) for p in paths)
    save(output, made, {
        "labels": {"instances": count, "shards": [p.name for p in paths], "solver": "this package, see labels.py"},
        "training": {"steps": step, "seed": seed, "device": device, "devices": devices},
        "licence": "Apache-2.0",
    })  # fmt: skip
    click.echo(f"{output}: {step} steps, last loss {loss:.4f}")


def _progress(step: int, loss: float, cpu: float) -> None:
    click.echo(f"step {step}, loss {loss:.4f}, {cpu:.0f} CPU seconds", err=True)
