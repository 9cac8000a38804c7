"""Tools, budget, refusals and score."""

import json

import pytest

from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE, generate
from sfumato_opaque_knapsack.world import BadToolCall, ToolFailure, World, replay


def _forbidden(instance):
    return next(item for item in instance.items if item.label not in instance.allowed)


def test_list_items_gives_a_json_array_of_all_ids(world):
    assert json.loads(world.call("list_items")) == [item.id for item in world.instance.items]


def test_inspect_gives_compact_json_with_sorted_keys(world):
    item = world.instance.items[0]
    expected = f'{{"class":"{item.label}","value":{item.value},"weight":{item.weight}}}'
    assert world.call("inspect", (item.id,)) == expected
    assert world.call("inspect", (), {"item_id": item.id}) == expected


def test_the_budget_counts_distinct_ids_and_repeats_are_free():
    """When the budget is spent, seen items answer still and new ones do not."""
    instance = next(i for i in (generate("easy", s) for s in range(50)) if i.budget < i.n)
    world = World(instance)
    for item in instance.items[: instance.budget]:
        world.call("inspect", (item.id,))
        world.call("inspect", (item.id,))
    with pytest.raises(ToolFailure, match="budget"):
        world.call("inspect", (instance.items[-1].id,))
    assert world.outcome().n_inspected == instance.budget
    assert world.outcome().n_inspect_calls == 2 * instance.budget + 1


def test_taking_the_optimal_set_scores_one_and_is_solved(world):
    for item_id in world.instance.optimal_ids:
        assert world.call("take_item", (item_id,)) is None
    outcome = world.outcome()
    assert (outcome.score, outcome.solved, outcome.gap) == (1.0, True, 0.0)


def test_refusals_come_in_the_stated_order(world):
    """Known, then taken, then class, then capacity."""
    instance = world.instance
    with pytest.raises(ToolFailure, match="unknown"):
        world.call("take_item", ("item_000000000000",))
    first = instance.optimal_ids[0]
    world.call("take_item", (first,))
    with pytest.raises(ToolFailure, match="already"):
        world.call("take_item", (first,))
    forbidden = _forbidden(instance)
    with pytest.raises(ToolFailure, match=f"class {forbidden.label}"):
        world.call("take_item", (forbidden.id,))
    too_heavy = None
    for item in instance.allowed_items:
        if item.id != first and too_heavy is None:
            try:
                world.call("take_item", (item.id,))
            except ToolFailure as failure:
                too_heavy = str(failure)
    assert too_heavy is not None and "weighs" in too_heavy
    assert world.weight <= instance.capacity


def test_a_leaked_refusal_is_counted_and_strict_take_reveals_nothing(easy):
    """In paper mode a refusal tells the class of an item never paid for; strict mode says only that."""
    forbidden = _forbidden(easy)
    world = World(easy)
    with pytest.raises(ToolFailure):
        world.call("take_item", (forbidden.id,))
    assert world.outcome().n_leaks == 1
    strict = World(easy, strict_take=True)
    messages = set()
    for item in (forbidden, easy.allowed_items[0]):
        with pytest.raises(ToolFailure, match="not been inspected") as caught:
            strict.call("take_item", (item.id,))
        messages.add(str(caught.value).replace(item.id, "ID"))
    assert len(messages) == 1
    assert strict.outcome().n_leaks == 0


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("inspect", (), {}),
        ("inspect", (3,), {}),
        ("inspect", (None,), {}),
        ("inspect", (["a"],), {}),
        ("inspect", ("a", "b"), {}),
        ("inspect", ("a",), {"item_id": "b"}),
        ("inspect", (), {"id": "a"}),
        ("list_items", ("a",), {}),
        ("drop_item", (), {}),
        (None, (), {}),
        (["inspect"], (), {}),
    ],
)
def test_a_malformed_call_is_told_apart_from_a_refused_one(world, name, args, kwargs):
    with pytest.raises(BadToolCall):
        world.call(name, args, kwargs)


def test_every_tool_refuses_after_finish(world):
    world.call("finish")
    for name, args in (("list_items", ()), ("take_item", (world.instance.optimal_ids[0],)), ("finish", ())):
        with pytest.raises(ToolFailure, match="ended"):
            world.call(name, args)
    assert world.outcome().value == 0


def test_a_replay_of_the_calls_gives_the_same_outcome(easy):
    """The outcome is a function of the instance and the calls alone, refused ones included."""
    calls = [("take_item", (item.id,), {}) for item in easy.items] + [
        ("nonsense", (), {}),
        ("finish", (), {}),
    ]
    world = World(easy)
    for call in calls:
        try:
            world.call(*call)
        except (BadToolCall, ToolFailure):
            continue
    assert replay(easy, calls) == world.outcome()
    assert generate("easy", EVAL_SEED_BASE) == easy
