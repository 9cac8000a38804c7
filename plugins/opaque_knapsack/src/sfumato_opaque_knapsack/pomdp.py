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
from sfumato_opaque_knapsack.posterior import Known, draw
from sfumato_opaque_knapsack.world import World

Array = NDArray[Any]

OK, BUDGET, TAKEN = 0, 1, 2
"""Observations of a plain success, of a spent budget, and of an item taken already."""
_FIXED = 3
FINISHED, ROOM, BUDGET_LEFT, ALLOWED, REFUSED = 0, 1, 2, 3, 4
"""Columns of a state (the last two are bits of classes); then I of item facts, then I of flags."""
HEAD = 5
SEEN, IN, CLASS_TOLD, WEIGHT_TOLD = 1, 2, 4, 8
"""Flags of an item: inspected, taken, its class told by a refusal, its weight told by a refusal (so its class is allowed)."""
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
        The prior is the generator's, conditioned on the classes present and on the capacity; the first item is of an
        allowed class. Left out: the rules that reject an instance for its optimum, and that the budget tells
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
        """Draw n start states [n, width].

        Raises:
            ValueError: no instance of the level has these public facts.
        """
        row = np.zeros(self.state_width, np.int64)
        row[BUDGET_LEFT] = self.budget
        return self._redraw(row, n, rng)

    def _redraw(self, row: Array, n: int, rng: np.random.Generator) -> Array:
        """Draw n states that share with a state [width] all that its flags call known."""
        items = self.n_items
        flags = row[HEAD + items :]
        weight, value, label = self.unpack(row[HEAD : HEAD + items])
        allowed = flags & (IN | WEIGHT_TOLD) != 0
        allowed[0] = True
        drawn = draw(
            Known(
                level=self.level,
                capacity=self.capacity,
                present=self._present,
                weights=np.where(flags & (SEEN | WEIGHT_TOLD) != 0, weight, -1),
                values=np.where(flags & SEEN != 0, value, -1),
                labels=np.where(flags & (SEEN | CLASS_TOLD) != 0, label, -1),
                allowed=allowed,
                taken=flags & IN != 0,
                refused=int(row[REFUSED]),
            ),
            n,
            rng,
        )
        states = np.tile(row, (n, 1))
        states[:, ROOM] = self.capacity - (drawn.weights * (flags & IN != 0)).sum(1)
        states[:, ALLOWED] = drawn.masks
        states[:, HEAD : HEAD + items] = self.pack(drawn.weights, drawn.values, drawn.labels)
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

        seen = flags & SEEN != 0
        paid = inspect & ~seen & (states[:, BUDGET_LEFT] > 0) & ~ended
        shown = inspect & (seen | paid)
        observations = np.where(shown, self._fact_base + facts, np.where(inspect, BUDGET, OK))

        take = ~finish & ~inspect
        gone = flags & IN != 0
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
        told = np.where(forbidden, CLASS_TOLD, np.where(heavy, WEIGHT_TOLD, 0))
        marks = np.where(paid, SEEN, 0) | np.where(took, IN, 0) | np.where(take & ~gone & ~ended, told, 0)
        states[rows, HEAD + n + item] = flags | marks
        states[:, FINISHED] = np.where(finish, 1, states[:, FINISHED])
        return ModelStep(states, np.where(ended, OK, observations), rewards, states[:, FINISHED] == 1)

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return 0 where a state gives the observation, -inf elsewhere; [N]."""
        given = self.step(states, np.full(len(states), action)).observations
        return np.where(given == observation, 0.0, -np.inf)

    def reinvigorate(
        self, prior: Array, action: int, observation: int, posterior: Array, rng: np.random.Generator
    ) -> Array:
        """Return particles after an answer, drawn anew from the posterior given all that was seen.

        An inspection's outcome is one of thousands, so filtering alone would leave copies of few particles. Flags
        tell what is known, in the same way in every particle; all else is drawn. What no instance explains gives back
        the posterior as it came.
        """
        if len(prior) == 0:
            return posterior
        row, n = np.array(prior[0], np.int64), self.n_items
        action = int(self.item_actions(row[None], np.array([action]))[0])
        if action == 0 or observation in (BUDGET, TAKEN):
            return posterior
        item = (action - 1) % n
        flag, facts = HEAD + n + item, HEAD + item
        weight, value, label = self.unpack(row[facts])
        if observation >= self._fact_base:
            row[BUDGET_LEFT] -= row[flag] & SEEN == 0
            row[facts], row[flag] = observation - self._fact_base, row[flag] | SEEN
        elif observation >= self._weight_base:
            weight = observation - self._weight_base + self.level.weights[0]
            row[facts], row[flag] = self.pack(weight, value, label), row[flag] | WEIGHT_TOLD
        elif observation >= self._class_base:
            label = observation - self._class_base
            row[facts], row[flag] = self.pack(weight, value, label), row[flag] | CLASS_TOLD
            row[REFUSED] |= 1 << label
        else:
            row[flag] |= IN
        try:
            return self._redraw(row, len(prior), rng)
        except ValueError:
            return posterior

    # -------------------------------------------------------------- what planners may also ask

    def value_hint(self, states: Array, actions: Array) -> Array:
        """Return the value of filling the room that is left by density with inspected, allowed items; [N]."""
        n = self.n_items
        weight, value, label = self.unpack(states[:, HEAD : HEAD + n])
        usable = (states[:, HEAD + n :] & (SEEN | IN) == SEEN) & (
            ((states[:, ALLOWED, None] >> label) & 1) == 1
        )
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
        open_ = (flags & (SEEN | IN) == SEEN) & ((states[:, REFUSED, None] >> label) & 1 == 0)
        open_ &= weight <= states[:, ROOM, None]
        count = open_.sum(1)
        order = np.argsort(np.where(open_, -value / weight, np.inf), axis=1, kind="stable")
        rank = np.clip(actions - 1, 0, np.maximum(count - 1, 0))
        take = n + 1 + order[rows, rank]
        unseen = flags & SEEN == 0
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
