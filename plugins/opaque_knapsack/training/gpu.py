"""The 2 x 2 at the size for a GPU that is lent in legs of minutes: three seeds, both levels; the same command goes on.

    python training/gpu.py --out two-by-two-gpu.json --models models --minutes 9
    python training/gpu.py --device cpu --size smoke --levels micro --seeds 3407 --out try.json --models try   # tries it

A piece of work is one training (a level, a seed, a regime) or one cell played; what is in the file or the folder is not
done again. No piece is begun that, by the longest of its kind so far, would not end within `--minutes`. Models stay in their folder
on the machine (160 MB each); the file, which is small, is what comes back: figures of the cells, paired tests, and every
episode's row without its messages. The order is by seed, then level, so that one seed of both levels is whole first.

The floor that is given for each training: 6 operations a weight and token, over `--peak`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import attrs
import torch

from sfumato.context import RunContext
from sfumato_opaque_knapsack import learned, metrics, study
from sfumato_opaque_knapsack.experts import REGIMES


def played_from(row: dict[str, Any]) -> study.Played:
    """Return an episode as it was written, without its messages."""
    return study.Played(**{**row, "tokens": metrics.Tokens(**row["tokens"]), "messages": []})


class Work:
    """The file, the clock, and how long each kind of piece took."""

    def __init__(self, out: Path, minutes: float) -> None:
        self.out, self.minutes, self.begun = out, minutes, time.monotonic()
        self.longest = {"train": 0.0, "play": 0.0}
        empty: dict[str, Any] = {"training": {}, "cells": {}, "studies": {}}
        self.content: dict[str, Any] = json.loads(out.read_text()) if out.exists() else empty

    def fits(self, kind: str) -> bool:
        """Return whether a piece of this kind should end in time."""
        return time.monotonic() - self.begun + self.longest[kind] < 60 * self.minutes

    def done(self, kind: str, started: float) -> None:
        """Note how long it took and write the file in one rename."""
        self.longest[kind] = max(self.longest[kind], time.monotonic() - started)
        temporary = self.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.content, indent=1) + "\n")
        temporary.replace(self.out)


def study_of(work: Work, options: argparse.Namespace, level: str, seed: int) -> bool:
    """Do what is missing of one study; False when the time is up."""
    size = attrs.evolve(learned.SIZES[options.size], level=level)
    name = f"{level}-{seed}"
    ctx = RunContext()
    cells: dict[str, list[study.Played]] = {}
    for regime in REGIMES:
        folder = options.models / f"{name}-{regime}"
        if not (folder / "training.json").exists():
            if not work.fits("train"):
                return False
            started = time.monotonic()
            folder.mkdir(parents=True, exist_ok=True)
            figures = learned.train_decoder(folder, size, regime, seed=seed, device=options.device)
            floor = 6.0 * figures["parameters"] * figures["tokens"] / options.peak
            figures |= {"floor_seconds": floor, "fraction_of_floor": floor / figures["seconds"]}
            work.content["training"][f"{name}-{regime}"] = figures
            work.done("train", started)
            print(f"{name} {regime}: loss {figures['loss']:.3f} after {figures['seconds']:.0f} s", flush=True)
        for runtime_name, ref in learned.RUNTIMES.items():
            cell = f"{regime[0].upper()}->{runtime_name[0].upper()}"
            key = f"{name} {cell}"
            if key not in work.content["cells"]:
                if not work.fits("play"):
                    return False
                started = time.monotonic()
                runtime = ctx.component(ref, {"packages": ()}, kind="runtime")
                played = learned.play_cell(folder, size, runtime, ctx, batch=100, device=options.device)
                rows = [attrs.asdict(p, filter=lambda field, _: field.name != "messages") for p in played]
                work.content["cells"][key] = rows
                work.done("play", started)
                print(f"{key}: score {sum(p.score for p in played) / len(played):.3f}", flush=True)
            cells[cell] = [played_from(row) for row in work.content["cells"][key]]
    expert = learned.expert_reference(size)
    work.content["studies"][name] = {
        "figures": {cell: study.cell_figures(played, expert) for cell, played in cells.items()},
        "tests": study.compare_cells(cells),
    }
    work.done("play", time.monotonic())
    return True


def main() -> None:
    """Do what fits into one leg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--models", type=Path, required=True, help="folder that stays on the machine between legs"
    )
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--size", choices=list(learned.SIZES), default="gpu")
    parser.add_argument("--levels", nargs="+", default=["easy", "hard"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3407, 777, 1337])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--peak", type=float, default=800e12, help="bfloat16 operations a second of the card")
    options = parser.parse_args()
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.exit(
            3,
            "expected a CUDA device, found none; --device cpu --size smoke --levels micro tries the script\n",
        )
    work = Work(options.out, options.minutes)
    work.content["card"] = torch.cuda.get_device_name() if options.device != "cpu" else "CPU"
    for seed in options.seeds:
        for level in options.levels:
            if not study_of(work, options, level, seed):
                print("the leg is over; run the same command again to go on")
                return


if __name__ == "__main__":
    main()
