"""Routers of mixture-of-experts models that balance themselves, with the theory as checks.

The numpy part needs no torch: everything here is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_EXPORTS = {
    "AlfProblem": "problem",
    "Routing": "problem",
    "affinity": "problem",
    "dual_value": "problem",
    "max_vio": "problem",
    "min_vio": "problem",
    "route": "problem",
    "switching_benefit": "problem",
    "top_k_stable": "problem",
    "RULES": "rules",
    "BiasRule": "rules",
    "AlfRun": "run",
    "alf_run": "run",
    "Certificate": "certificates",
    "certificate": "certificates",
    "LpSolution": "lp",
    "lp_reference": "lp",
    "find_cycle": "cycles",
    "AlflbError": "errors",
    "ArgumentError": "errors",
    "InfeasibleError": "errors",
    "MissingExtraError": "errors",
    "BalanceState": "state",
    "LoadReport": "state",
    "load_report": "state",
    "update_biases": "state",
    "BiasRouter": "router",
    "Routed": "router",
    "softmax_rate": "router",
    "sequence_balance_loss": "losses",
    "switch_loss": "losses",
    "z_loss": "losses",
}

__all__ = [
    "RULES",
    "AlfProblem",
    "AlfRun",
    "AlflbError",
    "ArgumentError",
    "BalanceState",
    "BiasRouter",
    "BiasRule",
    "Certificate",
    "InfeasibleError",
    "LoadReport",
    "LpSolution",
    "MissingExtraError",
    "Routed",
    "Routing",
    "affinity",
    "alf_run",
    "certificate",
    "dual_value",
    "find_cycle",
    "load_report",
    "lp_reference",
    "max_vio",
    "min_vio",
    "route",
    "sequence_balance_loss",
    "softmax_rate",
    "switch_loss",
    "switching_benefit",
    "top_k_stable",
    "update_biases",
    "z_loss",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        try:
            module = importlib.import_module(f"{__name__}.{_EXPORTS[name]}")
        except ModuleNotFoundError as error:
            if error.name == "torch":
                from .errors import MissingExtraError

                raise MissingExtraError(f"sfumato_alflb.{name}", "torch") from error
            raise
        # Some names are also the name of their module: always hand out the object, not the module.
        value = getattr(module, name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
