"""What may be believed of a hidden instance: states drawn from the posterior given all that was told and seen.

Weights, values and classes of hidden items, and the set of allowed classes, are drawn together by importance sampling and
resampled, so nothing of an earlier belief is used again and none can die out. Axis letters: M proposals, N states, I items.
"""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_opaque_knapsack.instances import Level

Array = NDArray[Any]
ROUNDS = 60


@attrs.frozen(eq=False)
class Known:
    """What is known of an instance of a level.

    Arguments:
        level, capacity: as told.
        present: classes that occur among the items, counted from 0; as told.
        weights, values, labels: of the items, int64 [I]; -1 where hidden. Classes are counted from 0.
        allowed: items whose class is known to be allowed, bool [I]; the first always is.
        taken: items in the knapsack, bool [I].
        refused: bits of the classes known to be forbidden.
    """

    level: Level
    capacity: int
    present: Array
    weights: Array
    values: Array
    labels: Array
    allowed: Array
    taken: Array
    refused: int


@attrs.frozen(eq=False)
class Drawn:
    """Hidden parts drawn: weights, values and labels [N, I], bits of the allowed classes [N]."""

    weights: Array
    values: Array
    labels: Array
    masks: Array


def explains(level: Level, capacity: int, total: Array) -> Array:
    """Return the share of the level's ratios with which allowed items of these total weights give the capacity."""
    low, high = level.capacity_ratio
    total = np.maximum(total, 1)
    share = np.minimum(high, (capacity + 0.5) / total) - np.maximum(low, (capacity - 0.5) / total)
    return np.asarray(np.clip(share, 0.0, None))


def draw(known: Known, n: int, rng: np.random.Generator) -> Drawn:
    """Draw n instances from the posterior given what is known.

    The prior is the generator's, conditioned on the classes that occur; the likelihood of the capacity is the share of
    ratios that round to it. Left out: the rules that reject an instance for its optimum, and that the budget tells a
    little about the capacity. Proposals are drawn in rounds until their effective number reaches n.

    Raises:
        ValueError: nothing that was proposed agrees with what is known.
    """
    found: list[Drawn] = []
    weights: list[Array] = []
    for _ in range(ROUNDS):
        proposal, weight = _propose(known, max(4 * n, 1024), rng)
        kept = weight > 0
        found.append(_rows(proposal, kept))
        weights.append(weight[kept])
        w = np.concatenate(weights)
        if len(w) and w.sum() ** 2 >= n * (w**2).sum():
            break
    if not len(w):
        classes = ", ".join(chr(ord("A") + int(c)) for c in known.present)
        raise ValueError(
            f"expected instances of level {known.level.name} with capacity {known.capacity} and classes {classes}, "
            f"found none in {ROUNDS} rounds; check the public facts and what was seen"
        )
    everything = Drawn(*(np.concatenate([getattr(d, f.name) for d in found]) for f in attrs.fields(Drawn)))
    points = (np.arange(n) + rng.random()) / n * w.sum()
    return _rows(everything, np.minimum(np.searchsorted(np.cumsum(w), points, side="right"), len(w) - 1))


def _rows(drawn: Drawn, rows: Array) -> Drawn:
    return Drawn(drawn.weights[rows], drawn.values[rows], drawn.labels[rows], drawn.masks[rows])


def _propose(known: Known, m: int, rng: np.random.Generator) -> tuple[Drawn, Array]:
    """Return m proposals and their importance weights [M]."""
    level, rows = known.level, np.arange(m)
    n_items = len(known.labels)

    # The allowed classes: those that must be, none that was refused, the rest uniformly.
    must = np.unique(known.labels[known.allowed & (known.labels >= 0)])
    order = rng.random((m, level.n_classes))
    order[:, must] = -1.0
    order[:, (known.refused >> np.arange(level.n_classes)) & 1 == 1] = 2.0
    chosen = np.argsort(order, axis=1)[:, : level.n_allowed]
    masks = (1 << chosen).sum(axis=1)
    weight = ((masks & known.refused) == 0) & (len(must) <= level.n_allowed)
    weight = weight.astype(float)

    # Hidden classes of items that are known to be allowed: uniformly over the allowed classes that occur.
    labels = np.where(
        known.labels >= 0, known.labels, known.present[rng.integers(0, len(known.present), (m, n_items))]
    )
    bound = np.flatnonzero((known.labels < 0) & known.allowed)
    usable = (masks[:, None] >> known.present) & 1 == 1
    choices = usable.sum(axis=1)
    for item in bound:
        pick = (rng.random(m) * choices).astype(np.int64)
        labels[:, item] = known.present[np.argmax(np.cumsum(usable, axis=1) > pick[:, None], axis=1)]
        weight *= choices

    # Every class occurs: those that nobody shows yet are given to free items, which a sequence of classes may have come by in
    # as many ways as its classes have such items; the weight takes that back.
    free = np.flatnonzero((known.labels < 0) & ~known.allowed)
    shown = np.zeros((m, level.n_classes), bool)
    shown[:, known.labels[known.labels >= 0]] = True
    for item in bound:
        shown[rows, labels[:, item]] = True
    missing = ~shown[:, known.present]
    short = missing.sum(axis=1) > len(free)
    weight[short] = 0.0
    places = free[np.argsort(rng.random((m, len(free))), axis=1)] if len(free) else np.zeros((m, 0), np.int64)
    given = np.zeros(m, np.int64)
    for k, label in enumerate(known.present):
        lacks = missing[:, k] & ~short
        if not lacks.any():
            continue
        labels[rows[lacks], places[rows[lacks], given[lacks]]] = label
        weight[lacks] *= (len(free) - given[lacks]) / len(known.present)
        given += lacks
    for k, label in enumerate(known.present):
        lacks = missing[:, k] & ~short
        if lacks.any():
            weight[lacks] /= (labels[lacks][:, free] == label).sum(axis=1)

    low, high = level.weights
    drawn_weights = np.where(known.weights >= 0, known.weights, rng.integers(low, high + 1, (m, n_items)))
    values = np.where(
        known.values >= 0, known.values, rng.integers(level.values[0], level.values[1] + 1, (m, n_items))
    )
    inside = (masks[:, None] >> labels) & 1 == 1
    weight *= (inside | ~known.allowed).all(axis=1) & (inside.sum(axis=1) >= level.min_allowed_items)
    weight *= (drawn_weights * known.taken).sum(axis=1) <= known.capacity
    weight *= explains(level, known.capacity, (drawn_weights * inside).sum(axis=1))
    return Drawn(drawn_weights, values, labels, masks), weight
