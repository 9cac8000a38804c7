"""Run directories: the truth about what was run. Nothing is half written, nothing is lost.

    STORE/runs/<run id>/  spec.json  claim.json  rows.jsonl  trace.zip  stderr.txt  record.json  record.attempt<n>.json
    STORE/artifacts/      what training produced
    STORE/index.sqlite    a copy of the records for quick questions; may be deleted at any time

A run is claimed by exclusive creation of `claim.json`; its record is put in place by an atomic rename after fsync.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from sfumato import config
from sfumato.claims import LEASE_SECONDS, Owner, expired, owner_of
from sfumato.errors import ConfigError, StoreError, UnknownName, did_you_mean
from sfumato.records import SCHEMA_VERSION, RunRecord, RunSpec, Status

__all__ = ["DEFAULT", "Claim", "Owner", "Store", "canonical", "read_record", "run_id_of", "write_atomic"]

DEFAULT = "sfumato-results"
STOPPED = "stopped before it ended"
"""Error of a run that the user stopped: such an interruption does not count against it."""
STORE_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE})
"""Errors that are the disk's fault, not the run's."""
NO_LINKS = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
"""What a file system without hard links answers."""


def run_id_of(spec: RunSpec) -> str:
    """Return the run's id: SHA-256 of the canonical specification, 16 hex digits.

    Limits are no part of it: a run that succeeded within its limit is the same run under a larger one.
    """
    plain = config.unstructure(attrs.evolve(spec, limits=attrs.evolve(spec.limits, seconds=None, memory_mb=None)))
    return hashlib.sha256(canonical(plain).encode()).hexdigest()[:16]


def canonical(value: Any) -> str:
    """Return JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=True)


def write_atomic(path: Path, text: str, durable: bool = True) -> None:
    """Put text in place so that a reader sees the old file or the whole new one; `durable`: also after a power cut."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@attrs.frozen
class Claim:
    """What stands in `claim.json`: whose it is, and what the record of a lost attempt needs."""

    owner: Owner
    attempt: int = 1
    label: str = ""
    code: Mapping[str, str] = attrs.field(factory=dict)


class Store:
    """A folder of runs."""

    def __init__(self, root: Path | str, artifacts: Path | None = None) -> None:
        self.root = Path(root)
        self.runs = self.root / "runs"
        self.artifacts = artifacts or self.root / "artifacts"

    def prepare(self) -> None:
        """Create the folder; raises StoreError when it cannot be written."""
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.runs) as probe:
                probe.write(b"\0" * 4096)  # a full disk lets empty files be made
        except OSError as error:
            raise StoreError(
                f"the store {self.root} cannot be written: {error.strerror}. Make room, or give another folder with "
                "--store DIR. What is in it is untouched."
            ) from error

    def folder(self, run_id: str) -> Path:
        """Return a run's folder."""
        return self.runs / run_id

    # ------------------------------------------------------------------ claims

    def claim(self, run_id: str, attempt: int = 1, label: str = "", code: Mapping[str, str] | None = None) -> Owner | None:
        """Claim a run for this process; return None when it is ours now, else the owner that still runs.

        A claim whose owner is gone is taken over, under a lock so that only one process does so; the attempt that was
        lost gets a record with status `interrupted`.
        """
        folder = self.folder(run_id)
        path = folder / "claim.json"
        text = json.dumps(attrs.asdict(Claim(Owner.me(), attempt, label, dict(code or {}))))
        try:
            while not self._create(path, text):
                if (owner := self.owner(run_id)) is not None and self._holds(owner, path):
                    return owner
                self.recover(run_id)
        except OSError as error:
            raise StoreError(
                f"run {run_id}: cannot be claimed in {folder}: {error.strerror}. Make room or mend the folder, then run "
                "the experiment again: what is done is kept."
            ) from error
        return None

    def _create(self, path: Path, text: str) -> bool:
        """Create a file with its whole content, or return False when it is there already (also over NFS: a link decides)."""
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            try:
                os.link(name, path)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                self._create_locked(path, text)
        except FileExistsError:
            return False
        finally:
            Path(name).unlink(missing_ok=True)
        return True

    def _create_locked(self, path: Path, text: str) -> None:
        """Create a file where there are no hard links; raises FileExistsError.

        Between creation and content the file names nobody, and whoever sees that would take it for the claim of the
        dead. Taking over is done under the same lock, so that nobody looks in between.
        """
        with self._locked():
            file = path.open("x", encoding="utf-8")
            try:
                with file:
                    file.write(text)
            except BaseException:
                path.unlink(missing_ok=True)
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the store's lock: one process at a time takes over claims."""
        with (self.root / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def release(self, run_id: str) -> None:
        """Give a claim back, unless it has become another's."""
        with suppress(OSError):  # a claim left behind is one whose owner is gone
            if self.owner(run_id) == Owner.me():
                (self.folder(run_id) / "claim.json").unlink(missing_ok=True)

    def renew(self, run_id: str, attempt: int, label: str = "", code: Mapping[str, str] | None = None) -> None:
        """Write a claim of ours anew, for another attempt."""
        claim = Claim(Owner.me(), attempt, label, dict(code or {}))
        try:
            write_atomic(self.folder(run_id) / "claim.json", json.dumps(attrs.asdict(claim)), durable=False)
        except OSError as error:
            raise StoreError(f"run {run_id}: its claim cannot be written: {error.strerror}. Nothing was lost.") from error

    def recover(self, run_id: str) -> bool:
        """Take away a claim whose owner is gone; return whether there was one.

        Where that attempt left no record, one with status `interrupted` is put in place, so that attempts are counted.
        """
        path = self.folder(run_id) / "claim.json"
        with self._locked():
            if not os.path.lexists(path):  # a link to nowhere is in the way as well
                return False
            claim = self.read_claim(run_id)
            if claim is not None and self._holds(claim.owner, path):
                return False
            if claim is not None and (spec := self.spec(run_id)) is not None:
                record = self.record(run_id)
                if record is not None and record.attempt < claim.attempt:
                    self.set_aside(record)
                if record is None or record.attempt < claim.attempt:
                    self.put_record(_lost(run_id, spec, claim, path))
            path.unlink(missing_ok=True)
        return True

    def _holds(self, owner: Owner, path: Path) -> bool:
        alive = owner.alive()
        return not expired(path) if alive is None else alive

    def read_claim(self, run_id: str) -> Claim | None:
        """Return the claim on a run, None when there is none or the file is none of ours."""
        try:
            data = json.loads((self.folder(run_id) / "claim.json").read_text(encoding="utf-8"))
            owner = Owner.of(data["owner"])
            return None if owner is None else Claim(owner, int(data["attempt"]), str(data["label"]), dict(data["code"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def owner(self, run_id: str) -> Owner | None:
        """Return who holds the claim on a run, None when nobody does."""
        return owner_of(self.folder(run_id) / "claim.json")

    def status(self, run_id: str) -> str:
        """Return a run's status: that of its record, `running`, `interrupted` when its owner is gone, or `waiting`."""
        record = self.record(run_id)
        return record.status.value if record is not None else self.status_without_record(run_id)

    def status_without_record(self, run_id: str) -> str:
        """Return the status of a run that has no record."""
        path = self.folder(run_id) / "claim.json"
        if not path.exists():
            return "waiting"
        owner = self.owner(run_id)
        return "running" if owner is not None and self._holds(owner, path) else Status.INTERRUPTED.value

    # ------------------------------------------------------------------ what a run is and became

    def write_spec(self, run_id: str, spec: RunSpec) -> Path:
        """Create the run's folder with its specification; return the folder."""
        folder = self.folder(run_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            there = self.spec(run_id)  # one that is empty or of another run is written anew
            if there is None or run_id_of(there) != run_id:
                text = json.dumps(config.unstructure(spec), indent=1, sort_keys=True)
                write_atomic(folder / "spec.json", text, durable=False)
        except OSError as error:
            raise StoreError(f"run {run_id}: cannot write {folder}: {error.strerror}. Nothing was lost.") from error
        return folder

    def spec(self, run_id: str) -> RunSpec | None:
        """Return a run's specification, None when the file is missing, not whole or none of ours."""
        path = self.folder(run_id) / "spec.json"
        try:
            return config.structure(json.loads(path.read_text(encoding="utf-8")), RunSpec, where=str(path))
        except (OSError, ValueError, ConfigError):
            return None

    def record(self, run_id: str) -> RunRecord | None:
        """Return a run's record, None when it has not ended; raises StoreError for a damaged one."""
        path = self.folder(run_id) / "record.json"
        data = load_json(path)
        if data is None:
            return None
        record = read_record(data, path)
        if record.run_id != run_id:
            raise StoreError(f"{path} is the record of run {record.run_id}: a copy. Move the folder away.")
        return record

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
        try:
            with suppress(FileNotFoundError):
                (folder / "stderr.txt").replace(folder / f"stderr.attempt{record.attempt}.txt")
            (folder / "record.json").replace(folder / f"record.attempt{record.attempt}.json")
        except OSError as error:
            raise StoreError(f"run {record.run_id}: cannot write {folder}: {error.strerror}. Nothing was lost.") from error

    def earlier(self, run_id: str) -> list[RunRecord]:
        """Return the records of earlier attempts, first to last."""
        found = []
        for path in self.folder(run_id).glob("record.attempt*.json"):
            if re.fullmatch(r"record\.attempt\d+\.json", path.name) and (data := load_json(path)) is not None:
                found.append(read_record(data, path))
        return sorted(found, key=lambda r: r.attempt)

    def tidy(self, run_id: str) -> None:
        """Take away what earlier attempts and writers that died left in a run's folder; its claim must be ours."""
        folder = self.folder(run_id)
        old = time.time() - LEASE_SECONDS  # younger ones may belong to a process that is about to claim
        for path in folder.iterdir():
            spent = path.name in ("outcome.json", "rows.jsonl", "trace.zip", "stderr.txt")
            with suppress(FileNotFoundError):  # one who waits for the claim takes its own files away meanwhile
                if spent or (path.name.startswith(".") and path.stat().st_mtime < old):
                    path.unlink()

    def interruptions(self, run_id: str) -> int:
        """Return how many attempts in a row, the last one included, were cut off by something else than the user."""
        record = self.record(run_id)
        count = 0
        for each in reversed([*self.earlier(run_id), *([record] if record else [])]):
            if each.status is not Status.INTERRUPTED:
                break
            count += each.error != STOPPED
        return count

    def ids(self, prefix: str = "") -> list[str]:
        """Return the ids of all runs, or of those that begin with a prefix; foreign files and folders are passed over."""
        try:
            with os.scandir(self.runs) as entries:
                named = [e for e in entries if e.name.startswith(prefix) and e.name.isascii()]  # ids are hexadecimal
            return sorted(e.name for e in named if os.path.exists(e.path + "/spec.json"))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def find(self, prefix: str) -> str:
        """Return the one run id that begins with `prefix`; raises UnknownName."""
        if re.fullmatch(r"[0-9a-f]{16}", prefix) and (self.folder(prefix) / "spec.json").exists():
            return prefix
        hits = self.ids(prefix)
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise UnknownName(f"{prefix!r} fits {len(hits)} runs: {', '.join(hits[:5])}. Give more of the id.")
        raise UnknownName(
            f"no run {prefix!r} in {self.root}.{did_you_mean(prefix, self.ids())} 'sfumato status' lists the runs."
        )

    def rows(self, run_id: str) -> Iterator[dict[str, Any]]:
        """Yield a run's rows, one an episode; a half-written last line is passed over, any other damage a StoreError."""
        yield from read_rows(self.folder(run_id) / "rows.jsonl")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, up to a half-written last line.

    Raises StoreError for any other line that is no row: what follows it must not be left out of a result in silence.
    """
    try:
        lines = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}. Mend it, or move the run's folder away.") from error
    with lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"{type(row).__name__} is no row")
                if missing := [key for key in ("episode", "items", "metrics") if key not in row]:
                    raise ValueError(f"a row without {', '.join(missing)} is none of ours")
            except ValueError as error:
                if not line.endswith(b"\n"):  # its writer was cut off
                    return
                raise StoreError(
                    f"{path}, line {number} is damaged: {error}. Move the run's folder away and run the experiment again."
                ) from error
            yield row


def load_json(path: Path) -> Any:
    """Return a file's content, None when there is no such file; raises StoreError when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{path} is damaged: {error}. The rows are in rows.jsonl beside it; move the folder away and run again."
        ) from error


def check_schema(data: Any, path: Path | str) -> None:
    """Raise StoreError for another schema or a foreign file."""
    schema = data.get("schema") if isinstance(data, Mapping) else None
    if schema != SCHEMA_VERSION:
        newer = isinstance(schema, int) and schema > SCHEMA_VERSION
        raise StoreError(
            f"{path} has schema {schema!r}, this sfumato reads {SCHEMA_VERSION}. "
            + ("Upgrade sfumato." if newer else "It is no record of ours; move it away.")
        )


def read_record(data: Any, path: Path) -> RunRecord:
    """Return a record from its plain data; raises StoreError for another schema or a foreign file."""
    check_schema(data, path)
    return config.structure(data, RunRecord, where=str(path))


def _lost(run_id: str, spec: RunSpec, claim: Claim, path: Path) -> RunRecord:
    owner = claim.owner
    try:
        last = path.stat().st_mtime
    except OSError:
        last = 0.0
    how = "is gone" if owner.alive() is False else f"gave no sign of life for {LEASE_SECONDS:g} s"
    return RunRecord(
        run_id=run_id,
        spec=spec,
        status=Status.INTERRUPTED,
        error=f"its owner, process {owner.pid} on {owner.host}, {how} and left no record",
        advice=Status.INTERRUPTED.advice,
        ended=datetime.fromtimestamp(last, UTC).isoformat(timespec="seconds"),
        code=claim.code,
        attempt=claim.attempt,
        label=claim.label,
    )
