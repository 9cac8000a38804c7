from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("sfumato", reason="needs the extra 'sfumato'")

from sfumato.context import RunContext
from sfumato.driver import drive
from sfumato.plugins import Registry
from sfumato_alflb import AlfProblem, ArgumentError, alf_run
from sfumato_alflb.config import (
    AuxLossConfig,
    BiasConfig,
    CharLmConfig,
    LpConfig,
    ScoresConfig,
    SinkhornConfig,
    StreamConfig,
    SweepsConfig,
)
from sfumato_alflb.evaluators import BalanceEvaluator, TrainingEvaluator
from sfumato_alflb.scorefiles import load_scores
from sfumato_alflb.solvers import (
    AuxLossSolver,
    BiasSolver,
    BipSolver,
    ExpertChoiceSolver,
    LpSolver,
    QuantileSolver,
    SinkhornSolver,
)
from sfumato_alflb.tasks import CharLmTask, ScoresTask, StreamTask, chosen_by


def figures(task, solver, evaluator=None, indices=(0,), seed=0):
    """Drive a solver through a task and return the mean of every metric, and the digest."""
    from sfumato.runtimes import Direct

    evaluator = evaluator or BalanceEvaluator()
    ctx = RunContext(seed=seed, indices=list(indices))
    assert solver.supports(task, Direct()) is None
    result = drive(task, solver, Direct(), {"own": evaluator}, ctx)
    values: dict[str, list[float]] = {}
    for row in result.rows:
        for metric in row["metrics"]:
            values.setdefault(metric["name"], []).extend(metric["values"])
    return {name: float(np.mean(v)) for name, v in values.items()}, result.digest


SMALL = ScoresConfig(n_tokens=256, n_experts=16, k=2)


def test_the_exact_solver_is_balanced_and_optimal() -> None:
    """MaxVio 0 and ratio 1, for both kinds of gate."""
    for config in (SMALL, ScoresConfig(kind="peaked", n_tokens=256, n_experts=16, k=2)):
        got, _ = figures(ScoresTask(config), LpSolver(LpConfig()))
        assert got["max_vio_global"] == 0.0 and got["wrong_choices"] == 0.0
        assert got["affinity_ratio"] == pytest.approx(1.0)


def test_no_method_with_balanced_loads_beats_the_optimum() -> None:
    """Every solver on the same two matrices; a ratio above 1 comes with a violated load."""
    solvers = [
        BiasSolver(BiasConfig("prop_inv", 0.5)), BiasSolver(BiasConfig("sign", 1e-3)), LpSolver(),
        QuantileSolver(SweepsConfig(8)), BipSolver(SweepsConfig(8)), SinkhornSolver(SinkhornConfig(0.1)),
        AuxLossSolver(AuxLossConfig(1.0, learning_rate=0.3)),
    ]  # fmt: skip
    for solver in solvers:
        got, _ = figures(ScoresTask(SMALL), solver, indices=(0, 1))
        assert got["wrong_choices"] == 0.0
        assert got["affinity_ratio"] <= 1.0 + 1e-9 or got["max_vio_global"] > 0.0, solver
        assert got["max_vio_global"] < 2.0


def test_expert_choice_is_shown_to_break_the_number_of_choices() -> None:
    """Balanced, but most tokens do not get K experts."""
    got, _ = figures(ScoresTask(SMALL), ExpertChoiceSolver())
    assert got["max_vio_global"] == 0.0 and got["wrong_choices"] > 0.3


def test_the_bias_balances_a_stream_and_has_little_regret() -> None:
    """After 200 batches; plain top-K (u = 0) pays far more."""
    task = StreamTask(StreamConfig(n_batches=200))
    ours, digest = figures(task, BiasSolver(BiasConfig("ogd")))
    again, same = figures(task, BiasSolver(BiasConfig("ogd")))
    plain, _ = figures(task, BiasSolver(BiasConfig("sign", 0.0)))
    assert digest == same and ours == again
    assert ours["max_vio_global"] < 0.1 < plain["max_vio_global"]
    assert ours["regret"] < 0.05 * plain["regret"]
    assert plain["affinity_lost"] == pytest.approx(0.0, abs=1e-12)


def test_group_limited_routing_is_balanced_too() -> None:
    """On a fixed matrix and on a stream; the further constraint costs affinity."""
    grouped = BiasConfig("prop_sqrt", 0.1, iterations=200, groups=4, top_groups=2)
    free = BiasConfig("prop_sqrt", 0.1, iterations=200)
    for task in (ScoresTask(SMALL), StreamTask(StreamConfig(n_batches=60))):
        limited, _ = figures(task, BiasSolver(grouped))
        unlimited, _ = figures(task, BiasSolver(free))
        assert limited["wrong_choices"] == 0.0 and limited["max_vio_global"] < 0.2
        assert limited["affinity_lost"] > unlimited["affinity_lost"]


@pytest.mark.parametrize("kind", ["iid", "walk", "shift"])
def test_every_kind_of_stream_runs(kind: str) -> None:
    """Also for methods that look at the batch, which have no running bias to regret."""
    task = StreamTask(StreamConfig(kind=kind, n_batches=6))
    assert "regret" not in figures(task, LpSolver())[0]
    assert figures(task, AuxLossSolver())[0]["max_vio_batch"] > 0


def test_the_world_does_not_depend_on_the_solver() -> None:
    """Two solvers see the same scores: the exact optimum and plain top-K agree on what plain top-K would earn."""
    task = StreamTask(StreamConfig(n_batches=3))
    ctx = RunContext(seed=4, indices=[0, 1])
    first, second = ([s.sum() for i in task.instances(ctx) for s, _ in i] for _ in range(2))
    assert first == second and len(set(first)) == 6


def test_actions_that_mean_nothing_are_refused() -> None:
    """Wrong shape, wrong type."""
    scores = np.random.default_rng(0).random((5, 4))
    for action in (np.zeros(3), np.zeros((5, 4)), np.zeros(4, dtype=int)):
        with pytest.raises(ArgumentError, match="action"):
            chosen_by(action, scores, 2)


def test_scores_are_read_from_files(tmp_path) -> None:
    """A .npy, a .npz, a log with a time axis; pickles and text are refused."""
    scores = np.random.default_rng(0).random((6, 4))
    np.save(tmp_path / "a.npy", scores.reshape(2, 3, 4))
    np.savez(tmp_path / "b.npz", scores=scores, other=np.zeros(3))
    assert (load_scores(tmp_path / "a.npy") == scores).all()
    assert (load_scores(tmp_path / "b.npz") == scores).all()
    np.save(tmp_path / "c.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "d.npy").write_text("not numbers")
    for name in ("c.npy", "d.npy", "missing.npy"):
        with pytest.raises(ArgumentError, match="path"):
            load_scores(tmp_path / name)
    got, _ = figures(ScoresTask(ScoresConfig(path=str(tmp_path / "b.npz"), k=2)), LpSolver())
    assert got["wrong_choices"] == 0.0


def test_a_model_is_trained_under_each_choice_from_the_same_start() -> None:
    """Four steps of a tiny model: same batches, same first loss, figures finite."""
    pytest.importorskip("torch", reason="needs the extra 'torch'")
    task = CharLmTask(CharLmConfig(4, 16, 1, 2, 4, 2, 0, 16, 32, 8, valid_characters=1000))
    for solver in (BiasSolver(BiasConfig(u=0.01)), AuxLossSolver(AuxLossConfig(0.01, 1e-3))):
        got, digest = figures(task, solver, TrainingEvaluator())
        assert 3.0 < got["valid_loss"] < 5.5 and got["max_vio_global"] >= 0
    assert figures(task, solver, TrainingEvaluator())[1] == digest


def test_the_load_section_recomputes_loads_from_the_actions() -> None:
    """And says so in a sentence where no trace was kept."""
    parts = pytest.importorskip("sfumato.report.parts", reason="needs the report")
    from sfumato_alflb.sections import loads

    task = StreamTask(StreamConfig(n_batches=4, n_tokens=30, n_experts=5))
    instance = next(iter(task.instances(RunContext())))

    class View:
        kept: dict = {"native.actions": np.zeros((4, 5))}

        def trace(self, episode):
            return self.kept

        def instance(self, episode):
            return instance

    table = np.array(loads(View()).figure["data"][0]["z"])
    assert table.shape == (5, 4) and np.allclose(table.mean(axis=0), 1.0, atol=1e-3)
    heat = loads(View()).figure["data"][0]
    assert heat["colorscale"][-1][1] == "#b2182b"  # overload is red, as in the pictures of diagnose
    View.kept = {}
    assert isinstance(loads(View()), parts.Text)
    # One batch is shown as bars beside plain top-K.
    instance = next(iter(ScoresTask(SMALL).instances(RunContext())))
    bias = alf_run(AlfProblem(instance.scores, 2), "prop_inv", 0.5, steps=200).bias
    View.kept = {"native.actions": bias[None]}
    plain, ours = (np.array(bars["y"]) for bars in loads(View()).figure["data"])
    assert plain.max() > 1.5 > 1.1 > ours.max()


def test_one_batch_methods_decline_to_train_a_model() -> None:
    """With a reason and advice."""
    refusal = LpSolver().supports(CharLmTask(), None)  # type: ignore[arg-type]
    assert refusal is not None and "alflb/bias" in refusal.advice


@pytest.mark.parametrize(
    ("solver", "task", "word"),
    [
        (BiasSolver(BiasConfig("ogd")), CharLmTask(), "mu"),
        (BiasSolver(BiasConfig(sequence=0.1)), StreamTask(), "sequence"),
        (BiasSolver(BiasConfig(score="softmax")), ScoresTask(), "score"),
        (AuxLossSolver(AuxLossConfig(z=1e-3)), StreamTask(), "z"),
    ],
)
def test_a_setting_that_would_do_nothing_is_declined(solver, task, word: str) -> None:
    """The z-loss, for instance, needs logits; a theory step for a model needs its modulus."""
    refusal = solver.supports(task, None)
    assert refusal is not None and word in refusal.reason
    other = CharLmTask() if not isinstance(task, CharLmTask) else StreamTask()
    assert solver.supports(other, None) is None


def test_a_model_can_be_trained_with_the_theory_step() -> None:
    """mu is handed on to the router."""
    task = CharLmTask(CharLmConfig(steps=2, dim=16, n_layers=1, heads=2, experts=4, expert_width=16, batch=4,
                                   context=32, valid_characters=512))  # fmt: skip
    measured, _ = figures(task, BiasSolver(BiasConfig("ogd", mu=1e4)), TrainingEvaluator())
    assert 0 < measured["max_abs_bias"] < 0.1


def test_every_component_is_found_and_can_be_built() -> None:
    """Names, targets and settings in plugin.py are real."""
    registry = Registry()
    names = {
        "task": ["scores", "stream", "char-lm"],
        "solver": ["bias", "lp", "quantile", "bip", "sinkhorn", "expert-choice", "aux-loss"],
        "evaluator": ["balance", "training"],
    }
    from sfumato import config, plugins

    for kind, short in names.items():
        for name in short:
            assert plugins.build(registry.find(kind, f"alflb/{name}"), {}, config.structure) is not None


def test_the_package_and_its_plugin_module_stay_light() -> None:
    """Neither numpy nor torch nor the core's heavy parts are imported."""
    code = (
        "import sys, sfumato_alflb, sfumato_alflb.plugin as p; list(p.sfumato_components()); list(p.sfumato_doctor());"
        "bad = {'numpy', 'torch', 'scipy', 'numba', 'ortools', 'rich', 'cattrs'} & set(sys.modules); print(sorted(bad))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_library_needs_no_core() -> None:
    """The method can be used where sfumato is not installed."""
    code = (
        "import sys; sys.modules['sfumato'] = None; from sfumato_alflb import *; import sfumato_alflb.lm;"
        "print(alf_run(AlfProblem([[0.1, 0.2], [0.3, 0.1]], 1)).max_vio[-1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0.0"
