"""The search on torch against the NumPy oracle; skipped where torch is not installed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is an extra")
from sfumato_vopp import VOPP, RockSample, SearchConfig, Tiger  # noqa: E402
from sfumato_vopp.counter import CounterDraws, episode_keys  # noqa: E402
from sfumato_vopp.models.rocksample_torch import TorchRockSample  # noqa: E402
from sfumato_vopp.ops_torch import TorchDraws, TorchOps, TorchTree  # noqa: E402
from sfumato_vopp.search_array import ArrayTree  # noqa: E402

pytestmark = pytest.mark.optional


def test_torch_and_numpy_draw_the_same_bits() -> None:
    keys = TorchOps().keys(2**63 + 12345, 3, 50)
    reference = CounterDraws(episode_keys(2**63 + 12345, 3, 50))
    draws = TorchDraws(keys)
    for _ in range(3):
        np.testing.assert_array_equal(draws.random().numpy(), reference.random())
    np.testing.assert_allclose(draws.standard_normal().numpy(), reference.standard_normal(), atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"backup": "tree", "log_sum": "children"}, {"root_mixing": 0.3, "subtract": "all"}])
@pytest.mark.parametrize(
    ("model", "reference"), [(Tiger(), Tiger()), (RockSample(), RockSample()), (TorchRockSample(), RockSample())]
)
def test_torch_builds_the_oracle_s_tree(model, reference, options, rng) -> None:  # type: ignore[no-untyped-def]
    config = SearchConfig(**options)
    particles, cumulative = reference.initial(200, rng), np.cumsum(rng.random(200))
    ours, oracle = TorchTree(model, config, 0.3), ArrayTree(reference, config, 0.3)
    for tree in (ours, oracle):
        tree.begin(particles, cumulative, 17)
        for i in range(8):
            tree.iterate(i, 100, 100 * i, config.depth(i))
    assert (ours.n_beliefs, ours.n_action_nodes, ours.steps) == (oracle.n_beliefs, oracle.n_action_nodes, oracle.steps)
    np.testing.assert_array_equal(ours.root()[1], oracle.root()[1])
    np.testing.assert_allclose(ours.root()[0], oracle.root()[0], atol=1e-9)


def test_the_planner_runs_on_torch(rng) -> None:  # type: ignore[no-untyped-def]
    planner = VOPP(TorchRockSample(), SearchConfig(seconds=None, max_episodes=500, n_episodes=100), backend="torch")
    planner.warmup()
    decision = planner.plan(TorchRockSample().initial(100, rng))
    assert decision.stats.backend == "torch" and decision.visits.sum() == 500


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_a_missing_device_is_an_error() -> None:
    with pytest.raises(ValueError, match="sees none"):
        VOPP(Tiger(), backend="torch", device="cuda")
