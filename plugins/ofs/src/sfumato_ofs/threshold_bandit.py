"""`ThresholdBandit`: choose an acceptance threshold batch by batch, with a log that can be replayed.

Where every applicant's score is seen, one batch informs about all thresholds, and that is the default. Bandit feedback
(Optimistic Feasible Search) is for hidden scores only. Either way learning begins at the incumbent threshold and
stays within a corridor around it, until you widen the corridor.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.audit import AuditLog, Head
from sfumato_ofs.batches import Batch, check_batch
from sfumato_ofs.config import ObservedScoresConfig, OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints, reward_scale
from sfumato_ofs.errors import OfsError
from sfumato_ofs.learners import Reason
from sfumato_ofs.loops import check_grid, shared_arms, threshold_grid
from sfumato_ofs.scored_stream import ScoredStream
from sfumato_ofs.search import corridor_of
from sfumato_ofs.stream import StreamSearch

FloatArray = NDArray[np.float64]

STATE_VERSION = 1


class ThresholdBandit:
    """Online choice of one acceptance threshold under fairness and service constraints.

    Arguments:
        grid: thresholds to choose from, strictly increasing; default 41 points on [0, 1].
        constraints: residuals and their bounds; default parity within 0.10 and at least 30% accepted.
        loss: cost of an accepted bad outcome, in units of an accepted good one.
        policy: `observed-scores`, `ofs`, or `auto`: the first batch decides, by whether it shows scores.
        incumbent: threshold in use today, on the grid. Learning begins there.
        corridor: how far from the incumbent a choice may lie; None for the whole grid.
        loss_cap: total reward that exploring may cost against the incumbent's mean (policy `ofs`); 0 for no cap.
        margin: slack added to every residual; set it when going live.
        horizon: rounds T for the bounds of `ofs`; None for bounds that hold at any time.
        batch_size: usual number of people in a batch; a batch of another size is weighted by n / batch_size.
        min_count: people of a group below which a batch says nothing about the group's rate.
        settings: further options of `ofs` (its own incumbent, corridor, margin, loss cap and anytime are set from here).
        observed: further options of `observed-scores` (discount, prior).
        shadow: `select` returns the incumbent and only notes in `proposal` what it would have chosen.
        log: path of an append-only audit log; None keeps it in memory. An existing log is refused; `sfumato_ofs.resume` continues one.

    Raises: OfsError naming the argument. Bad input to any method leaves the learner and the log as they were.
    """

    def __init__(
        self,
        grid: Sequence[float] | FloatArray | None = None,
        constraints: Constraints | None = None,
        *,
        loss: float = 1.0,
        policy: str = "auto",
        incumbent: float = 0.5,
        corridor: float | None = 0.1,
        loss_cap: float = 0.0,
        margin: float = 0.0,
        horizon: int | None = None,
        batch_size: int = 200,
        min_count: int = 5,
        settings: OptimisticFeasibleConfig | None = None,
        observed: ObservedScoresConfig | None = None,
        shadow: bool = False,
        log: str | Path | None = None,
    ) -> None:
        if policy not in ("auto", "observed-scores", "ofs"):
            raise OfsError(f"policy must be auto, observed-scores or ofs, got {policy!r}")
        for name, value, least in (
            ("loss", loss, 0.0),
            ("batch_size", batch_size, 1),
            ("min_count", min_count, 1),
        ):
            if not value >= least:
                raise OfsError(f"{name} must be at least {least}, got {value!r}")
        self.grid = threshold_grid() if grid is None else check_grid(grid)
        self.constraints = constraints or Constraints()
        if self.constraints.measure != "parity":
            raise OfsError(
                f"constraints: measure = {self.constraints.measure} needs outcomes of rejected people, which a batch of accepted "
                "labels does not hold; ThresholdBandit compares acceptance rates (measure = 'parity')"
            )
        self.loss, self.batch_size, self.min_count = float(loss), int(batch_size), int(min_count)
        self.shadow = shadow
        self._arms = shared_arms(self.grid, self.constraints.n_groups)
        self._index = {float(tau): j for j, tau in enumerate(self.grid)}
        self.incumbent, allowed = corridor_of(self._arms, float(incumbent), corridor)
        if horizon is not None and horizon < int(allowed.sum()):
            warnings.warn(
                f"horizon {horizon} is below the number of thresholds to try ({int(allowed.sum())}): the first sweep "
                "never ends. Use a coarser grid or a narrower corridor.",
                stacklevel=2,
            )
        base = settings or OptimisticFeasibleConfig(order="outward", incumbent=float(incumbent))
        self._search_config = attrs.evolve(
            base,
            incumbent=float(incumbent),
            corridor=corridor,
            margin=margin or base.margin,
            loss_cap=loss_cap or base.loss_cap,
            anytime=horizon is None or base.anytime,
        )
        self._observed_config = attrs.evolve(
            observed or ObservedScoresConfig(tau=float(incumbent)),
            tau=float(incumbent),
            margin=margin,
            corridor=corridor,
        )
        scales = self.constraints.scales(self.batch_size)
        self._search = StreamSearch(
            1,
            len(self.grid),
            horizon or 1,
            self._search_config,
            reward_scale=reward_scale(self.loss, self.batch_size),
            residual_scales=scales,
            constraints=self.constraints,
            levels=np.searchsorted(self.grid, self._arms),
            allowed=allowed,
            incumbent=self.incumbent,
            rngs=[np.random.default_rng(0)],
        )
        self._scored = ScoredStream(
            self.grid,
            self.constraints,
            self._observed_config,
            loss=self.loss,
            allowed=allowed,
            incumbent=self.incumbent,
            min_count=self.min_count,
        )
        self._mode: str | None = None if policy == "auto" else policy
        self.round = 0
        self.proposal: float | None = None
        self._selected = np.zeros(len(self.grid), dtype=np.int64)
        self._waiting: dict[int, tuple[int, Batch]] = {}
        self._next_batch = 0
        if log is not None and Path(log).exists():
            raise OfsError(
                f"log {str(log)!r} exists already; continue it with sfumato_ofs.resume(path), or choose another path"
            )
        self._settings = {
            "grid": self.grid.tolist(),
            "constraints": attrs.asdict(self.constraints),
            "loss": self.loss,
            "policy": policy,
            "incumbent": float(incumbent),
            "corridor": corridor,
            "loss_cap": loss_cap,
            "margin": margin,
            "horizon": horizon,
            "batch_size": self.batch_size,
            "min_count": self.min_count,
            "settings": None if settings is None else attrs.asdict(settings),
            "observed": None if observed is None else attrs.asdict(observed),
            "shadow": shadow,
        }
        self.log = AuditLog(log)
        self.log.append("open", {"version": STATE_VERSION, "settings": self._settings})

    # ------------------------------------------------------------------ deciding

    def select(self) -> float:
        """Return the threshold for the next batch; in shadow mode the incumbent."""
        # The choice is logged before anything of it is kept, so that a full disk leaves the learner as it was.
        before = None if self._mode == "observed-scores" else self._search_marks()
        bounds: dict[str, Any] = {}
        if self._mode is None:
            arm, reason = self.incumbent, Reason.INCUMBENT
        elif self._mode == "observed-scores":
            arm, reason, bounds = self._scored.choose()
        else:
            arm, reason, bounds = self._choose_by_search()
        played = self.incumbent if self.shadow else arm
        facts: dict[str, Any] = {
            "round": self.round,
            "tau": self.grid.item(played),
            "arm": played,
            "reason": reason.label,
            **bounds,
        }
        if self.shadow:
            facts["proposal"] = self.grid.item(arm)
        try:
            self.log.append("select", facts)
        except OSError:
            if before is not None:
                self._restore_marks(before)
            raise
        self.proposal = self.grid.item(arm)
        self._selected[played] += 1
        self.round += 1
        return self.grid.item(played)

    def _choose_by_search(self) -> tuple[int, Reason, dict[str, Any]]:
        search = self._search
        arm = int(search.select()[0])
        s = search.statistics
        bounds = {
            "upper_reward": _finite(s.upper_reward.item(0, arm)),
            "lower": [_finite(x) for x in s.lower[0, arm].tolist()],
            "plays": s.plays.item(0, arm),
        }
        return arm, _REASONS[search.reason.item(0)], bounds

    def _search_marks(self) -> tuple[Any, ...]:
        s = self._search
        return s._swept, s._decisions, s._held, s._held_for, s._current, s.reason.copy()

    def _restore_marks(self, marks: tuple[Any, ...]) -> None:
        s = self._search
        s._swept, s._decisions, s._held, s._held_for, s._current, s.reason = marks

    # ------------------------------------------------------------------ learning

    def partial_fit(
        self,
        tau: float,
        *,
        groups: object,
        accepted: object,
        labels: object = None,
        scores: object = None,
    ) -> int | None:
        """Learn from a batch decided at tau and return its number for `add_labels`; None for an empty batch.

        Arguments: see `sfumato_ofs.batches.check_batch`. Labels of accepted people may be NaN when they are not known
        yet; rates are learned at once and the reward when `add_labels` brings the rest.
        """
        arm = self._arm(tau)
        batch = check_batch(
            groups=groups, accepted=accepted, labels=labels, scores=scores, n_groups=self.constraints.n_groups
        )
        mode = self._mode or ("ofs" if scores is None else "observed-scores")
        if mode == "observed-scores" and batch.scores is None:
            raise OfsError(
                "scores must be given: this bandit learns from observed scores. Where they are hidden use policy='ofs'"
            )
        if len(batch) == 0:
            self.log.append("empty", {"tau": float(tau), "arm": arm})
            return None
        rates = batch.rates(self.min_count)
        number = self._next_batch
        facts: dict[str, Any] = {
            "batch": number,
            "mode": mode,
            "tau": float(tau),
            "arm": arm,
            "n": len(batch),
            "rates": [_finite(r) for r in rates.tolist()],
            "off_policy": bool(self._selected[arm] == 0),
        }
        absent = [a for a in range(self.constraints.n_groups) if np.isnan(rates[a])]
        if absent:
            facts["no_gap_seen"] = f"fewer than {self.min_count} people in group {absent[0]}"
        if mode == "observed-scores":
            counts = self._scored.count(batch)
            facts["counts"] = {name: part.tolist() for name, part in counts.items()}
            self._log_fit(facts)
            self._scored.add(counts, arm)
        else:
            residuals = self.constraints.residuals(rates[None], np.array([batch.accepted.mean()]))[0]
            reward = batch.reward(self.loss)
            facts["reward"] = _finite(reward)
            facts["residuals"] = [_finite(g) for g in residuals.tolist()]
            self._log_fit(facts)
            self._search.update_one(arm, reward, residuals.tolist(), rates, len(batch) / self.batch_size)
        self._mode = mode
        self._next_batch += 1
        if np.isnan(batch.labels[batch.accepted]).any():
            self._waiting[number] = (arm, batch)
        return number

    def partial_fit_stats(
        self,
        tau: float,
        reward: float,
        residuals: Sequence[float],
        n: int,
        rates: Sequence[float] | None = None,
    ) -> int | None:
        """Learn from a batch's mean reward, residuals [I] (NaN where not seen) and size; hidden scores only."""
        arm = self._index.get(tau, -1)
        if arm < 0:
            arm = self._arm(tau)
        values = [float(g) for g in residuals]
        if len(values) != self.constraints.size:
            raise OfsError(
                f"residuals must have {self.constraints.size} entries {self.constraints.names}, got {len(values)}"
            )
        if not abs(reward) < 1e308 and reward == reward:
            raise OfsError(f"reward must be finite or NaN, got {reward!r}")
        if any(abs(g) > 1e308 for g in values):
            raise OfsError(f"residuals must be finite or NaN, got {values}")
        if n < 0:
            raise OfsError(f"n must be at least 0, got {n!r}")
        if self._mode == "observed-scores":
            raise OfsError(
                "partial_fit_stats is for hidden scores; this bandit learns from observed scores: use partial_fit"
            )
        if self._search_config.monotone and rates is None:
            raise OfsError("rates must be given: monotone bounds are built from the groups' acceptance rates")
        if n == 0:
            self.log.append("empty", {"tau": float(tau), "arm": arm})
            return None
        facts = {
            "batch": self._next_batch,
            "mode": "ofs",
            "tau": float(tau),
            "arm": arm,
            "n": int(n),
            "rates": None if rates is None else [_finite(float(r)) for r in rates],
            "off_policy": bool(self._selected.item(arm) == 0),
            "reward": _finite(float(reward)),
            "residuals": [_finite(g) for g in values],
        }
        self._log_fit(facts)
        row = None if rates is None else np.asarray(rates, dtype=np.float64)
        self._search.update_one(arm, float(reward), values, row, n / self.batch_size)
        self._mode = "ofs"
        self._next_batch += 1
        return self._next_batch - 1

    def add_labels(self, number: int, labels: object) -> bool:
        """Complete an earlier batch with labels [n] (NaN where still unknown); return whether it is complete now.

        Raises: OfsError when the batch is not waiting, or when a known label would change.
        """
        if number not in self._waiting:
            raise OfsError(
                f"number must be that of a batch that waits for labels {sorted(self._waiting)[:5]}, got {number!r}"
            )
        arm, batch = self._waiting[number]
        full = check_batch(
            groups=batch.membership,
            accepted=batch.accepted,
            labels=labels,
            scores=batch.scores,
            n_groups=self.constraints.n_groups,
        )
        known = ~np.isnan(batch.labels)
        if (~np.isnan(full.labels) & known & (full.labels != batch.labels)).any():
            raise OfsError(f"labels must not change what is known already, in batch {number}")
        merged = attrs.evolve(batch, labels=np.where(known, batch.labels, full.labels))
        complete = not np.isnan(merged.labels[merged.accepted]).any()
        facts: dict[str, Any] = {"batch": number, "arm": arm, "complete": complete, "mode": self._mode}
        if self._mode == "observed-scores":
            new = attrs.evolve(batch, labels=np.where(known, np.nan, full.labels))
            counts = {
                name: part for name, part in self._scored.count(new).items() if name in ("labelled", "good")
            }
            facts["counts"] = {name: part.tolist() for name, part in counts.items()}
            self.log.append("labels", facts)
            self._scored.add_labels(counts)
        else:
            reward = merged.reward(self.loss)
            facts["reward"] = _finite(reward)
            facts["n"] = len(batch)
            self.log.append("labels", facts)
            if complete:
                self._search.add_late_reward(arm, reward, len(batch) / self.batch_size)
        if complete:
            del self._waiting[number]
        else:
            self._waiting[number] = (arm, merged)
        return complete

    def warm_start(
        self, *, scores: object, groups: object, accepted: object, labels: object, tau: float | None = None
    ) -> None:
        """Learn from decisions taken before this bandit, with observed scores; at the incumbent unless tau is given.

        The past need not have followed a threshold: rates at every threshold come from the scores, and labels from
        whoever was accepted.
        """
        if self._mode == "ofs":
            raise OfsError(
                "warm_start needs observed scores; this bandit learns by ofs: replay an earlier log instead"
            )
        number = self.partial_fit(
            self.grid.item(self.incumbent) if tau is None else tau,
            scores=scores,
            groups=groups,
            accepted=accepted,
            labels=labels,
        )
        if number is not None:
            self._waiting.pop(number, None)

    def _log_fit(self, facts: dict[str, Any]) -> None:
        self.log.append("fit", facts)

    def _arm(self, tau: float) -> int:
        arm = self._index.get(float(tau))
        if arm is None:
            nearest = float(self.grid[np.abs(self.grid - tau).argmin()]) if tau == tau else float("nan")
            raise OfsError(
                f"tau must lie on the grid, got {tau!r}; the nearest grid threshold is {nearest!r}"
            )
        return arm

    # ------------------------------------------------------------------ answers

    @property
    def mode(self) -> str | None:
        """`observed-scores` or `ofs`; None before the first batch under `policy = auto`."""
        return self._mode

    def recommend(self) -> float:
        """Return the threshold to deploy; the incumbent before any data."""
        if self._mode is None or self._next_batch == 0:
            return self.grid.item(self.incumbent)
        arm = (
            self._scored.choose()[0] if self._mode == "observed-scores" else int(self._search.recommend()[0])
        )
        return self.grid.item(arm)

    def certificate(self) -> dict[str, Any]:
        """Return thresholds whose upper residual bounds are at or below 0, with the bounds.

        At `beta = 1` and for a population at rest all bounds hold together with probability 1 - delta; with a smaller beta
        the entry `holds` says that they are narrower than that.
        """
        if self._mode == "observed-scores":
            upper = self._scored.upper_residuals(self._search_config.delta)
            holds = self._observed_config.discount == 1.0
            note = "Hoeffding, all thresholds and groups at once, decayed counts as sample sizes"
        else:
            upper = self._search.bounds()[1][0]
            holds = self._search_config.beta >= 1.0
            note = f"sub-Gaussian, beta = {self._search_config.beta}"
        certified = np.flatnonzero((upper <= 0.0).all(axis=1))
        return {
            "delta": self._search_config.delta,
            "holds": holds,
            "bounds": note,
            "certified": [
                {"tau": self.grid.item(j), "upper_residuals": upper[j].tolist()} for j in certified.tolist()
            ],
        }

    def report(self) -> dict[str, Any]:
        """Return a summary of what was played and learned."""
        return {
            "mode": self._mode,
            "rounds": self.round,
            "batches": self._next_batch,
            "waiting_for_labels": len(self._waiting),
            "incumbent": self.grid.item(self.incumbent),
            "recommended": self.recommend(),
            "plays": {self.grid.item(j): int(k) for j, k in enumerate(self._selected) if k},
            "certified": [entry["tau"] for entry in self.certificate()["certified"]],
            "head": attrs.asdict(self.log.head),
        }

    @property
    def head(self) -> Head:
        """The audit log's head, to be exported and signed."""
        return self.log.head

    # ------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, Any]:
        """Return all that decides what comes next; `load_state_dict` of it resumes bit for bit."""
        self._search.settle()
        return copy.deepcopy(
            {
                "version": STATE_VERSION,
                "settings": self._settings,
                "round": self.round,
                "mode": self._mode,
                "next_batch": self._next_batch,
                "selected": self._selected,
                "proposal": self.proposal,
                "waiting": self._waiting,
                "search": _moving(
                    self._search, ("config", "statistics", "_constraints", "_rates", "allowed")
                ),
                "statistics": _moving(self._search.statistics, ("config",)),
                "rates": None if self._search._rates is None else _moving(self._search._rates, ("levels",)),
                "scored": self._scored.state(),
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from `state_dict`. The log notes where.

        Raises: OfsError when the state is of another version or of a bandit with other settings.
        """
        if state.get("version") != STATE_VERSION:
            raise OfsError(f"state must be of version {STATE_VERSION}, got {state.get('version')!r}")
        if state["settings"] != self._settings:
            odd = [k for k, v in self._settings.items() if state["settings"].get(k) != v]
            raise OfsError(f"state belongs to a bandit with another {odd[0] if odd else 'set of settings'}")
        self.log.append("resume", {"round": state["round"], "batches": state["next_batch"]})
        self._load(copy.deepcopy(state))

    def _load(self, state: dict[str, Any]) -> None:
        self.round, self._mode, self._next_batch = state["round"], state["mode"], state["next_batch"]
        self._selected, self.proposal, self._waiting = state["selected"], state["proposal"], state["waiting"]
        vars(self._search).update(state["search"])
        vars(self._search.statistics).update(state["statistics"])
        if state["rates"] is not None:
            vars(self._search._rates).update(state["rates"])
        self._scored.load(state["scored"])


_REASONS = list(Reason)


def _moving(thing: object, fixed: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in vars(thing).items() if name not in fixed}


def _finite(x: float) -> float | None:
    """Return x, or None where JSON has no number for it."""
    return x if -1e308 < x < 1e308 else None
