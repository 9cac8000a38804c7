"""Fixtures: the instance files, one torch thread, and a small untrained network for each problem."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the neural part needs torch")
torch.set_num_threads(1)

OPTIONS = {
    "tsp": {}, "atsp": {}, "cvrp": {"capacity": 15}, "op": {"budget": 1.6}, "kp": {"capacity": 1.2},
    "cvrptw": {"capacity": 25, "width": 0.4},
}  # fmt: skip


def _arrays_of(problem: str, n: int, count: int, seed: int = 5):
    import numpy as np

    from sfumato_bqnco import generate

    return generate.random_set(problem, np.random.default_rng(seed), count, n, **OPTIONS[problem])


def _best_value(env, state) -> float:
    if bool(state.done[0]):
        return float(state.cost[0])
    choices = torch.nonzero(env.feasible(state)[0]).tolist()
    return min(_best_value(env, env.step(state, torch.tensor([s]), torch.tensor([f]))) for s, f in choices)


@pytest.fixture(scope="session")
def arrays_of():
    """`arrays_of(problem, n, count, seed)`: a small random set with limits that bind."""
    return _arrays_of


@pytest.fixture(scope="session")
def best_value():
    """`best_value(env, state)`: cost of the best completion of the one row, by exhaustive search of the BQ-MDP."""
    return _best_value


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "optional: needs an optional library")
    config.addinivalue_line("markers", "gpu: needs a CUDA device")


@pytest.fixture(scope="session")
def routing() -> Path:
    """Folder of the instance files; skips when there is none."""
    folder = Path(os.environ.get("SFUMATO_DATA", "")) / "routing"
    if not (folder / "best_known.csv").is_file():
        pytest.skip("needs the instance files: set SFUMATO_DATA to the folder that holds routing/")
    return folder


@pytest.fixture(scope="session")
def small_networks():
    """One randomly initialised network a problem, width 24, two layers."""
    import attrs

    from sfumato_bqnco.config import PROBLEMS, cpu_network
    from sfumato_bqnco.network import BQNetwork

    made = {}
    for problem in PROBLEMS:
        torch.manual_seed(3)
        config = attrs.evolve(cpu_network(problem), width=32, n_heads=2, n_layers=2, feed_forward=32)
        made[problem] = BQNetwork(config).eval()
    return made
