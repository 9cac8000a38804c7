"""What a language model reads: the opening messages, and how an action's result becomes the next user message.

A *profile* says what differs between regimes. `paper`: the runtime's note, worked examples and the list of surviving
names differ, as in the release. `matched`: one neutral note for both and nothing else, so that a cross cell measures
the interpreter and not the prompt. The two are never pooled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sfumato_opaque_knapsack import prompts

Message = dict[str, str]

PROFILES = ("matched", "paper")
PROMPTS = ("full", "short")


def opening(
    goal: str,
    public: Mapping[str, Any],
    *,
    profile: str = "matched",
    prompt: str = "full",
    persistent: bool | None = None,
    note: str | None = None,
) -> list[Message]:
    """Return system and user messages of an episode.

    Arguments:
        goal: the goal text that the episode showed first.
        public: its public part; a runtime adds `runtime` with a note of its own.
        profile: `matched` or `paper`.
        prompt: `full`, or `short`: facts only, for models whose context is a few hundred tokens.
        persistent: regime whose prompt is shown under profile `paper`; None: the runtime's.
        note: a runtime note that replaces the profile's.
    """
    runtime = public.get("runtime") or {}
    if persistent is None:
        persistent = bool(runtime.get("persistent", True))
    if note is None:
        if profile == "paper":
            note = prompts.PERSISTENT_NOTE if persistent else prompts.STATELESS_NOTE
        else:
            note = prompts.NEUTRAL_NOTE
    if prompt == "short":
        facts = [f"Capacity: {public['capacity']}", f"Budget: {public['budget']}"]
        if "allowed" in public:
            facts.append(f"Allowed: {', '.join(public['allowed'])}")
        return [{"role": "system", "content": note}, {"role": "user", "content": "\n".join(facts)}]
    cap = runtime.get("tool_calls_per_action") or public["tool_calls_per_action"]
    parts = [prompts.ROLE, note]
    if profile == "paper" and persistent:
        parts.append(prompts.WORKED_EXAMPLES)
    parts.append(prompts.tools_text(cap))
    return [{"role": "system", "content": part} for part in parts] + [{"role": "user", "content": goal}]


def merged(messages: list[Message]) -> list[Message]:
    """Return the messages with the leading system messages joined by blank lines, as chat templates want them."""
    lead = [message["content"] for message in messages if message["role"] == "system"]
    rest = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(lead)}, *rest] if lead else rest


def as_shown(observation: str) -> str:
    """Return what is shown of an observation: what was printed, ending in one newline, as in the traces."""
    return observation.rstrip("\n") + "\n" if observation.strip("\n") else ""


def with_cue(observation: str, cue: str) -> str:
    """Return the user message that follows an action: what was observed, then the visibility cue when there is one."""
    return f"{as_shown(observation)}{cue}" if cue else as_shown(observation)


def error_text(error: str, turn: int, code: str) -> str:
    """Return how a runtime shows the error of a block of one line (`turn` counts from 0), for scripted traces."""
    if "\n" in code:
        raise ValueError(f"code: expected one line, got {code!r}")
    where = f'  File "<action {turn + 1}>", line 1, in <module>\n    {code}'
    return f"[error]\nTraceback (most recent call last):\n{where}\n{error}"


def cue_text(names: list[str], persistent: bool) -> str:
    """Return the visibility cue `globals_list` in the words of the runtimes, for scripted traces."""
    state = "exist now" if persistent else "the last action had and that are gone now"
    return f"Variables that {state}: {', '.join(names) or 'none'}."
