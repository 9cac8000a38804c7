"""The ledger of claims: what each paper says, what came out here, and whether that counts as reproduced.

A claim is one TOML file in a plugin's package, `reproduce/<id>.toml`; a result is one JSON file, `results/<id>.json`,
beside it (committed) or in a store (made here). A verdict needs a run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs

from sfumato import config
from sfumato.errors import ConfigError, UnknownName, did_you_mean
from sfumato.plugins import BUILTIN, Registry

Class = Literal["cpu-minutes", "cpu-hour", "gpu"]
CLASSES: tuple[Class, ...] = ("cpu-minutes", "cpu-hour", "gpu")
TIME_LIMITS = {"cpu-minutes": 1800.0, "cpu-hour": 7200.0, "gpu": 7200.0}
"""Seconds after which a claim's run is stopped, by class."""

Verdict = Literal["reproduced", "not reproduced", "not run"]


@attrs.frozen
class How:
    """What to run: a task with a solver, read off one metric; or any callable returning value, low, high, n, details."""

    task: str | None = None
    solver: str | None = None
    runtime: str = "direct"
    seeds: int = 1
    task_settings: Mapping[str, Any] = attrs.field(factory=dict)
    solver_settings: Mapping[str, Any] = attrs.field(factory=dict)
    runtime_settings: Mapping[str, Any] = attrs.field(factory=dict)
    metric: str | None = None
    against: str | None = None  # a second solver: the figure becomes `combine` of ours and this one's
    against_settings: Mapping[str, Any] = attrs.field(factory=dict)
    combine: Literal["ratio", "difference"] = "ratio"
    call: str | None = None
    settings: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class Claim:
    """One headline claim of a paper, and the band in which our figure counts as reproducing it.

    `paper` is the paper's own figure, None where it gives none. `band` is closed.
    """

    id: str
    title: str
    source: str
    unit: str
    band: tuple[float, float]
    run: How
    machine: Class = "cpu-minutes"
    paper: float | None = None
    scaled_down: bool = False
    note: str = ""
    plugin: str = ""
    digest: str = ""

    def verdict(self, value: float) -> Verdict:
        """Return whether a figure lies in the band; NaN never does."""
        low, high = self.band
        return "reproduced" if low <= value <= high else "not reproduced"


@attrs.frozen
class Result:
    """What came out for a claim, with all that a reader needs to judge it."""

    id: str
    plugin: str
    title: str
    source: str
    unit: str
    band: tuple[float, float]
    verdict: Verdict
    paper: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    reason: str = ""
    seconds: float = 0.0
    when: str = ""
    claim_digest: str = ""
    code: Mapping[str, str] = attrs.field(factory=dict)
    details: Mapping[str, Any] = attrs.field(factory=dict)
    provenance: Mapping[str, Any] = attrs.field(factory=dict)

    @property
    def said(self) -> str:
        """The verdict with what belongs to it: an interval that leaves the band the figure lies in, or the reason."""
        low, high = self.band
        crosses = (self.low is not None and self.low < low) or (self.high is not None and self.high > high)
        doubt = ", though its interval leaves the band" if self.verdict == "reproduced" and crosses else ""
        return self.verdict + doubt + (f": {self.reason}" if self.reason else "")


def folder_of(module: str) -> Path | None:
    """Return the `reproduce` folder of the package that holds a plugin's module, without importing it."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "reproduce"
    return folder if folder.is_dir() else None


def read_claim(path: Path, plugin: str) -> Claim:
    """Return the claim in a TOML file; raises ConfigError naming file and key."""
    data = config.read_toml(path)
    if "class" in data:
        data["machine"] = data.pop("class")
    text = json.dumps(data, sort_keys=True, default=str)
    claim = config.structure(data, Claim, where=str(path))
    if claim.id != path.stem:
        raise ConfigError(f"{path}: id is {claim.id!r}, expected {path.stem!r}, the name of the file.")
    if claim.scaled_down and "scaled" not in claim.title.lower():
        raise ConfigError(f"{path}: a scaled-down run must say so in its title (the word 'scaled').")
    if (claim.run.call is None) == (claim.run.task is None):
        raise ConfigError(f"{path}: [run] wants either 'call' or 'task' with 'solver' and 'metric'.")
    if claim.run.task is not None and (claim.run.solver is None or claim.run.metric is None):
        raise ConfigError(f"{path}: [run] names a task, so it must name 'solver' and 'metric' too.")
    return attrs.evolve(claim, plugin=plugin, digest=hashlib.sha256(text.encode()).hexdigest()[:16])


def claims(registry: Registry, plugins: Sequence[str] = ()) -> list[Claim]:
    """Return every claim of the named plugins (all, when none is named), by plugin and id."""
    names = [n for n in registry.plugins if n != BUILTIN]
    for name in plugins:
        if name not in names and name.replace("_", "-") not in names:
            raise UnknownName(f"no plugin {name!r} is installed.{did_you_mean(name, names)} There are: {', '.join(names)}.")
    wanted = {n.replace("_", "-") for n in plugins}
    found = []
    for name in sorted(names):
        folder = folder_of(registry.plugins[name].module)
        if folder is not None and (not wanted or name in wanted):
            found += [read_claim(path, name) for path in sorted(folder.glob("*.toml"))]
    return found


def read_result(path: Path) -> Result | None:
    """Return a result, None when there is none; raises ConfigError for a damaged file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(f"{path}: not valid JSON: {error}. Remove it and reproduce again.") from error
    data["band"] = [math.inf if b == "inf" else -math.inf if b == "-inf" else b for b in data["band"]]
    return config.structure(data, Result, where=str(path))


def write_result(path: Path, result: Result) -> None:
    """Write a result as readable JSON (infinite bounds as text: JSON has none)."""
    data = config.unstructure(result)
    data["band"] = [b if math.isfinite(b) else ("inf" if b > 0 else "-inf") for b in data["band"]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1, sort_keys=True, ensure_ascii=False, default=str) + "\n", encoding="utf-8")


def committed(registry: Registry, claim: Claim) -> Result | None:
    """Return the result that came with the plugin, None when there is none or it answers another claim text."""
    folder = folder_of(registry.plugins[claim.plugin].module)
    result = read_result(folder / "results" / f"{claim.id}.json") if folder else None
    return result if result is not None and result.claim_digest == claim.digest else None


def markdown(results: Iterable[Result]) -> str:
    """Return the ledger as a Markdown table: the paper's figure beside ours, with interval, count and verdict."""
    lines = ["| claim | paper | here | n | verdict |", "|---|---|---|---|---|"]
    for r in results:
        paper = "-" if r.paper is None else f"{r.paper:.4g}"
        here = "-"
        if r.value is not None:
            here = f"{r.value:.4g}" + (f" [{r.low:.4g}, {r.high:.4g}]" if r.low is not None and r.high is not None else "")
            here += f" {r.unit}" if r.unit != "1" else ""
        lines.append(f"| {r.title} ({r.source}) | {paper} | {here} | {r.n or '-'} | {r.said} |")
    return "\n".join(lines) + "\n"
