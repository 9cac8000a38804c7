"""Several gloo processes on one machine: biases agree bit for bit, whatever the number of ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch

if not torch.distributed.is_available():  # pragma: no cover
    pytest.skip("this torch has no distributed package", allow_module_level=True)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """Half the training on 4 ranks, saved, loaded on 2 ranks; FSDP2 on 2; and one process."""
    folder = tmp_path_factory.mktemp("ranks")
    script = Path(__file__).with_name("ranks.py")
    # A rank that waits for a failed one would wait for ever: the limit is the only way out.
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_four_ranks_and_two_equal_one_process(states) -> None:
    """After all steps every rank has the bits of one process on whole batches, and something was learnt."""
    for world in (4, 2):
        for rank in range(world):
            assert same(states[f"end-{world}-{rank}"], states["single"])
    assert all(bool(v.abs().max() > 0) for k, v in states["single"].items() if "bias" in k)


def test_what_four_ranks_saved_two_load_bit_for_bit(states) -> None:
    """A distributed checkpoint halfway."""
    halves = [states[f"half-4-{r}"] for r in range(4)] + [states[f"half-2-{r}"] for r in range(2)]
    assert all(same(halves[0], other) for other in halves)
    assert not same(halves[0], states["single"])


def test_accumulation_in_one_process_equals_the_same_tokens_at_once(states) -> None:
    """Four microbatches and one update: the bits of one large batch."""
    assert same(states["accumulated"], states["single"])


def test_fsdp2_leaves_the_balance_alone(states) -> None:
    """Weights sharded and cast to bfloat16 (exact on this grid), buffers whole, plain and float32."""
    assert same(states["fsdp-0"], states["single"]) and same(states["fsdp-1"], states["single"])


def test_ddp_with_accumulation_does_not_overwrite_counts(states) -> None:
    """Rank 0's buffers reach all ranks before each forward; what a rank has counted is none of them."""
    assert same(states["ddp-0"], states["single"]) and same(states["ddp-1"], states["single"])


def test_dtensors_are_routed_and_balanced_alike(states) -> None:
    """Replicated weights and buffers, tokens sharded over the mesh."""
    assert same(states["dtensor-0"], states["single"]) and same(states["dtensor-1"], states["single"])


def test_attached_routers_are_balanced_under_fsdp2(states) -> None:
    """Also one whose own bias was a parameter, which FSDP would have sharded and freed."""
    assert all(bool(bias.abs().max() > 0) for bias in states["attached-single"].values())
    assert len(states["attached-single"]) == 2
    for rank in range(2):
        assert same(states[f"attached-{rank}"], states["attached-single"])
