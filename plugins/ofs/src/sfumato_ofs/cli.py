"""Commands of this plugin, mounted as `sfumato ofs …`."""

from __future__ import annotations

import os
from pathlib import Path

import click


def default_data_dir() -> Path:
    """Return where fetched files go: SFUMATO_DATA, else XDG_DATA_HOME/sfumato or ~/.local/share/sfumato."""
    named = os.environ.get("SFUMATO_DATA")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "sfumato"


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder to put them in [default: SFUMATO_DATA or the user's data folder].",
)
@click.option("--only", type=click.Choice(["german", "compas"]), default=None, help="Fetch one file only.")
def fetch(data_dir: Path | None, only: str | None) -> None:
    """Download German Credit (UCI, CC BY 4.0) and COMPAS (ProPublica), each checked against its SHA-256."""
    from sfumato_ofs.fetch import SOURCES, fetch_file

    root = data_dir or default_data_dir()
    for name in [only] if only else list(SOURCES):
        url, sha256, relative = SOURCES[name]
        click.echo(f"{name}: {url}", err=True)
        try:
            path = fetch_file(url, sha256, root / relative)
        except (ImportError, OSError, ValueError) as error:
            raise click.ClickException(
                f"{name} was not fetched from {url}: {error}. If this machine has no way there, download it elsewhere and "
                f"put it at {root / relative}"
            ) from error
        click.echo(f"{name}: {path}  SHA-256 verified")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--score", default="score", show_default=True, help="Column of the score in [0, 1].")
@click.option(
    "--group",
    multiple=True,
    default=("group",),
    show_default=True,
    help="Column of the group. Give it again for another column: each combination of values then is a group.",
)
@click.option(
    "--overlapping",
    is_flag=True,
    help="With several --group: compare the values of each column, not their combinations.",
)
@click.option(
    "--min-count",
    default=1,
    show_default=True,
    help="Groups of fewer people are left out of the comparison, and named.",
)
@click.option(
    "--label", default="label", show_default=True, help="Column of the outcome, 1 is good; '' for none."
)
@click.option(
    "--eps", default=0.10, show_default=True, help="Largest allowed difference of acceptance rates."
)
@click.option(
    "--gap", type=click.Choice(["signed", "ratio", "to-overall"]), default="signed", show_default=True
)
@click.option("--rho-min", default=0.30, show_default=True, help="Smallest allowed overall acceptance rate.")
@click.option("--rho-max", default=None, type=float, help="Largest allowed overall acceptance rate.")
@click.option("--loss", default=1.0, show_default=True, help="Cost of an accepted bad outcome.")
@click.option("--thresholds", "n_thresholds", default=41, show_default=True, help="Points of the grid.")
@click.option("--json", "as_json", is_flag=True, help="One threshold a line as JSON.")
def sweep(
    file: Path,
    score: str,
    group: tuple[str, ...],
    overlapping: bool,
    min_count: int,
    label: str,
    eps: float,
    gap: str,
    rho_min: float,
    rho_max: float | None,
    loss: float,
    n_thresholds: int,
    as_json: bool,
) -> None:
    """Tell whether any threshold is feasible on a logged score file (CSV or Parquet), before anybody goes live.

    Exit status 0 when some threshold holds, 1 when none does.
    """
    import json

    from sfumato_ofs.constraints import Constraints
    from sfumato_ofs.logged import read_scores, sweep_scores
    from sfumato_ofs.loops import threshold_grid

    try:
        people = read_scores(
            file,
            score=score,
            group=group,
            label=label or None,
            overlapping=overlapping,
            min_count=min_count,
        )
        constraints = Constraints(
            eps=eps, rho_min=rho_min, rho_max=rho_max, gap=gap, n_groups=len(people.names)
        )
        table = sweep_scores(people, constraints, threshold_grid(n_thresholds), loss=loss)
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    words = {
        (True, True): "certified",
        (True, False): "holds",
        (False, True): "-",
        (False, False): "ruled out",
    }
    for j, tau in enumerate(table.grid.tolist()):
        verdict = words[
            bool(table.holds[j]), bool(table.certified[j] if table.holds[j] else table.possible[j])
        ]
        rates = table.rates[j].tolist()
        worst = float(table.residuals[j].max())
        reward = float(table.reward[j])
        if as_json:
            facts = {
                "tau": tau,
                "rates": dict(zip(people.names, rates, strict=True)),
                "overall": float(table.overall[j]),
                "worst_residual": worst,
                "lower": float(table.lower[j].max()),
                "upper": float(table.upper[j].max()),
                "reward": None if reward != reward else reward,
                "labelled": int(table.labelled[j]),
                "verdict": verdict,
            }
            click.echo(json.dumps(facts))
            continue
        if j == 0:
            heads = "".join(f"{name[:12]:>13s}" for name in people.names)
            click.echo(f"threshold{heads}   accepted  residual  +-bound    reward  verdict")
        bound = float((table.upper[j] - table.residuals[j]).max())
        shown = f"{reward:9.4f}" if reward == reward else "  unknown"
        columns = "".join(f"{rate:13.4f}" for rate in rates)
        click.echo(f"{tau:9.4f}{columns}{table.overall[j]:11.4f}{worst:10.4f}{bound:9.4f} {shown}  {verdict}")
    if not as_json:
        best = table.best
        n = ", ".join(
            f"{name}: {count}" for name, count in zip(people.names, table.counts.tolist(), strict=True)
        )
        click.echo(f"{len(people.scores)} people ({n}).", err=True)
        if people.left_out:
            small = ", ".join(f"{name}: {count}" for name, count in people.left_out)
            click.echo(f"Too few to be compared, and not protected by any bound: {small}.", err=True)
        if best is not None:
            click.echo(
                f"Best of those that hold: {table.grid[best]:g}, reward {table.reward[best]:.4f} a person.",
                err=True,
            )
        elif table.holds.any():
            click.echo(
                "Some thresholds hold; outcomes of those they accept are not known, so none can be called best.",
                err=True,
            )
        elif table.possible.any():
            click.echo(
                "No threshold holds on these people; wider bounds do not rule all out. Gather more.", err=True
            )
        else:
            click.echo(
                "No threshold can satisfy the constraints. Relax them, or use thresholds by group.", err=True
            )
    if not table.holds.any():
        raise SystemExit(1)


@click.command()
@click.argument("log", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--head",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A head exported earlier: fail when the log no longer holds it (lines cut off, another history).",
)
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of the secret key that the head was signed with; its bytes are taken as they are.",
)
def replay(log: Path, head: Path | None, key_file: Path | None) -> None:
    """Verify an audit log's chain, rebuild the learner from it, and check that every decision comes out again."""
    from sfumato_ofs.audit import Head
    from sfumato_ofs.log_replay import replay as replayed

    if key_file is not None and head is None:
        raise click.UsageError("--key-file goes with --head: it checks that head's signature.")
    try:
        known = None if head is None else Head.load(head, None if key_file is None else key_file.read_bytes())
        proof = replayed(log, known)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(
        f"{proof.decisions} decisions come out again; {proof.head.lines} lines, head {proof.head.hash}"
    )
    if known is not None:
        click.echo(f"the head of line {known.lines} is in it")
    click.echo(f"recommended threshold: {proof.bandit.recommend():g}")


@click.command()
@click.argument("log", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write [default: print]."
)
def report(log: Path, output: Path | None) -> None:
    """Write a model-risk report (Markdown) from an audit log."""
    from sfumato_ofs.risk_report import risk_report

    try:
        text = risk_report(log)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    if output is None:
        click.echo(text)
    else:
        output.write_text(text, encoding="utf-8")
        click.echo(f"Report: {output}")


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("ofs-plots"),
    show_default=True,
)
@click.option("--seeds", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5000, show_default=True)
@click.option(
    "--loop", type=click.Choice(["synthetic", "german", "compas"]), default="synthetic", show_default=True
)
@click.option("--data-dir", type=click.Path(file_okay=False, path_type=Path), default=None)
def plots(output: Path, seeds: int, rounds: int, loop: str, data_dir: Path | None) -> None:
    """Draw regret, violation, feasibility map, group rates and shares of the search and its two baselines."""
    from sfumato_ofs.plots import save_all
    from sfumato_ofs.studies import picture_runs

    try:
        runs, oracle, bounds = picture_runs(loop, seeds, rounds, data_dir or default_data_dir())
        paths = save_all(output, runs, oracle, bounds)
    except (ValueError, ImportError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for path in paths:
        click.echo(path)
