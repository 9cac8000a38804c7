"""Drive the programs of a build of AdaCompNUS/despot and read what they print; nothing of theirs is part of this package."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfumato_vopp import RockSample
from sfumato_vopp.models.lasertag import LaserTag
from sfumato_vopp.models.tag import Tag

#: Problem -> program below the build folder, and its arguments.
PROGRAMS = {
    "rocksample-7-8": ("examples/cpp_models/rock_sample/despot_rock_sample", ["--size", "7", "--number", "8"]),
    "rocksample-11-11": ("examples/cpp_models/rock_sample/despot_rock_sample", ["--size", "11", "--number", "11"]),
    "tag": ("examples/cpp_models/tag/despot_tag", []),
    "lasertag": ("examples/cpp_models/tag/despot_noisy_laser_tag", []),
}


def run(folder: str, problem: str, seconds: float, episodes: int, seed: int, max_steps: int) -> Iterator[dict[str, Any]]:
    """Run the program with its defaults; yield for each episode its start state, return, steps and CPU seconds.

    The CPU time is that of the whole process shared out by steps: search, filter, world and the program's start.
    """
    program, arguments = PROGRAMS[problem]
    command = [
        str(Path(folder) / program), *arguments, "-t", str(seconds), "--runs", str(episodes), "-r", str(seed),
        "-s", str(max_steps), "-v", "2",
    ]  # fmt: skip
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rounds = re.split(r"#+ Round \d+ #+", text)[1:]
    if len(rounds) != episodes:
        raise RuntimeError(f"expected {episodes} episodes from {command[0]}, got {len(rounds)}")
    found = []
    for part in rounds:
        drawing = part.split("Initial state:")[1].split("-----")[0]
        found.append(
            {
                **_start(problem, [line for line in drawing.splitlines() if line.strip()]),
                "return": float(re.findall(r"Total discounted reward = (\S+)", part)[0]),
                "steps": int(re.findall(r"Simulation terminated in (\d+) steps", part)[0]),
            }
        )
    cpu = float(re.findall(r"Total time: Real / CPU = \S+ / ([\d.]+)s", text)[0])
    steps = sum(item["steps"] for item in found)
    for item in found:
        yield {**item, "ended": item["steps"] < max_steps, "cpu_seconds": cpu * item["steps"] / steps}


def _start(problem: str, lines: list[str]) -> dict[str, Any]:
    """Return {"start": our state number} (and the layout, where there is one) of the state drawn in these lines."""
    if problem.startswith("rocksample"):
        n = len(lines) - 2
        model = RockSample(n, {7: 8, 11: 11}[n])
        packed = model.start_cell
        robot = [(x, n - 1 - row) for row, line in enumerate(lines[1:-1]) for x in range(n) if line[2 + 2 * x] == "R"]
        assert robot == [(0, model.start_cell // n)], f"the maps differ: the robot is drawn at {robot}"
        # A rock is drawn as its number and "$" (good) or "X"; numbers of two digits run into the next column.
        text = " ".join(lines)
        drawn = re.findall(r"(\d+)([$X])", text)
        assert len(drawn) == model.k, f"expected {model.k} rocks in the drawing, got {len(drawn)}"
        for number, worth in drawn:
            packed |= (worth == "$") << (16 + int(number))
        return {"start": packed}
    rows = [line for line in lines if set(line) <= set(".#ROQ")]
    at = {
        mark: (x, y)
        for y, line in enumerate(rows)
        for x, mark in enumerate(line)
        if mark in "ROQ"
    }
    robot, opponent = at.get("R", at.get("Q")), at.get("O", at.get("Q"))
    if problem == "tag":
        model = Tag()
        return {"start": model.cells.index(robot) * model.n_cells + model.cells.index(opponent)}
    walls = [[x, y] for y, line in enumerate(rows) for x, mark in enumerate(line) if mark == "#"]
    tagged = LaserTag(tuple((x, y) for x, y in walls))
    return {"start": tagged.cells.index(robot) * tagged.n_cells + tagged.cells.index(opponent), "obstacles": walls}
