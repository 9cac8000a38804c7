"""Training on several devices by Lightning Fabric: each process draws pieces of its own, gradients are averaged.

    from sfumato_bqnco.distributed import train_on
    state = train_on(2, cpu_network("tsp"), TrainConfig(), paths, accelerator="cpu", checkpoint=Path("tsp.checkpoint"))

Fabric starts the processes and moves the gradients; what a step is stays in `train.Trainer`. A step of P processes holds
P times `tokens_per_step` tokens. Needs the extra `fabric`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import NetworkConfig, TrainConfig
from .errors import BqncoError

Report = Callable[[int, float, float], None]


def _work(
    fabric: Any,
    network: NetworkConfig,
    config: TrainConfig,
    paths: list[Path],
    checkpoint: Path | None,
    until: int | None,
    report: Report | None,
    weights: Path,
) -> tuple[int, float]:
    """What every process does; the first one writes the averaged weights to `weights`."""
    from .labels import load_labels
    from .train import Trainer

    if fabric.device.type == "cpu":
        torch.set_num_threads(1)
    trainer = Trainer(network, config, load_labels(paths), str(fabric.device), fabric=fabric)
    trainer.run(checkpoint, until=until, report=report if fabric.global_rank == 0 else None)
    if fabric.global_rank == 0:
        # By a file: Fabric reads what a process returns after its end, and the pipe holds 64 kB until then.
        torch.save({k: p.cpu() for k, p in trainer.averaged_network().state_dict().items()}, weights)
    return trainer.step, trainer.loss


def train_on(
    devices: int,
    network: NetworkConfig,
    config: TrainConfig,
    paths: list[Path],
    *,
    accelerator: str = "auto",
    strategy: str = "ddp_spawn",
    checkpoint: Path | None = None,
    until: int | None = None,
    report: Report | None = None,
) -> tuple[dict[str, Tensor], int, float]:
    """Train on `devices` devices of this machine; returns averaged weights, the step reached and the last loss.

    `paths`: shards of labels (see `labels.generate_labels`), read by every process. `accelerator`: `cuda`, `cpu` or
    `auto`; on the CPU a device is a process with one thread. `report(step, loss, CPU seconds)` speaks for the first
    process; with spawned processes it must be importable. An interrupted run resumes bit by bit on the same number of devices.
    Raises BqncoError without lightning-fabric or with fewer devices than asked for.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError as error:
        raise BqncoError(
            "training on several devices needs lightning-fabric, which is not installed; "
            "run: pip install 'sfumato-bqnco[fabric]'"
        ) from error
    if devices < 1:
        raise BqncoError(f"expected at least 1 device, got {devices}")
    if accelerator == "cuda":
        found = torch.cuda.device_count()
        if found < devices:
            raise BqncoError(
                f"expected {devices} CUDA devices, got {found} (torch {torch.__version__}); ask for fewer, or use the CPU"
            )
    fabric: Any = Fabric(accelerator=accelerator, devices=devices, strategy=strategy)
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights"
        step, loss = fabric.launch(_work, network, config, paths, checkpoint, until, report, weights)
        return torch.load(weights, map_location="cpu", weights_only=True), step, loss
