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


def figures(store: Store, **filters: str | None) -> Iterator[Row]:
    """Yield a row for each figure of each run; a run without figures (a failure) has one row with no metric.

    Filters are those of the index: status, task, solver, runtime, label.
    """
    with Index(store) as index:
        for record in index.records(**filters):
            run = _run(record)
            for figure in record["figures"] or [{}]:
                yield run | {k: figure.get("name" if k == "metric" else k) for k in FIGURE}


def items(store: Store, **filters: str | None) -> Iterator[Row]:
    """Yield a row for each metric of each item (instance) of each run that ended ok."""
    with Index(store) as index:
        for record in index.records(**{**filters, "status": "ok"}):
            run = {k: v for k, v in _run(record).items() if k in ITEM}
            for row in store.rows(record["run_id"]):
                first, last = row["items"]
                for metric in row["metrics"]:
                    values = metric["values"]
                    per_item = len(values) == last - first
                    for item, value in zip(range(first, last) if per_item else [first], values, strict=per_item):
                        yield {
                            **run, "episode": row["episode"], "item": item, "metric": metric["name"], "value": value,
                            "unit": metric["unit"], "direction": metric["direction"], "reduce": metric["reduce"],
                            "steps": row["steps"],
                        }  # fmt: skip


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
    """Write rows in batches; return how many. Raises BackendUnavailable without pyarrow."""
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


def export(store: Store, path: Path, per_item: bool = False, **filters: str | None) -> int:
    """Write a table to `path` (.csv or .parquet), whole or not at all; return the number of rows."""
    rows, columns = (items(store, **filters), ITEM) if per_item else (figures(store, **filters), {**RUN, **FIGURE})
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        partial = Path(name)
        try:
            if path.suffix == ".parquet":
                count = write_parquet(rows, columns, partial)
            else:
                with partial.open("w", encoding="utf-8", newline="") as out:
                    count = write_csv(rows, list(columns), out)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}. Choose another file with -o FILE.") from error
    return count
