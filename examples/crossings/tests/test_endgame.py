"""The belief about allowed classes, the endgame's value by hand, and the player through the runner's loop."""

from __future__ import annotations

import json

import attrs
import numpy as np
import pytest
from sfumato_crossings.config import EndgameConfig
from sfumato_crossings.endgame import BracketEvaluator, EndgameModel, EndgameSolver, allowed_sets

from sfumato import config, plugins
from sfumato.context import RunContext
from sfumato.runtimes import Direct
from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE, LEVELS, generate, solve_knapsack
from sfumato_opaque_knapsack.pomdp import ALLOWED, RankedModel
from sfumato_vopp import ParticleFilter, check_model
from sfumato_vopp.exact import bracket, qmdp
from sfumato_vopp.tabular import tabulate

TINY = attrs.evolve(
    LEVELS["micro"], weights=(2, 3), n_classes=3, n_allowed=2, capacity_ratio=(0.4, 0.6), min_allowed_items=1
)  # fmt: skip


def test_the_belief_about_allowed_classes_by_hand():
    """A and B were seen, 2 heavy each; the third item must be C. A, B: 4 in all, and any ratio rounds to 2. A, C: 4 or 5 in
    all, and of 5 only ratios up to 0.5 do. So 1 against 0.75."""
    masks, chances = allowed_sets(TINY, 3, 2, ("A", "B", "C"), [2, 2], [0, 1])
    assert dict(zip(masks.tolist(), chances, strict=True)) == pytest.approx({0b011: 4 / 7, 0b101: 3 / 7})


def test_facts_that_no_allowed_classes_explain_are_refused():
    """Two items of weight 2 cannot give a capacity of 4 when at most 0.6 of them fits."""
    with pytest.raises(ValueError, match="no set of allowed classes does"):
        allowed_sets(TINY, 2, 4, ("A", "B"), [2, 2], [0, 1])


@pytest.mark.parametrize(("level", "n"), [("micro", 300), ("easy", 60)])
def test_the_belief_is_calibrated(level, n):
    """Over many instances as many seen classes are allowed as the belief says, within four deviations."""
    said, true = [], []
    for k in range(n):
        one = generate(level, EVAL_SEED_BASE + k)
        seen = one.items[: one.budget]
        labels = [ord(item.label) - ord("A") for item in seen]
        masks, chances = allowed_sets(LEVELS[level], one.n, one.capacity, one.classes, [i.weight for i in seen], labels)
        assert sum(1 << (ord(c) - ord("A")) for c in one.allowed) in masks
        for label in set(labels) - {labels[0]}:
            said.append(chances[(masks >> label) & 1 == 1].sum())
            true.append(chr(label + ord("A")) in one.allowed)
    p = np.array(said)
    assert abs(p.sum() - np.sum(true)) < 4 * np.sqrt((p * (1 - p)).sum())


@pytest.mark.parametrize("level", ["micro", "easy"])
def test_two_ways_to_the_same_belief(level):
    """The task's own particles, filtered through a whole budget of inspections, hold the sets with the chances worked out here."""
    apart = []
    for k in range(6):
        one = generate(level, EVAL_SEED_BASE + k)
        seen = one.items[: one.budget]
        labels = [ord(item.label) - ord("A") for item in seen]
        sets, chances = allowed_sets(LEVELS[level], one.n, one.capacity, one.classes, [i.weight for i in seen], labels)
        model = RankedModel.for_instance(one, LEVELS[level])
        kept = ParticleFilter(model, 2_000, np.random.default_rng(k))
        for item in seen:
            shown = json.dumps({"class": item.label, "weight": item.weight, "value": item.value})
            kept.update(1, model.observation_of(1, {"ok": True, "value": shown}))
        masks = kept.belief.particles[:, ALLOWED]
        assert set(masks) <= set(sets)
        for label in set(labels):
            apart.append(np.mean((masks >> label) & 1) - chances[(sets >> label) & 1 == 1].sum())
    assert np.max(np.abs(apart)) < 5 * np.sqrt(0.25 / 2_000)


def gamble() -> EndgameModel:
    """X (weight 2, worth 10) may be taken; Y and Z (weight 1, worth 6 each) may with a chance of a half each; room for 2."""
    return EndgameModel([2, 1, 1], [10, 6, 6], [0, 1, 2], 2, np.array([0b001, 0b011, 0b101, 0b111]), np.full(4, 0.25))


def test_the_value_of_an_endgame_by_hand():
    """To try Y: taken, then Z or nothing, 9 on average; refused, then X. 9.5 in all, so X is taken at once: 10. Who knew the
    classes would have 12 in a quarter of the cases: 10.5."""
    tables = tabulate(gamble())
    found = bracket(tables, gap=1e-9, seconds=30, max_trials=200)
    assert (found.low, found.high) == pytest.approx((10.0, 10.0))
    start = np.flatnonzero(tables.start)
    assert qmdp(tables)[:, start].max(axis=0) @ tables.start[start] == pytest.approx(10.5)


def test_refusals_that_cost_nothing_find_the_best():
    """One of two classes is allowed, room for one item: try the dearer, then the other; as good as knowing."""
    model = EndgameModel([1, 1], [10, 20], [0, 1], 1, np.array([0b01, 0b10]), np.full(2, 0.5))
    found = bracket(tabulate(model), gap=1e-9, seconds=30, max_trials=100)
    assert (found.low, found.high) == pytest.approx((15.0, 15.0))


def test_the_endgame_keeps_the_planners_contract():
    """vopp's own check passes, and no game is longer than its items and its forbidden classes."""
    model = gamble()
    check_model(model, np.random.default_rng(0))
    states, rng = model.initial(200, np.random.default_rng(1)), np.random.default_rng(2)
    for _ in range(3 + 3):
        out = model.step(states, rng.integers(1, 4, len(states)))
        states = out.states[~out.terminal]
    assert len(states) == 0


def play(settings: dict[str, object], n: int, level: str = "micro"):
    """Play n instances; yield instance, outcome and notes."""
    task = plugins.build(
        plugins.Registry().find("task", f"opaque-knapsack/{level}"),
        {"pomdp_model": True, "strict_take": True, "reveal_allowed": True},
        config.structure,
    )
    ctx = RunContext(indices=range(n))
    solver = EndgameSolver(EndgameConfig(**settings))
    assert solver.supports(task, Direct()) is None
    policy = solver.solve(task, ctx)
    for k, instance in enumerate(task.instances(ctx)):
        episode = task.start(instance, ctx, ctx.stream("world", k))
        start = episode.reset()
        policy.reset(start, ctx.stream("policy", k))
        observation, over = start.observation, False
        while not over:
            step = episode.step(policy.act(observation))
            policy.observe(step)
            observation, over = step.observation, step.terminated or step.truncated
        yield instance, episode.outcome(), policy.notes()


def test_who_is_told_the_classes_takes_the_optimum_of_what_was_inspected():
    """The ceiling is what it says, for the whole budget and for half of it."""
    for share in (0.5, 1.0):
        for one, outcome, _ in play({"classes": "told", "share": share}, 12):
            count = max(1, round(share * min(one.budget, one.n)))
            seen = [item for item in one.items[:count] if item.label in one.allowed]
            best, _ = solve_knapsack([i.weight for i in seen], [i.value for i in seen], one.capacity)
            assert (outcome.n_inspected, outcome.value, outcome.finished) == (count, best, True)


def test_the_player_is_below_the_ceiling_and_its_bracket_holds():
    """Instance by instance nobody beats who was told; over instances the bracket agrees with what was taken."""
    told = [outcome.value for _, outcome, _ in play({"classes": "told"}, 30)]
    played = list(play({}, 30))
    taken = np.array([outcome.value for _, outcome, _ in played])
    assert (taken <= told).all()
    low, high = (np.array([notes[name] for *_, notes in played]) for name in ("lower_bound", "upper_bound"))
    assert (high - low < 0.5 + 1e-9).all()
    assert abs((taken - low).mean()) < 4 * np.std(taken - low) / len(taken) ** 0.5


def test_a_task_without_a_model_is_declined_with_what_to_set():
    """The words name the settings."""
    task = plugins.build(plugins.Registry().find("task", "opaque-knapsack/micro"), {}, config.structure)
    assert "pomdp_model=true" in EndgameSolver().supports(task, Direct()).advice


def test_who_claims_no_bracket_gets_no_metric():
    """Other solvers' notes hold none."""
    trace = type("Trace", (), {"notes": {"lower_bound": 1.0, "upper_bound": 2.5}})
    assert [m.value for m in BracketEvaluator().score(None, trace)] == [1.0, 2.5]
    trace.notes = None
    assert not list(BracketEvaluator().score(None, trace))
