"""Builds the report: a folder of pages that open from disk, with no network."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from sfumato.compare import apart, distinctions, world_of
from sfumato.errors import StoreError, UsageError, did_you_mean
from sfumato.index import Index
from sfumato.plugins import Registry, resolve
from sfumato.records import Figure, ReportSection, RunRecord, RunSpec, Status
from sfumato.report.parts import Part, RunView, Text
from sfumato.report.plots import by_item, side_by_side
from sfumato.staleness import Staleness
from sfumato.stats import item_values
from sfumato.store import Store

MAX_ROWS = 200
MAX_PLOTS = 3
MAX_RUNS_PLOTTED = 40
MAX_WORLDS_PLOTTED = 8
MAX_REASONS = 5
SKIPPED = frozenset({"decision_seconds", "decision_cpu_seconds", "act_seconds_max", "length"})


@attrs.frozen
class Entry:
    """A run as the overview lists it.

    `setting` is what sets its world (task settings, seed) apart from the others of its task, `details` what sets it apart
    from the runs of one name in its world: solver settings, runtime, instances. `stale`: why it is.
    """

    run_id: str
    label: str
    task: str
    solver: str
    status: str
    error: str
    seconds: float
    record: RunRecord | None
    stale: str = ""
    world: str = ""
    setting: str = ""
    details: str = ""

    @property
    def told(self) -> str:
        """Return what sets it apart from all runs of its name."""
        return ", ".join(filter(None, (self.setting, self.details)))


def build(
    store: Store, out: Path, *, overwrite: bool = False, registry: Registry | None = None, data_dir: Path | None = None
) -> tuple[Path, int]:
    """Write the site into `out`; return its start page and the number of runs.

    `data_dir` is where data files lie, for telling stale runs and making instances again. Raises UsageError when there is
    no store, when `out` holds something already and `overwrite` is false, or when jinja2 or plotly is absent.
    """
    check_there(store)
    environment = _templates()
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]) and not (overwrite and (out / ".sfumato-report").exists()):
        raise UsageError(
            f"{out} exists already and "
            + ("is no report of ours; nothing was written. Choose another folder."
               if overwrite else "nothing was written. Give --overwrite, or choose another folder.")
        )  # fmt: skip
    (out / "runs").mkdir(parents=True, exist_ok=True)
    for old in (out / "runs").iterdir():  # of runs that are there no longer; what is none of ours stays
        if re.fullmatch(r"[0-9a-f]{16}\.html", old.name):
            old.unlink()
    (out / ".sfumato-report").write_text("made by sfumato report\n")
    _assets(out)
    registry = registry or Registry()
    sections = [(plugin, s) for plugin, s in registry.hook("sfumato_report_sections") if isinstance(s, ReportSection)]
    with Index(store) as index:
        teller = Staleness(index, data_dir)
        stale = {s.run_id: teller.because(s) for s in index.summaries()}
    entries = _told([attrs.evolve(entry(store, run_id), stale=stale.get(run_id, "")) for run_id in store.ids()])
    page = environment.get_template("run.html")
    for each in entries:
        (out / "runs" / f"{each.run_id}.html").write_text(_run_page(page, store, each, sections, data_dir), encoding="utf-8")
    index = environment.get_template("index.html").render(
        base="", title="Overview", made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), store=str(store.root),
        entries=entries, counts=sorted(Counter(e.status for e in entries).items()), tasks=list(_by_task(entries)),
        stale=Counter(e.stale for e in entries if e.stale).most_common(), most=MAX_REASONS,
    )  # fmt: skip
    (out / "index.html").write_text(index, encoding="utf-8")
    return out / "index.html", len(entries)


def check_there(store: Store) -> None:
    """Raise UsageError when a store's folder does not exist: a report of nothing would hide a name that was mistyped."""
    if not store.root.is_dir():
        try:
            near = [str(p) for p in store.root.parent.iterdir() if (p / "runs").is_dir()]
        except OSError:
            near = []
        raise UsageError(
            f"there is no store {store.root}: no such folder.{did_you_mean(str(store.root), near)} --store DIR names another one; "
            "'sfumato run' makes one."
        )


def entry(store: Store, run_id: str) -> Entry:
    """Return a run as the overview lists it; a damaged record becomes an entry that says so."""
    try:
        record = store.record(run_id)
        status = record.status.value if record else store.status(run_id)
    except StoreError as error:
        return Entry(run_id, run_id, "", "", "damaged", str(error), 0.0, None)
    if record is None:
        return Entry(run_id, run_id, "", "", status, "", 0.0, None)
    return Entry(
        run_id, record.label or run_id, record.spec.task.name, record.spec.solver.name, status, record.error,
        record.timings.get("total_wall", 0.0), record,
    )  # fmt: skip


def _told(entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries with what sets each apart from the others of its task and of its name."""
    entries = [attrs.evolve(e, world=world_of(e.record.spec)) if e.record else e for e in entries]
    settings = distinctions((e.task, e.world) for e in entries if e.record)
    worlds: dict[tuple[str, str], list[RunSpec]] = {}
    names: dict[tuple[str, str], list[Entry]] = {}
    for e in entries:
        if e.record:
            worlds.setdefault((e.task, e.world), []).append(e.record.spec)
            names.setdefault((e.label, e.world), []).append(e)
    details: dict[str, list[str]] = {}
    for same in names.values():
        for e, text in zip(same, apart([_method(e.record.spec) for e in same if e.record]), strict=True):
            details[e.run_id] = [text]
    for e in entries:
        if e.record and len({spec.instances for spec in worlds[e.task, e.world]}) > 1:
            details[e.run_id].append(f"instances {e.record.spec.instances}")
    return [attrs.evolve(e, setting=settings.get((e.task, e.world), ""), details=_listed(details.get(e.run_id, ()))) for e in entries]


def _listed(words: Iterable[str]) -> str:
    return ", ".join(filter(None, words))


def _method(spec: RunSpec) -> dict[str, Any]:
    """Return all that decides what a run does but its world and its instances, by the name that people know it by."""
    plain: dict[str, Any] = {
        "solver": spec.solver.name, "solver version": spec.solver.version, "runtime": spec.runtime.name,
        **{f"runtime.{k}": v for k, v in spec.runtime.settings.items()},
        "evaluators": [e.name for e in spec.evaluators], "train seed": spec.train_seed, "backend": spec.backend,
        "device": spec.device, "dtype": spec.dtype, "threads": spec.threads, "batch": spec.batch,
        "concurrency": spec.concurrency, "trace level": spec.level,
    }  # fmt: skip
    return {**{f"solver.{k}" if k in plain else k: v for k, v in spec.solver.settings.items()}, **plain}


def _natural(text: str) -> list[tuple[int, float, str]]:
    """Return a key by which n = 20 comes before n = 100."""
    return [(0, float(t), "") if t.isdigit() else (1, 0.0, t) for t in re.split(r"(\d+)", text)]


def _by_task(entries: Sequence[Entry]) -> Iterable[dict[str, Any]]:
    """Yield each task with its worlds: only runs of one world stand in one table and one plot."""
    for task in sorted({e.task for e in entries if e.task}):
        runs = [e for e in entries if e.task == task and e.record is not None and e.status == Status.OK]
        settings = {e.world: e.setting for e in runs}
        ordered = sorted(settings, key=lambda world: _natural(settings[world]))
        worlds = [
            _world([e for e in runs if e.world == world], task, plotted=k < MAX_WORLDS_PLOTTED) for k, world in enumerate(ordered)
        ]
        yield {"name": task, "worlds": worlds}


def _world(runs: Sequence[Entry], task: str, *, plotted: bool) -> dict[str, Any]:
    """Return one world's table of figures and its plots."""
    runs = sorted(runs, key=lambda e: (_natural(e.label), _natural(e.details), e.run_id))
    names: dict[str, Figure] = {}
    for e in runs:
        for figure in e.record.figures if e.record else ():
            names.setdefault(figure.name, figure)
    labels = {e.run_id: _listed((e.label.removeprefix(task).strip() or e.label, e.details)) for e in runs}
    often = Counter(labels.values())
    labels = {run_id: f"{label} ({run_id[:6]})" if often[label] > 1 else label for run_id, label in labels.items()}
    rows: list[dict[str, Any]] = [{"entry": e, "figures": {f.name: f for f in e.record.figures} if e.record else {}} for e in runs]
    plots: list[dict[str, Any]] = []
    for name in names:
        shown = [(labels[r["entry"].run_id], r["figures"][name]) for r in rows[:MAX_RUNS_PLOTTED] if name in r["figures"]]
        if plotted and len(plots) < MAX_PLOTS and name not in SKIPPED and _spread([f for _, f in shown]):
            plots.append(part(side_by_side(name, shown, left_out=len(rows) - MAX_RUNS_PLOTTED)))
    return {"setting": runs[0].setting, "figures": list(names.values()), "rows": rows, "plots": plots, "plotted": plotted}


def _spread(figures: Sequence[Figure]) -> bool:
    """Return whether a plot of several runs would show more than one value: one run alone is compared with nothing."""
    values = [f.value for f in figures if math.isfinite(f.value)]
    return len(values) > 1 and (min(values) < max(values) or any(f.sd and math.isfinite(f.sd) for f in figures))


def _run_page(page: Any, store: Store, each: Entry, sections: Sequence[tuple[str, ReportSection]], data_dir: Path | None) -> str:
    rows = list(store.rows(each.run_id))
    parts: list[dict[str, Any]] = []
    names: list[str] = []
    if each.record is not None:
        names = [f.name for f in each.record.figures]
        view = RunView(each.record, rows, store.folder(each.run_id), data_dir)
        # A run that did not end left half a trace at most; its page shows the error instead.
        for plugin, section in sorted(sections if each.status == Status.OK else (), key=lambda s: s[1].priority):
            if _fits(section, each.task):
                parts.append({"title": section.title, "parts": _section(plugin, section, view)})
        for figure in [f for f in each.record.figures if f.name not in SKIPPED and f.n > 3 and f.sd][:MAX_PLOTS]:
            parts.append({"title": f"{figure.name} by item", "parts": [part(by_item(figure.name, figure.unit, list(item_values(rows, figure.name))))]})
    return str(
        page.render(
            base="../", title=each.label, entry=each, record=each.record, parts=parts, names=names,
            items=[[k, *v] for k, v in _items(rows, names)], n_rows=sum(r["items"][1] - r["items"][0] for r in rows), max_rows=MAX_ROWS,
            stderr=_stderr(store, each),
        )  # fmt: skip
    )


def _fits(section: ReportSection, task: str) -> bool:
    """Return whether a section is for a task: named, or under a prefix that ends in a slash."""
    return not section.tasks or any(t == task or (t.endswith("/") and task.startswith(t)) for t in section.tasks)


def _section(plugin: str, section: ReportSection, view: RunView) -> list[dict[str, Any]]:
    """Return a plugin's section as parts; one that fails is shown as a sentence, the page stands."""
    try:
        made = resolve(section.target)(view)
        return [part(p) for p in (made if isinstance(made, list) else [made]) if p is not None]
    except Exception as error:  # a plugin's section may raise anything; the page must not
        return [part(Text(f"This section of plugin {plugin} could not be drawn: {type(error).__name__}: {error}"))]


def part(made: Part) -> dict[str, Any]:
    """Return a part as the pages take it."""
    kind = type(made).__name__.lower()
    return {"kind": kind, "it": made, "json": _json(made.figure) if kind == "plot" else ""}  # type: ignore[union-attr]


def _json(value: Any) -> str:
    """Return JSON that may stand inside a script element: no `<`, no NaN."""
    return json.dumps(_finite(value)).replace("<", "\\u003c").replace("&", "\\u0026").replace("\u2028", "\\u2028")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if hasattr(value, "tolist"):
        return _finite(value.tolist())
    if isinstance(value, float):
        return (round(value, 12) if math.isfinite(value) else None)
    return value


def _items(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Iterable[tuple[int, list[Any]]]:
    """Yield (item, its value for each metric), at most MAX_ROWS; a figure of a whole batch stands with its first item."""
    count = 0
    for row in rows:
        first, last = row["items"]
        metrics = {m["name"]: m["values"] for m in row["metrics"]}
        for k in range(last - first):
            if count >= MAX_ROWS:
                return
            count += 1
            yield first + k, [v[k] if len(v := metrics.get(n, [])) == last - first else (v[0] if v and not k else None) for n in names]


def _stderr(store: Store, each: Entry) -> str:
    path = store.folder(each.run_id) / "stderr.txt"
    if each.status == Status.OK or not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-60:])


def _templates() -> Any:
    try:
        import jinja2
        import plotly  # noqa: F401
    except ImportError as error:
        raise UsageError(f"the report needs {error.name}, which is not installed. Install it: pip install 'sfumato[report]'") from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sfumato.report", "pages"), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters["figure"] = _figure
    environment.filters["unit"] = lambda unit: "" if unit == "1" else unit
    environment.filters["pretty"] = lambda v: json.dumps(v, indent=1, sort_keys=True, default=str)
    return environment


def _figure(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.5g}"
    return str(value)


def _assets(out: Path) -> None:
    from importlib.resources import files

    from plotly.offline import get_plotlyjs

    folder = out / "assets"
    folder.mkdir(exist_ok=True)
    for name in ("style.css", "app.js"):
        (folder / name).write_text((files("sfumato.report") / "assets" / name).read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")
