"""A level as a POMDP: a batched generative model of its instances, conditioned on what an agent is told.

Whole numbers are actions and observations. `KnapsackModel` has an action for each item (0 finish; 1 … n inspect item i-1;
n+1 … 2n take item i-n-1). `RankedModel` has five: finish, and get on in one of four ways; what an action means follows from
what has been seen, so every planner knows it. Axis letters: N states, I items. The models read
public facts alone: number of items, capacity, budget, classes present. They are plain classes with the methods that batched
planners call; no planner is imported.
"""

from __future__ import annotations

from typing import Any, ClassVar

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_opaque_knapsack.instances import Instance, Level
from sfumato_opaque_knapsack.world import World

Array = NDArray[Any]

OK, BUDGET, TAKEN = 0, 1, 2
"""Observations of a plain success, of a spent budget, and of an item taken already."""
_FIXED = 3
FINISHED, ROOM, BUDGET_LEFT, ALLOWED, REFUSED = 0, 1, 2, 3, 4
"""Columns of a state (the last two are bits of classes); then I of item facts, then I of flags (1 inspected, 2 taken)."""
HEAD = 5
N_RANKS = 4


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
        level's range explains; the first item is of an allowed class. Left out: the rules that reject an instance for its optimum, and that the budget tells
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
        self.state_width = HEAD + 2 * n_items
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
        states[:, HEAD : HEAD + items] = self.pack(weights[good], values[good], labels[good])
        return states

    def item_actions(self, states: Array, actions: Array) -> Array:
        """Return what actions mean in states, as actions on items; int64 [N]. Here they are that already."""
        return np.asarray(actions, np.int64)

    def step(self, states: Array, actions: Array, rng: Any = None) -> ModelStep:
        """Advance a batch; the world is deterministic, so nothing is drawn. Arguments are left as they are."""
        return self._advance(states, self.item_actions(states, actions))

    def _advance(self, states: Array, actions: Array) -> ModelStep:
        states = np.array(states, np.int64)
        n, rows = self.n_items, np.arange(len(states))
        ended = states[:, FINISHED] == 1
        finish, inspect = actions == 0, (actions >= 1) & (actions <= n)
        item = np.where(finish, 0, (actions - 1) % n)
        facts, flags = states[rows, HEAD + item], states[rows, HEAD + n + item]
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
        states[:, REFUSED] |= np.where(take & ~gone & forbidden & ~ended, 1 << label, 0)
        states[rows, HEAD + n + item] = flags | np.where(paid, 1, 0) | np.where(took, 2, 0)
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
        any longer, or whose first item is forbidden, are replaced by others. After a take, the class's bit is set or cleared where no particle had it so.
        """
        n, prior = self.n_items, np.array(prior, np.int64)
        if len(prior) == 0:
            return posterior
        # Particles agree on everything seen, so an action means the same in all of them.
        action = int(self.item_actions(prior[:1], np.array([action]))[0])
        if observation >= self._fact_base and 1 <= action <= n:
            prior[:, HEAD + action - 1] = observation - self._fact_base
            moved = np.asarray(self._advance(prior, np.full(len(prior), action)).states)
            sound = moved[self._sound(moved)]
            return moved if len(sound) == 0 else sound[rng.integers(0, len(sound), len(prior))]
        if len(posterior) or action <= n:
            return posterior
        item = action - n - 1
        _, value, label = self.unpack(prior[:, HEAD + item])
        if observation == OK:
            prior[:, ALLOWED] |= 1 << label
        elif observation >= self._weight_base:  # refused for its weight, so its class is allowed
            weight = observation - self._weight_base + self.level.weights[0]
            prior[:, HEAD + item] = self.pack(weight, value, label)
            prior[:, ALLOWED] |= 1 << label
        elif self._class_base <= observation < self._weight_base:
            refused = observation - self._class_base
            weight, value, _ = self.unpack(prior[:, HEAD + item])
            prior[:, HEAD + item] = self.pack(weight, value, refused)
            prior[:, ALLOWED] &= ~(1 << refused)
        return np.asarray(self._advance(prior, np.full(len(prior), action)).states)

    def _sound(self, states: Array) -> Array:
        weight, _, label = self.unpack(states[:, HEAD : HEAD + self.n_items])
        total = (weight * ((states[:, ALLOWED, None] >> label) & 1)).sum(1)
        low, high = self.level.capacity_ratio
        first = (
            states[:, ALLOWED] >> label[:, 0]
        ) & 1 == 1  # the generator's first item is of an allowed class
        return np.asarray(
            first & (low * total <= self.capacity + 0.5) & (high * total >= self.capacity - 0.5)
        )

    # -------------------------------------------------------------- what planners may also ask

    def value_hint(self, states: Array, actions: Array) -> Array:
        """Return the value of filling the room that is left by density with inspected, allowed items; [N]."""
        n = self.n_items
        weight, value, label = self.unpack(states[:, HEAD : HEAD + n])
        usable = ((states[:, HEAD + n :] & 3) == 1) & (((states[:, ALLOWED, None] >> label) & 1) == 1)
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
        return np.asarray(np.asarray(states)[:, FINISHED] == 1)

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
        """Return the number of a tool's answer to an action on an item, reading the answer alone."""
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


class RankedModel(KnapsackModel):
    """The same POMDP with five actions, without those that are sure to be refused or can never be better.

    0 finishes. While budget lasts, 1 … 4 all inspect the first item that was not inspected. After that they take the first
    to fourth candidate: inspected, not taken, of a class that was never refused, fitting; by falling value per weight.
    Where there are fewer candidates they take the last; where there is none they finish. So every action gets on, and
    what is left to plan is what to take in which order while it is not known which classes are allowed.

    Notes:
        Nothing is lost. An inspection costs budget that is good for nothing else, and what it shows helps every later
        take, while no take tells which item to inspect; so inspecting first is never worse. Before their inspection items
        differ in nothing but that the first is of an allowed class, so their order costs nothing. Left out: taking what was
        not inspected, which the task's text asks not to do, and the fifth candidate and those behind it. Refused takes cost
        nothing but a step, here as in the task.
    """

    def __init__(
        self, level: Level, n_items: int, capacity: int, budget: int, classes: tuple[str, ...]
    ) -> None:
        super().__init__(level, n_items, capacity, budget, classes)
        self.n_actions = 1 + N_RANKS

    def item_actions(self, states: Array, actions: Array) -> Array:
        """Return what actions mean in states, as actions on items; int64 [N]."""
        states, actions = np.asarray(states, np.int64), np.asarray(actions, np.int64)
        n, rows = self.n_items, np.arange(len(states))
        flags = states[:, HEAD + n :]
        weight, value, label = self.unpack(states[:, HEAD : HEAD + n])
        open_ = (flags == 1) & ((states[:, REFUSED, None] >> label) & 1 == 0)
        open_ &= weight <= states[:, ROOM, None]
        count = open_.sum(1)
        order = np.argsort(np.where(open_, -value / weight, np.inf), axis=1, kind="stable")
        rank = np.clip(actions - 1, 0, np.maximum(count - 1, 0))
        take = n + 1 + order[rows, rank]
        unseen = flags & 1 == 0
        can_inspect = (states[:, BUDGET_LEFT] > 0) & unseen.any(1)
        chosen = np.where(can_inspect, 1 + unseen.argmax(1), np.where(count > 0, take, 0))
        return np.where((actions == 0) | (states[:, FINISHED] == 1), 0, chosen)


MODELS = {"items": KnapsackModel, "ranked": RankedModel}


def item_action(action: int, world: World, form: str) -> int:
    """Return what a numbered action means in a world, as an action on an item, from what the agent has seen of it."""
    if form == "items" or action == 0:
        return action
    if not 1 <= action <= N_RANKS:
        return -1
    ids = [item.id for item in world.instance.items]
    candidates, unseen = world.candidates(), world.unseen()
    if world.budget_left > 0 and unseen:
        return 1 + ids.index(unseen[0])
    if candidates:
        return len(ids) + 1 + ids.index(candidates[min(action, len(candidates)) - 1])
    return 0


def call_of(action: int, ids: list[str]) -> dict[str, Any]:
    """Return the tool call that an action stands for, given the ids in list order."""
    if action == 0:
        return {"tool": "finish", "args": [], "kwargs": {}}
    n = len(ids)
    if not 1 <= action <= 2 * n:
        return {"tool": None, "args": [], "kwargs": {}}
    tool = "inspect" if action <= n else "take_item"
    return {"tool": tool, "args": [ids[(action - 1) % n]], "kwargs": {}}
