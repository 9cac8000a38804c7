"""Train one problem's weights on a GPU that is lent in legs of minutes; the same command goes on where the last leg stopped.

    python training/gpu.py tsp --labels labels/tsp --out weights/tsp.safetensors --minutes 9 --total-minutes 27
    python training/gpu.py tsp --device cpu --small --labels LABELS --out try.safetensors --minutes 0.2   # tries it

Labels come from `sfumato bqnco labels tsp labels/tsp --n 100 --count 200000 -j 16` (a processor's work; folders of shards). Plan:
TSP first, then CVRP, OP and KP, ATSP; spare legs go to TSP and CVRP again.

What a step sees depends on the seed and its number alone, so that batches are drawn ahead by other processes and a run
that was cut goes on exactly: weights, average, optimiser, step and seconds spent are in the checkpoint. The learning
rate follows a cosine over the seconds of training, not over steps, because nobody knows beforehand how many steps a leg
holds. Lengths are rounded to a few buckets and the network is compiled for each; where compiling fails, the
script says so and goes on without. bfloat16 in the network, float32 weights, loss and moving average.

The floor that is printed: 6 operations a weight and token, over `--peak`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sfumato_bqnco.config import NetworkConfig, TrainConfig, cpu_network
from sfumato_bqnco.features import Tokens
from sfumato_bqnco.instances import from_arrays
from sfumato_bqnco.labels import load_labels
from sfumato_bqnco.network import BQNetwork
from sfumato_bqnco.pieces import Data, sampler
from sfumato_bqnco.policy import BQPolicy
from sfumato_bqnco.train import imitation_loss
from sfumato_bqnco.validate import objective
from sfumato_bqnco.weights import save

HELD = 256
"""Instances kept out of training, for the greedy gap."""


class Batches(IterableDataset[Any]):
    """Training pieces by step number; worker w of W draws steps w, w + W, …, which the loader puts back in order."""

    def __init__(
        self, network: NetworkConfig, data: Data, first: int, tokens: int, bucket: int, seed: int
    ) -> None:
        self.network, self.data, self.first = network, data, first
        self.tokens, self.bucket, self.seed = tokens, bucket, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        worker = get_worker_info()
        mine, of = (worker.id, worker.num_workers) if worker else (0, 1)
        pieces = sampler(self.network, self.data)
        step = self.first + mine
        while True:
            rng = np.random.default_rng([self.seed, step])
            drawn = int(rng.integers(8, pieces.longest + 1))
            k = min(pieces.longest, math.ceil(drawn / self.bucket) * self.bucket)
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
    parts: tuple[torch.Tensor, ...], device: torch.device
) -> tuple[Tokens, torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Move a batch to the device; empty tensors stand for what the problem does not have."""
    x, valid, xy, matrix, feasible, best, noise = (part.to(device, non_blocking=True) for part in parts)
    tokens = Tokens(x, valid, xy if xy.numel() else None, matrix if matrix.numel() else None)
    return tokens, noise if noise.numel() else None, feasible, best


ARRAYS = {
    "tsp": ("xy",), "atsp": ("matrix",), "cvrp": ("xy", "demand", "capacity"), "op": ("xy", "prize", "budget"),
    "kp": ("value", "weight", "capacity"),
}  # fmt: skip


def plan(problem: str, data: Data, row: int) -> Any:
    """Return the labelled solution of one instance as the validators read it."""
    if problem in ("tsp", "atsp"):
        return data["tour"][row].tolist()
    if problem == "cvrp":
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


class Leg:
    """A training run that is cut into legs: everything a step depends on, and the checkpoint that holds it."""

    def __init__(self, network: NetworkConfig, config: TrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.device = config, device
        self.network = BQNetwork(network).to(device)
        matrices = [p for p in self.network.parameters() if p.ndim > 1]
        scalars = [p for p in self.network.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": scalars, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            fused=device.type == "cuda",
        )
        self.average = [p.detach().clone() for p in self.network.parameters()]
        self.step, self.seconds, self.gaps = 0, 0.0, []  # type: ignore[var-annotated]

    def rate(self, along: float) -> float:
        """Return the learning rate after a share `along` of the training time."""
        c = self.config
        cosine = c.final_rate + (c.learning_rate - c.final_rate) * 0.5 * (
            1.0 + math.cos(math.pi * min(1.0, along))
        )
        return cosine * min(1.0, (self.step + 1) / max(1, c.warm_up))

    def averaged(self) -> BQNetwork:
        """Return a network that carries the moving average."""
        network = BQNetwork(self.network.config).to(self.device)
        with torch.no_grad():
            for p, mean in zip(network.parameters(), self.average, strict=True):
                p.copy_(mean)
        return network.eval()

    def save(self, path: Path) -> None:
        """Write the checkpoint in one rename."""
        state = {
            "network_config": attrs.asdict(self.network.config), "config": attrs.asdict(self.config),
            "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict(), "average": self.average,
            "step": self.step, "seconds": self.seconds, "gaps": self.gaps,
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        torch.save(state, temporary)
        temporary.replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same network and settings; others are refused."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, mine in (
            ("network_config", attrs.asdict(self.network.config)),
            ("config", attrs.asdict(self.config)),
        ):
            if state[name] != mine:
                raise SystemExit(
                    f"{path}: expected a checkpoint of the same {name}, got another; use another --out"
                )
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        for mean, kept in zip(self.average, state["average"], strict=True):
            mean.copy_(kept)
        self.step, self.seconds, self.gaps = state["step"], state["seconds"], state["gaps"]


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
    parser.add_argument("--bucket", type=int, default=8, help="lengths are rounded up to multiples of this")
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
    config = TrainConfig(optimizer="adamw", tokens_per_step=options.tokens, warm_up=1000, seed=options.seed)
    leg = Leg(network, config, device)
    checkpoint = options.out.with_suffix(".checkpoint")
    if checkpoint.exists():
        leg.load(checkpoint)
        print(f"going on at step {leg.step}, after {leg.seconds:.0f} s of training")
    forward: Any = leg.network if options.eager else torch.compile(leg.network, dynamic=False)
    batches = Batches(network, kept, leg.step, options.tokens, options.bucket, options.seed)
    loader = DataLoader(
        batches, batch_size=None, num_workers=options.workers, pin_memory=device.type == "cuda",
        prefetch_factor=4 if options.workers else None,
    )  # fmt: skip
    floor = loss_sum = 0.0
    saved = started = time.monotonic()
    spent, first, marked = leg.seconds, leg.step, leg.step
    for parts in loader:
        now = time.monotonic()
        leg.seconds = spent + now - started
        if now - begun > 60 * options.minutes or leg.seconds > 60 * options.total_minutes:
            break
        tokens, noise, feasible, best = unpack(parts, device)
        rate = leg.rate(leg.seconds / (60 * options.total_minutes))
        for group in leg.optimizer.param_groups:
            group["lr"] = rate
        leg.network.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            try:
                logits = forward(tokens, noise)
            except torch._dynamo.exc.TorchDynamoException as reason:
                print(f"cannot compile, going on without: {str(reason).splitlines()[0]}")
                forward = leg.network
                logits = forward(tokens, noise)
        loss = imitation_loss(logits, feasible, best)
        leg.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(leg.network.parameters(), config.clip)
        leg.optimizer.step()
        leg.step += 1
        decay = min(config.ema, (1.0 + leg.step) / (10.0 + leg.step))
        with torch.no_grad():
            torch._foreach_lerp_(leg.average, [p.detach() for p in leg.network.parameters()], 1.0 - decay)
        floor += 6.0 * leg.network.n_parameters * tokens.valid.numel() / options.peak
        loss_sum = loss_sum + loss.detach()
        if leg.step % options.validate == 0:
            gap = greedy_gap(leg.averaged(), held, options.device)
            leg.gaps.append([leg.step, round(gap, 3)])
            print(
                f"step {leg.step}  loss {float(loss_sum) / (leg.step - marked):.4f}  greedy gap {gap:.2f} %",
                flush=True,
            )
            loss_sum, marked = 0.0, leg.step
        if time.monotonic() - saved > 180:
            leg.save(checkpoint)
            saved = time.monotonic()
    leg.save(checkpoint)
    averaged = leg.averaged()
    gap = greedy_gap(averaged, held, options.device)
    wall = time.monotonic() - started
    steps = leg.step - first
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    save(options.out, averaged, {
        "labels": {"instances": count - n_held, "shards": len(shards), "solver": "this package, see labels.py"},
        "training": {
            "script": "training/gpu.py", "steps": leg.step, "seconds": round(leg.seconds), "seed": options.seed, "device": card,
            "tokens_per_step": options.tokens, "torch": torch.__version__,
        },
        "validation": {"instances": n_held, "greedy_gap_percent": round(gap, 3), "history": leg.gaps},
        "licence": "Apache-2.0",
    })  # fmt: skip
    print(json.dumps({
        "steps": leg.step, "greedy_gap_percent": round(gap, 3), "ms_a_step": round(1e3 * wall / max(1, steps), 2),
        "fraction_of_floor": round(floor / wall, 3), "card": card,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
