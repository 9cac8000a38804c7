"""Pictures of a run: regret, violation, the feasibility map with bounds, group rates and shares over time.

Each function draws on the axes it is given and needs matplotlib (extra `plots`) only in `save_all`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.errors import need
from sfumato_ofs.oracle import Sweep

FloatArray = NDArray[np.float64]
Truth = Mapping[str, Any]


def _rounds(truth: Truth) -> FloatArray:
    n_points = truth["curve_reward"].shape[1]
    return (np.arange(1, n_points + 1) * truth["rounds"]) // n_points


def _band(axes: Any, x: FloatArray, curves: FloatArray, label: str) -> None:
    """Draw the mean over seeds with a 95% interval of the mean."""
    mean = curves.mean(axis=0)
    half = 1.96 * curves.std(axis=0) / max(np.sqrt(len(curves)), 1.0)
    (line,) = axes.plot(x, mean, label=f"{label} (n = {len(curves)})")
    axes.fill_between(x, mean - half, mean + half, color=line.get_color(), alpha=0.2, linewidth=0)


def draw_regret(axes: Any, runs: Mapping[str, Truth], oracle: Sweep) -> None:
    """Cumulative expected reward missing to the best feasible fixed threshold."""
    for label, truth in runs.items():
        x = _rounds(truth)
        width = np.diff(np.concatenate([[0], x]))
        missing = (oracle.reward[oracle.best] - truth["curve_reward"]) * width
        _band(axes, x, np.cumsum(missing, axis=1), label)
    axes.set(xlabel="round", ylabel="cumulative regret to the oracle (reward)")
    axes.legend()


def draw_violation(axes: Any, runs: Mapping[str, Truth]) -> None:
    """Cumulative expected violation."""
    for label, truth in runs.items():
        x = _rounds(truth)
        width = np.diff(np.concatenate([[0], x]))
        _band(axes, x, np.cumsum(truth["curve_violation"] * width, axis=1), label)
    axes.set(xlabel="round", ylabel="cumulative violation (rate)")
    axes.legend()


def draw_feasibility(
    axes: Any, oracle: Sweep, lower: FloatArray | None = None, upper: FloatArray | None = None
) -> None:
    """Largest residual of each threshold at its steady state, with a learner's bounds [M, I] of one seed."""
    tau = oracle.arms[:, 0]
    axes.plot(tau, oracle.residuals.max(axis=1), color="black", label="largest residual, steady state")
    if lower is not None and upper is not None:
        low, high = lower.max(axis=1), upper.max(axis=1)
        seen = np.isfinite(low) & np.isfinite(high)
        axes.fill_between(
            tau[seen], low[seen], high[seen], alpha=0.25, linewidth=0, label="the learner's bounds"
        )
    axes.axhline(0.0, color="grey", linewidth=0.8)
    axes.axvline(
        tau[oracle.best], color="green", linestyle="--", label=f"best feasible, {tau[oracle.best]:g}"
    )
    axes.set(xlabel="threshold", ylabel="residual (at or below 0: satisfied)")
    axes.legend()


def draw_population(axes: Any, truth: Truth, label: str = "") -> None:
    """Acceptance rate of each group and the share of group 1 over time."""
    x = _rounds(truth)
    for a in range(truth["curve_rates"].shape[2]):
        _band(axes, x, truth["curve_rates"][:, :, a], f"acceptance, group {a}")
    _band(axes, x, truth["curve_shares"][:, :, 1], "share of group 1")
    axes.set(xlabel="round", ylabel="rate or share", title=label, ylim=(0.0, 1.0))
    axes.legend()


def save_all(
    folder: str | Path,
    runs: Mapping[str, Truth],
    oracle: Sweep,
    bounds: tuple[FloatArray, FloatArray] | None = None,
) -> list[Path]:
    """Write regret.svg, violation.svg, feasibility.svg and one population-<run>.svg a run; return their paths."""
    try:
        matplotlib = importlib.import_module("matplotlib")
        figure_of = importlib.import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise need("matplotlib", "plots", "drawing") from error
    matplotlib.rcParams["svg.hashsalt"] = "sfumato-ofs"  # the same run draws the same file
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lower, upper = bounds if bounds is not None else (None, None)
    pictures: dict[str, Any] = {
        "regret": lambda axes: draw_regret(axes, runs, oracle),
        "violation": lambda axes: draw_violation(axes, runs),
        "feasibility": lambda axes: draw_feasibility(axes, oracle, lower, upper),
    }
    for label, truth in runs.items():
        pictures[f"population-{label.replace('/', '-')}"] = lambda axes, t=truth, name=label: draw_population(
            axes, t, name
        )
    paths = []
    for name, draw in pictures.items():
        figure = figure_of(figsize=(7, 4.2), layout="constrained")
        draw(figure.subplots())
        paths.append(folder / f"{name}.svg")
        figure.savefig(paths[-1], metadata={"Date": None})
    return paths
