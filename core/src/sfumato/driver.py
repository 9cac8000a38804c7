"""The one loop that runs everything.

It knows no plugin and no kind of problem: a batch is an instance with a leading axis, a one-shot problem an episode
of one step, training a call of `solve`.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from sfumato.errors import ProtocolError, UsageError
from sfumato.protocols import Context, Evaluator, Policy, Runtime, Solver, Task
from sfumato.records import Clocks, Metric, Native, Step, Trace
from sfumato.trace import EpisodeColumns, Recorder, TraceFile

if TYPE_CHECKING:
    from concurrent.futures import Future

MAX_STEPS = 1_000_000
"""Steps after which an episode of a task without a limit of its own counts as one that never ends."""

Clock = Callable[[], tuple[float, float]]


def process_clock() -> tuple[float, float]:
    """Return (wall, process CPU) seconds."""
    return time.perf_counter(), time.process_time()


def thread_clock() -> tuple[float, float]:
    """Return (wall, this thread's CPU) seconds: for episodes that run at the same time."""
    return time.perf_counter(), time.thread_time()


def synchronised(clock: Clock, synchronise: Callable[[], None]) -> Clock:
    """Return a clock that waits for the device before it reads."""

    def read() -> tuple[float, float]:
        synchronise()
        return clock()

    return read


@attrs.frozen
class Result:
    """What driving a shard gave: rows (one a finished episode), seconds, digest."""

    rows: list[dict[str, Any]]
    timings: Mapping[str, float]
    digest: str


def drive(
    task: Task[Any, Any, Any],
    solver: Solver[Any, Any, Any],
    runtime: Runtime[Any, Any, Any, Any],
    evaluators: Mapping[str, Evaluator[Any]],
    ctx: Context,
    *,
    level: str = "actions",
    max_steps: int | None = None,
    concurrency: int = 1,
    trace_file: TraceFile | None = None,
    on_row: Callable[[dict[str, Any]], None] = lambda row: None,
    synchronise: Callable[[], None] | None = None,
) -> Result:
    """Run one solver on one shard of a task's instances.

    Raises ProtocolError when a component breaks a promise, UsageError when the solver learns across episodes and
    `concurrency` is above 1. Results do not depend on `concurrency`: every episode has streams of its own.
    """
    if concurrency > 1 and solver.carries_over:
        raise UsageError(
            f"solver {type(solver).__name__} learns across episodes, so they cannot run {concurrency} at a time. Use "
            "--concurrency 1."
        )
    clock = process_clock if concurrency == 1 else thread_clock
    if synchronise is not None:
        clock = synchronised(clock, synchronise)
    wall, cpu = clock()
    policy = solver.solve(task, ctx.for_solving())
    if not isinstance(policy, Policy):
        raise ProtocolError(f"solver {type(solver).__name__}: solve must return a Policy, got {type(policy).__name__}. Subclass Policy.")
    wall_end, cpu_end = clock()
    timings = {"solve_wall": wall_end - wall, "solve_cpu": cpu_end - cpu}
    rows: list[dict[str, Any]] = []
    digests: list[str] = []
    n_items = max(len(ctx.indices), 1)

    def play(number: int, items: tuple[int, ...], instance: Any, lane: Policy[Any, Any]) -> dict[str, Any]:
        trace = run_episode(
            task, lane, runtime, instance, ctx, items, level=level, max_steps=max_steps, clock=clock,
            trace_file=trace_file, number=number,
        )  # fmt: skip
        return row_of(trace, number, [m for e in evaluators.values() for m in e.score(instance, trace)])

    for row in _in_order(play, numbered(task, ctx), policy, concurrency):
        digests.append(row["digest"])
        rows.append(row)
        on_row(row)
        ctx.progress((row["items"][1] - ctx.indices[0]) / n_items, f"episode {row['episode'] + 1}")
    for name in ("reset", "act", "observe", "world"):
        timings[f"{name}_wall"] = sum(row["wall"].get(name, 0.0) for row in rows)
        timings[f"{name}_cpu"] = sum(row["cpu"].get(name, 0.0) for row in rows)
    timings["first_act_wall"] = rows[0]["first_act_wall"] if rows else 0.0
    return Result(rows, timings, hashlib.sha256("".join(digests).encode()).hexdigest())


def numbered(task: Task[Any, Any, Any], ctx: Context) -> Iterator[tuple[int, tuple[int, ...], Any]]:
    """Yield (episode number, item indices, instance), holding the task to one instance for each item or chunk."""
    groups: Iterable[tuple[int, ...]] = ctx.chunks() if task.batched else ((k,) for k in ctx.indices)
    wanted = list(groups)
    count = 0
    for number, instance in enumerate(task.instances(ctx)):
        if number >= len(wanted):
            raise ProtocolError(f"task {type(task).__name__} yields more instances than the {len(wanted)} asked for.")
        yield number, wanted[number], instance
        count += 1
    if count < len(wanted):
        raise ProtocolError(
            f"task {type(task).__name__} yielded {count} instances, expected {len(wanted)}: one for each of "
            f"{'ctx.chunks()' if task.batched else 'ctx.indices'}."
        )


def freeze(value: Any, depth: int = 4) -> None:
    """Make the arrays of an instance read-only: what a policy could change, an evaluator would score.

    Looks into lists, tuples, mappings and attrs objects, a few levels deep. Only views that own no other writer are
    protected; a task that shares its arrays beyond the instance must hand out copies.
    """
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif depth and isinstance(value, Mapping):
        for each in value.values():
            freeze(each, depth - 1)
    elif depth and isinstance(value, (list, tuple)):
        for each in value:
            freeze(each, depth - 1)
    elif depth and attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            freeze(getattr(value, field.name, None), depth - 1)


def _in_order(
    play: Callable[..., dict[str, Any]],
    episodes: Iterator[tuple[int, tuple[int, ...], Any]],
    policy: Policy[Any, Any],
    concurrency: int,
) -> Iterator[dict[str, Any]]:
    """Yield rows in the order of the instances, running up to `concurrency` episodes at once."""
    if concurrency == 1:
        for number, items, instance in episodes:
            yield play(number, items, instance, policy)
        return
    from concurrent.futures import ThreadPoolExecutor  # not at the top: every run would pay for it

    waiting: deque[Future[dict[str, Any]]] = deque()
    with ThreadPoolExecutor(concurrency, thread_name_prefix="episode") as pool:
        for number, items, instance in episodes:
            waiting.append(pool.submit(play, number, items, instance, policy.spawn()))
            if len(waiting) >= 2 * concurrency:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def run_episode(
    task: Task[Any, Any, Any],
    policy: Policy[Any, Any],
    runtime: Runtime[Any, Any, Any, Any],
    instance: Any,
    ctx: Context,
    items: tuple[int, ...] = (0,),
    *,
    level: str = "actions",
    max_steps: int | None = None,
    clock: Clock = process_clock,
    trace_file: TraceFile | None = None,
    number: int = 0,
) -> Trace:
    """Play one episode to its end and return its trace.

    A limit given as `max_steps` or by the task truncates the episode and is noted; an episode of a task without
    any limit that passes MAX_STEPS raises ProtocolError.
    """
    full = level == "full"
    freeze(instance)
    columns = EpisodeColumns()
    if full:
        columns = EpisodeColumns(observations=_column("observations"), infos=_column("infos"), notes=_column("step_notes"))
    limit = min((n for n in (max_steps, task.max_steps) if n is not None), default=None)
    limit_reached = False
    where = f"task {type(task).__name__}, instance {items[0] if len(items) == 1 else f'{items[0]} to {items[-1]}'}"
    recorder = Recorder(task.start(instance, ctx, ctx.stream("world", items[0])), columns, where, clock)
    wall = {"reset": 0.0, "act": 0.0, "observe": 0.0}
    cpu = dict(wall)
    act_wall: list[float] = []
    steps = 0
    with runtime.open(recorder, ctx) as session:
        start = session.reset()
        w0, c0 = clock()
        policy.reset(start, ctx.stream("policy", items[0]))
        w1, c1 = clock()
        wall["reset"], cpu["reset"] = w1 - w0, c1 - c0
        observation, over = start.observation, False
        while not over:
            w0, c0 = clock()
            action = policy.act(observation)
            w1, c1 = clock()
            act_wall.append(w1 - w0)
            cpu["act"] += c1 - c0
            columns.said.append(action)
            step = session.step(action)
            if not isinstance(step, Step):
                raise ProtocolError(f"runtime {type(runtime).__name__}: step must return a Step, got {type(step).__name__}.")
            steps += 1
            if not step.over and steps >= (limit or MAX_STEPS):
                limit_reached = True
                step = attrs.evolve(step, truncated=~np.asarray(step.terminated) if np.ndim(step.terminated) else True, over=True)
            w0, c0 = clock()
            policy.observe(step)
            if columns.notes is not None:
                columns.notes.append(policy.notes() or {})
            w1, c1 = clock()
            wall["observe"] += w1 - w0
            cpu["observe"] += c1 - c0
            observation, over = step.observation, step.over
            if trace_file is not None and steps % 4096 == 0:
                trace_file.write_chunks(number, columns)
        happened = session.truth() if session is not recorder else None
    if limit_reached and limit is None:
        raise ProtocolError(f"{where}: the episode did not end within {MAX_STEPS:,} steps. Set a limit with --step-limit.")
    wall["act"] = sum(act_wall)
    wall["world"], cpu["world"] = recorder.world_wall, recorder.world_cpu
    truth, notes = recorder.take_truth(), policy.notes()
    if happened:  # what the runtime saw (errors of code, say): neither the task's knowledge nor the policy's claim
        truth = {**(truth or {}), "runtime": dict(happened)}
    digest = columns.digest()
    trace = Trace(
        start=start,
        actions=columns.said,
        native=Native(
            columns.actions, columns.rewards, columns.terminated, columns.truncated, columns.observations, columns.infos
        ),
        truth=truth,
        notes=notes,
        clocks=Clocks(wall, cpu, act_wall[0] if act_wall else 0.0, np.array(act_wall)),
        items=items,
        step_limit_reached=limit_reached,
        digest=digest,
    )
    if trace_file is not None:
        trace_file.write_chunks(number, columns)
        for name, value in (("truth", truth), ("notes", notes), ("digest", digest)):
            if value is not None:
                trace_file.write_json(f"e{number:06d}/{name}.json", value)
    return trace


def _column(name: str) -> Any:
    from sfumato.trace import Column

    return Column(name)


def row_of(trace: Trace, number: int, metrics: Sequence[Metric]) -> dict[str, Any]:
    """Return an episode's row: plain data, one line of JSON."""
    seen: set[str] = set()
    listed = []
    for metric in metrics:
        if metric.name in seen:
            raise ProtocolError(f"two evaluators gave a metric named {metric.name!r}; rename one.")
        seen.add(metric.name)
        values = np.asarray(metric.value, dtype=float)
        if values.ndim > 1 or (values.ndim == 1 and len(values) != len(trace.items)):
            raise ProtocolError(
                f"metric {metric.name!r} has shape {values.shape}; expected a number, or one for each of the "
                f"{len(trace.items)} items of the episode."
            )
        listed.append(
            {
                "name": metric.name,
                "values": values.reshape(-1).tolist(),
                "unit": metric.unit,
                "direction": metric.direction,
                "reduce": metric.reduce,
            }
        )
    return {
        "episode": number,
        "items": [trace.items[0], trace.items[-1] + 1],
        "metrics": listed,
        "steps": len(trace.native),
        "wall": dict(trace.clocks.wall),
        "cpu": dict(trace.clocks.cpu),
        "first_act_wall": trace.clocks.first_act_wall,
        "step_limit_reached": trace.step_limit_reached,
        "digest": trace.digest,
    }
