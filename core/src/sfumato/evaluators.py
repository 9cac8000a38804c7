"""The evaluator that every run gets: return, length, and what deciding cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sfumato.protocols import Evaluator
from sfumato.records import Metric, Trace


class Return(Evaluator[Any]):
    """Undiscounted return and length per item, decision seconds per episode.

    Rewards are those that the task gave. A task whose objective can be recomputed from actions brings an evaluator
    of its own, and that one's figures are the ones to quote.
    """

    def score(self, instance: Any, trace: Trace) -> Iterable[Metric]:
        n_items = len(trace.items)
        total = np.zeros(n_items)
        length = np.zeros(n_items)
        alive = np.ones(n_items, dtype=bool)
        for reward, terminated, truncated in zip(
            trace.native.rewards, trace.native.terminated, trace.native.truncated, strict=True
        ):
            total += reward
            length += alive
            alive &= ~(np.asarray(terminated, bool) | np.asarray(truncated, bool))
        batched = n_items > 1 or (len(trace.native) > 0 and np.ndim(trace.native.rewards[0]) == 1)
        yield Metric("return", total if batched else total[0], "reward", "max")
        yield Metric("length", length if batched else length[0], "steps")
        yield Metric("decision_seconds", trace.clocks.decision_seconds, "s", "min")
        yield Metric("decision_cpu_seconds", trace.clocks.decision_cpu_seconds, "s", "min")
        if trace.clocks.act_wall is not None and len(trace.clocks.act_wall):
            yield Metric("act_seconds_max", float(np.max(trace.clocks.act_wall)), "s", "min", "max")
