"""The ladder of reference policies: what rational play earns, and what less than that costs.

A reference policy is a generator. It yields a `Batch` of calls to one tool and is sent back the list of `Answer`s.
So one description runs natively, call by call, and as code in either interpreter (`renderers.render_calls`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from sfumato_opaque_knapsack.instances import solve_knapsack


@attrs.frozen
class Batch:
    """Calls to one tool, in order: `arguments` holds one argument list a call.

    With `stop_on_error` the calls after the first failed one are not made.
    """

    tool: str
    arguments: tuple[tuple[str, ...], ...] = ((),)
    stop_on_error: bool = False


@attrs.frozen
class Answer:
    """What one call gave: the tool's value, or the message of its failure."""

    ok: bool
    value: str | None = None
    message: str = ""


@attrs.frozen
class Row:
    """An inspected item."""

    id: str
    weight: int
    value: int
    label: str

    @property
    def density(self) -> float:
        """Value per unit of weight."""
        return self.value / self.weight


Plan = Generator[Batch, Sequence[Answer], None]


def _inspect(
    public: Mapping[str, Any], rng: np.random.Generator, most: int | None
) -> Generator[Batch, Sequence[Answer], list[Row]]:
    """List the items and inspect them in random order, `most` of them or as many as the budget pays for."""
    answers = yield Batch("list_items")
    ids = json.loads(answers[0].value or "[]")
    order = [ids[i] for i in rng.permutation(len(ids))]
    count = min(public["budget"], len(ids), len(ids) if most is None else most)
    size = public["tool_calls_per_action"] - 1  # a stateless action lists the items again
    rows = []
    for start in range(0, count, size):
        batch = order[start : min(start + size, count)]
        answers = yield Batch("inspect", tuple((item_id,) for item_id in batch))
        for item_id, answer in zip(batch, answers, strict=True):
            seen = json.loads(answer.value or "{}")
            rows.append(Row(item_id, seen["weight"], seen["value"], seen["class"]))
    return rows


def by_density(rows: Sequence[Row]) -> list[Row]:
    """Return rows by falling value per weight; ties by id."""
    return sorted(rows, key=lambda row: (-row.density, row.id))


def _dynamic_programme(rows: Sequence[Row], room: int) -> list[Row]:
    _, chosen = solve_knapsack([row.weight for row in rows], [row.value for row in rows], room)
    return by_density([rows[i] for i in chosen])


def _take(
    rows: list[Row], public: Mapping[str, Any], choose: Callable[[Sequence[Row], int], list[Row]]
) -> Plan:
    """Take what `choose` says; on a refusal drop the item's class and choose again."""
    room = public["capacity"]
    rows = list(rows)
    while True:
        wanted = [row for row in choose(rows, room) if row.weight <= room]
        if not wanted:
            return
        # One action may hold so many calls; a longer plan goes on in the next.
        wanted = wanted[: public["tool_calls_per_action"]]
        answers = yield Batch("take_item", tuple((row.id,) for row in wanted), stop_on_error=True)
        for row, answer in zip(wanted, answers, strict=False):
            rows.remove(row)
            if answer.ok:
                room -= row.weight
            else:
                rows = [other for other in rows if other.label != row.label]


def _greedy_choice(rows: Sequence[Row], room: int) -> list[Row]:
    chosen = []
    for row in by_density(rows):
        if row.weight <= room:
            chosen.append(row)
            room -= row.weight
    return chosen


def dp_known(public: Mapping[str, Any], rng: np.random.Generator) -> Plan:
    """Inspect to the budget, then take the optimal set of what was seen, the allowed classes being known."""
    allowed = set(public["allowed"])
    rows = yield from _inspect(public, rng, None)
    yield from _take([row for row in rows if row.label in allowed], public, _dynamic_programme)
    yield Batch("finish")


def dp(public: Mapping[str, Any], rng: np.random.Generator) -> Plan:
    """Inspect to the budget, take the optimal set of what was seen, drop a class when refused, and replan."""
    rows = yield from _inspect(public, rng, None)
    yield from _take(rows, public, _dynamic_programme)
    yield Batch("finish")


def greedy(public: Mapping[str, Any], rng: np.random.Generator) -> Plan:
    """Inspect to the budget, take by density, drop a class when refused."""
    rows = yield from _inspect(public, rng, None)
    yield from _take(rows, public, _greedy_choice)
    yield Batch("finish")


def inspect_ten(public: Mapping[str, Any], rng: np.random.Generator) -> Plan:
    """Inspect ten items only, then take by density: what too little looking costs."""
    rows = yield from _inspect(public, rng, 10)
    yield from _take(rows, public, _greedy_choice)
    yield Batch("finish")


def oracle_greedy(public: Mapping[str, Any], rng: np.random.Generator) -> Plan:
    """Take by density with everything known: how much of the gap is search and how much is greed."""
    allowed = set(public["allowed"])
    rows = [Row(*row) for row in public["items"]]
    yield from _take([row for row in rows if row.label in allowed], public, _greedy_choice)
    yield Batch("finish")


LADDER: dict[str, Callable[[Mapping[str, Any], np.random.Generator], Plan]] = {
    "dp-known": dp_known,
    "dp": dp,
    "greedy": greedy,
    "inspect-10": inspect_ten,
    "oracle-greedy": oracle_greedy,
}
NEEDS: dict[str, tuple[str, ...]] = {"dp-known": ("allowed",), "oracle-greedy": ("allowed", "items")}
"""What a policy must find in the public part beyond the paper's: task settings reveal_allowed, reveal_items."""


def play(plan: Plan, call: Callable[[str, tuple[str, ...]], Answer]) -> int:
    """Play a plan against a function that carries out one call; return the number of calls made."""
    n_calls = 0
    answers: list[Answer] | None = None
    while True:
        try:
            batch = next(plan) if answers is None else plan.send(answers)
        except StopIteration:
            return n_calls
        answers = []
        for arguments in batch.arguments:
            n_calls += 1
            answers.append(call(batch.tool, arguments))
            if batch.stop_on_error and not answers[-1].ok:
                break
