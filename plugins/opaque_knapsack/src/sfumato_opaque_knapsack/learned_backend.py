"""The small decoder as a model backend, so that a learned agent is a solver like any other."""

from __future__ import annotations

import time

import numpy as np
import torch

from sfumato_opaque_knapsack.backends import Backend, Completion, Messages, ModelCallFailed
from sfumato_opaque_knapsack.decoder import CopyDecoder, Stream
from sfumato_opaque_knapsack.tokenizer import TraceTokenizer


class DecoderBackend:
    """A trained decoder with its tokenizer; each episode keeps the cache of its own conversation."""

    def __init__(
        self,
        model: CopyDecoder,
        tokenizer: TraceTokenizer,
        *,
        temperature: float = 0.2,
        context: int = 2048,
        message_tokens: int = 1024,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.temperature, self.context, self.message_tokens = temperature, context, message_tokens

    def episode(self, key: str) -> Backend:
        """Return a backend for one conversation; the key is not looked at."""
        return _Conversation(self)


class _Conversation:
    def __init__(self, backend: DecoderBackend) -> None:
        self._backend = backend
        self._stream = Stream(backend.model, 1, backend.context)
        self._fed: list[int] = []

    def complete(self, messages: Messages, seed: int) -> Completion:
        backend, tokenizer = self._backend, self._backend.tokenizer
        begun = time.perf_counter()
        tokens, _ = tokenizer.render(list(messages))
        prompt = [*tokens, tokenizer.assistant]
        if prompt[: len(self._fed)] != self._fed:  # a cue that was shown and is gone again
            self._stream, self._fed = Stream(backend.model, 1, backend.context), []
        if len(prompt) >= backend.context:
            raise ModelCallFailed(
                f"the conversation has {len(prompt)} tokens, the context holds {backend.context}"
            )
        device = backend.model.embedding.weight.device
        rng = np.random.default_rng(seed)
        logits = None
        for token in prompt[len(self._fed) :]:
            logits = self._stream.step(torch.tensor([token], device=device))
        self._fed = prompt
        said: list[int] = []
        finish = "length"
        while logits is not None and len(said) < backend.message_tokens:
            scores = logits[0].float().cpu().numpy()
            noise = rng.gumbel(size=scores.shape) if backend.temperature else 0.0
            token = int((scores / (backend.temperature or 1.0) + noise).argmax())
            said.append(token)
            if token == tokenizer.end:
                finish = "stop"
                break
            if len(self._fed) >= backend.context:
                break
            logits = self._stream.step(torch.tensor([token], device=device))
            self._fed = [*self._fed, token]
        text = tokenizer.decode(said[:-1] if finish == "stop" else said)
        return Completion(text, finish, len(prompt), len(said), time.perf_counter() - begun)
