"""The promises, one function each. A function yields what it found broken: which promise, by which call, how to mend it.

Components are tried under their declared `sample` settings, on a few instances, in this process; runtimes on the world
of `sfumato.testing.bench`.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import attrs

from sfumato import backends, config, plugins
from sfumato.driver import drive
from sfumato.errors import BackendUnavailable, DataMissing, PluginError, UsageError
from sfumato.protocols import Episode, Policy, Solver, Task
from sfumato.records import BackendSpec, ComponentSpec, Refusal, Start, Step
from sfumato.runtimes import Direct
from sfumato.testing import of_runtimes
from sfumato.testing.bench import Tail
from sfumato.testing.subject import N_ITEMS, Broken, Subject, same

__all__ = ["PROMISES", "Broken", "Subject", "check"]

END_STEPS = 5000
HEAVY = ("numpy", "rich", "cattrs", "torch", "jax", "numba", "scipy", "ortools", "cvxpy", "sklearn", "transformers", "ray")


# --------------------------------------------------------------------------- the promises


def light_import(subject: Subject) -> Iterable[Broken]:
    """The light module imports nothing heavy, in a fresh interpreter."""
    assert subject.plugin is not None
    subject.try_out("light-import")
    code = f"import sys, {subject.plugin.module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode or done.stdout.strip():
        yield Broken(
            "light-import", f"import {subject.plugin.module}", f"it imports {done.stdout.strip() or done.stderr.strip()}",
            "Move heavy imports into the modules that `target` names; they are imported in the worker.",
        )  # fmt: skip


def well_described(subject: Subject) -> Iterable[Broken]:
    """Every component has a summary, its class a docstring, every task and solver a source."""
    for kind in ("task", "solver", "runtime", "evaluator"):
        for spec in subject.specs(kind):
            call = f"{kind} {spec.name}"
            if not spec.summary.strip():
                yield Broken("well-described", call, "it has no summary", "Give ComponentSpec a one-line `summary`.")
            if kind in ("task", "solver") and not spec.source.strip():
                yield Broken("well-described", call, "it names no source",
                             "Give ComponentSpec a `source`: the paper, the library, or 'own work' where there is none.")  # fmt: skip
            try:
                target = plugins.resolve(spec.target)
            except PluginError as error:
                if any(backends.missing(b) for b in spec.backends):
                    subject.pass_over("well-described", call, str(error))
                else:
                    yield Broken("well-described", call, str(error), "Mend `target`, or declare the backend it needs.")
                continue
            subject.try_out("well-described")
            if not (inspect.getdoc(target) or "").strip() or target.__doc__ is None:
                yield Broken("well-described", call, f"{spec.target} has no docstring of its own", "Say what it is, with shapes, units and source.")


def config_round_trip(subject: Subject) -> Iterable[Broken]:
    """Settings have defaults, are frozen, and survive being written down."""
    for kind in ("task", "solver", "runtime", "evaluator"):
        for spec in subject.specs(kind):
            if spec.config is None:
                continue
            call = f"{spec.config} of {kind} {spec.name}"
            try:
                cls = plugins.resolve(spec.config)
            except PluginError as error:
                if any(backends.missing(b) for b in spec.backends):
                    subject.pass_over("config-round-trip", call, str(error))
                else:
                    yield Broken("config-round-trip", call, str(error), "Mend `config`, or declare the backend it needs.")
                continue
            subject.try_out("config-round-trip")
            try:
                made = cls()
                again = config.structure(config.unstructure(made), cls, where=spec.name)
                config.structure(spec.sample, cls, where=f"{spec.name} sample")
            except Exception as error:
                yield Broken("config-round-trip", call, f"{type(error).__name__}: {error}", "Give every field a default and a plain type.")
                continue
            if not same(made, again):
                yield Broken("config-round-trip", call, f"{made!r} came back as {again!r}", "Use plain types: numbers, text, tuples, tables.")
            field = next(iter(attrs.fields(cls)), None)
            if field is not None:
                try:
                    setattr(made, field.name, getattr(made, field.name))
                except attrs.exceptions.FrozenInstanceError:
                    continue
                yield Broken("config-round-trip", call, "it can be changed after it was made", "Use @attrs.frozen.")


def _mend(error: Exception) -> str:
    """Return how to mend what raised an error."""
    if isinstance(error, ImportError):
        return (
            "Where a package may be absent, declare it (BackendSpec with `extra`), or raise sfumato.errors.BackendUnavailable that "
            "names the extra: such a component is then not tried here, and a run says what to install."
        )
    return "Mend it."


def same_instances(subject: Subject) -> Iterable[Broken]:
    """The same seed gives the same instances, and an instance does not depend on which others are asked for."""
    for spec, task in subject.tasks:
        subject.try_out("same-instances")
        try:
            first, second = (list(subject.build(spec).instances(subject.context())) for _ in range(2))
        except Exception as error:
            yield Broken("same-instances", f"{spec.name}.instances(ctx)", f"it raised {type(error).__name__}: {error}", _mend(error))
            continue
        expected = 1 if task.batched else N_ITEMS
        if len(first) != expected:
            yield Broken("same-instances", f"{spec.name}.instances(ctx)", f"{len(first)} instances for {N_ITEMS} items, expected {expected}",
                         "Yield one instance for each of ctx.indices, or, batched, for each of ctx.chunks().")  # fmt: skip
        elif not all(same(a, b) for a, b in zip(first, second, strict=True)):
            yield Broken("same-instances", f"{spec.name}.instances(ctx)", "two calls with one seed gave different instances",
                         'Draw from ctx.stream("instance", k) alone.')  # fmt: skip
        else:
            last = attrs.evolve(subject.context(), indices=range(N_ITEMS - 1, N_ITEMS))
            one_each = attrs.evolve(subject.context(), batch_size=1)
            alone = list(subject.build(spec).instances(last))[-1]
            among = list(subject.build(spec).instances(one_each))[-1] if task.batched else first[-1]
            if not same(alone, among):
                yield Broken("same-instances", f"{spec.name}.instances(ctx)", f"instance {N_ITEMS - 1} is another one when asked for alone",
                             'Draw instance k from ctx.stream("instance", k), not from one stream in turn.')  # fmt: skip


def same_reset(subject: Subject) -> Iterable[Broken]:
    """Two episodes or sessions begun alike, and one reset twice, show the same observation and the same public part."""
    for spec, task in subject.tasks:
        ctx = subject.context()
        call = f"{spec.name}: start(...).reset()"
        try:
            instance = next(iter(task.instances(ctx)))
            episodes = [task.start(instance, ctx, ctx.stream("world", 0)) for _ in range(2)]
            starts = [episode.reset() for episode in episodes]
            first = copy.deepcopy(getattr(starts[0], "observation", None))
        except (BackendUnavailable, DataMissing) as error:
            subject.skipped[spec.name] = str(error)
            subject.pass_over("same-reset", spec.name, str(error))
            continue
        except Exception as error:
            subject.try_out("same-reset")
            yield Broken("same-reset", call, f"it raised {type(error).__name__}: {error}", _mend(error))
            continue
        subject.try_out("same-reset")
        try:
            again = episodes[0].reset()
        except Exception:  # it is called once: to refuse a second call is right too
            again = None
        mend = "Draw from the rng handed to start alone, and leave nothing behind in the instance."
        yield from of_runtimes.begun_alike(call, starts, (Start(first, getattr(starts[0], "public", None)), again), mend)
    yield from of_runtimes.same_reset(subject)


class Keeper(Solver[Any, Any, Any]):
    """Wraps a solver and keeps the last action and the episode's end, so that a further step can be tried."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.action: Any = None
        self.finished = False

    def solve(self, task: Any, ctx: Any) -> Policy[Any, Any]:
        """Return the wrapped policy."""
        policy, keeper = self.inner.solve(task, ctx), self

        class Kept(Policy[Any, Any]):
            def reset(self, start: Any, rng: Any) -> None:
                policy.reset(start, rng)

            def act(self, observation: Any) -> Any:
                keeper.action = policy.act(observation)
                return keeper.action

            def observe(self, step: Step[Any]) -> None:
                keeper.finished = step.over
                policy.observe(step)

        return Kept()


def step_after_end(subject: Subject) -> Iterable[Broken]:
    """A step after the end is an error, not a silent continuation."""
    for spec, solver, task_spec, task in _each_task_once(subject):
        keeper, tail = Keeper(solver), Tail()
        ctx = attrs.evolve(subject.context(spec), indices=range(1))
        try:
            result = drive(tail.remember(task), keeper, Direct(), {}, ctx, max_steps=END_STEPS)
        except Exception as error:  # another promise says what is wrong
            subject.pass_over("step-after-end", task_spec.name, f"the run raised {type(error).__name__}: {error}")
            continue
        if not tail.episodes or result.rows[-1]["step_limit_reached"]:
            subject.pass_over("step-after-end", task_spec.name, f"no episode ended by itself within {END_STEPS} steps")
            continue
        subject.try_out("step-after-end")
        try:
            tail.episodes[-1].step(keeper.action)
        except Exception:
            continue
        yield Broken("step-after-end", f"{task_spec.name}: step(action) after over", "it was carried out",
                     "Raise sfumato.errors.ProtocolError when the episode is over.")  # fmt: skip
    yield from of_runtimes.step_after_end(subject)


def instances_unchanged(subject: Subject) -> Iterable[Broken]:
    """A run leaves its instances as they were."""
    for spec, solver, task_spec, task in subject.pairs():
        ctx = subject.context(spec)
        try:
            instances = list(task.instances(ctx))
            before = copy.deepcopy(instances)
            twin: Any = copy.copy(task)
            twin.instances = partial(_again, instances)
            subject.drive(spec, solver, task_spec, twin, ctx=ctx)
        except Exception as error:
            _not_run(subject, "instances-unchanged", spec, task_spec, error)
            continue
        subject.try_out("instances-unchanged")
        if not all(same(a, b) for a, b in zip(before, instances, strict=True)):
            yield Broken("instances-unchanged", f"solver {spec.name} on {task_spec.name}", "an instance was changed by the run",
                         "Copy what you alter; the next solver meets the same instance.")  # fmt: skip
    yield from of_runtimes.instances_unchanged(subject)


def _again(instances: list[Any], ctx: Any) -> Iterator[Any]:
    """Yield instances that were made before."""
    return iter(instances)


class AlienTask(Task[int, int, int]):
    """A task of nobody's kind: any solver may refuse it, none may crash on it."""

    def instances(self, ctx: Any) -> Iterable[int]:
        """Yield zeros."""
        return (0 for _ in ctx.indices)

    def start(self, instance: int, ctx: Any, rng: Any) -> Episode[int, int]:
        """Never begins."""
        raise AssertionError("the alien task is only looked at")


def supports_refuses(subject: Subject) -> Iterable[Broken]:
    """`supports` answers None or a Refusal with a reason, for a task of another kind too."""
    for spec in subject.specs("solver"):
        try:
            backends.resolve(spec)  # without its library it never comes to be asked
            solver = subject.build(spec)
        except (PluginError, BackendUnavailable) as error:
            subject.skipped[spec.name] = str(error)
            subject.pass_over("supports-refuses", spec.name, str(error))
            continue
        subject.try_out("supports-refuses")
        call = f"solver {spec.name}: supports(a task of another kind, direct)"
        try:
            answer = solver.supports(AlienTask(), Direct())
        except Exception as error:
            yield Broken("supports-refuses", call, f"it raised {type(error).__name__}: {error}", "Return a Refusal with the reason.")
            continue
        if answer is not None and not (isinstance(answer, Refusal) and answer.reason):
            yield Broken("supports-refuses", call, f"it returned {answer!r}", "Return None or a Refusal with a reason.")


def runs(subject: Subject) -> Iterable[Broken]:
    """Every solver runs on a task of its plugin, through the driver and its evaluators; every runtime is opened and closed."""
    for spec, solver, task_spec, task in subject.pairs():
        try:
            subject.drive(spec, solver, task_spec, task)
            subject.try_out("runs")
        except (BackendUnavailable, DataMissing) as error:
            subject.skipped[spec.name] = str(error)
            subject.pass_over("runs", spec.name, str(error))
        except Exception as error:
            yield Broken("runs", f"solver {spec.name} on {task_spec.name}", f"{type(error).__name__}: {error}", _mend(error))
    yield from of_runtimes.runs(subject)


def replays(subject: Subject) -> Iterable[Broken]:
    """A solver that promises bits gives equal digests twice; a runtime shows the same twice, also beside another session."""
    for spec, solver, task_spec, task in subject.pairs():
        if solver.replay_promise() != "bits":
            if solver.replay_promise() not in ("tolerance", "statistical"):
                yield Broken("replays", f"solver {spec.name}: replay_promise()", repr(solver.replay_promise()),
                             "Return 'bits', 'tolerance' or 'statistical'.")  # fmt: skip
            else:
                subject.pass_over("replays", spec.name, f"it promises {solver.replay_promise()}, not bits")
            continue
        try:
            first = subject.drive(spec, solver, task_spec, task).digest
            again = subject.drive(spec, subject.build(spec), task_spec, subject.build(task_spec)).digest
        except Exception as error:
            _not_run(subject, "replays", spec, task_spec, error)
            continue
        subject.try_out("replays")
        if first != again:
            yield Broken("replays", f"solver {spec.name} on {task_spec.name}", "two runs of one spec gave different digests",
                         "Draw from the streams handed in alone, or let replay_promise() say what holds.")  # fmt: skip
    yield from of_runtimes.replays(subject)


def metrics_are_stable(subject: Subject) -> Iterable[Broken]:
    """A metric's unit, direction and reduction are the same in every episode and for every solver."""
    seen: dict[tuple[str, str], tuple[tuple[str, str, str], str]] = {}
    for spec, solver, task_spec, task in subject.pairs():
        try:
            rows = subject.drive(spec, solver, task_spec, task).rows
        except Exception as error:
            _not_run(subject, "metrics-stable", spec, task_spec, error)
            continue
        subject.try_out("metrics-stable")
        for metric in itertools.chain.from_iterable(row["metrics"] for row in rows):
            about = (metric["unit"], metric["direction"], metric["reduce"])
            before, who = seen.setdefault((task_spec.name, metric["name"]), (about, spec.name))
            if before != about:
                yield Broken("metrics-stable", f"{task_spec.name}: metric {metric['name']}", f"{before} for {who}, {about} for {spec.name}",
                             "Fix unit, direction and reduce for each name.")  # fmt: skip
                return


def backends_are_honest(subject: Subject) -> Iterable[Broken]:
    """Declared backends that are installed run; absent ones give BackendUnavailable with the next command."""
    for spec, _, task_spec, task in subject.pairs():
        for offer in spec.backends:
            call = f"solver {spec.name}, backend {offer.name}"
            if backends.missing(offer):
                yield from _refusal(call, spec, offer)
                continue
            if "cpu" not in offer.devices:
                subject.pass_over("backends-honest", call, f"it runs on {', '.join(offer.devices)} alone, and only the CPU is tried")
                continue
            ctx = attrs.evolve(subject.context(spec), backend=offer.name, device="cpu")
            try:
                subject.drive(spec, subject.build(spec), task_spec, task, ctx=ctx)
            except (BackendUnavailable, DataMissing) as error:
                subject.pass_over("backends-honest", call, str(error))
            except Exception as error:
                mend = _mend(error) if isinstance(error, ImportError) else "Mend it or do not declare it."
                yield Broken("backends-honest", call, f"declared and installed, but {type(error).__name__}: {error}", mend)
    for spec in subject.specs("solver"):
        subject.try_out("backends-honest")
        try:
            backends.resolve(spec, device="no-such-device")
        except (BackendUnavailable, UsageError):
            continue
        yield Broken("backends-honest", f"solver {spec.name} on no-such-device", "it was accepted", "Declare real devices.")


def _not_run(subject: Subject, promise: str, spec: ComponentSpec, task: ComponentSpec, error: Exception) -> None:
    """Note that a promise could not be tried because the run itself broke: the promise `runs` says so."""
    subject.pass_over(promise, f"{spec.name} on {task.name}", f"the run raised {type(error).__name__}: {error}")


def _refusal(call: str, spec: ComponentSpec, offer: BackendSpec) -> Iterable[Broken]:
    try:
        backends.resolve(spec, wanted=offer.name)
    except BackendUnavailable as error:
        if "pip install" not in str(error):
            yield Broken("backends-honest", call, f"absent, and the error names no command: {error}", "Give BackendSpec its `extra`.")
    else:
        yield Broken("backends-honest", call, "absent, and yet accepted", "List its distributions in BackendSpec.requires.")


def _each_task_once(subject: Subject) -> Iterator[tuple[ComponentSpec, Any, ComponentSpec, Any]]:
    """Yield, for each task, the first solver that supports it."""
    for task_spec, task in subject.tasks:
        for spec in subject.specs("solver"):
            try:
                backends.resolve(spec)
                solver = subject.build(spec)
                fits = solver.supports(task, Direct()) is None
            except Exception:
                continue
            if fits:
                yield spec, solver, task_spec, task
                break
        else:
            subject.pass_over("step-after-end", task_spec.name, "no solver of this plugin fits it under the direct runtime")


PROMISES: dict[str, Callable[[Subject], Iterable[Broken]]] = {
    "light-import": light_import,
    "well-described": well_described,
    "config-round-trip": config_round_trip,
    "same-instances": same_instances,
    "same-reset": same_reset,
    "step-after-end": step_after_end,
    "instances-unchanged": instances_unchanged,
    "supports-refuses": supports_refuses,
    "runs": runs,
    "replays": replays,
    "metrics-stable": metrics_are_stable,
    "backends-honest": backends_are_honest,
}


def check(plugin: str, promises: Sequence[str] = (), registry: plugins.Registry | None = None) -> list[Broken]:
    """Return what a plugin breaks of the promises named (all, when none is)."""
    subject = Subject(plugin, registry)
    return [broken for name in promises or PROMISES for broken in PROMISES[name](subject)]
