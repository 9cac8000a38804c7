"""The 2 x 2: agents trained on traces of one interpreter, evaluated in both, many episodes at once.

Every row of the batch is an episode with an interpreter session of its own. The decoder takes one token a row and
step; a row whose message is complete hands it to its session, and what the session prints is fed back. Episodes
do not see each other: sampling draws from one generator per row, so a row's text does not depend on who else runs.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import attrs
import numpy as np
import torch

from sfumato_opaque_knapsack import metrics
from sfumato_opaque_knapsack.conversation import opening, with_cue
from sfumato_opaque_knapsack.decoder import CopyDecoder, Stream
from sfumato_opaque_knapsack.experts import REGIMES, ScriptedExpert
from sfumato_opaque_knapsack.instances import Instance
from sfumato_opaque_knapsack.prompts import public_part
from sfumato_opaque_knapsack.tokenizer import TraceTokenizer
from sfumato_opaque_knapsack.trusted import play_expert
from sfumato_opaque_knapsack.world import World

CELLS = tuple(f"{train[0].upper()}->{runtime[0].upper()}" for train in REGIMES for runtime in REGIMES)


@attrs.frozen
class PlaySettings:
    """How a model is let loose.

    Attributes:
        temperature: of sampling; the paper's 0.2.
        context: tokens after which an episode is cut off.
        message_tokens: tokens after which one message is cut off; that burns a turn.
        profile, prompt: see `conversation.opening`.
        show_cue: append the runtime's visibility cue to each user message.
        seed: of sampling.
    """

    temperature: float = 0.2
    context: int = 3072
    message_tokens: int = 1024
    profile: str = "matched"
    prompt: str = "short"
    show_cue: bool = False
    seed: int = 0


@attrs.define
class Played:
    """One episode: what it earned, how it went, and why it ended."""

    seed: int
    score: float
    solved: bool
    finished: bool
    turns: int
    ended: str
    tokens: metrics.Tokens
    missing_any: bool
    missing_strict: bool
    failed_actions: int
    longest_failing_run: int
    repeated: float
    model_seconds: float
    runtime_seconds: float
    messages: list[str]


@attrs.define
class _Row:
    instance: Instance
    episode: Any
    session: Any
    forced: list[int]
    generator: np.random.Generator
    context: int = 0
    prompt: int = 0
    said: list[int] = attrs.field(factory=list)
    calls: list[tuple[int, int]] = attrs.field(factory=list)
    actions: list[dict[str, Any]] = attrs.field(factory=list)
    messages: list[str] = attrs.field(factory=list)
    codes: list[str] = attrs.field(factory=list)
    ended: str = ""
    runtime_seconds: float = 0.0
    next: int = 0


def _draw(logits: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    # Gumbel's trick: one uniform draw a token of the vocabulary, and no normalisation.
    return int((logits / temperature + rng.gumbel(size=logits.shape)).argmax())


def play_batch(
    model: CopyDecoder,
    tokenizer: TraceTokenizer,
    runtime: Any,
    episodes: Sequence[tuple[Instance, Any]],
    ctx: Any,
    settings: PlaySettings,
    *,
    max_turns: int = 40,
) -> list[Played]:
    """Play episodes side by side and return one record each, in order.

    Arguments:
        model: the decoder, in evaluation mode.
        tokenizer: the tokenizer it was trained with.
        runtime: a runtime of the core's protocol; it is opened once an episode.
        episodes: (instance, native episode) pairs; the native episode has `outcome()`.
        ctx: context handed to the runtime.
    """
    begun = time.perf_counter()
    with ExitStack() as stack, torch.inference_mode():
        rows = []
        for instance, episode in episodes:
            session = stack.enter_context(runtime.open(episode, ctx))
            start = session.reset()
            lead = opening(start.observation, start.public, profile=settings.profile, prompt=settings.prompt)
            if settings.show_cue and start.public.get("cue"):
                lead[-1]["content"] = with_cue(lead[-1]["content"], start.public["cue"])
            tokens, _ = tokenizer.render(lead)
            rng = np.random.default_rng([settings.seed, instance.seed])
            rows.append(_Row(instance, episode, session, [*tokens, tokenizer.assistant], rng))
        live = list(rows)
        stream = Stream(model, len(live), settings.context)
        while live:
            for row in live:
                row.next = row.forced.pop(0) if row.forced else row.said[-1]
                row.context += 1
            fed = torch.tensor([row.next for row in live], device=model.embedding.weight.device)
            logits = stream.step(fed).cpu().numpy()
            for row, scores in zip(live, logits, strict=True):
                if not row.forced:
                    _advance(
                        row,
                        _draw(scores, settings.temperature, row.generator),
                        tokenizer,
                        settings,
                        max_turns,
                    )
            if stream.t >= stream.most:
                for row in live:
                    row.ended = row.ended or "context"
            if any(row.ended for row in live):
                keep = [i for i, row in enumerate(live) if not row.ended]
                live = [live[i] for i in keep]
                if live:
                    stream.keep(torch.tensor(keep, device=model.embedding.weight.device))
        seconds = time.perf_counter() - begun
        for row in rows:
            row.session = None
    model_seconds = (seconds - sum(row.runtime_seconds for row in rows)) / len(rows)
    return [_played(row, model_seconds) for row in rows]


def _advance(
    row: _Row, token: int, tokenizer: TraceTokenizer, settings: PlaySettings, max_turns: int
) -> None:
    """Take in a sampled token; when the message is complete, carry it out and queue what it printed."""
    if not row.said:
        row.prompt = row.context
    row.said.append(token)
    complete = token == tokenizer.end
    if not complete and len(row.said) < settings.message_tokens:
        return
    row.calls.append((row.prompt, len(row.said)))
    message = tokenizer.decode(row.said[:-1] if complete else row.said)
    row.messages.append(message)
    row.said = []
    if complete:
        begun = time.perf_counter()
        step = row.session.step({"message": message})
        row.runtime_seconds += time.perf_counter() - begun
        row.actions.append(dict(step.info))
        if step.info.get("code"):
            row.codes.append(step.info["code"])
        observation = with_cue(step.observation, step.info.get("cue", "") if settings.show_cue else "")
        if step.terminated:
            row.ended = "finish"
        elif step.truncated:
            row.ended = "truncated"
    else:
        observation = f"The message was cut off after {settings.message_tokens} tokens."
    if not row.ended and len(row.calls) >= max_turns:
        row.ended = "turns"
    tail = [token] if complete else [token, tokenizer.end]
    row.forced = [*tail, tokenizer.user, *tokenizer.encode(observation), tokenizer.end, tokenizer.assistant]


def _played(row: _Row, model_seconds: float) -> Played:
    outcome = row.episode.outcome()
    errors = [action.get("error") or {} for action in row.actions]
    failed = [not action.get("ok", True) for action in row.actions]
    missing = [error.get("type") == "NameError" for error in errors]
    if row.said:  # cut off by the context in the middle of a message
        row.calls.append((row.prompt, len(row.said)))
    return Played(
        seed=row.instance.seed,
        score=outcome.score,
        solved=outcome.solved,
        finished=outcome.finished,
        turns=len(row.calls),
        ended=row.ended,
        tokens=metrics.tokens_of(row.calls),
        missing_any=any(missing),
        missing_strict=any(m and bool(e.get("bound_earlier")) for m, e in zip(missing, errors, strict=True)),
        failed_actions=sum(failed),
        longest_failing_run=metrics.longest_run(failed),
        repeated=metrics.repeated_share(row.codes),
        model_seconds=model_seconds,
        runtime_seconds=row.runtime_seconds,
        messages=row.messages,
    )


def expert_scores(instances: Sequence[Instance], style: str) -> list[float]:
    """Return what the scripted expert that wrote the traces earns on the same instances."""
    scores = []
    for instance in instances:
        world = World(instance)
        play_expert(ScriptedExpert("persistent", style=style), world, public_part(instance), instance.seed)
        scores.append(world.outcome().score)
    return scores


def cell_figures(played: Sequence[Played], expert: Sequence[float]) -> dict[str, Any]:
    """Return a cell's figures with intervals."""
    n = len(played)

    def mean(values: Sequence[float]) -> dict[str, float]:
        interval = metrics.bootstrap_mean(values)
        return {"value": interval.value, "low": interval.low, "high": interval.high}

    def rate(flags: Sequence[bool]) -> dict[str, float]:
        interval = metrics.share(sum(flags), n)
        return {"value": interval.value, "low": interval.low, "high": interval.high}

    score = [p.score for p in played]
    cumulative = float(np.mean([p.tokens.cumulative for p in played]))
    return {
        "n": n,
        "score": mean(score),
        "share_of_expert": float(np.mean(score) / np.mean(expert)),
        "solved": rate([p.solved for p in played]),
        "finished": rate([p.finished for p in played]),
        "missing_var_any": rate([p.missing_any for p in played]),
        "missing_var_strict": rate([p.missing_strict for p in played]),
        "completion_tokens": mean([p.tokens.completion for p in played]),
        "unique_tokens": mean([p.tokens.unique for p in played]),
        "cumulative_tokens": mean([p.tokens.cumulative for p in played]),
        "cached_cost": mean([p.tokens.cached_cost() for p in played]),
        "score_per_1k_cumulative": 100 * float(np.mean(score)) / (cumulative / 1000) if cumulative else 0.0,
        "turns": mean([p.turns for p in played]),
        "failed_actions": mean([p.failed_actions for p in played]),
        "longest_failing_run": mean([p.longest_failing_run for p in played]),
        "repeated_share": mean([p.repeated for p in played]),
        "model_seconds": float(np.mean([p.model_seconds for p in played])),
        "runtime_seconds": float(np.mean([p.runtime_seconds for p in played])),
        "ended": {
            reason: sum(p.ended == reason for p in played) for reason in sorted({p.ended for p in played})
        },
    }


def compare_cells(cells: Mapping[str, Sequence[Played]], *, margin: float = 0.05) -> dict[str, Any]:
    """Return the paired tests between cells: scores, solved, missing variables, and the interaction on log tokens."""
    names = [name for name in CELLS if name in cells]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]

    def score(name: str) -> list[float]:
        return [p.score for p in cells[name]]

    out: dict[str, Any] = {
        "score_wilcoxon": {},
        "score_equivalence": {},
        "solved_mcnemar": {},
        "missing_mcnemar": {},
    }
    for a, b in pairs:
        key = f"{a} | {b}"
        out["score_wilcoxon"][key] = attrs.asdict(metrics.wilcoxon(score(a), score(b)))
        out["score_equivalence"][key] = attrs.asdict(metrics.equivalence(score(a), score(b), margin=margin))
        out["solved_mcnemar"][key] = attrs.asdict(
            metrics.mcnemar([p.solved for p in cells[a]], [p.solved for p in cells[b]])
        )
        out["missing_mcnemar"][key] = attrs.asdict(
            metrics.mcnemar([p.missing_strict for p in cells[a]], [p.missing_strict for p in cells[b]])
        )
    for kind in ("score_wilcoxon", "solved_mcnemar", "missing_mcnemar"):
        adjusted = metrics.holm({key: test["p"] for key, test in out[kind].items()})
        for key, p in adjusted.items():
            out[kind][key]["p_holm"] = p
    if len(names) == 4:
        logs = {name: [float(np.log(max(p.tokens.completion, 1))) for p in cells[name]] for name in names}
        out["token_interaction"] = attrs.asdict(metrics.interaction(*(logs[name] for name in CELLS)))
    return out
