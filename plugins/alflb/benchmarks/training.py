"""Train the character model under several ways to balance, and write one line a run as it ends.

    python benchmarks/training.py --size small --seeds 3 --arms none "switch 0.01" "sign 1e-3"

Resumable: runs already in the file are skipped. Beside the figures of `alflb/char-lm`, each run's router is
measured on training text of the same length as the held-out text: if the loads are even there and uneven
on the held-out text, it is the text that differs, not the rule that failed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import attrs
import numpy as np
import torch
from common import RESULTS, machine

from sfumato_alflb.claims import ARMS, SCALED
from sfumato_alflb.config import CharLmConfig
from sfumato_alflb.lm import train, validate
from sfumato_alflb.text import CharText, help_topics


def vio(counts: np.ndarray) -> float:
    """Return MaxVio of counts [n_layers, E], mean over layers."""
    return float((counts.max(axis=1) / counts.mean(axis=1) - 1.0).mean())


def measure(text: CharText, config: CharLmConfig, arm: str, seed: int) -> dict[str, object]:
    """Train one arm and return its row."""
    report = train(text, config, ARMS[arm], np.random.default_rng(seed))
    start = len(text.train) // 2
    seen = attrs.evolve(text, valid=text.train[start : start + len(text.valid)])
    seen_loss, seen_counts = validate(report.model, seen, config, "cpu")
    return {
        "arm": arm, "seed": seed, "steps": config.steps, "weights": report.n_weights,
        "valid_loss": report.valid_loss, "max_vio_global": report.max_vio_global,
        "max_vio_batch": report.max_vio_batch, "seen_loss": seen_loss, "max_vio_seen": vio(seen_counts),
        "max_abs_bias": report.max_abs_bias, "cpu_seconds": round(report.cpu_seconds, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=("tiny", "small"), default="small")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = options.out or RESULTS / f"training-{options.size}.json"
    stored = json.loads(out.read_text()) if out.exists() else {"machine": machine(), "rows": []}
    text = help_topics()
    config = attrs.evolve(CharLmConfig(steps=options.steps), **(SCALED if options.size == "tiny" else {}))
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for arm in options.arms:
            if any((r["arm"], r["seed"], r["steps"]) == (arm, seed, options.steps) for r in stored["rows"]):
                continue
            row = measure(text, config, arm, seed)
            stored["rows"].append(row)
            out.write_text(json.dumps(stored, indent=1) + "\n")
            print(json.dumps(row), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
