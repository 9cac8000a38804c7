"""Whether a finished run is still what its experiment would give today: by the code of its plugins and its data files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sfumato.index import NAMED, Index, Summary
from sfumato.provenance import code_digest

FINISHED = ("ok", "unsupported")


class Staleness:
    """Tells stale runs of one store. What it has looked up once it takes for granted: made for one command.

    `data_dir` is where data files lie now, as `--data-dir` says. A file that a setting named by a relative path is looked
    for from the present folder. What is not installed here, or lies in no folder that is known, tells nothing.
    """

    def __init__(self, index: Index, data_dir: str | Path | None = None, code: Mapping[str, str] | None = None) -> None:
        self._index = index
        self._data_dir = Path(data_dir) if data_dir else None
        self._code: dict[str, str] = dict(code or {})
        self._files: dict[str, str] = {}

    def because(self, summary: Summary) -> str:
        """Return why a run is stale, as the end of a sentence; "" when it is not, or has not ended well."""
        if summary.status not in FINISHED:
            return ""
        for package, then in summary.code.items():
            now = self._digest_of_code(package)
            if now and now != then:
                return f"the code of {package} has changed since ({then} then, {now} now)"
        for name, then in summary.data.items():
            now = self._digest_of_file(name)
            if now and now != then:
                return f"the data file {name.removeprefix(NAMED)} has changed since ({then[:12]} then, {now[:12]} now)"
        return ""

    def _digest_of_code(self, package: str) -> str:
        if package not in self._code:
            try:
                self._code[package] = code_digest(package)
            except (ImportError, ValueError):
                self._code[package] = ""
        return self._code[package]

    def _digest_of_file(self, name: str) -> str:
        if name not in self._files:
            self._files[name] = next((d for path in self._places(name) if (d := self._index.file_digest(path))), "")
        return self._files[name]

    def _places(self, name: str) -> list[Path]:
        if name.startswith(NAMED):
            return [Path(name)]
        from sfumato.context import default_data_dir  # not at the top: NumPy comes with it

        return [root / name for root in (*([self._data_dir] if self._data_dir else []), default_data_dir())]
