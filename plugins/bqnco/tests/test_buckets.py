"""Length buckets: padding changes nothing, each bucket compiles once, failures fall back."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from sfumato_bqnco import generate
from sfumato_bqnco.buckets import LENGTHS, Bucketed, bucket, pad
from sfumato_bqnco.config import PROBLEMS, TrainConfig, cpu_network
from sfumato_bqnco.decode import Scorer, greedy
from sfumato_bqnco.env import environment
from sfumato_bqnco.labels import label
from sfumato_bqnco.network import BQNetwork
from sfumato_bqnco.train import Trainer


def tokens_of(problem, n=11, batch=3):
    torch.manual_seed(0)
    network = BQNetwork(attrs.evolve(cpu_network(problem), width=32, n_heads=2, n_layers=1, feed_forward=32)).eval()
    env = environment(problem, generate.random_set(problem, np.random.default_rng(0), batch, n))
    state = env.initial()
    slots, valid = env.choose(state, 0)
    return network, env, env.tokens(network.config, state, slots, valid), env.identifiers(state, slots)


def test_buckets_hold_every_length_and_waste_little():
    """Each length fits; from 24 tokens on at most a quarter of a bucket is padding; the last one is repeated."""
    for length in range(1, 1500):
        size = bucket(length)
        assert size >= length
        if 24 < length <= LENGTHS[-1]:
            assert (size - length) / size < 0.34
    assert bucket(LENGTHS[-1] + 1) == 2 * LENGTHS[-1]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_padding_changes_no_logit(problem):
    """Logits with five more rows and nine more tokens agree to 1e-5, and nothing in them is NaN."""
    network, _, tokens, identifiers = tokens_of(problem)
    rows, length = tokens.x.shape[:2]
    with torch.no_grad():
        exact = network(tokens, identifiers)
        padded = network.logits(*pad(tokens, identifiers, rows + 5, length + 9))
    assert bool(torch.isfinite(padded).all())
    torch.testing.assert_close(padded[:rows, :length], exact, atol=1e-5, rtol=1e-4)


def test_a_rollout_compiles_once_for_each_bucket_and_chooses_alike():
    """Greedy through the tracer (whole graphs, no break) takes the same nodes; nine lengths need three buckets."""
    network, env, _, _ = tokens_of("tsp", 14)
    plain, compiled = Scorer(network, use_engine=False), Scorer(network, use_engine=False)
    compiled.compile_("eager")
    a, b = greedy(plain, env), greedy(compiled, env)
    assert torch.equal(a.nodes, b.nodes)
    assert isinstance(compiled.compiled, Bucketed) and not compiled.compiled.failed
    assert compiled.compiled.buckets == {(4, 16), (4, 12), (4, 8)}


def test_a_failing_compiler_warns_once_and_eager_mode_goes_on():
    """The answer is that of eager mode, and the reason is kept."""
    network, env, _, _ = tokens_of("tsp")
    expected, _ = Scorer(network, use_engine=False)(env, env.initial())

    def broken(graph: object, inputs: object) -> None:
        raise RuntimeError("no compiler here")

    scorer = Scorer(network, use_engine=False)
    scorer.compiled = Bucketed(network, broken)
    with pytest.warns(UserWarning, match="no compiler here"):
        got, _ = scorer(env, env.initial())
    assert torch.equal(got, expected) and "no compiler here" in scorer.compiled.failed
    assert torch.equal(scorer(env, env.initial())[0], expected)


def test_beyond_the_compile_seconds_new_buckets_run_eagerly():
    """With no time for the compiler nothing is compiled, and nothing is wrong."""
    network, env, _, _ = tokens_of("kp")
    scorer = Scorer(network, use_engine=False)
    scorer.compiled = Bucketed(network, "eager", compile_seconds=-1.0)
    assert torch.equal(greedy(scorer, env).cost, greedy(Scorer(network, use_engine=False), env).cost)
    assert not scorer.compiled.buckets


def test_training_through_buckets_has_the_same_gradients():
    """Loss and gradients of a step with padding are those of one without, to 1e-5."""
    rows = [label("tsp", 12, 1, i, 30) for i in range(6)]
    data = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
    config = TrainConfig(n_steps=1, tokens_per_step=100, warm_up=1)
    plain = Trainer(tokens_of("tsp")[0].config, config, data)
    padded = Trainer(tokens_of("tsp")[0].config, attrs.evolve(config, compile=True), data)
    assert isinstance(padded.forward, Bucketed)
    padded.forward = Bucketed(padded.network, "eager")
    for trainer in (plain, padded):
        trainer.run()
    for a, b in zip(plain.network.parameters(), padded.network.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-3)
    assert plain.loss == pytest.approx(padded.loss, rel=1e-5) and padded.forward.buckets


def test_a_loss_that_is_not_finite_stops_the_training():
    """Labels without a feasible optimal option are an error, not weights of NaN."""
    rows = [label("tsp", 8, 1, i, 30) for i in range(2)]
    data = {k: np.stack([r[k] for r in rows]) for k in rows[0]}
    data["xy"] = data["xy"] * np.float32(np.nan)
    trainer = Trainer(tokens_of("tsp")[0].config, TrainConfig(n_steps=1, tokens_per_step=50), data)
    with pytest.raises(FloatingPointError, match="step 0"):
        trainer.run()
