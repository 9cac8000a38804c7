from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch

from sfumato_alflb.config import CharLmConfig, RouterChoice
from sfumato_alflb.lm import CharLm, Experts
from sfumato_alflb.router import Routed
from sfumato_alflb.text import help_topics


def test_the_text_is_split_and_its_vocabulary_is_complete() -> None:
    """About 465,000 characters; every one has a number."""
    text = help_topics()
    n = len(text.train) + len(text.valid)
    assert 300_000 < n < 700_000 and len(text.valid) == pytest.approx(0.1 * n, abs=2)
    assert text.train.max() < len(text.characters) < 300


def test_the_small_model_has_as_many_weights_as_it_says() -> None:
    """2.4 million with a vocabulary of 103; the larger size is never built here."""
    model = CharLm(103, CharLmConfig(), RouterChoice(), torch.Generator().manual_seed(0))
    assert sum(p.numel() for p in model.parameters()) == 2_399_360


def test_sorted_experts_equal_a_loop_over_tokens() -> None:
    """The grouped computation against the definition."""
    generator = torch.Generator().manual_seed(0)
    experts = Experts(4, 6, 5)
    for p in experts.parameters():
        torch.nn.init.normal_(p, generator=generator)
    x = torch.randn(10, 6, generator=generator)
    chosen = torch.stack([torch.randperm(4, generator=generator)[:2] for _ in range(10)])
    weights = torch.rand(10, 2, generator=generator)
    got = experts(x, Routed(chosen, weights, weights, weights))
    for i in range(10):
        want = sum(
            weights[i, j] * (torch.nn.functional.gelu(x[i] @ experts.up[e]) @ experts.down[e])
            for j, e in enumerate(chosen[i].tolist())
        )
        assert torch.allclose(got[i], want, atol=1e-5)


def test_the_model_is_causal() -> None:
    """A later character changes nothing before it, router and all."""
    config = CharLmConfig(dim=16, n_layers=2, heads=2, experts=4, expert_width=8, context=12)
    model = CharLm(20, config, RouterChoice(rule="sign"), torch.Generator().manual_seed(0)).eval()
    tokens = torch.from_numpy(np.random.default_rng(0).integers(0, 20, (1, 12)))
    other = tokens.clone()
    other[0, 8] = (other[0, 8] + 1) % 20
    with torch.no_grad():
        a, b = model(tokens)[0], model(other)[0]
    assert torch.allclose(a[:, :8], b[:, :8], atol=1e-5) and not torch.allclose(a[:, 8:], b[:, 8:], atol=1e-3)
