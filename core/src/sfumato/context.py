"""The context of a run: streams, shard, device, data files, artifacts, other components."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from sfumato import seeding
from sfumato.errors import DataMismatch, DataMissing, StoreError


def _no_progress(fraction: float, message: str) -> None:
    return


@attrs.define
class RunContext:
    """What a component may ask of its run; see `protocols.Context`."""

    seed: int = 0
    train_seed: int = 0
    indices: Sequence[int] = range(1)
    batch_size: int | None = None
    backend: str | None = None
    device: str = "cpu"
    dtype: str | None = None
    n_threads: int = 1
    data_dir: Path | None = None
    task: Mapping[str, Any] = attrs.field(factory=dict)  # name, version and settings of the run's task; empty outside a run
    artifacts: ArtifactStore = attrs.field(factory=lambda: ArtifactStore(None))
    on_progress: Callable[[float, str], None] = _no_progress
    files_used: dict[str, str] = attrs.field(factory=dict)
    code_used: dict[str, str] = attrs.field(factory=dict)  # of packages whose components were asked for
    solving: bool = False

    def chunks(self) -> Iterator[tuple[int, ...]]:
        """Yield the item indices of each batch, at most `batch_size` each (all at once when it is None)."""
        size = self.batch_size or max(len(self.indices), 1)
        for first in range(0, len(self.indices), size):
            yield tuple(self.indices[first : first + size])

    def stream(self, name: str, *keys: int) -> np.random.Generator:
        """Return the generator of a named stream; the stream "train" follows `train_seed`, all others `seed`."""
        if name == "train":
            return seeding.stream(self.train_seed, name, *keys)
        if self.solving and name != "policy":
            return seeding.stream(self.train_seed, f"solve/{name}", *keys)
        return seeding.stream(self.seed, name, *keys)

    def for_solving(self) -> RunContext:
        """Return the context that `Solver.solve` gets: its instances and worlds are not those that are scored."""
        return attrs.evolve(self, solving=True)

    def data_file(self, relative: str, *, sha256: str | Sequence[str] | None = None, fetch: str = "") -> Path:
        """Return the path of a data file under the data directory (--data-dir or SFUMATO_DATA).

        Raises DataMissing, naming the command `fetch`, when the file is absent; DataMismatch when its SHA-256 is
        none of `sha256`.
        """
        advice = f"Run '{fetch}', or give the folder that holds it with --data-dir DIR or SFUMATO_DATA." if fetch else (
            "Give the folder that holds it with --data-dir DIR or SFUMATO_DATA."
        )
        roots = [self.data_dir] if self.data_dir else []
        roots.append(default_data_dir())
        for root in roots:
            path = root / relative
            if path.is_file():
                digest = file_digest(path)
                wanted = (sha256,) if isinstance(sha256, str) else sha256
                if wanted is not None and digest not in wanted:
                    raise DataMismatch(
                        f"{path}: SHA-256 is {digest}, expected {' or '.join(wanted)}: not the file that the figures rest "
                        f"on. {advice}"
                    )
                self.files_used[relative] = digest
                return path
        raise DataMissing(f"the data file {relative!r} was looked for in {', '.join(map(str, roots))} and is in none. {advice}")

    def component(self, ref: str, settings: Mapping[str, Any] | None = None, kind: str = "solver") -> Any:
        """Build another component by its reference, so that a solver can stand on a solver.

        The code of its package counts as this run's: when it changes, the run is stale.
        """
        from sfumato import config, plugins
        from sfumato.provenance import code_of

        spec = plugins.Registry().find(kind, ref)
        for package, digest in code_of([spec.target]).items():
            self.code_used.setdefault(package, digest)
        return plugins.build(spec, settings or {}, config.structure)

    def progress(self, fraction: float, message: str = "") -> None:
        """Report how far this run has come, 0 to 1."""
        self.on_progress(min(max(fraction, 0.0), 1.0), message)


def default_data_dir() -> Path:
    """Return where `sfumato … fetch` puts files: XDG_DATA_HOME/sfumato, or ~/.local/share/sfumato."""
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "sfumato"


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


class ArtifactStore:
    """Results of training, under one folder per (component, settings); built once, by one process at a time."""

    def __init__(self, root: Path | None) -> None:
        self.root = root

    def get_or_build(self, component: str, settings: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """Return the folder of an artifact, calling `build(folder)` first when it is not there.

        A build that raises leaves nothing behind. `settings` must hold all that decides the result (data digests
        and the train seed among them); the code of the package that builds is part of the key.
        """
        root = self.root or Path(tempfile.gettempdir()) / f"sfumato-artifacts-{os.getuid()}"
        from sfumato.provenance import code_digest
        from sfumato.trace import plain

        told = plain(settings, f"settings of artifact {component!r}")
        code = code_digest(build.__module__.partition(".")[0])
        key = hashlib.sha256(json.dumps([component, told, code], sort_keys=True).encode()).hexdigest()[:16]
        final = root / component.replace("/", "--") / key

        def failed(error: OSError) -> StoreError:
            return StoreError(f"cannot keep the artifact of {component!r} in {root}: {error}. Choose another --store.")

        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            lock = (final.parent / f"{key}.lock").open("w")
        except OSError as error:
            raise failed(error) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if final.is_dir():
                return final
            try:
                partial = Path(tempfile.mkdtemp(prefix=f"{key}.partial-", dir=final.parent))
            except OSError as error:
                raise failed(error) from error
            try:
                build(partial)  # its own errors are its own: a missing file, a server that does not answer
                try:
                    (partial / "settings.json").write_text(json.dumps(told, indent=1, sort_keys=True))
                    partial.rename(final)
                except OSError as error:
                    raise failed(error) from error
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        return final
