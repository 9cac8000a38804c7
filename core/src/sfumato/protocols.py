"""The five protocols, and the context a run hands to them. Nothing else.

Subclass them; the methods that have a body here are optional.
`I` is an instance, `O` an observation, `A` an action; `O2`, `A2` what a runtime turns them into.
An instance may be a batch: then observations, rewards and flags carry a leading axis `B`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, Self, TypeVar, runtime_checkable

from sfumato.records import Metric, Refusal, Start, Step, Trace

if TYPE_CHECKING:
    import numpy as np

I = TypeVar("I")
O = TypeVar("O")
A = TypeVar("A")
O2 = TypeVar("O2")
A2 = TypeVar("A2")


class Artifacts(Protocol):
    """What training produces, kept by component, settings and data; one builder at a time."""

    def get_or_build(
        self, component: str, settings: Mapping[str, Any], build: Callable[[Path], None]
    ) -> Path: ...


class Context(Protocol):
    """What a component may ask of the run it is part of."""

    seed: int
    train_seed: int
    indices: Sequence[int]
    batch_size: int | None
    backend: str | None
    device: str
    dtype: str | None
    n_threads: int
    task: Mapping[str, Any]  # name, version and settings of the run's task, for the keys of artifacts; empty outside a run

    @property
    def artifacts(self) -> Artifacts:
        """Where what training produces is kept."""

    def chunks(self) -> Iterator[tuple[int, ...]]:
        """Yield the item indices of each batch, in order, at most `batch_size` each."""

    def stream(self, name: str, *keys: int) -> np.random.Generator:
        """Return the generator of the named stream. Same seed, name and keys: same draws, whoever else draws."""

    def for_solving(self) -> Context:
        """Return the context for `Solver.solve`: other instances and worlds than those that are scored."""

    def data_file(self, relative: str, *, sha256: str | Sequence[str] | None = None, fetch: str = "") -> Path:
        """Return a data file's path. Raises DataMissing naming `fetch` when absent, DataMismatch on a wrong hash."""

    def component(self, ref: str, settings: Mapping[str, Any] | None = None) -> Any:
        """Build another component by its reference, so that a solver can stand on a solver."""

    def progress(self, fraction: float, message: str = "") -> None:
        """Report how far this run has come, 0 to 1."""


class Episode(ABC, Generic[O, A]):
    """One instance being played."""

    @abstractmethod
    def reset(self) -> Start[O]:
        """Begin; called once, before the first step."""

    @abstractmethod
    def step(self, action: A) -> Step[O]:
        """Carry out an action. A step after the end is an error."""

    def truth(self) -> Mapping[str, Any] | None:
        """Return what only the task knows, asked for once at the end and shown to evaluators alone."""
        return None


class Task(ABC, Generic[I, O, A]):
    """A family of problems: where instances come from, and how an episode begins."""

    batched: ClassVar[bool] = False
    offers: ClassVar[frozenset[str]] = frozenset()
    max_steps: int | None = None

    @abstractmethod
    def instances(self, ctx: Context) -> Iterable[I]:
        """Yield one instance for each index in `ctx.indices`, or, batched, one for each of `ctx.chunks()`."""

    @abstractmethod
    def start(self, instance: I, ctx: Context, rng: np.random.Generator) -> Episode[O, A]:
        """Begin an episode whose world draws from `rng` alone.

        In a batch `rng` is the first item's; an episode whose items must not depend on one another's company draws
        item k's luck from `ctx.stream("world", k)`.
        """


@runtime_checkable
class Runtime(Protocol[O, A, O2, A2]):
    """How actions are carried out: wraps an episode whose actions are `A` into one whose actions are `A2`.

    The wrapper's own `truth()` may return what only the runtime saw (which code failed, and how); the driver asks
    for it once, before the session closes, and puts it into the trace as `truth["runtime"]`.
    """

    def open(self, episode: Episode[O, A], ctx: Context) -> AbstractContextManager[Episode[O2, A2]]: ...


class Policy(ABC, Generic[O, A]):
    """Acts, and may learn from what it observes.

    What belongs to one episode is assigned afresh in `reset`; what is shared (weights, tables, a client) is
    set by the solver and only read afterwards. On that rule `spawn` rests.
    """

    @abstractmethod
    def reset(self, start: Start[O], rng: np.random.Generator) -> None:
        """Forget the last episode and begin a new one. Every draw of the policy comes from `rng`."""

    @abstractmethod
    def act(self, observation: O) -> A:
        """Return the next action."""

    def observe(self, step: Step[O]) -> None:
        """Take in what the action led to."""

    def notes(self) -> Mapping[str, Any] | None:
        """Return the policy's own diagnostics. They are kept apart as claims and never scored."""
        return None

    def spawn(self) -> Self:
        """Return a policy for another episode that runs at the same time, sharing what is only read."""
        return copy.copy(self)


class Solver(ABC, Generic[I, O, A]):
    """Turns a task into a policy: by training, loading weights, building a planner, solving exactly."""

    carries_over: ClassVar[bool] = False

    def supports(self, task: Task[I, O, A], runtime: Runtime[Any, Any, O, A]) -> Refusal | None:
        """Return why this solver does not fit, or None when it does."""
        return None

    @abstractmethod
    def solve(self, task: Task[I, O, A], ctx: Context) -> Policy[O, A]:
        """Return a policy. Training draws from `ctx.stream("train")` and writes to `ctx.artifacts`.

        `ctx` is a context of its own: `task.instances(ctx)` and the world's streams give other instances and other luck
        than those that will be scored (they follow the train seed), so that nothing is trained on the test.
        """

    def replay_promise(self) -> str:
        """Return what a replay must show: `bits`, `tolerance` or `statistical`."""
        return "bits"


class Evaluator(ABC, Generic[I]):
    """Recomputes the objective from the instance and what reached the task. A solver's claim is never trusted."""

    @abstractmethod
    def score(self, instance: I, trace: Trace) -> Iterable[Metric]:
        """Yield the episode's metrics; in a batch, values are arrays `[B]`."""
