"""An append-only log of decisions in JSON lines, each line bound to the one before by SHA-256.

Line k holds `seq` = k, `prev` = the hash of line k - 1 (64 zeros for the first), an `event` with its facts, and `hash`,
the SHA-256 of the line without its own hash. Nobody can change, drop or insert a line without changing the
head; the head itself can be exported and signed, which fixes the whole history before it.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from sfumato_ofs.errors import AuditError

GENESIS = "0" * 64
_encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True, allow_nan=False).encode


@attrs.frozen
class Head:
    """The end of a log: how many lines it has and the last line's hash."""

    lines: int
    hash: str

    def sign(self, key: bytes) -> str:
        """Return the HMAC-SHA256 of this head under a secret key, hex."""
        return hmac.new(key, f"{self.lines}:{self.hash}".encode(), hashlib.sha256).hexdigest()

    def verify(self, key: bytes, signature: str) -> bool:
        """Return whether the signature belongs to this head under the key."""
        return hmac.compare_digest(self.sign(key), signature)

    def export(self, path: str | Path, key: bytes | None = None) -> None:
        """Write the head, with its signature when a key is given, as JSON."""
        facts: dict[str, Any] = attrs.asdict(self)
        if key is not None:
            facts["hmac_sha256"] = self.sign(key)
        Path(path).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


class AuditLog:
    """Appends events; to a file when a path is given, else in memory.

    An existing file is verified and continued. `append` writes before it returns; `durable` also waits for the disk.

    Raises: AuditError when an existing file does not verify.
    """

    def __init__(self, path: str | Path | None = None, *, durable: bool = False) -> None:
        self.path = None if path is None else Path(path)
        self._durable = durable
        self._lines: list[str] = []
        self._head = Head(0, GENESIS)
        self._last = ""
        self._file = None
        if self.path is not None:
            if self.path.exists():
                self._head = verify(self.path)
            # Unbuffered: one write a line, so that a crash cannot leave half of it behind in a buffer.
            self._file = self.path.open("ab", buffering=0)

    @property
    def head(self) -> Head:
        return self._head

    def append(self, event: str, facts: Mapping[str, Any]) -> None:
        """Add one line. The head moves only after the line is written."""
        body = {"event": event, "prev": self._head.hash, "seq": self._head.lines, **facts}
        text = _encode(body)
        digest = hashlib.sha256(text.encode()).hexdigest()
        line = f'{text[:-1]},"hash":"{digest}"}}'
        if self._file is None:
            self._lines.append(line)
        else:
            self._write(line.encode() + b"\n")
            if self._durable:
                os.fsync(self._file.fileno())
        self._head = Head(self._head.lines + 1, digest)
        self._last = line

    def _write(self, data: bytes) -> None:
        """Write a line whole, or leave the file as it was: a disk that fills up takes part of a line without a word."""
        assert self._file is not None  # the caller looked
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, "the audit log's line was cut off: no room left", str(self.path))
        except OSError:
            self._file.truncate(end)
            raise

    @property
    def last(self) -> dict[str, Any]:
        """The event appended last by this object."""
        value: dict[str, Any] = json.loads(self._last)
        return value

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield all events so far, oldest first."""
        if self.path is not None:
            yield from read(self.path)
        else:
            yield from (json.loads(line) for line in self._lines)

    def close(self) -> None:
        """Close the file; further appends raise."""
        if self._file is not None:
            self._file.close()


def read(path: str | Path) -> Iterator[dict[str, Any]]:
    """Yield a log's events after checking each line's place, link and hash.

    Raises: AuditError naming the line and what does not fit.
    """
    previous, expected = GENESIS, 0
    with Path(path).open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                raise AuditError(
                    f"{path}: line {number} is cut off; the log was torn while writing. Drop that line"
                )
            try:
                line = json.loads(raw)
            except ValueError as error:
                raise AuditError(f"{path}: line {number} is not JSON: {error}") from error
            claimed = line.pop("hash", None)
            if hashlib.sha256(_encode(line).encode()).hexdigest() != claimed:
                raise AuditError(f"{path}: line {number} was altered: its hash does not fit its content")
            if line.get("prev") != previous or line.get("seq") != expected:
                raise AuditError(
                    f"{path}: line {number} does not follow the one before: expected seq {expected} after "
                    f"{previous[:12]}, got seq {line.get('seq')} after {str(line.get('prev'))[:12]}"
                )
            previous, expected = claimed, expected + 1
            yield {**line, "hash": claimed}


def verify(path: str | Path) -> Head:
    """Return the head of a log whose every line fits, or raise AuditError."""
    head = Head(0, GENESIS)
    for line in read(path):
        head = Head(line["seq"] + 1, line["hash"])
    return head
