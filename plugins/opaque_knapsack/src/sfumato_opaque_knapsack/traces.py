"""Paired traces: the same episode written for a persistent and for a stateless interpreter, as training data."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs

from sfumato_opaque_knapsack import prompts
from sfumato_opaque_knapsack.conversation import Message, cue_text, error_text, merged, opening, with_cue
from sfumato_opaque_knapsack.experts import REGIMES, ScriptedExpert
from sfumato_opaque_knapsack.instances import Instance, generate, level_named
from sfumato_opaque_knapsack.metrics import count_words
from sfumato_opaque_knapsack.trusted import Ran, code_of, play_expert
from sfumato_opaque_knapsack.world import Outcome, World

GENERATOR = "v1"
RENDERER = "v1"
PAPER_CHARACTERS = int(3.5 * 16_384)
"""Length at which the released converter cuts a conversation, from the end."""


class PairMismatch(AssertionError):
    """Raised when the two halves of a pair did different things in the world: the generator is broken."""


class BadTrace(ValueError):
    """Raised when a line of a trace file is not a trace; names the file, the line and what is wrong."""


@attrs.frozen
class TraceSettings:
    """What the generator writes.

    Attributes:
        level: instance level.
        style: a coding style, or `varied`: one of four, drawn for each pair.
        profile: `matched` or `paper`; see `conversation`.
        prompt: `full` or `short`.
        format: `aligned` writes what inference will show; `paper` writes what the released converter did: one merged
            system message, observations as `{"output": …}`, no user turn after a silent step, cut at 57,344 characters.
        words: a sentence before each block.
        cues: `none`, or `globals_list`: each user message after an action ends with the names that survived it, or,
            where nothing survives, that are lost.
        losses: share of the persistent episodes in which, from a drawn inspection on, nothing survives a block any more.
            The expert learns of it from the cue, or else from the error of its next block; it looks at everything again
            (which costs no budget) and goes on in stateless code. Only the profile `matched` and the format `aligned`.
    """

    level: str = "easy"
    style: str = "varied"
    profile: str = "matched"
    prompt: str = "full"
    format: str = attrs.field(default="aligned", validator=attrs.validators.in_(("aligned", "paper")))
    words: bool = True
    cues: str = attrs.field(default="none", validator=attrs.validators.in_(("none", "globals_list")))
    losses: float = attrs.field(
        default=0.0, validator=[attrs.validators.ge(0.0), attrs.validators.le(1.0)], kw_only=True
    )

    def __attrs_post_init__(self) -> None:
        if self.losses and (self.profile, self.format) != ("matched", "aligned"):
            raise ValueError(
                f"losses: expected profile matched and format aligned, got {self.profile} and {self.format}; a release's "
                "traces hold no losses"
            )

    def lost_from(self, instance: Instance, seed: int) -> int | None:
        """Return the turn, counted from 0, before which the state of the persistent half is lost; None: it lasts."""
        rng = random.Random(f"losses {seed}")
        size = level_named(self.level).tool_calls_per_action - 1
        inspections = -(-min(instance.budget, instance.n) // size)
        if rng.random() >= self.losses or inspections < 2:
            return None
        return rng.randrange(1, inspections)


def _messages(
    settings: TraceSettings,
    regime: str,
    lead: list[Message],
    turns: list[tuple[str, Ran]],
    lost_from: int | None = None,
) -> tuple[list[Message], int]:
    """Return the conversation, and how many characters were cut off its end."""
    messages = list(lead)
    if settings.cues == "globals_list" and settings.format == "aligned":
        messages[-1] = {"role": "user", "content": with_cue(messages[-1]["content"], cue_text([], True))}
    for k, (message, ran) in enumerate(turns):
        messages.append({"role": "assistant", "content": message})
        if k + 1 == len(turns):
            break
        if settings.format == "aligned":
            lasts = regime == "persistent" and (lost_from is None or k + 1 < lost_from)
            cue = cue_text(list(ran.names), lasts) if settings.cues == "globals_list" else ""
            shown = error_text(ran.error, k, code_of(message)) if ran.error else ran.stdout
            messages.append({"role": "user", "content": with_cue(shown, cue)})
        elif ran.stdout or ran.error:
            told = {"error": ran.error} if ran.error else {"output": ran.stdout}
            messages.append({"role": "user", "content": json.dumps(told)})
    if settings.format != "paper":
        return messages, 0
    kept: list[Message] = []
    room, cut = PAPER_CHARACTERS, 0
    for item in merged(messages):
        content = item["content"][:room]
        cut += len(item["content"]) - len(content)
        room -= len(content)
        if content:
            kept.append({"role": item["role"], "content": content})
    return kept, cut


def digest(messages: list[Message]) -> str:
    """Return the SHA-256 of messages in canonical form."""
    return hashlib.sha256(
        json.dumps(messages, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ).hexdigest()


def token_counts(messages: list[Message], count: Callable[[str], int]) -> dict[str, int]:
    """Return tokens three ways: summed over every call's prompt and completion, in the final text, and completions."""
    cumulative = unique = completion = 0
    for message in messages:
        n = count(message["content"])
        if message["role"] == "assistant":
            cumulative += unique + n
            completion += n
        unique += n
    return {
        "prompt": cumulative - completion,
        "completion": completion,
        "cumulative": cumulative,
        "unique": unique,
    }


def _half(
    settings: TraceSettings, regime: str, seed: int, count: Callable[[str], int], tokenizer: str
) -> tuple[dict[str, Any], list[Any], Outcome]:
    level = level_named(settings.level)
    instance = generate(level, seed)
    public = prompts.public_part(instance)
    world = World(instance)
    lost_from = settings.lost_from(instance, seed) if regime == "persistent" else None
    told = settings.cues != "none"
    expert = ScriptedExpert(
        regime, style=settings.style, words=settings.words, recovers=lost_from is not None
    )
    turns = play_expert(expert, world, public, seed, lost_from=lost_from, told=told)
    outcome = world.outcome()
    lead = opening(
        prompts.goal(instance),
        public,
        profile=settings.profile,
        prompt=settings.prompt,
        persistent=regime == "persistent",
    )
    messages, cut = _messages(settings, regime, lead, turns, lost_from)
    pair = f"ok-{level.name}-{seed:06d}"
    record = {
        "id": f"{pair}-{regime[0]}",
        "pair_id": pair,
        "regime": regime,
        "messages": messages,
        "meta": {
            "task": "opaque_knapsack",
            "level": level.name,
            "seed": seed,
            "generator": GENERATOR,
            "renderer": RENDERER,
            "profile": settings.profile,
            "cues": settings.cues,
            "format": settings.format,
            **({} if lost_from is None else {"lost_from": lost_from}),
            "score": round(outcome.score, 6),
            "solved": outcome.solved,
            "turns": len(turns),
            "tool_calls": sum(len(ran.tool_calls) for _, ran in turns),
            "characters_cut": cut,
            "tokens": {**token_counts(messages, count), "tokenizer": tokenizer},
        },
        "steps": [
            {
                "turn": k,
                "code": code_of(message),
                "ok": ran.ok,
                "stdout": ran.stdout,
                "error": ran.error,
                "tool_calls": [[name, list(args)] for name, args in ran.tool_calls],
            }
            for k, (message, ran) in enumerate(turns)
        ],
        "sha256": digest(messages),
    }
    log = [call for _, ran in turns for call in ran.tool_calls if call[0] != "list_items"]
    if lost_from is not None:  # what was inspected before is inspected again, for nothing
        log = list(dict.fromkeys(log))
        outcome = attrs.evolve(outcome, n_inspect_calls=outcome.n_inspected)
    failed = {k: ran.error for k, (_, ran) in enumerate(turns) if ran.error}
    if lost_from is not None and not told and not failed.pop(lost_from, "").startswith("NameError"):
        raise PairMismatch(f"{record['id']}: expected a missing name in turn {lost_from}, got none")
    if failed:
        raise PairMismatch(
            f"{record['id']}: expected no failing block of a scripted expert, got {next(iter(failed.values()))}"
        )
    return record, log, outcome


def make_pair(
    settings: TraceSettings, seed: int, *, count: Callable[[str], int] = count_words, tokenizer: str = "words"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the persistent and the stateless record of one instance.

    Raises:
        PairMismatch: the two halves made different inspect, take or finish calls, or scored differently.
    """
    halves = [_half(settings, regime, seed, count, tokenizer) for regime in REGIMES]
    (first, log, outcome), (second, other_log, other_outcome) = halves
    if log != other_log or outcome != other_outcome:
        raise PairMismatch(f"{first['pair_id']}: the two regimes made different calls or scored differently")
    return first, second


def make_pairs(settings: TraceSettings, seeds: Iterable[int], **how: Any) -> Iterator[dict[str, Any]]:
    """Yield both records of each seed's pair."""
    for seed in seeds:
        yield from make_pair(settings, seed, **how)


def write_jsonl(path: Path, records: Iterable[dict[str, Any]]) -> int:
    """Write records, one a line; return how many. The file appears whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    n = 0
    with partial.open("w", encoding="utf-8") as handle:
        for record in records:
            handle.write(json.dumps(record, ensure_ascii=False) + "\n")
            n += 1
    partial.replace(path)
    return n


def read_jsonl(path: Path, *, regime: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the records of a file, all or one regime's.

    Raises:
        BadTrace: a line is not UTF-8 JSON, lacks a field, or does not match its own SHA-256.
    """
    with path.open("rb") as handle:
        for number, line in enumerate(handle, 1):
            where = f"{path}, line {number}"
            try:
                record = json.loads(line.decode("utf-8"))
            except ValueError as error:
                raise BadTrace(
                    f"{where}: expected one JSON object in UTF-8, got {line[:60]!r} ({error})"
                ) from error
            if not isinstance(record, dict):
                raise BadTrace(f"{where}: expected a JSON object, got {type(record).__name__}")
            missing = {"id", "regime", "messages", "sha256"} - record.keys()
            if missing:
                raise BadTrace(f"{where}: expected a trace, got no {', '.join(sorted(missing))}")
            if digest(record["messages"]) != record["sha256"]:
                raise BadTrace(
                    f"{where}: the messages of {record['id']} do not match their SHA-256; make them anew"
                )
            if regime is None or record["regime"] == regime:
                yield record


def matched_by_tokens(records: list[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    """Return the first records whose completion tokens sum to at most `budget`.

    Matching regimes by episodes gives the stateless model about twice the text; this matches them by text.
    """
    kept, total = [], 0
    for record in records:
        total += record["meta"]["tokens"]["completion"]
        if total > budget:
            break
        kept.append(record)
    return kept
