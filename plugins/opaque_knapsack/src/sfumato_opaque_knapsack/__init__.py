"""Opaque Knapsack: hidden items behind budgeted tools, for agents that write code.

    from sfumato_opaque_knapsack import World, generate

    world = World(generate("easy", 123_456_789))
    ids = world.call("list_items")

Names are loaded when first used, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "Instance": "instances",
    "Level": "instances",
    "LEVELS": "instances",
    "generate": "instances",
    "generate_many": "instances",
    "solve_knapsack": "instances",
    "World": "world",
    "Outcome": "world",
    "BadToolCall": "world",
    "ToolFailure": "world",
    "replay": "world",
    "LADDER": "ladder",
    "ScriptedExpert": "experts",
    "Injector": "experts",
    "FAULTS": "experts",
    "STYLES": "styles",
}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
