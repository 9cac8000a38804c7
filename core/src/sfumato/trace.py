"""Columns, the recorder that sits between runtime and task, and the file that traces are streamed to.

A column keeps its values in chunks, numbers in the smallest dtype that holds them exactly. The digest covers what
the policy said, what reached the task, rewards and flags; it does not depend on chunking.
"""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import json
import math
import threading
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from sfumato.errors import ProtocolError
from sfumato.protocols import Episode
from sfumato.records import Start, Step

CHUNK_VALUES = 1024
CHUNK_BYTES = 4 << 20
# No uint64: together with a signed chunk NumPy would make floats of both.
_SMALL_INTEGERS = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32)
_PLAIN = frozenset({bool, int, float, str, bytes, type(None)})


def plain(value: Any, what: str = "value") -> Any:
    """Return `value` as what JSON holds (arrays become lists); raises ProtocolError for what cannot be recorded."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(k): plain(v, what) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return [plain(v, what) for v in items]
    if attrs.has(type(value)):
        return {f.name: plain(getattr(value, f.name), what) for f in attrs.fields(type(value)) if f.repr}
    if hasattr(value, "__array__"):  # a torch or jax array
        return np.asarray(value).tolist()
    raise ProtocolError(
        f"{what} of type {type(value).__name__} cannot be recorded. Use numbers, text, bytes, arrays, or lists, "
        "dicts and attrs classes of those."
    )


def shrink(array: np.ndarray) -> np.ndarray:
    """Return the array in the smallest dtype that holds every value exactly."""
    if array.size == 0 or array.dtype == bool:
        return array
    if array.dtype.kind in "iu":
        low, high = int(array.min()), int(array.max())
        for dtype in _SMALL_INTEGERS:
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return array.astype(dtype)
        return array
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):
            small = array.astype(np.float32)
        return small if np.array_equal(small, array, equal_nan=True) else array
    return array


def _canonical(array: np.ndarray) -> np.ndarray:
    wide = {"b": np.uint8, "i": np.int64, "u": np.uint64, "f": np.float64, "c": np.complex128}
    return np.ascontiguousarray(array, dtype=wide.get(array.dtype.kind, array.dtype))


class Column:
    """A growing list of values of one kind, kept compact. `column[t]` is the value at step `t`.

    Numbers and equal-shaped arrays become array chunks `[t, …]`; anything else stays a Python object.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._chunks: list[np.ndarray | list[Any]] = []
        self._starts: list[int] = []
        self._pending: list[Any] = []
        self._pending_bytes = 0
        self._flushed = 0
        self._hash = hashlib.sha256()
        self._shape: str | None = None
        self._written = 0

    def append(self, value: Any) -> None:
        """Add a value; an array is copied, because worlds reuse their buffers."""
        if type(value) not in _PLAIN:  # the common case costs one look
            if isinstance(value, np.ndarray):
                value = value.copy()
                self._pending_bytes += value.nbytes
            elif isinstance(value, np.generic):
                pass
            elif hasattr(value, "__array__"):
                value = np.array(value)
                self._pending_bytes += value.nbytes
            else:  # a table, a list, an attrs object: whoever made it may change it later
                value = copy.deepcopy(value)
        pending = self._pending
        pending.append(value)
        if len(pending) >= CHUNK_VALUES or self._pending_bytes >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Turn pending values into a chunk."""
        if not self._pending:
            return
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        self._starts.append(self._flushed)
        self._flushed += len(pending)
        array = _as_array(pending)
        if array is not None:
            self._digest_array(array)
            self._chunks.append(shrink(array))
            return
        # Mixed values are digested run by run of one kind, so that the digest does not depend on where chunks end.
        for _, run in itertools.groupby(pending, key=_kind):
            values = list(run)
            part = _as_array(values)
            if part is not None:
                self._digest_array(part)
                continue
            self._shape = "json"
            for value in values:
                text = json.dumps(_tagged(plain(value, self.name)), sort_keys=True, separators=(",", ":"), default=_unwritable)
                self._hash.update(b"j" + text.encode() + b"\n")
        self._chunks.append(pending)

    def _digest_array(self, array: np.ndarray) -> None:
        shape = f"{array.dtype.kind}{array.shape[1:]}"
        if shape != self._shape:
            self._hash.update(f"<{shape}>".encode())
            self._shape = shape
        self._hash.update(_canonical(array).tobytes())

    @property
    def digest(self) -> str:
        """SHA-256 over all values so far, independent of chunking."""
        self.flush()
        return self._hash.hexdigest()

    def array(self) -> np.ndarray:
        """Return all values stacked along a leading axis: [T, …]. Raises ProtocolError when they differ in shape."""
        self.flush()
        if not self._chunks:
            return np.empty((0,))
        if any(isinstance(c, list) for c in self._chunks):
            raise ProtocolError(f"column {self.name!r} holds values that are no equal-shaped arrays; iterate over it instead.")
        return np.concatenate([np.asarray(c) for c in self._chunks])

    def __len__(self) -> int:
        return self._flushed + len(self._pending)

    def __iter__(self) -> Iterator[Any]:
        self.flush()
        for chunk in self._chunks:
            yield from chunk

    def __getitem__(self, index: int) -> Any:
        self.flush()
        length = self._flushed
        if not -length <= index < length:
            raise IndexError(f"column {self.name!r} has {length} values, asked for {index}")
        index %= length
        k = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._chunks[k][index - self._starts[k]]

    def unwritten(self) -> Iterator[tuple[int, np.ndarray | list[Any]]]:
        """Yield finished chunks not yet written, with their numbers."""
        while self._written < len(self._chunks):
            yield self._written, self._chunks[self._written]
            self._written += 1


def _kind(value: Any) -> tuple[Any, ...]:
    """Return what must agree for values to be stacked."""
    if isinstance(value, np.ndarray):
        return ("array", value.dtype, value.shape)
    for kind in ((bool, np.bool_), (int, np.integer), (float, np.floating)):
        if isinstance(value, kind):
            return (kind[0],)
    return ("other",)


def _tagged(value: Any) -> Any:
    """Return plain data in which a table's keys cannot be mistaken for a list's or for bytes."""
    if isinstance(value, dict):
        return {f"k{k}": _tagged(v) for k, v in value.items()}
    return [_tagged(v) for v in value] if isinstance(value, list) else value


def _unwritable(value: Any) -> Any:
    raise ProtocolError(f"a value of type {type(value).__name__} cannot be recorded. Use numbers, text or arrays of numbers.")


def _as_array(values: list[Any]) -> np.ndarray | None:
    """Return values stacked, or None when they are no numbers of one shape."""
    first = values[0]
    if isinstance(first, np.ndarray):
        if first.dtype.kind in "OUS" or any(
            not isinstance(v, np.ndarray) or v.shape != first.shape or v.dtype != first.dtype for v in values
        ):
            return None
        return np.stack(values)
    if all(isinstance(v, (bool, np.bool_)) for v in values):
        return np.array(values, dtype=bool)
    if all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in values):
        try:
            return np.array(values, dtype=np.int64)
        except OverflowError:
            return None
    if all(isinstance(v, (float, np.floating)) for v in values):
        return np.array(values, dtype=np.float64)
    return None


@attrs.define
class EpisodeColumns:
    """Everything recorded of one episode."""

    said: Column = attrs.field(factory=lambda: Column("actions"))
    actions: Column = attrs.field(factory=lambda: Column("native.actions"))
    rewards: Column = attrs.field(factory=lambda: Column("native.rewards"))
    terminated: Column = attrs.field(factory=lambda: Column("native.terminated"))
    truncated: Column = attrs.field(factory=lambda: Column("native.truncated"))
    observations: Column | None = None
    infos: Column | None = None
    notes: Column | None = None

    def columns(self) -> list[Column]:
        every = (
            self.said,
            self.actions,
            self.rewards,
            self.terminated,
            self.truncated,
            self.observations,
            self.infos,
            self.notes,
        )
        return [c for c in every if c is not None]

    def digest(self) -> str:
        """Digest of actions, rewards and flags."""
        parts = (self.said, self.actions, self.rewards, self.terminated, self.truncated)
        return hashlib.sha256("".join(c.digest for c in parts).encode()).hexdigest()


class Recorder(Episode[Any, Any]):
    """Wraps the task's episode, below the runtime: writes down what reaches the task, and holds it to its promises.

    It hands the truth to the driver alone: `truth`, which a runtime can call, returns None here.
    """

    def __init__(self, episode: Episode[Any, Any], columns: EpisodeColumns, where: str, clock: Any) -> None:
        self._episode = episode
        self._columns = columns
        self._where = where
        self._clock = clock
        self._over = False
        self._done: np.ndarray | None = None
        self.world_wall = 0.0
        self.world_cpu = 0.0
        self.start: Start[Any] | None = None

    def reset(self) -> Start[Any]:
        if self.start is not None:
            raise ProtocolError(f"{self._where}: reset was called twice. Start a new episode from the task instead.")
        wall, cpu = self._clock()
        start = self._episode.reset()
        wall_end, cpu_end = self._clock()
        self.world_wall += wall_end - wall
        self.world_cpu += cpu_end - cpu
        if not isinstance(start, Start):
            raise ProtocolError(f"{self._where}: reset must return a Start, got {type(start).__name__}.")
        self.start = start
        if self._columns.observations is not None:
            self._columns.observations.append(start.observation)
        return start

    def step(self, action: Any) -> Step[Any]:
        if self._over:
            raise ProtocolError(f"{self._where}: step was called after the episode was over.")
        columns = self._columns
        wall, cpu = self._clock()
        step = self._episode.step(action)
        wall_end, cpu_end = self._clock()
        self.world_wall += wall_end - wall
        self.world_cpu += cpu_end - cpu
        if not isinstance(step, Step):
            raise ProtocolError(f"{self._where}: step must return a Step, got {type(step).__name__}.")
        columns.actions.append(action)
        reward = step.reward
        columns.rewards.append(reward)
        columns.terminated.append(step.terminated)
        columns.truncated.append(step.truncated)
        if columns.observations is not None:
            columns.observations.append(step.observation)
        if columns.infos is not None:
            columns.infos.append(dict(step.info))
        if np.ndim(step.terminated) == 1:
            self._check_batch(step)
        if reward is None or not (math.isfinite(reward) if isinstance(reward, (int, float)) else np.isfinite(reward).all()):
            raise ProtocolError(
                f"{self._where}: the reward of step {len(columns.actions)} is {reward!r}, expected a finite number. "
                "Mend the task's step."
            )
        self._over = step.over
        return step

    def _check_batch(self, step: Step[Any]) -> None:
        """Hold a batched episode to its promise: finished items stay finished and earn nothing."""
        where = f"{self._where}, step {len(self._columns.actions)}"
        n_items = len(step.terminated)
        done = np.asarray(step.terminated, bool) | np.asarray(step.truncated, bool)
        if np.shape(step.reward) != (n_items,) or done.shape != (n_items,):
            raise ProtocolError(
                f"{where}: reward has shape {np.shape(step.reward)} and flags {done.shape}, expected ({n_items},): one for each item."
            )
        before = self._done
        if before is not None:
            if len(before) != n_items:
                raise ProtocolError(f"{where}: the batch had {len(before)} items and has {n_items} now.")
            if (before & ~done).any():
                raise ProtocolError(f"{where}: item {int((before & ~done).argmax())} was finished and is alive again. Keep its flag.")
            paid = before & (np.asarray(step.reward) != 0)
            if paid.any():
                item = int(paid.argmax())
                raise ProtocolError(f"{where}: finished item {item} earned {step.reward[item]!r}; finished items earn 0.")
        if step.over != bool(done.all()):
            raise ProtocolError(f"{where}: over is {step.over}, but {int(done.sum())} of {n_items} items are finished.")
        self._done = done

    def take_truth(self) -> Mapping[str, Any] | None:
        """Return the task's truth: for the driver alone."""
        return self._episode.truth()


class TraceFile:
    """A zip of column chunks, streamed; past `limit` bytes only digests are kept, and `complete` turns false."""

    def __init__(self, path: Path, limit: int = 64 << 20) -> None:
        self.path = path
        self.limit = limit
        self.complete = True
        self._bytes = 0
        self._lock = threading.Lock()
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1)

    def write_chunks(self, episode: int, columns: EpisodeColumns) -> None:
        """Write the finished chunks of an episode's columns."""
        for column in columns.columns():
            column.flush()
            for number, chunk in column.unwritten():
                name = f"e{episode:06d}/{column.name}/{number:04d}"
                if isinstance(chunk, np.ndarray):
                    buffer = io.BytesIO()
                    np.save(buffer, chunk, allow_pickle=False)
                    self._write(name + ".npy", buffer.getvalue())
                else:
                    self._write(name + ".json", json.dumps([plain(v, column.name) for v in chunk]).encode())

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON entry."""
        self._write(name, json.dumps(plain(value, name)).encode())

    def _write(self, name: str, data: bytes) -> None:
        with self._lock:
            if not self.complete:
                return
            self._zip.writestr(name, data)
            self._bytes = self._zip.fp.tell() if self._zip.fp else 0
            if self._bytes > self.limit:
                self.complete = False

    def close(self) -> None:
        """Finish the file; over the limit, replace it by an empty one so that no half trace passes for a whole."""
        self._zip.close()
        if not self.complete:
            with zipfile.ZipFile(self.path, "w") as empty:
                empty.writestr("README", f"Over the limit of {self.limit} bytes: the record holds the digest alone.\n")


def read_trace(path: Path, episode: int = 0) -> dict[str, Any]:
    """Return an episode's columns by name: arrays [T, …] where the values are numbers, else lists."""
    found: dict[str, list[Any]] = {}
    prefix = f"e{episode:06d}/"
    with zipfile.ZipFile(path) as archive:
        for name in sorted(n for n in archive.namelist() if n.startswith(prefix)):
            column, _, leaf = name[len(prefix) :].rpartition("/")
            data = archive.read(name)
            if leaf.endswith(".npy"):
                found.setdefault(column, []).append(np.load(io.BytesIO(data), allow_pickle=False))
            elif column:
                found.setdefault(column, []).append(json.loads(data))
            else:
                found[leaf.removesuffix(".json")] = [json.loads(data)]
    result: dict[str, Any] = {}
    for column, chunks in found.items():
        if all(isinstance(c, np.ndarray) for c in chunks):
            result[column] = np.concatenate(chunks)
        elif column in ("truth", "notes", "start", "digest"):
            result[column] = chunks[0]
        else:
            result[column] = [v for c in chunks for v in c]
    return result
