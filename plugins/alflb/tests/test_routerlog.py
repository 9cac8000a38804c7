from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sfumato_alflb import ArgumentError, load_router_log
from sfumato_alflb.routerlog import log_lines, most_violated


def arrays() -> dict[str, np.ndarray]:
    """A log as another framework might write it: two layers of 4 and 2 experts, three updates, no scores."""
    return {
        "layers": np.array(["early", "late"]), "k": np.array([1, 1]), "updates": np.array([10, 20, 30]),
        "counts_0": np.array([[4, 0, 0, 0], [2, 2, 0, 0], [1, 1, 1, 1]]), "biases_0": np.eye(4)[:3],
        "counts_1": np.array([[2, 2], [2, 2], [4, 0]]), "biases_1": np.zeros((3, 2)),
    }  # fmt: skip


def test_a_log_that_another_program_wrote_is_summed_up(tmp_path: Path) -> None:
    """Violations by hand: 3, 1, 0 in the first layer, 0, 0, 1 in the second, which is the one at fault."""
    np.savez(tmp_path / "log.npz", **arrays())
    layers = load_router_log(tmp_path / "log.npz")
    assert layers is not None
    assert layers[0].vio.tolist() == [3.0, 1.0, 0.0] and layers[1].vio.tolist() == [0.0, 0.0, 1.0]
    assert layers[0].updates.tolist() == [10, 20, 30] and layers[0].scores is None
    assert most_violated(layers).name == "late"
    text = "\n".join(log_lines(layers))
    assert "early" in text and "number 10 to 30" in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts_0": np.ones((3, 4))}, "counts_0"),
        ({"counts_0": -np.ones((3, 4), dtype=int)}, "counts_0"),
        ({"biases_1": np.zeros((2, 2))}, "counts_1"),
        ({"k": np.array([4, 1])}, "k: expected"),
        ({"k": np.array([1])}, "k of each layer"),
        ({"scores_1": np.zeros((5, 3))}, "scores_1"),
        ({"bias_1": np.zeros(3)}, "bias_1"),
        ({"updates": np.zeros(0)}, "counts_0"),
        ({"counts_1": None}, "counts_1"),
    ],
)
def test_a_log_that_does_not_fit_together_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    """The error names the array."""
    whole = {name: value for name, value in {**arrays(), **change}.items() if value is not None}
    np.savez(tmp_path / "log.npz", **whole)
    with pytest.raises(ArgumentError, match=message):
        load_router_log(tmp_path / "log.npz")


def test_a_file_that_is_no_log_is_told_apart(tmp_path: Path) -> None:
    """A matrix of scores is read by `load_scores`; a damaged file is refused."""
    np.save(tmp_path / "scores.npy", np.zeros((4, 2)))
    np.savez(tmp_path / "scores.npz", scores=np.zeros((4, 2)))
    assert load_router_log(tmp_path / "scores.npy") is None
    assert load_router_log(tmp_path / "scores.npz") is None
    (tmp_path / "torn.npz").write_bytes((tmp_path / "scores.npz").read_bytes()[:60])
    with pytest.raises(ArgumentError, match="path"):
        load_router_log(tmp_path / "torn.npz")


def training(folder: Path, every: int = 2, tokens: int = 50) -> Path:
    """Two routers of different size, ten updates, 80 tokens of which 60 are real."""
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    from sfumato_alflb import Balancer, BiasRouter, RouterLog

    generator = torch.Generator().manual_seed(0)
    layers = torch.nn.ModuleList([BiasRouter(8, 4, 1, u=0.01), BiasRouter(8, 6, 2, u=0.01)])
    for layer in layers:
        layer.reset_parameters(generator)
    balancer = Balancer(layers)
    log = RouterLog(balancer, every=every, tokens=tokens)
    with pytest.raises(ArgumentError, match="none kept"):
        log.save(folder / "log")
    real = torch.arange(80) < 60
    for _ in range(10):
        x = torch.randn(80, 8, generator=generator)
        x[60:] = 99.0
        for layer in layers:
            layer(x, real)
        balancer.step()
    layers[0].eval()(x)  # validation is not sampled
    log.close()
    balancer.step()
    return log.save(folder / "log")


def test_what_a_model_did_is_kept(tmp_path: Path) -> None:
    """Every second update; loads of real tokens alone; the sampled scores give back the loads of the last batch."""
    path = training(tmp_path, tokens=100)
    assert path.name == "log.npz"
    layers = load_router_log(path)
    assert layers is not None and [layer.name for layer in layers] == ["0", "1"]
    for layer, (n_experts, k) in zip(layers, [(4, 1), (6, 2)], strict=True):
        assert layer.updates.tolist() == [2, 4, 6, 8, 10]
        assert layer.counts.shape == (5, n_experts) and (layer.counts.sum(axis=1) == 60 * k).all()
        assert layer.scores is not None and layer.scores.shape == (60, n_experts)
        assert layer.bias is not None and np.abs(layer.biases[-1] - layer.bias).max() == pytest.approx(
            0.01, rel=1e-4
        )
        order = np.argsort(-(layer.scores + layer.bias), axis=1)[:, :k]
        assert (np.bincount(order.ravel(), minlength=n_experts) == layer.counts[-1]).all()


def test_a_model_with_routers_of_its_own_is_logged_too(tmp_path: Path) -> None:
    """Scores are those that `attach` routes by; a cap on tokens is kept."""
    torch = pytest.importorskip("torch", reason="needs the extra 'torch'")
    from sfumato_alflb import RouterLog, attach

    class Router(torch.nn.Module):
        """Softmax, K best, as transformers' routers."""

        top_k, num_experts = 2, 8

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(8, 5, generator=torch.Generator().manual_seed(1)))

        def forward(self, x):
            logits = x @ self.weight.T
            weights, experts = logits.softmax(-1).topk(2)
            return logits, weights, experts

    model = torch.nn.Sequential(Router())
    balancer = attach(model, "sign", 0.01)
    log = RouterLog(balancer, tokens=16)
    for _ in range(3):
        model(torch.randn(40, 5, generator=torch.Generator().manual_seed(2)))
        balancer.step()
    layers = load_router_log(log.save(tmp_path / "attached.npz"))
    assert layers is not None and layers[0].counts.sum(axis=1).tolist() == [80, 80, 80]
    assert layers[0].scores is not None and layers[0].scores.shape == (16, 8)
    assert layers[0].scores.sum(axis=1) == pytest.approx(1.0, rel=1e-5)


def test_the_command_examines_a_log(tmp_path: Path) -> None:
    """K and the bias come from the log; a wrong layer or k is refused; without scores it sums up and draws."""
    testing = pytest.importorskip("click.testing", reason="needs the extra 'sfumato'")
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    from sfumato_alflb.cli import diagnose as command

    path = str(training(tmp_path))
    run = testing.CliRunner().invoke
    done = run(command, [path, "--steps", "20", "--layer", "1", "--pictures", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "router log: 2 layer(s)" in done.output and "50 tokens, 6 experts, 2 per token" in done.output
    assert "the given bias" in done.output and (tmp_path / "out" / "load.png").stat().st_size > 1000
    facts = json.loads(run(command, [path, "--steps", "5", "--json"]).stdout)
    assert facts["layer"] in "01" and facts["layers"][1]["k"] == 2 and facts["n_tokens"] == 50
    for wrong, message in ((["--layer", "x"], "--layer"), (["--layer", "0", "-k", "3"], "-k")):
        done = run(command, [path, *wrong])
        assert done.exit_code == 2 and message in done.output
    np.savez(tmp_path / "bare.npz", **arrays())
    bare = str(tmp_path / "bare.npz")
    done = run(command, [bare, "--pictures", str(tmp_path / "bare")])
    assert done.exit_code == 0 and "nothing more to examine" in done.output
    assert [p.name for p in (tmp_path / "bare").iterdir()] == ["load.png"]
    np.save(tmp_path / "scores.npy", np.random.default_rng(0).random((20, 4)))
    for wrong, message in (([], "-k: expected"), (["-k", "1", "--layer", "0"], "--layer")):
        done = run(command, [str(tmp_path / "scores.npy"), *wrong])
        assert done.exit_code == 2 and message in done.output
