"""The fused kernel against the eager path: on a GPU, or in triton's interpreter.

The first test starts this file again with TRITON_INTERPRET=1, which triton reads when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch

from sfumato_alflb import ArgumentError, BiasRouter

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
runs_kernel = pytest.mark.skipif(
    find_spec("triton") is None or not (INTERPRETED or DEVICE == "cuda"),
    reason="needs triton, and a CUDA device or TRITON_INTERPRET=1",
)
TOKENS = 777 if DEVICE == "cuda" else 77


@pytest.mark.optional
@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton: pip install triton")
@pytest.mark.skipif(INTERPRETED or DEVICE == "cuda", reason="the tests below run here by themselves")
def test_the_kernel_passes_in_the_interpreter() -> None:
    """All tests below, in a process of their own."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        capture_output=True, text=True, env={**os.environ, "TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert "." * 18 in done.stdout, done.stdout[-400:]  # and not skipped


@pytest.mark.optional
@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton: pip install triton")
@pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")
def test_the_kernel_compiles_to_machine_code_for_an_h100_without_one(tmp_path, monkeypatch) -> None:
    """No values spill to local memory, and there is one kind of atomic."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from sfumato_alflb.triton_kernels import _route_kernel

    types = ("*fp32", "*fp32", "*u8", "*i64", "*fp32", "*i64", "i32")
    names = ("logits_ptr", "bias_ptr", "mask_ptr", "experts_ptr", "scores_ptr", "counts_ptr", "n_tokens")
    constants = {"E": 60, "K": 6, "BLOCK_E": 64, "BLOCK_T": 32, "SOFTMAX": True, "MASKED": True}
    signature = dict(zip(names, types, strict=True)) | dict.fromkeys(constants, "constexpr")
    kernel = triton.compile(
        ASTSource(_route_kernel, signature, constexprs=constants), target=GPUTarget("cuda", 90, 32)
    )
    assert len(kernel.asm["cubin"]) > 1000 and "atom." in kernel.asm["ptx"]
    assert ".local" not in kernel.asm["ptx"]


@pytest.mark.skipif(INTERPRETED, reason="the interpreter runs anywhere")
def test_asking_for_the_kernel_without_a_gpu_is_an_error_not_a_fallback() -> None:
    """Either triton is not installed or the logits are not on a GPU; both are said."""
    router = BiasRouter(8, 8, 2, kernel="triton")
    with pytest.raises((ImportError, ValueError), match=r"sfumato-alflb\[triton\]|CUDA device"):
        router(torch.zeros(4, 8))
    assert router.counts.sum() == 0


@pytest.mark.gpu
@runs_kernel
@pytest.mark.parametrize(("experts", "k"), [(8, 1), (16, 2), (60, 4), (64, 6), (160, 8), (256, 8)])
@pytest.mark.parametrize("score", ["sigmoid", "softmax"])
def test_the_kernel_equals_the_eager_path(experts: int, k: int, score: str) -> None:
    """Same sets, weights, counts and gradients, with padding, also for sizes that are no power of two."""
    generator = torch.Generator().manual_seed(0)
    eager = BiasRouter(32, experts, k, score)
    eager.reset_parameters(generator)
    eager.bias.copy_(0.1 * torch.randn(experts, generator=generator))
    fused = BiasRouter(32, experts, k, score, kernel="triton")
    fused.load_state_dict(eager.state_dict())
    eager, fused = eager.to(DEVICE), fused.to(DEVICE)
    x = torch.randn(TOKENS, 32, generator=generator).to(DEVICE)
    mask = torch.rand(TOKENS, generator=generator).to(DEVICE) < 0.8
    a, b = eager(x, mask), fused(x, mask)
    assert torch.equal(a.experts.sort(dim=-1).values, b.experts.sort(dim=-1).values)
    assert torch.allclose(a.scores, b.scores, atol=1e-6)
    assert torch.equal(eager.counts, fused.counts)
    for router, out in ((eager, a), (fused, b)):
        out.weights.square().sum().backward()
        assert router.weight.grad is not None
    assert torch.allclose(eager.weight.grad, fused.weight.grad, atol=1e-4)


@pytest.mark.gpu
@runs_kernel
def test_the_kernel_breaks_ties_by_the_lowest_index() -> None:
    """All equal: experts 0 to K-1."""
    from sfumato_alflb.triton_kernels import fused_route

    experts, _, counts = fused_route(torch.zeros(40, 16, device=DEVICE), torch.zeros(16, device=DEVICE), 3)
    assert (experts.cpu() == torch.tensor([0, 1, 2])).all() and counts.tolist() == [40, 40, 40] + [0] * 13


@pytest.mark.gpu
@runs_kernel
def test_the_kernel_follows_the_float32_arithmetic_of_the_stable_reference() -> None:
    """Best expert first, ties by the lowest index, at scores that tie often."""
    from sfumato_alflb.triton_kernels import fused_route

    logits = torch.randint(-2, 3, (TOKENS, 12), generator=torch.Generator().manual_seed(0)).float()
    experts, scores, counts = fused_route(logits.to(DEVICE), torch.zeros(12, device=DEVICE), 5)
    want = scores.cpu().sort(dim=-1, descending=True, stable=True).indices[:, :5]
    assert torch.equal(experts.cpu(), want)
    assert torch.equal(counts.cpu(), torch.bincount(want.flatten(), minlength=12))


@pytest.mark.gpu
@runs_kernel
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
def test_what_is_no_number_gets_experts_that_exist_and_differ(value: float) -> None:
    """An index beyond E would be read out of bounds; such logits are refused where that is checked."""
    from sfumato_alflb.triton_kernels import fused_route

    logits = torch.zeros(6, 11, device=DEVICE)
    logits[2] = value
    experts, _, counts = fused_route(logits, torch.zeros(11, device=DEVICE), 4)
    assert int(experts.min()) >= 0 and int(experts.max()) < 11
    assert all(len(set(row)) == 4 for row in experts.tolist())
    assert int(counts.sum()) == 24


@pytest.mark.gpu
@runs_kernel
def test_sizes_beyond_the_kernel_are_refused_and_empty_batches_pass() -> None:
    """E <= 256, k <= 8."""
    from sfumato_alflb.triton_kernels import fused_route

    for n_experts, k in ((257, 4), (32, 9), (8, 8)):
        with pytest.raises(ArgumentError, match="kernel"):
            fused_route(torch.zeros(2, n_experts, device=DEVICE), torch.zeros(n_experts, device=DEVICE), k)
    experts, scores, counts = fused_route(torch.zeros(0, 8, device=DEVICE), torch.zeros(8, device=DEVICE), 2)
    assert experts.shape == (0, 2) and scores.shape == (0, 8) and counts.sum() == 0
