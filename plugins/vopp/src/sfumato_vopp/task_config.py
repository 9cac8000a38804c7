"""Settings of the tasks and solvers as the runner sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import attrs
from attrs import validators as v

from sfumato_vopp.config import DESPOTConfig, POMCPConfig, PORPPConfig, SearchConfig

__all__ = [
    "CrowdNavConfig",
    "DESPOTSolverConfig",
    "FileConfig",
    "LaserTagConfig",
    "LightDarkConfig",
    "MarsConfig",
    "NavigationConfig",
    "POMCPSolverConfig",
    "PORPPSolverConfig",
    "PlannerConfig",
    "QMDPConfig",
    "RockSampleConfig",
    "SarsopConfig",
    "TagConfig",
    "TaskConfig",
    "TigerConfig",
]

_unit: Any = [v.gt(0), v.le(1)]


@attrs.frozen(kw_only=True)
class TaskConfig:
    """What every task has.

    Attributes:
        discount: γ.
        max_steps: step limit of an episode.
        stratified: where the start states can be listed and are equally likely, episode k starts in the k-th of a fixed
            random order of them, so that a whole number of rounds is exactly the prior; else starts are drawn.
    """

    discount: float = attrs.field(default=0.95, validator=_unit)
    max_steps: int = attrs.field(default=100, validator=v.ge(1))
    stratified: bool = True


@attrs.frozen(kw_only=True)
class TigerConfig(TaskConfig):
    """Tiger. ``accuracy``: probability that a sound comes from the tiger's side."""

    accuracy: float = attrs.field(default=0.85, validator=[v.ge(0.5), v.lt(1)])


@attrs.frozen(kw_only=True)
class RockSampleConfig(TaskConfig):
    """RockSample(n, k); published layouts for (7,8) and (11,11), others drawn from ``layout_seed``."""

    n: int = attrs.field(default=7, validator=[v.ge(2), v.le(255)])
    k: int = attrs.field(default=8, validator=[v.ge(1), v.le(46)])
    layout_seed: int = attrs.field(default=0, validator=v.ge(0))


@attrs.frozen(kw_only=True)
class TagConfig(TaskConfig):
    """Tag; nothing to set beyond what every task has."""

    max_steps: int = attrs.field(default=90, validator=v.ge(1))


@attrs.frozen(kw_only=True)
class LaserTagConfig(TaskConfig):
    """LaserTag. ``layout_seed`` places the obstacles; with ``layout_each_episode`` it is added to the episode's index."""

    layout_seed: int = attrs.field(default=0, validator=v.ge(0))
    layout_each_episode: bool = False
    max_steps: int = attrs.field(default=90, validator=v.ge(1))


@attrs.frozen(kw_only=True)
class LightDarkConfig(TaskConfig):
    """Light-Dark; nothing to set beyond what every task has."""


@attrs.frozen(kw_only=True)
class NavigationConfig(TaskConfig):
    """Navigation. ``layout_seed`` of the known obstacles; with ``layout_each_episode`` it is added to the episode's index."""

    layout_seed: int = attrs.field(default=0, validator=v.ge(0))
    layout_each_episode: bool = True
    discount: float = attrs.field(default=0.983, validator=_unit)
    max_steps: int = attrs.field(default=60, validator=v.ge(1))


@attrs.frozen(kw_only=True)
class MarsConfig(TaskConfig):
    """MARS(n, m). ``layout_seed`` places the rocks; with ``layout_each_episode`` it is added to the episode's index."""

    n: int = attrs.field(default=20, validator=[v.ge(4), v.le(200)])
    m: int = attrs.field(default=20, validator=[v.ge(1), v.le(60)])
    layout_seed: int = attrs.field(default=0, validator=v.ge(0))
    layout_each_episode: bool = False
    discount: float = attrs.field(default=0.983, validator=_unit)
    max_steps: int = attrs.field(default=90, validator=v.ge(1))


@attrs.frozen(kw_only=True)
class CrowdNavConfig(TaskConfig):
    """CrowdNav. ``n_pedestrians`` in the hall."""

    n_pedestrians: int = attrs.field(default=300, validator=[v.ge(6), v.le(100_000)])
    max_steps: int = attrs.field(default=200, validator=v.ge(1))


def _there(instance: Any, attribute: Any, path: str) -> None:
    """Raise ValueError where no file lies: asked while the settings are built, not when a run has begun."""
    if not example_path(path).is_file():
        raise ValueError(
            f"expected a file in Cassandra's .pomdp format, found none at {path!r} in {Path.cwd()}; give -t path=FILE, or "
            "-t path=example:tiger for the one that comes with the package"
        )


def example_path(path: str) -> Path:
    """Return where a file lies; "example:NAME" is one that comes with the package."""
    if not path.startswith("example:"):
        return Path(path)
    return Path(__file__).with_name("examples") / (path.removeprefix("example:") + ".pomdp")


@attrs.frozen(kw_only=True)
class FileConfig(TaskConfig):
    """A ``.pomdp`` file; its own discount is used, and ``discount`` here is ignored.

    Attributes:
        path: where the file lies; "example:tiger" is the one that comes with the package.
    """

    path: str = attrs.field(default="example:tiger", validator=[v.instance_of(str), _there])


@attrs.frozen(kw_only=True)
class QMDPConfig:
    """QMDP on listed states. ``max_states``: the most that are listed."""

    max_states: int = attrs.field(default=200_000, validator=v.ge(1))


@attrs.frozen(kw_only=True)
class SarsopConfig:
    """Heuristic search value iteration before the first step, then the lower bound's policy.

    Attributes:
        gap: width of the bracket at which to stop, in reward.
        solve_seconds: wall-clock limit of the solution.
        max_trials: limit of trials; set it and a long ``solve_seconds`` for repeatable policies.
        max_states: the most states that are listed.
    """

    gap: float = attrs.field(default=0.01, validator=v.gt(0))
    solve_seconds: float = attrs.field(default=60.0, validator=v.gt(0))
    max_trials: int = attrs.field(default=1_000_000, validator=v.ge(1))
    max_states: int = attrs.field(default=200_000, validator=v.ge(1))


@attrs.frozen(kw_only=True, slots=False)  # a second base with slots cannot be mixed in
class _FilterConfig:
    filter: Literal["auto", "exact", "particles"] = attrs.field(
        default="auto", validator=v.in_(("auto", "exact", "particles"))
    )
    n_particles: int = attrs.field(default=20_000, validator=v.ge(1))
    exact_limit: int = attrs.field(default=4096, validator=v.ge(1))


@attrs.frozen(kw_only=True)
class PlannerConfig(_FilterConfig, SearchConfig):
    """VOPP as a solver: the search's settings, and how the belief is kept.

    Attributes:
        filter: "exact" over listed states, "particles", or "auto": exact where the model lists its outcomes and starts from
            at most ``exact_limit`` states.
        n_particles: of the particle filter.
    """


@attrs.frozen(kw_only=True)
class POMCPSolverConfig(_FilterConfig, POMCPConfig):
    """POMCP as a solver: its settings, and how the belief is kept (as in :class:`PlannerConfig`)."""


@attrs.frozen(kw_only=True)
class DESPOTSolverConfig(_FilterConfig, DESPOTConfig):
    """DESPOT-like search as a solver: its settings, and how the belief is kept (as in :class:`PlannerConfig`)."""


@attrs.frozen(kw_only=True)
class PORPPSolverConfig(_FilterConfig, PORPPConfig):
    """Sequential PORPP as a solver: its settings, and how the belief is kept (as in :class:`PlannerConfig`)."""
