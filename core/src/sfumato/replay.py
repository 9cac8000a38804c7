"""Run a finished run again and show that it keeps its promise: the same bits, agreement within a tolerance, or the
same distribution."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from sfumato import seeding, turnstile
from sfumato.context import file_digest
from sfumato.errors import StoreError, UsageError
from sfumato.experiment import components_of, is_exclusive
from sfumato.plugins import Registry
from sfumato.provenance import code_digest
from sfumato.records import RunRecord, Status
from sfumato.store import Store
from sfumato.supervisor import LACKING, Job, Lane
from sfumato.trace import read_trace

LEVEL = 0.001
"""Two-sided level of the test under the promise `statistical`, over all metrics together (Bonferroni)."""
ADVICE = {
    Status.FAILED: "",  # the error says what is lacking, and how to get it
    Status.TIMEOUT: "The run once kept that limit: replay it when the machine is less busy.",
    Status.KILLED: "Free memory, or find who killed it, then replay again.",
    Status.INTERRUPTED: "Replay again.",
}
"""What to do about a replay that did not come to its end."""
N_FLIPS = 20_000
EXACT_UP_TO = 16


@attrs.frozen
class Replay:
    """What came out. `kept` is None when there is too little to tell."""

    run_id: str
    promise: str
    kept: bool | None
    found: str
    differences: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0


def replay(
    store: Store,
    run_id: str,
    scratch: Path,
    *,
    data_dir: str | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-6,
    on_progress: Any = lambda fraction, message: None,
    stop: threading.Event | None = None,
) -> Replay:
    """Make the run again in a process of its own under `scratch`, and compare with what is in the store.

    What training produced is taken from the store's artifacts. `rtol` and `atol` bound the differences that the
    promise `tolerance` allows. It keeps off runs whose time is their result, on this machine, as any run does.
    Raises UsageError for a run that did not end well, UnknownName for components that are not installed, StoreError
    for a run that has no rows.
    """
    record = store.record(run_id)
    if record is None or record.status is not Status.OK:
        state = store.status(run_id)
        raise UsageError(f"run {run_id} is {state}; only a run that ended ok can be replayed. See 'sfumato show {run_id}'.")
    again = Store(scratch, artifacts=store.artifacts)
    again.prepare()
    now_code = {package: code_digest(package) for package in record.code}
    exclusive = is_exclusive(components_of(Registry(), record.spec))
    job = Job(run_id, record.spec, record.label, data_dir, now_code, exclusive=exclusive)
    again.write_spec(run_id, record.spec)
    stop = stop or threading.Event()
    with turnstile.place(exclusive, stop, lambda why: on_progress(0.0, why)) as placed:
        if not placed:
            return Replay(run_id, record.promise, None, "it was stopped before it began")
        second = Lane("run").make(again, job, on_progress, stop)
    warnings = tuple(_warnings(record, second))
    result = Replay(run_id, record.promise, False, "", (), warnings, second.timings.get("total_wall", 0.0))
    result = _verdict(result, record, second, store, again, rtol, atol)
    if result.kept is False and (changed := _changed(record, second)):
        found = f"{result.found}; but {' and '.join(changed)} changed since, so the promise was not put to the test"
        return attrs.evolve(result, kept=None, found=found)
    return result


def _verdict(
    result: Replay, first: RunRecord, second: RunRecord, store: Store, again: Store, rtol: float, atol: float
) -> Replay:
    if second.status in (Status.FAILED, Status.UNSUPPORTED) and not second.error.startswith(LACKING):
        return attrs.evolve(result, kept=False, found=f"the replay ended {second.status.value}: {second.error}")
    if second.status is not Status.OK:
        found = f"it cannot be told: the replay ended {second.status.value}: {second.error}. {ADVICE[second.status]}".rstrip()
        return attrs.evolve(result, kept=None, found=found)
    if first.promise == "bits":
        return _bits(result, first, second, store, again)
    if first.promise == "tolerance":
        return _tolerance(result, store, again, rtol, atol)
    if first.promise == "statistical":
        return _statistical(result, store, again)
    raise StoreError(
        f"run {first.run_id} promises {first.promise!r}; known are bits, tolerance and statistical. Mend the solver."
    )


def _changed(first: RunRecord, second: RunRecord) -> list[str]:
    """Return what the promise does not cover and is not what it was."""
    found = []
    if dict(first.code) != dict(second.code):
        found.append("code has")
    data = first.provenance.get("data", {})
    if any(data.get(name) != digest for name, digest in second.provenance.get("data", {}).items()) or any(_moved(first)):
        found.append("data files have")
    return found


def _moved(first: RunRecord) -> Iterator[str]:
    """Yield what became of the files that settings name: those that are gone or hold something else."""
    for name, digest in first.spec.data.items():
        try:
            now = file_digest(Path(name))
        except OSError:
            yield f"the file {name} cannot be read now"
            continue
        if now != digest:
            yield f"the file {name} is another one ({digest[:12]} then, {now[:12]} now)"


def _warnings(first: RunRecord, second: RunRecord) -> Iterator[str]:
    for package, digest in first.code.items():
        if second.code[package] != digest:
            yield f"the code of {package} has changed since ({digest} then, {second.code[package] or 'missing'} now)"
    data = first.provenance.get("data", {})
    for name, digest in second.provenance.get("data", {}).items():
        if data.get(name) != digest:
            yield f"the data file {name} is another one ({str(data.get(name))[:12]} then, {digest[:12]} now)"
    yield from _moved(first)
    if first.provenance.get("processor") != second.provenance.get("processor"):
        yield f"another processor: {first.provenance.get('processor')} then, {second.provenance.get('processor')} now"
    then, now = first.provenance.get("versions", {}), second.provenance.get("versions", {})
    for name in then:
        if then[name] != now.get(name):
            yield f"{name} {then[name]} then, {now.get(name, 'none')} now"


def _bits(result: Replay, first: RunRecord, second: RunRecord, store: Store, again: Store) -> Replay:
    if first.digest == second.digest:
        return attrs.evolve(result, kept=True, found=f"digest {first.digest[:16]} again")
    pairs = list(_paired(store, again, result.run_id))
    bad = [number for number, (a, b) in enumerate(pairs) if a["digest"] != b["digest"]]
    where = []
    for number in bad[:5]:
        lines = _trace_differences(store, again, result.run_id, number, 0.0, 0.0)
        where += [f"episode {number}: there is no trace to look into"] if lines is None else lines[:1]
    found = f"{len(bad)} of {len(pairs)} episodes differ (digest {first.digest[:16]} then, {second.digest[:16]} now)"
    return attrs.evolve(result, kept=False, found=found, differences=tuple(where))


def _paired(store: Store, again: Store, run_id: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    first, second = list(store.rows(run_id)), list(again.rows(run_id))
    if not first or len(first) != len(second):
        raise StoreError(
            f"run {run_id} has {len(first)} rows, the replay {len(second)}: rows.jsonl is not whole. Run it again with "
            "'sfumato run' after moving its folder away."
        )
    return zip(first, second, strict=True)


def _trace_differences(
    store: Store, again: Store, run_id: str, number: int, rtol: float, atol: float
) -> list[str] | None:
    """Return where an episode's trace columns differ by more than the tolerance; None when a trace is not there."""
    paths = [s.folder(run_id) / "trace.zip" for s in (store, again)]
    try:
        then, now = (read_trace(p, number) for p in paths)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    if not all(names & side.keys() for names in ({"actions"}, {"native.rewards"}) for side in (then, now)):
        return None  # over the size limit: an empty file
    lines = []
    for name in ("actions", "native.actions", "native.rewards", "native.terminated", "native.truncated"):
        a, b = then.get(name, []), now.get(name, [])
        if len(a) != len(b):
            lines.append(f"episode {number}: {name} has {len(a)} steps then, {len(b)} now")
            continue
        step = next((t for t, (x, y) in enumerate(zip(a, b, strict=True)) if not _close(x, y, rtol, atol)), None)
        if step is not None:
            lines.append(f"episode {number}: {name} differs at step {step}: {_short(a[step])} then, {_short(b[step])} now")
    return lines


def _close(x: Any, y: Any, rtol: float, atol: float) -> bool:
    if isinstance(x, Mapping) and isinstance(y, Mapping):
        return x.keys() == y.keys() and all(_close(v, y[k], rtol, atol) for k, v in x.items())
    if isinstance(x, (list, tuple)) and isinstance(y, (list, tuple)):  # of unequal lengths within, too
        return len(x) == len(y) and all(_close(v, w, rtol, atol) for v, w in zip(x, y, strict=True))
    a, b = np.asarray(x), np.asarray(y)
    if a.shape != b.shape:
        return False
    if a.dtype.kind == "f" or b.dtype.kind == "f":
        return bool(np.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True))
    return bool(np.array_equal(a, b)) if a.dtype.kind != "O" else bool(x == y)


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"


def _metrics(row: Mapping[str, Any]) -> Iterator[tuple[str, list[float]]]:
    """Yield a row's metrics that a replay can be held to: times are not."""
    for metric in row["metrics"]:
        if metric["unit"] != "s":
            yield metric["name"], metric["values"]


def _tolerance(result: Replay, store: Store, again: Store, rtol: float, atol: float) -> Replay:
    lines: list[str] = []
    unseen: list[str] = []
    worst = 0.0
    count = 0
    for number, (a, b) in enumerate(_paired(store, again, result.run_id)):
        count += 1
        if a["digest"] == b["digest"]:
            continue
        now = dict(_metrics(b))
        for name, values in _metrics(a):
            then, new = np.asarray(values, float), np.asarray(now.get(name, []), float)
            if then.shape != new.shape or not np.allclose(then, new, rtol=rtol, atol=atol, equal_nan=True):
                lines.append(f"episode {number}: {name} was {_short(values)}, is {_short(now.get(name))}")
            elif then.size:
                gaps = np.abs(then - new) / np.maximum(np.abs(then), atol)
                worst = max(worst, float(np.nan_to_num(gaps).max()))
        traced = _trace_differences(store, again, result.run_id, number, rtol, atol)
        if traced is None:
            unseen.append(f"episode {number}: its digest is another one, and there is no trace to look into")
        else:
            lines.extend(traced)
    if lines:
        found = f"{len(lines)} differences beyond rtol {rtol:g}, atol {atol:g} in {count} episodes"
        return attrs.evolve(result, kept=False, found=found, differences=tuple(lines[:10]))
    if unseen:
        found = (
            f"it cannot be told: the metrics agree, but the actions and rewards of {len(unseen)} of {count} episodes cannot "
            "be compared, for want of a trace (over its size limit, or gone). Make smaller runs (--shards), then replay those"
        )
        return attrs.evolve(result, kept=None, found=found, differences=tuple(unseen[:10]))
    found = f"{count} episodes agree within rtol {rtol:g}, atol {atol:g}; largest relative difference {worst:.2g}"
    return attrs.evolve(result, kept=True, found=found)


def _statistical(result: Replay, store: Store, again: Store) -> Replay:
    gaps = _gaps(_paired(store, again, result.run_id))
    level = LEVEL / max(len(gaps), 1)
    lines = []
    too_few = []
    for name, values in gaps.items():
        gap = np.asarray(values)
        p = sign_flip_test(gap)
        if p < level:
            lines.append(f"{name}: mean difference {gap.mean():.3g} over {len(gap)} items, p = {p:.2g}")
        elif np.any(gap) and 2.0 ** (1 - np.count_nonzero(gap)) > level:
            too_few.append(f"{name}: {np.count_nonzero(gap)} of {len(gap)} items differ, too few to tell chance from change")
    if lines:
        found = f"{len(lines)} of {len(gaps)} metrics have moved (sign-flip test, level {LEVEL:g} over all)"
        return attrs.evolve(result, kept=False, found=found, differences=tuple(lines))
    if too_few:
        found = "it cannot be told: run more instances (--seeds)"
        return attrs.evolve(result, kept=None, found=found, differences=tuple(too_few))
    found = f"no metric of {len(gaps)} has moved (sign-flip test, level {LEVEL:g} over all)"
    return attrs.evolve(result, kept=True, found=found)


def _gaps(pairs: Iterator[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, list[float]]:
    """Return for each metric its paired differences, now minus then.

    Where a value is no finite number (a time to a goal that was not reached), that is compared as a metric of its own,
    and the pairs in which both are finite give the differences. NaN on both sides differs by 0.
    """
    gaps: dict[str, list[float]] = {}
    odd: dict[str, list[float]] = {}
    for a, b in pairs:
        now = dict(_metrics(b))
        for name, values in _metrics(a):
            then, new = np.asarray(values, float), np.asarray(now.get(name, []), float)
            if then.shape != new.shape:
                raise StoreError(f"the replay gave {new.size} values of {name}, the run {then.size}. Mend the evaluator.")
            both = np.isfinite(then) & np.isfinite(new)
            gaps.setdefault(name, []).extend(np.where(both, new, 0.0) - np.where(both, then, 0.0))
            odd.setdefault(name, []).extend(np.sign(_oddity(new) - _oddity(then)))
    return gaps | {f"{name} not finite": values for name, values in odd.items() if np.any(values)}


def _oddity(values: np.ndarray) -> np.ndarray:
    """Return 0 for finite values, and a number of its own for each of the others."""
    return np.select([np.isnan(values), values == np.inf, values == -np.inf], [2.0, 1.0, -1.0], 0.0)


def sign_flip_test(gap: np.ndarray) -> float:
    """Return the two-sided p-value that paired differences `gap` [n] are symmetric about 0, by flipping signs.

    Exact up to 16 differences that are not 0, by 20,000 flips beyond (smallest p then 1/20,001). NaN counts as moved:
    p = 0.
    Source: Fisher (1935), The Design of Experiments, section 21.
    """
    if not np.isfinite(gap).all():
        return 0.0
    moved = gap[gap != 0]
    n = len(moved)
    if n == 0:
        return 1.0
    observed = abs(moved.sum()) * (1 - 1e-12)  # ties count as at least as far, whatever the rounding
    if n <= EXACT_UP_TO:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float(np.mean(np.abs(signs @ moved) >= observed))
    rng = seeding.stream(0, "sign-flip")
    reached = 0
    for _ in range(N_FLIPS // 1000):
        signs = 1 - 2 * rng.integers(0, 2, size=(1000, n), dtype=np.int8)
        reached += int(np.sum(np.abs(signs @ moved) >= observed))
    return (reached + 1) / (N_FLIPS + 1)
