"""What may be imported: the standard library, declared packages, and modules the code wrote itself.

Landlock is what keeps undeclared packages unreadable. This finder turns the PermissionError that an
import of theirs would meet into the ImportError that callers expect, and says what there is.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class DeclaredFinder:
    """First on `sys.meta_path`; decides top-level names only."""

    def __init__(self, importable: Sequence[str], declared: Sequence[str]) -> None:
        self.importable = frozenset(importable) | sys.stdlib_module_names
        self.declared = declared

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Leave known names to the usual finders; look for others in the working directory alone."""
        if path is not None or name in self.importable or name in sys.builtin_module_names:
            return None
        spec = PathFinder.find_spec(name, [""])
        if spec is not None and spec.loader is not None:
            return spec
        listed = ", ".join(self.declared) or "none"
        raise ModuleNotFoundError(
            f"No module named {name!r} (packages beside the standard library that may be imported here: {listed})",
            name=name,
        )


def figures_on_show() -> None:
    """Make `pyplot.show()` write open figures to figure-1.png, figure-2.png … where there is no screen."""
    import os

    from matplotlib import pyplot

    def show(*args: object, **kwargs: object) -> None:
        """Write the open figures to the working directory and close them."""
        number = 1
        for figure in pyplot.get_fignums():
            while os.path.exists(f"figure-{number}.png"):
                number += 1
            pyplot.figure(figure).savefig(f"figure-{number}.png")
            pyplot.close(figure)

    pyplot.show = show
