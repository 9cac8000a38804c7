"""Pictures of plans and episodes; needs matplotlib (``pip install 'sfumato-vopp[plot]'``). Each function returns a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sfumato_vopp.belief import Belief
from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import Model
from sfumato_vopp.planner import Decision
from sfumato_vopp.simulate import Record

__all__ = ["belief_on_map", "cells_of", "episode", "returns_by_time", "tree_statistics"]


def _figure(rows: int = 1, columns: int = 1, size: tuple[float, float] = (5.0, 4.0)) -> tuple[Any, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib; run: pip install 'sfumato-vopp[plot]'") from error
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def cells_of(model: Model, states: Any) -> tuple[np.ndarray, np.ndarray, str]:
    """Return the cells (x [N], y [N]) that a picture of these states shows, and what they are.

    Tag and LaserTag show the opponent, Navigation and RockSample the robot, Light-Dark the position.

    Raises:
        ModelError: the model has no picture; give cells of your own to :func:`belief_on_map`.
    """
    from sfumato_vopp.models.lasertag import LaserTag
    from sfumato_vopp.models.lightdark import LightDark
    from sfumato_vopp.models.navigation import SIZE, Navigation
    from sfumato_vopp.models.rocksample import RockSample
    from sfumato_vopp.models.tag import Tag

    s = np.asarray(states)
    if isinstance(model, Tag | LaserTag):
        cells = np.array(model.cells)[s[:, 0] % model.n_cells]
        return cells[:, 0], cells[:, 1], "opponent"
    if isinstance(model, RockSample):
        cell = s[:, 0] & 0xFFFF
        return cell % model.n, cell // model.n, "rover"
    if isinstance(model, Navigation):
        return s[:, 4] % SIZE, SIZE - 1 - s[:, 4] // SIZE, "robot"
    if isinstance(model, LightDark):
        return s[:, 0], np.zeros(len(s), np.int64), "position"
    raise ModelError(f"{type(model).__name__} has no map to draw on; pass cells=(x, y)")


def belief_on_map(model: Model, belief: Belief, cells: tuple[Any, Any] | None = None, title: str = "") -> Any:
    """Draw the marginal of a belief over the cells of the map; darker is likelier.

    Arguments:
        cells: (x [N], y [N]) of each particle, for models of your own.
    """
    x, y, what = (*cells, "state") if cells is not None else cells_of(model, belief.particles)
    x, y = np.asarray(x), np.asarray(y)
    weights = np.full(len(x), 1.0 / len(x)) if belief.weights is None else belief.weights
    grid = np.zeros((int(y.max()) - min(0, int(y.min())) + 1, int(x.max()) - min(0, int(x.min())) + 1))
    np.add.at(grid, (y - min(0, int(y.min())), x - min(0, int(x.min()))), weights)
    figure, axes = _figure()
    left, low = min(0, int(x.min())) - 0.5, min(0, int(y.min())) - 0.5
    image = axes[0, 0].imshow(
        grid, origin="lower", cmap="Blues", vmin=0.0, aspect="auto" if grid.shape[0] == 1 else "equal",
        extent=(left, left + grid.shape[1], low, low + grid.shape[0]),
    )  # fmt: skip
    figure.colorbar(image, label=f"probability of the {what}")
    axes[0, 0].set(xlabel="x", ylabel="y", title=title)
    return figure


def tree_statistics(decision: Decision) -> Any:
    """Draw the belief nodes at each depth, and visits and preferences of the root's actions."""
    figure, axes = _figure(1, 3, (12.0, 3.5))
    histogram = decision.stats.depth_histogram
    axes[0, 0].bar(np.arange(len(histogram)), histogram)
    axes[0, 0].set(xlabel="depth", ylabel="belief nodes", yscale="log", title=f"{decision.stats.steps:,} simulated steps")
    actions = np.arange(len(decision.visits))
    colours = ["C1" if a == decision.action else "C0" for a in actions]
    axes[0, 1].bar(actions, decision.visits, color=colours)
    axes[0, 1].set(xlabel="action", ylabel="visits", yscale="symlog", title=f"chosen (orange, highest preference): {decision.action}")
    axes[0, 2].bar(actions, decision.values, color=colours)
    axes[0, 2].set(xlabel="action", ylabel="mean value", title=f"value of the root {decision.value:.2f}")
    return figure


def returns_by_time(results: Mapping[str, Mapping[float, Sequence[float]]], ylabel: str = "discounted return") -> Any:
    """Draw return against planning time with 95 % bands.

    Arguments:
        results: for each planner, the returns of its episodes at each planning time in seconds.
    """
    figure, axes = _figure(size=(6.0, 4.0))
    axis = axes[0, 0]
    for name, by_time in results.items():
        times = sorted(by_time)
        values = [np.asarray(by_time[t], float) for t in times]
        mean = np.array([v.mean() for v in values])
        half = np.array([1.96 * v.std(ddof=1) / len(v) ** 0.5 if len(v) > 1 else 0.0 for v in values])
        counts = sorted({len(v) for v in values})
        number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        (line,) = axis.plot(times, mean, marker="o", label=f"{name} (n = {number})")
        axis.fill_between(times, mean - half, mean + half, alpha=0.2, color=line.get_color())
    axis.set(xscale="log", xlabel="planning time a step (s)", ylabel=ylabel, title="mean and 95 % interval")
    axis.legend()
    return figure


def episode(model: Model, records: Sequence[Record], steps: int = 8) -> Any:
    """Draw an episode as a strip: the belief before each of up to ``steps`` evenly spaced decisions, and the true state (×).

    All frames have the same axes.
    """
    if not records:
        raise ValueError("expected the records of an episode, got none; play it with keep=True")
    chosen = np.unique(np.linspace(0, len(records) - 1, steps).astype(int))
    figure, axes = _figure(1, len(chosen), (2.6 * len(chosen), 2.8))
    shown = [cells_of(model, np.concatenate([records[int(t)].belief.particles, records[int(t)].state[None]])) for t in chosen]
    x, y = (np.concatenate([part[k] for part in shown]) for k in (0, 1))
    limits = (x.min() - 0.6, x.max() + 0.6), (y.min() - 0.6, y.max() + 0.6)
    for axis, t, (x, y, _) in zip(axes[0], chosen, shown, strict=True):
        record = records[int(t)]
        weights = record.belief.weights
        axis.scatter(x[:-1], y[:-1], s=None if weights is None else 4 + 300 * weights, alpha=0.3, linewidths=0)
        axis.plot(x[-1], y[-1], "kx")
        axis.set(
            title=f"t = {t}: a = {record.decision.action}, r = {record.reward:g}", xlim=limits[0], ylim=limits[1],
            aspect="equal" if np.ptp(limits[1]) > 1.5 else "auto",
        )  # fmt: skip
    figure.suptitle(f"where the {shown[0][2]} may be, and is (×)", fontsize="medium")
    return figure
