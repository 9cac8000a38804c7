"""A section of the report: the scene from above, played step by step, with the shared segment of each plan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sfumato.report.parts import PALETTE, Playback, Plot, RunView, Text

WIDTH, HEIGHT, REACH = 760, 300, 55.0
MAX_FRAMES = 120


def scene(view: RunView) -> list[Any]:
    """Return the first episode as a playable top view, and speed and planning time over it."""
    trace = view.trace()
    truth, notes = trace.get("truth"), trace.get("notes") or {}
    if not truth or "ego" not in truth:
        return [Text("The trace was not kept.")]
    ego, users = np.array(truth["ego"], float), np.array(truth["users"], float)
    segments = np.array([_numbers(s) for s in notes.get("segments", [])], float)
    walls = np.array(truth.get("walls", []), float).reshape(-1, 2, 2)
    length, width = truth["ego_size"]
    every = max(1, math.ceil(len(ego) / MAX_FRAMES))
    frames, captions = [], []
    for t in range(0, len(ego), every):
        frames.append(_frame(ego, users, segments, walls, t, length, width))
        captions.append(f"{t * truth['dt']:.1f} s, {ego[t, 4]:.1f} m/s")
    hit = "; ".join(f"contact at {c['time']:.1f} s" for c in truth["contacts"]) or "no contact"
    alt = (
        f"Top view of {truth['family']}: ego blue, others grey, the shared segment of the plan orange, buildings as thick lines; "
        f"{hit}"
    )
    made: list[Any] = [Playback(frames, captions, alt, seconds=truth["dt"] * every)]
    seconds = np.asarray(notes.get("plan_seconds", []), float)
    x = np.arange(len(ego)) * truth["dt"]
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": x,
            "y": ego[:, 4],
            "name": "speed (m/s)",
            "line": {"color": PALETTE[0]},
        }
    ]
    if len(seconds):
        data.append({"type": "scatter", "mode": "lines", "x": x[: len(seconds)], "y": 1000 * seconds, "name": "planning (ms)",
                     "line": {"color": PALETTE[1]}, "yaxis": "y2"})  # fmt: skip
    layout = {
        "height": 260, "margin": {"l": 50, "r": 50, "t": 10, "b": 40}, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": {"title": {"text": "seconds"}}, "yaxis": {"title": {"text": "m/s"}}, "legend": {"orientation": "h", "y": 1.15},
        "yaxis2": {"title": {"text": "ms"}, "overlaying": "y", "side": "right", "rangemode": "tozero", "showgrid": False},
    }  # fmt: skip
    slowest = f", slowest plan {1000 * seconds.max():.0f} ms" if len(seconds) else ""
    made.append(
        Plot({"data": data, "layout": layout}, f"Speed from {ego[0, 4]:.1f} to {ego[-1, 4]:.1f} m/s{slowest}")
    )
    return made


def _numbers(segment: Any) -> Any:
    """Return a segment [2, S] with gaps where a plan had none (JSON writes NaN as text or null)."""
    return [[math.nan if v is None or isinstance(v, str) else v for v in row] for row in segment]


def _frame(
    ego: np.ndarray,
    users: np.ndarray,
    segments: np.ndarray,
    walls: np.ndarray,
    t: int,
    length: float,
    width: float,
) -> str:
    """Return one drawing, the ego in the middle, heading of the world kept; 1 m is WIDTH / (2 REACH) pixels."""
    scale = WIDTH / (2 * REACH)
    cx, cy = ego[t, 1], ego[t, 2]

    def at(x: float, y: float) -> tuple[float, float]:
        return WIDTH / 2 + (x - cx) * scale, HEIGHT / 2 - (y - cy) * scale

    def box(x: float, y: float, heading: float, long: float, wide: float, colour: str) -> str:
        u, v = at(x, y)
        return (
            f'<rect x="{-long * scale / 2:.1f}" y="{-wide * scale / 2:.1f}" width="{long * scale:.1f}" height="{wide * scale:.1f}" rx="3" '
            f'fill="{colour}" transform="translate({u:.1f} {v:.1f}) rotate({-math.degrees(heading):.1f})"/>'
        )

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}"><rect width="{WIDTH}" height="{HEIGHT}" fill="#8881"/>'
    ]
    for wall in walls:
        line = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in wall)
        parts.append(f'<polyline points="{line}" fill="none" stroke="#8a8f94" stroke-width="7"/>')
    path = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in ego[: t + 1 : 2, 1:3])
    parts.append(f'<polyline points="{path}" fill="none" stroke="{PALETTE[0]}" stroke-opacity=".4"/>')
    for user in users[t]:
        if np.isfinite(user[:2]).all() and abs(user[0] - cx) < REACH + 5 and abs(user[1] - cy) < REACH:
            parts.append(
                box(
                    user[0],
                    user[1],
                    user[2],
                    user[4] if len(user) > 5 else 4.5,
                    user[5] if len(user) > 5 else 1.9,
                    "#8a8f94",
                )
            )
    parts.append(box(cx, cy, ego[t, 3], length, width, PALETTE[0]))
    if t < len(segments) and np.isfinite(segments[t]).all():
        line = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in segments[t].T)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{PALETTE[1]}" stroke-width="4"/>')
    return "".join(parts) + "</svg>"
