"""Draws docs/architecture.svg from the core's imports. `python docs/draw_architecture.py [--check]`."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "core" / "src" / "sfumato"
OUT = ROOT / "docs" / "architecture.svg"
WIDTH, ROW, BOX = 1080, 78, 28


def edges() -> dict[str, set[str]]:
    """Return module -> core modules it imports when loaded, packages as one module."""
    found: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if own.startswith("__"):
            continue
        here = found.setdefault(own, set())
        for node in ast.parse(path.read_text()).body:
            names: list[str] = []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] != "sfumato" or len(parts) < 2 or parts[1] == own:
                    continue
                if (SOURCE / f"{parts[1]}.py").exists() or (SOURCE / parts[1]).is_dir():
                    here.add(parts[1])
    return found


def levels(graph: dict[str, set[str]]) -> dict[str, int]:
    """Return each module's level: one above the highest it imports."""
    made: dict[str, int] = {}

    def level(module: str) -> int:
        if module not in made:
            made[module] = 0
            made[module] = 1 + max((level(m) for m in graph.get(module, ())), default=-1)
        return made[module]

    for module in sorted(graph):
        level(module)
    return made


def draw() -> str:
    """Return the drawing: what is imported stands below, arrows point down."""
    graph = edges()
    of = levels(graph)
    top = max(of.values())
    rows = [[m for m in sorted(graph) if of[m] == k] for k in range(top + 1)]
    place: dict[str, tuple[float, float, float]] = {}
    for k, row in enumerate(rows):
        y = 30 + (top - k) * ROW
        for j, module in enumerate(row):
            place[module] = (WIDTH * (j + 1) / (len(row) + 1), y, 8.2 * len(module) + 18)
    lines = []
    for module, others in sorted(graph.items()):
        x, y, _ = place[module]
        for other in sorted(others):
            u, v, _ = place[other]
            lines.append(
                f'<path d="M{x:.0f},{y + BOX / 2:.0f} C{x:.0f},{(y + v) / 2:.0f} {u:.0f},{(y + v) / 2:.0f} {u:.0f},{v - BOX / 2:.0f}"/>'
            )
    boxes = [
        f'<g><rect x="{x - w / 2:.0f}" y="{y - BOX / 2:.0f}" width="{w:.0f}" height="{BOX}" rx="5"/><text x="{x:.0f}" y="{y + 5:.0f}">{m}</text></g>'
        for m, (x, y, w) in sorted(place.items())
    ]
    height = 60 + top * ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Modules of the core and their imports">\n'
        "<style>path{fill:none;stroke:#0072B2;stroke-opacity:.28;stroke-width:1.3}rect{fill:#fdfdfb;stroke:#5c6166}"
        "text{font:14px monospace;text-anchor:middle;fill:#1d1f21}</style>\n" + "\n".join(lines + boxes) + "\n</svg>\n"
    )


if __name__ == "__main__":
    text = draw()
    if "--check" in sys.argv:
        sys.exit(0 if OUT.exists() and OUT.read_text() == text else "docs/architecture.svg is out of date: python docs/draw_architecture.py")
    OUT.write_text(text)
