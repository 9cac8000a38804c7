"""Feasibility, objective and optimality gap, recomputed from the instance and the solutions that reached the task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sfumato.protocols import Evaluator
from sfumato.records import Metric, Trace

from . import validate
from .errors import InfeasibleSolution
from .tasks import Batch, decode


class GapEvaluator(Evaluator[Batch]):
    """Rows of a batch: `feasible`, `objective`, and `gap` in per cent where every item has a reference.

    The gap is the mean of the items' ratios (not the ratio of means), as in the literature; of a maximisation it is
    the share that is missing. If some item is infeasible, `objective` and `gap` are left out and `feasible` shows it.
    """

    def score(self, instance: Batch, trace: Trace) -> Iterable[Metric]:
        """See the class."""
        rows = np.asarray(trace.native.actions[0])
        values = np.full(len(instance.items), np.nan)
        for b, (item, row) in enumerate(zip(instance.items, rows, strict=True)):
            try:
                values[b] = validate.objective(item, decode(instance.problem, row))
            except InfeasibleSolution:
                continue
        feasible = np.isfinite(values)
        yield Metric("feasible", feasible.astype(float), "share", "max")
        if not feasible.all():
            return
        maximise = instance.items[0].maximise
        yield Metric("objective", values, "prize" if maximise else "length", "max" if maximise else "min")
        references: list[Any] = [i.reference for i in instance.items]
        if all(r is not None for r in references):
            reference = np.array(references, dtype=float)
            sign = -1.0 if maximise else 1.0
            yield Metric("gap", 100.0 * sign * (values - reference) / np.abs(reference), "%", "min")
