"""Solvers: the bias rules, the exact optimum, and the peers, on given scores or for a model to be trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
import numpy as np

from sfumato.protocols import Context, Policy, Runtime, Solver, Task
from sfumato.records import Refusal, Start, Step

from . import peers
from .config import (
    AuxLossConfig,
    BiasConfig,
    ExpertChoiceConfig,
    LpConfig,
    RouterChoice,
    SinkhornConfig,
    SweepsConfig,
)
from .convexity import estimate_convexity
from .lp import lp_reference
from .problem import AlfProblem, Bools, Floats
from .rules import BiasRule
from .run import alf_run
from .tasks import ROUTER_CHOICE, SCORES

AnyTask = Task[Any, Any, Any]


class BiasPolicy(Policy[Any, Any]):
    """Routes each batch by the bias made of the loads of the batches before it.

    On a fixed matrix (one batch) the rule is run on it `iterations` times; a model to be trained is
    given the rule as its router's choice.
    """

    def __init__(self, config: BiasConfig) -> None:
        self.config = config

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        self._public: Mapping[str, Any] = start.public
        self._notes: dict[str, Any] = {}
        self._n = 0
        self._rule: BiasRule | None = None
        if self._public["kind"] == SCORES:
            self._bias: Floats = np.zeros(self._public["n_experts"])

    def act(self, observation: Any) -> Any:
        config = self.config
        if self._public["kind"] == ROUTER_CHOICE:
            return attrs.asdict(
                RouterChoice(
                    rule=config.rule, u=config.u, mu=config.mu, sequence=config.sequence, groups=config.groups,
                    top_groups=config.top_groups, score=config.score,
                )
            )  # fmt: skip
        if self._rule is None:
            self._rule = self._first_rule(observation)
        problem = AlfProblem(observation, self._public["k"])
        if config.groups:
            # A bias alone does not say which groups a token keeps: the action is the assignment.
            if self._public["n_batches"] == 1:
                for n in range(1, config.iterations + 1):
                    self._bias = self._bias + self._rule.delta(self._grouped(problem).sum(axis=0), n)
            return self._grouped(problem)
        if self._public["n_batches"] == 1:
            run = alf_run(problem, self._rule, steps=config.iterations, engine=config.engine)
            self._bias = run.bias
            self._notes = {
                "updates": run.n_updates, "max_vio": run.max_vio, "dual": run.dual,
                "objective": run.objective, "cycle": list(run.cycle or ()),
            }  # fmt: skip
        return self._bias

    def _grouped(self, problem: AlfProblem) -> Bools:
        config = self.config
        return peers.group_limited(
            problem, self._bias, config.groups, config.top_groups or config.groups
        ).chosen

    def _first_rule(self, scores: Floats) -> BiasRule:
        config = self.config
        mu = config.mu
        if config.rule == "ogd" and mu == 0.0:
            # The modulus itself is the smallest eigenvalue, which one batch cannot tell from noise.
            mu = estimate_convexity(scores, self._public["k"]).mean
            self._notes["estimated_mu"] = mu
        return BiasRule(config.rule, config.u, mu or None)

    def observe(self, step: Step[Any]) -> None:
        if self._rule is None or self._public["n_batches"] == 1:
            return
        self._n += 1
        self._bias = self._bias + self._rule.delta(step.info["loads"], self._n)

    def notes(self) -> Mapping[str, Any]:
        if self._public["kind"] == SCORES:
            return {**self._notes, "bias": self._bias, "max_abs_bias": float(np.abs(self._bias).max())}
        return self._notes


class BiasSolver(Solver[Any, Any, Any]):
    """`alflb/bias`: every update rule."""

    def __init__(self, config: BiasConfig | None = None) -> None:
        self.config = config or BiasConfig()

    def supports(self, task: AnyTask, runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        config = self.config
        trained = ROUTER_CHOICE in task.offers
        if trained and config.rule == "ogd" and not config.mu:
            return Refusal(
                "rule ogd needs the modulus mu, which a model to be trained cannot be asked for", "Set mu."
            )
        settings = {"sequence": config.sequence > 0, "score=softmax": config.score != "sigmoid"}
        return _needs(task, {SCORES, ROUTER_CHOICE}) or _only_trained(task, settings)

    def solve(self, task: AnyTask, ctx: Context) -> BiasPolicy:
        return BiasPolicy(self.config)


class AuxLossPolicy(Policy[Any, Any]):
    """Balances by the gradient of the Switch loss: see `SwitchOffsets`, or the choice given to a model."""

    def __init__(self, config: AuxLossConfig) -> None:
        self.config = config

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        self._public: Mapping[str, Any] = start.public
        config = self.config
        if self._public["kind"] == SCORES:
            self._peer = peers.SwitchOffsets(
                self._public["n_experts"], self._public["k"], config.alpha, config.learning_rate, config.tau
            )

    def act(self, observation: Any) -> Any:
        config = self.config
        if self._public["kind"] == ROUTER_CHOICE:
            return attrs.asdict(RouterChoice(switch=config.alpha, z=config.z, score=config.score))
        if self._public["n_batches"] == 1:
            for _ in range(config.iterations):
                self._peer.update(observation)
            return self._peer.offsets
        offsets = self._peer.offsets
        # The step on this batch takes effect from the next one on.
        self._peer.update(observation)
        return offsets


class AuxLossSolver(Solver[Any, Any, Any]):
    """`alflb/aux-loss`: the Switch/GShard loss, with the z-loss where a model is trained."""

    def __init__(self, config: AuxLossConfig | None = None) -> None:
        self.config = config or AuxLossConfig()

    def supports(self, task: AnyTask, runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        settings = {"z": self.config.z > 0, "score=softmax": self.config.score != "sigmoid"}
        return _needs(task, {SCORES, ROUTER_CHOICE}) or _only_trained(task, settings)

    def solve(self, task: AnyTask, ctx: Context) -> AuxLossPolicy:
        return AuxLossPolicy(self.config)


class BatchPolicy(Policy[Any, Any]):
    """Sees a whole batch before routing any of it, and carries nothing over."""

    def __init__(self, method: Callable[[AlfProblem], Any]) -> None:
        self._method = method

    def reset(self, start: Start[Any], rng: np.random.Generator) -> None:
        self._k: int = start.public["k"]

    def act(self, observation: Any) -> Any:
        return self._method(AlfProblem(observation, self._k))

    def notes(self) -> Mapping[str, Any]:
        return {"causal": False}


class _BatchSolver(Solver[Any, Any, Any]):
    """What the one-batch methods share: they need scores, and forget between batches."""

    def supports(self, task: AnyTask, runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        return _needs(task, {SCORES})

    def solve(self, task: AnyTask, ctx: Context) -> BatchPolicy:
        return BatchPolicy(self.route)

    def route(self, problem: AlfProblem) -> Any:
        raise NotImplementedError


class LpSolver(_BatchSolver):
    """`alflb/lp`: the exact optimum of every batch."""

    def __init__(self, config: LpConfig | None = None) -> None:
        self.config = config or LpConfig()

    def route(self, problem: AlfProblem) -> Any:
        return lp_reference(problem, self.config.method).chosen


class QuantileSolver(_BatchSolver):
    """`alflb/quantile`: two-sided quantile prices."""

    def __init__(self, config: SweepsConfig | None = None) -> None:
        self.config = config or SweepsConfig()

    def route(self, problem: AlfProblem) -> Any:
        return peers.two_sided_quantile(problem, self.config.sweeps).bias


class BipSolver(_BatchSolver):
    """`alflb/bip`: clipped dual coordinate sweeps."""

    def __init__(self, config: SweepsConfig | None = None) -> None:
        self.config = config or SweepsConfig()

    def route(self, problem: AlfProblem) -> Any:
        return peers.bip(problem, self.config.sweeps).bias


class SinkhornSolver(_BatchSolver):
    """`alflb/sinkhorn`: entropic scaling, then top K."""

    def __init__(self, config: SinkhornConfig | None = None) -> None:
        self.config = config or SinkhornConfig()

    def route(self, problem: AlfProblem) -> Any:
        return peers.sinkhorn(problem, self.config.tau, self.config.iterations).bias


class ExpertChoiceSolver(_BatchSolver):
    """`alflb/expert-choice`: every expert takes its best tokens."""

    def __init__(self, config: ExpertChoiceConfig | None = None) -> None:
        self.config = config or ExpertChoiceConfig()

    def route(self, problem: AlfProblem) -> Any:
        return peers.expert_choice(problem).chosen


def _needs(task: AnyTask, kinds: set[str]) -> Refusal | None:
    if kinds & set(task.offers):
        return None
    if ROUTER_CHOICE in task.offers:
        return Refusal(
            "this method assigns one batch of given scores and cannot train a model's router",
            "Use alflb/bias or alflb/aux-loss here, or the task alflb/scores or alflb/stream.",
        )
    return Refusal(
        "this method needs router scores, which the task does not offer", "Use alflb/scores or alflb/stream."
    )


def _only_trained(task: AnyTask, settings: Mapping[str, bool]) -> Refusal | None:
    """Refuse settings that mean something only where a model is trained, instead of leaving them unused."""
    unused = [name for name, is_set in settings.items() if is_set]
    if not unused or ROUTER_CHOICE in task.offers:
        return None
    return Refusal(
        f"{', '.join(unused)} would have no effect on given scores",
        "Leave it out, or use the task alflb/char-lm.",
    )
