"""The host's side of an episode: tools, budget, refusals, and the score. No agent's code ever runs here.

Tools are called by name with plain values; a tool answers with a plain value or raises one of two exceptions, which
tell a malformed call (`BadToolCall`) from a well-formed one that the world refuses (`ToolFailure`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from sfumato_opaque_knapsack.instances import Instance, Item


class BadToolCall(TypeError):
    """Raised when a tool does not exist or its arguments have the wrong number, name or type."""


class ToolFailure(ValueError):
    """Raised when the world refuses a well-formed call: unknown id, budget, class, capacity, or after the end."""


@attrs.frozen
class Tool:
    """What an agent is told about one tool: name, parameters as (name, type) pairs, return type, and purpose."""

    name: str
    parameters: tuple[tuple[str, str], ...]
    returns: str
    doc: str

    @property
    def signature(self) -> str:
        """The tool as a Python signature."""
        inside = ", ".join(f"{name}: {kind}" for name, kind in self.parameters)
        return f"{self.name}({inside}) -> {self.returns}"


TOOLS: tuple[Tool, ...] = (
    Tool("list_items", (), "str", "Return a JSON array of all item ids."),
    Tool(
        "inspect",
        (("item_id", "str"),),
        "str",
        "Return JSON with the item's class, value and weight. Each distinct id costs one unit of the inspection "
        "budget; inspecting an id again is free.",
    ),
    Tool(
        "take_item",
        (("item_id", "str"),),
        "None",
        "Put the item into the knapsack for good. Raises when the id is unknown or taken, when its class is not "
        "allowed, or when the capacity would be exceeded.",
    ),
    Tool("finish", (), "None", "End the episode."),
)
_TOOLS_BY_NAME = {tool.name: tool for tool in TOOLS}


@attrs.frozen
class Outcome:
    """Score of one episode; `score` is value taken over the full-information optimum, `gap` is 1 - score."""

    score: float
    solved: bool
    gap: float
    value: int
    weight: int
    n_taken: int
    n_inspected: int
    n_inspect_calls: int
    n_refused: int
    n_leaks: int
    finished: bool


class World:
    """One instance being played.

    Arguments:
        instance: what is hidden.
        strict_take: refuse to take an uninspected item, revealing nothing. Off in the paper, where a refusal tells
            the class (or, over capacity, the weight) of an item that was never paid for; such leaks are counted.

    Source: May et al. 2026, arXiv:2603.01209, section 3. Every tool refuses after `finish`; the released
    environment still answers until the end of that turn.
    """

    def __init__(self, instance: Instance, *, strict_take: bool = False) -> None:
        self.instance = instance
        self.strict_take = strict_take
        self._items: dict[str, Item] = {item.id: item for item in instance.items}
        self._listing = json.dumps([item.id for item in instance.items])
        self._inspected: dict[str, str] = {}
        self._taken: dict[str, Item] = {}
        self.refused: set[str] = set()
        self.weight = 0
        self.value = 0
        self.finished = False
        self.n_inspect_calls = 0
        self.n_refused = 0
        self.n_leaks = 0

    def call(
        self, name: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> str | None:
        """Carry out one tool call and return the tool's value.

        Raises:
            BadToolCall: no such tool, or arguments of the wrong number, name or type.
            ToolFailure: the world refuses; nothing has changed.
        """
        tool = _TOOLS_BY_NAME.get(name) if isinstance(name, str) else None
        if tool is None:
            raise BadToolCall(f"expected a tool out of {', '.join(_TOOLS_BY_NAME)}, got {name!r}")
        bound = _bind(tool, tuple(args), dict(kwargs or {}))
        if self.finished:
            raise ToolFailure(f"{tool.name}: the episode has ended, finish() was called")
        if tool.name == "list_items":
            return self._listing
        if tool.name == "inspect":
            return self._inspect(bound[0])
        if tool.name == "take_item":
            self._take(bound[0])
        else:
            self.finished = True
        return None

    def _inspect(self, item_id: str) -> str:
        self.n_inspect_calls += 1
        seen = self._inspected.get(item_id)
        if seen is not None:
            return seen
        item = self._items.get(item_id)
        if item is None:
            raise ToolFailure(f"inspect: unknown item id {item_id!r}")
        if len(self._inspected) >= self.instance.budget:
            raise ToolFailure(
                f"inspect: the inspection budget of {self.instance.budget} distinct items is used up"
            )
        shown = {"class": item.label, "value": item.value, "weight": item.weight}
        text = json.dumps(shown, sort_keys=True, separators=(",", ":"))
        self._inspected[item_id] = text
        return text

    def _take(self, item_id: str) -> None:
        item = self._items.get(item_id)
        if item is None:
            raise ToolFailure(f"take_item: unknown item id {item_id!r}")
        if item_id in self._taken:
            raise ToolFailure(f"take_item: {item_id} has been taken already")
        uninspected = item_id not in self._inspected
        if uninspected and self.strict_take:
            raise ToolFailure(f"take_item: {item_id} has not been inspected")
        if item.label not in self.instance.allowed:
            self._refuse(uninspected)
            self.refused.add(item.label)
            raise ToolFailure(f"take_item: class {item.label} of {item_id} is not allowed")
        if self.weight + item.weight > self.instance.capacity:
            self._refuse(uninspected)
            raise ToolFailure(
                f"take_item: {item_id} weighs {item.weight}, the knapsack holds {self.weight} "
                f"of {self.instance.capacity}"
            )
        self._taken[item_id] = item
        self.weight += item.weight
        self.value += item.value

    def _refuse(self, uninspected: bool) -> None:
        self.n_refused += 1
        self.n_leaks += uninspected

    @property
    def budget_left(self) -> int:
        """How many more distinct items may be inspected."""
        return self.instance.budget - len(self._inspected)

    def unseen(self) -> list[str]:
        """Return the ids that nobody has inspected, in list order."""
        return [item_id for item_id in self._items if item_id not in self._inspected]

    def candidates(self) -> list[str]:
        """Return the inspected items that fit and whose class was never refused, by falling value per weight.

        All of it is known to whoever made the calls. Ties are in list order.
        """
        room = self.instance.capacity - self.weight
        open_ = [
            item
            for item in self._items.values()
            if item.id in self._inspected
            and item.id not in self._taken
            and item.label not in self.refused
            and item.weight <= room
        ]
        return [item.id for item in sorted(open_, key=lambda item: -item.value / item.weight)]

    def outcome(self) -> Outcome:
        """Return the score so far, recomputed from the items taken."""
        taken = self._taken.values()
        weight, value = sum(item.weight for item in taken), sum(item.value for item in taken)
        optimal = self.instance.optimal_value
        score = 0.0 if weight > self.instance.capacity else value / optimal
        return Outcome(
            score=score,
            solved=score > 0 and value == optimal,
            gap=1.0 - score,
            value=value,
            weight=weight,
            n_taken=len(taken),
            n_inspected=len(self._inspected),
            n_inspect_calls=self.n_inspect_calls,
            n_refused=self.n_refused,
            n_leaks=self.n_leaks,
            finished=self.finished,
        )


def _bind(tool: Tool, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Return the arguments in the tool's order, or raise BadToolCall."""
    names = [name for name, _ in tool.parameters]
    if len(args) > len(names):
        raise BadToolCall(f"{tool.name}: expected {tool.signature}, got {len(args)} positional arguments")
    bound = dict(zip(names, args, strict=False))
    for name, value in kwargs.items():
        if name not in names:
            raise BadToolCall(f"{tool.name}: expected {tool.signature}, got an argument named {name!r}")
        if name in bound:
            raise BadToolCall(f"{tool.name}: expected {tool.signature}, got {name!r} twice")
        bound[name] = value
    missing = [name for name in names if name not in bound]
    if missing:
        raise BadToolCall(f"{tool.name}: expected {tool.signature}, got no {', '.join(missing)}")
    for name, kind in tool.parameters:
        if kind == "str" and type(bound[name]) is not str:
            raise BadToolCall(
                f"{tool.name}: expected {name} to be a str, got {type(bound[name]).__name__} {bound[name]!r:.80}"
            )
    return [bound[name] for name in names]


def replay(
    instance: Instance,
    calls: Sequence[Any],
    *,
    strict_take: bool = False,
    spell: Callable[[Any, World], tuple[Any, Sequence[Any], Mapping[str, Any]]] = lambda call, world: call,
) -> Outcome:
    """Return the outcome of a sequence of calls, replayed in a fresh world; refused and malformed calls count as such.

    `spell` turns an element into (tool, args, kwargs), given the world as it is then.
    """
    world = World(instance, strict_take=strict_take)
    for call in calls:
        name, args, kwargs = spell(call, world)
        try:
            world.call(name, args, kwargs)
        except (BadToolCall, ToolFailure):
            continue
    return world.outcome()
