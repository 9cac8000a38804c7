"""Evaluators: figures recomputed from the rewards that the task gave."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sfumato.protocols import Evaluator
from sfumato.records import Metric, Trace
from sfumato_vopp.tasks import Instance

__all__ = ["DiscountedReturn"]


class DiscountedReturn(Evaluator[Instance]):
    """Discounted return, whether the episode ended by itself, and the 99th percentile of a decision's time."""

    def score(self, instance: Instance, trace: Trace) -> Iterable[Metric]:
        """Yield the metrics of one episode."""
        rewards = np.asarray(trace.native.rewards.array(), float)
        yield Metric("discounted_return", float(rewards @ instance.model.discount ** np.arange(len(rewards))), "reward", "max")
        ended = len(trace.native) > 0 and bool(trace.native.terminated[len(trace.native) - 1])
        yield Metric("ended", float(ended), "1", "none")
        if trace.clocks.act_wall is not None and len(trace.clocks.act_wall):
            yield Metric("act_seconds_p99", float(np.percentile(trace.clocks.act_wall, 99)), "s", "min", "max")
