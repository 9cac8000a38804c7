"""`ThresholdBandit`: choose an acceptance threshold batch by batch, with a log that can be replayed.

Where every applicant's score is seen, one batch informs about all thresholds, and that is the default. Bandit feedback
(Optimistic Feasible Search) is for hidden scores only. Either way learning begins at the incumbent threshold and
stays within a corridor around it, until you widen the corridor.

Whatever is learned is first written to the log and then learned from what was written (`_learn`), so that a replay
goes the same way.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_ofs.audit import AuditLog, Head
from sfumato_ofs.bandit_settings import HIDDEN_IN_SHADOW, check_settings
from sfumato_ofs.bandit_state import Waiting, check_state, load_parts, parts
from sfumato_ofs.batches import Batch, check_batch
from sfumato_ofs.config import ObservedScoresConfig, OptimisticFeasibleConfig
from sfumato_ofs.constraints import Constraints, reward_scale
from sfumato_ofs.errors import OfsError
from sfumato_ofs.inputs import EXACT, number, row, whole
from sfumato_ofs.learners import Reason
from sfumato_ofs.loops import shared_arms
from sfumato_ofs.scored_stream import ScoredStream
from sfumato_ofs.search import corridor_of
from sfumato_ofs.stream import StreamSearch
from sfumato_ofs.verdicts import Verdict, certificate, verdicts

FloatArray = NDArray[np.float64]

STATE_VERSION = 2


class ThresholdBandit:
    """Online choice of one acceptance threshold under fairness and service constraints.

    Arguments:
        grid: thresholds to choose from, strictly increasing in [0, 1]; default 41 points.
        constraints: residuals and their bounds; default parity within 0.10 and at least 30% accepted.
        loss: cost of an accepted bad outcome, in units of an accepted good one.
        policy: `observed-scores`, `ofs`, or `auto`: the first batch decides, by whether it shows scores.
        incumbent: threshold in use today, on the grid. Learning begins there.
        corridor: how far from the incumbent a choice may lie; None for the whole grid.
        loss_cap: total reward that exploring may cost against the incumbent's mean (policy `ofs`), in batches of the usual
            size; 0 for no cap.
        margin: slack added to every residual; set it when going live.
        horizon: rounds T for the bounds of `ofs`; None for bounds that hold at any time.
        batch_size: usual number of people in a batch; a batch of another size is weighted by n / batch_size.
        min_count: people of a group below which a batch says nothing about the group's rate.
        settings: further options of `ofs` (its own incumbent, corridor, margin, loss cap and anytime are set from here).
        observed: further options of `observed-scores` (discount, prior).
        shadow: `select` returns the incumbent and only notes in `proposal` what it would have chosen. Needs scores.
        seed: of the first sweep, where `settings` ask for a random order.
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
        min_count: float = 5,
        settings: OptimisticFeasibleConfig | None = None,
        observed: ObservedScoresConfig | None = None,
        shadow: bool = False,
        seed: int = 0,
        log: str | Path | None = None,
    ) -> None:
        given = check_settings(
            grid=grid, constraints=constraints, loss=loss, policy=policy, incumbent=incumbent, corridor=corridor,
            loss_cap=loss_cap, margin=margin, horizon=horizon, batch_size=batch_size, min_count=min_count,
            settings=settings, observed=observed, shadow=shadow, seed=seed,
        )  # fmt: skip
        self.grid, self.constraints, self.loss = given.grid, given.constraints, given.loss
        self.batch_size, self.min_count, self.shadow = given.batch_size, given.min_count, given.shadow
        self._arms = shared_arms(self.grid, self.constraints.n_groups)
        self._index = {float(tau): j for j, tau in enumerate(self.grid)}
        self.incumbent, allowed, distance = corridor_of(
            self._arms, given.incumbent, given.corridor, "incumbent"
        )
        self._horizon = given.horizon
        if self._horizon is not None and self._horizon < int(allowed.sum()):
            warnings.warn(
                f"horizon {self._horizon} is below the number of thresholds to try ({int(allowed.sum())}): the first sweep "
                "never ends. Use a coarser grid or a narrower corridor.",
                stacklevel=2,
            )
        self._search_config, self._observed_config = given.search_config, given.observed_config
        self._search = StreamSearch(
            1,
            len(self.grid),
            self._horizon or 1,
            self._search_config,
            reward_scale=reward_scale(self.loss, self.batch_size),
            residual_scales=self.constraints.scales(self.batch_size),
            constraints=self.constraints,
            levels=np.searchsorted(self.grid, self._arms),
            allowed=allowed,
            incumbent=self.incumbent,
            distance=distance,
            loss=self.loss,
            rngs=[np.random.default_rng(given.seed)],
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
        self._waiting: dict[int, Waiting] = {}
        self._next_batch = 0
        self._sizes_known = True  # of all batches so far; without them no bound on a gap is proven
        self._groups_seen = False
        self._settings = given.facts()
        self.log = AuditLog(log, fresh=True)
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
        elif self._next_batch and not self._every_group_seen():
            arm, reason = self.incumbent, Reason.UNSEEN_GROUP
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
        except Exception:
            if before is not None:
                self._restore_marks(before)
            raise
        self.proposal = self.grid.item(arm)
        self._selected[played] += 1
        self.round += 1
        return self.grid.item(played)

    def _every_group_seen(self) -> bool:
        """Whether each residual has been seen at some threshold; before that another threshold would be a leap in the dark."""
        if not self._groups_seen:
            self._groups_seen = bool((self._search.statistics.seen[0] > 0.0).any(axis=0).all())
        return self._groups_seen

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

        Arguments: see `sfumato_ofs.batches.check_batch`. Where scores are given, accepted must be scores >= tau. Labels of
        accepted people may be NaN when they are not known yet; rates are learned at once and the reward when `add_labels`
        brings the rest.
        """
        arm = self._arm(tau)
        batch = check_batch(
            groups=groups, accepted=accepted, labels=labels, scores=scores, n_groups=self.constraints.n_groups
        )
        if batch.scores is not None:
            odd = np.flatnonzero(batch.accepted != (batch.scores >= self.grid[arm]))
            if len(odd):
                raise OfsError(
                    f"accepted must be scores >= tau ({self.grid.item(arm):g}); {len(odd)} of {len(batch)} people differ, the first at "
                    f"position {odd[0]}. Past decisions that followed no threshold are for warm_start"
                )
        return self._fit(arm, batch)

    def _fit(self, arm: int, batch: Batch, warm: bool = False) -> int | None:
        mode = self._mode or ("ofs" if batch.scores is None else "observed-scores")
        if mode == "observed-scores" and batch.scores is None:
            raise OfsError(
                "scores must be given: this bandit learns from observed scores. Where they are hidden use policy='ofs'"
            )
        if mode == "ofs" and self.shadow:
            raise OfsError(f"scores must be given: {HIDDEN_IN_SHADOW}")
        if len(batch) == 0:
            self.log.append("empty", {"tau": self.grid.item(arm), "arm": arm})
            return None
        rates = batch.rates(self.min_count)
        facts = self._facts(mode, arm, len(batch), rates.tolist(), batch.reward(self.loss))
        facts["people"] = batch.people.tolist()
        facts["accepted"] = int(batch.accepted.sum())
        facts["unlabelled"] = batch.unlabelled
        absent = [a for a in range(self.constraints.n_groups) if np.isnan(rates[a])]
        if absent:
            facts["no_gap_seen"] = f"fewer than {self.min_count:g} people in group {absent[0]}"
        if warm:
            facts["warm"] = True
        if mode == "observed-scores":
            facts["counts"] = {name: part.tolist() for name, part in self._scored.count(batch).items()}
        else:
            overall = facts["accepted"] / len(batch)
            residuals = self.constraints.residuals_of_one(rates.tolist(), overall)
            facts["residuals"] = [_finite(g) for g in residuals]
            if not batch.disjoint:
                # People in several groups, or known by probability, tell less of a gap, or more, than their numbers.
                spread = batch.spread()
                count = 1.0 / np.diag(spread)
                size = np.array([len(batch)])
                weights = self.constraints.weights(count[None], size, self.batch_size, spread[None])
                facts["weights"], facts["effective"] = weights[0].tolist(), count.tolist()
        self.log.append("fit", facts)
        learned = self._learn(facts)
        if facts["unlabelled"] and not warm:
            self._waiting[facts["batch"]] = Waiting(arm, batch, learned)
        return int(facts["batch"])

    def _facts(self, mode: str, arm: int, n: int, rates: list[float] | None, reward: float) -> dict[str, Any]:
        return {
            "batch": self._next_batch,
            "mode": mode,
            "tau": self.grid.item(arm),
            "arm": arm,
            "n": n,
            "rates": None if rates is None else [_finite(r) for r in rates],
            "off_policy": self._selected.item(arm) == 0,
            "reward": _finite(reward),
        }

    def partial_fit_stats(
        self,
        tau: float,
        reward: float,
        residuals: Sequence[float] | FloatArray,
        n: int,
        rates: Sequence[float] | FloatArray | None = None,
        group_counts: Sequence[float] | FloatArray | None = None,
    ) -> int | None:
        """Learn from a batch's mean reward and residuals [I] (NaN where not seen) and its size; hidden scores only.

        Arguments:
            rates: acceptance rates of the groups [G], NaN where not seen; `monotone` needs them.
            group_counts: people of each group [G], disjoint groups. Without them the gaps count as those of equal groups,
                which is too narrow for others, and `certificate` says that its bounds do not hold.
        """
        arm = self._index.get(tau, -1) if type(tau) is float else -1
        if arm < 0:
            arm = self._arm(tau)
        reward = number("reward", reward, least=-self.loss, most=1.0, unknown=True)
        n_groups = self.constraints.n_groups
        values = row("residuals", residuals, self.constraints.size, "one a constraint", least=-2.0, most=1.0)
        n = whole("n", n, most=EXACT)
        shown = None if rates is None else row("rates", rates, n_groups, "one a group", least=0.0, most=1.0)
        sizes = None
        if group_counts is not None:
            sizes = row(
                "group_counts", group_counts, n_groups, "one a group", least=0.0, most=n, unknown=False
            )
            if sum(sizes) > n:
                raise OfsError(
                    f"group_counts must be of disjoint groups: they sum to {sum(sizes):g}, and n is {n}"
                )
        if self._mode == "observed-scores":
            raise OfsError(
                "partial_fit_stats is for hidden scores; this bandit learns from observed scores: use partial_fit"
            )
        if self.shadow:
            raise OfsError(f"partial_fit_stats is for hidden scores: {HIDDEN_IN_SHADOW}")
        for name, given in (("rates", shown), ("group_counts", sizes)):
            if given is None and self._search_config.needs_rates:
                raise OfsError(
                    f"{name} must be given: these bounds are built from the groups' acceptance rates and sizes"
                )
        if n == 0:
            self.log.append("empty", {"tau": float(tau), "arm": arm})
            return None
        facts = self._facts("ofs", arm, n, shown, reward)
        facts["residuals"] = [_finite(g) for g in values]
        if sizes is not None:
            facts["people"] = sizes
        self.log.append("fit", facts)
        self._learn(facts)
        return int(facts["batch"])

    def _learn(self, event: Mapping[str, Any]) -> bool:
        """Learn from what the log holds of a batch; return whether the search learned from it (blocks skip their first half)."""
        learned = True
        if event["mode"] == "observed-scores":
            counts = {name: np.array(part, dtype=np.float64) for name, part in event["counts"].items()}
            self._scored.add(counts, event["arm"])
        else:
            weights = event.get("weights")
            if weights is None and "people" in event:
                weights = self.constraints.weights_of_one(event["people"], event["n"], self.batch_size)
            self._sizes_known &= weights is not None
            rates = people = None
            if self._search_config.needs_rates:
                rates = np.array([_number(r) for r in event["rates"]])
                people = np.array(event.get("effective", event["people"]))
            learned = self._search.update_one(
                event["arm"],
                _number(event["reward"]),
                [_number(g) for g in event["residuals"]],
                rates,
                event["n"] / self.batch_size,
                weights,
                people,
                _batch(event),
            )
        self._mode = event["mode"]
        self._next_batch = event["batch"] + 1
        return learned

    def add_labels(self, number: int, labels: object) -> bool:
        """Complete an earlier batch with labels [n] (NaN where still unknown); return whether it is complete now.

        Raises: OfsError when the batch is not waiting, or when a known label would change.
        """
        waiting = self._waiting.get(number) if isinstance(number, int | np.integer) else None
        if waiting is None:
            raise OfsError(
                f"number must be that of a batch that waits for labels {sorted(self._waiting)[:5]}, got {number!r}"
            )
        batch = waiting.batch
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
        left = merged.unlabelled
        facts: dict[str, Any] = {
            "batch": int(number),
            "arm": waiting.arm,
            "complete": left == 0,
            "unlabelled": left,
            "mode": self._mode,
            "n": len(batch),
            "accepted": int(merged.accepted.sum()),
            "reward": _finite(merged.reward(self.loss)),
            "learned": waiting.learned,
        }
        if self._mode == "observed-scores":
            new = attrs.evolve(batch, labels=np.where(known, np.nan, full.labels))
            counts = self._scored.count(new)
            facts["counts"] = {name: counts[name].tolist() for name in ("labelled", "good")}
        self.log.append("labels", facts)
        self._learn_labels(facts)
        if left == 0:
            del self._waiting[number]
        else:
            self._waiting[number] = attrs.evolve(waiting, batch=merged)
        return left == 0

    def _learn_labels(self, event: Mapping[str, Any]) -> None:
        """Learn from what the log holds of labels that came late."""
        if event["mode"] == "observed-scores":
            self._scored.add_labels({k: np.array(v, dtype=np.float64) for k, v in event["counts"].items()})
        elif event["complete"]:
            weight = event["n"] / self.batch_size
            reward = _number(event["reward"])
            self._search.add_late_reward(event["arm"], reward, weight, event["learned"], _batch(event))

    def warm_start(
        self, *, scores: object, groups: object, accepted: object, labels: object, tau: float | None = None
    ) -> None:
        """Learn from decisions taken before this bandit, with observed scores; at the incumbent unless tau is given.

        The past need not have followed a threshold: rates at every threshold come from the scores, and labels from
        whoever was accepted. Labels that are unknown stay so.
        """
        if self._mode == "ofs":
            raise OfsError(
                "warm_start needs observed scores; this bandit learns by ofs: replay an earlier log instead"
            )
        arm = self.incumbent if tau is None else self._arm(tau)
        batch = check_batch(
            groups=groups, accepted=accepted, labels=labels, scores=scores, n_groups=self.constraints.n_groups
        )
        if batch.scores is None:
            raise OfsError("scores must be given: warm_start learns from observed scores")
        self._fit(arm, batch, warm=True)

    def _arm(self, tau: float) -> int:
        tau = number("tau", tau)
        arm = self._index.get(tau)
        if arm is None:
            nearest = float(self.grid[np.abs(self.grid - tau).argmin()])
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
        if self._mode == "observed-scores":
            return self.grid.item(self._scored.choose()[0])
        if not self._every_group_seen():
            return self.grid.item(self.incumbent)
        return self.grid.item(int(self._search.recommend()[0]))

    def bounds(self) -> tuple[FloatArray, FloatArray]:
        """Return lower and upper bounds of the residuals at every threshold, margin included, float arrays [M, I]."""
        if self._mode == "observed-scores":
            return self._scored.bounds(self._search_config.delta)
        lower, upper = self._search.bounds()
        return lower[0], upper[0]

    def feasibility(self) -> list[Verdict]:
        """Return what is known of every threshold: reward, residuals with bounds, and a verdict; see `verdicts.Verdict`."""
        return verdicts(self)

    def certificate(self) -> dict[str, Any]:
        """Return thresholds whose upper residual bounds are at or below 0, with the bounds.

        The entry `holds` says whether the bounds hold together with probability 1 - delta for a population at rest, and
        `when` whether in all rounds at once or only at one moment that was fixed before: whoever looks at fixed-time bounds
        again and again will at some time see one that fails. `why` names what stands in the way.
        """
        return certificate(self)

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
        """Return all that decides what comes next, with the log's head.

        `load_state_dict` of it resumes bit for bit with a new log; `sfumato_ofs.resume(path, state)` goes on in the same log.
        Batches that wait for labels are in it (people's scores and groups among them), and in no log.
        """
        self._search.settle()
        return copy.deepcopy(
            {
                "version": STATE_VERSION,
                "settings": self._settings,
                "head": attrs.asdict(self.log.head),
                "round": self.round,
                "mode": self._mode,
                "next_batch": self._next_batch,
                "sizes_known": self._sizes_known,
                "groups_seen": self._groups_seen,
                "selected": self._selected,
                "proposal": self.proposal,
                "waiting": self._waiting,
                **parts(self._search, self._scored),
            }
        )

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from `state_dict`. The log notes where, and the head of the log that the state came from.

        Raises: OfsError naming the entry when the state is damaged, of another version or of a bandit with other settings.
        """
        check_state(state, self.state_dict())
        facts = {"round": state["round"], "batches": state["next_batch"], "from": dict(state["head"])}
        self.log.append("resume", facts)
        self._load(copy.deepcopy(dict(state)))

    def _load(self, state: dict[str, Any]) -> None:
        self.round, self._mode, self._next_batch = state["round"], state["mode"], state["next_batch"]
        self._sizes_known, self._groups_seen = state["sizes_known"], state["groups_seen"]
        self._selected, self.proposal, self._waiting = state["selected"], state["proposal"], state["waiting"]
        load_parts(state, self._search, self._scored)


_REASONS = list(Reason)


def _finite(x: float) -> float | None:
    """Return x, or None where JSON has no number for it."""
    return x if -1e308 < x < 1e308 else None


def _batch(event: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return an event's overall acceptance rate and number of people, where it has them."""
    n = event["n"]
    return (event["accepted"] / n, float(n)) if "accepted" in event else None


def _number(x: float | None) -> float:
    return float("nan") if x is None else x
