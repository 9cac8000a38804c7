"""Imitation training that stops and resumes bit by bit.

Everything a step depends on is in the checkpoint: weights, their moving average, optimiser, both generators and the
step number, which fixes the schedule. A run that is killed and resumed takes the same steps as one that was not.

Source: Drakulic et al., NeurIPS 2023, section 4: cross-entropy on the next step of an optimal solution. The target
set (`pieces.py`), the schedule, the moving average and the clipping are ours. Muon: K. Jordan et al., "Muon: an
optimizer for hidden layers in neural networks", 2024, as PyTorch has it (from 2.9 on).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from .buckets import Bucketed
from .config import NetworkConfig, TrainConfig
from .features import Tokens
from .network import BQNetwork
from .pieces import Data, sampler


def imitation_loss(logits: Tensor, feasible: Tensor, best: Tensor) -> Tensor:
    """Minus the log-probability of the set of optimal options, averaged over the batch.

    `logits`, `feasible`, `best`: [B, N, A]; probabilities are over feasible options only. With one optimal option
    this is the cross-entropy of the paper.
    """
    logits = logits.float().masked_fill(~feasible, -torch.inf).flatten(1)
    optimal = logits.masked_fill(~best.flatten(1), -torch.inf)
    return (logits.logsumexp(1) - optimal.logsumexp(1)).mean()


class Trainer:
    """Trains one network on labelled data; `data` as the sampler of the problem describes it.

    `initial`: a network of the same shape to start from (fine-tuning, or a second schedule) instead of a random one.
    `fabric`: a launched `lightning_fabric.Fabric` of several processes (see `distributed`): all draw the same length, each
    its own pieces, and gradients are averaged.
    """

    def __init__(
        self,
        network: NetworkConfig,
        config: TrainConfig,
        data: Data,
        device: str = "cpu",
        initial: BQNetwork | None = None,
        fabric: Any = None,
    ) -> None:
        self.network_config = network
        self.config = config
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.network = BQNetwork(network).to(self.device)
        if initial is not None:
            self.network.load_state_dict(initial.state_dict())
        self.average = {k: p.detach().clone() for k, p in self.network.named_parameters()}
        self.notes: dict[str, Any] = {}
        """Whatever else belongs into the checkpoint."""
        self.fabric = fabric
        self.n_processes = 1 if fabric is None else int(fabric.world_size)
        rank = 0 if fabric is None else int(fabric.global_rank)
        self.rng = np.random.default_rng([config.seed, 7])
        # One process draws lengths and pieces from one stream; of several, each has pieces of its own.
        self.piece_rng = self.rng if self.n_processes == 1 else np.random.default_rng([config.seed, 7, rank])
        self.noise = torch.Generator().manual_seed(config.seed + 1_000_003 * rank)
        self.forward: Any = self.network if fabric is None else fabric.setup_module(self.network)
        if config.compile:
            if fabric is not None:
                raise ValueError("training: compile and several processes do not go together yet; choose one")
            self.forward = Bucketed(self.network)
        self.pieces = sampler(network, data)
        self.optimizers = self._make_optimizers()
        self.step = 0
        self.loss = math.nan
        self.cpu_seconds = 0.0

    def _make_optimizers(self) -> list[torch.optim.Optimizer]:
        """AdamW, and Muon before it for the matrices inside the blocks when that is asked for."""
        c = self.config
        named = list(self.network.named_parameters())
        muon = c.optimizer == "muon"
        hidden = [p for name, p in named if muon and p.ndim == 2 and "blocks" in name]
        apart = {id(p) for p in hidden}
        rest = [p for _, p in named if id(p) not in apart]
        adamw = torch.optim.AdamW(
            [
                {"params": [p for p in rest if p.ndim > 1], "weight_decay": c.weight_decay},
                {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=c.learning_rate,
            fused=self.device.type == "cuda",
        )
        if not hidden:
            made: list[torch.optim.Optimizer] = [adamw]
        else:
            made = [torch.optim.Muon(hidden, lr=c.matrix_rate, weight_decay=c.weight_decay), adamw]
        for optimizer in made:
            for group in optimizer.param_groups:
                group["initial_lr"] = group["lr"]
        return made

    def rate(self, step: int) -> float:
        """Learning rate at `step`: linear warm-up, then a cosine to the final rate."""
        c = self.config
        if step < c.warm_up:
            return c.learning_rate * (step + 1) / c.warm_up
        along = min(1.0, (step - c.warm_up) / max(1, c.n_steps - c.warm_up))
        return c.final_rate + (c.learning_rate - c.final_rate) * 0.5 * (1.0 + math.cos(math.pi * along))

    def length(self) -> int:
        """Draw the number of tokens of the next batch."""
        c = self.config
        longest = self.pieces.longest
        if self.step < c.curriculum_steps:
            start = min(longest, 32)
            longest = start + (longest - start) * self.step // c.curriculum_steps
        shortest = min(c.shortest, longest)
        if self.rng.random() < c.share_long:
            shortest = max(shortest, int(0.7 * longest))
        return int(self.rng.integers(shortest, longest + 1))

    def train_step(self) -> float:
        """Draw a batch and take one step; returns its loss."""
        k = self.length()
        batch = max(1, self.config.tokens_per_step // k)
        tokens, feasible, best = self.pieces.sample(k, batch, self.piece_rng)
        identifiers = None
        if self.network_config.problem == "atsp":
            shape = (*tokens.valid.shape, self.network_config.n_identifiers)
            identifiers = torch.rand(shape, generator=self.noise)
        self.loss = self.fit(tokens, identifiers, feasible, best, self.rate(self.step)).item()
        self.check()
        return self.loss

    def check(self) -> None:
        """Raise FloatingPointError when the last loss is not finite."""
        if not math.isfinite(self.loss):
            raise FloatingPointError(
                f"training: the loss is {self.loss} at step {self.step}; the last checkpoint is sound. Check the labels (a "
                "row without a feasible optimal option gives infinity) or lower the learning rate"
            )

    def fit(self, tokens: Tokens, identifiers: Tensor | None, feasible: Tensor, best: Tensor, rate: float) -> Tensor:
        """Take one step on this batch at this learning rate; returns the loss, still on the device.

        A batch whose loss is not finite changes nothing.
        """
        tokens = tokens.to(self.device)
        identifiers = None if identifiers is None else identifiers.to(self.device, non_blocking=True)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * rate / self.config.learning_rate
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.forward(tokens, identifiers)
        loss = imitation_loss(
            logits, feasible.to(self.device, non_blocking=True), best.to(self.device, non_blocking=True)
        )
        # Asking a GPU for the value would stop the queue at every step: there the caller checks now and then.
        if self.device.type == "cpu" and not bool(loss.isfinite()):
            return loss.detach()
        self.network.zero_grad(set_to_none=True)
        loss.backward() if self.fabric is None else self.fabric.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        # A short memory at first, or the average would remember the random start for long.
        decay = min(self.config.ema, (1.0 + self.step) / (10.0 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.values()), [p.detach() for p in self.network.parameters()], 1.0 - decay
            )
        return loss.detach()

    def run(
        self,
        checkpoint: Path | None = None,
        *,
        until: int | None = None,
        cpu_seconds: float | None = None,
        report: Callable[[int, float, float], None] | None = None,
    ) -> None:
        """Train to the end of the schedule, to step `until`, or until this call has used `cpu_seconds`.

        Writes `checkpoint` every `checkpoint_steps` steps and at the end; continues from it when it exists.
        `report(step, mean loss since the last report, CPU seconds so far)` is called at each checkpoint.
        """
        if cpu_seconds is not None and self.n_processes > 1:
            raise ValueError("training: several processes would stop at different steps by CPU time; pass `until`")
        if checkpoint and checkpoint.exists():
            self.load(checkpoint)
        last = self.config.n_steps if until is None else min(until, self.config.n_steps)
        began = time.process_time()
        before = self.cpu_seconds
        total, count = 0.0, 0
        while self.step < last and (cpu_seconds is None or time.process_time() - began < cpu_seconds):
            total += self.train_step()
            count += 1
            self.cpu_seconds = before + time.process_time() - began
            if self.step % self.config.checkpoint_steps == 0:
                if checkpoint:
                    self.save(checkpoint)
                if report:
                    report(self.step, total / count, self.cpu_seconds)
                total, count = 0.0, 0
        if checkpoint:
            self.save(checkpoint)

    def save(self, path: Path) -> None:
        """Write the checkpoint in one atomic rename. Of several processes the first one writes, the others wait."""
        streams = self._streams()
        if self.fabric is not None and self.fabric.global_rank:
            self.fabric.barrier()
            return
        state: dict[str, Any] = {
            "network_config": attrs.asdict(self.network_config),
            "config": attrs.asdict(self.config),
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "streams": streams,
            "step": self.step,
            "loss": self.loss,
            "cpu_seconds": self.cpu_seconds,
            "notes": self.notes,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        torch.save(state, temporary)
        temporary.replace(path)
        if self.fabric is not None:
            self.fabric.barrier()

    def _streams(self) -> list[dict[str, Any]]:
        """The states of the generators of every process, in order of rank."""
        mine = {
            "rng": self.rng.bit_generator.state,
            "pieces": self.piece_rng.bit_generator.state,
            "noise": self.noise.get_state(),
        }
        if self.n_processes == 1:
            return [mine]
        everybody: list[Any] = [None] * self.n_processes
        torch.distributed.all_gather_object(everybody, mine)
        return everybody

    def load(self, path: Path) -> None:
        """Continue from a checkpoint of the same configurations; anything else is refused."""
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, mine in (("network_config", self.network_config), ("config", self.config)):
            theirs = state[name]
            different = {
                k: (theirs.get(k), val) for k, val in attrs.asdict(mine).items() if theirs.get(k) != val
            }
            if different:
                raise ValueError(
                    f"{path}: expected a checkpoint with the same {name}, got other values (checkpoint, now): "
                    f"{different}; use these settings or another checkpoint path"
                )
        if len(state["streams"]) != self.n_processes:
            raise ValueError(
                f"{path}: expected a checkpoint of {self.n_processes} processes, got one of {len(state['streams'])}; "
                "resume with as many devices as it was begun with"
            )
        self.network.load_state_dict(state["network"])
        for name, value in state["average"].items():
            self.average[name].copy_(value)
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        mine = state["streams"][0 if self.fabric is None else self.fabric.global_rank]
        self.rng.bit_generator.state = mine["rng"]
        self.piece_rng.bit_generator.state = mine["pieces"]
        self.noise.set_state(mine["noise"].cpu())
        self.step, self.loss = int(state["step"]), float(state["loss"])
        self.cpu_seconds = float(state["cpu_seconds"])
        self.notes = dict(state.get("notes", {}))

    def averaged_network(self) -> BQNetwork:
        """A copy of the network that carries the moving average, in evaluation mode."""
        network = BQNetwork(self.network_config).to(self.device)
        network.load_state_dict(self.average)
        return network.eval()
