"""Sections of the report: what the agent wrote and the runtime saw, its figures, and the 2 x 2 behind a learned agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sfumato.report.parts import RunView, Table, Text, Transcript, Turn
from sfumato_opaque_knapsack import metrics, summary

MAX_EPISODES = 3


def transcripts(view: RunView) -> list[Any]:
    """Return the first episodes as transcripts: code, outcome, state."""
    made: list[Any] = []
    for episode in range(min(MAX_EPISODES, len(view.rows))):
        trace = view.trace(episode)
        said = trace.get("actions")
        if said is None or not len(said):
            break
        truth = trace.get("truth") or {}
        seen = (truth.get("runtime") or {}).get("actions", [])
        observed = list(trace.get("observations") or [])[1:]
        turns = []
        for t, action in enumerate(said):
            what = seen[t] if t < len(seen) else {}
            output = str(observed[t]) if t < len(observed) else ""
            if not output and what.get("error_type"):
                output = " ".join(filter(None, (what["error_type"], what.get("missing_name"))))
            turns.append(Turn("agent", code=_text(action), output=output, state=_state(what)))
        made += [
            Text(
                f"Episode {episode}, seed {truth.get('seed', '?')}, optimum {truth.get('optimal_value', '?')}"
            ),
            Transcript(turns),
        ]
    return made or [Text("The trace was not kept.")]


SHARES = ("solved", "finished", "missing_var_any", "missing_var_strict")
MEANS = (
    "score", "completion_words", "claimed_completion_tokens", "claimed_unique_tokens", "claimed_cumulative_tokens", "turns",
    "failed_actions", "longest_failing_run", "coverage", "repeat_inspections", "refused_takes",
)  # fmt: skip


def agent(view: RunView) -> list[Any]:
    """Return the agent's figures with 95 % intervals; for the learned agent also the committed 2 x 2 with all tests."""
    rows = []
    for names, estimate in ((SHARES, _share), (MEANS, metrics.bootstrap_mean)):
        for name in names:
            values = list(view.metric(name))
            if values:
                found = estimate(values)
                rows.append([name, *(round(v, 4) for v in (found.value, found.low, found.high)), found.n])
    if not rows:
        return []
    caption = "Shares with Clopper-Pearson intervals, means with percentile bootstrap; claimed: the model's own count"
    parts: list[Any] = [Table(("figure", "value", "low", "high", "episodes"), rows, caption)]
    committed = Path(__file__).with_name("reproduce") / "results" / "two-by-two-quality.json"
    if view.record.spec.solver.name == "opaque-knapsack/copy-decoder" and committed.is_file():
        study = json.loads(committed.read_text())["details"]
        parts += [
            Text("The committed study of this agent: trained on traces of one interpreter, run in each."),
            Table(summary.CELL_HEAD, summary.cell_rows(study), "Cells, 95 % intervals"),
            Table(summary.TEST_HEAD, summary.test_rows(study), "Paired tests; Holm over the six pairs"),
            Text(summary.interaction_line(study)),
        ]
    return parts


def _share(values: list[float]) -> metrics.Interval:
    return metrics.share(round(sum(values)), len(values))


def _text(action: Any) -> str:
    if isinstance(action, dict) and "message" in action:
        return str(action["message"])
    if isinstance(action, dict) and "tool" in action:
        words = [
            *map(repr, action.get("args", ())),
            *(f"{k}={v!r}" for k, v in (action.get("kwargs") or {}).items()),
        ]
        return f"{action['tool']}({', '.join(words)})"
    return str(action)


def _state(seen: dict[str, Any]) -> str:
    if not seen:
        return ""
    return f"variables {seen.get('state', '?')}; {seen.get('tool_calls', 0)} tool calls; {'ok' if seen.get('ok') else 'failed'}"
