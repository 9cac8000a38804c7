"""Reward, violation and regret to the oracle, from the world's own expected rates, never from a policy's claims."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sfumato.protocols import Evaluator
from sfumato.records import Metric, Trace
from sfumato_ofs.errors import OfsError
from sfumato_ofs.tasks import LoopInstance


class ClosedLoopEvaluator(Evaluator[LoopInstance]):
    """The closed loop's figures, one value an item.

    Rewards and rates are expectations at the state each round was in, so the figures carry none of the batches' noise;
    `observed_violation` is the noisy version, for those who can only measure that.
    """

    def score(self, instance: LoopInstance, trace: Trace) -> Iterator[Metric]:
        truth: Any = trace.truth
        if truth is None:
            raise OfsError(
                "the trace holds no truth: ofs/closed-loop scores episodes of this plugin's tasks only"
            )
        rounds, tail = truth["rounds"], truth["tail_rounds"]
        oracle = instance.later or instance.oracle
        best = float(oracle.reward[oracle.best])
        tail_reward = truth["tail_reward"] / tail
        yield Metric("mean_reward", truth["reward"] / rounds, "reward/round", "max")
        yield Metric("tail_reward", tail_reward, "reward/round", "max")
        yield Metric("tail_gap", best - tail_reward, "reward/round")
        yield Metric("violation", truth["violation"], "rate", "min")
        yield Metric("observed_violation", truth["observed_violation"], "rate", "min")
        yield Metric("tail_violation", truth["tail_violation"] / tail, "rate/round", "min")
        yield Metric("violating_rounds", truth["violating_rounds"] / rounds, "share", "min")
        yield Metric("infeasible_plays", truth["infeasible_plays"] / rounds, "share", "min")
        yield Metric("share_clipped", truth["share_clipped"] / rounds, "share", "min")
        yield Metric("oracle_reward", np.full(len(instance.items), best), "reward/round")
        recommended = (trace.notes or {}).get("recommended")
        if recommended is not None:
            # Which arm is recommended is the policy's word; what that arm is worth is looked up here.
            arm = np.asarray(recommended)
            yield Metric("recommendation_gap", best - oracle.reward[arm], "reward/round")
            yield Metric("recommendation_feasible", oracle.is_feasible[arm].astype(float), "share", "max")
        if instance.later is not None:
            yield Metric("readaptation", readaptation(instance, truth), "rounds", "min")


def readaptation(instance: LoopInstance, truth: Any) -> np.ndarray:
    """Return rounds from the drift until an item is well again, float array [B].

    Well: in blocks of 1% of the horizon, mean violation at most 0.01 a round and mean reward at most 0.01 under the
    oracle's after the drift, in every later block but one in ten. An item that never is well gets the rest of the run.
    """
    curve, violation = truth["curve_reward"], truth["curve_violation"]
    assert instance.later is not None
    target = float(instance.later.reward[instance.later.best])
    block = truth["rounds"] / curve.shape[1]
    first = int(np.ceil(instance.drift_at / block))
    ill = ((violation > 0.01) | (curve < target - 0.01))[:, first:]
    n_blocks = ill.shape[1]
    # Share of ill blocks from each block to the end.
    share = ill[:, ::-1].cumsum(axis=1)[:, ::-1] / np.arange(n_blocks, 0, -1)
    well = (share <= 0.1) & ~ill
    when = np.where(well.any(axis=1), well.argmax(axis=1), n_blocks)
    value: np.ndarray = when * block
    return value
