"""Draws of hidden instances against the posterior counted out over all instances of a tiny level."""

import itertools

import attrs
import numpy as np
import pytest

from sfumato_opaque_knapsack.instances import LEVELS
from sfumato_opaque_knapsack.posterior import Known, draw, explains

TINY = attrs.evolve(
    LEVELS["micro"],
    weights=(2, 3),
    values=(10, 10),
    n_classes=3,
    n_allowed=2,
    capacity_ratio=(0.4, 0.6),
    min_allowed_items=1,
)


def known(n_items, capacity, present, weights=(), labels=(), allowed=(0,), taken=(), refused=0):
    """What is known, from the entries that are; items are named by position."""
    sets = {"weights": dict(weights), "labels": dict(labels)}
    columns = {k: np.array([v.get(i, -1) for i in range(n_items)]) for k, v in sets.items()}
    flags = {
        "allowed": np.isin(np.arange(n_items), [0, *allowed]),
        "taken": np.isin(np.arange(n_items), taken),
    }
    return Known(
        TINY, capacity, np.array(present), values=np.full(n_items, -1), refused=refused, **columns, **flags
    )


def counted(k):
    """The posterior by listing every set of allowed classes and every instance: {(mask, labels, weights): probability}."""
    n, found = len(k.labels), {}
    for classes in itertools.combinations(range(TINY.n_classes), TINY.n_allowed):
        mask = sum(1 << c for c in classes)
        for labels in itertools.product(range(TINY.n_classes), repeat=n):
            if set(labels) != set(k.present.tolist()) or mask & k.refused:
                continue
            if any(a >= 0 and a != b for a, b in zip(k.labels, labels, strict=True)):
                continue
            if any(a and label not in classes for a, label in zip(k.allowed, labels, strict=True)):
                continue
            for weights in itertools.product(range(TINY.weights[0], TINY.weights[1] + 1), repeat=n):
                if any(a >= 0 and a != b for a, b in zip(k.weights, weights, strict=True)):
                    continue
                if np.dot(weights, k.taken) > k.capacity:
                    continue
                inside = [label in classes for label in labels]
                if sum(inside) < TINY.min_allowed_items:
                    continue
                total = float(np.dot(weights, inside))
                low = max(TINY.capacity_ratio[0], (k.capacity - 0.5) / total)
                high = min(TINY.capacity_ratio[1], (k.capacity + 0.5) / total)
                if high > low:
                    found[mask, labels, weights] = high - low
    whole = sum(found.values())
    return {key: p / whole for key, p in found.items()}


CASES = {
    "nothing": known(3, 3, (0, 1, 2)),
    "two classes occur": known(4, 3, (0, 2)),
    "the first two seen": known(4, 4, (0, 1, 2), weights={0: 2, 1: 3}, labels={0: 1, 1: 0}),
    "a class refused": known(4, 4, (0, 1, 2), labels={2: 1}, refused=0b010),
    "taken unseen": known(4, 5, (0, 1, 2), allowed=(2,), taken=(2,)),
    "too heavy, so allowed": known(4, 4, (0, 1, 2), weights={3: 3}, allowed=(3,)),
    "all of it": known(
        5, 4, (0, 1, 2), weights={0: 2, 3: 3}, labels={0: 0, 4: 1}, allowed=(3,), taken=(0,), refused=0b010
    ),
}


@pytest.mark.parametrize("case", CASES, ids=lambda name: name.replace(" ", "-"))
def test_draws_are_those_of_the_posterior(case):
    """Shares of instances and of allowed sets agree with those counted out, each within five deviations and all together."""
    exact = counted(CASES[case])
    n, counts = 60_000, {}
    drawn = draw(CASES[case], n, np.random.default_rng(0))
    rows = zip(drawn.masks.tolist(), drawn.labels.tolist(), drawn.weights.tolist(), strict=True)
    for mask, labels, weights in rows:
        key = mask, tuple(labels), tuple(weights)
        counts[key] = counts.get(key, 0) + 1
    assert set(counts) <= set(exact)
    p = np.array(list(exact.values()))
    apart = np.array([counts.get(key, 0) / n for key in exact]) - p
    noise = np.sqrt(
        1.5 * p * (1 - p) / n
    )  # resampled from somewhat more than n proposals, so a little above a sample's
    assert (np.abs(apart) < 5 * noise).all()
    assert np.abs(apart).sum() < 1.3 * np.sqrt(2 / np.pi) * noise.sum()
    for mask in {key[0] for key in exact}:
        mine = np.array([key[0] == mask for key in exact])
        share = min(p[mine].sum(), 1.0)
        assert abs(apart[mine].sum()) < 5 * np.sqrt(1.5 * share * (1 - share) / n) + 1e-12


def test_the_share_of_ratios_by_hand():
    """Ratios 0.4 to 0.6. A total of 4: 0.375 to 0.625 round to 2, all of them; of 5: 0.3 to 0.5, half; of 10: none gives 2."""
    assert explains(TINY, 2, np.array([4, 5, 10])) == pytest.approx([0.2, 0.1, 0.0])


def test_facts_that_no_instance_explains_are_refused():
    """Two items of weight 2 cannot give a capacity of 4 when at most 0.6 of them fits; two items do not show three classes."""
    with pytest.raises(ValueError, match="found none in 60 rounds; check the public facts"):
        draw(known(2, 4, (0, 1), weights={0: 2, 1: 2}, labels={0: 0, 1: 1}), 10, np.random.default_rng(0))
    with pytest.raises(ValueError, match="classes A, B, C"):
        draw(known(2, 2, (0, 1, 2)), 10, np.random.default_rng(0))


def test_the_same_generator_gives_the_same_draws():
    """Classes and sets, bit for bit."""
    first, second = (draw(CASES["nothing"], 50, np.random.default_rng(3)) for _ in range(2))
    assert (first.labels == second.labels).all() and (first.masks == second.masks).all()
