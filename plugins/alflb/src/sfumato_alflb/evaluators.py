"""Evaluators: loads, affinity and regret, recomputed from the scores and the actions that reached the task."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sfumato.protocols import Evaluator
from sfumato.records import Metric, Trace

from .lp import lp_reference
from .problem import AlfProblem, affinity, max_vio, min_vio
from .tasks import Batches, CharLmInstance, chosen_by


class BalanceEvaluator(Evaluator[Batches]):
    """Figures of an assignment of one or many batches.

    max_vio_global, min_vio_global: of the loads summed over all batches. max_vio_batch: mean over batches.
    affinity_lost: share of the plain top-K score that was given up, 0 for plain top-K. wrong_choices:
    share of tokens whose number of experts is not K (expert choice). On a fixed matrix also
    affinity_ratio, the objective over the exact optimum (above 1 only for loads that are not feasible:
    read it beside max_vio_global). On streams whose best bias is known, and for actions that are a bias:
    regret, the sum of D_n(p_n) - D_n(p*) over tokens of a batch, in units of score.
    """

    def score(self, instance: Batches, trace: Trace) -> Iterable[Metric]:
        total = np.zeros(0)
        vio, objective, plain, wrong, regret = [], 0.0, 0.0, 0, 0.0
        n_tokens, is_regret, n_steps = 0, True, len(trace.native)
        scores = np.zeros((0, 0))
        for action, (scores, best) in zip(trace.native.actions, instance, strict=False):
            problem = AlfProblem(scores, instance.k)
            chosen, bias = chosen_by(action, scores, instance.k)
            loads = chosen.sum(axis=0)
            total = loads.astype(np.float64) if total.size == 0 else total + loads
            vio.append(max_vio(loads, problem.mean_load))
            own = affinity(problem, chosen)
            objective += own
            top = problem.route()
            plain += top.value
            wrong += int((chosen.sum(axis=1) != instance.k).sum())
            n_tokens += scores.shape[0]
            if bias is None or best is None:
                is_regret = False
            else:
                there = problem.route(best)
                mean = problem.mean_load
                here = own + float(loads @ bias)
                regret += (here - mean * bias.sum()) - (there.value - mean * best.sum())
        if not n_steps:
            return
        yield Metric("max_vio_global", max_vio(total), direction="min")
        yield Metric("min_vio_global", min_vio(total), direction="min")
        yield Metric("max_vio_batch", float(np.mean(vio)), direction="min")
        yield Metric("affinity_lost", 1.0 - objective / plain if plain else 0.0, direction="min")
        yield Metric("wrong_choices", wrong / max(1, n_tokens), direction="min")
        if instance.scores is not None and n_tokens:
            best_value = lp_reference(AlfProblem(scores, instance.k)).objective
            yield Metric("affinity_ratio", objective / best_value if best_value else 1.0)
        if is_regret:
            yield Metric("regret", regret / scores.shape[0], unit="score per token", direction="min")


class TrainingEvaluator(Evaluator[CharLmInstance]):
    """Figures of a trained model, measured by the task itself on text held out."""

    def score(self, instance: CharLmInstance, trace: Trace) -> Iterable[Metric]:
        truth = trace.truth
        if truth is None:
            return
        yield Metric("valid_loss", truth["valid_loss"], unit="nats per character", direction="min")
        for name in ("max_vio_global", "min_vio_global", "max_vio_batch"):
            yield Metric(name, truth[name], direction="min")
        yield Metric("max_abs_bias", truth["max_abs_bias"], unit="score", reduce="max")
        yield Metric("train_cpu_seconds", truth["train_cpu_seconds"], unit="s", direction="min")
