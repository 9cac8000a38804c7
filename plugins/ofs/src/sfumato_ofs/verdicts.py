"""What a `ThresholdBandit` can say of each threshold, and how far that can be relied on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

if TYPE_CHECKING:
    from sfumato_ofs.threshold_bandit import ThresholdBandit


@attrs.frozen
class Verdict:
    """One threshold.

    Attributes:
        tau: the threshold; allowed: whether it lies in the corridor; selected: how often it was in force.
        reward: estimated reward a person, None where unknown.
        residual: largest estimated residual, margin included; None where some constraint has not been seen.
        lower, upper: largest lower and largest upper bound over constraints; infinite where unseen.
        word: `certified` (upper at or below 0), `holds` (estimate at or below 0), `ruled out` (lower above 0), `open`
            (estimate above 0, bounds undecided) or `unseen`.
    """

    tau: float
    allowed: bool
    selected: int
    reward: float | None
    residual: float | None
    lower: float
    upper: float
    word: str


def verdicts(bandit: ThresholdBandit) -> list[Verdict]:
    """Return a verdict on every threshold of the grid."""
    lower, upper = bandit.bounds()
    if bandit.mode == "observed-scores":
        reward, residuals, _ = bandit._scored.estimates()
        residuals = residuals + bandit._observed_config.margin
        if bandit._scored._counts["people"].sum() == 0:
            reward = np.full(len(reward), np.nan)
    else:
        s = bandit._search.statistics
        reward, residuals = s.mean_reward[0], s.mean_residuals[0] + s.margin
    rows = []
    for j in range(len(bandit.grid)):
        worst = float(residuals[j].max())
        low, high = float(lower[j].max()), float(upper[j].max())
        if high <= 0.0:
            word = "certified"
        elif low > 0.0:
            word = "ruled out"
        elif np.isnan(worst):
            word = "unseen"
        else:
            word = "holds" if worst <= 0.0 else "open"
        rows.append(
            Verdict(
                bandit.grid.item(j),
                bool(bandit._search.allowed[j]),
                int(bandit._selected[j]),
                None if np.isnan(reward[j]) else float(reward[j]),
                None if np.isnan(worst) else worst,
                low,
                high,
                word,
            )
        )
    return rows


def certificate(bandit: ThresholdBandit) -> dict[str, Any]:
    """Return certified thresholds, and whether, when and why not the bounds behind them hold."""
    c, why = bandit._search_config, []
    if bandit.mode == "observed-scores":
        when = "at one moment fixed beforehand"
        note = "Hoeffding over people, all thresholds and constraints at once"
        if bandit._observed_config.discount < 1.0:
            why.append("decayed counts mix old and new people")
    else:
        when = "in all rounds" if c.anytime else f"in all of the first {bandit._horizon} rounds"
        note = f"{'empirical Bernstein' if c.bounds == 'bernstein' else 'sub-Gaussian'}, beta = {c.beta:g}"
        if c.beta < 1.0:
            why.append("beta is below 1")
        if c.gap_weight == "equal" or not bandit._sizes_known:
            why.append("group sizes were not used, so gaps of unequal groups look too certain")
        if c.discount < 1.0 or c.window or c.detect > 0.0:
            why.append("forgetting is not covered")
        if bandit.constraints.gap == "abs":
            why.append("absolute gaps average above the true gap, so lower bounds can lie above it")
        if bandit.constraints.gap == "to-overall":
            why.append("gaps to the overall rate move with each batch's own mix")
        if not c.anytime and bandit._horizon is not None and bandit._next_batch > bandit._horizon:
            why.append(f"the horizon of {bandit._horizon} rounds is over")
    _, upper = bandit.bounds()
    certified = np.flatnonzero((upper <= 0.0).all(axis=1))
    return {
        "delta": c.delta,
        "holds": not why,
        "why": "; ".join(why),
        "when": when,
        "bounds": note,
        "certified": [
            {"tau": bandit.grid.item(j), "upper_residuals": upper[j].tolist()} for j in certified.tolist()
        ],
    }
