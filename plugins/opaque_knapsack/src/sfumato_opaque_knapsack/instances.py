"""Instances: hidden items, a capacity, a budget of inspections, and the exact optimum.

Every draw of one attempt comes from one Mersenne Twister seeded with an integer, through `randrange`,
`getrandbits` and `random` alone. CPython keeps that sequence across versions and platforms, so a seed means the same
bytes everywhere, whatever PYTHONHASHSEED is and however many processes generate.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterator, Sequence

import attrs

MAX_ATTEMPTS = 200
ATTEMPT_STRIDE = 1_000_003
FAMILY_OFFSET = int(hashlib.sha256(b"knapsack").hexdigest()[:8], 16)

TRAIN_SEED_BASE = 0
EVAL_SEED_BASE = 123_456_789


class GenerationError(RuntimeError):
    """Raised when no attempt for a seed gives an instance that passes the level's rejection rules."""


class UnknownLevel(ValueError):
    """Raised when a level is asked for by a name that is not one of `LEVELS`."""


@attrs.frozen
class Level:
    """Ranges and rejection rules of one difficulty level; all ranges are inclusive."""

    name: str
    n_items: tuple[int, int]
    weights: tuple[int, int]
    values: tuple[int, int]
    n_classes: int
    n_allowed: int
    p_valid: float
    capacity_ratio: tuple[float, float]
    min_allowed_items: int = 5
    min_optimal_items: int = 3
    max_value_share: float = 0.40
    id_prefix: str = "item_"
    id_hex_digits: int = 12
    tool_calls_per_action: int = 25


LEVELS: dict[str, Level] = {
    level.name: level
    for level in (
        Level("easy", (25, 40), (5, 20), (10, 100), 15, 3, 0.20, (0.35, 0.50)),
        Level("hard", (80, 120), (5, 50), (10, 500), 26, 5, 0.19, (0.40, 0.60)),
        # The level that the release itself calls "hard"; it is not the paper's Hard.
        Level("legacy_hard", (30, 50), (1, 25), (1, 80), 11, 3, 0.27, (0.28, 0.45)),
        # Small enough for a model trained in minutes: short ids without a prefix, few classes, batches of three.
        Level(
            "micro",
            (8, 12),
            (2, 9),
            (10, 99),
            5,
            2,
            0.40,
            (0.35, 0.50),
            min_allowed_items=3,
            min_optimal_items=2,
            max_value_share=0.75,
            id_prefix="",
            id_hex_digits=4,
            tool_calls_per_action=4,
        ),
    )
}


@attrs.frozen
class Item:
    """One item; everything except its id is hidden until it is inspected."""

    id: str
    weight: int
    value: int
    label: str


@attrs.frozen
class Instance:
    """One problem. `allowed`, the items' fields and `optimal_*` are the world's knowledge, not the agent's."""

    level: str
    seed: int
    attempt: int
    items: tuple[Item, ...]
    allowed: tuple[str, ...]
    capacity: int
    budget: int
    optimal_value: int
    optimal_ids: tuple[str, ...]

    @property
    def n(self) -> int:
        """Number of items."""
        return len(self.items)

    @property
    def classes(self) -> tuple[str, ...]:
        """Sorted class labels that occur among the items: the only thing said about classes beforehand."""
        return tuple(sorted({item.label for item in self.items}))

    @property
    def allowed_items(self) -> tuple[Item, ...]:
        """Items whose class may be taken, in list order."""
        return tuple(item for item in self.items if item.label in self.allowed)

    def canonical(self) -> bytes:
        """Return the instance as canonical JSON bytes, equal for equal instances on every platform."""
        return json.dumps(attrs.asdict(self), sort_keys=True, separators=(",", ":")).encode()


def level_named(name: str) -> Level:
    """Return the level called `name`; dashes and underscores are the same.

    Raises:
        UnknownLevel: there is no such level.
    """
    level = LEVELS.get(name.replace("-", "_"))
    if level is None:
        raise UnknownLevel(f"expected a level out of {', '.join(LEVELS)}, got {name!r}")
    return level


def solve_knapsack(
    weights: Sequence[int], values: Sequence[int], capacity: int
) -> tuple[int, tuple[int, ...]]:
    """Return the optimal value of a 0/1 knapsack and the positions of one optimal set, increasing.

    Arguments:
        weights: positive integers [N].
        values: positive integers [N].
        capacity: integer, the largest total weight.

    Notes:
        Dynamic programming over the Pareto front of (weight, value) pairs, cut at the capacity: O(N C) at worst,
        integers only, and each pair carries its set, so nothing is traced back. Among equal values the lighter set
        wins. A dense numpy table gives the value alone faster where C is large, see `benchmarks/`.
    """
    # Each entry is (weight, value, chosen positions as a bit mask); the front increases in both.
    front: list[tuple[int, int, int]] = [(0, 0, 0)]
    for position, (weight, value) in enumerate(zip(weights, values, strict=True)):
        room, bit = capacity - weight, 1 << position
        if room < 0:
            continue
        merged: list[tuple[int, int, int]] = []
        best = -1
        i = j = 0
        n_front = len(front)
        n_shift = n_front
        while n_shift and front[n_shift - 1][0] > room:
            n_shift -= 1
        while i < n_front or j < n_shift:
            if j >= n_shift:
                entry = front[i]
                i += 1
            else:
                base = front[j]
                shifted_weight = base[0] + weight
                if i < n_front and (
                    front[i][0] < shifted_weight
                    or (front[i][0] == shifted_weight and front[i][1] >= base[1] + value)
                ):
                    entry = front[i]
                    i += 1
                else:
                    entry = (shifted_weight, base[1] + value, base[2] | bit)
                    j += 1
            if entry[1] > best:
                merged.append(entry)
                best = entry[1]
        front = merged
    _, optimal, mask = front[-1]
    return optimal, tuple(i for i in range(len(weights)) if mask >> i & 1)


def _attempt(level: Level, seed: int, attempt: int) -> Instance | None:
    rng = random.Random(seed + FAMILY_OFFSET + attempt * ATTEMPT_STRIDE)
    n = rng.randrange(level.n_items[0], level.n_items[1] + 1)
    labels = [chr(ord("A") + i) for i in range(level.n_classes)]
    # Partial Fisher-Yates by hand: `random.sample` promises no fixed sequence across Python versions.
    pool = list(labels)
    for i in range(level.n_allowed):
        j = rng.randrange(i, level.n_classes)
        pool[i], pool[j] = pool[j], pool[i]
    allowed = sorted(pool[: level.n_allowed])
    allowed_set = set(allowed)
    ids = [
        level.id_prefix
        + hashlib.sha256(rng.getrandbits(128).to_bytes(16, "big")).hexdigest()[: level.id_hex_digits]
        for _ in range(n)
    ]
    items = []
    for i, item_id in enumerate(ids):
        if i == 0:
            label = allowed[rng.randrange(level.n_allowed)]
        else:
            label = labels[rng.randrange(level.n_classes)]
        weight = rng.randrange(level.weights[0], level.weights[1] + 1)
        value = rng.randrange(level.values[0], level.values[1] + 1)
        items.append(Item(item_id, weight, value, label))
    low, high = level.capacity_ratio
    ratio = low + (high - low) * rng.random()

    valid = [item for item in items if item.label in allowed_set]
    if len(valid) < level.min_allowed_items or len(set(ids)) < n:
        return None
    weights = [item.weight for item in valid]
    capacity = max(min(weights), round(ratio * sum(weights)), 1)
    optimal, chosen = solve_knapsack(weights, [item.value for item in valid], capacity)
    if len(chosen) < level.min_optimal_items:
        return None
    if max(valid[i].value for i in chosen) > level.max_value_share * optimal:
        return None
    mean_weight = sum(level.weights) / 2
    wanted = max(1.5 * (capacity / mean_weight) / level.p_valid, 1.1 * len(chosen))
    budget = min(max(math.ceil(wanted), 5), n)
    return Instance(
        level=level.name,
        seed=seed,
        attempt=attempt,
        items=tuple(items),
        allowed=tuple(allowed),
        capacity=capacity,
        budget=budget,
        optimal_value=optimal,
        optimal_ids=tuple(valid[i].id for i in chosen),
    )


def generate(level: Level | str, seed: int) -> Instance:
    """Return the instance of a level for a seed.

    Raises:
        UnknownLevel: no level has that name.
        GenerationError: all 200 attempts were rejected (not seen on the four levels).

    Source: May et al. 2026, arXiv:2603.01209, the task family of section 3 and its released configurations. We draw
    everything from one generator per attempt (the release draws the allowed classes from a global one, so that its
    seeds do not determine its instances), and reject the rare attempt with two equal ids.
    """
    if isinstance(level, str):
        level = level_named(level)
    for attempt in range(MAX_ATTEMPTS):
        instance = _attempt(level, seed, attempt)
        if instance is not None:
            return instance
    raise GenerationError(
        f"expected an acceptable {level.name} instance within {MAX_ATTEMPTS} attempts for seed {seed}, got none; "
        "widen the level's ranges or use another seed"
    )


def generate_many(level: Level | str, seeds: Sequence[int]) -> Iterator[Instance]:
    """Yield the instance of each seed, in order."""
    for seed in seeds:
        yield generate(level, seed)
