"""The generator and the exact optimum."""

import hashlib
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_opaque_knapsack.instances import (
    EVAL_SEED_BASE,
    FAMILY_OFFSET,
    LEVELS,
    UnknownLevel,
    generate,
    generate_many,
    solve_knapsack,
)


def test_the_family_offset_is_the_hash_of_the_family_name():
    """Known by hand: SHA-256("knapsack") begins with these eight digits."""
    assert hashlib.sha256(b"knapsack").hexdigest().startswith(f"{FAMILY_OFFSET:08x}")


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 30)), max_size=9),
    st.integers(0, 40),
)
@settings(max_examples=150, deadline=None)
def test_the_optimum_equals_that_of_trying_every_subset(items, capacity):
    """The dynamic programme agrees with exhaustion, and its set has the value that it claims."""
    weights, values = [w for w, _ in items], [v for _, v in items]
    best = max(
        sum(values[i] for i in chosen)
        for size in range(len(items) + 1)
        for chosen in itertools.combinations(range(len(items)), size)
        if sum(weights[i] for i in chosen) <= capacity
    )
    optimal, chosen = solve_knapsack(weights, values, capacity)
    assert optimal == best == sum(values[i] for i in chosen)
    assert sum(weights[i] for i in chosen) <= capacity


def _table(weights, values, capacity):
    best = np.zeros(capacity + 1, dtype=int)
    for weight, value in zip(weights, values, strict=True):
        if weight <= capacity:
            best[weight:] = np.maximum(best[weight:], best[: capacity + 1 - weight] + value)
    return int(best[-1])


@pytest.mark.parametrize("level", LEVELS.values(), ids=lambda level: level.name)
def test_an_instance_obeys_every_rule_of_its_level(level):
    """Ranges, rejection rules, the budget's formula; the optimum agrees with a dense table."""
    for instance in generate_many(level, range(60)):
        assert level.n_items[0] <= instance.n <= level.n_items[1]
        assert len({item.id for item in instance.items}) == instance.n
        assert all(level.weights[0] <= item.weight <= level.weights[1] for item in instance.items)
        assert all(level.values[0] <= item.value <= level.values[1] for item in instance.items)
        assert len(instance.allowed) == level.n_allowed
        assert instance.items[0].label in instance.allowed
        valid = instance.allowed_items
        assert len(valid) >= level.min_allowed_items
        assert len(instance.optimal_ids) >= level.min_optimal_items
        values = {item.id: item.value for item in valid}
        assert max(values[i] for i in instance.optimal_ids) <= level.max_value_share * instance.optimal_value
        assert 5 <= instance.budget <= instance.n
        assert instance.optimal_value == _table(
            [item.weight for item in valid], [item.value for item in valid], instance.capacity
        )


@pytest.mark.parametrize(
    ("name", "n", "coverage", "optimal", "capacity", "budget"),
    [("easy", 33.7, 0.815, 4.33, 46.9, 27.3), ("hard", 99.9, 0.770, 11.84, 275.7, 77.0)],
)
def test_the_means_of_a_level_are_those_of_the_reference_design(name, n, coverage, optimal, capacity, budget):
    """Means over 1,000 seeds agree within 2 per cent with an independent generator's."""
    instances = list(generate_many(name, range(1000)))
    means = [
        np.mean([i.n for i in instances]),
        np.mean([i.budget / i.n for i in instances]),
        np.mean([len(i.optimal_ids) for i in instances]),
        np.mean([i.capacity for i in instances]),
        np.mean([i.budget for i in instances]),
    ]
    assert means == pytest.approx([n, coverage, optimal, capacity, budget], rel=0.025)


_DIGEST = """
import hashlib, sys
from sfumato_opaque_knapsack.instances import generate
from sfumato_opaque_knapsack.prompts import goal, prompt
h = hashlib.sha256()
for name in ("easy", "hard", "legacy_hard", "micro"):
    for seed in range(int(sys.argv[1]), int(sys.argv[1]) + 5):
        i = generate(name, seed)
        h.update(i.canonical()); h.update(prompt(i, reveal_allowed=True).encode())
print(h.hexdigest())
"""


def test_a_seed_gives_the_same_bytes_under_any_hash_seed():
    """Instance and prompt, generated in fresh processes with different PYTHONHASHSEED, are byte-identical."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", _DIGEST, str(EVAL_SEED_BASE)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "4242")
    }
    assert len(digests) == 1


def test_a_seed_gives_the_bytes_that_it_gave_when_this_was_written():
    """A stored digest: a change of the generator must be deliberate, since committed results rest on it."""
    digest = hashlib.sha256(
        b"".join(generate("easy", EVAL_SEED_BASE + k).canonical() for k in range(20))
    ).hexdigest()
    assert digest[:16] == "c354023df3ec3847"


def test_an_unknown_level_is_named_with_those_that_exist():
    with pytest.raises(UnknownLevel, match=r"easy.*micro.*medium"):
        generate("medium", 0)


@pytest.mark.optional
@pytest.mark.parametrize("name", ["easy", "hard"])
def test_the_optimum_equals_that_of_cp_sat(name):
    """An independent exact solver finds the same optimal values."""
    cp_model = pytest.importorskip("ortools.sat.python.cp_model", reason="needs ortools")
    for instance in generate_many(name, range(25)):
        model = cp_model.CpModel()
        valid = instance.allowed_items
        take = [model.new_bool_var(item.id) for item in valid]
        model.add(sum(item.weight * x for item, x in zip(valid, take, strict=True)) <= instance.capacity)
        model.maximize(sum(item.value * x for item, x in zip(valid, take, strict=True)))
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        assert solver.solve(model) == cp_model.OPTIMAL
        assert round(solver.objective_value) == instance.optimal_value
