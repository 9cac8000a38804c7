"""What a section of the report may be made of. A plugin's section is a callable `(RunView) -> part or list of parts`.

Text that comes from outside (names, errors, model output) is escaped by the pages; a part never holds markup, except
the frames of a Playback, which are SVG that the plugin drew itself with escaped text.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from sfumato.records import RunRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442", "#000000")
"""Okabe and Ito's eight colours, told apart by colour-blind readers."""


@attrs.frozen
class Text:
    """A paragraph."""

    text: str


@attrs.frozen
class Plot:
    """A Plotly figure as plain data (`{"data": [...], "layout": {...}}`) and what it shows, in words."""

    figure: Mapping[str, Any]
    alt: str


@attrs.frozen
class Table:
    """A sortable table; cells are text or numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""


@attrs.frozen
class Playback:
    """Frames to be played: each an SVG drawing, with a caption. `seconds` is how long one frame stays."""

    frames: Sequence[str]
    captions: Sequence[str]
    alt: str
    seconds: float = 0.1


@attrs.frozen
class Turn:
    """One turn of a transcript: who, what was written, what came back, and what was left in memory."""

    who: str
    code: str = ""
    output: str = ""
    state: str = ""
    tokens: int | None = None


@attrs.frozen
class Transcript:
    """A conversation of code and output."""

    turns: Sequence[Turn]


Part = Text | Plot | Table | Playback | Transcript


@attrs.frozen
class RunView:
    """What a section may look at: the record, the rows, the trace."""

    record: RunRecord
    rows: Sequence[Mapping[str, Any]]
    folder: Path
    data_dir: Path | None = None  # where data files lie; None: where SFUMATO_DATA says

    def trace(self, episode: int = 0) -> Mapping[str, Any]:
        """Return an episode's columns by name ({} when the trace was not kept); see `sfumato.trace.read_trace`."""
        from sfumato.trace import read_trace

        path = self.folder / "trace.zip"
        return read_trace(path, episode) if path.exists() else {}

    def instance(self, episode: int = 0) -> Any:
        """Return an episode's instance, made again from the run's specification (instances follow from the seed).

        Raises what the task raises when its plugin or data file is not here.
        """
        from sfumato import config, plugins
        from sfumato.context import RunContext

        spec = self.record.spec
        task = plugins.build(plugins.Registry().find("task", spec.task.name), spec.task.settings, config.structure)
        data = self.data_dir or os.environ.get("SFUMATO_DATA")
        ctx = RunContext(
            seed=spec.seed, indices=spec.indices, batch_size=spec.batch, data_dir=Path(data) if data else None
        )
        return next(itertools.islice(task.instances(ctx), episode, None))

    def metric(self, name: str) -> Iterator[float]:
        """Yield a metric's values, item by item."""
        for row in self.rows:
            for metric in row["metrics"]:
                if metric["name"] == name:
                    yield from metric["values"]
