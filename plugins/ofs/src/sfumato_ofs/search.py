"""Optimistic Feasible Search, with every option.

Arms whose lower residual bounds are all at or below 0 look feasible. Among them the largest upper reward bound is
played; if there is none, the smallest sum of positive lower residual bounds.

Source: W. Du, "Optimistic Feasible Search for Closed-Loop Fair Threshold Decision-Making", arXiv:2512.22313,
abstract. The options (block, re-probe, window, discount, pessimism, monotone bounds, corridor, loss cap, change
detection) are ours.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.arm_statistics import log_term
from sfumato_ofs.bernstein import PersonMemory
from sfumato_ofs.config import OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints
from sfumato_ofs.errors import OfsError
from sfumato_ofs.learners import GridLearner, Reason, pick
from sfumato_ofs.monotone import RateMemory

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


class OptimisticFeasible(GridLearner):
    """Optimistic Feasible Search for B items at once.

    Arguments:
        n_items, n_arms, horizon: B, M and T.
        config: bounds and options.
        reward_scale, residual_scales [I]: sub-Gaussian proxies of one batch.
        lattice: arms along each axis, for neighbours; default (M,).
        constraints, levels [M, G]: needed by `monotone` and `bounds = bernstein`.
        loss: cost of an accepted bad outcome, for `bounds = bernstein`.
        rngs: one generator an item, needed by `order = random`.
        allowed, incumbent, distance: corridor of playable arms and the arm in use before; see `corridor_of`.
    """

    config: OptimisticFeasibleConfig

    def __init__(
        self,
        n_items: int,
        n_arms: int,
        horizon: int,
        config: OptimisticFeasibleConfig,
        *,
        reward_scale: float,
        residual_scales: FloatArray,
        lattice: tuple[int, ...] | None = None,
        constraints: Constraints | None = None,
        levels: IntArray | None = None,
        rngs: list[np.random.Generator] | None = None,
        allowed: BoolArray | None = None,
        incumbent: int = -1,
        distance: FloatArray | None = None,
        loss: float = 1.0,
    ) -> None:
        if config.pessimistic and config.safe_arm >= n_arms:
            raise OfsError(f"safe_arm must be an arm index below {n_arms}, got {config.safe_arm}")
        if config.pessimistic and allowed is not None and not allowed[config.safe_arm]:
            raise OfsError(
                f"safe_arm must lie inside the corridor around the incumbent, got arm {config.safe_arm}, which is outside; widen "
                "the corridor or name another arm"
            )
        if config.needs_rates and (constraints is None or levels is None):
            raise OfsError(
                f"{'monotone' if config.monotone else 'bounds = bernstein'} needs constraints and levels, which say how rates depend on "
                "arms; got None"
            )
        if config.bounds == "bernstein" and constraints is not None and constraints.measure != "parity":
            raise OfsError(
                f"bounds = bernstein goes with measure = parity, got {constraints.measure!r}: outcome rates are not those of single people"
            )
        if config.loss_cap > 0.0 and incumbent < 0:
            raise OfsError("loss_cap needs incumbent, the arm that losses are measured against; got -1")
        super().__init__(
            n_items,
            n_arms,
            horizon,
            config,
            reward_scale=reward_scale,
            residual_scales=residual_scales,
            rngs=rngs,
            allowed=allowed,
            incumbent=incumbent,
            distance=distance,
        )
        self._lattice = lattice or (n_arms,)
        if 0 < config.reprobe_every <= 2 * len(self._lattice):
            raise OfsError(
                f"reprobe_every must exceed the {2 * len(self._lattice)} neighbours that are probed in turn, got {config.reprobe_every}"
            )
        self._constraints = constraints
        self._rates = (
            RateMemory(n_items, levels, config.window) if config.needs_rates and levels is not None else None
        )
        self._persons = PersonMemory(n_items, n_arms, loss) if config.bounds == "bernstein" else None
        self._decisions = 0
        self._held: IntArray | None = None
        self._held_for = 0
        self._current = np.zeros(n_items, dtype=np.int64)
        self._swept = config.pessimistic  # a sweep would play arms that nobody called safe
        self._alarms = np.zeros(n_items, dtype=np.int64)
        self._cusum = np.zeros((2, n_items, self.statistics.n_residuals))
        self._neighbour_moves = [(axis, step) for axis in range(len(self._lattice)) for step in (-1, 1)]
        # Of each round whose reward is still out: whether it was learned from, overall rate and people. Rewards come back in
        # the order of their rounds.
        self._late: deque[tuple[bool, tuple[FloatArray, FloatArray] | None]] = deque()
        self._away = np.zeros((2, n_items))  # weight and reward of rounds away from the incumbent
        self._incumbent_mean = np.full(n_items, np.nan)

    def select(self) -> IntArray:
        if self._held is not None and self._held_for < self.config.block:
            self.reason = np.full(len(self._held), Reason.HOLD, dtype=np.int8)
            return self._held
        arm = super().select()
        if self.config.loss_cap > 0.0:
            arm = self._cap(arm)
        self._decisions += 1
        if self.config.block > 1:
            self._held, self._held_for = arm, 0
        return arm

    def update(
        self,
        arm: IntArray,
        reward: FloatArray,
        residuals: FloatArray,
        rates: FloatArray | None = None,
        weight: FloatArray | float = 1.0,
        residual_weight: FloatArray | None = None,
        people: FloatArray | None = None,
        batch: tuple[FloatArray, FloatArray] | None = None,
    ) -> None:
        """Take in one round; see `GridLearner.update`. `monotone` and `bounds = bernstein` need rates and people.

        `batch`, the overall acceptance rates and numbers of people [B], may be left out where groups are disjoint.

        A round in which no reward is known waits: `update_late` brings the rewards of such rounds in their order.
        """
        if self._rates is not None and (rates is None or people is None):
            missing = "rates, the groups' acceptance rates" if rates is None else "people, the groups' sizes"
            raise OfsError(f"these bounds need {missing} of the round; got None")
        if batch is None and self._persons is not None and rates is not None and people is not None:
            everybody = people.sum(axis=1)
            batch = ((np.nan_to_num(rates) * people).sum(axis=1) / everybody, everybody)
        # The first half of a block is played while the state still remembers the arm before.
        learned = self._begin_update()
        self._keep_losses(arm, reward, weight)
        if np.isnan(reward).all():
            self._late.append((learned, batch))
        if not learned:
            return
        if self.config.detect > 0.0:
            self._watch(arm, residuals, self._gap_weights(residual_weight))
        if self._rates is not None and rates is not None and people is not None:
            self._rates.add(arm, rates, people, discount=self.config.discount)
        if self._persons is not None and batch is not None:
            self._persons.add(arm, *batch)
            self._persons.add_reward(arm, reward, *batch)
        self.statistics.add(arm, reward, residuals, weight, self._gap_weights(residual_weight))

    def _begin_update(self) -> bool:
        """Count the round of a block; return whether it is learned from."""
        if self.config.block == 1:
            return True
        self._held_for += 1
        return self._held_for > self.config.block // 2

    def update_late(self, arm: IntArray, reward: FloatArray) -> None:
        self._keep_losses(np.maximum(arm, 0), np.where(arm >= 0, reward, np.nan), 1.0)
        if (arm >= 0).any() and self._late:
            learned, batch = self._late.popleft()
            if not learned:
                return
            if self._persons is not None and batch is not None:
                self._persons.add_reward(arm, reward, *batch)
        super().update_late(arm, reward)

    @property
    def alarms(self) -> IntArray:
        """Alarms raised by the change detector so far, int array [B]."""
        return self._alarms

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper residual bounds [B, M, I], margin included and tightened where `monotone` is set."""
        s = self.statistics
        if self._rates is None or self._constraints is None:
            return s.lower, s.upper
        if self._persons is not None:
            return self._persons.residual_bounds(
                self._rates, self._constraints, self._term(), s.config.beta, s.margin, self.config.monotone
            )
        return self._rates.tighten(s.lower, s.upper, self._constraints, 0.5 * s.width, s.margin)

    def reward_bounds(self) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper reward bounds [B, M]."""
        s = self.statistics
        if self._persons is not None:
            return self._persons.reward_bounds(self._term(), s.config.beta)
        with np.errstate(invalid="ignore"):
            lower = s.mean_reward - s.radii(s.rewarded, s.reward_scale)
        return np.where(s.rewarded > 0, lower, -np.inf), s.upper_reward

    def _term(self) -> float:
        """The log of the union bound over arms, rounds, and the rates and reward that Bernstein's bounds are of."""
        s = self.statistics
        groups = self._rates.levels.shape[1] if self._rates is not None else 0
        rounds = max(s.round, 2) ** 2 if s.config.anytime else s.horizon
        return log_term(s.n_arms, max(s.n_residuals, groups + 1), rounds, s.config.delta)

    def certified(self) -> BoolArray:
        """Return which arms are feasible by their upper residual bounds, bool array [B, M]."""
        ok: BoolArray = np.asarray((self.bounds()[1] <= 0.0).all(axis=2))
        return ok

    def neighbour(self, arm: IntArray, axis: int, step: int) -> IntArray:
        """Return the arm one step along one axis of the lattice; the arm itself at the edge or off the corridor."""
        place = list(np.unravel_index(arm, self._lattice))
        place[axis] = np.clip(place[axis] + step, 0, self._lattice[axis] - 1)
        there = np.ravel_multi_index(tuple(place), self._lattice).astype(np.int64)
        value: IntArray = np.where(self.allowed[there], there, arm)
        return value

    @property
    def _forgets(self) -> bool:
        return super()._forgets or (self.config.detect > 0.0 and not self.config.pessimistic)

    def _choose(self) -> IntArray:
        arm = self._pessimistic() if self.config.pessimistic else self._optimistic()
        every = self.config.reprobe_every
        if every:
            phase = self._decisions % every
            if phase == 0:
                self._current = arm.copy()
            elif phase <= len(self._neighbour_moves):
                probe = self.neighbour(self._current, *self._neighbour_moves[phase - 1])
                self.reason = np.where(probe != self._current, Reason.REPROBE, self.reason).astype(np.int8)
                arm = np.where(probe != self._current, probe, arm)
        return arm

    def _optimistic(self) -> IntArray:
        s = self.statistics
        worst, violation = s.worst, s.violation
        if self._rates is not None:
            lower, _ = self.bounds()
            worst, violation = lower.max(axis=2), np.maximum(lower, 0.0).sum(axis=2)
        looks_feasible = (worst <= 0.0) & self.allowed
        any_feasible = np.asarray(looks_feasible.any(axis=1))
        upper_reward = s.upper_reward if self._persons is None else self.reward_bounds()[1]
        score = np.where(looks_feasible, upper_reward, -np.inf)
        if not any_feasible.all():
            least = np.where(self.allowed, -violation, -np.inf)
            score = np.where(any_feasible[:, None], score, least)
        reason = np.where(any_feasible, Reason.FEASIBLE_OPTIMISTIC, Reason.LEAST_VIOLATION)
        self.reason = reason.astype(np.int8)
        return pick(score, worst, s.plays)

    def _pessimistic(self) -> IntArray:
        s, safe = self.statistics, self.config.safe_arm
        lower, upper_residual = self.bounds()
        certified = np.asarray((upper_residual <= 0.0).all(axis=2)) & self.allowed
        certified[:, safe] = True
        upper = self.reward_bounds()[1]
        upper = np.where(np.isfinite(upper), upper, -np.inf)
        # An unplayed safe arm must still be eligible, below every arm that has been seen.
        upper[:, safe] = np.where(s.rewarded[:, safe] > 0, upper[:, safe], -1e300)
        worst = lower.max(axis=2)
        arm = pick(np.where(certified, upper, -np.inf), worst, s.plays)
        only_safe = certified.sum(axis=1) == 1
        self.reason = np.where(only_safe, Reason.SAFE, Reason.FEASIBLE_OPTIMISTIC).astype(np.int8)
        if self._decisions % self.config.probe_every == self.config.probe_every - 1:
            frontier = self._frontier(certified) & (worst <= 0.0) & self.allowed
            rows = np.flatnonzero(frontier.any(axis=1))
            if len(rows):
                arm[rows] = np.where(frontier[rows], s.plays[rows], np.inf).argmin(axis=1)
                self.reason[rows] = Reason.REPROBE
        return arm

    def _frontier(self, certified: BoolArray) -> BoolArray:
        """Return the uncertified lattice neighbours of certified arms, bool array [B, M]."""
        cells = certified.reshape(len(certified), *self._lattice)
        grown = cells.copy()
        for axis in range(1, cells.ndim):
            ahead = [slice(None)] * cells.ndim
            behind = [slice(None)] * cells.ndim
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            grown[tuple(ahead)] |= cells[tuple(behind)]
            grown[tuple(behind)] |= cells[tuple(ahead)]
        frontier: BoolArray = grown.reshape(certified.shape) & ~certified
        return frontier

    def _keep_losses(self, arm: IntArray, reward: FloatArray, weight: FloatArray | float) -> None:
        """Keep what rounds away from the incumbent earned, learned from or not; NaN: not known yet."""
        if self.config.loss_cap > 0.0:
            away = (arm != self.incumbent) & ~np.isnan(reward)
            self._away += np.stack([away * weight, away * np.nan_to_num(reward) * weight])

    @property
    def shortfall(self) -> FloatArray:
        """What rounds away from the incumbent earned less than its mean would have, float array [B].

        Signed, so that noise averages out, and reckoned with the mean as it is known now: 0 while it is not known.
        """
        s = self.statistics
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = s.reward_sum[:, self.incumbent] / s.rewarded[:, self.incumbent]
        # Whoever has just forgotten all still knows what the incumbent used to earn.
        self._incumbent_mean = np.where(np.isnan(mean), self._incumbent_mean, mean)
        value: FloatArray = np.nan_to_num(self._away[0] * self._incumbent_mean - self._away[1])
        return value

    def _cap(self, arm: IntArray) -> IntArray:
        """Once the cap is spent, play the incumbent or an arm that is certified and surely no worse."""
        spent = self.shortfall > self.config.loss_cap
        if not spent.any():
            return arm
        mean = self.statistics.mean_reward
        lower, upper = self.reward_bounds()
        sure = self.certified() & self.allowed & (lower >= upper[:, [self.incumbent]])
        best = np.where(sure, np.nan_to_num(mean, nan=-np.inf), -np.inf).argmax(axis=1)
        settled = np.where(sure.any(axis=1), best, self.incumbent)
        self.reason = np.where(spent, Reason.LOSS_CAP, self.reason).astype(np.int8)
        return np.where(spent, settled, arm)

    def _watch(self, arm: IntArray, residuals: FloatArray, weight: FloatArray | None) -> None:
        """Two-sided CUSUM of the played arm's residuals around their mean so far; forget the item on an alarm."""
        s = self.statistics
        rows = np.arange(s.n_items)
        seen = s.seen[rows, arm]
        with np.errstate(invalid="ignore", divide="ignore"):
            surprise = (residuals - s.residual_sum[rows, arm] / seen) / s.residual_scales
        if weight is not None:
            surprise = surprise * np.sqrt(weight)
        # A young mean is itself noise; ten observations leave its error below a third of one batch's.
        surprise = np.where((seen >= 10) & ~np.isnan(surprise), surprise, 0.0)
        drift = np.stack([surprise, -surprise]) - self.config.detect_slack
        self._cusum = np.maximum(self._cusum + drift, 0.0)
        alarm = np.flatnonzero((self._cusum > self.config.detect).any(axis=(0, 2)))
        if len(alarm):
            s.forget(alarm)
            if self._rates is not None:
                self._rates.forget(alarm)
            if self._persons is not None:
                self._persons.forget(alarm)
            self._cusum[:, alarm] = 0.0
            self._alarms[alarm] += 1


def corridor_of(
    arms: FloatArray, tau: float, width: float | None, name: str = "tau"
) -> tuple[int, BoolArray, FloatArray]:
    """Return the incumbent's arm index, which arms lie within `width` of it in every group's threshold, and how far each lies.

    Raises: OfsError calling tau by `name` when it is not on the grid.
    """
    from sfumato_ofs.observed import arm_of

    incumbent = arm_of(arms, tau, name)
    distance: FloatArray = np.abs(arms - arms[incumbent]).max(axis=1)
    return incumbent, distance <= (np.inf if width is None else width) + 1e-12, distance
