from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs the extra 'torch'")

import torch

from sfumato_alflb import ArgumentError, BiasRouter, ServingMonitor, place_experts


def test_placement_by_hand() -> None:
    """Loads 8, 7, 2, 1 on two ranks: 8 with 1 and 7 with 2, where the given order has 15 against 3."""
    placed = place_experts(torch.tensor([8, 7, 2, 1]), 2)
    assert placed.rank_of.tolist() == [0, 1, 1, 0]
    assert placed.loads.tolist() == [0.5, 0.5] and placed.max_vio == pytest.approx(0.0)
    assert placed.in_order_max_vio == pytest.approx(15 / 9 - 1)
    with pytest.raises(ArgumentError, match="n_ranks"):
        place_experts(torch.tensor([1, 2, 3]), 2)
    for bad in ([1.0, float("nan")], [3, -1]):
        with pytest.raises(ArgumentError, match="counts"):
            place_experts(torch.tensor(bad), 2)


def test_a_routing_of_another_kind_is_not_counted() -> None:
    """Three experts a token where the router takes two; the counts stay."""
    monitor = ServingMonitor(BiasRouter(8, 4, 2))
    for bad in (torch.tensor([[0, 1, 2]]), torch.tensor([[0.0, 1.0]])):
        with pytest.raises(ArgumentError, match="experts"):
            monitor.see(bad)
    assert not monitor.counts.any()


def test_a_serving_router_never_moves_unless_asked() -> None:
    """Frozen by default; with adapt it moves by a tenth of the step, and each change is recorded."""
    x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    for adapt in (False, True):
        router = BiasRouter(8, 4, 1, rule="sign", u=0.01)
        router.reset_parameters(torch.Generator().manual_seed(1))
        monitor = ServingMonitor(router, adapt=adapt)
        for _ in range(3):
            monitor.see(router(x).experts)
            assert float(monitor.expected_load().sum()) == pytest.approx(1.0)
            monitor.step()
        assert router.counts.sum() == 0
        if adapt:
            assert [c.number for c in monitor.changes] == [1, 2, 3]
            assert all(c.max_move == pytest.approx(0.001, rel=1e-4) for c in monitor.changes)
            assert router.rule.u == 0.01
        else:
            assert not monitor.changes and (router.bias == 0).all()
