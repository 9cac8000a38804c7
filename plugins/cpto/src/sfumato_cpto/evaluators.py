"""The figures of a course, from ground truth; planning time and consistency from the policy's notes, marked as such."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sfumato.protocols import Evaluator
from sfumato.records import Metric, Trace
from sfumato_cpto import measures
from sfumato_cpto.tasks import Course


class TruthMissing(ValueError):
    """Raised when a trace does not come from this plugin's tasks."""


class DrivingEvaluator(Evaluator[Course]):
    """Contacts, margin, comfort and speed from `truth`; consistency and planning time from `notes`."""

    def score(self, instance: Course, trace: Trace) -> Iterator[Metric]:
        """Yield the metrics of one course."""
        truth: Any = trace.truth
        if truth is None or "ego" not in truth:
            raise TruthMissing(
                "expected the truth of a cpto/ course in the trace, got none; score this plugin's tasks"
            )
        for name, (value, unit, direction, reduce) in measures.from_truth(truth).items():
            yield Metric(name, value, unit, direction, reduce)
        if trace.notes is not None and "segments" in trace.notes:
            for name, (value, unit, direction, reduce) in measures.from_notes(trace.notes).items():
                yield Metric(name, value, unit, direction, reduce)
