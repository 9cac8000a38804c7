"""Fair acceptance thresholds under bandit feedback, while the population answers back.

Use it as a library: `ThresholdBandit` serves one stream of decisions; `OptimisticFeasible` and its baselines choose arms for many seeds at once, `BetaLoop` and
`PoolLoop` are closed loops, `sweep` is the oracle. Names are imported when first used.

Source: W. Du, "Optimistic Feasible Search for Closed-Loop Fair Threshold Decision-Making", arXiv:2512.22313.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfumato_ofs.audit import AuditLog, Head
    from sfumato_ofs.config import (
        ObservedScoresConfig,
        OptimisticFeasibleConfig,
        PrimalDualConfig,
        UnconstrainedConfig,
    )
    from sfumato_ofs.constraints import Constraints, reward_scale
    from sfumato_ofs.learners import PrimalDual, Unconstrained
    from sfumato_ofs.log_replay import replay, resume
    from sfumato_ofs.logged import read_scores, sweep_scores
    from sfumato_ofs.loops import BetaLoop, PoolLoop, product_arms, shared_arms, threshold_grid
    from sfumato_ofs.mixing import bias_allowance, block_length
    from sfumato_ofs.observed import ObservedScores
    from sfumato_ofs.oracle import Sweep, sweep
    from sfumato_ofs.search import OptimisticFeasible
    from sfumato_ofs.simulate import World, play
    from sfumato_ofs.threshold_bandit import ThresholdBandit

__version__ = "0.1.0"

_WHERE = {
    "AuditLog": "audit",
    "Head": "audit",
    "bias_allowance": "mixing",
    "block_length": "mixing",
    "read_scores": "logged",
    "sweep_scores": "logged",
    "ObservedScores": "observed",
    "ObservedScoresConfig": "config",
    "ThresholdBandit": "threshold_bandit",
    "replay": "log_replay",
    "resume": "log_replay",
    "OptimisticFeasibleConfig": "config",
    "PrimalDualConfig": "config",
    "UnconstrainedConfig": "config",
    "Constraints": "constraints",
    "reward_scale": "constraints",
    "OptimisticFeasible": "search",
    "PrimalDual": "learners",
    "Unconstrained": "learners",
    "BetaLoop": "loops",
    "PoolLoop": "loops",
    "product_arms": "loops",
    "shared_arms": "loops",
    "threshold_grid": "loops",
    "Sweep": "oracle",
    "sweep": "oracle",
    "World": "simulate",
    "play": "simulate",
}

__all__ = [
    "AuditLog",
    "BetaLoop",
    "Constraints",
    "Head",
    "ObservedScores",
    "ObservedScoresConfig",
    "OptimisticFeasible",
    "OptimisticFeasibleConfig",
    "PoolLoop",
    "PrimalDual",
    "PrimalDualConfig",
    "Sweep",
    "ThresholdBandit",
    "Unconstrained",
    "UnconstrainedConfig",
    "World",
    "bias_allowance",
    "block_length",
    "play",
    "product_arms",
    "read_scores",
    "replay",
    "resume",
    "reward_scale",
    "shared_arms",
    "sweep",
    "sweep_scores",
    "threshold_grid",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"sfumato_ofs.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'sfumato_ofs' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
