"""Labels, pieces, imitation training: it learns, and it resumes bit by bit."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from sfumato_bqnco.config import PROBLEMS, TrainConfig, cpu_network
from sfumato_bqnco.env import environment
from sfumato_bqnco.labels import generate_labels, label, load_labels
from sfumato_bqnco.pieces import sampler
from sfumato_bqnco.train import Trainer, imitation_loss


def tiny(problem):
    return attrs.evolve(cpu_network(problem), width=32, n_heads=2, n_layers=1, feed_forward=32)


def labelled(problem, count=8, n=12):
    if problem == "cvrptw":
        pytest.importorskip("pyvrp", reason="labels with time windows need PyVRP")
    rows = [label(problem, n, 1, i, 200) for i in range(count)]
    return {k: np.stack([r[k] for r in rows]) for k in rows[0]}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_pieces_have_feasible_targets(problem):
    """Every row has at least one optimal option, all optimal options are feasible, padding is neither."""
    made = sampler(tiny(problem), labelled(problem))
    for k in (4, 7, made.longest):
        tokens, feasible, best = made.sample(k, 6, np.random.default_rng(k))
        assert bool(best.flatten(1).any(1).all())
        assert not bool((best & ~feasible).any())
        assert not bool((feasible.any(-1) & ~tokens.valid).any())
        assert bool(torch.isfinite(tokens.x).all())


@pytest.mark.parametrize("problem", PROBLEMS)
def test_training_tokens_are_the_environments_tokens(problem):
    """The full instance as a piece has the features that decoding shows at the first step."""
    data = labelled(problem, count=1)
    config = tiny(problem)
    made = sampler(config, data)
    arrays = {
        k: a.astype(np.float64)
        for k, a in data.items()
        if k not in ("tour", "seq", "starts", "path", "chosen")
    }
    env = environment(problem, arrays)
    state = env.initial()
    slots, valid = env.choose(state, 0)
    seen = env.tokens(config, state, slots, valid)
    if problem == "tsp":
        # Any window start is a start: take the rotation that begins at node 0, the environment's own.
        made.data = {**data, "tour": data["tour"]}
    for trial in range(200):
        tokens, feasible, _ = made.sample(made.longest, 1, np.random.default_rng(trial))
        a, b = (
            torch.sort(t.x[0].sum(-1) if t.matrix is None else t.matrix[0].sum((0, 2))).values
            for t in (tokens, seen)
        )
        if a.shape == b.shape and torch.allclose(a, b, atol=1e-4):
            assert int(feasible.sum()) == int(env.feasible(state).sum())
            return
    pytest.fail("no drawn piece looks like the first state of decoding")


def test_the_loss_is_the_log_probability_of_the_target_set():
    """By hand: three feasible options with logits 0, two of them optimal: -log(2/3)."""
    logits = torch.zeros(1, 4, 1)
    feasible = torch.tensor([[[True], [True], [True], [False]]])
    best = torch.tensor([[[True], [True], [False], [False]]])
    assert float(imitation_loss(logits, feasible, best)) == pytest.approx(-np.log(2 / 3))


def test_knapsack_pieces_show_the_doubtful_end():
    """Exactly full knapsacks of 100 items never lose their last item to rounding; few tokens mean few items to pack."""
    data = labelled("kp", count=20, n=100)
    made = sampler(tiny("kp"), data)
    rng = np.random.default_rng(0)
    for k in (2, 10, 30, 100):
        for _ in range(20):
            _, feasible, best = made.sample(k, 8, rng)
            assert not bool((best & ~feasible).any()) and bool(best.flatten(1).any(1).all())
        assert int(best.sum((1, 2)).max()) <= max(1, int(np.ceil(100 * (k / 100) ** 2)))


def test_an_orienteering_path_may_be_walked_from_either_end():
    """At the depot both ends of the optimal path are right, later one node is."""
    data = labelled("op", count=6, n=20)
    made = sampler(tiny("op"), data)
    _, _, best = made.sample(made.longest, 16, np.random.default_rng(0))
    assert int(best.flatten(1).sum(1).max()) == 2
    _, _, best = made.sample(4, 16, np.random.default_rng(0))
    assert int(best.flatten(1).sum(1).max()) == 1


def test_training_lowers_the_loss_and_resumes_bit_by_bit(tmp_path):
    """A run cut at step 30 and resumed in a new trainer has the weights of one that was not, exactly."""
    data = labelled("tsp", count=30, n=20)
    config = TrainConfig(n_steps=60, tokens_per_step=400, learning_rate=3e-3, warm_up=10, checkpoint_steps=10)
    losses = []
    whole = Trainer(tiny("tsp"), config, data)
    whole.run(report=lambda step, loss, cpu: losses.append(loss))
    assert losses[-1] < 0.7 * losses[0]
    path = tmp_path / "c.pt"
    first = Trainer(tiny("tsp"), config, data)
    first.run(path, until=30)
    second = Trainer(tiny("tsp"), config, data)
    second.run(path)
    assert second.step == 60
    for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True):
        assert torch.equal(a, b)
    for name in whole.average:
        assert torch.equal(whole.average[name], second.average[name])


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    """Resuming under another schedule would be another run."""
    data = labelled("kp", count=4)
    config = TrainConfig(n_steps=2, tokens_per_step=50)
    Trainer(tiny("kp"), config, data).run(tmp_path / "c.pt")
    with pytest.raises(ValueError, match="learning_rate"):
        Trainer(tiny("kp"), attrs.evolve(config, learning_rate=0.5), data).run(tmp_path / "c.pt")


def test_label_sets_resume_and_do_not_depend_on_the_shards(tmp_path):
    """Deleting a shard and calling again restores it; another shard size gives the same instances."""
    a = generate_labels("tsp", 10, 5, tmp_path / "a", seed=3, effort=20, shard_size=2)
    before = load_labels(a)
    a[1].unlink()
    kept = a[0].stat().st_mtime_ns
    again = generate_labels("tsp", 10, 5, tmp_path / "a", seed=3, effort=20, shard_size=2)
    assert a[0].stat().st_mtime_ns == kept
    other = load_labels(generate_labels("tsp", 10, 5, tmp_path / "b", seed=3, effort=20, shard_size=5))
    for key, value in before.items():
        np.testing.assert_array_equal(load_labels(again)[key], value)
        np.testing.assert_array_equal(other[key], value)
