"""Draw a belief over the map of a problem as SVG: plain text, no plotting library; a frame of a played episode."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from sfumato_vopp.belief import Belief
from sfumato_vopp.model import Model

__all__ = ["belief_frame", "belief_in_words"]

CELL = 34
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


def _weights(belief: Belief) -> np.ndarray:
    n = len(belief.particles)
    return np.full(n, 1.0 / n) if belief.weights is None else belief.weights


def _percent(share: float) -> str:
    """Return a share as text; what is neither nothing nor everything is never rounded to it."""
    if 0.0 < share < 0.005:
        return "<1%"
    return ">99%" if 0.995 <= share < 1.0 - 1e-9 else f"{share:.0%}"


class _Canvas:
    """Cells of a grid, y upwards."""

    def __init__(self, width: int, height: int, cell: float = CELL) -> None:
        self.width, self.height, self.cell = width, height, cell
        w, h = width * cell, height * cell
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w:.0f} {h:.0f}" width="{w:.0f}">'
            f'<rect width="{w:.0f}" height="{h:.0f}" fill="#8881" stroke="#888"/>'
        ]

    def _corner(self, x: float, y: float) -> tuple[float, float]:
        return x * self.cell, (self.height - 1 - y) * self.cell

    def fill(self, x: float, y: float, colour: str, opacity: float = 1.0) -> None:
        left, top = self._corner(x, y)
        self.parts.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{self.cell:.1f}" height="{self.cell:.1f}" fill="{colour}" '
            f'fill-opacity="{opacity:.2f}" stroke="#8883"/>'
        )

    def disc(self, x: float, y: float, colour: str, hollow: bool = False, size: float = 0.3) -> None:
        left, top = self._corner(x, y)
        half = self.cell / 2
        paint = f'fill="none" stroke="{colour}" stroke-width="3"' if hollow else f'fill="{colour}"'
        self.parts.append(f'<circle cx="{left + half:.1f}" cy="{top + half:.1f}" r="{size * self.cell:.1f}" {paint}/>')

    def text(self, x: float, y: float, words: str) -> None:
        left, top = self._corner(x, y)
        self.parts.append(
            f'<text x="{left + self.cell / 2:.1f}" y="{top + self.cell * 0.64:.1f}" font-size="{self.cell * 0.34:.0f}" '
            f'text-anchor="middle" fill="currentColor">{escape(words)}</text>'
        )

    def svg(self) -> str:
        return "".join(self.parts) + "</svg>"


def _shades(canvas: _Canvas, x: np.ndarray, y: np.ndarray, p: np.ndarray, colour: str) -> None:
    """Shade each cell by the square root of its share of the likeliest one: faint hope stays visible."""
    grid = np.zeros((canvas.height, canvas.width))
    np.add.at(grid, (y, x), p)
    for j, i in np.argwhere(grid > 1e-3):
        canvas.fill(int(i), int(j), colour, 0.1 + 0.75 * float(np.sqrt(grid[j, i] / grid.max())))


def _chase(model: Any, belief: Belief, state: np.ndarray | None) -> str:
    cells, n = np.array(model.cells), model.n_cells
    width, height = cells.max(axis=0) + 1
    canvas = _Canvas(int(width), int(height))
    free = set(model.cells)
    for y in range(int(height)):
        for x in range(int(width)):
            if (x, y) not in free:
                canvas.fill(x, y, "#666", 0.6)
    s, p = belief.particles[:, 0], _weights(belief)
    across, up = cells[s % n].T
    _shades(canvas, across, up, p, BLUE)
    robots = np.bincount(s // n, weights=p, minlength=n)
    for r in np.flatnonzero(robots > 0.02):
        x, y = model.cells[r]
        canvas.disc(x, y, GREEN, size=0.08 + 0.2 * float(robots[r]))
    if state is not None:
        robot, opponent = model.cells[int(state[0]) // n], model.cells[int(state[0]) % n]
        canvas.disc(opponent[0], opponent[1], ORANGE, hollow=True)
        canvas.disc(robot[0], robot[1], GREEN, hollow=True, size=0.4)
    return canvas.svg()


def _rocks(n: int, rocks: Any, good: np.ndarray, truth: int | None, rovers: list[tuple[int, int]]) -> str:
    canvas = _Canvas(n, n, CELL if n <= 12 else 22)
    for i, (x, y) in enumerate(rocks):
        canvas.fill(x, y, BLUE, 0.08 + 0.8 * float(good[i]))
        if truth is not None and (truth >> i) & 1:
            canvas.disc(x, y, ORANGE, hollow=True, size=0.45)
    for k, (x, y) in enumerate(rovers):
        canvas.disc(x, y, GREEN, size=0.3 - 0.1 * k)
    for i, (x, y) in enumerate(rocks):
        canvas.text(x, y, _percent(good[i]))
    return canvas.svg()


def _good(rocks: np.ndarray, k: int, p: np.ndarray) -> np.ndarray:
    return ((rocks[:, None] >> np.arange(k)) & 1).T @ p  # type: ignore[no-any-return]


def _navigation(model: Any, belief: Belief, state: np.ndarray | None) -> str:
    from sfumato_vopp.models.navigation import GOAL, SIZE

    canvas = _Canvas(SIZE, SIZE, 26)
    for x, y in np.argwhere(model.known):
        canvas.fill(int(y), SIZE - 1 - int(x), "#666", 0.6)
    position = belief.particles[:, 4]
    _shades(canvas, position % SIZE, SIZE - 1 - position // SIZE, _weights(belief), BLUE)
    canvas.text(GOAL[1], SIZE - 1 - GOAL[0], "goal")
    if state is not None:
        canvas.disc(int(state[4]) % SIZE, SIZE - 1 - int(state[4]) // SIZE, ORANGE, hollow=True)
    return canvas.svg()


def _line(belief: Belief, state: np.ndarray | None) -> str:
    from sfumato_vopp.models.lightdark import EDGE

    canvas = _Canvas(2 * EDGE + 1, 6, 6)
    s, p = belief.particles[:, 0] + EDGE, _weights(belief)
    share = np.bincount(s, weights=p, minlength=2 * EDGE + 1)
    for x in np.flatnonzero(share > 1e-3):
        for y in range(1 + int(4.99 * share[x] / share.max())):
            canvas.fill(int(x), y, BLUE, 0.8)
    canvas.text(EDGE, 5, "0")
    if state is not None:
        canvas.disc(int(state[0]) + EDGE, 0, ORANGE, size=0.6)
    return canvas.svg()


def belief_frame(model: Model, belief: Belief, state: Any = None) -> str | None:
    """Return an SVG drawing of a belief on the model's map, with the true state if it is given; None without a map.

    Arguments:
        state: [state_width], drawn in orange; in green, where the robot is or is believed to be.
    """
    from sfumato_vopp.models.lasertag import LaserTag
    from sfumato_vopp.models.lightdark import LightDark
    from sfumato_vopp.models.mars import Mars
    from sfumato_vopp.models.navigation import Navigation
    from sfumato_vopp.models.rocksample import RockSample
    from sfumato_vopp.models.tag import Tag

    true = None if state is None else np.asarray(state, np.int64)
    if isinstance(model, Tag | LaserTag):
        return _chase(model, belief, true)
    if isinstance(model, RockSample):
        s = belief.particles[:, 0]
        cell = int(s[0]) & 0xFFFF
        good = _good(s >> 16, model.k, _weights(belief))
        return _rocks(model.n, model.rocks, good, None if true is None else int(true[0]) >> 16, [(cell % model.n, cell // model.n)])
    if isinstance(model, Mars):
        packed = int(belief.particles[0, 1])
        rovers = [
            ((packed >> (16 * r)) & 0xFF, (packed >> (16 * r + 8)) & 0xFF) for r in range(2) if (packed >> (32 + r)) & 1
        ]
        good = _good(belief.particles[:, 0], model.m, _weights(belief))
        return _rocks(model.n, model.rocks, good, None if true is None else int(true[0]), rovers)
    if isinstance(model, Navigation):
        return _navigation(model, belief, true)
    if isinstance(model, LightDark):
        return _line(belief, true)
    return None


def belief_in_words(model: Model, belief: Belief) -> str:
    """Say how many states the belief spreads over and which is likeliest."""
    p = _weights(belief)
    states, inverse = np.unique(belief.particles, axis=0, return_inverse=True)
    share = np.bincount(inverse.reshape(-1), weights=p)
    best = int(np.argmax(share))
    return f"{len(states)} states possible, likeliest ({_percent(share[best])}): {model.describe_state(states[best])}"
