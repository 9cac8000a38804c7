"""The network: parameter counts, the fused inference path, padding."""

from __future__ import annotations

import attrs
import pytest
import torch

from sfumato_bqnco.config import PROBLEMS, NetworkConfig, cpu_network
from sfumato_bqnco.features import Tokens, atsp_tokens, n_features, tsp_tokens
from sfumato_bqnco.network import BQNetwork


def test_the_papers_network_has_the_papers_size():
    """About 3.11 million parameters; the small one about 335,000; the Perceiver about 0.9 million."""
    assert BQNetwork(NetworkConfig()).n_parameters == pytest.approx(3.11e6, rel=0.01)
    assert BQNetwork(cpu_network("tsp")).n_parameters == pytest.approx(335_000, rel=0.01)
    assert BQNetwork(NetworkConfig(kind="perceiver")).n_parameters == pytest.approx(0.9e6, rel=0.05)


def random_tokens(config, batch=2, n=9):
    torch.manual_seed(0)
    valid = torch.ones(batch, n, dtype=torch.bool)
    valid[1, -2:] = False
    matrix = torch.rand(batch, 2, n, n) if config.problem == "atsp" else None
    xy = None if config.problem in ("kp", "atsp") else torch.rand(batch, n, 2) * 3
    return Tokens(torch.rand(batch, n, n_features(config)), valid, xy, matrix)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("kind", ["transformer", "perceiver"])
def test_inference_and_training_paths_agree(problem, kind):
    """The fused product gives the logits of the plain one, and follows the weights when they change."""
    config = attrs.evolve(
        cpu_network(problem), width=32, n_heads=2, n_layers=2, feed_forward=32, kind=kind, latent_width=16
    )
    network = BQNetwork(config).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.1 * torch.randn_like(p))
    tokens = random_tokens(config)
    identifiers = torch.rand(2, 9, config.n_identifiers) if problem == "atsp" else None
    for _ in range(2):
        plain = network(tokens, identifiers).detach()
        with torch.inference_mode():
            fused = network(tokens, identifiers).clone()
        real = tokens.valid[..., None].expand_as(plain)
        torch.testing.assert_close(plain[real], fused[real], atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            for p in network.parameters():
                p.mul_(1.1)


@pytest.mark.parametrize(
    "config", [cpu_network("tsp"), NetworkConfig(n_layers=2), NetworkConfig(kind="perceiver", n_layers=2)]
)
def test_padding_changes_nothing(config):
    """A row beside a longer one has the logits that it has alone (float32, 1e-5)."""
    network = BQNetwork(config).eval()
    xy = torch.rand(2, 12, 2)
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[1, 8:] = False
    with torch.inference_mode():
        together = network(tsp_tokens(config, xy, valid))[1, :8]
        alone = network(tsp_tokens(config, xy[1:, :8], valid[1:, :8]))[0]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_costs_of_a_shorter_atsp_state_are_not_touched_by_padding():
    """Regrets, units and the identifiers' graph are those of the real tokens; negative and zero costs give no NaN."""
    config = cpu_network("atsp")
    network = BQNetwork(config).eval()
    matrix, noise = torch.rand(2, 12, 12), torch.rand(2, 12, config.n_identifiers)
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[1, 8:] = False
    with torch.inference_mode():
        together = network(atsp_tokens(config, matrix, valid), noise)[1, :8]
        alone = network(atsp_tokens(config, matrix[1:, :8, :8], valid[1:, :8]), noise[1:, :8])[0]
        for odd in (torch.zeros(2, 12, 12), torch.rand(2, 12, 12) - 0.7):
            assert bool(network(atsp_tokens(config, odd, valid), noise)[valid].isfinite().all())
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_impossible_shapes_are_refused():
    """Widths that heads do not divide; a distance bias without coordinates."""
    with pytest.raises(ValueError, match="divisible by n_heads"):
        NetworkConfig(width=100, n_heads=12)
    with pytest.raises(ValueError, match="needs coordinates"):
        NetworkConfig(problem="kp", distance_bias=True)


MEMORY = """
import resource
import numpy as np, torch
from sfumato_bqnco import generate
from sfumato_bqnco.config import NetworkConfig
from sfumato_bqnco.decode import Limits, Scorer
from sfumato_bqnco.env import environment
from sfumato_bqnco.network import BQNetwork
torch.set_num_threads(1)
env = environment("tsp", generate.tsp(np.random.default_rng(0), 16, 1000))
network = BQNetwork(NetworkConfig(n_layers=2)).eval()
for engine in (False, True):
    scorer = Scorer(network, Limits(neighbours=0), use_engine=engine)
    scorer(env, env.initial())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def test_memory_of_a_large_batch_stays_below_two_gigabytes():
    """Sixteen TSP1000 with all nodes in view, the paper's width, by torch and by the engine: attention is O(N)."""
    import subprocess
    import sys

    out = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(out.stdout) < 2.0
