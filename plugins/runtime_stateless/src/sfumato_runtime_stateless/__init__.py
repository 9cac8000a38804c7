"""A fresh Python process for every action: nothing survives but what reached the task.

The machinery is `sfumato_sandbox`; this package puts it behind the Runtime protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfumato_runtime_stateless.config import StatelessConfig
    from sfumato_runtime_stateless.runtime import StatelessPython

__version__ = "0.1.0"
__all__ = ["StatelessConfig", "StatelessPython"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from importlib import import_module

        module = "config" if name.endswith("Config") else "runtime"
        return getattr(import_module(f"sfumato_runtime_stateless.{module}"), name)
    raise AttributeError(f"module 'sfumato_runtime_stateless' has no attribute {name!r}")
