"""Plan for agents that see only in part: vectorised online POMDP planning on the CPU and, where there is one, a GPU.

The names below are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "VOPP": "planner",
    "POMCP": "planner",
    "PORPP": "planner",
    "DESPOT": "planner",
    "Decision": "planner",
    "PlanStats": "planner",
    "SearchConfig": "config",
    "POMCPConfig": "config",
    "DESPOTConfig": "config",
    "PORPPConfig": "config",
    "ScalarSimulator": "adapters",
    "ContinuousModel": "adapters",
    "load_pomdp": "pomdpfile",
    "parse_pomdp": "pomdpfile",
    "TabularModel": "tabular",
    "Tag": "models.tag",
    "LaserTag": "models.lasertag",
    "LightDark": "models.lightdark",
    "Mars": "models.mars",
    "Navigation": "models.navigation",
    "CrowdNav": "models.crowdnav",
    "Model": "model",
    "Step": "model",
    "Transitions": "model",
    "CompiledModel": "model",
    "check_model": "model",
    "Belief": "belief",
    "ParticleFilter": "belief",
    "ExactFilter": "belief",
    "VoppError": "errors",
    "ModelError": "errors",
    "BeliefError": "errors",
    "DegenerateBelief": "errors",
    "FileFormatError": "errors",
    "Tiger": "models.tiger",
    "RockSample": "models.rocksample",
}

__all__ = sorted(_WHERE)

if TYPE_CHECKING:
    from sfumato_vopp.belief import (
        Belief as Belief,
    )
    from sfumato_vopp.belief import (
        ExactFilter as ExactFilter,
    )
    from sfumato_vopp.belief import (
        ParticleFilter as ParticleFilter,
    )
    from sfumato_vopp.config import (
        DESPOTConfig as DESPOTConfig,
    )
    from sfumato_vopp.config import (
        POMCPConfig as POMCPConfig,
    )
    from sfumato_vopp.config import (
        PORPPConfig as PORPPConfig,
    )
    from sfumato_vopp.config import (
        SearchConfig as SearchConfig,
    )
    from sfumato_vopp.errors import (
        BeliefError as BeliefError,
    )
    from sfumato_vopp.errors import (
        DegenerateBelief as DegenerateBelief,
    )
    from sfumato_vopp.errors import (
        FileFormatError as FileFormatError,
    )
    from sfumato_vopp.errors import (
        ModelError as ModelError,
    )
    from sfumato_vopp.errors import (
        VoppError as VoppError,
    )
    from sfumato_vopp.model import (
        CompiledModel as CompiledModel,
    )
    from sfumato_vopp.model import (
        Model as Model,
    )
    from sfumato_vopp.model import (
        Step as Step,
    )
    from sfumato_vopp.model import (
        Transitions as Transitions,
    )
    from sfumato_vopp.model import (
        check_model as check_model,
    )
    from sfumato_vopp.models.rocksample import (
        RockSample as RockSample,
    )
    from sfumato_vopp.models.tiger import (
        Tiger as Tiger,
    )
    from sfumato_vopp.planner import (
        DESPOT as DESPOT,
    )
    from sfumato_vopp.planner import (
        POMCP as POMCP,
    )
    from sfumato_vopp.planner import (
        PORPP as PORPP,
    )
    from sfumato_vopp.planner import (
        VOPP as VOPP,
    )
    from sfumato_vopp.planner import (
        Decision as Decision,
    )
    from sfumato_vopp.planner import (
        PlanStats as PlanStats,
    )


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"sfumato_vopp.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'sfumato_vopp' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
