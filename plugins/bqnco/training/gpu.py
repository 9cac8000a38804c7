"""Train one problem's weights on a GPU that is lent in legs of minutes; the same command goes on where the last leg stopped.

    python training/gpu.py tsp --labels labels/tsp --out weights/tsp.safetensors --minutes 9 --total-minutes 27
    python training/gpu.py tsp --device cpu --small --labels LABELS --out try.safetensors --minutes 0.2   # tries it

Labels come from `sfumato bqnco labels tsp labels/tsp --n 100 --count 200000 -j 16` (a processor's work; folders of shards). Plan:
TSP first, then CVRP, OP and KP, ATSP; spare legs go to TSP and CVRP again.

What a step sees depends on the seed and its number alone, so that batches are drawn ahead by other processes and a run
that was cut goes on exactly. The training itself is the package's `Trainer`, and compiling by length bucket its `Bucketed`; what
is done here is what a lent machine asks for: the learning rate follows a cosine over the seconds of training, not over
steps, because nobody knows beforehand how many steps a leg holds, and a leg saves and validates as it goes.

The floor that is printed: 6 operations a weight and token, over `--peak`.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sfumato_bqnco.buckets import bucket
from sfumato_bqnco.config import NetworkConfig, TrainConfig, cpu_network
from sfumato_bqnco.features import Tokens
from sfumato_bqnco.instances import from_arrays
from sfumato_bqnco.labels import load_labels
from sfumato_bqnco.network import BQNetwork
from sfumato_bqnco.pieces import Data, sampler
from sfumato_bqnco.policy import BQPolicy
from sfumato_bqnco.train import Trainer
from sfumato_bqnco.validate import objective
from sfumato_bqnco.weights import save

HELD = 256
"""Instances kept out of training, for the greedy gap."""


class Batches(IterableDataset[Any]):
    """Training pieces by step number; worker w of W draws steps w, w + W, …, which the loader puts back in order."""

    def __init__(self, network: NetworkConfig, data: Data, first: int, tokens: int, seed: int) -> None:
        self.network, self.data, self.first = network, data, first
        self.tokens, self.seed = tokens, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        worker = get_worker_info()
        mine, of = (worker.id, worker.num_workers) if worker else (0, 1)
        pieces = sampler(self.network, self.data)
        step = self.first + mine
        while True:
            rng = np.random.default_rng([self.seed, step])
            # Whole buckets: the compiled network would pad whatever lies between them.
            k = min(pieces.longest, bucket(int(rng.integers(8, pieces.longest + 1))))
            tokens, feasible, best = pieces.sample(k, max(1, self.tokens // k), rng)
            noise = torch.empty(0)
            if self.network.problem == "atsp":
                shape = (*tokens.valid.shape, self.network.n_identifiers)
                noise = torch.from_numpy(rng.random(shape, dtype=np.float32))
            none = torch.empty(0)
            xy = none if tokens.xy is None else tokens.xy
            matrix = none if tokens.matrix is None else tokens.matrix
            yield tokens.x, tokens.valid, xy, matrix, feasible, best, noise
            step += of


def unpack(
    parts: tuple[torch.Tensor, ...],
) -> tuple[Tokens, torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Return a batch as the trainer takes it; empty tensors stand for what the problem does not have."""
    x, valid, xy, matrix, feasible, best, noise = parts
    tokens = Tokens(x, valid, xy if xy.numel() else None, matrix if matrix.numel() else None)
    return tokens, noise if noise.numel() else None, feasible, best


ARRAYS = {
    "tsp": ("xy",), "atsp": ("matrix",), "cvrp": ("xy", "demand", "capacity"), "op": ("xy", "prize", "budget"),
    "kp": ("value", "weight", "capacity"), "cvrptw": ("xy", "demand", "capacity", "windows", "service"),
}  # fmt: skip


def plan(problem: str, data: Data, row: int) -> Any:
    """Return the labelled solution of one instance as the validators read it."""
    if problem in ("tsp", "atsp"):
        return data["tour"][row].tolist()
    if problem in ("cvrp", "cvrptw"):
        cuts = np.flatnonzero(data["starts"][row])[1:]
        return [route.tolist() for route in np.split(data["seq"][row], cuts)]
    if problem == "op":
        return [v for v in data["path"][row].tolist() if v >= 0]
    return np.flatnonzero(data["chosen"][row]).tolist()


def greedy_gap(network: BQNetwork, held: Data, device: str) -> float:
    """Return the mean gap in per cent of greedy decoding to the labels of the instances that were kept out."""
    problem = network.config.problem
    arrays = {k: held[k] for k in ARRAYS[problem]}
    cost = BQPolicy(network, device=device).solve(arrays).cost
    reference = np.array(
        [objective(from_arrays(problem, arrays, b), plan(problem, held, b)) for b in range(len(cost))]
    )
    sign = -1.0 if problem in ("op", "kp") else 1.0
    return float(np.mean(100.0 * sign * (sign * cost - reference) / np.abs(reference)))


def rate(config: TrainConfig, step: int, along: float) -> float:
    """Return the learning rate at `step`, after a share `along` of the training time."""
    cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, along)))
    top = config.final_rate + (config.learning_rate - config.final_rate) * cosine
    return top * min(1.0, (step + 1) / max(1, config.warm_up))


def main() -> None:
    """Train for one leg."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("problem", choices=sorted(ARRAYS))
    parser.add_argument("--labels", type=Path, required=True, help="folder of shards")
    parser.add_argument(
        "--out", type=Path, required=True, help="safetensors file; the checkpoint lies beside it"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="of this leg, compiling included")
    parser.add_argument(
        "--total-minutes", type=float, default=27.0, help="of training, over all legs: the schedule's length"
    )
    parser.add_argument("--tokens", type=int, default=54_000, help="a step; 1,024 pieces of the mean length")
    parser.add_argument("--validate", type=int, default=5000, help="steps between greedy gaps")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="the network for a CPU, to try the script")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peak", type=float, default=800e12, help="bfloat16 operations a second of the card")
    options = parser.parse_args()
    begun = time.monotonic()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.exit(3, "expected a CUDA device, found none; --device cpu --small tries the script\n")
    shards = sorted(options.labels.glob(f"{options.problem}*.npz"))
    if not shards:
        parser.error(
            f"{options.labels}: expected shards {options.problem}*.npz, found none; run 'sfumato bqnco labels' first"
        )
    data = load_labels(shards)
    count = len(next(iter(data.values())))
    n_held = min(HELD, count // 10)
    held, kept = {k: a[:n_held] for k, a in data.items()}, {k: a[n_held:] for k, a in data.items()}
    network = cpu_network(options.problem) if options.small else NetworkConfig(problem=options.problem)
    config = TrainConfig(
        optimizer="adamw", tokens_per_step=options.tokens, warm_up=1000, seed=options.seed, compile=not options.eager
    )
    trainer = Trainer(network, config, kept, options.device)
    checkpoint = options.out.with_suffix(".checkpoint")
    if checkpoint.exists():
        try:
            trainer.load(checkpoint)
        except ValueError as error:
            raise SystemExit(str(error)) from error
        print(f"going on at step {trainer.step}, after {trainer.notes['seconds']:.0f} s of training")
    notes = trainer.notes = {"seconds": 0.0, "gaps": []} | trainer.notes
    batches = Batches(network, kept, trainer.step, options.tokens, options.seed)
    loader = DataLoader(
        batches, batch_size=None, num_workers=options.workers, pin_memory=device.type == "cuda",
        prefetch_factor=4 if options.workers else None,
    )  # fmt: skip
    floor, loss_sum = 0.0, torch.zeros((), device=device)
    saved = started = time.monotonic()
    spent, first, marked = notes["seconds"], trainer.step, trainer.step
    for parts in loader:
        now = time.monotonic()
        notes["seconds"] = spent + now - started
        if now - begun > 60 * options.minutes or notes["seconds"] > 60 * options.total_minutes:
            break
        tokens, noise, feasible, best = unpack(parts)
        here = rate(config, trainer.step, notes["seconds"] / (60 * options.total_minutes))
        loss_sum += trainer.fit(tokens, noise, feasible, best, here)
        floor += 6.0 * trainer.network.n_parameters * tokens.valid.numel() / options.peak
        save_now = time.monotonic() - saved > 180
        if trainer.step % 100 == 0 or save_now:
            trainer.loss = float(loss_sum) / max(1, trainer.step - marked)
            trainer.check()
        if trainer.step % options.validate == 0:
            gap = greedy_gap(trainer.averaged_network(), held, options.device)
            notes["gaps"].append([trainer.step, round(gap, 3)])
            mean = float(loss_sum) / (trainer.step - marked)
            print(f"step {trainer.step}  loss {mean:.4f}  greedy gap {gap:.2f} %", flush=True)
            marked = trainer.step
            loss_sum.zero_()
        if save_now:
            trainer.save(checkpoint)
            saved = time.monotonic()
    trainer.save(checkpoint)
    averaged = trainer.averaged_network()
    gap = greedy_gap(averaged, held, options.device)
    wall = time.monotonic() - started
    steps = trainer.step - first
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    save(options.out, averaged, {
        "labels": {"instances": count - n_held, "shards": len(shards), "solver": "this package, see labels.py"},
        "training": {
            "script": "training/gpu.py", "steps": trainer.step, "seconds": round(notes["seconds"]), "seed": options.seed,
            "device": card, "tokens_per_step": options.tokens, "torch": torch.__version__,
        },
        "validation": {"instances": n_held, "greedy_gap_percent": round(gap, 3), "history": notes["gaps"]},
        "licence": "Apache-2.0",
    })  # fmt: skip
    print(json.dumps({
        "steps": trainer.step, "greedy_gap_percent": round(gap, 3), "ms_a_step": round(1e3 * wall / max(1, steps), 2),
        "fraction_of_floor": round(floor / wall, 3), "card": card,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
