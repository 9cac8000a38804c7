"""Pictures of the three crossings, and the table behind each, from the store that their runs filled.

    python -m sfumato_crossings.figures cartpole --store results --out figures
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click
import matplotlib
import numpy as np

from sfumato.export import items
from sfumato.store import Store

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

INK = {"planner": "#0072B2", "ppo": "#D55E00", "random": "#000000", "tuned": "#009E73", "expert": "#E69F00"}
Row = Mapping[str, Any]


def read(store: Path) -> list[Row]:
    """Return a row for each metric of each instance of the runs that ended well, with settings as mappings."""
    kept = Store(store)
    settings: dict[str, Row] = {}
    rows = []
    for row in items(kept, status="ok"):
        if row["run_id"] not in settings:
            spec = kept.spec(row["run_id"])
            assert spec is not None  # it has a record
            settings[row["run_id"]] = {"task_settings": spec.task.settings, "solver_settings": spec.solver.settings}
        rows.append({**row, **settings[row["run_id"]]})
    if not rows:
        raise click.ClickException(f"{store} holds no run that ended ok; run 'sfumato run NAME.toml --store {store}' first.")
    return rows


def provenance(store: Store, run_ids: set[str]) -> list[dict[str, Any]]:
    """Return where each run that the figure shows was made, on what, and with which versions."""
    found = []
    for run_id in sorted(run_ids):
        record = store.record(run_id)
        assert record is not None  # its rows were read
        found.append({"run": run_id, "label": record.label, "started": record.started, **record.provenance})
    return found


def interval(values: Iterable[float]) -> tuple[float, float, float]:
    """Return the mean and a 95 % percentile bootstrap interval of it."""
    v = np.asarray(list(values), float)
    means = v[np.random.default_rng(0).integers(0, len(v), (2000, len(v)))].mean(1)
    return float(v.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975]))


def group(rows: Iterable[Row], metric: str, key: Callable[[Row], Any]) -> dict[Any, list[float]]:
    """Return the values of a metric by key, in the order of the instances."""
    found: dict[Any, list[tuple[int, float]]] = {}
    for row in rows:
        if row["metric"] == metric and (name := key(row)) is not None:
            found.setdefault(name, []).append((row["item"], row["value"]))
    return {name: [v for _, v in sorted(pairs)] for name, pairs in sorted(found.items())}


def cartpole(rows: list[Row], ax: Axes) -> list[dict[str, Any]]:
    """Draw return against the coarseness of the angle sensor, for planner and learners."""

    def key(row: Row) -> tuple[str, float] | None:
        task, solver = row["task_settings"], row["solver"]
        if not task["hidden"]:
            return ("PPO, nothing hidden", 0.0) if solver == "sb3/ppo" else None
        if task["history"] == 1:
            names = {"vopp/planner": "planner", "sb3/ppo": "PPO, last reading", "sb3/random": "random pushes"}
            return (names[solver], task["angle_mark"])
        return (f"PPO, last {task['history']} readings", task["angle_mark"]) if solver == "sb3/ppo" else None

    looks = {"planner": ("planner", "o-"), "PPO, last reading": ("ppo", "s--"), "random pushes": ("random", "x:"),
             "PPO, last 4 readings": ("ppo", "^-")}  # fmt: skip
    table = []
    for (name, mark), values in group(rows, "return", key).items():
        mean, low, high = interval(values)
        table.append({"who": name, "angle_mark_rad": mark, "return": mean, "low": low, "high": high, "n": len(values)})
    for name in dict.fromkeys(entry["who"] for entry in table):
        points = [e for e in table if e["who"] == name]
        if name == "PPO, nothing hidden":
            ax.axhline(points[0]["return"], color=INK["expert"], lw=1.5, label=name)
            continue
        colour, style = looks[name]
        x = [e["angle_mark_rad"] for e in points]
        y = np.array([[e["return"], e["low"], e["high"]] for e in points])
        ax.errorbar(x, y[:, 0], [y[:, 0] - y[:, 1], y[:, 2] - y[:, 0]], fmt=style, color=INK[colour], capsize=3, label=name)
    ax.set(xlabel="angle between two encoder marks (rad)", ylabel="steps the pole stood (500 at most)", ylim=(0, 520))
    ax.legend(frameon=False)
    return table


def knapsack(rows: list[Row], ax: Axes) -> list[dict[str, Any]]:
    """Draw the score of planner and experts on each level."""

    def key(row: Row) -> tuple[str, str]:
        if row["solver"] == "vopp/planner":
            return (row["task"], f"planner, {row['solver_settings']['max_episodes']:,} simulated episodes")
        return (row["task"], f"expert: {row['solver_settings']['policy']}")

    table = []
    for (task, name), values in group(rows, "score", key).items():
        mean, low, high = interval(values)
        table.append({"task": task, "who": name, "score": mean, "low": low, "high": high, "n": len(values)})
    tasks = list(dict.fromkeys(e["task"] for e in table))
    names = list(dict.fromkeys(e["who"] for e in table))
    for k, task in enumerate(tasks):
        for entry in (e for e in table if e["task"] == task):
            y = names.index(entry["who"]) + 0.16 * (2 * k - len(tasks) + 1)
            spread = [[entry["score"] - entry["low"]], [entry["high"] - entry["score"]]]
            ink = INK["planner"] if entry["who"].startswith("planner") else INK["expert"]
            ax.errorbar(entry["score"], y, xerr=spread, fmt="os^D"[k], color=ink, capsize=3)
    for k, task in enumerate(tasks):
        ax.plot([], [], "os^D"[k], color="#555555", label=task)
    ax.set_yticks(range(len(names)), names)
    ax.invert_yaxis()
    ax.set(xlabel="score: value taken over the best possible")
    ax.legend(frameon=False)
    return table


def tuned(rows: list[Row], ax: Axes) -> list[dict[str, Any]]:
    """Draw return against decision time of each fixed setting, and where the tuner ended."""
    tuners = [r for r in rows if r["solver"] == "ofs/tuned"]
    if not tuners:
        raise click.ClickException("the store holds no run of ofs/tuned")
    c = tuners[0]["solver_settings"]
    setting, deadline = c["setting"], c["deadline_seconds"]

    def key(row: Row) -> Any:
        return (1, 0) if row["solver"] == "ofs/tuned" else (0, row["solver_settings"][setting])

    rewards, seconds = group(rows, "return", key), group(rows, "decision_seconds", key)
    lengths = group(rows, "length", key)
    table = []
    for (is_tuner, value), values in rewards.items():
        mean, low, high = interval(values)
        each = np.array(seconds[is_tuner, value]) / np.array(lengths[is_tuner, value])
        table.append({
            "who": "tuned online" if is_tuner else f"{setting} = {value:,}", "return": mean, "low": low, "high": high,
            "seconds_per_decision": float(each.mean()), "over_deadline": float((each > deadline).mean()), "n": len(values),
        })  # fmt: skip
    for entry in table:
        ink = INK["tuned" if entry["who"] == "tuned online" else "planner"]
        spread = [[entry["return"] - entry["low"]], [entry["high"] - entry["return"]]]
        ax.errorbar(entry["seconds_per_decision"], entry["return"], yerr=spread, fmt="o", color=ink, capsize=3)
        ax.annotate(entry["who"].rpartition(" = ")[2], (entry["seconds_per_decision"], entry["return"]), xytext=(6, 4), textcoords="offset points")
    ax.set_title(f"{c['solver']} with each value of {setting}, and tuned", fontsize=10)
    ax.axvline(deadline, color="#555555", ls="--", lw=1)
    ax.annotate("deadline", (deadline, ax.get_ylim()[0]), xytext=(3, 3), textcoords="offset points", color="#555555")
    ax.set(xlabel="seconds a decision", ylabel="return of an episode", xscale="log")
    return table


@click.command()
@click.argument("name", type=click.Choice(("cartpole", "knapsack", "tuned")))
@click.option("--store", type=click.Path(path_type=Path, exists=True, file_okay=False), required=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("figures"), show_default=True)
@click.option("--title", default="", help="Name of the two files; the crossing's own when left out.")
def main(name: str, store: Path, out: Path, title: str) -> None:
    """Write NAME.svg and NAME.json, the numbers in it with their provenance, into a folder."""
    rows = read(store)
    out.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update({"svg.hashsalt": name, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    table = {"cartpole": cartpole, "knapsack": knapsack, "tuned": tuned}[name](rows, ax)
    title = title or name
    figure.savefig(out / f"{title}.svg", metadata={"Date": None})
    text = json.dumps({"rows": table, "provenance": provenance(Store(store), {row["run_id"] for row in rows})}, indent=1)
    (out / f"{title}.json").write_text(text + "\n")
    for entry in table:
        click.echo("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in entry.items()))


if __name__ == "__main__":
    main()
