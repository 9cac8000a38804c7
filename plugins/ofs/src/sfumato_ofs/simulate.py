"""Play a learner against a loop for B seeds at once, without the runner, and keep running sums.

True expected rates and rewards at each state are known here, so the sums carry none of the batches'
noise; the noisy, observed violation is kept beside them as a second column.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.binomial import UniformBlocks, binomial_quantile
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError
from sfumato_ofs.loops import ClosedLoop, Counts, batch_reward
from sfumato_ofs.observed import ObservedScores
from sfumato_ofs.outcomes import OutcomeMemory, Outcomes, expected_outcomes
from sfumato_ofs.scored import Cells, CellSampler

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


class Learner(Protocol):
    """What `play` asks of a learner."""

    def select(self) -> IntArray: ...

    def update(
        self,
        arm: IntArray,
        reward: FloatArray,
        residuals: FloatArray,
        rates: FloatArray | None = None,
        weight: FloatArray | float = 1.0,
        residual_weight: FloatArray | None = None,
        people: FloatArray | None = None,
    ) -> None: ...


class RunningSums:
    """Sums over rounds of what only the world knows, a few numbers a seed whatever the horizon.

    Attributes (arrays [B]): reward, tail_reward (expected, summed), violation, tail_violation (expected),
    observed_violation (of batch rates), violating_rounds, infeasible_plays (arms infeasible at their own steady state),
    share_clipped (rounds with a share at its clip). `curves` holds block means for plots:
    name -> float32 [B, K].
    """

    def __init__(
        self,
        n_items: int,
        horizon: int,
        constraints: Constraints,
        infeasible: NDArray[np.bool_],
        n_points: int = 100,
    ) -> None:
        self.horizon = horizon
        self.tail_from = horizon - max(horizon // 5, 1)
        self.constraints = constraints
        self._infeasible = infeasible
        zeros = np.zeros(n_items)
        self.reward, self.tail_reward = zeros.copy(), zeros.copy()
        self.violation, self.tail_violation = zeros.copy(), zeros.copy()
        self.observed_violation = zeros.copy()
        self.violating_rounds, self.infeasible_plays, self.share_clipped = (
            zeros.copy(),
            zeros.copy(),
            zeros.copy(),
        )
        self.plays = np.zeros((n_items, len(infeasible)), dtype=np.int32)
        n_points = min(n_points, horizon)
        self._edges = (np.arange(1, n_points + 1) * horizon) // n_points
        self._point = 0
        self._since = 0
        self._rows = np.arange(n_items)
        self._names = ("reward", "violation")
        self._block = {name: zeros.copy() for name in self._names}
        self.curves = {name: np.zeros((n_items, n_points), dtype=np.float32) for name in self._names}
        self.curves["rates"] = np.zeros((n_items, n_points, constraints.n_groups), dtype=np.float32)
        self.curves["shares"] = np.zeros((n_items, n_points, constraints.n_groups), dtype=np.float32)

    def add(
        self,
        t: int,
        arm: IntArray,
        reward: FloatArray,
        rates: FloatArray,
        shares: FloatArray,
        residuals: FloatArray,
        clip: tuple[float, float],
        outcomes: Outcomes | None = None,
    ) -> None:
        """Take in round t (from 0): expected reward [B], expected rates and shares [B, G], observed residuals [B, I]."""
        violation = self.constraints.violation(rates, (rates * shares).sum(axis=1), outcomes)
        self.reward += reward
        self.violation += violation
        self.violating_rounds += violation > 1e-12
        self.observed_violation += np.nansum(np.maximum(residuals, 0.0), axis=1)
        self.infeasible_plays += self._infeasible[arm]
        self.plays[self._rows, arm] += 1
        self.share_clipped += ((shares <= clip[0] + 1e-12) | (shares >= clip[1] - 1e-12)).any(axis=1)
        if t >= self.tail_from:
            self.tail_reward += reward
            self.tail_violation += violation
        self._block["reward"] += reward
        self._block["violation"] += violation
        self._since += 1
        if t + 1 == self._edges[self._point]:
            for name in self._names:
                self.curves[name][:, self._point] = self._block[name] / self._since
                self._block[name] = np.zeros_like(self._block[name])
            self.curves["rates"][:, self._point] = rates
            self.curves["shares"][:, self._point] = shares
            self._point += 1
            self._since = 0

    def truth(self) -> dict[str, Any]:
        """Return the sums as a mapping of arrays, for the trace."""
        names = (
            "reward",
            "tail_reward",
            "violation",
            "tail_violation",
            "observed_violation",
            "violating_rounds",
            "infeasible_plays",
            "share_clipped",
            "plays",
        )
        values: dict[str, Any] = {name: getattr(self, name) for name in names}
        values["rounds"] = self.horizon
        values["tail_rounds"] = self.horizon - self.tail_from
        values.update({f"curve_{name}": curve for name, curve in self.curves.items()})
        return values


@attrs.define
class Round:
    """What one round showed: reward [B], residuals [B, I] and their weights, group rates [B, G], counts; cells where scores
    are seen."""

    reward: FloatArray
    residuals: FloatArray
    rates: FloatArray
    counts: Counts
    weights: FloatArray
    cells: Cells | None = None

    @property
    def people(self) -> FloatArray:
        """Group sizes of the batch [B, G]."""
        return self.counts.applicants.astype(np.float64)


class World:
    """A loop being lived through by B items, each with its own stream of uniforms.

    Arguments:
        infeasible: which arms are infeasible at their own steady state, bool [M]; counted when played.
        scores_seen: draw every applicant and show counts by grid cell.
        base_means: the loop's base means [G] in round t, for drift.
    """

    def __init__(
        self,
        loop: ClosedLoop,
        constraints: Constraints,
        horizon: int,
        generators: list[np.random.Generator],
        infeasible: NDArray[np.bool_],
        *,
        scores_seen: bool = False,
        base_means: Callable[[int], FloatArray] | None = None,
    ) -> None:
        if scores_seen and constraints.measure != "parity":
            raise OfsError(f"scores_seen goes with measure = parity only, got {constraints.measure!r}")
        self._base_means = base_means
        self.loop = loop
        self.constraints = constraints
        self.horizon = horizon
        self.state = loop.rest(len(generators))
        self.t = 0
        self.sums = RunningSums(len(generators), horizon, constraints, infeasible)
        self._memory = None
        width = loop.n_uniforms
        if constraints.measure != "parity":
            self._memory = OutcomeMemory(len(generators), loop.n_arms, loop.n_groups, constraints.size)
            width += 2 * loop.n_groups
        self._uniforms = UniformBlocks(generators, width)
        self._sampler = CellSampler(loop, generators) if scores_seen else None

    def step(self, arm: IntArray) -> Round:
        """Live one round under the arms [B] and return what it showed."""
        loop = self.loop
        accept, good = loop.expectations(self.state, arm)
        shares = loop.shares(self.state)
        expected = (shares * ((1.0 + loop.loss) * good - loop.loss * accept)).sum(axis=1)
        cells = outcomes = None
        if self._memory is not None:
            seen, outcomes = self._step_with_outcomes(arm, accept, good, shares)
        else:
            if self._sampler is None:
                counts = loop.draw_given(accept, good, shares, self._uniforms.next())
            else:
                cells = self._sampler.draw(self.state, arm)
                counts = Counts(
                    *(part.sum(axis=2) for part in (cells.applicants, cells.labelled, cells.good))
                )
            rates = counts.rates()
            residuals = self.constraints.residuals(rates, counts.accepted.sum(axis=1) / loop.n)
            seen = Round(
                batch_reward(counts, loop.loss), residuals, rates, counts, self._weights(counts), cells
            )
        if self._memory is not None and self.constraints.explore_rate < 1.0:
            # What exploring earns and whom it accepts is part of what happened; outcome rates stay those of the rule.
            rate = self.constraints.explore_rate
            left = loop.base_good(self.state) - good
            expected = expected + rate * (
                shares * ((1.0 + loop.loss) * left - loop.loss * (1.0 - accept))
            ).sum(axis=1)
            accept = accept + rate * (1.0 - accept)
        self.sums.add(self.t, arm, expected, accept, shares, seen.residuals, loop.clip, outcomes)
        base = None if self._base_means is None else self._base_means(self.t)
        self.state = loop.advance(self.state, seen.rates, base)
        self.t += 1
        return seen

    def _step_with_outcomes(
        self, arm: IntArray, accept: FloatArray, good: FloatArray, shares: FloatArray
    ) -> tuple[Round, Outcomes]:
        """Draw a round in which some or all rejected people's outcomes are seen."""
        loop, constraints = self.loop, self.constraints
        assert self._memory is not None
        uniforms = self._uniforms.next()
        counts = loop.draw_given(accept, good, shares, uniforms)
        base = loop.base_good(self.state)
        with np.errstate(divide="ignore", invalid="ignore"):
            quality = np.clip(np.where(accept < 1.0, (base - good) / (1.0 - accept), 0.0), 0.0, 1.0)
        rejected = counts.applicants - counts.accepted
        at, g = loop.n_uniforms, loop.n_groups
        rate = constraints.explore_rate
        looked = (
            rejected
            if rate == 1.0
            else binomial_quantile(uniforms[:, at : at + g], rejected, np.full(rejected.shape, rate))
        )
        looked_good = binomial_quantile(uniforms[:, at + g : at + 2 * g], looked, quality)
        found = self._memory.add(
            arm,
            counts.good.astype(np.float64),
            (counts.accepted - counts.good).astype(np.float64),
            looked_good / rate,
            (looked - looked_good) / rate,
        )
        taken = counts
        if rate < 1.0:
            # Whoever is looked at has been accepted, and counts in reward and rates.
            taken = Counts(counts.applicants, counts.accepted + looked, counts.good + looked_good)
        rates = taken.rates()
        residuals = constraints.residuals(rates, taken.accepted.sum(axis=1) / loop.n, found)
        n_outcome = constraints.n_parity
        residuals[:, :n_outcome] = self._memory.increments(arm, residuals)[:, :n_outcome]
        expected = expected_outcomes(accept, good, base)
        return Round(batch_reward(taken, loop.loss), residuals, rates, taken, self._weights(taken)), expected

    def _weights(self, counts: Counts) -> FloatArray:
        applicants = counts.applicants
        return self.constraints.weights(applicants, applicants.sum(axis=1), self.loop.n)


def play_observed(world: World, learner: ObservedScores) -> RunningSums:
    """Let the observed-scores learner act for the world's whole horizon and return the running sums."""
    for _ in range(world.horizon):
        arm = learner.select()
        seen = world.step(arm)
        if seen.cells is None:
            raise OfsError("play_observed needs a World made with scores_seen=True")
        learner.update(arm, seen.cells)
    return world.sums


def play(world: World, learner: Learner) -> RunningSums:
    """Let the learner act for the world's whole horizon and return the running sums."""
    for _ in range(world.horizon):
        arm = learner.select()
        seen = world.step(arm)
        learner.update(arm, seen.reward, seen.residuals, seen.rates, 1.0, seen.weights, seen.people)
    return world.sums
