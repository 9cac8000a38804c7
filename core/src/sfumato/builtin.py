"""What the core itself offers: the direct runtime and the general evaluator."""

from __future__ import annotations

from collections.abc import Iterator

from sfumato.hookspecs import PLUGIN_API, hookimpl
from sfumato.records import BackendSpec, ComponentSpec

__all__ = ["PLUGIN_API", "sfumato_components"]


@hookimpl
def sfumato_components() -> Iterator[ComponentSpec]:
    yield ComponentSpec(
        "runtime", "direct", target="sfumato.runtimes:Direct", summary="Hands actions to the task as they are."
    )
    yield ComponentSpec(
        "evaluator",
        "sfumato/return",
        target="sfumato.evaluators:Return",
        summary="Undiscounted return, episode length and what deciding cost.",
    )
    yield ComponentSpec(
        "task",
        "gym/env",
        target="sfumato.gym:GymTask",
        config="sfumato.gym:GymConfig",
        summary="Any Gymnasium environment, by its registered name",
        source="Towers et al. 2024, Gymnasium, arXiv:2407.17032",
        backends=(BackendSpec("gymnasium", extra="gym"),),
    )
