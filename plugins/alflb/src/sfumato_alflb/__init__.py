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
    "dual_change": "theory",
    "preference": "theory",
    "approximate_balance": "theory",
    "improvement_over_run": "theory",
    "window_count": "theory",
    "separating_step": "theory",
    "estimate_convexity": "convexity",
    "pair_weight": "convexity",
    "uniform_modulus": "convexity",
    "iid_modulus": "convexity",
    "Convexity": "convexity",
    "online_run": "online",
    "OnlineRun": "online",
    "regret_bound": "online",
    "regret_slope": "online",
    "spectral_slope": "online",
    "fitted_slope": "online",
    "fixed_scores": "streams",
    "ScoreStream": "streams",
    "StreamSpec": "streams",
    "bip": "peers",
    "two_sided_quantile": "peers",
    "sinkhorn": "peers",
    "expert_choice": "peers",
    "SwitchOffsets": "peers",
    "Balancer": "balancer",
    "loads_by_rank": "balancer",
    "attach": "attaching",
    "Attached": "attaching",
    "Gate": "gates",
    "diagnose": "diagnosis",
    "Diagnosis": "diagnosis",
    "Regrets": "diagnosis",
    "regrets": "diagnosis",
    "ServingMonitor": "serving",
    "place_experts": "serving",
    "Placement": "serving",
    "group_limited": "peers",
    "RouterLog": "routerlog",
    "LayerLog": "routerlog",
    "load_router_log": "routerlog",
}

__all__ = [
    "RULES",
    "AlfProblem",
    "AlfRun",
    "AlflbError",
    "ArgumentError",
    "Attached",
    "BalanceState",
    "Balancer",
    "BiasRouter",
    "BiasRule",
    "Certificate",
    "Convexity",
    "Diagnosis",
    "Gate",
    "InfeasibleError",
    "LayerLog",
    "LoadReport",
    "LpSolution",
    "MissingExtraError",
    "OnlineRun",
    "Placement",
    "Regrets",
    "Routed",
    "RouterLog",
    "Routing",
    "ScoreStream",
    "ServingMonitor",
    "StreamSpec",
    "SwitchOffsets",
    "affinity",
    "alf_run",
    "approximate_balance",
    "attach",
    "bip",
    "certificate",
    "diagnose",
    "dual_change",
    "dual_value",
    "estimate_convexity",
    "expert_choice",
    "find_cycle",
    "fitted_slope",
    "fixed_scores",
    "group_limited",
    "iid_modulus",
    "improvement_over_run",
    "load_report",
    "load_router_log",
    "loads_by_rank",
    "lp_reference",
    "max_vio",
    "min_vio",
    "online_run",
    "pair_weight",
    "place_experts",
    "preference",
    "regret_bound",
    "regret_slope",
    "regrets",
    "route",
    "separating_step",
    "sequence_balance_loss",
    "sinkhorn",
    "softmax_rate",
    "spectral_slope",
    "switch_loss",
    "switching_benefit",
    "top_k_stable",
    "two_sided_quantile",
    "uniform_modulus",
    "update_biases",
    "window_count",
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
