"""Neural combinatorial optimisation by bisimulation quotienting, and what people need around it.

`solve("X-n101-k25.vrp", time_limit=10)` returns a validated solution of an instance file; `BQPolicy` solves arrays of
instances with a trained network. Names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import BqncoError, InfeasibleSolution, InstanceError, WeightsError
    from .instances import Instance
    from .policy import BQPolicy
    from .readers import read, read_solution
    from .solving import Answer, solve
    from .validate import objective
    from .writers import write_solution

__version__ = "0.1.0"

_HOME = {
    "solve": "solving",
    "Answer": "solving",
    "BQPolicy": "policy",
    "Instance": "instances",
    "read": "readers",
    "read_solution": "readers",
    "write_solution": "writers",
    "objective": "validate",
    "BqncoError": "errors",
    "InstanceError": "errors",
    "InfeasibleSolution": "errors",
    "WeightsError": "errors",
}

__all__ = [
    "Answer",
    "BQPolicy",
    "BqncoError",
    "InfeasibleSolution",
    "Instance",
    "InstanceError",
    "WeightsError",
    "objective",
    "read",
    "read_solution",
    "solve",
    "write_solution",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    except ModuleNotFoundError as error:
        if error.name == "torch":
            raise ImportError(
                f"{name} needs torch, which is not installed; pip install 'sfumato-bqnco[torch]'"
            ) from error
        raise
    globals()[name] = value
    return value
