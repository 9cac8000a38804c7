"""One component a baseline, the time-window task, primal integrals, and the report's gap against time."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sfumato", reason="needs the core")

from sfumato.context import RunContext
from sfumato_bqnco import generate, methods, plugin, report, solvers
from sfumato_bqnco.baselines import construct
from sfumato_bqnco.config import BASELINES, BaselineConfig, MethodConfig, TaskConfig
from sfumato_bqnco.evaluators import GapEvaluator, PrimalIntegralEvaluator, primal_integral
from sfumato_bqnco.instances import from_arrays
from sfumato_bqnco.solving import solve
from sfumato_bqnco.tasks import CvrptwTask, TspTask, encode
from sfumato_bqnco.validate import objective


def drive_all(task, solver, ctx):
    from sfumato.driver import drive
    from sfumato.runtimes import Direct

    return drive(task, solver, Direct(), {"gap": GapEvaluator()}, ctx)


def test_every_method_is_a_component_of_its_own():
    """No method without a component, and each component runs the method that it is named after."""
    assert sorted(BASELINES.values()) == sorted(methods.METHODS)
    offered = {s.name.removeprefix("bqnco/") for s in plugin.sfumato_components() if s.kind == "solver"}
    assert offered == {*BASELINES, "policy", "classical"}
    for name, method in BASELINES.items():
        assert getattr(solvers, f"Baseline_{name.replace('-', '_')}").method == method


def test_the_component_for_any_method_warns_and_still_works():
    """`bqnco/classical` names its successor and gives the same solutions."""
    task, ctx = TspTask(TaskConfig(n=12)), RunContext(seed=3, indices=range(2))
    with pytest.warns(DeprecationWarning, match="bqnco/two-opt"):
        old = solvers.MethodSolver(MethodConfig(method="2-opt"))
    new = solvers.Baseline_two_opt(BaselineConfig())
    assert drive_all(task, old, ctx).digest == drive_all(task, new, ctx).digest


def test_baselines_decline_other_problems_with_advice():
    """Savings are for the CVRP."""
    refusal = solvers.Baseline_savings().supports(TspTask(), None)
    assert "not tsp" in refusal.reason and "2-opt" in refusal.advice


def test_time_window_instances_are_solved_on_time():
    """Random instances: the insertion serves everybody on time, and the task accepts what the driver brings."""
    arrays = generate.cvrptw(np.random.default_rng(4), 6, 30)
    for b in range(6):
        item = from_arrays("cvrptw", arrays, b)
        plan = methods.run("time-insertion", item, 0.0, np.random.default_rng(0))
        assert objective(item, plan) > 0.0
        assert solve(item, 0.0).found_by == "time-insertion"
    task = CvrptwTask(TaskConfig(n=15))
    rows = drive_all(task, solvers.Baseline_time_insertion(), RunContext(indices=range(3))).rows
    assert len(rows) == 1


def test_the_insertion_says_when_nobody_can_be_on_time():
    """A customer whose window closes before a vehicle can arrive."""
    from sfumato_bqnco.distances import Metric

    metric = Metric("euclid", np.array([[0.0, 0.0], [10.0, 0.0]]))
    windows = np.array([[0.0, 100.0], [0.0, 5.0]])
    assert construct.time_insertion(metric, [0, 1], 5, windows, np.zeros(2)) is None
    windows[1, 1] = 10.0
    assert construct.time_insertion(metric, [0, 1], 5, windows, np.zeros(2)) == [[1]]


def test_the_primal_integral_by_hand():
    """Nothing for 1 s, 100 % above for 1 s (primal gap 1/2), optimal for 2 s of 4: (1 + 0.5 + 0) / 4."""
    seconds, values = np.array([1.0, 2.0, 9.0]), np.array([20.0, 10.0, 1.0])
    assert primal_integral(seconds, values, 10.0, 4.0) == pytest.approx(37.5)


def test_incumbents_are_scored_only_when_the_last_one_is_the_solution():
    """The evaluator believes intermediate claims only beside a last one that it can check."""
    item = from_arrays("tsp", generate.tsp(np.random.default_rng(0), 1, 8), 0)
    item = __import__("attrs").evolve(item, reference=2.0)
    tour = list(range(8))
    length = objective(item, tour)
    batch = SimpleNamespace(problem="tsp", items=(item,))

    def trace(last):
        notes = {"incumbent_item": np.zeros(2, int), "incumbent_seconds": np.array([0.1, 0.5]),
                 "incumbent_value": np.array([9.0, last]), "limit_seconds": 1.0}  # fmt: skip
        return SimpleNamespace(notes=notes, native=SimpleNamespace(actions=[encode("tsp", [tour])]))

    (metric,) = PrimalIntegralEvaluator().score(batch, trace(length))
    assert 0.0 < metric.value[0] < 100.0
    assert list(PrimalIntegralEvaluator().score(batch, trace(length - 0.1))) == []


def test_anytime_baselines_note_their_incumbents_and_constructions_do_not():
    """Times in the notes would break the promise of equal bits."""
    item = from_arrays("tsp", generate.tsp(np.random.default_rng(1), 1, 60), 0)
    policy = solvers.Baseline_iterated_two_opt(BaselineConfig(seconds=0.1)).solve(None, None)
    policy.rng = np.random.default_rng(0)
    plan = policy.solutions([item])[0]
    assert policy.said["incumbent_value"][-1] == objective(item, plan)
    assert (np.diff(policy.said["incumbent_seconds"]) >= 0).all()
    policy = solvers.Baseline_two_opt().solve(None, None)
    policy.rng = np.random.default_rng(0)
    policy.solutions([item])
    assert policy.notes() is None


def test_the_report_draws_gap_against_time():
    """One stepped line an item, carried on to the limit; a word instead when nothing was noted."""
    notes = {"incumbent_item": np.array([0, 0, 1]), "incumbent_seconds": np.array([0.1, 0.4, 0.2]),
             "incumbent_value": np.array([12.0, 11.0, 30.0]), "limit_seconds": 2.0}  # fmt: skip
    items = [SimpleNamespace(reference=10.0, name="a"), SimpleNamespace(reference=20.0, name="b")]
    view = SimpleNamespace(trace=lambda: {"notes": notes}, instance=lambda k: SimpleNamespace(items=items))
    (plot,) = report.gap_against_time(view)
    first, second = plot.figure["data"]
    assert first["x"] == [0.1, 0.4, 2.0] and first["y"] == pytest.approx([20.0, 10.0, 10.0])
    assert second["y"] == pytest.approx([50.0, 50.0]) and "gap" in plot.alt
    (text,) = report.gap_against_time(SimpleNamespace(trace=dict))
    assert "no incumbents" in text.text
