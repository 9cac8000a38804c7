"""A section of the report: what the agent wrote, what the runtime saw of it."""

from __future__ import annotations

from typing import Any

from sfumato.report.parts import RunView, Text, Transcript, Turn

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
