"""A section of the report: the scene from above, played step by step.

Drawn are the candidates, one colour a hypothesis, the shared segment in bold, shadows and phantoms.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sfumato.report.parts import PALETTE, Playback, Plot, RunView, Text

WIDTH, HEIGHT = 760, 300
REACH = {"occluded-intersection": 36.0, "occluded-pedestrian": 30.0}  # m shown to either side of the vehicle
FAR = 55.0
MAX_FRAMES = 120
HUES = PALETTE[1:4] + PALETTE[6:7]


def scene(view: RunView) -> list[Any]:
    """Return the first episode as a playable top view, and speed and planning time over it."""
    trace = view.trace()
    truth, notes = trace.get("truth"), trace.get("notes") or {}
    if not truth or "ego" not in truth:
        return [Text("The trace was not kept.")]
    ego, users = np.array(truth["ego"], float), np.array(truth["users"], float)
    segments, curves, phantoms, shadows = (
        _numbers(notes.get(name, [])) for name in ("segments", "curves", "phantoms", "shadows")
    )
    walls = np.array(truth.get("walls", []), float).reshape(-1, 2, 2)
    reach = REACH.get(truth["family"], FAR)
    lanes = [] if truth["family"] == "replay" else [(float(y), False) for y in truth.get("lanes", [])]
    lanes += [(float(x), True) for x in truth.get("crossing_x", [])]
    length, width = truth["ego_size"]
    every = max(1, math.ceil(len(ego) / MAX_FRAMES))
    frames, captions = [], []
    n_shared = int(notes.get("n_consensus", 5)) + 1
    seen = {"segments": segments[:, :, :n_shared] if segments.ndim == 3 else segments, "curves": curves,
            "phantoms": phantoms, "shadows": shadows}  # fmt: skip
    for t in range(0, len(ego), every):
        here = {name: rows[t] if t < len(rows) else rows[:0] for name, rows in seen.items()}
        frames.append(_frame(ego, users, here, walls, lanes, t, (length, width), reach))
        captions.append(f"{t * truth['dt']:.1f} s, {ego[t, 4]:.1f} m/s")
    hit = "; ".join(f"contact at {c['time']:.1f} s" for c in truth["contacts"]) or "no contact"
    alt = (
        f"Top view of {truth['family']}: the vehicle blue, others grey, one thin coloured line for each hypothesis, the segment they "
        f"share thick and black, what is hidden shaded, phantoms as rings, buildings as thick lines; {hit}"
    )
    key = (
        "Thin lines: the planned trajectory under each hypothesis, 5 s ahead. Thick black: the segment they share, which is driven. "
        "Shaded: where somebody could be hidden. Rings: the hidden users that are planned for, where they are now."
    )
    made: list[Any] = [Text(key), Playback(frames, captions, alt, seconds=truth["dt"] * every)]
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


def _numbers(rows: Any) -> np.ndarray:
    """Return nested rows as an array, gaps (JSON writes NaN as text or null) as NaN."""

    def cleaned(value: Any) -> Any:
        if value is None or isinstance(value, str):
            return math.nan
        return [cleaned(v) for v in value] if isinstance(value, list | tuple) else value

    return np.array(cleaned(rows.tolist() if isinstance(rows, np.ndarray) else rows), float)


def _frame(
    ego: np.ndarray,
    users: np.ndarray,
    seen: dict[str, np.ndarray],
    walls: np.ndarray,
    lanes: list[tuple[float, bool]],
    t: int,
    size: tuple[float, float],
    reach: float,
) -> str:
    """Return one drawing, the ego in the middle, heading of the world kept; 1 m is WIDTH / (2 reach) pixels."""
    scale = WIDTH / (2 * reach)
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

    def line(points: np.ndarray, style: str) -> str:
        text = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in points)
        return f'<polyline points="{text}" fill="none" {style}/>'

    for place, upright in lanes:
        ends = (
            [[place, cy - reach], [place, cy + reach]]
            if upright
            else [[cx - reach, place], [cx + reach, place]]
        )
        parts.append(
            line(np.array(ends), f'stroke="#888" stroke-opacity=".13" stroke-width="{3.5 * scale:.0f}"')
        )
    for shape in seen["shadows"]:
        if np.isfinite(shape).all():
            text = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in shape)
            parts.append(f'<polygon points="{text}" fill="#555" fill-opacity=".28"/>')
    parts += [line(wall, 'stroke="#8a8f94" stroke-width="7"') for wall in walls]
    parts.append(line(ego[: t + 1 : 2, 1:3], f'stroke="{PALETTE[0]}" stroke-opacity=".4"'))
    for user in users[t]:
        if np.isfinite(user[:2]).all() and abs(user[0] - cx) < reach + 5 and abs(user[1] - cy) < reach:
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
    parts.append(box(cx, cy, ego[t, 3], *size, PALETTE[5]))
    for i, curve in enumerate(seen["curves"]):
        if np.isfinite(curve).all():
            # Blues are the vehicle's, so hypotheses begin with the second colour.
            parts.append(line(curve.T, f'stroke="{HUES[i % len(HUES)]}" stroke-width="1.8"'))
    if seen["segments"].size and np.isfinite(seen["segments"]).all():
        parts.append(
            line(seen["segments"].T, 'stroke="currentColor" stroke-width="5" stroke-linecap="round"')
        )
    for u, v in (at(x, y) for x, y in seen["phantoms"] if np.isfinite([x, y]).all()):
        parts.append(
            f'<circle cx="{u:.1f}" cy="{v:.1f}" r="7" fill="none" stroke="{PALETTE[4]}" stroke-width="2.5"/>'
        )
    return "".join(parts) + "</svg>"
