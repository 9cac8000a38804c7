"""What passes between the parts: frozen records, light to import, versioned where they are written down.

Axis letters: `B` batch, `T` time. A field marked "per item" is a scalar for a single episode and an
array `[B]` for a batched one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import attrs

if TYPE_CHECKING:
    from sfumato.trace import Column

SCHEMA_VERSION = 1
"""Version of the records on disk. A reader for version n-1 is kept when n is introduced."""

O = TypeVar("O")

Direction = Literal["max", "min", "none"]
Reduce = Literal["mean", "max", "min", "p95", "iqm", "sum"]


class Status(enum.StrEnum):
    """How a run ended. Each member's `advice` is one sentence on what to do next."""

    OK = "ok"
    FAILED = "failed"
    TIMEOUT = "timeout"
    KILLED = "killed"
    UNSUPPORTED = "unsupported"
    INTERRUPTED = "interrupted"

    @property
    def advice(self) -> str:
        return _ADVICE[self]


_ADVICE = {
    Status.OK: "Nothing to do.",
    Status.FAILED: "Read the error with 'sfumato show RUN', mend it, then run the experiment again with "
    "--retry failed.",
    Status.TIMEOUT: "Raise the limit (--time-limit SECONDS) or make the task smaller, then run again with "
    "--retry timeout.",
    Status.KILLED: "The run exceeded its memory limit or was killed from outside: raise --memory-limit or find "
    "who killed it, then run again with --retry killed.",
    Status.UNSUPPORTED: "The solver declined this task; the reason is in the record. Choose another solver or task.",
    Status.INTERRUPTED: "The run was cut off (Ctrl-C, a lost host, a dead parent). Run the experiment again: it "
    "resumes there.",
}


def _default_over(step: Step[Any]) -> bool:
    """True when every item has terminated or been truncated."""
    terminated, truncated = step.terminated, step.truncated
    if isinstance(terminated, bool) and isinstance(truncated, bool):
        return terminated or truncated
    done = terminated | truncated
    return bool(done.all()) if hasattr(done, "all") else bool(done)


@attrs.frozen
class Start(Generic[O]):
    """What an episode shows first.

    `public` is all that the agent may know of this instance beyond the observation: its map, its
    model, its tools. A mapping or an attrs object.
    """

    observation: O
    public: Any = None


@attrs.frozen
class Step(Generic[O]):
    """Gymnasium's five fields, and whether the whole episode is over.

    `reward`, `terminated`, `truncated` are per item. In a batch, finished items are frozen: their reward
    is 0 from then on and their actions are ignored. `over` is true when every item is finished.
    """

    observation: O
    reward: Any
    terminated: Any
    truncated: Any = False
    info: Mapping[str, Any] = attrs.field(factory=dict)
    over: bool = attrs.field(default=attrs.Factory(_default_over, takes_self=True))


@attrs.frozen
class Refusal:
    """A solver's polite no: why it does not fit this task, and what to do instead."""

    reason: str
    advice: str = ""


@attrs.frozen
class Metric:
    """One recomputed figure of one episode.

    `value` is per item. `reduce` says how rows become the figure of a run, so that shards merge.
    """

    name: str
    value: Any
    unit: str = "1"
    direction: Direction = attrs.field(default="none", validator=attrs.validators.in_(("max", "min", "none")))
    reduce: Reduce = attrs.field(
        default="mean", validator=attrs.validators.in_(("mean", "max", "min", "p95", "iqm", "sum"))
    )


@attrs.frozen
class Clocks:
    """Seconds spent, wall clock and process CPU, by protocol call: `solve`, `reset`, `act`, `observe`, `world`.

    `first_act_wall` is the first call of `act` in the run (compilation lands there); it is part of `act` too.
    `decision_seconds` = reset + act + observe: what deciding cost, whichever method the policy chose to do it in.
    """

    wall: Mapping[str, float]
    cpu: Mapping[str, float]
    first_act_wall: float = 0.0
    act_wall: Any = None  # float array [T]: seconds of each act

    @property
    def decision_seconds(self) -> float:
        return sum(self.wall.get(name, 0.0) for name in ("reset", "act", "observe"))

    @property
    def decision_cpu_seconds(self) -> float:
        return sum(self.cpu.get(name, 0.0) for name in ("reset", "act", "observe"))


@attrs.frozen
class Native:
    """What reached the task, one entry a step of the task. Evaluators score this."""

    actions: Column
    rewards: Column
    terminated: Column
    truncated: Column
    observations: Column | None = None
    infos: Column | None = None

    def __len__(self) -> int:
        return len(self.actions)


@attrs.frozen
class Trace:
    """One episode, written down.

    `native` is what reached the task; `actions` is what the policy said (code, for an agent under an
    interpreter). `truth` is what only the task knew. `notes` are the policy's own claims, never scored.
    """

    start: Start[Any]
    actions: Column
    native: Native
    truth: Mapping[str, Any] | None
    notes: Mapping[str, Any] | None
    clocks: Clocks
    items: tuple[int, ...] = (0,)
    step_limit_reached: bool = False
    digest: str = ""


# --------------------------------------------------------------------------- what a plugin offers


@attrs.frozen
class BackendSpec:
    """One way a component can compute: array library, devices it runs on, the extra that installs it."""

    name: str
    devices: tuple[str, ...] = ("cpu",)
    extra: str | None = None
    requires: tuple[str, ...] = ()  # distributions looked for through metadata; default: the backend's own
    dtypes: tuple[str, ...] = ()  # what --dtype may say; none: the component has a dtype of its own


@attrs.frozen
class ComponentSpec:
    """An offer, light enough to print without importing the implementation behind `target`."""

    kind: Literal["task", "solver", "runtime", "evaluator"] = attrs.field(
        validator=attrs.validators.in_(("task", "solver", "runtime", "evaluator"))
    )
    name: str
    target: str
    config: str | None = None
    version: int = 1
    summary: str = ""
    source: str = ""
    backends: tuple[BackendSpec, ...] = ()
    evaluators: tuple[str, ...] = ()
    resources: Mapping[str, float] = attrs.field(factory=dict)  # e.g. {"cpus": 1, "gpus": 0, "memory_mb": 2000}
    timing: Literal["shared", "exclusive"] = "shared"
    short: bool = False  # runs declared short may share a warm worker
    sample: Mapping[str, Any] = attrs.field(factory=dict)  # settings small enough to try it in seconds
    stands_on: str | None = None  # the setting that names a solver underneath: backend, device and dtype are for that one


@attrs.frozen
class CommandSpec:
    """A plugin's own command, mounted as `sfumato <plugin> <name>`, imported only when called."""

    name: str
    target: str
    help: str = ""


@attrs.frozen
class Finding:
    """One line of `sfumato doctor`: what was looked at, how it stands, the next command to try."""

    level: Literal["ok", "warning", "error"]
    subject: str
    message: str
    advice: str = ""


@attrs.frozen
class ReportSection:
    """A plugin's part of a run's page: `target` names a callable `(RunView) -> part or list of parts`.

    `tasks` are the tasks it is for; one that ends in a slash is a prefix ("vopp/"); none means every task.
    """

    title: str
    target: str
    tasks: tuple[str, ...] = ()
    priority: int = 100


# --------------------------------------------------------------------------- a run, written down


@attrs.frozen
class Limits:
    """Hard limits of one run. None: no limit. `steps` bounds each episode; the rest bound the run."""

    seconds: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0))
    )
    memory_mb: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.gt(0))
    )
    steps: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.ge(1))
    )


@attrs.frozen
class ComponentRef:
    """A component with its version and resolved settings: all that decides what it does."""

    name: str
    version: int = 1
    settings: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class RunSpec:
    """One solver on one shard of one task's instances. Its hash is the run's id.

    `instances` is a half-open range "start:stop" of instance indices; `batch` the most items one batched
    episode may hold; `data` maps file names to SHA-256.
    """

    task: ComponentRef
    solver: ComponentRef
    runtime: ComponentRef = ComponentRef("direct")
    evaluators: tuple[ComponentRef, ...] = ()
    instances: str = "0:1"
    batch: int | None = None
    seed: int = 0
    train_seed: int = 0
    backend: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    threads: int = 1
    concurrency: int = 1
    level: Literal["actions", "full"] = "actions"
    limits: Limits = Limits()
    data: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def indices(self) -> range:
        start, stop = self.instances.split(":")
        return range(int(start), int(stop))


@attrs.frozen
class Figure:
    """A metric of a run, reduced over its rows: value, spread and count."""

    name: str
    value: float
    unit: str
    direction: Direction
    reduce: Reduce
    n: int
    sd: float | None = None
    low: float | None = None
    high: float | None = None


@attrs.frozen
class RunRecord:
    """What is known of a run once it has ended. Written once, by atomic rename."""

    run_id: str
    spec: RunSpec
    status: Status
    error: str = ""
    advice: str = ""
    started: str = ""
    ended: str = ""
    timings: Mapping[str, float] = attrs.field(factory=dict)
    figures: tuple[Figure, ...] = ()
    digest: str = ""
    trace: str = "complete"  # or "digest only": over the size limit
    promise: str = "bits"
    code: Mapping[str, str] = attrs.field(factory=dict)
    provenance: Mapping[str, Any] = attrs.field(factory=dict)
    attempt: int = 1
    label: str = ""
    schema: int = SCHEMA_VERSION
