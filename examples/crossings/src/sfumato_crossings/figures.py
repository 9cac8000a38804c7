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
from sfumato.trace import read_trace

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

INK = {"planner": "#0072B2", "ppo": "#D55E00", "random": "#000000", "tuned": "#009E73", "expert": "#E69F00"}
Row = Mapping[str, Any]


def read(store: Path) -> list[Row]:
    """Return a row for each metric of each instance of the runs that ended well, with settings as mappings."""
    kept = Store(store)
    settings: dict[str, Row] = {}
    rows: list[Row] = []
    for row in items(kept, status="ok"):
        if row["run_id"] not in settings:
            spec = kept.spec(row["run_id"])
            assert spec is not None  # it has a record
            settings[row["run_id"]] = {
                "task_settings": spec.task.settings, "solver_settings": spec.solver.settings, "train_seed": spec.train_seed,
            }  # fmt: skip
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
    low, high = np.quantile(means, [0.025, 0.975])
    return float(v.mean()), float(low), float(high)


def group(rows: Iterable[Row], metric: str, key: Callable[[Row], Any]) -> dict[Any, dict[int, float]]:
    """Return the values of a metric by key and instance, in the order of the instances."""
    found: dict[Any, dict[int, float]] = {}
    for row in rows:
        if row["metric"] == metric and (name := key(row)) is not None:
            found.setdefault(name, {})[row["item"]] = row["value"]
    return {name: dict(sorted(values.items())) for name, values in sorted(found.items())}


def shortfall(best: Mapping[int, float], values: Mapping[int, float]) -> tuple[float, float, float, int]:
    """Return by how much the best is above the values on the instances that both played: mean, 95 % interval, their number."""
    both = sorted(set(best) & set(values))
    return *interval(best[k] - values[k] for k in both), len(both)


def cartpole(rows: list[Row], figure: Figure) -> list[dict[str, Any]]:
    """Draw return against the coarseness of the angle sensor, for planner and learners."""

    def key(row: Row) -> tuple[str, float, int] | None:
        task, solver, seed = row["task_settings"], row["solver"], row["train_seed"]
        if not task["hidden"]:
            return ("PPO, nothing hidden", 0.0, seed) if solver == "sb3/ppo" else None
        if task["history"] == 1:
            names = {"vopp/planner": "planner", "sb3/ppo": "PPO, last reading", "sb3/random": "random pushes"}
            return (names[solver], task["angle_mark"], seed)
        return (f"PPO, last {task['history']} readings", task["angle_mark"], seed) if solver == "sb3/ppo" else None

    looks = {"planner": ("planner", "o-"), "PPO, last reading": ("ppo", "s--"), "random pushes": ("random", "x:"),
             "PPO, last 4 readings": ("ppo", "^-")}  # fmt: skip
    ax = figure.subplots()
    played = group(rows, "return", key)
    table = []
    for name, mark in dict.fromkeys(k[:2] for k in played):
        seeds = [list(values.values()) for k, values in played.items() if k[:2] == (name, mark)]
        mean, low, high = interval(v for values in seeds for v in values)
        means = [float(np.mean(values)) for values in seeds]
        if len(seeds) > 1:  # episodes of one training are no independent witnesses of the method
            low, high = min(means), max(means)
        table.append({
            "who": name, "angle_mark_rad": mark, "return": mean, "low": low, "high": high, "n": sum(map(len, seeds)),
            "trainings": means if len(seeds) > 1 else None,
        })  # fmt: skip
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


CEILING = "ceiling: allowed classes told"


def knapsack(rows: list[Row], figure: Figure) -> list[dict[str, Any]]:
    """Draw what the ceiling is for each part of the budget, and by how much everybody is below that of the whole."""

    def key(row: Row) -> tuple[str, str]:
        c = row["solver_settings"]
        if row["solver"] == "vopp/planner":
            return (row["task"], f"planner, {c['max_episodes']:,} simulated episodes")
        if row["solver"] == "crossings/endgame":
            who = CEILING if c["classes"] == "told" else "near-exact search"
            return (row["task"], who if c["share"] == 1 else f"{who}, {c['share']:.0%} of the budget")
        return (row["task"], f"expert: {c['policy']}")

    scores = group(rows, "score", key)
    lower, upper = group(rows, "claimed_lower_bound", key), group(rows, "claimed_upper_bound", key)
    table: list[dict[str, Any]] = []
    for (task, who), values in scores.items():
        mean, low, high = interval(values.values())
        entry = {"task": task, "who": who, "score": mean, "low": low, "high": high, "n": len(values)}
        if (ceiling := scores.get((task, CEILING))) is not None and who != CEILING:
            behind = shortfall(ceiling, values)
            entry |= {"below": behind[0], "below_low": behind[1], "below_high": behind[2], "below_n": behind[3]}
        if (task, who) in lower:
            entry["bracket"] = [float(np.mean(list(bound[task, who].values()))) for bound in (lower, upper)]
        table.append(entry)
    tasks = list(dict.fromkeys(e["task"] for e in table))
    # Who spent the whole budget, the nearest to the ceiling on top; inspect-10 is another kind of row and far off.
    whole = [e for e in table if "below" in e and "of the budget" not in e["who"] and "inspect" not in e["who"]]
    names = sorted({e["who"] for e in whole}, key=lambda who: -np.mean([e["below"] for e in whole if e["who"] == who]))
    spent, below = figure.subplots(1, 2, width_ratios=(2, 3))
    for k, task in enumerate(tasks):
        colour, mark = (INK["planner"], INK["ppo"])[k % 2], "os"[k % 2]
        ceilings = [e for e in table if e["task"] == task and e["who"].startswith(CEILING)]
        points = sorted((100 * share_of(e["who"]), e["score"], e["low"], e["high"]) for e in ceilings)
        if points:
            x, y, low, high = np.array(points).T
            spent.errorbar(x, y, [y - low, high - y], fmt=f"{mark}-", color=colour, capsize=3, label=task.partition("/")[2])
        for e in (e for e in whole if e["task"] == task):
            y = names.index(e["who"]) - 0.2 * (k - (len(tasks) - 1) / 2)
            spread = [[100 * (e["below"] - e["below_low"])], [100 * (e["below_high"] - e["below"])]]
            below.errorbar(100 * e["below"], y, xerr=spread, fmt=mark, color=colour, capsize=3)
    below.set_yticks(range(len(names)), names)
    below.axvline(0, color="#555555", lw=1)
    spent.set(xlabel="inspections made (% of the budget)", ylabel="most that can be had (score)", ylim=(0, 1), xlim=(0, 104))
    below.set(xlabel="hundredths of score below that")
    if spent.has_data():
        spent.legend(frameon=False, loc="lower right")
    return table


def share_of(who: str) -> float:
    """Return the part of the budget that a row's name says, 1 when it says none."""
    return float(who.rpartition(", ")[2].partition("%")[0]) / 100 if "of the budget" in who else 1.0


def tuned(rows: list[Row], figure: Figure) -> list[dict[str, Any]]:
    """Draw return against decision time of each fixed setting, and where the tuner ended.

    Regret has two ends: none for who knows the best fixed value, and that of who draws a fast one blindly each time.
    """
    tuners = [r for r in rows if r["solver"] == "ofs/tuned"]
    if not tuners:
        raise click.ClickException("the store holds no run of ofs/tuned")
    c = tuners[0]["solver_settings"]
    setting, deadline = c["setting"], c["deadline_seconds"]

    def key(row: Row) -> Any:
        return (1, 0) if row["solver"] == "ofs/tuned" else (0, row["solver_settings"][setting])

    ax = figure.subplots()
    clock = "decision_cpu_seconds" if c["clock"] == "cpu" else "decision_seconds"  # the one that the tuner counted
    rewards, seconds, lengths = (group(rows, metric, key) for metric in ("return", clock, "length"))
    discounted = group(rows, "discounted_return", key)
    # A run's first episode is not timed: it holds compilation, as the tuner's warm-up does.
    each = {
        name: np.array([seconds[name][k] / lengths[name][k] for k in values][1:] or [np.nan]) for name, values in rewards.items()
    }
    fast = [name for name in rewards if name[0] == 0 and each[name].mean() <= deadline]
    best = max(fast, key=lambda name: float(np.mean(list(rewards[name].values()))), default=None)
    table: list[dict[str, Any]] = []
    for name, values in rewards.items():
        mean, low, high = interval(values.values())
        entry: dict[str, Any] = {
            "who": "tuned online" if name[0] else f"{setting} = {name[1]:,}", "return": mean, "low": low, "high": high,
            f"{c['clock']}_seconds_per_decision": float(each[name].mean()), "over_deadline": float((each[name] > deadline).mean()),
            "n": len(values),
        }  # fmt: skip
        if name in discounted:
            entry["discounted_return"] = float(np.mean(list(discounted[name].values())))
        if best is not None and name != best:
            behind = shortfall(rewards[best], values)
            entry |= {"below_best_fixed": behind[0], "below_low": behind[1], "below_high": behind[2]}
        table.append(entry)
        where = (each[name].mean(), mean)
        ax.errorbar(*where, yerr=[[mean - low], [high - mean]], fmt="o", color=INK["tuned" if name[0] else "planner"], capsize=3)
        point, beside = ((where[0], low), {"xytext": (0, -12), "ha": "center"}) if name[0] else (where, {"xytext": (6, 4)})
        ax.annotate(entry["who"].rpartition(" = ")[2], point, textcoords="offset points", **beside)
    if best is not None:
        both = sorted(set.intersection(*(set(rewards[name]) for name in fast)))
        blind = {k: float(np.mean([rewards[name][k] for name in fast])) for k in both}
        behind = shortfall(rewards[best], blind)
        table.append({
            "who": f"one of the {len(fast)} fast values, drawn blindly", "return": float(np.mean(list(blind.values()))),
            "below_best_fixed": behind[0], "below_low": behind[1], "below_high": behind[2], "n": len(both),
        })  # fmt: skip
    ax.set_title(f"{c['solver']} with each value of {setting}, and tuned", fontsize=10)
    ax.axvline(deadline, color="#555555", ls="--", lw=1)
    ax.annotate("deadline", (deadline, ax.get_ylim()[0]), xytext=(3, 3), textcoords="offset points", color="#555555")
    ax.set(xlabel=f"{'CPU ' if c['clock'] == 'cpu' else ''}seconds a decision", ylabel="return of an episode", xscale="log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
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
    figure = plt.figure(figsize=(9 if name == "knapsack" else 7, 4), layout="constrained")
    table = {"cartpole": cartpole, "knapsack": knapsack, "tuned": tuned}[name](rows, figure)
    if name == "tuned":
        tuners = [row for row in rows if row["solver"] == "ofs/tuned"]
        last = max(tuners, key=lambda row: row["item"])
        notes = read_trace(Store(store).folder(last["run_id"]) / "trace.zip", last["item"])["notes"]
        table.append({"who": "the tuner's own notes", **notes})
    title = title or name
    figure.savefig(out / f"{title}.svg", metadata={"Date": None})
    text = json.dumps({"rows": table, "provenance": provenance(Store(store), {row["run_id"] for row in rows})}, indent=1)
    (out / f"{title}.json").write_text(text + "\n")
    for entry in table:
        click.echo("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{v}" for k, v in entry.items()))


if __name__ == "__main__":
    main()
