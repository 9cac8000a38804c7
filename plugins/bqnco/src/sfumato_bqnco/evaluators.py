"""Feasibility, objective and optimality gap, recomputed from the instance and the solutions that reached the task."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def primal_integral(
    seconds: NDArray[np.float64], values: NDArray[np.float64], reference: float, limit: float
) -> float:
    """Mean primal gap over [0, limit], in per cent: the primal integral divided by the limit.

    `seconds`, `values`: incumbents of one item in order of time. The primal gap is |value - reference| over the larger
    of the two, and 100 % before the first incumbent.

    Source: T. Berthold, "Measuring the impact of primal heuristics", Operations Research Letters 41(6), 2013.
    """
    keep = seconds < limit
    times = np.concatenate(([0.0], seconds[keep], [limit]))
    top = np.maximum(np.maximum(np.abs(values[keep]), abs(reference)), 1e-12)
    gaps = np.concatenate(([1.0], np.abs(values[keep] - reference) / top))
    return float(100.0 * (np.diff(times) * gaps).sum() / limit)


class PrimalIntegralEvaluator(Evaluator[Batch]):
    """`primal_integral` in per cent: how good the incumbents were on average over the time limit.

    Times and intermediate values are the policy's own notes (a task of one step sees only the last solution). The last
    incumbent of each item must be the solution that reached the task, revalidated; otherwise nothing is said.
    """

    def score(self, instance: Batch, trace: Trace) -> Iterable[Metric]:
        """See the class; nothing when there are no incumbents, no references or no limit."""
        notes = trace.notes or {}
        if "incumbent_item" not in notes or not notes.get("limit_seconds"):
            return
        item, seconds, value = (np.asarray(notes[f"incumbent_{k}"]) for k in ("item", "seconds", "value"))
        rows = np.asarray(trace.native.actions[0])
        out = np.zeros(len(instance.items))
        for b, (one, row) in enumerate(zip(instance.items, rows, strict=True)):
            mine = item == b
            if one.reference is None or not mine.any():
                return
            try:
                last = validate.objective(one, decode(instance.problem, row))
            except InfeasibleSolution:
                return
            if abs(value[mine][-1] - last) > 1e-6 * max(1.0, abs(last)):
                return
            out[b] = primal_integral(seconds[mine], value[mine], one.reference, float(notes["limit_seconds"]))
        yield Metric("primal_integral", out, "%", "min")
