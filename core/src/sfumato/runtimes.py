"""The built-in runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sfumato.protocols import Context, Episode


class Direct:
    """Hands actions to the task as they are."""

    @contextmanager
    def open(self, episode: Episode[Any, Any], ctx: Context) -> Iterator[Episode[Any, Any]]:
        """Yield the episode itself."""
        yield episode
