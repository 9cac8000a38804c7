"""Run directories: the truth about what was run. Nothing is half written, nothing is lost.

    STORE/runs/<run id>/  spec.json  claim.json  rows.jsonl  trace.zip  stderr.txt  outcome.json  record.json
    STORE/artifacts/      what training produced

A run is claimed by exclusive creation of `claim.json`; its record is put in place by an atomic rename after fsync.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from sfumato import config
from sfumato.errors import StoreError, UnknownName, did_you_mean
from sfumato.records import SCHEMA_VERSION, RunRecord, RunSpec

DEFAULT = "sfumato-results"


def run_id_of(spec: RunSpec) -> str:
    """Return the run's id: SHA-256 of the canonical specification, 16 hex digits.

    Limits are no part of it: a run that succeeded within its limit is the same run under a larger one.
    """
    plain = config.unstructure(attrs.evolve(spec, limits=attrs.evolve(spec.limits, seconds=None, memory_mb=None)))
    return hashlib.sha256(canonical(plain).encode()).hexdigest()[:16]


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=True)


def write_atomic(path: Path, text: str) -> None:
    """Put text in place so that a reader sees the old file or the whole new one, also after a power cut."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@attrs.frozen
class Owner:
    """Who holds a claim: process, its start time and the machine's boot, so that a reused pid is not mistaken for it."""

    host: str
    pid: int
    start_time: int
    boot_id: str

    @classmethod
    def me(cls) -> Owner:
        """Return this process."""
        return cls(socket.gethostname(), os.getpid(), _start_time(os.getpid()) or 0, _boot_id())

    def alive(self) -> bool | None:
        """Return whether the owner still runs; None when it is on another host, where only a lease can tell."""
        if self.host != socket.gethostname():
            return None
        return self.boot_id == _boot_id() and _start_time(self.pid) == self.start_time


def _start_time(pid: int) -> int | None:
    """Return a process's start time in clock ticks since boot, or None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Store:
    """A folder of runs."""

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.runs = self.root / "runs"

    def prepare(self) -> None:
        """Create the folder; raises StoreError when it cannot be written."""
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.runs):
                pass
        except OSError as error:
            raise StoreError(
                f"the store {self.root} cannot be written: {error.strerror}. Give another folder with --store DIR."
            ) from error

    def folder(self, run_id: str) -> Path:
        """Return a run's folder."""
        return self.runs / run_id

    def claim(self, run_id: str) -> Owner | None:
        """Claim a run for this process; return None when it is ours now, else the owner that still runs.

        A claim whose owner is gone is taken over, under a lock so that only one process does so.
        """
        folder = self.folder(run_id)
        path = folder / "claim.json"
        mine = json.dumps(attrs.asdict(Owner.me()))
        try:
            with (folder / "claim.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                owner = self.owner(run_id)
                if owner is not None and owner.alive() is not False:
                    return owner
                write_atomic(path, mine)
        except OSError as error:
            raise StoreError(f"run {run_id}: cannot be claimed in {folder}: {error.strerror}.") from error
        return None

    def release(self, run_id: str) -> None:
        """Give a claim back."""
        (self.folder(run_id) / "claim.json").unlink(missing_ok=True)

    def owner(self, run_id: str) -> Owner | None:
        """Return who holds the claim on a run, None when nobody does."""
        try:
            return Owner(**json.loads((self.folder(run_id) / "claim.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def status(self, run_id: str) -> str:
        """Return a run's status: that of its record, `running`, or `interrupted` when its owner is gone."""
        record = self.record(run_id)
        if record is not None:
            return record.status.value
        owner = self.owner(run_id)
        if owner is None:
            return "waiting"
        return "interrupted" if owner.alive() is False else "running"

    def write_spec(self, run_id: str, spec: RunSpec) -> Path:
        """Create the run's folder with its specification; return the folder."""
        folder = self.folder(run_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "spec.json").exists():
                write_atomic(folder / "spec.json", json.dumps(config.unstructure(spec), indent=1, sort_keys=True))
        except OSError as error:
            raise StoreError(f"run {run_id}: cannot write {folder}: {error.strerror}. Nothing was lost.") from error
        return folder

    def record(self, run_id: str) -> RunRecord | None:
        """Return a run's record, None when it has not ended; raises StoreError for a damaged one."""
        path = self.folder(run_id) / "record.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(
                f"{path} is damaged: {error}. The rows are in rows.jsonl beside it; move the folder away and run again."
            ) from error
        return read_record(data, path)

    def put_record(self, record: RunRecord) -> None:
        """Put a record in place, atomically."""
        path = self.folder(record.run_id) / "record.json"
        try:
            write_atomic(path, json.dumps(config.unstructure(record), indent=1, sort_keys=True, default=str))
        except OSError as error:
            raise StoreError(
                f"run {record.run_id}: its record could not be written to {path}: {error.strerror}. Its rows stay in "
                "rows.jsonl. Make room, then run the experiment again."
            ) from error

    def set_aside(self, record: RunRecord) -> None:
        """Keep an earlier attempt's record under another name, so that a new attempt can take its place."""
        folder = self.folder(record.run_id)
        (folder / "record.json").rename(folder / f"record.attempt{record.attempt}.json")

    def ids(self) -> list[str]:
        """Return the ids of all runs that have a folder."""
        if not self.runs.is_dir():
            return []
        return sorted(e.name for e in os.scandir(self.runs) if e.is_dir() and (Path(e.path) / "spec.json").exists())

    def find(self, prefix: str) -> str:
        """Return the one run id that begins with `prefix`; raises UnknownName."""
        ids = self.ids()
        hits = [i for i in ids if i.startswith(prefix)]
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise UnknownName(f"{prefix!r} fits {len(hits)} runs: {', '.join(hits[:5])}. Give more of the id.")
        raise UnknownName(
            f"no run {prefix!r} in {self.root}.{did_you_mean(prefix, ids)} 'sfumato status' lists the runs."
        )

    def rows(self, run_id: str) -> Iterator[dict[str, Any]]:
        """Yield a run's rows, one an episode; a half-written last line is passed over."""
        path = self.folder(run_id) / "rows.jsonl"
        if not path.exists():
            return
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    yield json.loads(line)
                except ValueError:
                    return


def read_record(data: Mapping[str, Any], path: Path) -> RunRecord:
    """Return a record from its plain data; raises StoreError for another schema or a foreign file."""
    schema = data.get("schema") if isinstance(data, Mapping) else None
    if schema != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema {schema!r}, this sfumato reads {SCHEMA_VERSION}. "
            + ("Upgrade sfumato." if isinstance(schema, int) and schema > SCHEMA_VERSION else "It is no record of ours.")
        )
    return config.structure(data, RunRecord, where=str(path))
