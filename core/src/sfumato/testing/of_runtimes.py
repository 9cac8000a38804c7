"""The promises of runtimes, one function each, beside those of tasks and solvers that have the same names."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import attrs

from sfumato.driver import drive
from sfumato.records import ComponentSpec, Start, Step
from sfumato.testing.bench import Misfit, Tail, Trial
from sfumato.testing.subject import MAX_STEPS, N_ITEMS, Broken, Subject, same, unlike


class _Probe(Exception):
    """Raised inside a session, to see whether it gets out."""


def _trials(subject: Subject, promise: str) -> Iterator[tuple[ComponentSpec, Trial, str]]:
    """Yield each runtime that can be tried, with how, and what to call it; note why the others cannot."""
    for spec in subject.specs("runtime"):
        trial = subject.trial(spec)
        if isinstance(trial, Misfit):
            if promise != "runs" or not trial.broken:  # that one says that it is broken
                subject.pass_over(promise, f"runtime {spec.name}", trial.why)
        else:
            yield spec, trial, f"runtime {spec.name}, {trial.where}"


def runs(subject: Subject) -> Iterable[Broken]:
    """Every runtime is opened, plays an episode to its end, says that it has ended, and lets errors out."""
    for spec in subject.specs("runtime"):
        trial = subject.trial(spec)
        if isinstance(trial, Misfit) and trial.broken:
            yield Broken("runs", f"runtime {spec.name}: open, reset and step", trial.why,
                         "Mend it; or, if it fits only some tasks, raise sfumato.errors.UsageError that says which, and offer one of "
                         "them in this plugin, with a solver.")  # fmt: skip
    for spec, trial, call in _trials(subject, "runs"):
        ctx, tail = subject.context(spec), Tail()
        try:
            rows = drive(tail.remember(trial.task), trial.solver, trial.runtime, {}, ctx, max_steps=MAX_STEPS).rows
        except Exception as error:
            yield Broken("runs", call, f"{type(error).__name__}: {error}", "Mend it.")
            continue
        subject.try_out("runs")
        if trial.tally and any(row["step_limit_reached"] and e.over for row, e in zip(rows, tail.episodes, strict=True)):  # type: ignore[attr-defined]
            yield Broken("runs", call, "the task ended, and the session did not say so",
                         "Pass terminated and truncated on: without them an episode runs to its step limit.")  # fmt: skip
        try:
            with trial.session(ctx) as session:
                session.reset()
                raise _Probe
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, _Probe):
                cause = cause.__cause__ or cause.__context__
            if cause is not None:
                continue
        yield Broken("runs", f"{call}: an error inside the session", "it was swallowed",
                     "Let it out of the context that open returns, or the run goes on without a world.")  # fmt: skip


def same_reset(subject: Subject) -> Iterable[Broken]:
    """Two sessions begun alike, and one that is reset twice, show the same."""
    for spec, trial, call in _trials(subject, "same-reset"):
        ctx, starts = subject.context(spec), []
        again: Any = None
        try:
            for _ in range(2):
                with trial.session(ctx) as session:
                    starts.append(session.reset())
            with trial.session(ctx) as session:
                first = copy.copy(session.reset())
                first = attrs.evolve(first, observation=copy.deepcopy(first.observation))
                try:
                    again = session.reset()
                except Exception:  # it is called once: to refuse a second call is right too
                    again = None
        except Exception as error:
            subject.try_out("same-reset")
            yield Broken("same-reset", f"{call}: reset()", f"it raised {type(error).__name__}: {error}", "Mend it.")
            continue
        subject.try_out("same-reset")
        yield from begun_alike(f"{call}: reset()", starts, (first, again), "Draw from ctx.stream alone.")


def begun_alike(call: str, starts: list[Any], twice: tuple[Any, Any], mend: str) -> Iterable[Broken]:
    """Compare the starts of two episodes begun alike, and those of one that was reset twice (None: it refused)."""
    if not all(isinstance(s, Start) for s in starts):
        yield Broken("same-reset", call, f"it returned {type(starts[0]).__name__}", "Return a Start.")
        return
    different = unlike(*starts)
    if different:
        what = "observations" if different == "observation" else f"public parts, {different}"
        yield Broken("same-reset", call, f"two resets with one seed gave different {what}", mend)
    elif twice[1] is not None and (different := unlike(*twice)):
        what = different if different == "observation" else f"public part, {different}"
        yield Broken("same-reset", f"{call} called twice", f"a second reset gave a different {what}",
                     "Draw when the episode is made, not in reset, and show the same again; or refuse: raise "
                     "sfumato.errors.ProtocolError at the second call.")  # fmt: skip


def step_after_end(subject: Subject) -> Iterable[Broken]:
    """A step of a session after its end is an error."""
    for spec, trial, call in _trials(subject, "step-after-end"):
        ctx = subject.context(spec)
        action: Any = None
        try:
            policy = trial.solver.solve(trial.task, ctx.for_solving())
            with trial.session(ctx) as session:
                start = session.reset()
                policy.reset(start, ctx.stream("policy", 0))
                step: Step[Any] = Step(start.observation, 0.0, False)
                for _ in range(MAX_STEPS):
                    action = policy.act(step.observation)
                    step = session.step(action)
                    policy.observe(step)
                    if step.over:
                        break
                else:
                    subject.pass_over("step-after-end", call, f"no episode ended by itself within {MAX_STEPS} steps")
                    continue
                subject.try_out("step-after-end")
                try:
                    session.step(action)
                except Exception:
                    continue
        except Exception as error:
            subject.pass_over("step-after-end", call, f"the run raised {type(error).__name__}: {error}")
            continue
        yield Broken("step-after-end", f"{call}: step(action) after over", "it was carried out",
                     "Raise sfumato.errors.ProtocolError when the session is over.")  # fmt: skip


def instances_unchanged(subject: Subject) -> Iterable[Broken]:
    """A run under a runtime leaves its instances as they were."""
    for spec, trial, call in _trials(subject, "instances-unchanged"):
        ctx = subject.context(spec)
        try:
            instances = list(trial.task.instances(ctx))
            before = copy.deepcopy(instances)
            twin: Any = copy.copy(trial.task)
            twin.instances = partial(_again, instances)
            drive(twin, trial.solver, trial.runtime, {}, ctx, max_steps=MAX_STEPS)
        except Exception as error:
            subject.pass_over("instances-unchanged", call, f"the run raised {type(error).__name__}: {error}")
            continue
        subject.try_out("instances-unchanged")
        if not all(same(a, b) for a, b in zip(before, instances, strict=True)):
            yield Broken("instances-unchanged", call, "an instance was changed by the run",
                         "Copy what you add to: a Start's public part may be the instance itself.")  # fmt: skip


def _again(instances: list[Any], ctx: Any) -> Iterator[Any]:
    """Yield instances that were made before."""
    return iter(instances)


def replays(subject: Subject) -> Iterable[Broken]:
    """The same seed shows the same and reaches the task alike, alone or beside another session."""
    for spec, trial, call in _trials(subject, "replays"):
        ctx = subject.context(spec)
        mend = "Draw from ctx.stream alone, and show nothing of clocks, addresses or what other sessions did."
        try:
            fresh = attrs.evolve(trial, runtime=subject.build(spec))
            digests = [drive(t.task, t.solver, t.runtime, {}, ctx, max_steps=MAX_STEPS).digest for t in (trial, fresh)]
            first, second = (list(t.play(ctx)) for t in (trial, fresh))
            other = list(trial.play(ctx, N_ITEMS - 1))
        except Exception as error:
            subject.pass_over("replays", call, f"the run raised {type(error).__name__}: {error}")
            continue
        subject.try_out("replays")
        if digests[0] != digests[1]:
            yield Broken("replays", call, "two runs of one spec gave different digests", mend)
        elif (number := _first_unlike(first, second)) is not None:
            yield Broken("replays", call, f"two runs of one spec: step {number} showed different observations, rewards or ends", mend)
        elif trial.tally:  # the episodes of another task may not go side by side
            yield from _side_by_side(trial, call, ctx, (first, other))


def _side_by_side(trial: Trial, call: str, ctx: Any, alone: tuple[list[Step[Any]], list[Step[Any]]]) -> Iterable[Broken]:
    """Play two episodes in turns, as `--concurrency` does, and compare each with what it was alone."""
    together: tuple[list[Step[Any]], list[Step[Any]]] = ([], [])
    players = [(trial.play(ctx, 0), together[0]), (trial.play(ctx, N_ITEMS - 1), together[1])]
    try:
        while players:
            for player in list(players):
                step = next(player[0], None)
                if step is None:
                    players.remove(player)
                else:
                    player[1].append(step)
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    else:
        if all(_first_unlike(a, b) is None for a, b in zip(alone, together, strict=True)):
            return
        found = "each showed something else than alone"
    yield Broken("replays", f"{call}: two sessions open at the same time", found,
                 "Keep what belongs to one episode in the session that open yields, not on the runtime.")  # fmt: skip


def _first_unlike(a: list[Step[Any]], b: list[Step[Any]]) -> int | None:
    """Return the number of the first step that shows something else, from 1; None when all are alike."""
    for number, (x, y) in enumerate(zip(a, b, strict=False), 1):
        if not all(same(getattr(x, f), getattr(y, f)) for f in ("observation", "reward", "terminated", "truncated")):
            return number
    return None if len(a) == len(b) else min(len(a), len(b)) + 1
