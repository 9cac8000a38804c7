"""The runs of a store as one flat table: CSV, or Parquet (extra `export`)."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from sfumato.errors import BackendUnavailable, StoreError
from sfumato.index import Index
from sfumato.store import Store

Row = dict[str, Any]
RUN: dict[str, type] = {
    "run_id": str, "status": str, "label": str, "task": str, "task_version": int, "task_settings": str, "solver": str,
    "solver_version": int, "solver_settings": str, "runtime": str, "runtime_settings": str, "instances": str,
    "seed": int, "train_seed": int, "backend": str, "device": str, "dtype": str, "threads": int, "attempt": int,
    "started": str, "ended": str, "total_wall_s": float, "total_cpu_s": float, "digest": str, "promise": str,
    "error": str,
}  # fmt: skip
FIGURE: dict[str, type] = {
    "metric": str, "value": float, "unit": str, "direction": str, "reduce": str, "n": int, "sd": float, "low": float,
    "high": float,
}  # fmt: skip
ITEM: dict[str, type] = {
    "run_id": str, "label": str, "task": str, "solver": str, "runtime": str, "seed": int, "episode": int, "item": int,
    "metric": str, "value": float, "unit": str, "direction": str, "reduce": str, "steps": int,
}  # fmt: skip
BATCH = 5000


def damage(store: Store) -> list[str]:
    """Return what is wrong with the records that cannot be read, a sentence each: no filter can tell whose they are."""
    with Index(store) as index:
        return [s.error for s in index.summaries(status="damaged")]


def figures(store: Store, **filters: str | None) -> Iterator[Row]:
    """Yield a row for each figure of each run; a run without figures (a failure) has one row with no metric.

    Filters are those of the index: status, task, solver, runtime, label. Damaged records are passed over: see `damage`.
    """
    with Index(store) as index:
        for record in index.records(**filters):
            run = _run(record)
            for figure in record["figures"] or [{}]:
                yield run | {k: figure.get("name" if k == "metric" else k) for k in FIGURE}


def items(store: Store, damaged: list[str] | None = None, **filters: str | None) -> Iterator[Row]:
    """Yield a row for each metric of each item (instance) of each run that ended ok.

    A run whose rows are damaged or not all there is left out; what is wrong with it goes to `damaged`, a sentence each,
    or is raised as StoreError where there is no such list.
    """
    with Index(store) as index:
        for record in index.records(**{**filters, "status": "ok"}):
            try:
                rows = list(_items(store, record))
            except (StoreError, KeyError, TypeError, ValueError) as error:
                what = str(error) if isinstance(error, StoreError) else f"run {record['run_id']}: its rows are damaged: {error!r}"
                if damaged is None:
                    raise StoreError(what) from error
                damaged.append(what)
                continue
            yield from rows


def _items(store: Store, record: Mapping[str, Any]) -> Iterator[Row]:
    run = {k: v for k, v in _run(record).items() if k in ITEM}
    start, stop = (int(part) for part in record["spec"]["instances"].split(":"))
    seen = 0
    for row in store.rows(record["run_id"]):
        first, last = row["items"]
        seen += last - first
        for metric in row["metrics"]:
            values = metric["values"]
            per_item = len(values) == last - first
            for item, value in zip(range(first, last) if per_item else [first], values, strict=per_item):
                yield {
                    **run, "episode": row["episode"], "item": item, "metric": metric["name"], "value": value,
                    "unit": metric["unit"], "direction": metric["direction"], "reduce": metric["reduce"],
                    "steps": row["steps"],
                }  # fmt: skip
    if seen != stop - start:
        raise StoreError(
            f"run {record['run_id']} ended ok with {stop - start} instances, and its rows.jsonl holds {seen}. Move its folder "
            "away and run the experiment again."
        )


def _run(record: Mapping[str, Any]) -> Row:
    spec = record["spec"]
    parts: Row = {}
    for kind in ("task", "solver", "runtime"):
        ref = spec[kind]
        parts |= {
            kind: ref["name"],
            f"{kind}_version": ref["version"],
            f"{kind}_settings": json.dumps(ref["settings"], sort_keys=True),
        }
    times = {f"total_{k}_s": record["timings"].get(f"total_{k}") for k in ("wall", "cpu")}
    every = {**spec, **record, **times, **parts}
    return {name: every.get(name) for name in RUN}


def write_csv(rows: Iterable[Row], columns: Sequence[str], out: TextIO) -> int:
    """Write rows with a header; return how many."""
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    count = 0
    for count, row in enumerate(rows, 1):  # noqa: B007
        writer.writerow(row)
    return count


def write_parquet(rows: Iterable[Row], columns: Mapping[str, type], path: Path) -> int:
    """Write rows in batches; return how many. Raises BackendUnavailable without pyarrow.

    Raises OverflowError for an integer of more than 64 bits.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise BackendUnavailable(
            "Parquet is written by pyarrow, which is not installed. Install it: pip install 'sfumato[export]', or export "
            "to CSV (-o FILE.csv)."
        ) from error
    kinds = {str: pa.string(), int: pa.int64(), float: pa.float64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in columns.items()])
    count = 0
    stream = iter(rows)
    with pq.ParquetWriter(path, schema) as writer:
        while batch := list(islice(stream, BATCH)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            count += len(batch)
    return count


def export(
    store: Store, path: Path, per_item: bool = False, damaged: list[str] | None = None, **filters: str | None
) -> int:
    """Write a table to `path` (.csv or .parquet), whole or not at all; return the number of rows.

    What is damaged is left out and goes to `damaged`, a sentence each. In Parquet the seeds are 64-bit integers; where
    one does not fit, the columns of seeds are text.
    """
    columns = ITEM if per_item else {**RUN, **FIGURE}

    def rows() -> Iterator[Row]:
        if damaged is not None:
            damaged[:] = damage(store)
        return items(store, damaged, **filters) if per_item else figures(store, **filters)

    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        partial = Path(name)
        try:
            if path.suffix == ".parquet":
                try:
                    count = write_parquet(rows(), columns, partial)
                except OverflowError:
                    as_text = {name: str for name in columns if name.endswith("seed")}
                    texts = ({**row, **{name: str(row[name]) for name in as_text if name in row}} for row in rows())
                    count = write_parquet(texts, {**columns, **as_text}, partial)
            else:
                with partial.open("w", encoding="utf-8", newline="") as out:
                    count = write_csv(rows(), list(columns), out)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}. Choose another file with -o FILE.") from error
    return count
