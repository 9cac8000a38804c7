"""Policies that talk: a conversation, a backend, and a record of every call, behind the core's protocols."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sfumato.protocols import Context, Policy, Runtime, Solver, Task
from sfumato.records import Refusal, Start, Step
from sfumato.runtimes import Direct
from sfumato_opaque_knapsack.backends import (
    Backend,
    ModelCallFailed,
    OpenAIBackend,
    ReplayBackend,
    ServerSettings,
    TransformersBackend,
)
from sfumato_opaque_knapsack.config import DecoderSolverConfig, OpenAIConfig, ReplayConfig, TransformersConfig
from sfumato_opaque_knapsack.conversation import as_shown, opening
from sfumato_opaque_knapsack.metrics import tokens_of
from sfumato_opaque_knapsack.solvers import NO_CODE, refuse_foreign, seed_from


class ChatPolicy(Policy[str, Mapping[str, str]]):
    """Shows a model the conversation so far and hands its message to the runtime.

    A failed call, or a completion that ends for another reason than a normal stop, runs nothing: it becomes a user
    message and costs a turn. A visibility cue is shown before a call and not kept.
    """

    def __init__(self, backend: Any, *, profile: str, prompt: str) -> None:
        self._backend = backend
        self._profile, self._prompt = profile, prompt

    def reset(self, start: Start[str], rng: np.random.Generator) -> None:
        self._messages = opening(start.observation, start.public, profile=self._profile, prompt=self._prompt)
        self._cue = str(start.public.get("cue") or "")
        self._seed = seed_from(rng)
        self._calls: list[tuple[int, int]] = []
        self._failures: list[str] = []
        self._seconds = 0.0
        self._instead: str | None = None
        self._first = True
        backend = self._backend
        self._model: Backend = (
            backend.episode(start.public["instance_key"]) if hasattr(backend, "episode") else backend
        )

    def act(self, observation: str) -> Mapping[str, str]:
        if not self._first:
            self._messages.append(
                {"role": "user", "content": as_shown(observation) if self._instead is None else self._instead}
            )
        self._first, self._instead = False, None
        shown = [*self._messages, {"role": "user", "content": self._cue}] if self._cue else self._messages
        turn = len(self._calls) + len(self._failures)
        try:
            completion = self._model.complete(shown, self._seed + turn)
        except ModelCallFailed as failure:
            self._failures.append(str(failure))
            self._instead = f"The model call failed: {failure}"
            return {"message": ""}
        self._calls.append((completion.prompt_tokens, completion.completion_tokens))
        self._seconds += completion.seconds
        self._messages.append({"role": "assistant", "content": completion.text})
        if completion.finish != "stop":
            self._failures.append(f"ended by {completion.finish}")
            self._instead = (
                f"The message was cut off ({completion.finish}), so nothing was run. Write a shorter one."
            )
            return {"message": ""}
        return {"message": completion.text}

    def observe(self, step: Step[str]) -> None:
        self._cue = str(step.info.get("cue") or "")

    def notes(self) -> Mapping[str, Any]:
        tokens = tokens_of(self._calls)
        return {
            "completion_tokens": tokens.completion,
            "cumulative_tokens": tokens.cumulative,
            "unique_tokens": tokens.unique,
            "model_seconds": self._seconds,
            "model_failures": list(self._failures),
            "messages": list(self._messages),
        }


class _ChatSolver(Solver[Any, str, Mapping[str, str]]):
    def supports(self, task: Task[Any, Any, Any], runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        return NO_CODE if isinstance(runtime, Direct) else refuse_foreign(task)


class OpenAISolver(_ChatSolver):
    """A model behind a server that speaks the OpenAI chat protocol (vLLM, llama.cpp, a vendor)."""

    def __init__(self, config: OpenAIConfig = OpenAIConfig()) -> None:
        self.config = config

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> ChatPolicy:
        c = self.config
        key = os.environ.get(c.api_key_env) if c.api_key_env else None
        settings = ServerSettings(
            base_url=c.base_url,
            model=c.model,
            api_key=key,
            temperature=c.temperature,
            max_tokens=c.max_tokens,
            timeout_seconds=c.timeout_seconds,
            retries=c.retries,
            concurrency=c.concurrency,
            cache=Path(c.cache) if c.cache else None,
        )
        return ChatPolicy(OpenAIBackend(settings), profile=c.profile, prompt=c.prompt)

    def replay_promise(self) -> str:
        return "bits" if self.config.cache else "statistical"


class TransformersSolver(_ChatSolver):
    """A model of the transformers library, in process."""

    def __init__(self, config: TransformersConfig = TransformersConfig()) -> None:
        self.config = config

    def supports(self, task: Task[Any, Any, Any], runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        if not self.config.model:
            return Refusal(
                "no model is named",
                "Give a folder with -s model=FOLDER; 'sfumato opaque-knapsack train' writes one.",
            )
        return super().supports(task, runtime)

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> ChatPolicy:
        c = self.config
        if not Path(c.model).is_dir():
            raise FileNotFoundError(
                f"model: expected a folder of a transformers model, got {c.model!r}; run "
                "'sfumato opaque-knapsack train' or 'sfumato opaque-knapsack smollm2' to make one"
            )
        backend = TransformersBackend(
            c.model,
            adapter=c.adapter or None,
            device=ctx.device,
            dtype=ctx.dtype or "float32",
            temperature=c.temperature,
            max_tokens=c.max_tokens,
            context=c.context,
        )
        return ChatPolicy(backend, profile=c.profile, prompt=c.prompt)

    def replay_promise(self) -> str:
        return "tolerance"


class ReplaySolver(_ChatSolver):
    """The messages of a trace file, said again."""

    def __init__(self, config: ReplayConfig = ReplayConfig()) -> None:
        self.config = config

    def supports(self, task: Task[Any, Any, Any], runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        if not self.config.traces:
            return Refusal(
                "no trace file is named",
                "Give one with -s traces=FILE; 'sfumato opaque-knapsack traces' writes one.",
            )
        return super().supports(task, runtime)

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> ChatPolicy:
        backend = ReplayBackend(Path(self.config.traces), regime=self.config.regime or None)
        return ChatPolicy(backend, profile="matched", prompt="full")


class DecoderSolver(_ChatSolver):
    """A small decoder trained on traces of one interpreter; the trained model is kept as an artifact.

    The run's train seed is the seed of training (0 stands for the paper's 3407).
    """

    def __init__(self, config: DecoderSolverConfig = DecoderSolverConfig()) -> None:
        self.config = config

    def supports(self, task: Task[Any, Any, Any], runtime: Runtime[Any, Any, Any, Any]) -> Refusal | None:
        from sfumato_opaque_knapsack.learned import SIZES

        refusal = super().supports(task, runtime)
        level = SIZES[self.config.size].level
        if refusal is None and getattr(getattr(task, "level", None), "name", None) != level:
            return Refusal(
                f"size {self.config.size!r} is trained on level {level}",
                f"Run it on opaque-knapsack/{level}.",
            )
        return refusal

    def solve(self, task: Task[Any, Any, Any], ctx: Context) -> ChatPolicy:
        from sfumato_opaque_knapsack import learned
        from sfumato_opaque_knapsack.learned_backend import DecoderBackend

        c = self.config
        size = learned.SIZES[c.size]
        folder = learned.trained(
            ctx,
            size,
            c.trained_on,
            seed=ctx.train_seed or 3407,
            match=c.match,
            device=ctx.device,
            report=lambda row: ctx.progress(row["step"] / row["steps"], f"training, loss {row['loss']:.3f}"),
        )
        model, tokenizer = learned.load(folder, ctx.device)
        backend = DecoderBackend(model, tokenizer, temperature=c.temperature, context=size.context)
        return ChatPolicy(backend, profile="matched", prompt="short")

    def replay_promise(self) -> str:
        return "bits" if self.config.size != "gpu" else "tolerance"
