"""Consistent parallel trajectory optimisation under partial observation (CPTO)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfumato_cpto.config import Bounds, PlannerSettings, Stage, Weights
    from sfumato_cpto.problem import Hypotheses, Obstacles, State
    from sfumato_cpto.solver import CPTOSolver, Plan
    from sfumato_cpto.statuses import Status

_EXPORTS = {
    "Bounds": "config",
    "PlannerSettings": "config",
    "Stage": "config",
    "Weights": "config",
    "Hypotheses": "problem",
    "Obstacles": "problem",
    "State": "problem",
    "CPTOSolver": "solver",
    "Plan": "solver",
    "Status": "statuses",
}
__all__ = [
    "Bounds",
    "CPTOSolver",
    "Hypotheses",
    "Obstacles",
    "Plan",
    "PlannerSettings",
    "Stage",
    "State",
    "Status",
    "Weights",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_EXPORTS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}")
