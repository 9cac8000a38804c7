"""Quick questions about many runs: a copy of the records in SQLite, which can always be built again.

The run directories are the truth. Whoever asks first brings the copy up to date: one `stat` a run, and a read for
each record that is new or another. Nobody else writes to it, so it needs no care from executors, and deleting it
loses nothing. Where it cannot be written (a read-only store) it is built in memory.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from sfumato.errors import StoreError
from sfumato.store import Store, check_schema, load_json

VERSION = 1
COLUMNS = (
    "run_id", "status", "attempt", "label", "task", "solver", "runtime", "instances", "started", "ended", "wall",
    "error", "code", "promise",
)  # fmt: skip
_SCHEMA = f"""
CREATE TABLE runs (run_id TEXT PRIMARY KEY, stamp TEXT NOT NULL, {", ".join(COLUMNS[1:])}, record TEXT) WITHOUT ROWID;
CREATE INDEX by_status ON runs (status);
PRAGMA user_version = {VERSION};
"""
FILTERS = ("status", "task", "solver", "runtime", "label")


@attrs.frozen
class Summary:
    """A run in short. `status` is that of its record; `running`, `waiting` or `interrupted` when it has none; or
    `damaged`, with what is wrong in `error`."""

    run_id: str
    status: str
    attempt: int = 0
    label: str = ""
    task: str = ""
    solver: str = ""
    runtime: str = ""
    instances: str = ""
    started: str = ""
    ended: str = ""
    wall: float | None = None
    error: str = ""
    code: Mapping[str, str] = attrs.field(factory=dict)
    promise: str = ""


class Index:
    """The copy, brought up to date when it is opened."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = _open(store.root / "index.sqlite")
        self._without_record: list[str] = []
        try:
            self._refresh()
        except sqlite3.DatabaseError:  # damaged, foreign, locked, read-only: the truth is elsewhere
            self._database.close()
            self._database = _fresh(":memory:")
            self._refresh()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *what: object) -> None:
        self.close()

    def _refresh(self) -> None:
        known = dict(self._database.execute("SELECT run_id, stamp FROM runs"))
        self._without_record = []
        fresh: list[tuple[Any, ...]] = []
        seen: set[str] = set()
        with self._database:
            for run_id, stamp in _stamps(self._store.runs):
                seen.add(run_id)
                if not stamp:
                    self._without_record.append(run_id)
                elif known.get(run_id) != stamp:
                    fresh.append(self._row(run_id, stamp))
                if len(fresh) >= 500:
                    self._write(fresh)
            self._write(fresh)
            gone = [(r,) for r in known if r not in seen] + [(r,) for r in self._without_record if r in known]
            if gone:
                self._database.executemany("DELETE FROM runs WHERE run_id = ?", gone)

    def _write(self, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            marks = ", ".join("?" * (len(COLUMNS) + 2))
            self._database.executemany(f"REPLACE INTO runs VALUES ({marks})", rows)
            rows.clear()

    def _row(self, run_id: str, stamp: str) -> tuple[Any, ...]:
        path = self._store.folder(run_id) / "record.json"
        try:
            data = load_json(path)
            check_schema(data, path)
            spec = data["spec"]
            if data["run_id"] != run_id:
                raise StoreError(f"{path} is the record of run {data['run_id']}: a copy. Move the folder away.")
            wall = data["timings"].get("total_wall")
            return (
                run_id, stamp, _text(data["status"]), int(data["attempt"]), _text(data["label"]),
                _text(spec["task"]["name"]), _text(spec["solver"]["name"]), _text(spec["runtime"]["name"]),
                _text(spec["instances"]), _text(data["started"]), _text(data["ended"]),
                None if wall is None else float(wall), _text(data["error"]), json.dumps(data["code"]),
                _text(data["promise"]), json.dumps(data),
            )  # fmt: skip
        except StoreError as error:
            why = str(error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = f"{path} is damaged: {error!r}. Move the folder away and run again."
        return (run_id, stamp, "damaged", 0, "", "", "", "", "", "", "", None, why, "{}", "", None)

    def summaries(self, **filters: str | None) -> Iterator[Summary]:
        """Yield the runs, by id, that fit all filters (status, task, solver, runtime, label); None filters nothing."""
        chosen = {k: v for k, v in filters.items() if v is not None}
        if unknown := set(chosen) - set(FILTERS):
            raise TypeError(f"no filter {', '.join(unknown)}; there are {', '.join(FILTERS)}")
        where = " AND ".join(f"{k} = ?" for k in chosen) or "1"
        query = f"SELECT {', '.join(COLUMNS)} FROM runs WHERE {where} ORDER BY run_id"
        found = (_summary(row) for row in self._database.execute(query, [*chosen.values()]))
        rest = list(self._waiting(chosen))
        if not rest:
            return found
        return iter(sorted([*found, *rest], key=lambda s: s.run_id))

    def _waiting(self, chosen: Mapping[str, str]) -> Iterator[Summary]:
        """Yield the runs that have no record yet."""
        for run_id in self._without_record:
            status = self._store.status_without_record(run_id)
            if chosen.get("status", status) != status:
                continue
            try:
                spec = json.loads((self._store.folder(run_id) / "spec.json").read_text(encoding="utf-8"))
                task, solver, runtime = (str(spec[k]["name"]) for k in ("task", "solver", "runtime"))
                instances = str(spec["instances"])
            except (OSError, ValueError, TypeError, KeyError):
                task = solver = runtime = instances = ""
            claim = self._store.read_claim(run_id)
            label = claim.label if claim else f"{task} {solver}".strip()
            summary = Summary(run_id, status, claim.attempt if claim else 0, label, task, solver, runtime, instances)
            if all(getattr(summary, k) == v for k, v in chosen.items()):
                yield summary

    def texts(self, ids: Collection[str]) -> dict[str, str]:
        """Return the records of these runs as JSON, each on one line; damaged ones are left out."""
        rows = self._database.execute("SELECT run_id, record FROM runs WHERE record IS NOT NULL")
        return {run_id: text for run_id, text in rows if run_id in ids}

    def records(self, **filters: str | None) -> Iterator[dict[str, Any]]:
        """Yield the plain data of the records that fit the filters, by id; damaged ones are passed over."""
        chosen = {k: v for k, v in filters.items() if v is not None}
        where = " AND ".join(["record IS NOT NULL", *(f"{k} = ?" for k in chosen)])
        for (text,) in self._database.execute(f"SELECT record FROM runs WHERE {where} ORDER BY run_id", [*chosen.values()]):
            yield json.loads(text)


def _summary(row: tuple[Any, ...]) -> Summary:
    values = dict(zip(COLUMNS, row, strict=True))
    return Summary(**{**values, "code": json.loads(values["code"])})


def _text(value: Any) -> str:
    """Return text that SQLite takes: it knows no lone surrogates. Raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value.encode("utf-8", "backslashreplace").decode()


def _stamps(runs: Path) -> Iterator[tuple[str, str]]:
    """Yield (run id, what tells a record from any other), the latter empty where there is no record."""
    try:
        entries = os.scandir(runs)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            try:
                stat = os.stat(entry.path + "/record.json")
                yield entry.name, f"{stat.st_mtime_ns}:{stat.st_size}:{stat.st_ino}"
            except (FileNotFoundError, NotADirectoryError):
                if entry.is_dir() and os.path.exists(entry.path + "/spec.json"):
                    yield entry.name, ""


def _open(path: Path) -> sqlite3.Connection:
    """Return the copy beside the runs, made anew when it is none of ours; in memory where it cannot be kept."""
    for _ in range(2):
        try:
            database = sqlite3.connect(path, timeout=20)
            database.execute("PRAGMA synchronous = OFF")  # losing it costs nothing
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == VERSION:
                return database
            (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if tables == 0:
                with database:
                    database.executescript(_SCHEMA)
                return database
            database.close()
        except sqlite3.DatabaseError:
            pass
        with suppress(OSError):  # it may be somebody's after all: nothing is thrown away
            path.replace(path.with_suffix(".sqlite.old"))
    return _fresh(":memory:")


def _fresh(where: str) -> sqlite3.Connection:
    database = sqlite3.connect(where)
    database.executescript(_SCHEMA)
    return database
