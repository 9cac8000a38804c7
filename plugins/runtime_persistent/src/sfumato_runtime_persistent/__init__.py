"""One Python process for an episode: what an action binds, the next one finds.

The machinery is `sfumato_sandbox`; this package puts it behind the Runtime protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfumato_runtime_persistent.config import PersistentConfig
    from sfumato_runtime_persistent.runtime import PersistentPython

__version__ = "0.1.0"
__all__ = ["PersistentConfig", "PersistentPython"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        module = "config" if name.endswith("Config") else "runtime"
        return getattr(import_module(f"sfumato_runtime_persistent.{module}"), name)
    raise AttributeError(f"module 'sfumato_runtime_persistent' has no attribute {name!r}")
