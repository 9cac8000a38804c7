"""An experiment: which tasks, solvers and runtimes, how many instances, under which limits; and the runs it makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import attrs

from sfumato import backends, config, plugins
from sfumato.context import file_digest
from sfumato.errors import ConfigError, UnknownName, did_you_mean
from sfumato.provenance import code_of
from sfumato.records import ComponentRef, ComponentSpec, Limits, RunSpec
from sfumato.store import run_id_of
from sfumato.supervisor import Job


@attrs.frozen
class Use:
    """A component and the settings that differ from its defaults; `label` names it in tables."""

    name: str
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    label: str = ""
    where: str = ""


@attrs.frozen
class Settings:
    """The keys an experiment file may hold beside its tables."""

    name: str = ""
    seeds: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    instances: str | None = None
    shards: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    seed: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    train_seed: int = attrs.field(default=0, validator=attrs.validators.ge(0))
    batch: int | None = attrs.field(default=None, validator=attrs.validators.optional(attrs.validators.ge(1)))
    backend: str | None = None
    device: str | None = None
    dtype: str | None = None
    threads: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    concurrency: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    level: Literal["actions", "full"] = "actions"
    evaluators: tuple[str, ...] = ()
    limits: Limits = Limits()


@attrs.frozen
class Experiment:
    """Every task with every solver under every runtime."""

    tasks: tuple[Use, ...]
    solvers: tuple[Use, ...]
    runtimes: tuple[Use, ...] = (Use("direct"),)
    settings: Settings = Settings()

    @classmethod
    def from_toml(cls, path: Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
        """Read an experiment file; raises ConfigError with file, table and key."""
        tables = config.read_toml(path)
        uses = {kind: tuple(_uses(path, kind, tables.pop(kind, []))) for kind in ("task", "solver", "runtime")}
        known = ["task", "solver", "runtime", *(f.name for f in attrs.fields(Settings))]
        for name in tables:
            if name not in known:
                raise ConfigError(f"{path}: unknown key {name!r}.{did_you_mean(name, known)} Known keys: {', '.join(known)}.")
        for kind in ("task", "solver"):
            if not uses[kind]:
                raise ConfigError(f'{path}: no [[{kind}]] table. Add one:\n[[{kind}]]\nuse = "plugin/name"')
        merged = {**tables, **(overrides or {})}
        if overrides and isinstance(tables.get("limits"), Mapping) and "limits" in overrides:
            merged["limits"] = {**tables["limits"], **overrides["limits"]}  # one limit given leaves the others as they are
        if overrides and "seeds" in overrides and "instances" not in overrides:
            merged.pop("instances", None)
        settings = config.structure(merged, Settings, where=str(path))
        return cls(uses["task"], uses["solver"], uses["runtime"] or (Use("direct"),), settings)

    def jobs(self, registry: plugins.Registry, data_dir: str | None = None) -> list[Job]:
        """Return the runs of this experiment, with settings and backends resolved."""
        jobs: list[Job] = []
        data_dir = data_dir and str(Path(data_dir).absolute())  # a worker may stand in another folder
        for task in self.tasks:
            for solver in self.solvers:
                for runtime in self.runtimes:
                    jobs.extend(self._shards(registry, task, solver, runtime, data_dir))
        return jobs

    def _shards(
        self, registry: plugins.Registry, task: Use, solver: Use, runtime: Use, data_dir: str | None
    ) -> Iterable[Job]:
        s = self.settings
        specs = {kind: _find(registry, kind, use) for kind, use in (("task", task), ("solver", solver), ("runtime", runtime))}
        data: dict[str, str] = {}
        refs = {
            kind: resolve(specs[kind], use, data)
            for kind, use in (("task", task), ("solver", solver), ("runtime", runtime))
        }
        names = (*specs["task"].evaluators, *s.evaluators, "sfumato/return")
        scorers = [registry.find("evaluator", name) for name in dict.fromkeys(names)]
        computing = _computing(registry, specs["solver"], refs["solver"])
        choice = backends.resolve(
            computing, wanted=s.backend, device=s.device, distribution=registry.owner(computing).distribution
        )
        if specs["task"].backends:  # a task that needs a library of its own, a simulator say
            backends.resolve(specs["task"], distribution=registry.owner(specs["task"]).distribution)
        backends.check_dtype(computing, choice, s.dtype)
        declared = bool(computing.backends)
        code = code_of([c.target for c in (*specs.values(), *scorers, computing)])
        label = " ".join(filter(None, (task.label or task.name, solver.label or solver.name)))
        if runtime.name != "direct":
            label += f" {runtime.label or runtime.name}"
        resources = needs([*specs.values(), computing])
        exclusive = is_exclusive([*specs.values(), *scorers, computing])
        targets = {kind: (c.target, c.config) for kind, c in specs.items()}
        targets |= {f"evaluator {c.name}": (c.target, c.config) for c in scorers}
        for shard in shards(s.instances or f"0:{s.seeds}", s.shards):
            spec = RunSpec(
                **refs,
                evaluators=tuple(resolve(c, Use(c.name), data) for c in scorers),
                instances=shard,
                batch=s.batch,
                seed=s.seed,
                train_seed=s.train_seed,
                backend=choice.backend if declared else None,
                device=choice.device,
                dtype=s.dtype,
                threads=s.threads,
                concurrency=s.concurrency,
                level=s.level,
                limits=s.limits,
                data=data,
            )
            short = specs["task"].short and specs["solver"].short
            yield Job(
                run_id_of(spec), spec, label, data_dir, code, exclusive=exclusive, short=short, resources=resources,
                targets=targets,
            )


def _computing(registry: plugins.Registry, solver: ComponentSpec, ref: ComponentRef) -> ComponentSpec:
    """Return the solver that backend, device and dtype are for: this one, or the one it stands on."""
    named = ref.settings.get(solver.stands_on, "") if solver.stands_on else ""
    if not named:
        return solver
    try:
        return registry.find("solver", named)
    except UnknownName as error:
        raise UnknownName(f"solver {solver.name}, setting {solver.stands_on!r}: {error}") from error


def is_exclusive(components: Iterable[ComponentSpec]) -> bool:
    """Return whether a run of these must have the machine to itself: one component whose time is the result is enough."""
    return any(component.timing == "exclusive" for component in components)


def components_of(registry: plugins.Registry, spec: RunSpec) -> list[ComponentSpec]:
    """Return what a specification is made of, as installed here; raises UnknownName for what is not."""
    kinds = [("task", spec.task), ("solver", spec.solver), ("runtime", spec.runtime)]
    return [registry.find(kind, ref.name) for kind, ref in (*kinds, *(("evaluator", e) for e in spec.evaluators))]


def needs(components: Iterable[ComponentSpec]) -> dict[str, float]:
    """Return the resources that cover what each component declares (cpus, gpus, memory_mb)."""
    found: dict[str, float] = {}
    for component in components:
        for name, amount in component.resources.items():
            found[name] = max(found.get(name, 0.0), float(amount))
    return found


def _find(registry: plugins.Registry, kind: str, use: Use) -> ComponentSpec:
    """Return the component a table names; an unknown one is named with its file and table."""
    try:
        return registry.find(kind, use.name)
    except UnknownName as error:
        raise UnknownName(f"{use.where}: {error}" if use.where else str(error)) from error


def _uses(path: Path, kind: str, tables: Any) -> Iterable[Use]:
    if not isinstance(tables, list):
        tables = [tables]
    for number, table in enumerate(tables, 1):
        where = f"{path}: [[{kind}]] {number}"
        if not isinstance(table, Mapping) or not isinstance(table.get("use"), str):
            raise ConfigError(f'{where}: key \'use\' is missing: which {kind}? Example: use = "plugin/name"')
        rest = {k: v for k, v in table.items() if k not in ("use", "label")}
        yield Use(table["use"], rest, str(table.get("label", "")), where)


def resolve(spec: ComponentSpec, use: Use, data: dict[str, str]) -> ComponentRef:
    """Return the component with all its settings, defaults filled in; digests of files it names go to `data`."""
    where = " ".join(filter(None, (use.where, spec.kind, spec.name)))
    if spec.config is None:
        if use.settings:
            raise ConfigError(f"{where} takes no settings, got {', '.join(map(repr, use.settings))}.")
        return ComponentRef(spec.name, spec.version)
    settings = config.structure(use.settings, plugins.resolve(spec.config), where=where)
    _digest_files(settings, data)
    return ComponentRef(spec.name, spec.version, config.unstructure(settings))


def _digest_files(value: Any, data: dict[str, str]) -> None:
    """Put the digests of all files that settings name into `data`; a folder counts by its files."""
    if isinstance(value, Path):
        files = [value] if value.is_file() else sorted(p for p in value.rglob("*") if p.is_file()) if value.is_dir() else []
        data.update({str(p): file_digest(p) for p in files})
    elif attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            _digest_files(getattr(value, field.name), data)
    elif isinstance(value, Mapping):
        for each in value.values():
            _digest_files(each, data)
    elif isinstance(value, (list, tuple)):
        for each in value:
            _digest_files(each, data)


def shards(instances: str, count: int) -> list[str]:
    """Split "start:stop" into `count` nearly equal ranges; raises ConfigError for a malformed or empty one."""
    try:
        first, last = (int(part) for part in instances.split(":"))
    except ValueError as error:
        raise ConfigError(f"instances wants start:stop, got {instances!r}. Example: 0:20") from error
    if not 0 <= first < last:
        raise ConfigError(f"instances {instances!r} is empty or negative. Example: 0:20")
    count = min(count, last - first)
    cuts = [first + (last - first) * k // count for k in range(count + 1)]
    return [f"{a}:{b}" for a, b in pairwise(cuts)]
