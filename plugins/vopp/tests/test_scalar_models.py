"""The problems that are written as compiled functions: facts known by hand, and likelihoods against frequencies."""

from collections import deque

import numpy as np
import pytest

pytest.importorskip("numba", reason="these problems are compiled")
from sfumato_vopp import ExactFilter, ParticleFilter, check_model
from sfumato_vopp.exact import mdp_values
from sfumato_vopp.models.lasertag import SAME_CELL, LaserTag, reading_table
from sfumato_vopp.models.lightdark import LightDark
from sfumato_vopp.models.mars import Mars
from sfumato_vopp.models.navigation import GOAL, SIZE, Navigation
from sfumato_vopp.models.tag import TAG, Tag
from sfumato_vopp.tabular import tabulate

MODELS = [Tag(), LaserTag(), LightDark(), Mars(7, 8), Navigation()]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_what_is_simulated_is_possible(model, rng) -> None:  # type: ignore[no-untyped-def]
    check_model(model, rng)
    states = model.initial(300, rng)
    for _ in range(12):
        actions = rng.integers(0, model.n_actions, len(states))
        out = model.step(states, actions, rng)
        alive = np.flatnonzero(~out.terminal)
        for i in alive[:40]:
            o, a = int(out.observations[i]), int(actions[i])
            assert model.log_likelihood(o, states[i : i + 1], a, out.states[i : i + 1])[0] > -40
        assert np.all(np.isfinite(model.value_hint(out.states[alive], actions[alive])))
        assert model.describe_state(states[0])
        states = out.states[alive]


@pytest.mark.parametrize(
    ("model", "action"), [(LightDark(), 4), (Mars(7, 8), 9 * 13 + 11), (Navigation(), 7), (Tag(), 1)], ids=lambda v: str(v)[:20]
)
def test_likelihoods_are_the_frequencies_of_what_is_simulated(model, action: int, rng) -> None:  # type: ignore[no-untyped-def]
    n = 40_000
    states = np.repeat(model.initial(1, rng), n, axis=0)
    out = model.step(states, np.full(n, action), rng)
    following, counts = np.unique(out.states, axis=0, return_counts=True)
    common = following[counts.argmax()]
    same = (out.states == common).all(axis=1) & ~out.terminal
    seen, counts = np.unique(out.observations[same], return_counts=True)
    p = np.array([np.exp(model.log_likelihood(int(o), states[:1], action, common[None]))[0] for o in seen])
    assert p.sum() <= 1 + 1e-9
    expected = p * same.sum()
    big = expected > 5
    chi2 = np.sum((counts[big] - expected[big]) ** 2 / expected[big])
    assert chi2 < big.sum() + 5 * np.sqrt(2 * big.sum() + 1)


def test_the_opponent_of_tag_keeps_its_mass() -> None:
    tag = Tag()
    assert tag.n_cells == 29
    out = tag.transitions(np.arange(29 * 29)[:, None], 0)
    np.testing.assert_allclose(np.bincount(out.source, weights=out.probabilities), 1.0)
    # Robot at (0, 0), opponent at (9, 0): east is blocked, so is south; it may go up, or stay with 0.2 + 0.4.
    start = np.array([[0 * 29 + 9]])
    out = tag.transitions(start, TAG)
    landing = {int(s % 29): p for s, p in zip(out.states[:, 0], out.probabilities, strict=True) for p in [p]}
    by_cell = np.bincount(out.states[:, 0] % 29, weights=out.probabilities)
    assert by_cell[9] == pytest.approx(0.2 + 0.4 + 0.2) and by_cell[19] == pytest.approx(0.2)
    assert landing and np.all(out.rewards == -10)


def test_simulated_tag_moves_have_the_listed_probabilities(rng) -> None:  # type: ignore[no-untyped-def]
    tag = Tag()
    start = np.array([[5 * 29 + 15]])
    listed = tag.transitions(start, 1)
    drawn = tag.step(np.repeat(start, 50_000, axis=0), np.full(50_000, 1), rng).states[:, 0]
    expected = np.bincount(listed.states[:, 0], weights=listed.probabilities, minlength=841) * 50_000
    got = np.bincount(drawn, minlength=841)
    assert np.all(got[expected == 0] == 0)
    keep = expected > 0
    assert np.sum((got[keep] - expected[keep]) ** 2 / expected[keep]) < 30


def test_tag_knows_every_state_and_the_best_chase() -> None:
    tables = tabulate(Tag())
    assert tables.n_states == 29 * 29
    values = mdp_values(tables).max(axis=0)
    assert values.max() == pytest.approx(10.0)


def test_a_beam_s_readings_are_a_distribution() -> None:
    table = np.exp(reading_table(12))
    np.testing.assert_allclose(table.sum(axis=-1)[:, 1:11], 1.0, atol=1e-9)
    assert table[0, 1, 0] == pytest.approx(1.0)  # a wall next door always reads zero


def test_lasertag_beams_see_the_opponent_before_the_wall(rng) -> None:  # type: ignore[no-untyped-def]
    model = LaserTag(obstacles=((5, 3),))
    number = {cell: i for i, cell in enumerate(model.cells)}
    west, east, gap = number[0, 0], number[10, 0], number[3, 0]
    for opponent, steps in ((gap, 3), (east, 10)):
        state = np.array([[west * model.n_cells + opponent]])
        far = [np.exp(model.log_likelihood(k << 8, state, 0, state))[0] for k in range(16)]
        assert far[steps - 1] > 0 and all(p == 0 for p in far[steps:])  # beam 2 looks east
    same = np.array([[west * model.n_cells + west]])
    assert model.log_likelihood(SAME_CELL, same, 0, same)[0] == 0
    assert model.log_likelihood(0, same, 0, same)[0] == -np.inf


def test_light_dark_reads_well_in_the_light() -> None:
    model = LightDark()
    light, dark = np.array([[10]]), np.array([[-40]])
    assert np.exp(model.log_likelihood(10, light, 1, light))[0] == pytest.approx(1.0)
    bins = np.arange(-400, 400)
    for state in (light, dark, np.array([[11]])):
        total = sum(np.exp(model.log_likelihood(int(o), state, 1, state))[0] for o in bins)
        assert total == pytest.approx(1.0, abs=1e-9)
    stop = model.step(np.array([[0], [3]]), np.array([2, 2]), np.random.default_rng(0))
    assert stop.terminal.all() and stop.rewards.tolist() == [100, -100]
    assert ExactFilter(model).update(4, 10).probability is not None


def test_mars_pays_both_rovers_in_order() -> None:
    model = Mars(7, 8)
    x, y = model.rocks[0]
    both = x | y << 8 | x << 16 | y << 24 | 3 << 32
    samples = 4 * 13 + 4
    out = model.step(np.array([[1, both]]), np.array([samples]), np.random.default_rng(0))
    assert out.rewards[0] == 0 and out.states[0, 0] == 0  # +10, then -10 for the rock that has turned bad
    edge = 6 | 3 << 8 | 6 << 16 | 4 << 24 | 3 << 32
    out = model.step(np.array([[0, edge]]), np.array([0]), np.random.default_rng(0))
    assert out.rewards[0] == 20 and out.terminal[0]
    one_left = 6 | 3 << 8 | 0 << 16 | 4 << 24 | 2 << 32
    out = model.step(np.array([[0, one_left]]), np.array([3 * 13 + 3]), np.random.default_rng(0))
    assert out.rewards[0] == -100 and not out.terminal[0]


def test_rocks_not_looked_at_keep_their_odds(rng) -> None:  # type: ignore[no-untyped-def]
    model = Mars(7, 8)
    belief_filter = ParticleFilter(model, 4000, rng)
    belief = belief_filter.update(5 * 13 + 0, 2 * 3 + 0)  # rover 0 senses rock 0: good; rover 1 goes east
    good = [belief.probability((belief.particles[:, 0] >> i) & 1 == 1) for i in range(8)]
    start = model.rocks[0]
    d = np.hypot(start[0] - model.starts[0][0], start[1] - model.starts[0][1])
    assert good[0] == pytest.approx(0.5 + 0.5 * 2 ** (-d / 20), abs=0.04)
    assert max(abs(g - 0.5) for g in good[1:]) < 0.05


def path_length(grid: np.ndarray, x: int, y: int) -> int:
    queue, seen = deque([(x, y, 0)]), {(x, y)}
    while queue:
        x, y, d = queue.popleft()
        if (x, y) == GOAL:
            return d
        for dx in (-1, 0, 1):
            for dy in (-1, 0, 1):
                cell = (x + dx, y + dy)
                if 0 <= cell[0] < SIZE and 0 <= cell[1] < SIZE and not grid[cell] and cell not in seen:
                    seen.add(cell)
                    queue.append((*cell, d + 1))
    return -1


def test_the_navigation_hint_is_the_shortest_path(rng) -> None:  # type: ignore[no-untyped-def]
    model = Navigation(layout_seed=3)
    states = model.initial(300, rng)
    states[150:, 4] = rng.integers(0, 169, 150)
    hints = model.value_hint(states, np.zeros(300, np.int64))
    maps = Navigation.unpack(states)
    for grid, state, hint in zip(maps, states, hints, strict=True):
        d = path_length(grid, *divmod(int(state[4]), SIZE))
        assert hint == pytest.approx(-100.0 if d < 0 else model._floats[d])


def test_navigation_maps_have_one_open_gate(rng) -> None:  # type: ignore[no-untyped-def]
    model = Navigation()
    maps = Navigation.unpack(model.initial(500, rng))
    open_gates = ~maps[:, 6]
    assert np.all(open_gates.sum(axis=1) == 1)
    assert abs(open_gates[:, 3].mean() - 0.5) < 0.1 and np.all(open_gates[:, 3] | open_gates[:, 9])
    belief = ParticleFilter(model, 2000, rng).update(8, 0).particles
    assert len(np.unique(belief, axis=0)) > 100


def test_a_hint_lies_between_knowing_all_and_walking_for_ever(rng) -> None:  # type: ignore[no-untyped-def]
    for kind in (Tag, LaserTag, LightDark):
        full, mixed = kind(hint_weight=1.0), kind(hint_weight=0.5)
        states = full.initial(200, rng)
        best, hint = (m.value_hint(states, np.zeros(200, np.int64)) for m in (full, mixed))
        forever = -1.0 / (1.0 - full.discount)
        assert np.all(hint <= best + 1e-9) and np.all(hint >= forever - 1e-9)
        moving = best < 10.0 if kind is not LightDark else np.ones(200, bool)
        np.testing.assert_allclose(hint[moving], 0.5 * best[moving] + 0.5 * forever)
        with pytest.raises(ValueError, match="hint_weight"):
            kind(hint_weight=0.0)


def test_a_tag_on_the_same_cell_is_worth_its_reward_whatever_the_weight() -> None:
    model = Tag(hint_weight=0.3)
    state = np.array([[5 * model.n_cells + 5]])
    assert model.value_hint(state, np.zeros(1, np.int64))[0] == pytest.approx(0.3 * 10.0)
