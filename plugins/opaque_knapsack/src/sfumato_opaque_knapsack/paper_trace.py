"""Reading and writing traces in the event form of the authors' release.

A trace is a list of events (`Start`, `SystemPrompt`, `ModelCall`, `ModelResponse`, `Step`, `Error`, `Finish`) and a
summary of steps, finish reason and token usage. Ours is one JSONL record an episode; both directions keep every
message, block, output and error.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sfumato_opaque_knapsack.traces import BadTrace, digest

EVENTS = ("Start", "SystemPrompt", "ModelCall", "ModelResponse", "Step", "Error", "Finish")


def to_events(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return one of our records as events and a summary."""
    meta = record.get("meta", {})
    events: list[dict[str, Any]] = [
        {"type": "Start", "id": record["id"], "regime": record["regime"], "meta": dict(meta)}
    ]
    steps = {step["turn"]: step for step in record.get("steps", [])}
    turn = 0
    for message in record["messages"]:
        if message["role"] == "system":
            events.append({"type": "SystemPrompt", "content": message["content"]})
        elif message["role"] == "user":
            events.append({"type": "ModelCall", "content": message["content"]})
        else:
            events.append({"type": "ModelResponse", "content": message["content"]})
            step = steps.get(turn)
            if step is not None:
                result = {
                    "success": step["ok"],
                    "result": None,
                    "output": step["stdout"],
                    "error": step["error"],
                }
                events.append(
                    {
                        "type": "Step",
                        "turn": turn,
                        "code": step["code"],
                        "result": result,
                        "tool_calls": step["tool_calls"],
                    }
                )
                if step["error"]:
                    events.append({"type": "Error", "turn": turn, "message": step["error"]})
            turn += 1
    last = record.get("steps") or [{"tool_calls": []}]
    finished = any(call[0] == "finish" for call in last[-1]["tool_calls"])
    tokens = meta.get("tokens", {})
    reason = "finish" if finished else "turns"
    events.append(
        {"type": "Finish", "reason": reason, "score": meta.get("score"), "solved": meta.get("solved")}
    )
    summary = {
        "steps": turn,
        "finish_reason": reason,
        "usage": {"prompt_tokens": tokens.get("prompt", 0), "completion_tokens": tokens.get("completion", 0)},
    }
    return {"events": events, "summary": summary}


def from_events(trace: Mapping[str, Any], *, source: str = "imported") -> dict[str, Any]:
    """Return a trace of events as one of our records; `meta.source` says where it came from.

    Raises:
        BadTrace: no list of events, an event without or of unknown type, or no model response.
    """
    events = trace.get("events")
    if not isinstance(events, list):
        raise BadTrace(f"expected a trace with a list of events, got {type(events).__name__}")
    messages: list[dict[str, str]] = []
    steps: list[dict[str, Any]] = []
    start: Mapping[str, Any] = {}
    finish: Mapping[str, Any] = {}
    for number, event in enumerate(events):
        kind = event.get("type") if isinstance(event, Mapping) else None
        if kind not in EVENTS:
            raise BadTrace(f"event {number}: expected a type out of {', '.join(EVENTS)}, got {kind!r}")
        if kind == "Start":
            start = event
        elif kind == "Finish":
            finish = event
        elif kind in ("SystemPrompt", "ModelCall", "ModelResponse"):
            role = {"SystemPrompt": "system", "ModelCall": "user", "ModelResponse": "assistant"}[kind]
            messages.append({"role": role, "content": str(event.get("content", ""))})
        elif kind == "Step":
            result = event.get("result") or {}
            steps.append(
                {
                    "turn": event.get("turn", len(steps)),
                    "code": event.get("code", ""),
                    "ok": bool(result.get("success", False)),
                    "stdout": result.get("output") or "",
                    "error": result.get("error"),
                    "tool_calls": event.get("tool_calls", []),
                }
            )
    if not any(message["role"] == "assistant" for message in messages):
        raise BadTrace("expected at least one ModelResponse, got none")
    usage = (trace.get("summary") or {}).get("usage") or {}
    meta = dict(start.get("meta") or {})
    meta |= {"source": source, "score": finish.get("score"), "solved": finish.get("solved")}
    meta.setdefault(
        "tokens",
        {
            "prompt": usage.get("prompt_tokens", 0),
            "completion": usage.get("completion_tokens", 0),
            "tokenizer": "theirs",
        },
    )
    name = str(start.get("id") or f"imported-{digest(messages)[:12]}")
    return {
        "id": name,
        "pair_id": name.removesuffix("-p").removesuffix("-s"),
        "regime": start.get("regime", "persistent"),
        "messages": messages,
        "meta": meta,
        "steps": steps,
        "sha256": digest(messages),
    }


def loads(text: str) -> dict[str, Any]:
    """Return the record of a trace given as JSON text; raises BadTrace when it is none."""
    try:
        trace = json.loads(text)
    except ValueError as error:
        raise BadTrace(f"expected a JSON object, got {text[:60]!r} ({error})") from error
    if not isinstance(trace, dict):
        raise BadTrace(f"expected a JSON object, got {type(trace).__name__}")
    return from_events(trace)
