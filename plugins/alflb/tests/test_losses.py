from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch

from sfumato_alflb import sequence_balance_loss, switch_loss, z_loss


def test_the_switch_loss_is_one_at_balance_and_e_over_k_at_collapse() -> None:
    """4 experts, 1 choice; even probabilities and loads give 1, all on one expert gives 4."""
    even = torch.full((8, 4), 0.25)
    assert float(switch_loss(even, torch.arange(8).view(8, 1) % 4)) == pytest.approx(1.0)
    one = torch.zeros(8, 4)
    one[:, 2] = 1.0
    assert float(switch_loss(one, torch.full((8, 1), 2))) == pytest.approx(4.0)


def test_the_sequence_loss_is_the_mean_over_sequences() -> None:
    """Two sequences apart equal the mean of each alone; padding does not count."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 6, 5, generator=generator)
    experts = scores.topk(2, dim=-1).indices
    parts = [switch_loss(scores[i], experts[i]) for i in range(2)]
    assert float(sequence_balance_loss(scores, experts)) == pytest.approx(float(sum(parts)) / 2, rel=1e-6)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[:, 4:] = False
    got = sequence_balance_loss(scores, experts, mask)
    assert float(got) == pytest.approx(float(sequence_balance_loss(scores[:, :4], experts[:, :4])), rel=1e-6)
    mask[1] = False
    alone = switch_loss(scores[0, :4], experts[0, :4])
    assert float(sequence_balance_loss(scores, experts, mask)) == pytest.approx(
        (float(alone) + 1.0) / 2, rel=1e-6
    )


def test_the_gradient_pushes_probability_away_from_load() -> None:
    """Only through the scores: descending lowers the overloaded expert's score."""
    scores = torch.full((6, 3), 0.5, requires_grad=True)
    experts = torch.zeros(6, 1, dtype=torch.int64)
    switch_loss(scores, experts).backward()
    assert (scores.grad[:, 0] > 0).all() and (scores.grad[:, 1:] < 0).all()


def test_the_z_loss_by_hand() -> None:
    """Two logits of 0: (ln 2)^2; masked tokens do not count."""
    logits = torch.zeros(3, 2)
    logits[2] = 50.0
    mask = torch.tensor([True, True, False])
    assert float(z_loss(logits, mask)) == pytest.approx(0.480453, rel=1e-5)
    assert float(z_loss(logits[:2])) == pytest.approx(0.480453, rel=1e-5)
