"""Run as a script by `test_distributed.py`: train on several gloo ranks and leave their states in a folder.

One process imports torch and forks the ranks, which is far cheaper than starting each anew.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import torch

from sfumato_alflb import Balancer, BiasRouter

N_STEPS, T, D = 6, 96, 16
SIZES = ((8, 2, "sign"), (16, 3, "prop_sqrt"), (4, 1, "sign_inv"))


def routers() -> torch.nn.ModuleList:
    """Three layers with different numbers of experts and rules; weights on a grid, so that products are exact."""
    layers = torch.nn.ModuleList()
    for i, (n_experts, k, rule) in enumerate(SIZES):
        layer = BiasRouter(D, n_experts, k, rule=rule, u=0.01)
        grid = torch.randint(-8, 9, layer.weight.shape, generator=torch.Generator().manual_seed(i))
        layer.weight.data.copy_(grid / 16)
        layers.append(layer)
    return layers


def batch(step: int) -> torch.Tensor:
    return torch.randint(-16, 17, (T, D), generator=torch.Generator().manual_seed(100 + step)) / 16


def train(layers: torch.nn.Module, parts: range, n_parts: int, steps: range) -> None:
    """Route every `n_parts`-th share of each batch named in `parts`, then update once."""
    balancer = Balancer(layers)
    for step in steps:
        for part in parts:
            for layer in layers:
                layer(batch(step)[part::n_parts])
        balancer.step()


def state_of(layers: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in layers.state_dict().items() if "weight" not in k}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def worker(rank: int, world: int, port: int, folder: str) -> None:
    """One rank: train, save a distributed checkpoint of the first half, write the final state."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        layers = routers()
        import torch.distributed.checkpoint as dcp

        if (Path(folder) / "half").exists():
            state = layers.state_dict()
            dcp.load(state, checkpoint_id=str(Path(folder) / "half"))
            layers.load_state_dict(state)
        else:
            train(layers, range(rank, rank + 1), world, range(N_STEPS // 2))
            dcp.save(layers.state_dict(), checkpoint_id=str(Path(folder) / "half"))
        torch.save(state_of(layers), Path(folder) / f"half-{world}-{rank}.pt")
        train(layers, range(rank, rank + 1), world, range(N_STEPS // 2, N_STEPS))
        torch.save(state_of(layers), Path(folder) / f"end-{world}-{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


class Layers(torch.nn.Module):
    """The three routers as one module, so that it can be wrapped."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = routers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([layer(x).weights.sum() for layer in self.layers])


def wrapped_worker(rank: int, world: int, port: int, folder: str) -> None:
    """The same training under FSDP2, under DDP with accumulation, and with DTensors."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        fsdp(rank, world, folder)
        ddp(rank, world, folder)
        dtensor(rank, world, folder)
        attached(rank, world, folder)
    finally:
        torch.distributed.destroy_process_group()


def ddp(rank: int, world: int, folder: str) -> None:
    """DDP sends rank 0's buffers to all before every forward: four microbatches a step, all synchronised."""
    model = torch.nn.parallel.DistributedDataParallel(Layers())
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    Balancer(model).install(optimizer)
    for step in range(N_STEPS):
        for micro in range(4):
            model(batch(step)[micro * world + rank :: 4 * world]).sum().backward()
        optimizer.step()
    torch.save(state_of(model.module.layers), Path(folder) / f"ddp-{rank}.pt")


def dtensor(rank: int, world: int, folder: str) -> None:
    """Router and tokens as DTensors: weights and buffers replicated, tokens sharded."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_module, distribute_tensor

    mesh = init_device_mesh("cpu", (world,))
    layers = routers()
    for layer in layers:
        distribute_module(layer, mesh)
        assert isinstance(layer.bias, DTensor)
    balancer = Balancer(layers)
    for step in range(N_STEPS):
        for layer in layers:
            layer(distribute_tensor(batch(step), mesh, [Shard(0)])).weights.sum().backward()
        balancer.step()
    assert all(report.max_abs_bias > 0 for report in balancer.reports().values())
    states = layers.state_dict()
    layers.load_state_dict(states)
    plain = {k: v.to_local().clone() for k, v in states.items() if "weight" not in k}
    torch.save(plain, Path(folder) / f"dtensor-{rank}.pt")


def fsdp(rank: int, world: int, folder: str) -> None:
    """FSDP2 shards the weights and must leave the router's buffers whole, plain and float32."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.distributed.tensor import DTensor

    layers = routers()
    mesh = init_device_mesh("cpu", (world,))
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
        assert isinstance(layer.weight, DTensor)
    train(layers, range(rank, rank + 1), world, range(N_STEPS))
    for layer in layers:
        assert type(layer.bias) is torch.Tensor and layer.bias.dtype == torch.float32
    torch.save(state_of(layers), Path(folder) / f"fsdp-{rank}.pt")


def adopted() -> torch.nn.Module:
    """A model with routers of its own, one of which holds its bias as a parameter; weights on a grid."""
    from test_attach import ErnieRouter, SoftmaxRouter, Stack

    model = Stack(SoftmaxRouter(), ErnieRouter())
    for i, parameter in enumerate(p for p in model.parameters() if p.shape[-1] == D):
        grid = torch.randint(-8, 9, parameter.shape, generator=torch.Generator().manual_seed(i))
        parameter.data.copy_(grid / 16)
    return model


def attached_training(
    model: torch.nn.Module, balancer: Balancer, part: int, n_parts: int
) -> dict[str, torch.Tensor]:
    for step in range(N_STEPS):
        sum(out[1].sum() for out in model(batch(step)[part::n_parts])).backward()
        balancer.step()
    return {name: state.bias.clone() for name, state in zip(balancer.names, balancer.states, strict=True)}


def attached(rank: int, world: int, folder: str) -> None:
    """attach, then FSDP2 over the whole model: the biases are those of one process."""
    import pytest
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    from sfumato_alflb import ArgumentError, attach

    model = adopted()
    balancer = attach(model, "sign", 0.01)
    fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    torch.save(attached_training(model, balancer, rank, world), Path(folder) / f"attached-{rank}.pt")
    late = adopted()
    fully_shard(late, mesh=init_device_mesh("cpu", (world,)))
    with pytest.raises(ArgumentError, match="before fully_shard"):
        attach(late)


def single(parts: int = 1) -> dict[str, torch.Tensor]:
    layers = routers()
    train(layers, range(parts), parts, range(N_STEPS))
    return state_of(layers)


def launch(function, world: int, folder: str) -> None:
    """Fork `world` ranks and wait for them; any failure ends this process with status 1."""
    port = free_port()
    sys.stdout.flush()
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                function(rank, world, port, folder)
                status = 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]  # wait for all, not up to the first failure
    if any(statuses):
        sys.exit(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = sys.argv[1]
    launch(worker, 4, target)
    launch(worker, 2, target)
    launch(wrapped_worker, 2, target)
    torch.save(single(), Path(target) / "single.pt")
    from sfumato_alflb import attach

    alone = adopted()
    biases = attached_training(alone, attach(alone, "sign", 0.01), 0, 1)
    torch.save(biases, Path(target) / "attached-single.pt")
    torch.save(single(4), Path(target) / "accumulated.pt")
