"""What is left of an Opaque Knapsack once the inspections are spent, as a POMDP small enough to be solved from both sides.

Weights, values and classes of the inspected items are known; which classes may be taken is not, and a refused take tells.
A bracket of this endgame's optimal value is a bracket for every agent with that budget: before their inspection items
differ in nothing but that the first is of an allowed class, so no order of inspection beats one that has the first in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from types import SimpleNamespace
from typing import Any, ClassVar

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato.protocols import Context, Evaluator, Policy, Runtime, Solver, Task
from sfumato.records import Metric, Refusal, Start, Trace
from sfumato_crossings.config import EndgameConfig
from sfumato_opaque_knapsack.instances import Level
from sfumato_vopp import Model, Step, Transitions

Array = NDArray[Any]
TAKEN, REFUSED = 0, 1


def allowed_sets(
    level: Level, n_items: int, capacity: int, classes: Sequence[str], weights: Sequence[int], labels: Sequence[int]
) -> tuple[Array, Array]:
    """Return the sets of classes that may be the allowed ones (int64 [K], a bit for each class) and their probabilities [K].

    The exact posterior given what an agent is told and the weights and labels of the items inspected, the first of the list
    among them. An item that was not inspected has any present class and any weight, all present classes must occur,
    and a ratio uniform over the level's range, times the allowed items' weight, rounds to the capacity. Left out, as in the task's own
    model: the generator's rules about the optimum, and what the budget tells of it.

    Arguments:
        classes: labels present among all items, as told.
        weights, labels: of the inspected items, the first item's first; labels are counted from 0.
    """
    present = {ord(c) - ord("A") for c in classes}
    missing = present - set(labels)
    left = n_items - len(weights)
    low, high = level.capacity_ratio
    sizes = level.weights[1] - level.weights[0] + 1
    heaviest = n_items * level.weights[1]
    total = np.arange(1, heaviest + 1)
    explains = np.zeros(heaviest + 1)  # the share of ratios with which allowed items of a total weight give this capacity
    explains[1:] = np.clip(np.minimum(high, (capacity + 0.5) / total) - np.maximum(low, (capacity - 0.5) / total), 0, None)
    one = np.zeros(level.weights[1] + 1)
    one[level.weights[0] :] = 1 / sizes
    sums = [np.ones(1)]  # of j weights
    for _ in range(left):
        sums.append(np.convolve(sums[-1], one))
    weight, label = np.asarray(weights), np.asarray(labels)
    masks, chances = [], []
    for allowed in combinations(range(level.n_classes), level.n_allowed):
        if labels[0] not in allowed:
            continue
        inside = np.isin(label, allowed)
        base, known = int(weight[inside].sum()), int(inside.sum())
        fits = np.array([
            sums[j] @ explains[base : base + len(sums[j])] if known + j >= level.min_allowed_items else 0.0
            for j in range(left + 1)
        ])  # fmt: skip
        chance = 0.0
        mine = len(present & set(allowed))
        m_in, m_out = len(missing & set(allowed)), len(missing - set(allowed))
        # Inclusion and exclusion over the missing classes, so that each of them occurs.
        for d_in in range(m_in + 1):
            for d_out in range(m_out + 1):
                sign = (-1) ** (d_in + d_out) * math.comb(m_in, d_in) * math.comb(m_out, d_out)
                a, b = (mine - d_in) / len(present), (len(present) - mine - d_out) / len(present)
                terms = [math.comb(left, j) * a**j * b ** (left - j) for j in range(left + 1)]
                chance += sign * float(np.dot(terms, fits))
        masks.append(sum(1 << c for c in allowed))
        chances.append(max(chance, 0.0))
    p = np.array(chances)
    if p.sum() <= 0:
        raise ValueError(
            f"expected facts that level {level.name} explains, got capacity {capacity} and classes {', '.join(classes)} "
            "that no set of allowed classes does; check the public facts"
        )
    keep = p > 1e-12 * p.sum()
    return np.array(masks, np.int64)[keep], p[keep] / p[keep].sum()


class EndgameModel(Model):
    """Which of the seen items to try next. States [B, 3]: bits of the allowed classes, bits of the taken items, refusals so far.

    Action 0 finishes, action i takes item i-1; a take that is known to be in vain (the item gone, or too heavy) finishes
    too. An observation says whether the item was taken or its class refused. Each forbidden class needs to be refused once at
    most, so after as many refusals as there are such classes the next one ends the game: nothing can be done for ever.

    Arguments:
        weights, values: of the M items that were seen, positive whole numbers [M].
        labels: their classes, counted from 0; [M].
        capacity: of the knapsack.
        masks: int64 [K], sets of classes that may be the allowed ones, a bit for each; classes of no seen item count for nothing.
        chances: float64 [K], their probabilities.
    """

    n_observations = 2
    discount = 1.0
    state_width = 3
    uses_counter_draws: ClassVar[bool] = True

    def __init__(
        self, weights: Sequence[int], values: Sequence[int], labels: Sequence[int], capacity: int, masks: Array, chances: Array
    ) -> None:
        self.weights, self.values = np.asarray(weights, np.int64), np.asarray(values, np.int64)
        self.bits = 1 << np.asarray(labels, np.int64)
        self.capacity = capacity
        self.seen = int(np.bitwise_or.reduce(self.bits))
        self.masks, inverse = np.unique(np.asarray(masks, np.int64) & self.seen, return_inverse=True)
        self.chances = np.bincount(inverse, np.asarray(chances, float)) / np.sum(chances)
        self.n_actions = 1 + len(self.weights)
        self.reward_range = (0.0, float(self.values.max()))

    def initial_distribution(self) -> tuple[Array, Array]:
        """Return every set of classes with nothing taken, and its probability."""
        nothing = np.zeros_like(self.masks)
        return np.stack([self.masks, nothing, nothing], axis=1), self.chances

    def initial(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n start states."""
        return self.initial_distribution()[0][rng.choice(len(self.masks), n, p=self.chances)]

    def ends(self, taken: Array, actions: Array) -> Array:
        """Return whether actions [B] end the game when these items [B] are taken: finish, an item that is gone or too heavy."""
        item = np.maximum(actions - 1, 0)
        load = ((taken[:, None] >> np.arange(len(self.weights))) & 1) @ self.weights
        return np.asarray((actions == 0) | ((taken >> item) & 1 == 1) | (load + self.weights[item] > self.capacity))

    def step(self, states: Array, actions: Array, rng: Any = None) -> Step:
        """Advance a batch; nothing is drawn."""
        states, actions = np.asarray(states, np.int64), np.asarray(actions, np.int64)
        masks, taken, refusals = states.T
        item = np.maximum(actions - 1, 0)
        vain = self.ends(taken, actions)
        took = ~vain & (masks & self.bits[item] != 0)
        refused = ~vain & ~took
        vain |= refused & (refusals >= np.bitwise_count(self.seen & ~masks))
        following = np.stack([masks, np.where(took, taken | (1 << item), taken), refusals + refused], axis=1)
        return Step(following, np.where(took, TAKEN, REFUSED), np.where(took, self.values[item], 0).astype(float), vain)

    def transitions(self, states: Array, action: int) -> Transitions:
        """Return the one outcome of an action from each state."""
        out = self.step(states, np.full(len(states), action))
        return Transitions(np.arange(len(states)), out.states, np.ones(len(states)), out.rewards, out.terminal)

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return 0 where the observation is the one that a state gives, -inf elsewhere."""
        # A take of what is gone ends the game, so an item that is there afterwards was taken by this very action.
        took = (next_states[:, 1] >> max(action - 1, 0)) & 1 == 1
        return np.where(took == (observation == TAKEN), 0.0, -np.inf)


class EndgameSolver(Solver[Any, Any, Any]):
    """Inspects items in the order of their list, then hands the endgame to `vopp/sarsop` and takes what its policy says."""

    def __init__(self, config: EndgameConfig = EndgameConfig()) -> None:
        self.config = config

    def supports(self, task: Task[Any, Any, Any], runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        """Decline tasks that show no model of their hidden items, or no allowed classes where they are to be told."""
        needed = {"pomdp_model", "capacity", "budget", *(("allowed",) if self.config.classes == "told" else ())}
        missing = sorted(needed - set(task.offers))
        if missing:
            return Refusal(
                f"it needs {', '.join(missing)} in the public part, which the task does not offer",
                "Run it on opaque-knapsack/micro or another level with -t pomdp_model=true -t reveal_allowed=true.",
            )
        return None

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> EndgamePolicy:
        """Return the policy; there is nothing to prepare."""
        return EndgamePolicy(self.config, ctx)

    def replay_promise(self) -> str:
        """Same bits: trials are counted, and the time limit is far away."""
        return "bits"


class EndgamePolicy(Policy[Any, Mapping[str, Any]]):
    """Lists, inspects, solves what is left, takes; by tool calls."""

    def __init__(self, config: EndgameConfig, ctx: Context) -> None:
        self._config, self._ctx = config, ctx

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        """Begin; the task's model says which level it is."""
        self._public, self._rng = start.public, rng
        self._model = start.public["pomdp_model"]
        budget = min(start.public["budget"], self._model.n_items)
        self._to_inspect = max(1, round(self._config.share * budget))
        self._ids: list[str] = []
        self._items: list[dict[str, Any]] = []
        self._inner: Policy[Any, int] | None = None
        self._possible: Array = np.zeros((0, 3), np.int64)  # states of the endgame that agree with what was answered
        self._bounds: dict[str, float] = {}

    def act(self, observation: Any) -> Mapping[str, Any]:
        """Return the next tool call."""
        if not self._ids:
            if isinstance(observation, Mapping):
                self._ids = json.loads(observation["value"])
            else:
                return {"tool": "list_items", "args": []}
        if len(self._items) < self._to_inspect:
            return {"tool": "inspect", "args": [self._ids[len(self._items)]]}
        if self._inner is None:
            self._inner = self._endgame()
        action = int(self._inner.act(None)) if len(self._possible) else 0
        self._outcome = self._left.step(self._possible, np.full(len(self._possible), action))
        if self._outcome.terminal.all():  # a take that cannot succeed is the model's other way to finish
            return {"tool": "finish", "args": []}
        return {"tool": "take_item", "args": [self._ids[action - 1]]}

    def observe(self, step: Any) -> None:
        """Learn from an answer."""
        answer = step.observation
        if self._inner is not None and not step.terminated:
            said = TAKEN if answer["ok"] else REFUSED
            agree = ~self._outcome.terminal & (self._outcome.observations == said)
            self._possible = self._outcome.states[agree]
            # None is left when a class was tried again until the model's game had ended: then nothing more was expected of it.
            if agree.any():
                self._inner.observe(attrs.evolve(step, observation=said))
        elif self._inner is None and self._ids:
            self._items.append(json.loads(answer["value"]))

    def _endgame(self) -> Policy[Any, int]:
        labels = [ord(item["class"]) - ord("A") for item in self._items]
        if self._config.classes == "told":
            masks, chances = np.array([sum(1 << (ord(c) - ord("A")) for c in self._public["allowed"])]), np.ones(1)
        else:
            m = self._model
            masks, chances = allowed_sets(m.level, m.n_items, m.capacity, m.classes, [i["weight"] for i in self._items], labels)
        self._left = model = EndgameModel(
            [item["weight"] for item in self._items], [item["value"] for item in self._items], labels,
            int(self._public["capacity"]), masks, chances,
        )  # fmt: skip
        task = SimpleNamespace(model=model)
        c = self._config
        search = self._ctx.component(
            "vopp/sarsop", {"gap": c.gap, "max_trials": c.max_trials, "max_states": c.max_states, "solve_seconds": 1e6}
        ).solve(task, self._ctx)
        said = search.notes()
        self._bounds = {name: float(said[name]) for name in ("upper_bound", "lower_bound", "trials")}
        search.reset(Start(None), self._rng)
        self._possible = model.initial_distribution()[0]
        policy: Policy[Any, int] = search
        return policy

    def notes(self) -> Mapping[str, Any]:
        """Return what the search proved of the endgame's expected value, and in how many trials."""
        return dict(self._bounds)


class BracketEvaluator(Evaluator[Any]):
    """Copies the bracket of `crossings/endgame` out of its notes; other solvers have none, and get no metric."""

    def score(self, instance: Any, trace: Trace) -> Iterable[Metric]:
        """Yield both bounds of the value that was to be expected when the inspections were spent."""
        for name in ("lower_bound", "upper_bound"):
            if trace.notes and name in trace.notes:
                yield Metric(f"claimed_{name}", float(trace.notes[name]), "value")
