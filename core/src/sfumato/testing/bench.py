"""A small world on which any runtime can be opened, in each of the ways in which actions are commonly said."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from sfumato import backends
from sfumato.driver import drive
from sfumato.errors import ProtocolError, SfumatoError
from sfumato.protocols import Episode, Policy, Solver, Task
from sfumato.records import ComponentSpec, Start, Step
from sfumato.runtimes import Direct

if TYPE_CHECKING:
    from sfumato.context import RunContext
    from sfumato.testing.subject import Subject

N_STEPS = 4
REHEARSAL_STEPS = 8
TOOLS = {"add": {"signature": "(n: int) -> int", "doc": "Add n to the total; return it, blurred by luck."}}
ACTIONS: Mapping[str, Any] = {
    "the number 1": 1,
    "an array": np.array([1.0]),
    "a tool call": {"tool": "add", "args": [1], "kwargs": {}},
    "code": "add(1)",
}
"""What is said to a runtime whose language is not known, by its name; the first that reaches the task is kept to."""


class TallyTask(Task[dict[str, Any], Any, Any]):
    """Adding up: a number, an array or a call of the tool `add` is added to a total; over after N_STEPS steps.

    An action is answered in kind: a number, an array, or {"ok": True, "value": total}. What is shown is blurred by the
    world's luck; the reward is what was added. The instance is the public part.
    """

    offers = frozenset({"tools"})

    def instances(self, ctx: Any) -> Iterable[dict[str, Any]]:
        """Yield totals to begin with."""
        for k in ctx.indices:
            yield {"total": int(ctx.stream("instance", k).integers(100)), "tools": copy.deepcopy(TOOLS)}

    def start(self, instance: dict[str, Any], ctx: Any, rng: np.random.Generator) -> TallyEpisode:
        """Begin to add."""
        return TallyEpisode(instance, rng)


class TallyEpisode(Episode[Any, Any]):
    """One sum."""

    def __init__(self, instance: dict[str, Any], rng: np.random.Generator) -> None:
        self.instance, self.rng = instance, rng
        self.total, self.left = instance["total"], N_STEPS

    @property
    def over(self) -> bool:
        """Whether nothing is left to add."""
        return self.left == 0

    def reset(self) -> Start[Any]:
        """Show the total, and the tool."""
        return Start(self.instance["total"], public=self.instance)

    def step(self, action: Any) -> Step[Any]:
        """Add. Raises ProtocolError after the end, TypeError for what cannot be added."""
        if self.over:
            raise ProtocolError("the episode is over: everything was added up")
        called = isinstance(action, Mapping)
        added = action["args"][0] if called else action
        if isinstance(added, (str, bytes)) or not np.isfinite(np.sum(added)):
            raise TypeError(f"expected a number, an array or a call of the tool 'add', got {action!r}")
        self.total = self.total + added
        self.left -= 1
        seen = self.total + int(self.rng.integers(1000))
        return Step({"ok": True, "value": seen} if called else seen, float(np.sum(added)), self.over)


class Saying(Solver[Any, Any, Any]):
    """Says the same thing always."""

    def __init__(self, action: Any) -> None:
        self.action = action

    def solve(self, task: Any, ctx: Any) -> Policy[Any, Any]:
        """Return a policy that says it."""
        action = self.action

        class Said(Policy[Any, Any]):
            def reset(self, start: Any, rng: Any) -> None:
                return

            def act(self, observation: Any) -> Any:
                return copy.deepcopy(action)

        return Said()


class Tail:
    """Keeps the bare episodes that a task starts, to look at their end or to step them once too often."""

    def __init__(self) -> None:
        self.episodes: list[Episode[Any, Any]] = []

    def remember(self, task: Any) -> Any:
        """Return the task with every episode it starts kept here."""
        start = task.start

        def started(instance: Any, ctx: Any, rng: Any) -> Any:
            self.episodes.append(start(instance, ctx, rng))
            return self.episodes[-1]

        twin = copy.copy(task)
        twin.start = started
        return twin


@attrs.frozen
class Trial:
    """A runtime with a task and a solver with which an episode was played; `tally` says that it was the small world."""

    runtime: Any
    task: Task[Any, Any, Any]
    solver: Solver[Any, Any, Any]
    where: str
    tally: bool

    @contextmanager
    def session(self, ctx: RunContext, item: int = 0) -> Iterator[Episode[Any, Any]]:
        """Open a new episode of an item."""
        instance = list(self.task.instances(ctx))[item]
        with self.runtime.open(self.task.start(instance, ctx, ctx.stream("world", item)), ctx) as session:
            yield session

    def play(self, ctx: RunContext, item: int = 0, max_steps: int = 60) -> Iterator[Step[Any]]:
        """Yield the steps of an episode as the policy sees them."""
        policy = self.solver.solve(self.task, ctx.for_solving())
        with self.session(ctx, item) as session:
            start = session.reset()
            policy.reset(start, ctx.stream("policy", item))
            observation = start.observation
            for _ in range(max_steps):
                step = session.step(policy.act(observation))
                policy.observe(step)
                yield step
                observation = step.observation
                if step.over:
                    return


@attrs.frozen
class Misfit:
    """Why a runtime could not be tried: `broken` when all that was tried with it raised, and nothing said why."""

    why: str
    broken: bool


def trial_of(subject: Subject, spec: ComponentSpec) -> Trial | Misfit:
    """Return the first of the ways to speak, or of the plugin's own tasks and solvers, that a runtime works with."""
    try:
        backends.resolve(spec)
        runtime = subject.build(spec)
    except SfumatoError as error:
        return Misfit(str(error), broken=False)
    except Exception as error:
        return Misfit(f"it cannot be built: {type(error).__name__}: {error}", broken=True)
    ctx = attrs.evolve(subject.context(spec), indices=range(1))
    raised: list[str] = []
    refused: list[str] = []
    unreached: list[str] = []
    for task, solver, where, tally in _candidates(subject, runtime):
        try:
            row = drive(task, solver, runtime, {}, ctx, max_steps=REHEARSAL_STEPS).rows[0]
        except Exception as error:
            said = isinstance(error, SfumatoError) and not isinstance(error, ProtocolError)
            (refused if said else raised).append(str(error) if said else f"{type(error).__name__}: {error}")
        else:
            if row["steps"]:
                return Trial(runtime, task, solver, where, tally)
            unreached.append(where)
    if refused:
        return Misfit(refused[0], broken=False)
    if unreached:
        return Misfit(
            f"nothing that was said reached the task ({', '.join(unreached)}): offer a task and a solver for it in this plugin", broken=False
        )
    return Misfit("; ".join(dict.fromkeys(raised)), broken=True)


def _candidates(subject: Subject, runtime: Any) -> Iterator[tuple[Any, Any, str, bool]]:
    """Yield task, solver, what they are, and whether it is the small world."""
    for name, action in ACTIONS.items():
        yield TallyTask(), Saying(action), f"a small world of the core's, saying {name}", True
    pairs = []
    for spec in subject.specs("solver"):
        try:
            backends.resolve(spec)
            solver = subject.build(spec)
            fitting = [(t_spec, task) for t_spec, task in subject.tasks if solver.supports(task, runtime) is None]
            # One that declines to act directly was written for a runtime: it comes first.
            pairs += [(solver.supports(task, Direct()) is None, spec, solver, t_spec, task) for t_spec, task in fitting]
        except Exception:  # other promises say what is wrong with it
            continue
    for _, spec, solver, t_spec, task in sorted(pairs, key=lambda pair: pair[0]):
        yield task, solver, f"solver {spec.name} on {t_spec.name}", False
