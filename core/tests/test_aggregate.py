"""Aggregates over several tasks: known answers, an independent bootstrap, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sfumato.aggregate import aggregate, interquartile_mean, optimality_gap
from sfumato.compare import Side, Values
from sfumato.errors import UsageError


def pair(task, a, b, direction="max", unit="1"):
    """The two sides of one task."""
    return tuple(
        Side(label, task, "w", (), {"score": Values("score", unit, direction, "mean", dict(enumerate(v)))})
        for label, v in (("a", a), ("b", b))
    )


def test_the_interquartile_mean_and_the_optimality_gap_of_small_samples():
    """Of 0 … 7 the middle half is 2, 3, 4, 5; what is beyond the target earns nothing."""
    assert interquartile_mean(np.arange(8.0)) == 3.5
    assert interquartile_mean(np.array([0, 0, 1, 2, 3, 100.0])) == 1.5  # 6 / 4 = 1 is cut at each end
    assert optimality_gap(np.array([0.5, 1.5, 1.0, 0.0]), 1.0) == 0.375
    assert optimality_gap(np.array([0.5, 1.5]), 1.0, sign=-1.0) == 0.25


def test_items_are_resampled_within_their_task():
    """Two tasks that always give 0 and 1: the mean over both is 1/2 in every resample, and would not be without strata."""
    (made,) = aggregate([pair("x", [0] * 9, [0] * 9), pair("y", [1] * 9, [1] * 9)], "score", ["mean"])
    assert (made.value_first, made.low_first, made.high_first, made.error_first) == (0.5, 0.5, 0.5, 0.0)
    assert (made.difference, made.low, made.high) == (0, 0, 0)
    assert (made.n, made.tasks) == (18, ("x", "y"))


def test_a_constant_difference_has_an_interval_of_no_width_though_both_sides_vary():
    """The same items are drawn for both: pairs."""
    rng = np.random.default_rng(1)
    pairs = [pair(t, x := rng.normal(size=20), x + 2.0) for t in ("x", "y", "z")]
    for made in aggregate(pairs, "score", ["iqm", "mean"]):
        assert (made.low, made.difference, made.high) == pytest.approx((2, 2, 2))
        assert made.high_first - made.low_first > 0.2


def test_intervals_are_those_of_a_bootstrap_written_out():
    """An independent one, by loops: of the interquartile mean over three tasks, and of the optimality gap."""
    rng = np.random.default_rng(2)
    tasks = {name: (rng.normal(k, 1, 30), rng.normal(k + 0.5, 1, 30)) for k, name in enumerate("xyz")}
    iqm, gap = aggregate([pair(t, *v) for t, v in tasks.items()], "score", ["iqm", "optimality gap"], target=2.0)
    assert gap.statistic == "optimality gap to 2"
    assert gap.direction == "min"

    def middle(v):
        v = np.sort(v)
        cut = len(v) // 4
        return v[cut : len(v) - cut].mean()

    drawn = {"iqm": [], "gap": [], "difference": []}
    for _ in range(4000):
        picks = [rng.integers(0, 30, 30) for _ in tasks]
        a, b = (np.concatenate([v[k][p] for v, p in zip(tasks.values(), picks, strict=True)]) for k in (0, 1))
        drawn["iqm"].append(middle(a))
        drawn["gap"].append(np.clip(2.0 - a, 0, None).mean())
        drawn["difference"].append(middle(b) - middle(a))
    pooled = np.concatenate([v[0] for v in tasks.values()])
    assert iqm.value_first == pytest.approx(middle(pooled))
    for got, name in (((iqm.low_first, iqm.high_first), "iqm"),
                      ((gap.low_first, gap.high_first), "gap"), ((iqm.low, iqm.high), "difference")):  # fmt: skip
        low, high = np.quantile(drawn[name], [0.025, 0.975])
        assert got == pytest.approx((low, high), abs=0.1 * (high - low))  # a quantile of 4,000 draws is off by 3 % or so


def test_the_error_of_one_tasks_mean_is_the_usual_one():
    """s / sqrt(n)."""
    x = np.random.default_rng(3).normal(size=50)
    (made,) = aggregate([pair("x", x, x)], "score", ["mean"])
    assert made.error_first == pytest.approx(x.std(ddof=1) / np.sqrt(50))


def test_a_scale_puts_tasks_together_that_are_not_alike():
    """0 is the low reference of each task, 1 the high one; also where smaller is better."""
    pairs = [pair("x", [10, 20, 30, 40], [40] * 4, unit="points"), pair("y", [5, 4, 3, 2], [1] * 4, "min", "s")]
    with pytest.raises(UsageError, match="one scale"):
        aggregate(pairs, "score", ["mean"])
    (made,) = aggregate(pairs, "score", ["mean"], scale={"x": (0, 40), "y": (5, 1)})
    assert (made.value_first, made.value_second, made.direction) == (pytest.approx(0.5), 1.0, "max")
    with pytest.raises(UsageError, match="no scale for task 'y'"):
        aggregate(pairs, "score", ["mean"], scale={"x": (0, 40)})


def test_what_would_not_weigh_alike_is_refused():
    """And other instances are, as everywhere."""
    with pytest.raises(UsageError, match="x: 3, y: 2"):
        aggregate([pair("x", [1, 2, 3], [1, 2, 3]), pair("y", [1, 2], [1, 2])], "score", ["mean"])
    with pytest.raises(UsageError, match="only a has instances 2"):
        aggregate([pair("x", [1, 2, 3], [1, 2])], "score", ["mean"])
    with pytest.raises(UsageError, match="no statistic 'median'"):
        aggregate([pair("x", [1, 2], [1, 2])], "score", ["median"])


def test_one_item_or_a_value_that_is_no_number_leaves_no_interval():
    """There is nothing to resample."""
    for values in ([1.0], [1.0, float("nan"), 2.0]):
        (made,) = aggregate([pair("x", values, values)], "score", ["mean"])
        assert (made.low, made.low_first, made.error_first) == (None, None, None)


def test_the_presets_of_the_command(sfumato):
    """`return` a line a task, `learning` one figure of all; the metric must be named where there is no usual one."""
    for task in ("toys/echo", "toys/coin"):
        sfumato("run", task, "--solver", "toys/noop", "--seeds", "4", "--isolation", "none", check=0)
        sfumato("run", task, "--solver", "toys/diary", "--seeds", "4", "--isolation", "none", "-s", "seconds=0", check=0)
    words = ("compare", "toys/noop", "toys/diary", "--preset")
    lines = [json.loads(line) for line in sfumato(*words, "return", "--json", check=0).stdout.splitlines()]
    assert [line["tasks"] for line in lines] == [["toys/coin"], ["toys/echo"]]
    assert {line["metric"] for line in lines} == {"return"}
    shown = sfumato(*words, "learning", "--metric", "return", check=0).stdout
    assert "toys/coin, toys/echo: toys/diary minus toys/noop, n = 8 items of 2 tasks, 4 each" in shown
    assert "return, iqm" in shown
    assert "return, optimality gap to 1" in shown
    assert "--metric" in sfumato(*words, "learning", check=2).stderr
    assert "a metric 'gap', which" in sfumato(*words, "routing", check=2).stderr
    assert "TASK=LOW:HIGH" in sfumato(*words, "learning", "--metric", "return", "--scale", "x=3", check=2).stderr
