"""Training by several processes (Lightning Fabric on the CPU)."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from sfumato_bqnco.config import NetworkConfig, TrainConfig, cpu_network
from sfumato_bqnco.distributed import train_on
from sfumato_bqnco.errors import BqncoError
from sfumato_bqnco.labels import generate_labels, load_labels
from sfumato_bqnco.train import Trainer, imitation_loss

CONFIG = TrainConfig(n_steps=6, tokens_per_step=120, warm_up=2, checkpoint_steps=3)


def tiny(problem: str) -> NetworkConfig:
    # Above 64 kB of weights: more than a pipe holds.
    return attrs.evolve(cpu_network(problem), width=48, n_heads=3, n_layers=1, feed_forward=128)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return generate_labels("tsp", 12, 8, tmp_path_factory.mktemp("labels"), effort=30)


@pytest.mark.optional
def test_two_processes_resume_bit_by_bit(shards, tmp_path):
    """A run cut in the middle ends at the same weights; its checkpoint says how many processes it had."""
    pytest.importorskip("lightning_fabric", reason="needs lightning-fabric (extra fabric)")
    how = {"accelerator": "cpu", "strategy": "ddp_fork"}
    whole, step, _ = train_on(2, tiny("tsp"), CONFIG, shards, checkpoint=tmp_path / "a", **how)
    assert step == 6
    train_on(2, tiny("tsp"), CONFIG, shards, checkpoint=tmp_path / "b", until=3, **how)
    again, step, _ = train_on(2, tiny("tsp"), CONFIG, shards, checkpoint=tmp_path / "b", **how)
    assert step == 6
    for name, value in whole.items():
        assert torch.equal(value, again[name])

    saved = torch.load(tmp_path / "a", weights_only=True)
    assert len(saved["streams"]) == 2 and saved["streams"][0]["pieces"] != saved["streams"][1]["pieces"]
    with pytest.raises(ValueError, match="checkpoint of 1 processes, got one of 2"):
        Trainer(tiny("tsp"), CONFIG, load_labels(shards)).load(tmp_path / "a")


@pytest.mark.optional
def test_averaged_gradients_are_those_of_both_batches(shards):
    """After one step, two processes have the weights of one that saw both batches."""
    pytest.importorskip("lightning_fabric", reason="needs lightning-fabric (extra fabric)")
    config = TrainConfig(n_steps=1, tokens_per_step=120, warm_up=1, ema=0.0, optimizer="adamw")
    state, _, _ = train_on(2, tiny("tsp"), config, shards, accelerator="cpu", strategy="ddp_fork")
    one = Trainer(tiny("tsp"), config, load_labels(shards))
    k = one.length()
    losses = []
    for rank in range(2):
        tokens, feasible, best = one.pieces.sample(k, max(1, 120 // k), np.random.default_rng([1, 7, rank]))
        losses.append(imitation_loss(one.network(tokens), feasible, best))
    (sum(losses) / 2).backward()
    torch.nn.utils.clip_grad_norm_(one.network.parameters(), config.clip)
    for optimizer in one.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * one.rate(0) / config.learning_rate
        optimizer.step()
    for name, p in one.network.named_parameters():
        torch.testing.assert_close(state[name], p.detach(), atol=1e-6, rtol=1e-4)


def test_without_fabric_the_error_says_what_to_install(monkeypatch, shards):
    """No silent fallback to one process."""
    import sys

    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(BqncoError, match=r"sfumato-bqnco\[fabric\]"):
        train_on(2, tiny("tsp"), CONFIG, shards)


def test_more_cuda_devices_than_there_are_is_an_error(shards):
    """Asked for eight, none here."""
    pytest.importorskip("lightning_fabric", reason="needs lightning-fabric (extra fabric)")
    if torch.cuda.device_count() >= 8:
        pytest.skip("this machine has eight GPUs")
    with pytest.raises(BqncoError, match="expected 8 CUDA devices"):
        train_on(8, tiny("tsp"), CONFIG, shards, accelerator="cuda")
