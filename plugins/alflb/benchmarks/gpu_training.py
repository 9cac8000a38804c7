"""Train the 64-expert character model on a GPU under every way to balance, one line an arm and seed as it ends.

    python benchmarks/gpu_training.py --out gpu-training.json --minutes 9
    python benchmarks/gpu_training.py --device cpu --tiny --steps 3 --out try.json    # tries the script

For a machine that is lent in legs: runs that are in the file are skipped, and none is begun that, by the time of the
slowest so far, would not end within `--minutes`. The larger size: width 512, 8 layers, 64 experts of width 256, 6 chosen
and 2 shared, context 512, batch 64, experts and attention in bfloat16, router in float32. The floor is arithmetic: 6
operations for each active weight and token, over `--peak` operations a second.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine

from sfumato_alflb.claims import ARMS
from sfumato_alflb.config import CharLmConfig
from sfumato_alflb.lm import train
from sfumato_alflb.text import help_topics

LARGE: dict[str, Any] = {
    "dim": 512, "n_layers": 8, "heads": 8, "experts": 64, "k": 6, "shared": 2, "expert_width": 256,
    "context": 512, "batch": 64, "bf16": True,
}  # fmt: skip
TINY: dict[str, Any] = {
    "dim": 32,
    "n_layers": 1,
    "heads": 2,
    "experts": 8,
    "expert_width": 16,
    "context": 32,
    "batch": 4,
    "valid_characters": 400,
}


def active_weights(config: CharLmConfig) -> int:
    """Return the weights that one token passes through, embeddings left out."""
    layer = (
        4 * config.dim**2
        + config.dim * config.experts
        + 2 * config.dim * config.expert_width * (config.k + config.shared)
    )
    return config.n_layers * layer


def main() -> None:
    """Train what is missing and fits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a model for trying the script")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--peak", type=float, default=800e12, help="bfloat16 operations a second of the card")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        parser.exit(3, "expected a CUDA device, found none; --device cpu --tiny tries the script\n")
    config = CharLmConfig(steps=options.steps, **(TINY if options.tiny else LARGE))
    text = help_topics()
    card = torch.cuda.get_device_name() if options.device != "cpu" else "CPU"
    rows: list[dict[str, Any]] = json.loads(options.out.read_text())["rows"] if options.out.exists() else []
    begun, slowest = time.monotonic(), 0.0
    for seed in range(options.seeds):
        for arm in options.arms:
            if any((r["arm"], r["seed"], r["steps"]) == (arm, seed, options.steps) for r in rows):
                continue
            if time.monotonic() - begun + slowest > 60 * options.minutes:
                print("the leg is over; run the same command again to go on")
                return
            started = time.monotonic()
            report = train(text, config, ARMS[arm], np.random.default_rng(seed), device=options.device)
            seconds = time.monotonic() - started
            slowest = max(slowest, seconds)
            floor = 6 * active_weights(config) * config.batch * config.context * config.steps / options.peak
            rows.append({
                "arm": arm, "seed": seed, "steps": config.steps, "weights": report.n_weights, "valid_loss": report.valid_loss,
                "max_vio_global": report.max_vio_global, "max_vio_batch": report.max_vio_batch,
                "max_abs_bias": report.max_abs_bias, "seconds": round(seconds, 1), "floor_seconds": round(floor, 1),
                "fraction_of_floor": round(floor / seconds, 3),
            })  # fmt: skip
            content = {"machine": machine(), "card": card, "torch": torch.__version__, "rows": rows}
            options.out.write_text(json.dumps(content, indent=1) + "\n")
            print(json.dumps(rows[-1]), flush=True)


if __name__ == "__main__":
    main()
