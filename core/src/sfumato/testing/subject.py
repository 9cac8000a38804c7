"""A plugin under test, what was tried of it, and when two things that it gave are the same."""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import PurePath
from typing import Any

import attrs
import numpy as np

from sfumato import backends, config, plugins
from sfumato.context import RunContext
from sfumato.driver import drive
from sfumato.errors import (
    BackendUnavailable,
    DataMissing,
    PluginError,
    SfumatoError,
    UnknownName,
    did_you_mean,
)
from sfumato.evaluators import Return
from sfumato.protocols import Solver, Task
from sfumato.records import ComponentSpec, Refusal, Start
from sfumato.runtimes import Direct
from sfumato.testing.bench import Misfit, Trial, trial_of

N_ITEMS = 2
MAX_STEPS = 60


LOOKS_AT: dict[str, tuple[tuple[str, ...], str]] = {
    "config-round-trip": ((), "no component of the plugin has settings"),
    "same-instances": (("task",), "the plugin has no task"),
    "same-reset": (("task", "runtime"), "the plugin has no task and no runtime"),
    "step-after-end": (("task", "runtime"), "the plugin has no runtime, and no task with a solver for it"),
    "instances-unchanged": (("solver", "runtime"), "the plugin has no solver and no runtime"),
    "supports-refuses": (("solver",), "the plugin has no solver"),
    "runs": (("solver", "runtime"), "the plugin has no solver and no runtime"),
    "replays": (("solver", "runtime"), "the plugin has no solver and no runtime"),
    "metrics-stable": (("solver",), "the plugin has no solver"),
    "backends-honest": (("solver",), "the plugin has no solver"),
}
"""Kinds of which a promise needs one to be tried, and why it is not where the plugin has none."""


@attrs.frozen
class Broken:
    """A promise that was not kept."""

    promise: str
    call: str
    found: str
    mend: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.call}: {self.found}. {self.mend}"


class Subject:
    """A plugin under test: its components, built once under their sample settings."""

    def __init__(self, name: str, registry: plugins.Registry | None = None) -> None:
        self.registry = registry or plugins.Registry()
        self.name = name = self.registry.spelled(name)
        self.plugin = self.registry.load(name)
        if self.plugin is None:
            for finding in self.registry.findings:
                if finding.subject == name:
                    raise PluginError(f"plugin {name!r} is not to be had: {finding.message}. {finding.advice}")
            known = self.registry.plugins
            raise UnknownName(
                f"no plugin {name!r} is installed.{did_you_mean(name, known)} There are: {', '.join(known)}. "
                f"If you have just made it, install it first: pip install -e ./sfumato-{name.replace('_', '-')}"
            )
        self.skipped: dict[str, str] = {}
        self.tried: Counter[str] = Counter()
        self.untried: dict[str, dict[str, str]] = {}
        self._trials: dict[str, Trial | Misfit] = {}

    def try_out(self, promise: str) -> None:
        """Note that a promise was put to the test once more."""
        self.tried[promise] += 1

    def pass_over(self, promise: str, what: str, why: str) -> None:
        """Note that a promise could not be put to the test on one component."""
        self.untried.setdefault(promise, {})[what] = why

    def why_not(self, promise: str) -> list[str]:
        """Return why a promise was not tried on what it was not tried on, a sentence each."""
        reasons = [f"{what}: {why}" for what, why in self.untried.get(promise, {}).items()]
        if self.tried[promise] or reasons:
            return reasons
        kinds, otherwise = LOOKS_AT.get(promise, (("task", "solver", "runtime", "evaluator"), "the plugin offers no component"))
        if not any(self.specs(kind) for kind in kinds):
            return [otherwise]
        return [f"{what}: {why}" for what, why in self.skipped.items()] or ["it has nothing to try it on"]

    def specs(self, kind: str) -> list[ComponentSpec]:
        """Return the plugin's components of one kind."""
        assert self.plugin is not None
        return [c for (k, _), c in sorted(self.plugin.components.items()) if k == kind]

    def build(self, spec: ComponentSpec) -> Any:
        """Construct a component under its sample settings."""
        return plugins.build(spec, spec.sample, config.structure)

    def context(self, spec: ComponentSpec | None = None, seed: int = 0) -> RunContext:
        """Return a context of N_ITEMS items, with the backend that the component would get."""
        import os
        from pathlib import Path

        data = os.environ.get("SFUMATO_DATA")
        choice = backends.resolve(spec) if spec is not None and spec.backends else None
        return RunContext(
            seed=seed,
            indices=range(N_ITEMS),
            backend=choice.backend if choice else None,
            device=choice.device if choice else "cpu",
            data_dir=Path(data) if data else None,
        )

    @cached_property
    def tasks(self) -> list[tuple[ComponentSpec, Task[Any, Any, Any]]]:
        """Tasks that can be tried here: what lacks its data is noted as skipped."""
        found = []
        for spec in self.specs("task"):
            try:
                backends.resolve(spec)
                task = self.build(spec)
                next(iter(task.instances(self.context())), None)
            except (DataMissing, BackendUnavailable) as error:
                self.skipped[spec.name] = str(error)
            except PluginError as error:
                self.skipped[spec.name] = str(error)
            except Exception:  # other promises say what is wrong with it
                found.append((spec, task))
            else:
                found.append((spec, task))
        return found

    def pairs(self) -> Iterator[tuple[ComponentSpec, Solver[Any, Any, Any], ComponentSpec, Task[Any, Any, Any]]]:
        """Yield each solver with the first task of this plugin that it supports under the direct runtime."""
        for spec in self.specs("solver"):
            try:
                backends.resolve(spec)
                solver = self.build(spec)
            except SfumatoError as error:
                self.skipped[spec.name] = str(error)
                continue
            reasons = []
            for task_spec, task in self.tasks:
                try:
                    refusal = solver.supports(task, Direct())
                except Exception as error:  # the promise `supports-refuses` says so
                    refusal = Refusal(f"raised {error}")
                if refusal is None:
                    yield spec, solver, task_spec, task
                    break
                reasons.append(refusal.reason)
            else:
                self.skipped[spec.name] = f"fits no task of this plugin under the direct runtime: {'; '.join(dict.fromkeys(reasons))}"

    def trial(self, spec: ComponentSpec) -> Trial | Misfit:
        """Return how a runtime can be tried, or why it cannot; found out once."""
        if spec.name not in self._trials:
            self._trials[spec.name] = trial_of(self, spec)
        return self._trials[spec.name]

    def drive(self, solver_spec: ComponentSpec, solver: Any, task_spec: ComponentSpec, task: Any, **options: Any) -> Any:
        """Run a pair for a few steps with the task's own evaluators."""
        evaluators: dict[str, Any] = {"sfumato/return": Return()}
        for name in task_spec.evaluators:
            evaluators[name] = plugins.build(self.registry.find("evaluator", name), {}, config.structure)
        ctx = options.pop("ctx", None) or self.context(solver_spec)
        return drive(task, solver, Direct(), evaluators, ctx, max_steps=MAX_STEPS, **options)


def same(a: Any, b: Any) -> bool:
    """Return whether two observations or instances hold the same values, whatever they are made of."""
    if a is b:
        return True
    if hasattr(a, "__array__") or hasattr(b, "__array__"):
        x, y = np.asarray(a), np.asarray(b)
        return x.dtype == y.dtype and x.shape == y.shape and (
            bool(np.array_equal(x, y, equal_nan=True)) if x.dtype.kind in "fc" else bool((x == y).all())
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and a != a:
        return bool(b != b)
    if attrs.has(type(a)):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in attrs.fields(type(a)) if f.eq)
    if "__eq__" not in {n for c in type(a).__mro__[:-1] for n in vars(c)} and hasattr(a, "__dict__"):
        return same(vars(a), vars(b))
    try:
        return bool(a == b)
    except Exception:  # an __eq__ that returns an array, say
        return repr(a) == repr(b)


def differing(a: Any, b: Any, where: str = "public", depth: int = 8) -> str | None:
    """Return where two public parts differ, as `public['map'][0]`, or None.

    By value: numbers, text, arrays, and the mappings, lists, attrs and data classes that hold them, `depth` deep. What
    cannot be looked into (a model, a space, a generator) is compared by its type alone.
    """
    if a is b or depth == 0:
        return None
    if type(a) is not type(b):
        return where
    if isinstance(a, np.ndarray) and a.dtype == object:
        a, b = a.tolist(), b.tolist()
    if isinstance(a, (bool, int, float, complex, str, bytes, set, frozenset, enum.Enum, PurePath)):
        return None if a == b or (a != a and b != b) else where
    if hasattr(a, "__array__"):
        try:
            return None if same(a, b) else where
        except Exception:  # an array on another device, say
            return None
    inside: list[tuple[str, Any, Any]]
    if isinstance(a, Mapping):
        for key in (*a, *b):
            if key not in a or key not in b:
                return f"{where}[{key!r}]"
        inside = [(f"{where}[{key!r}]", a[key], b[key]) for key in a]
    elif isinstance(a, (list, tuple)):
        if len(a) != len(b):
            return where
        inside = [(f"{where}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    elif attrs.has(type(a)):
        names = [f.name for f in attrs.fields(type(a)) if f.eq]
        inside = [(f"{where}.{name}", getattr(a, name), getattr(b, name)) for name in names]
    elif dataclasses.is_dataclass(a):
        names = [f.name for f in dataclasses.fields(a) if f.compare]
        inside = [(f"{where}.{name}", getattr(a, name), getattr(b, name)) for name in names]
    else:
        return None
    found = (differing(x, y, place, depth - 1) for place, x, y in inside)
    return next((place for place in found if place is not None), None)


def unlike(a: Start[Any], b: Start[Any]) -> str | None:
    """Return in what two starts differ, `observation` or the place in the public part; None when in nothing."""
    return "observation" if not same(a.observation, b.observation) else differing(a.public, b.public)
