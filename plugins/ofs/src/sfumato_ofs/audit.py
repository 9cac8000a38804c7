"""An append-only log of decisions in JSON lines, each line bound to the one before by SHA-256.

Line k holds `seq` = k, `prev` = the hash of line k - 1 (64 zeros for the first), an `event` with its facts, and last `hash`,
the SHA-256 of the line's bytes without `,"hash":"..."`. Nobody can change a byte, drop or insert a line without changing the
head; the head itself can be exported and signed, which fixes the whole history before it. Only the end can be cut off
unseen, and not by whoever holds a head from before.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import attrs

from sfumato_ofs.errors import AuditError

try:
    import fcntl
except ImportError:  # no such locks on this system: two writers are not kept apart
    fcntl = None  # type: ignore[assignment]

GENESIS = "0" * 64
_SEAL = re.compile(rb'^(.*),"hash":"([0-9a-f]{64})"\}\n$', re.DOTALL)
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


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

    @classmethod
    def load(cls, path: str | Path, key: bytes | None = None) -> Head:
        """Return an exported head; with a key, only when its signature fits.

        Raises: AuditError when the file is no head, or its signature is missing or another.
        """
        try:
            facts = json.loads(Path(path).read_text(encoding="utf-8"))
            lines, digest, signature = facts["lines"], facts["hash"], facts.get("hmac_sha256")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise AuditError(f"head: {path} does not hold an exported head: {error}") from error
        if type(lines) is not int or lines < 0 or not re.fullmatch("[0-9a-f]{64}", str(digest)):
            raise AuditError(f"head: {path} must hold lines and a SHA-256, got {lines!r} and {digest!r}")
        head = cls(lines, digest)
        if key is not None and (signature is None or not head.verify(key, str(signature))):
            raise AuditError(
                f"head: the signature in {path} is {'missing' if signature is None else 'not made with this key'}"
            )
        return head


class AuditLog:
    """Appends events; to a file when a path is given, else in memory.

    An existing file is verified and continued, or refused when `fresh` asks for a new one. The file is locked against
    other writers while it is open. `append` writes before it returns; `durable` also waits for the disk.

    Raises: AuditError when an existing file does not verify, is open elsewhere, or a new one was asked for.
    """

    def __init__(self, path: str | Path | None = None, *, durable: bool = False, fresh: bool = False) -> None:
        if path is not None and not isinstance(path, str | os.PathLike):
            raise AuditError(f"log must be a path or None, got {path!r}")
        self.path = None if path is None else Path(path)
        self._durable = durable
        self._lines: list[str] = []
        self._count, self._hash = 0, GENESIS
        self._last = ""
        self._file = None
        if self.path is None:
            return
        # Unbuffered: one write a line, so that a crash cannot leave half of it behind in a buffer.
        try:
            self._file = self.path.open("xb" if fresh else "ab", buffering=0)
        except FileExistsError as error:
            raise AuditError(
                f"log {str(self.path)!r} exists already; continue it with sfumato_ofs.resume(path), or choose another path"
            ) from error
        except OSError as error:
            raise AuditError(f"log {str(self.path)!r} cannot be written: {error.strerror}") from error
        try:
            self._lock()
            head = verify(self.path)
            self._count, self._hash = head.lines, head.hash
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        assert self._file is not None  # the caller opened it
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise AuditError(f"log {str(self.path)!r} cannot be locked: {error.strerror}") from error
            raise AuditError(
                f"log {str(self.path)!r} is open for writing elsewhere; two writers would break its chain. Close the other one"
            ) from error

    @property
    def head(self) -> Head:
        return Head(self._count, self._hash)

    def append(self, event: str, facts: Mapping[str, Any]) -> None:
        """Add one line. The head moves only after the line is written."""
        text = _encode({"event": event, "prev": self._hash, "seq": self._count, **facts})
        digest = hashlib.sha256(text.encode()).hexdigest()
        line = f'{text[:-1]},"hash":"{digest}"}}'
        if self._file is None:
            self._lines.append(line)
        else:
            self._write(line.encode() + b"\n")
        self._count, self._hash = self._count + 1, digest
        self._last = line

    def _write(self, data: bytes) -> None:
        """Write a line whole, or leave the file as it was: a disk that fills up takes part of a line without a word."""
        assert self._file is not None  # the caller looked
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(data) != len(data):
                raise OSError(errno.ENOSPC, "the audit log's line was cut off: no room left", str(self.path))
            if self._durable:
                os.fsync(self._file.fileno())
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
        """Close the file and give up its lock; further appends raise."""
        if self._file is not None:
            self._file.close()


def _open(path: str | Path) -> BinaryIO:
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise AuditError(f"{path}: the log cannot be read: {error.strerror}") from error


def read(path: str | Path, head: Head | None = None) -> Iterator[dict[str, Any]]:
    """Yield a log's events after checking each line's bytes, place and link.

    Arguments:
        head: a head known from before; the log must still hold it. It may have grown since.

    Raises: AuditError naming the line and what does not fit.
    """
    previous, expected = GENESIS, 0
    with _open(path) as file:
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                raise AuditError(
                    f"{path}: line {number} is cut off; the log was torn while writing. Drop that line"
                )
            sealed = _SEAL.match(raw)
            # The bytes themselves are hashed: another spelling of the same JSON is another line.
            if sealed is None or hashlib.sha256(sealed[1] + b"}").hexdigest() != sealed[2].decode():
                raise AuditError(f"{path}: line {number} was altered: its hash does not fit its content")
            try:
                line = json.loads(sealed[1] + b"}")
            except ValueError as error:
                raise AuditError(f"{path}: line {number} is not JSON: {error}") from error
            if not isinstance(line, dict) or line.get("prev") != previous or line.get("seq") != expected:
                odd = line if isinstance(line, dict) else {}
                raise AuditError(
                    f"{path}: line {number} does not follow the one before: expected seq {expected} after "
                    f"{previous[:12]}, got seq {odd.get('seq')} after {str(odd.get('prev'))[:12]}"
                )
            previous, expected = sealed[2].decode(), expected + 1
            if head is not None and expected == head.lines and previous != head.hash:
                raise AuditError(
                    f"{path}: line {number} has hash {previous[:12]}, and the head given has {head.hash[:12]} there: another history"
                )
            yield {**line, "hash": previous}
    if head is not None and expected < head.lines:
        raise AuditError(
            f"{path}: the log has {expected} lines, and the head given has {head.lines}: lines were cut off at the end"
        )


def verify(path: str | Path, head: Head | None = None) -> Head:
    """Return the head of a log whose every line fits (and which still holds `head`), or raise AuditError."""
    found = Head(0, GENESIS)
    for line in read(path, head):
        found = Head(line["seq"] + 1, line["hash"])
    return found
