"""Quick questions about many runs: a copy of the records in SQLite, which can always be built again.

The run directories are the truth. Whoever asks first brings the copy up to date: one `stat` a run, and a read for
each record that is new or another. Nobody else writes to it, so it needs no care from executors, and deleting it
loses nothing. Where it cannot be written (a read-only store), or where there are no runs, it is built in memory.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from stat import S_ISREG
from types import MappingProxyType
from typing import Any

import attrs

from sfumato.errors import StoreError
from sfumato.store import Store, check_schema

VERSION = 3
OURS = 0x73666D74
"""SQLite's application id of our files: "sfmt"."""
COLUMNS = (
    "run_id", "status", "attempt", "label", "task", "solver", "runtime", "instances", "started", "ended", "wall",
    "error", "code", "promise", "data",
)  # fmt: skip
# The records lie in a table of their own: what the tables that people see are made of then fills a tenth of the pages.
_SCHEMA = (
    f"CREATE TABLE runs (run_id TEXT PRIMARY KEY, stamp TEXT NOT NULL, {', '.join(COLUMNS[1:])}) WITHOUT ROWID",
    "CREATE INDEX by_status ON runs (status)",
    "CREATE TABLE records (run_id TEXT PRIMARY KEY, record TEXT NOT NULL)",
    "CREATE TABLE files (path TEXT PRIMARY KEY, stamp TEXT NOT NULL, digest TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA application_id = {OURS}",
    f"PRAGMA user_version = {VERSION}",
)
NAMED = "./"
"""What begins the name of a file that a setting named from the folder of the command, unlike those of the data folder."""
CHUNK = 5000
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
    data: Mapping[str, str] = attrs.field(factory=dict)  # data files that it read, with their SHA-256


class Index:
    """The copy, brought up to date when it is opened."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._database = _open(store.root / "index.sqlite") if _holds_runs(store.runs) else _fresh(":memory:")
        self._without_record: list[str] = []
        try:
            self._refresh()
        except sqlite3.DatabaseError as error:  # damaged, locked, read-only, on a full disk: the truth is elsewhere
            self._database.close()
            if not isinstance(error, sqlite3.OperationalError):  # damaged: it would be so for ever
                _put_aside(store.root / "index.sqlite")
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
        fresh: list[tuple[str, tuple[Any, ...], str | None]] = []
        seen: set[str] = set()
        with self._database:
            for run_id, stamp in _stamps(self._store.runs):
                seen.add(run_id)
                if not stamp:
                    self._without_record.append(run_id)
                elif known.get(run_id) != stamp:
                    fresh.append(self._row(run_id, stamp))
                if len(fresh) >= CHUNK:
                    self._write(fresh)
            self._write(fresh)
            gone = [(r,) for r in known if r not in seen] + [(r,) for r in self._without_record if r in known]
            if gone:
                for name in ("runs", "records"):
                    self._database.executemany(f"DELETE FROM {name} WHERE run_id = ?", gone)

    def _write(self, rows: list[tuple[str, tuple[Any, ...], str | None]]) -> None:
        if not rows:
            return
        rows.sort()  # by run id: SQLite then appends, where random keys would split its pages
        marks = ", ".join("?" * (len(COLUMNS) + 1))
        self._database.executemany(f"REPLACE INTO runs VALUES ({marks})", (row for _, row, _ in rows))
        self._database.executemany(
            "REPLACE INTO records VALUES (?, ?)", ((run_id, text) for run_id, _, text in rows if text is not None)
        )
        if damaged := [(run_id,) for run_id, _, text in rows if text is None]:
            self._database.executemany("DELETE FROM records WHERE run_id = ?", damaged)
        rows.clear()

    def _row(self, run_id: str, stamp: str) -> tuple[str, tuple[Any, ...], str | None]:
        """Return a run's id, its row, and its record as it stands in the file; no record when it is damaged."""
        path = f"{self._store.runs}/{run_id}/record.json"
        try:
            text = _read(path)
            data = json.loads(text)
            check_schema(data, path)
            spec = data["spec"]
            if data["run_id"] != run_id:
                raise StoreError(f"{path} is the record of run {data['run_id']}: a copy. Move the folder away.")
            if not isinstance(data["figures"], list):
                raise TypeError(f"figures: {data['figures']!r} is no list")
            wall = data["timings"].get("total_wall")
            named = {name if os.path.isabs(name) else f"{NAMED}{name}": digest for name, digest in spec.get("data", {}).items()}
            files = {**named, **data["provenance"].get("data", {})}
            row = (
                run_id, stamp, _text(data["status"]), int(data["attempt"]), _text(data["label"]),
                _text(spec["task"]["name"]), _text(spec["solver"]["name"]), _text(spec["runtime"]["name"]),
                _text(spec["instances"]), _text(data["started"]), _text(data["ended"]),
                None if wall is None else float(wall), _text(data["error"]), json.dumps(dict(data["code"])),
                _text(data["promise"]), json.dumps(files) if files else "{}",
            )  # fmt: skip
            return run_id, row, text
        except StoreError as error:
            why = str(error)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            why = f"{path} is damaged: {error!r}. Move the folder away and run again."
        return run_id, (run_id, stamp, "damaged", 0, "", "", "", "", "", "", "", None, _text(why), "{}", "", "{}"), None

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
        rows = self._database.execute("SELECT run_id, record FROM records")
        # A line break in JSON lies between values: within a text it is escaped.
        return {run_id: text.replace("\n", "") for run_id, text in rows if run_id in ids}

    def records(self, **filters: str | None) -> Iterator[dict[str, Any]]:
        """Yield the plain data of the records that fit the filters, by id; damaged ones are passed over."""
        chosen = {k: v for k, v in filters.items() if v is not None}
        where = " AND ".join(f"{k} = ?" for k in chosen) or "1"
        query = f"SELECT record FROM runs JOIN records USING (run_id) WHERE {where} ORDER BY run_id"
        for (text,) in self._database.execute(query, [*chosen.values()]):
            yield json.loads(text)

    def file_digest(self, path: Path) -> str:
        """Return the SHA-256 of a file as it is now; "" when there is none. Read again only when it was touched."""
        try:
            stat = path.stat()
            if not S_ISREG(stat.st_mode):
                return ""
            stamp = f"{stat.st_mtime_ns}:{stat.st_size}:{stat.st_ino}"
            key = str(path.resolve())
            known = self._database.execute("SELECT digest FROM files WHERE path = ? AND stamp = ?", (key, stamp)).fetchone()
            if known is not None:
                return str(known[0])
            from sfumato.context import file_digest  # not at the top: NumPy comes with it

            digest = file_digest(path)
        except OSError:
            return ""
        with suppress(sqlite3.DatabaseError), self._database:  # a store that is read-only can be asked all the same
            self._database.execute("REPLACE INTO files VALUES (?, ?, ?)", (key, stamp, digest))
        return digest


def _summary(row: tuple[Any, ...]) -> Summary:
    values = dict(zip(COLUMNS, row, strict=True))
    return Summary(**{**values, "code": _table(values["code"]), "data": _table(values["data"])})


@lru_cache(maxsize=256)
def _table(text: str) -> Mapping[str, str]:
    """Return a small JSON object, parsed once: thousands of runs share a few."""
    return MappingProxyType(json.loads(text))


def _text(value: Any) -> str:
    """Return text that SQLite takes: it knows no lone surrogates. Raises TypeError for anything else."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value.encode("utf-8", "backslashreplace").decode()


def _stamps(runs: Path) -> Iterator[tuple[str, str]]:
    """Yield (run id, what tells a record from any other), the latter empty where there is no record."""
    try:
        entries = os.scandir(runs)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if not entry.name.isascii():  # ids are hexadecimal, and not every name is text that SQLite takes
                continue
            try:
                stat = os.stat(entry.path + "/record.json")
                yield entry.name, f"{stat.st_mtime_ns}:{stat.st_size}:{stat.st_ino}"
            except (FileNotFoundError, NotADirectoryError):
                if os.path.exists(entry.path + "/spec.json"):
                    yield entry.name, ""
            except OSError as error:  # links in a circle, no permission, a bad disk
                if os.path.exists(entry.path + "/spec.json"):
                    yield entry.name, f"unreadable: {error.errno}"


def _read(path: str) -> str:
    """Return a file's text, with as few calls of the system as can be: a store has thousands."""
    handle = os.open(path, os.O_RDONLY)
    try:
        parts = []
        while part := os.read(handle, 1 << 20):
            parts.append(part)
            if len(part) < 1 << 20:
                break
    finally:
        os.close(handle)
    return b"".join(parts).decode()


def _holds_runs(runs: Path) -> bool:
    """Return whether a folder holds runs: no file of ours is put where there are none."""
    try:
        with os.scandir(runs) as entries:
            return any(re.fullmatch(r"[0-9a-f]{16}", entry.name) for entry in entries)
    except OSError:
        return False


def _open(path: Path) -> sqlite3.Connection:
    """Return the copy beside the runs, made anew when it is none of ours; in memory where it cannot be kept."""
    for _ in range(2):
        database = None
        try:
            database = sqlite3.connect(path, timeout=20)
            database.execute("PRAGMA synchronous = OFF")  # losing it costs nothing
            database.execute("PRAGMA journal_mode = MEMORY")
            if _made(database):
                return database
        except sqlite3.OperationalError:  # locked for long, or in a place where nothing can be written
            if database is not None:
                database.close()
            return _fresh(":memory:")
        except sqlite3.DatabaseError:  # no database, or a damaged one
            pass
        if database is not None:
            database.close()
        _put_aside(path)
    return _fresh(":memory:")


def _put_aside(path: Path) -> None:
    with suppress(OSError):  # it may be somebody's after all: nothing is thrown away
        path.replace(path.with_suffix(".sqlite.old"))


def _made(database: sqlite3.Connection) -> bool:
    """Return whether the file is ours, after making the tables where there are none, or those of an earlier version."""
    ours = ("PRAGMA application_id", "PRAGMA user_version")
    if tuple(database.execute(q).fetchone()[0] for q in ours) == (OURS, VERSION):
        return True
    database.execute("BEGIN IMMEDIATE")  # two that ask at once: one makes it, the other one waits and looks again
    try:
        application, version = (database.execute(q).fetchone()[0] for q in ours)
        names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        if (application, version) == (OURS, VERSION):
            return True
        if names and application != OURS and not (version == 1 and names == ["runs"]):  # version 1 bore no mark
            return False
        for name in names:
            database.execute(f"DROP TABLE {name}")
        for statement in _SCHEMA:
            database.execute(statement)
        return True
    finally:
        database.commit()


def _fresh(where: str) -> sqlite3.Connection:
    database = sqlite3.connect(where)
    for statement in _SCHEMA:
        database.execute(statement)
    return database
