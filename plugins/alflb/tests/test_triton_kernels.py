from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch

from sfumato_alflb import BiasRouter

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_asking_for_the_kernel_without_a_gpu_is_an_error_not_a_fallback() -> None:
    """Either triton is not installed or the logits are not on a GPU; both are said."""
    router = BiasRouter(8, 8, 2, kernel="triton")
    with pytest.raises((ImportError, ValueError)):
        router(torch.zeros(4, 8))
    assert router.counts.sum() == 0


@pytest.mark.gpu
@needs_gpu
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
    eager, fused = eager.cuda(), fused.cuda()
    x = torch.randn(777, 32, generator=generator).cuda()
    mask = torch.rand(777, generator=generator).cuda() < 0.8
    a, b = eager(x, mask), fused(x, mask)
    assert torch.equal(a.experts.sort(dim=-1).values, b.experts.sort(dim=-1).values)
    assert torch.allclose(a.scores, b.scores, atol=1e-6)
    assert torch.equal(eager.counts, fused.counts)
    for router, out in ((eager, a), (fused, b)):
        out.weights.square().sum().backward()
        assert router.weight.grad is not None
    assert torch.allclose(eager.weight.grad, fused.weight.grad, atol=1e-4)


@pytest.mark.gpu
@needs_gpu
def test_the_kernel_breaks_ties_by_the_lowest_index() -> None:
    """All equal: experts 0 to K-1."""
    from sfumato_alflb.triton_kernels import fused_route

    experts, _, counts = fused_route(torch.zeros(40, 16, device="cuda"), torch.zeros(16, device="cuda"), 3)
    assert (experts.cpu() == torch.tensor([0, 1, 2])).all() and counts.tolist() == [40, 40, 40] + [0] * 13
