"""Scripted agents that write code, in both regimes."""

import pytest

from sfumato_opaque_knapsack.experts import FAULTS, REGIMES, Injector, ScriptedExpert, output_of
from sfumato_opaque_knapsack.instances import LEVELS, generate, level_named
from sfumato_opaque_knapsack.metrics import count_words
from sfumato_opaque_knapsack.prompts import public_part
from sfumato_opaque_knapsack.styles import STYLES, read_number, read_refused, read_rows
from sfumato_opaque_knapsack.trusted import code_of, play_expert
from sfumato_opaque_knapsack.world import World


def _episode(regime, level, seed, style="varied"):
    instance = generate(level, seed)
    world = World(instance)
    turns = play_expert(
        ScriptedExpert(regime, style=style),
        world,
        public_part(instance, reveal_allowed=True, reveal_items=True),
        seed,
    )
    return world, turns


@pytest.mark.parametrize("style", [style.name for style in STYLES])
@pytest.mark.parametrize("level", LEVELS.values(), ids=lambda level: level.name)
def test_both_regimes_make_the_same_calls_in_the_same_order(level, style):
    """Only `list_items` may be repeated; no block fails; no block exceeds the cap; all finish."""
    for seed in range(8):
        logs, outcomes = [], []
        for regime in REGIMES:
            world, turns = _episode(regime, level, seed, style)
            assert [ran.error for _, ran in turns] == [None] * len(turns)
            assert max(len(ran.tool_calls) for _, ran in turns) <= level.tool_calls_per_action
            assert world.finished
            logs.append([call for _, ran in turns for call in ran.tool_calls if call[0] != "list_items"])
            outcomes.append(world.outcome())
        assert logs[0] == logs[1]
        assert outcomes[0] == outcomes[1]
        assert outcomes[0].n_leaks == 0


def test_all_styles_earn_the_same_on_the_same_seed():
    """Styles differ in words and code, not in what they do."""
    level = level_named("easy")
    for seed in range(5):
        scores = {_episode("persistent", level, seed, style.name)[0].outcome() for style in STYLES}
        assert len(scores) == 1


def test_the_expert_uses_the_budget_and_leaves_no_candidate():
    """It inspects min(budget, n) items and comes within a few points of the density greedy reference."""
    level, total = level_named("easy"), 0.0
    for seed in range(150):
        world, _ = _episode("stateless", level, seed)
        assert world.outcome().n_inspected == min(world.instance.budget, world.instance.n)
        total += world.outcome().score
    assert 0.82 < total / 150 < 0.92


def test_stateless_code_has_at_least_twice_as_many_words():
    level = level_named("easy")
    lengths = {
        regime: sum(
            count_words(message) for seed in range(30) for message, _ in _episode(regime, level, seed)[1]
        )
        for regime in REGIMES
    }
    assert lengths["stateless"] >= 2 * lengths["persistent"]


def test_stateless_blocks_run_alone():
    """Every stateless block names nothing that another block bound: it compiles and runs in a fresh namespace."""
    _, turns = _episode("stateless", level_named("hard"), 3)
    assert all(ran.ok for _, ran in turns)
    assert len(turns) >= 5


def test_an_episode_depends_on_its_seed_alone():
    level = level_named("easy")
    first = [m for m, _ in _episode("persistent", level, 9)[1]]
    assert first == [m for m, _ in _episode("persistent", level, 9)[1]]
    assert first != [m for m, _ in _episode("persistent", level, 10)[1]]


@pytest.mark.parametrize(
    "text",
    ["a3f9 4 55 B", '["a3f9", 4, 55, "B"]', "a3f9,4,55,B", "a3f9 w=4 v=55 c=B"],
)
def test_every_layout_of_a_row_is_read(text):
    (row,) = read_rows(f"x\n{text}\nleft 3", "[0-9a-f]{4}")
    assert (row.id, row.weight, row.value, row.label) == ("a3f9", 4, 55, "B")


def test_numbers_and_classes_are_read_from_every_layout():
    assert read_number('{"room": 12, "pending": 3}', "pending") == 3
    assert read_number("nothing here", "left") is None
    assert read_refused('{"refused": ["B", "D"]}') == ["B", "D"]
    assert read_refused("refused=BD\nroom=3") == ["B", "D"]


def test_an_observation_in_the_papers_json_is_read_like_plain_text():
    assert output_of('{"success":true,"result":null,"output":"left 3\\n","error":null}') == "left 3\n"
    assert output_of('{"left": 3}') == '{"left": 3}'


def test_a_lost_namespace_is_set_up_again_while_inspecting():
    """An expert whose output went missing begins again, and still finishes its episode."""
    level = level_named("easy")
    instance = generate(level, 4)
    expert = ScriptedExpert("persistent", style="plain")
    expert.reset(public_part(instance, reveal_allowed=True, reveal_items=True), 1)
    first = expert.act("")
    assert code_of(expert.act("NameError: name 'look' is not defined")) == code_of(first)


def test_faults_strike_at_their_rate():
    """The share of struck episodes lies in the binomial range of the rate put in."""
    level = level_named("micro")
    instance = generate(level, 0)
    struck = 0
    for seed in range(400):
        injector = Injector(ScriptedExpert("stateless"), ("two-blocks",), rate=0.3, per="episode")
        injector.reset(public_part(instance, reveal_allowed=True, reveal_items=True), seed)
        for observation in ("", "left 3", "left 0", "pending 0"):
            injector.act(observation)
        struck += bool(injector.injected)
    assert 90 <= struck <= 150


def test_the_expert_goes_on_after_a_fault_as_if_it_had_not_been():
    level = level_named("micro")
    instance = generate(level, 0)
    plain = ScriptedExpert("stateless", style="plain")
    plain.reset(public_part(instance, reveal_allowed=True, reveal_items=True), 5)
    expected = [plain.act(""), plain.act("left 3")]
    injector = Injector(ScriptedExpert("stateless", style="plain"), ("no-block",), rate=1.0)
    injector.reset(public_part(instance, reveal_allowed=True, reveal_items=True), 5)
    assert [injector.act(o) for o in ("", "left 3", "")] == [
        expected[0],
        FAULTS["no-block"].message(""),
        expected[1],
    ]


def test_wrong_settings_are_refused_by_name():
    with pytest.raises(ValueError, match="regime"):
        ScriptedExpert("sometimes")
    with pytest.raises(ValueError, match="style"):
        ScriptedExpert("stateless", style="baroque")
    with pytest.raises(ValueError, match="earthquake"):
        Injector(ScriptedExpert("stateless"), ("earthquake",), rate=0.1)
    with pytest.raises(ValueError, match="rate"):
        Injector(ScriptedExpert("stateless"), ("exit",), rate=1.1)
