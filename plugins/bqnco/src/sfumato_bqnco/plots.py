"""Pictures: a solution over its instance, beam spread, gap against time. SVG by hand, PNG through matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from .errors import BqncoError
from .instances import Instance, Plan

_COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8a5a9e", "#b8860b", "#2f8f8f", "#a23b72", "#5c6b73")
_SIZE = 720


def paths_of(instance: Instance, solution: Plan) -> list[list[int]]:
    """The closed walks that a solution draws: one tour, one path, or one walk a route."""
    if instance.problem in ("cvrp", "cvrptw"):
        return [[0, *route, 0] for route in solution]
    if instance.problem == "op":
        return [[0, *solution, 0]]
    return [[*solution, *solution[:1]]]


def draw_solution(instance: Instance, solution: Plan, path: str | Path, title: str = "") -> None:
    """Draw routes over the nodes; the depot is a square, an OP node's area follows its prize, and nodes left out are pale.

    Raises BqncoError for instances without coordinates and for other suffixes than .svg and .png.
    """
    path = Path(path)
    if instance.xy is None:
        raise BqncoError(
            f"{instance.name}: expected coordinates to draw, this instance has none; leave --plot out"
        )
    if path.suffix == ".png":
        _draw_png(instance, solution, path, title)
        return
    if path.suffix != ".svg":
        raise BqncoError(f"{path}: expected the suffix .svg or .png, got {path.suffix!r}")
    xy = instance.xy - instance.xy.min(0)
    scale = (_SIZE - 60) / max(float(xy.max()), 1e-12)
    points = np.column_stack((30 + xy[:, 0] * scale, 60 + (xy[:, 1].max() - xy[:, 1]) * scale)).round(1)
    height = int(points[:, 1].max()) + 30
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_SIZE}" height="{height}" viewBox="0 0 {_SIZE} {height}">',
        f"<title>{escape(title or instance.name)}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="30" y="30" font-family="sans-serif" font-size="16">{escape(title or instance.name)}</text>',
    ]
    for k, walk in enumerate(paths_of(instance, solution)):
        colour = _COLOURS[k % len(_COLOURS)]
        # Ways from and to the depot lie one over another where there are many routes: draw them faintly.
        inner = walk[1:-1] if instance.problem in ("cvrp", "cvrptw") else walk
        for part, faint in ((walk[:2], True), (inner, False), (walk[-2:], True)):
            if len(part) > 1 and (inner is not walk or not faint):
                line = " ".join(f"{x},{y}" for x, y in points[part])
                style = 'stroke-width="0.8" stroke-opacity="0.45"' if faint else 'stroke-width="1.6"'
                out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" {style}/>')
    top = float(instance.prize.max()) if instance.prize is not None and instance.prize.max() > 0 else 1.0
    visited = {v for walk in paths_of(instance, solution) for v in walk}
    for v, (x, y) in enumerate(points):
        fill = "#333" if v in visited else "#bbb"
        radius = 2.2 if instance.prize is None else 1.5 + 4.5 * float(np.sqrt(instance.prize[v] / top))
        out.append(f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" fill="{fill}"/>')
    if instance.problem in ("cvrp", "cvrptw", "op"):
        x, y = points[0]
        out.append(f'<rect x="{x - 6}" y="{y - 6}" width="12" height="12" fill="#d00"/>')
    path.write_text("\n".join([*out, "</svg>", ""]), encoding="utf-8")


def _figure() -> tuple[object, object]:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise BqncoError(
            "PNG pictures need matplotlib; pip install 'sfumato-bqnco[plots]', or write an .svg"
        ) from error
    figure = Figure(figsize=(7, 5), layout="constrained")
    return figure, figure.add_subplot()


def _draw_png(instance: Instance, solution: Plan, path: Path, title: str) -> None:
    figure, axes = _figure()
    assert instance.xy is not None
    for k, walk in enumerate(paths_of(instance, solution)):
        axes.plot(*instance.xy[walk].T, color=_COLOURS[k % len(_COLOURS)], lw=1)  # type: ignore[attr-defined]
    visited = {v for walk in paths_of(instance, solution) for v in walk}
    shades = ["#333" if v in visited else "#bbb" for v in range(instance.n)]
    axes.scatter(*instance.xy.T, s=6, color=shades, zorder=3)  # type: ignore[attr-defined]
    if instance.problem in ("cvrp", "cvrptw", "op"):
        axes.scatter(*instance.xy[0], s=45, marker="s", color="#d00", zorder=4)  # type: ignore[attr-defined]
    axes.set(title=title or instance.name, aspect="equal")  # type: ignore[attr-defined]
    figure.savefig(path, dpi=120)  # type: ignore[attr-defined]


def draw_gap_against_time(
    series: Mapping[str, Sequence[tuple[float, float]]], path: str | Path, title: str
) -> None:
    """Steps of (seconds, gap in per cent) for each method, logarithmic time; PNG or SVG through matplotlib."""
    figure, axes = _figure()
    end = max(steps[-1][0] for steps in series.values())
    for name, steps in series.items():
        # What a method has found stays its answer until the last of them stops.
        times, gaps = zip(*[*steps, (end, steps[-1][1])], strict=True)
        axes.step(times, gaps, where="post", label=name)  # type: ignore[attr-defined]
    axes.set(xscale="log", xlabel="CPU seconds", ylabel="gap, %", title=title)  # type: ignore[attr-defined]
    axes.legend()  # type: ignore[attr-defined]
    figure.savefig(Path(path), dpi=120)  # type: ignore[attr-defined]


def draw_beam_spread(logp: np.ndarray, cost: np.ndarray, path: str | Path, title: str) -> None:
    """Final beams of one instance: joint log-probability [width] against true cost [width]."""
    figure, axes = _figure()
    keep = np.isfinite(cost) & np.isfinite(logp)
    axes.scatter(logp[keep], cost[keep], s=18, color=_COLOURS[0])  # type: ignore[attr-defined]
    if keep.any():
        first = int(np.flatnonzero(keep)[cost[keep].argmin()])
        axes.scatter(logp[first], cost[first], s=70, color=_COLOURS[1], label="the answer")  # type: ignore[attr-defined]
        axes.legend()  # type: ignore[attr-defined]
    axes.set(xlabel="joint log-probability", ylabel="objective", title=title)  # type: ignore[attr-defined]
    figure.savefig(Path(path), dpi=120)  # type: ignore[attr-defined]
