"""The compiled engine against torch: the same network, the same states, the same choices."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from sfumato_bqnco.config import NetworkConfig, cpu_network
from sfumato_bqnco.decode import Limits, Scorer, beam, greedy
from sfumato_bqnco.engine import _softmax, pack
from sfumato_bqnco.env import environment
from sfumato_bqnco.network import BQNetwork

PLANAR = ("tsp", "cvrp", "op")


def shaken(config: NetworkConfig) -> BQNetwork:
    """A network with every parameter (ReZero factors, norms, biases too) away from its start."""
    torch.manual_seed(1)
    network = BQNetwork(config).eval()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.15 * torch.randn_like(p))
    return network


def both(network: BQNetwork, limits: Limits = Limits()) -> tuple[Scorer, Scorer]:
    """A scorer with the engine and one without."""
    return Scorer(network, limits), Scorer(network, limits, use_engine=False)


def configs(problem: str) -> list[NetworkConfig]:
    """The small network, the paper's shape in small, one without the distance bias, and the Perceiver."""
    small = attrs.evolve(cpu_network(problem), width=32, n_heads=2, n_layers=2, feed_forward=32)
    paper = NetworkConfig(problem=problem, width=32, n_heads=4, n_layers=2, feed_forward=32)
    perceiver = NetworkConfig(
        problem=problem, kind="perceiver", width=32, n_heads=4, n_layers=2, feed_forward=32, n_latents=9, latent_width=12,
        latent_heads=4,
    )  # fmt: skip
    return [small, paper, attrs.evolve(small, distance_bias=False), perceiver]


@pytest.mark.parametrize("problem", [*PLANAR, "kp"])
def test_the_engine_chooses_what_torch_chooses(problem, arrays_of):
    """Greedy rollouts are the same node by node, with the same cost and probability, for every folded part."""
    arrays = arrays_of(problem, 17, 5)
    env = environment(problem, arrays)
    for config in configs(problem):
        fast, slow = both(shaken(config))
        assert fast.engine(env) is not None and slow.engine(env) is None
        a, b = greedy(fast, env), greedy(slow, env)
        width = b.nodes.shape[1]
        torch.testing.assert_close(a.nodes[:, :width], b.nodes)
        torch.testing.assert_close(a.flags[:, :width], b.flags)
        torch.testing.assert_close(a.cost, b.cost)
        torch.testing.assert_close(a.logp, b.logp, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("problem", [*PLANAR, "kp"])
def test_scores_of_ragged_rows_agree(problem, arrays_of):
    """Log-probabilities of states at different depths, with few neighbours and all symmetries, agree to 1e-4."""
    env = environment(problem, arrays_of(problem, 15, 6))
    for config in configs(problem)[::3]:
        fast, slow = both(shaken(config), Limits(neighbours=6))
        state = env.initial()
        state.sym = torch.arange(6)
        for t in range(4):
            p, slots = fast(env, state)
            q, others = slow(env, state)
            torch.testing.assert_close(slots, others)
            torch.testing.assert_close(p, q, atol=1e-4, rtol=1e-3)
            rows = torch.arange(len(state))
            pick = q.flatten(1).argmax(1)
            # Only some rows move on, so that rows of different lengths lie beside each other.
            state.done = (rows % 2 == t % 2) | state.done
            kept = state.done.clone()
            state = env.step(state, slots[rows, pick // env.n_options], pick % env.n_options)
            state.done = kept & (state.count == 0)


def test_few_neighbours_choose_alike(arrays_of):
    """With the restriction to the nearest (OP: and richest) nodes the rollouts stay the same."""
    for problem in PLANAR:
        env = environment(problem, arrays_of(problem, 25, 4))
        fast, slow = both(shaken(configs(problem)[0]), Limits(neighbours=7))
        a, b = greedy(fast, env), greedy(slow, env)
        torch.testing.assert_close(a.cost, b.cost)


def test_beams_agree(arrays_of):
    """Merged and plain beams on top of either scorer end at the same cost."""
    env = environment("cvrp", arrays_of("cvrp", 14, 4))
    fast, slow = both(shaken(configs("cvrp")[0]))
    for merge in (True, False):
        torch.testing.assert_close(beam(fast, env, 5, merge=merge).cost, beam(slow, env, 5, merge=merge).cost)


def test_rounded_and_explicit_distances_decide_feasibility():
    """OP within a budget of whole-number distances: every path of the engine is within it, as torch's is."""
    rng = np.random.default_rng(3)
    xy = rng.integers(0, 100, size=(4, 20, 2)).astype(float)
    arrays = {"xy": xy, "prize": np.ones((4, 20)), "budget": np.full(4, 180.0), "rounding": "nint"}
    env = environment("op", arrays)
    fast, slow = both(shaken(configs("op")[0]))
    a, b = greedy(fast, env), greedy(slow, env)
    torch.testing.assert_close(a.cost, b.cost)
    for row in range(4):
        path = torch.tensor([0, *(v for v in a.nodes[row].tolist() if v >= 0), 0])
        inst = torch.full((len(path) - 1,), row)
        assert float(env.distance(inst, path[:-1], path[1:]).sum()) <= 180.0


def test_new_weights_are_packed_anew(arrays_of):
    """After a change of the network in place, the engine follows."""
    env = environment("tsp", arrays_of("tsp", 20, 3))
    network = shaken(configs("tsp")[0])
    fast, slow = both(network)
    before = greedy(fast, env).cost
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.3 * torch.randn_like(p))
    after = greedy(fast, env).cost
    torch.testing.assert_close(after, greedy(slow, env).cost)
    assert not torch.equal(before, after)


def test_what_the_engine_does_not_take_is_left_to_torch():
    """ATSP, and heads that four does not divide."""
    assert pack(BQNetwork(cpu_network("atsp"))) is None
    assert pack(BQNetwork(NetworkConfig(width=60, n_heads=6, n_layers=1))) is None


def test_the_fast_exponential_is_a_softmax():
    """Against numpy over the whole range, very negative logits included."""
    x = np.concatenate((np.linspace(-39.0, 3.0, 200), [-1e4])).astype(np.float32)
    bits = np.empty(x.size, np.int32)
    s = x.copy()
    share = _softmax(s, bits, bits.view(np.float32))
    exact = np.exp(x.astype(float) - 3.0)
    np.testing.assert_allclose(s * share, exact / exact.sum(), rtol=1e-5, atol=1e-16)
