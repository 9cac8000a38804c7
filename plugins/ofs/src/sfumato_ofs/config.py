"""Settings of this plugin's tasks and solvers: frozen, typed, checked when they are made."""

from __future__ import annotations

import attrs
from attrs.validators import and_, deep_iterable, ge, gt, in_, le, lt, optional

_unit = and_(ge(0.0), le(1.0))


@attrs.frozen(kw_only=True)
class LoopConfig:
    """What all closed loops share.

    Attributes:
        n_thresholds: points M of the grid on [0, 1]; with `thresholds = "per-group"`, points a group.
        thresholds: one threshold for all (`shared`) or one a group (`per-group`: arms are all combinations;
            group-specific thresholds may be unlawful where you use them).
        applicants: batch size n of a round.
        rounds: horizon T.
        loss: cost of an accepted bad outcome in units of an accepted good one.
        eps: largest allowed difference of group acceptance rates.
        rho_min: smallest allowed overall acceptance rate.
        rho_max: largest allowed overall acceptance rate; 1 leaves it out.
        gap: form of the parity residuals, see `sfumato_ofs.constraints.Constraints`.
        scores: `hidden` shows reward, residuals and group rates of the threshold in use; `observed` also shows each
            applicant's score, counted by grid cell.
        label_delay: rounds D until a round's outcomes, and with them its reward, arrive; rates are seen at once.
            The rewards of the last D rounds are never paid out.
        fairness: what is compared between groups: `parity`, `opportunity`, `odds` or `predictive-parity`; see
            `sfumato_ofs.outcomes`.
        labels: whose outcomes are seen: `accepted`; `full` (everybody's, a simulation only); `explore` (a random
            `explore_rate` of the rejected is accepted to look, at a cost in reward).
        explore_rate: that share.
    """

    n_thresholds: int = attrs.field(default=41, validator=ge(2))
    thresholds: str = attrs.field(default="shared", validator=in_(("shared", "per-group")))
    applicants: int = attrs.field(default=200, validator=ge(1))
    rounds: int = attrs.field(default=5000, validator=ge(1))
    loss: float = attrs.field(default=1.0, validator=ge(0.0))
    eps: float = attrs.field(default=0.10, validator=_unit)
    rho_min: float = attrs.field(default=0.30, validator=_unit)
    rho_max: float = attrs.field(default=1.0, validator=_unit)
    gap: str = attrs.field(default="signed", validator=in_(("signed", "abs", "to-overall", "ratio")))
    scores: str = attrs.field(default="hidden", validator=in_(("hidden", "observed")))
    label_delay: int = attrs.field(default=0, validator=ge(0))
    fairness: str = attrs.field(
        default="parity", validator=in_(("parity", "opportunity", "odds", "predictive-parity"))
    )
    labels: str = attrs.field(default="accepted", validator=in_(("accepted", "full", "explore")))
    explore_rate: float = attrs.field(default=0.05, validator=and_(gt(0.0), le(1.0)))

    def __attrs_post_init__(self) -> None:
        if self.rho_min > self.rho_max:
            raise ValueError(f"rho_min must not exceed rho_max, got {self.rho_min} > {self.rho_max}")
        if self.fairness in ("opportunity", "odds") and self.labels == "accepted":
            raise ValueError(
                f"fairness = {self.fairness} cannot be learned from labels = accepted: how many of the rejected would have been "
                "good is unknown, so no true or false positive rate is. Use labels = explore (a random share of the rejected "
                "is accepted to look) or labels = full (simulation), or fairness = parity or predictive-parity"
            )
        if self.fairness != "parity" and self.scores == "observed":
            raise ValueError(
                "scores = observed goes with fairness = parity: its estimates are of acceptance rates"
            )
        if self.fairness != "parity" and self.label_delay:
            raise ValueError("label_delay goes with fairness = parity: outcome rates need the labels at once")


@attrs.frozen(kw_only=True)
class SyntheticConfig(LoopConfig):
    """Settings of `ofs/synthetic`.

    Attributes:
        preset: `A` contracts (kappa 0.8); `A-slow` has kappa 0.9, where the certificate fails and a warning says so.
        groups: 2, or 3 with base means 0.60, 0.52, 0.45 and shares 0.4, 0.3, 0.3 (six signed gaps).
        drift: `none`, `jump` (the groups' base means change at `drift_at`) or `ramp` (linearly from there to the end).
        drift_at: round of the change.
        drift_means: base means afterwards.
    """

    preset: str = attrs.field(default="A", validator=in_(("A", "A-slow")))
    groups: int = attrs.field(default=2, validator=in_((2, 3)))
    drift: str = attrs.field(default="none", validator=in_(("none", "jump", "ramp")))
    drift_at: int = attrs.field(default=2500, validator=ge(0))
    drift_means: tuple[float, float] = attrs.field(
        default=(0.50, 0.55), validator=deep_iterable(and_(ge(0.05), le(0.95)))
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if self.drift != "none" and self.groups != 2:
            raise ValueError(f"drift is defined for groups = 2, got groups = {self.groups}")
        if self.drift != "none" and self.drift_at >= self.rounds:
            raise ValueError(
                f"drift_at must come before the end (rounds = {self.rounds}), got {self.drift_at}"
            )


@attrs.frozen(kw_only=True)
class GermanConfig(LoopConfig):
    """Settings of `ofs/german`.

    Attributes:
        group: `age` (group 1 is 25 or younger) or `sex` (group 1 is female; the field leaves the score model, and
            parity at eps 0.05 does not bind).
    """

    group: str = attrs.field(default="age", validator=in_(("age", "sex")))


@attrs.frozen(kw_only=True)
class CompasConfig(LoopConfig):
    """Settings of `ofs/compas`."""


@attrs.frozen(kw_only=True)
class BanditConfig:
    """What all learners with confidence bounds share.

    Attributes:
        beta: width of the bounds; 1 carries the guarantee, 0.5 is the default, 0.25 is bold.
        delta: probability that some bound fails, at beta = 1.
        anytime: replace the horizon T in the bounds by max(t, 2)^2.
        order: order of the first sweep over unplayed arms: `grid`, `highest-service` (most lenient first; the same as
            `grid` on an ascending grid), `strictest-first`, `outward` from the incumbent, or `random`.
        incumbent: threshold in use before learning begins, on the grid; None for none.
        corridor: how far from the incumbent a choice may lie, in threshold units; None for anywhere.
        gap_weight: `group-sizes` weighs each gap by what its groups' sizes tell (`Constraints.weights`), as the guarantee
            asks; `equal` takes every batch for one of equal groups, so bounds are too narrow by 2% at 40/60, 27% at 19/81.
    """

    beta: float = attrs.field(default=0.5, validator=ge(0.0))
    delta: float = attrs.field(default=0.05, validator=and_(gt(0.0), lt(1.0)))
    anytime: bool = False
    order: str = attrs.field(
        default="grid", validator=in_(("grid", "highest-service", "strictest-first", "outward", "random"))
    )
    incumbent: float | None = attrs.field(default=None, validator=optional(_unit))
    corridor: float | None = attrs.field(default=None, validator=optional(gt(0.0)))
    gap_weight: str = attrs.field(default="group-sizes", validator=in_(("group-sizes", "equal")))

    def __attrs_post_init__(self) -> None:
        for name, wanted in (("order", self.order == "outward"), ("corridor", self.corridor is not None)):
            if wanted and self.incumbent is None:
                raise ValueError(
                    f"{name} = {getattr(self, name)!r} needs incumbent, the threshold in use before learning begins"
                )


@attrs.frozen(kw_only=True)
class OptimisticFeasibleConfig(BanditConfig):
    """Settings of `ofs/optimistic-feasible`.

    Attributes:
        margin: slack added to every residual before it is compared with 0; for hard limits.
        discount: factor gamma on all sums and counts each round; 1 forgets nothing.
        window: rounds kept in memory; 0 keeps all.
        block: rounds each choice is held; the first half of a block is not learned from.
        reprobe_every: rounds between re-probes of the neighbours of the current arm; 0 never. 500 is a good first
            value against the lock-out that a small beta can cause.
        monotone: tighten the bounds by the monotonicity of acceptance in the threshold (needs observed group rates).
        pessimistic: call an arm feasible only when its upper bounds say so; needs `safe_arm`.
        safe_arm: index of an arm known to be feasible; -1 for none.
        probe_every: in pessimistic mode, rounds between probes of an uncertified neighbour of the certified set.
        detect: alarm level of a two-sided CUSUM on the residuals, in units of one batch's noise; an alarm makes the
            item forget all and start anew. 0 for none; 20 is a good first value.
        detect_slack: drift per round that the CUSUM lets pass, in the same units.
        loss_cap: total reward that exploring may cost against the incumbent's mean; once spent, only the incumbent or
            arms certified feasible and surely no worse are played. 0 for no cap.
        bias: allowance b / N for what N plays of an arm may be off because the population still remembered the arm before;
            see `sfumato_ofs.mixing.bias_allowance`. 0 for a population at rest.
        bounds: `hoeffding` takes the largest variance that could be (the reference design); `bernstein` the observed one of
            people's outcomes, which is narrower where nearly all or nearly nobody is accepted (needs rates and group sizes).
    """

    margin: float = attrs.field(default=0.0, validator=ge(0.0))
    discount: float = attrs.field(default=1.0, validator=and_(gt(0.0), le(1.0)))
    window: int = attrs.field(default=0, validator=ge(0))
    block: int = attrs.field(default=1, validator=ge(1))
    reprobe_every: int = attrs.field(default=0, validator=ge(0))
    monotone: bool = False
    pessimistic: bool = False
    safe_arm: int = attrs.field(default=-1, validator=ge(-1))
    probe_every: int = attrs.field(default=10, validator=ge(2))
    detect: float = attrs.field(default=0.0, validator=ge(0.0))
    detect_slack: float = attrs.field(default=0.5, validator=ge(0.0))
    loss_cap: float = attrs.field(default=0.0, validator=ge(0.0))
    bias: float = attrs.field(default=0.0, validator=ge(0.0))
    bounds: str = attrs.field(default="hoeffding", validator=in_(("hoeffding", "bernstein")))

    @property
    def needs_rates(self) -> bool:
        """Whether the bounds are built from the groups' acceptance rates and sizes."""
        return self.monotone or self.bounds == "bernstein"

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if 0 < self.reprobe_every <= 2:
            raise ValueError(
                f"reprobe_every must exceed the 2 neighbours that are probed in turn, got {self.reprobe_every}; 0 for never"
            )
        if self.loss_cap > 0.0 and self.incumbent is None:
            raise ValueError("loss_cap needs incumbent, the threshold that losses are measured against")
        if self.pessimistic and self.safe_arm < 0:
            raise ValueError(
                "pessimistic needs safe_arm, the index of an arm known to be feasible: got safe_arm = -1. "
                "Find one with 'sfumato ofs sweep'."
            )
        if self.bounds == "bernstein" and (self.discount < 1.0 or self.window or self.bias > 0.0):
            raise ValueError(
                "bounds = bernstein counts people and goes with neither discount, window nor bias: got discount = "
                f"{self.discount}, window = {self.window}, bias = {self.bias}"
            )
        if self.window and self.discount < 1.0:
            raise ValueError(
                f"use window or discount, not both: got window = {self.window}, discount = {self.discount}"
            )


@attrs.frozen(kw_only=True)
class UnconstrainedConfig(BanditConfig):
    """Settings of `ofs/unconstrained`: the upper confidence bound on reward alone."""


@attrs.frozen(kw_only=True)
class PrimalDualConfig(BanditConfig):
    """Settings of `ofs/primal-dual`.

    Attributes:
        step: dual step size.
        ceiling: largest multiplier.
        residual: `optimistic` penalises lower residual bounds, `mean` plain means.
        margin: slack added to every residual.
    """

    step: float = attrs.field(default=0.05, validator=gt(0.0))
    ceiling: float = attrs.field(default=10.0, validator=gt(0.0))
    residual: str = attrs.field(default="optimistic", validator=in_(("optimistic", "mean")))
    margin: float = attrs.field(default=0.0, validator=ge(0.0))


@attrs.frozen(kw_only=True)
class EpsilonGreedyConfig:
    """Settings of `ofs/epsilon-greedy`: with probability `explore` a random arm, else the best feasible mean."""

    explore: float = attrs.field(default=0.05, validator=_unit)
    margin: float = attrs.field(default=0.0, validator=ge(0.0))


@attrs.frozen(kw_only=True)
class RandomConfig:
    """Settings of `ofs/random`: a uniformly random arm each round. There are none."""


@attrs.frozen(kw_only=True)
class FixedConfig:
    """Settings of `ofs/fixed`: hold the grid threshold `tau` for every group; it must lie on the grid."""

    tau: float = attrs.field(default=0.5, validator=_unit)


@attrs.frozen(kw_only=True)
class ObservedScoresConfig:
    """Settings of `ofs/observed-scores`.

    Attributes:
        tau: incumbent threshold to start from; it must lie on the grid.
        discount: factor on all counts each round.
        margin: slack added to every estimated residual.
        corridor: how far from the incumbent a choice may lie, in threshold units; None for anywhere.
        prior: labels that a score's own claim (its probability of a good outcome) is worth in each cell.
    """

    tau: float = attrs.field(default=0.5, validator=_unit)
    discount: float = attrs.field(default=0.99, validator=and_(gt(0.0), le(1.0)))
    margin: float = attrs.field(default=0.0, validator=ge(0.0))
    corridor: float | None = attrs.field(default=None, validator=optional(gt(0.0)))
    prior: float = attrs.field(default=10.0, validator=gt(0.0))


@attrs.frozen(kw_only=True)
class MabwiserConfig:
    """Settings of `ofs/mabwiser`.

    Attributes:
        policy: `ucb1`, `softmax` or `thompson` (needs 0/1 rewards: a scalarised reward above 0 counts as success).
        alpha: exploration of UCB1.
        temperature: of softmax.
        penalty: c of the scalarised reward R - c * sum_i max(g_i, 0); 0 ignores the constraints.
    """

    policy: str = attrs.field(default="ucb1", validator=in_(("ucb1", "softmax", "thompson")))
    alpha: float = attrs.field(default=0.1, validator=ge(0.0))
    temperature: float = attrs.field(default=0.01, validator=gt(0.0))
    penalty: float = attrs.field(default=0.0, validator=ge(0.0))


@attrs.frozen(kw_only=True)
class VowpalWabbitConfig:
    """Settings of `ofs/vowpal-wabbit`: contextual bandit without context, thresholds as actions.

    Attributes:
        exploration: VW's exploration option with its value.
        penalty: c of the scalarised reward R - c * sum_i max(g_i, 0); 0 ignores the constraints.
    """

    exploration: str = attrs.field(default="--epsilon 0.05")
    penalty: float = attrs.field(default=0.0, validator=ge(0.0))
