"""Settings of the tuner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs.validators import ge, gt, in_, le


@attrs.frozen(kw_only=True)
class TunedConfig:
    """Settings of `ofs/tuned`.

    Attributes:
        solver: reference of the solver to tune, as in `vopp/planner`.
        setting: its setting, of any type.
        values: values to choose among, at least two, all different, the cheapest first: they are tried in this order.
        settings: its other settings.
        deadline_seconds: what a decision may take.
        quantile: which quantile of an episode's decision times is held against the deadline; 1 is the slowest.
        clock: `wall`, or `cpu` for this process's CPU time, which other programs on the machine disturb less.
        warmup: first decisions with each value whose time does not count (compilation); an episode that has no
            others counts for nothing, and its value is played again.
        reward_scale: spread of an episode's return, for the bounds; 0 to take that of the episodes so far.
        seconds_scale: spread of that quantile over episodes, for the bounds; 0 to take that of the episodes so far.
        beta: width of the bounds.
    """

    solver: str = ""
    setting: str = ""
    values: tuple[Any, ...] = ()
    settings: Mapping[str, Any] = attrs.field(factory=dict)
    deadline_seconds: float = attrs.field(default=0.1, validator=gt(0.0))
    quantile: float = attrs.field(default=0.95, validator=[ge(0.0), le(1.0)])
    clock: str = attrs.field(default="wall", validator=in_(("wall", "cpu")))
    warmup: int = attrs.field(default=1, validator=ge(0))
    reward_scale: float = attrs.field(default=0.0, validator=ge(0.0))
    seconds_scale: float = attrs.field(default=0.0, validator=ge(0.0))
    beta: float = attrs.field(default=0.25, validator=ge(0.0))
