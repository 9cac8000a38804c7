"""Several gloo processes on one machine: biases agree bit for bit, whatever the number of ranks."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the extra 'torch'")

if not torch.distributed.is_available():  # pragma: no cover
    pytest.skip("this torch has no distributed package", allow_module_level=True)

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


def fsdp_worker(rank: int, world: int, port: int, folder: str) -> None:
    """FSDP2 shards the weights and must leave the router's buffers whole, plain and float32."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    try:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        layers = routers()
        mesh = init_device_mesh("cpu", (world,))
        for layer in layers:
            fully_shard(layer, mesh=mesh, mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
        train(layers, range(rank, rank + 1), world, range(N_STEPS))
        for layer in layers:
            assert type(layer.bias) is torch.Tensor and layer.bias.dtype == torch.float32
            assert type(layer.weight) is not torch.nn.Parameter  # a DTensor: it was sharded
        torch.save(state_of(layers), Path(folder) / f"fsdp-{rank}.pt")
    finally:
        torch.distributed.destroy_process_group()


def spawn(function, world: int, folder: Path) -> None:
    torch.multiprocessing.spawn(function, (world, free_port(), str(folder)), nprocs=world, join=True)


def single() -> dict[str, torch.Tensor]:
    layers = routers()
    train(layers, range(1), 1, range(N_STEPS))
    return state_of(layers)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_four_ranks_and_two_equal_one_process_and_reload_each_other(tmp_path: Path) -> None:
    """Train half on 4 ranks, save, load on 2, train on: the same bits as one process on whole batches."""
    spawn(worker, 4, tmp_path)
    spawn(worker, 2, tmp_path)
    load = lambda name: torch.load(tmp_path / name, weights_only=True)  # noqa: E731
    halves = [load(f"half-4-{r}.pt") for r in range(4)] + [load(f"half-2-{r}.pt") for r in range(2)]
    assert all(same(halves[0], other) for other in halves)
    want = single()
    for world in (4, 2):
        for rank in range(world):
            assert same(load(f"end-{world}-{rank}.pt"), want)
    assert any(bool(v.abs().max() > 0) for k, v in want.items() if "bias" in k)


def test_accumulation_in_one_process_equals_the_same_tokens_at_once() -> None:
    """Four microbatches and one update: the bits of one large batch."""
    layers = routers()
    train(layers, range(4), 4, range(N_STEPS))
    assert same(state_of(layers), single())


def test_fsdp2_leaves_the_balance_alone(tmp_path: Path) -> None:
    """Two ranks, weights sharded and cast to bfloat16 (exact on this grid): the same bits again."""
    spawn(fsdp_worker, 2, tmp_path)
    want = single()
    for rank in range(2):
        got = torch.load(tmp_path / f"fsdp-{rank}.pt", weights_only=True)
        assert same(got, want)
