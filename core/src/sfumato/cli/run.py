"""`sfumato run`: an experiment file, or one task with one or more solvers."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from sfumato import config
from sfumato.cli.tables import figures_table, progress_listener
from sfumato.cli.text import json_line
from sfumato.errors import BackendUnavailable, ConfigError, did_you_mean
from sfumato.executors import executor
from sfumato.experiment import Experiment, Settings, Use
from sfumato.plugins import Registry
from sfumato.records import RunRecord, Status
from sfumato.runner import Planned, merged, plan, sweep
from sfumato.store import DEFAULT, Store

MERGE_ABOVE = 40
"""More runs than that are shown with the shards of one specification together."""
SHOWN = 4
"""So many figures of each run are shown where there are several runs."""


@click.command("run")
@click.argument("target", metavar="EXPERIMENT.toml|TASK")
@click.option("--solver", "solvers", multiple=True, metavar="NAME", help="May be given several times.")
@click.option("--runtime", "runtimes", multiple=True, metavar="NAME", help="Default: direct.")
@click.option("-s", "solver_settings", multiple=True, metavar="KEY=VALUE", help="A setting of the solver.")
@click.option("-t", "task_settings", multiple=True, metavar="KEY=VALUE", help="A setting of the task.")
@click.option("-r", "runtime_settings", multiple=True, metavar="KEY=VALUE", help="A setting of the runtime.")
@click.option("--seeds", type=click.IntRange(1), help="Number of instances (or of seeds, for a task that has them).")
@click.option("--instances", metavar="START:STOP", help="A range of instances instead of --seeds.")
@click.option("--shards", type=click.IntRange(1), help="Split the instances into so many runs.")
@click.option("--batch", type=click.IntRange(1), help="Most items in one batched episode.")
@click.option("--seed", type=click.IntRange(0), help="Seed of instances, worlds and policies.")
@click.option("--train-seed", type=click.IntRange(0), help="Seed of training.")
@click.option("-j", "--jobs", "n_jobs", type=click.IntRange(1), default=1, help="Runs at a time.", show_default=True)
@click.option("--concurrency", type=click.IntRange(1), help="Episodes at a time within a run.")
@click.option("--backend", help="Array library for the solver.")
@click.option("--device", help="cpu, cuda, cuda:1 …")
@click.option("--dtype", help="float32, float64, bfloat16 …")
@click.option("--threads", type=click.IntRange(1), help="Threads for each run.")
@click.option("--time-limit", type=float, help="Seconds for each run; then it is stopped from outside.")
@click.option("--memory-limit", type=float, metavar="MB", help="Resident memory of each run's process tree.")
@click.option("--step-limit", type=click.IntRange(1), help="Steps after which an episode is cut off.")
@click.option("--level", type=click.Choice(("actions", "full")), help="What the trace keeps.")
@click.option("--evaluator", "evaluators", multiple=True, metavar="NAME", help="Evaluators beside the task's own.")
@click.option("--data-dir", type=click.Path(file_okay=False), envvar="SFUMATO_DATA", help="Where data files lie.")
@click.option("--store", "store_dir", default=DEFAULT, type=click.Path(), envvar="SFUMATO_STORE")
@click.option("--executor", "executor_name", default="local", show_default=True)
@click.option("--address", help="A cluster to join (ray: HOST:PORT or auto; submitit: slurm or local).")
@click.option("-x", "executor_options", multiple=True, metavar="KEY=VALUE", help="An option of the executor: slurm_partition=gpu.")
@click.option("--isolation", type=click.Choice(("run", "group", "none")), help="Default: group for runs declared short, else run.")
@click.option("--retry", metavar="STATUS,…", default="", help="Try runs again that ended so: failed,timeout,killed.")
@click.option("--reuse-stale", is_flag=True, help="Keep runs made by older code of their plugin.")
@click.option("--json", "as_json", is_flag=True, help="One run record a line.")
@click.option("--all-figures", "every_figure", is_flag=True, help="Show every figure of every run, not the first of each.")
@click.option("--quiet", is_flag=True, help="No progress; what a run waits for is said all the same.")
def command(
    target: str,
    solvers: Sequence[str],
    runtimes: Sequence[str],
    solver_settings: Sequence[str],
    task_settings: Sequence[str],
    runtime_settings: Sequence[str],
    n_jobs: int,
    data_dir: str | None,
    store_dir: str,
    executor_name: str,
    address: str | None,
    executor_options: Sequence[str],
    isolation: str | None,
    retry: str,
    reuse_stale: bool,
    every_figure: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Run an experiment file, or one task with one or more solvers. Running it again does only what is missing."""
    registry = Registry()
    overrides = _overrides(options)
    if target.endswith(".toml"):
        if solvers or runtimes or solver_settings or task_settings or runtime_settings:
            raise ConfigError(f"{target} names its own solvers and settings; give --solver, -s, -t, -r with a task name only.")
        experiment = Experiment.from_toml(Path(target), overrides)
    else:
        registry.find("task", target)  # an unknown task is a better answer than a missing solver
        if not solvers:
            raise ConfigError(f"which solver for {target!r}? Give --solver NAME; 'sfumato list solver' shows all.")
        shared = config.parse_assignments(solver_settings, "-s")
        experiment = Experiment(
            (Use(target, config.parse_assignments(task_settings, "-t")),),
            tuple(Use(name, shared) for name in solvers),
            tuple(Use(r, config.parse_assignments(runtime_settings, "-r")) for r in runtimes or ("direct",)),
            config.structure(overrides, Settings, where="command line"),
        )
    wanted = _statuses(retry)
    jobs = experiment.jobs(registry, data_dir)
    store = Store(store_dir)
    store.prepare()
    planned = plan(store, jobs, wanted, reuse_stale)
    runner = executor(executor_name, n_jobs=n_jobs, isolation=isolation, address=address,
                      options=config.parse_assignments(executor_options, "-x"))
    stop = threading.Event()
    with progress_listener(planned, registry, quiet=quiet) as listener, _interruptible(stop):
        records = sweep(store, planned, runner, listener, stop)
    _report(records, planned, store, as_json, every_figure)
    click.get_current_context().exit(130 if stop.is_set() else _exit_code(records, planned))


def _overrides(options: dict[str, Any]) -> dict[str, Any]:
    limits = {
        key: value
        for key, option in (("seconds", "time_limit"), ("memory_mb", "memory_limit"), ("steps", "step_limit"))
        if (value := options.pop(option)) is not None
    }
    given = {k: v for k, v in options.items() if v is not None and v != ()}
    if "evaluators" in given:
        given["evaluators"] = list(given["evaluators"])
    return {**given, "limits": limits} if limits else given


def _statuses(retry: str) -> frozenset[str]:
    wanted = frozenset(s.strip() for s in retry.split(",") if s.strip())
    allowed = {s.value for s in Status if s is not Status.OK}
    if unknown := wanted - allowed:
        hints = "".join(did_you_mean(name, allowed) for name in sorted(unknown))
        raise ConfigError(f"--retry wants statuses of {', '.join(sorted(allowed))}; got {', '.join(sorted(unknown))}.{hints}")
    return wanted


@contextlib.contextmanager
def _interruptible(stop: threading.Event) -> Iterator[None]:
    """Turn the first Ctrl-C (or TERM) into a request to stop cleanly; a second one raises KeyboardInterrupt."""

    def ask(number: int, frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        click.echo("stopping: runs under way are ended and marked interrupted", err=True)

    before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(
    records: Sequence[RunRecord], planned: Sequence[Planned], store: Store, as_json: bool, every_figure: bool
) -> None:
    if as_json:
        for record in records:
            json_line(config.unstructure(record))
        return
    shown = records if len(records) <= MERGE_ABOVE else merged(store, records)
    figures_table(shown, most=None if every_figure or len(shown) == 1 else SHOWN)
    kept = sum(p.verdict == "kept" for p in planned)
    failed_before = [p for p in planned if p.verdict == "failed before"]
    for because, n in Counter(p.because for p in planned if p.verdict == "stale").most_common():
        click.echo(f"{n} of {len(planned)} runs were stale and made anew: {because}.", err=True)
    if kept:
        click.echo(f"{kept} of {len(planned)} runs were there already.", err=True)
    for record in records:
        if record.status is not Status.OK:
            click.echo(f"{record.run_id} {record.label}: {record.status.value}: {record.error}\n  {record.advice}", err=True)
    if failed_before:
        names = sorted({p.status for p in failed_before if p.status})
        click.echo(f"{len(failed_before)} ended badly before and were left; try again with --retry {','.join(names)}.", err=True)
    click.echo(f"Results: {store.runs} (sfumato show RUN --store {store.root})", err=True)


def _exit_code(records: Sequence[RunRecord], planned: Sequence[Planned]) -> int:
    bad = [r for r in records if r.status is not Status.OK]
    if not bad and len(records) == len(planned):
        return 0
    lacking = [r for r in bad if r.error.startswith(BackendUnavailable.__name__)]
    return 3 if bad and len(lacking) == len(bad) else 1


