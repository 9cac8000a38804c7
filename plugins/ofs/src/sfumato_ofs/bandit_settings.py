"""The arguments of `ThresholdBandit`, checked, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.config import ObservedScoresConfig, OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError
from sfumato_ofs.inputs import EXACT, number, whole
from sfumato_ofs.loops import check_grid, threshold_grid

HIDDEN_IN_SHADOW = (
    "in shadow mode only the incumbent is in force, and without scores nothing is learned of any other threshold: "
    "nothing could be proposed. Pass scores, or go live within a narrow corridor"
)


@attrs.frozen(kw_only=True, eq=False)
class BanditSettings:
    """Checked arguments; see `ThresholdBandit` for their meaning."""

    grid: NDArray[np.float64]
    constraints: Constraints
    loss: float
    policy: str
    incumbent: float
    corridor: float | None
    loss_cap: float
    margin: float
    horizon: int | None
    batch_size: int
    min_count: float
    settings: OptimisticFeasibleConfig | None
    observed: ObservedScoresConfig | None
    shadow: bool
    seed: int

    @property
    def search_config(self) -> OptimisticFeasibleConfig:
        """Options of the search: those given, with what is set from here."""
        base = self.settings or OptimisticFeasibleConfig(order="outward", incumbent=self.incumbent)
        return attrs.evolve(
            base,
            incumbent=self.incumbent,
            corridor=self.corridor,
            margin=self.margin or base.margin,
            loss_cap=self.loss_cap or base.loss_cap,
            anytime=self.horizon is None or base.anytime,
        )

    @property
    def observed_config(self) -> ObservedScoresConfig:
        """Options of observed scores: those given, with what is set from here."""
        base = self.observed or ObservedScoresConfig(tau=self.incumbent)
        return attrs.evolve(
            base, tau=self.incumbent, margin=self.margin or base.margin, corridor=self.corridor
        )

    def facts(self) -> dict[str, Any]:
        """Return everything as JSON can hold it, for the log; `log_replay.rebuild` reads it."""
        facts = {field.name: getattr(self, field.name) for field in attrs.fields(type(self))}
        for name in ("constraints", "settings", "observed"):
            facts[name] = None if facts[name] is None else attrs.asdict(facts[name])
        return {**facts, "grid": self.grid.tolist()}


def check_settings(
    *,
    grid: Sequence[float] | NDArray[np.float64] | None,
    constraints: Constraints | None,
    loss: float,
    policy: str,
    incumbent: float,
    corridor: float | None,
    loss_cap: float,
    margin: float,
    horizon: int | None,
    batch_size: int,
    min_count: float,
    settings: OptimisticFeasibleConfig | None,
    observed: ObservedScoresConfig | None,
    shadow: bool,
    seed: int,
) -> BanditSettings:
    """Return the settings, or raise OfsError naming the argument."""
    if policy not in ("auto", "observed-scores", "ofs"):
        raise OfsError(f"policy must be auto, observed-scores or ofs, got {policy!r}")
    for name, thing, kind in (
        ("constraints", constraints, Constraints),
        ("settings", settings, OptimisticFeasibleConfig),
        ("observed", observed, ObservedScoresConfig),
    ):
        if thing is not None and not isinstance(thing, kind):
            raise OfsError(f"{name} must be {kind.__name__} or None, got {type(thing).__name__}")
    constraints, settings, observed = (_plain(x) for x in (constraints or Constraints(), settings, observed))
    if constraints.measure != "parity":
        raise OfsError(
            f"constraints: measure = {constraints.measure} needs outcomes of rejected people, which a batch of accepted "
            "labels does not hold; ThresholdBandit compares acceptance rates (measure = 'parity')"
        )
    if not isinstance(shadow, bool):
        raise OfsError(f"shadow must be True or False, got {shadow!r}")
    if shadow and policy == "ofs":
        raise OfsError(f"shadow does not go with policy='ofs': {HIDDEN_IN_SHADOW}")
    return BanditSettings(
        grid=threshold_grid() if grid is None else check_grid(grid),
        constraints=constraints,
        loss=number("loss", loss, least=0.0),
        policy=policy,
        incumbent=number("incumbent", incumbent),
        corridor=None if corridor is None else number("corridor", corridor, above=0.0),
        loss_cap=number("loss_cap", loss_cap, least=0.0),
        margin=number("margin", margin, least=0.0),
        horizon=None if horizon is None else whole("horizon", horizon, least=1, most=EXACT),
        batch_size=whole("batch_size", batch_size, least=1, most=EXACT),
        min_count=number("min_count", min_count, least=1.0),
        settings=settings,
        observed=observed,
        shadow=shadow,
        seed=whole("seed", seed),
    )


def _plain(options: Any) -> Any:
    """Return options with Python's numbers in place of numpy's, which no JSON holds and which reckon in another precision."""
    if options is None:
        return None
    found = {f.name: getattr(options, f.name) for f in attrs.fields(type(options))}
    return attrs.evolve(options, **{k: v.item() for k, v in found.items() if isinstance(v, np.generic)})
