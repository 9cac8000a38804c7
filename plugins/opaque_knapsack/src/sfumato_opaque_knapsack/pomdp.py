"""A level as a POMDP: a batched generative model of its instances, conditioned on what an agent is told.

Whole numbers are actions (0 finish; 1 … n inspect item i-1; n+1 … 2n take item i-n-1) and observations. Axis letters:
N states, I items. The model reads public facts alone: number of items, capacity, budget, classes present. It is a
plain class with the methods that batched planners call; no planner is imported.
"""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_opaque_knapsack.instances import Instance, Level

Array = NDArray[Any]

OK, BUDGET, TAKEN = 0, 1, 2
"""Observations of a plain success, of a spent budget, and of an item taken already."""
_FIXED = 3
FINISHED, ROOM, BUDGET_LEFT, ALLOWED = 0, 1, 2, 3
"""Columns of a state; then I columns of item facts, then I of flags (1 inspected, 2 taken)."""
_HEAD = 4


@attrs.frozen
class ModelStep:
    """What one batched step returns: states [N, width], observations, rewards and terminal flags [N]."""

    states: Any
    observations: Any
    rewards: Any
    terminal: Any


class KnapsackModel:
    """Instances of a level as a POMDP, stepped in batches.

    Arguments:
        level: ranges of the level.
        n_items: number of items, free to know by listing them.
        capacity, budget: as told.
        classes: class labels present among the items, as told.

    Notes:
        The prior is the generator's, conditioned on the classes present and on a capacity that some ratio of the
        level's range explains. Left out: the rules that reject an instance for its optimum, and that the budget tells
        a little about the capacity. Facts are (weight, value, class) packed into one number.

    Source: May et al. 2026, arXiv:2603.01209, section 3, read as a POMDP by us.
    """

    discount: float = 1.0
    state_dtype: Any = np.int64
    uses_counter_draws: ClassVar[bool] = False

    def __init__(
        self, level: Level, n_items: int, capacity: int, budget: int, classes: tuple[str, ...]
    ) -> None:
        self.level, self.n_items, self.capacity, self.budget = level, n_items, capacity, budget
        self.classes = classes
        self._present = np.array([ord(label) - ord("A") for label in classes])
        self._n_values = level.values[1] - level.values[0] + 1
        self._n_weights = level.weights[1] - level.weights[0] + 1
        self._n_facts = self._n_weights * self._n_values * level.n_classes
        self._class_base = _FIXED
        self._weight_base = _FIXED + level.n_classes
        self._fact_base = self._weight_base + self._n_weights
        self.n_actions = 1 + 2 * n_items
        self.n_observations = self._fact_base + self._n_facts
        self.state_width = _HEAD + 2 * n_items
        self.reward_range = (0.0, float(level.values[1]))

    @classmethod
    def for_instance(cls, instance: Instance, level: Level) -> KnapsackModel:
        """Return the model that an agent could build from an instance's public part."""
        return cls(level, instance.n, instance.capacity, instance.budget, instance.classes)

    # -------------------------------------------------------------- facts

    def pack(self, weight: Any, value: Any, label: Any) -> Any:
        """Return facts as one number; `label` counts classes from 0."""
        level = self.level
        return (
            (weight - level.weights[0]) * self._n_values + value - level.values[0]
        ) * level.n_classes + label

    def unpack(self, facts: Any) -> tuple[Any, Any, Any]:
        """Return weight, value and class from packed facts."""
        rest, label = np.divmod(facts, self.level.n_classes)
        weight, value = np.divmod(rest, self._n_values)
        return weight + self.level.weights[0], value + self.level.values[0], label

    # -------------------------------------------------------------- the generative model

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states [n, width] by rejection.

        Raises:
            RuntimeError: nothing was accepted in 200 rounds; the public facts contradict the level.
        """
        kept: list[Array] = []
        found = 0
        for _ in range(200):
            states = self._propose(max(4 * n, 1024), rng)
            kept.append(states)
            found += len(states)
            if found >= n:
                return np.concatenate(kept)[:n]
        if found:
            states = np.concatenate(kept)
            return states[rng.integers(0, found, n)]
        raise RuntimeError(
            f"expected instances of level {self.level.name} with capacity {self.capacity} and classes "
            f"{', '.join(self.classes)}, found none in 200 rounds; check the public facts"
        )

    def _propose(self, m: int, rng: np.random.Generator) -> Array:
        level, items = self.level, self.n_items
        allowed = rng.permuted(np.tile(np.arange(level.n_classes), (m, 1)), axis=1)[:, : level.n_allowed]
        mask = (1 << allowed).sum(1)
        # Classes are drawn among those present; that each of them occurs is checked below.
        labels = self._present[rng.integers(0, len(self._present), (m, items))]
        labels[:, 0] = allowed[np.arange(m), rng.integers(0, level.n_allowed, m)]
        weights = rng.integers(level.weights[0], level.weights[1] + 1, (m, items))
        values = rng.integers(level.values[0], level.values[1] + 1, (m, items))
        valid = (mask[:, None] >> labels) & 1 == 1
        total = (weights * valid).sum(1)
        low, high = level.capacity_ratio
        good = valid.sum(1) >= level.min_allowed_items
        good &= (low * total <= self.capacity + 0.5) & (high * total >= self.capacity - 0.5)
        seen = np.bitwise_or.reduce(1 << labels, axis=1)
        good &= seen == int((1 << self._present).sum())
        states = np.zeros((int(good.sum()), self.state_width), np.int64)
        states[:, ROOM], states[:, BUDGET_LEFT], states[:, ALLOWED] = self.capacity, self.budget, mask[good]
        states[:, _HEAD : _HEAD + items] = self.pack(weights[good], values[good], labels[good])
        return states

    def step(self, states: Array, actions: Array, rng: Any = None) -> ModelStep:
        """Advance a batch; the world is deterministic, so nothing is drawn. Arguments are left as they are."""
        states, actions = np.array(states, np.int64), np.asarray(actions, np.int64)
        n, rows = self.n_items, np.arange(len(states))
        ended = states[:, FINISHED] == 1
        finish, inspect = actions == 0, (actions >= 1) & (actions <= n)
        item = np.where(finish, 0, (actions - 1) % n)
        facts, flags = states[rows, _HEAD + item], states[rows, _HEAD + n + item]
        weight, value, label = self.unpack(facts)

        seen = (flags & 1) == 1
        paid = inspect & ~seen & (states[:, BUDGET_LEFT] > 0) & ~ended
        shown = inspect & (seen | paid)
        observations = np.where(shown, self._fact_base + facts, np.where(inspect, BUDGET, OK))

        take = ~finish & ~inspect
        gone = (flags & 2) == 2
        forbidden = (states[:, ALLOWED] >> label) & 1 == 0
        heavy = weight > states[:, ROOM]
        refusal = np.where(
            gone,
            TAKEN,
            np.where(
                forbidden,
                self._class_base + label,
                np.where(heavy, self._weight_base + weight - self.level.weights[0], OK),
            ),
        )
        observations = np.where(take, refusal, observations)
        took = take & ~gone & ~forbidden & ~heavy & ~ended
        rewards = np.where(took, value, 0).astype(float)

        states[:, BUDGET_LEFT] -= paid
        states[:, ROOM] -= np.where(took, weight, 0)
        states[rows, _HEAD + n + item] = flags | np.where(paid, 1, 0) | np.where(took, 2, 0)
        states[:, FINISHED] = np.where(finish, 1, states[:, FINISHED])
        return ModelStep(states, np.where(ended, OK, observations), rewards, states[:, FINISHED] == 1)

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return 0 where a state gives the observation, -inf elsewhere; [N]."""
        given = self.step(states, np.full(len(states), action)).observations
        return np.where(given == observation, 0.0, -np.inf)

    def reinvigorate(
        self, prior: Array, action: int, observation: int, posterior: Array, rng: np.random.Generator
    ) -> Array:
        """Return particles after an observation that hardly any particle foresaw.

        An inspection's outcome is one of thousands, so filtering would leave nothing. Items are nearly independent
        under the prior: the observed facts are written into every particle, and those whose capacity no ratio explains
        any longer are replaced by others. After a take, the class's bit is set or cleared where no particle had it so.
        """
        n, prior = self.n_items, np.array(prior, np.int64)
        if len(prior) == 0:
            return posterior
        if observation >= self._fact_base and 1 <= action <= n:
            prior[:, _HEAD + action - 1] = observation - self._fact_base
            moved = np.asarray(self.step(prior, np.full(len(prior), action)).states)
            sound = moved[self._sound(moved)]
            return moved if len(sound) == 0 else sound[rng.integers(0, len(sound), len(prior))]
        if len(posterior) or action <= n:
            return posterior
        item = action - n - 1
        _, _, label = self.unpack(prior[:, _HEAD + item])
        if observation == OK:
            prior[:, ALLOWED] |= 1 << label
        elif self._class_base <= observation < self._weight_base:
            refused = observation - self._class_base
            weight, value, _ = self.unpack(prior[:, _HEAD + item])
            prior[:, _HEAD + item] = self.pack(weight, value, refused)
            prior[:, ALLOWED] &= ~(1 << refused)
        return np.asarray(self.step(prior, np.full(len(prior), action)).states)

    def _sound(self, states: Array) -> Array:
        weight, _, label = self.unpack(states[:, _HEAD : _HEAD + self.n_items])
        total = (weight * ((states[:, ALLOWED, None] >> label) & 1)).sum(1)
        low, high = self.level.capacity_ratio
        return (low * total <= self.capacity + 0.5) & (high * total >= self.capacity - 0.5)

    # -------------------------------------------------------------- what planners may also ask

    def value_hint(self, states: Array, actions: Array) -> Array:
        """Return the value of filling the room that is left by density with inspected, allowed items; [N]."""
        n = self.n_items
        weight, value, label = self.unpack(states[:, _HEAD : _HEAD + n])
        usable = ((states[:, _HEAD + n :] & 3) == 1) & (((states[:, ALLOWED, None] >> label) & 1) == 1)
        order = np.argsort(np.where(usable, -value / weight, np.inf), axis=1)
        room = states[:, ROOM].copy()
        total = np.zeros(len(states))
        rows = np.arange(len(states))
        for k in range(n):
            item = order[:, k]
            fits = usable[rows, item] & (weight[rows, item] <= room) & (states[:, FINISHED] == 0)
            total += np.where(fits, value[rows, item], 0)
            room -= np.where(fits, weight[rows, item], 0)
        return total

    def is_terminal(self, states: Array) -> Array:
        """Return whether each state is past `finish`; bool [N]."""
        return np.asarray(states)[:, FINISHED] == 1

    def initial_distribution(self) -> None:
        """Start states are too many to list."""
        return

    def transitions(self, states: Array, action: int) -> None:
        """Outcomes are not listed."""
        return

    def compiled(self) -> None:
        """There is no compiled form."""
        return

    def describe_state(self, state: Array) -> str:
        """Return a state in words."""
        allowed = "".join(
            c for k, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ") if int(state[ALLOWED]) >> k & 1
        )
        return f"room {state[ROOM]}, inspections left {state[BUDGET_LEFT]}, allowed {allowed}"

    # -------------------------------------------------------------- between numbers and tool calls

    def observation_of(self, action: int, answer: dict[str, Any]) -> int:
        """Return the number of a tool's answer to an action, reading the answer alone."""
        import json
        import re

        if answer["ok"]:
            if not 1 <= action <= self.n_items:
                return OK
            seen = json.loads(answer["value"])
            label = ord(seen["class"]) - ord("A")
            return self._fact_base + int(self.pack(seen["weight"], seen["value"], label))
        message = str(answer["message"])
        if "budget" in message:
            return BUDGET
        if found := re.search(r"class ([A-Z]) of", message):
            return self._class_base + ord(found[1]) - ord("A")
        if found := re.search(r"weighs (\d+)", message):
            return self._weight_base + int(found[1]) - self.level.weights[0]
        return TAKEN


def call_of(action: int, ids: list[str]) -> dict[str, Any]:
    """Return the tool call that an action stands for, given the ids in list order."""
    if action == 0:
        return {"tool": "finish", "args": [], "kwargs": {}}
    n = len(ids)
    if not 1 <= action <= 2 * n:
        return {"tool": None, "args": [], "kwargs": {}}
    tool = "inspect" if action <= n else "take_item"
    return {"tool": tool, "args": [ids[(action - 1) % n]], "kwargs": {}}
