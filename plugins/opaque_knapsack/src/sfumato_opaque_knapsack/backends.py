"""Where a message comes from: a server that speaks the OpenAI protocol, transformers in process, or a recording.

A backend has `complete(messages, seed)` and returns a `Completion` or raises `ModelCallFailed`, whose text is fit to
be shown to the model and kept in the record.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs

Messages = Sequence[dict[str, str]]


class ModelCallFailed(RuntimeError):
    """Raised when no completion was had: time-out, refused connection, bad status, garbage, a cut-off answer."""


@attrs.frozen
class Completion:
    """One answer of a model. `finish` is `stop` for a normal end; token counts are the backend's own."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    cached: bool = False
    attempts: int = 1


class Backend(Protocol):
    """What `ChatPolicy` asks of a model."""

    def complete(self, messages: Messages, seed: int) -> Completion:
        """Return the next assistant message, or raise ModelCallFailed."""


# ------------------------------------------------------------------ a server


@attrs.frozen
class ServerSettings:
    """How a server is asked; see `config.OpenAIConfig` for what each field means."""

    base_url: str
    model: str
    api_key: str | None = None
    temperature: float = 0.2
    max_tokens: int = 12_288
    timeout_seconds: float = 300.0
    retries: int = 3
    concurrency: int = 4
    cache: Path | None = None


_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


class OpenAIBackend:
    """A client of the chat-completions protocol, without streaming.

    `timeout_seconds` is for a whole answer. Connection errors, time-outs and the statuses 408, 409, 425, 429 and 5xx
    are tried again with full jitter (and no sooner than `Retry-After` says); garbage and other statuses are not.
    Answers are cached under a hash of the whole request, so that a run can be done again without the server. One
    instance serves many threads.
    """

    def __init__(self, settings: ServerSettings, *, transport: Any = None) -> None:
        try:
            import httpx
        except ImportError as error:
            raise ImportError(
                "the OpenAI-compatible client needs httpx, which is not installed; run "
                "pip install 'sfumato-opaque-knapsack[http]'"
            ) from error
        self._httpx = httpx
        self.settings = settings
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self._client = httpx.Client(
            base_url=settings.base_url.rstrip("/") + "/",
            timeout=settings.timeout_seconds,
            headers=headers,
            transport=transport,
        )
        self._slots = threading.BoundedSemaphore(settings.concurrency)
        self._usage = threading.Lock()
        self.prompt_tokens = self.completion_tokens = self.calls = self.cache_hits = 0

    def __deepcopy__(self, memo: Any) -> OpenAIBackend:
        return self

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def complete(self, messages: Messages, seed: int) -> Completion:
        """Return the server's message; see the class for what is tried again.

        Raises:
            ModelCallFailed: after the last attempt, or at once when trying again cannot help.
        """
        settings = self.settings
        request = {
            "model": settings.model,
            "messages": list(messages),
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "seed": seed % 2**31,
            "stream": False,
        }
        path = self._cache_path(request)
        if path is not None and path.is_file():
            with self._usage:
                self.cache_hits += 1
            return attrs.evolve(Completion(**json.loads(path.read_text(encoding="utf-8"))), cached=True)
        rng = random.Random(seed)
        begun = time.perf_counter()
        failure = ""
        for attempt in range(1, settings.retries + 2):
            wait = 0.0
            try:
                with self._slots:
                    response, content = self._post(request)
                if response.status_code == 200:
                    completion = self._read(content, time.perf_counter() - begun, attempt)
                    break
                text = content[:800].decode("utf-8", "replace")
                failure = f"the server answered {response.status_code}: {text[:200]!r}"
                if response.status_code not in _RETRIED:
                    raise ModelCallFailed(f"{failure}. Check the model name, the key and the address.")
                wait = _seconds(response.headers.get("retry-after"))
            except self._httpx.TimeoutException:
                failure = f"no answer within {settings.timeout_seconds:g} s"
            except self._httpx.HTTPError as error:
                failure = f"{type(error).__name__}: {error}"
            if attempt <= settings.retries:
                time.sleep(max(wait, rng.uniform(0, min(30.0, 0.25 * 2**attempt))))
        else:
            raise ModelCallFailed(f"{failure}, in {settings.retries + 1} attempts")
        with self._usage:
            self.calls += 1
            self.prompt_tokens += completion.prompt_tokens
            self.completion_tokens += completion.completion_tokens
        if path is not None:
            partial = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
            partial.write_text(json.dumps(attrs.asdict(completion)), encoding="utf-8")
            partial.replace(path)
        return completion

    def _post(self, request: dict[str, Any]) -> tuple[Any, bytes]:
        """Return the response and its body. The client's own limit is on each read; this one is on the whole answer,
        so that a server which sends a byte now and then does not hold an episode up without end.
        """
        deadline = time.perf_counter() + self.settings.timeout_seconds
        parts: list[bytes] = []
        with self._client.stream("POST", "chat/completions", json=request) as response:
            for part in response.iter_bytes():
                parts.append(part)
                if time.perf_counter() > deadline:
                    raise self._httpx.ReadTimeout("the answer took too long", request=response.request)
        return response, b"".join(parts)

    def _cache_path(self, request: dict[str, Any]) -> Path | None:
        folder = self.settings.cache
        if folder is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        key = json.dumps([self.settings.base_url, request], sort_keys=True, separators=(",", ":"))
        return folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _read(self, body: bytes, seconds: float, attempts: int) -> Completion:
        try:
            record = json.loads(body.decode("utf-8"))
            choice = record["choices"][0]
            text = choice["message"]["content"]
            finish = choice.get("finish_reason") or "none"
            usage = record.get("usage") or {}
            counts = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise ModelCallFailed(
                f"expected a chat completion from the server, got {body[:120]!r} ({type(error).__name__}). Check that "
                "the address ends in the version, as in http://host:8000/v1."
            ) from error
        if text is not None and not isinstance(text, str):
            raise ModelCallFailed(f"expected the message's content to be text, got {type(text).__name__}")
        return Completion(text or "", str(finish), counts[0], counts[1], seconds, attempts=attempts)


def _seconds(header: str | None) -> float:
    try:
        return min(max(float(header or 0), 0.0), 60.0)
    except ValueError:
        return 0.0


# ------------------------------------------------------------------ transformers, in process


class TransformersBackend:
    """A causal language model of the transformers library, with its key-value cache kept from turn to turn.

    Arguments:
        folder: a folder that `from_pretrained` reads, tokenizer with chat template included.
        adapter: a folder with a peft adapter, or None.
        device: torch device; nothing else is tried when it is not there.
        temperature, max_tokens: of sampling; temperature 0 is greedy.
        context: tokens after which an episode is refused further completions.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        adapter: str | Path | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        temperature: float = 0.2,
        max_tokens: int = 1024,
        context: int = 40_960,
        template: dict[str, Any] | None = None,
    ) -> None:
        try:
            import torch
            import transformers
        except ImportError as error:
            raise ImportError(
                "the transformers backend needs torch and transformers; run "
                "pip install 'sfumato-opaque-knapsack[train]'"
            ) from error
        self._torch = torch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=getattr(torch, dtype)
        )
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        self.model = model.to(device).eval()
        self.device, self.temperature, self.max_tokens = device, temperature, max_tokens
        limit = getattr(model.config, "max_position_embeddings", context)
        self.context = min(context, limit)
        self._template = template or {}
        # One episode's tokens and cache at a time; another episode only costs a prefill.
        self._held: tuple[list[int], Any] = ([], None)
        self._lock = threading.Lock()
        ends = model.generation_config.eos_token_id
        self._ends = set(ends if isinstance(ends, list) else [ends]) | {self.tokenizer.eos_token_id}

    def __deepcopy__(self, memo: Any) -> TransformersBackend:
        return self

    def render(self, messages: Messages) -> list[int]:
        """Return the prompt's tokens: chat template, then the start of an assistant message."""
        from sfumato_opaque_knapsack.conversation import merged

        return list(
            self.tokenizer.apply_chat_template(
                merged(list(messages)),
                add_generation_prompt=True,
                tokenize=True,
                return_dict=False,
                **self._template,
            )
        )

    def complete(self, messages: Messages, seed: int) -> Completion:
        """Return the model's message. Draws depend on `seed` and the prompt alone."""
        torch = self._torch
        begun = time.perf_counter()
        prompt = self.render(messages)
        room = self.context - len(prompt)
        if room < 1:
            raise ModelCallFailed(
                f"the conversation has {len(prompt)} tokens, the context holds {self.context}"
            )
        generator = torch.Generator().manual_seed(seed % 2**63)
        out: list[int] = []
        finish = "length"
        with self._lock, torch.inference_mode():
            held, cache = self._held
            shared = 0
            while shared < min(len(held), len(prompt) - 1) and held[shared] == prompt[shared]:
                shared += 1
            if cache is not None and shared < len(held):
                cache.crop(shared)
            feed = prompt[shared:] if cache is not None else prompt
            tokens = prompt[: len(prompt) - len(feed)]
            for _ in range(min(self.max_tokens, room)):
                result = self.model(
                    input_ids=torch.tensor([feed], device=self.device), past_key_values=cache, use_cache=True
                )
                tokens = tokens + feed
                cache = result.past_key_values
                logits = result.logits[0, -1].float().cpu()
                if self.temperature == 0:
                    token = int(logits.argmax())
                else:
                    token = int(
                        torch.multinomial((logits / self.temperature).softmax(-1), 1, generator=generator)
                    )
                if token in self._ends:
                    finish = "stop"
                    out.append(token)
                    break
                out.append(token)
                feed = [token]
            self._held = (tokens, cache)
        said = out[:-1] if finish == "stop" else out
        text = self.tokenizer.decode(said, skip_special_tokens=True)
        return Completion(text, finish, len(prompt), len(out), time.perf_counter() - begun)


# ------------------------------------------------------------------ a recording


class ReplayBackend:
    """Says again what a trace file's assistant said, episode by episode; needs no model.

    Episodes are found by `instance_key` (a hash of the list of ids, which any agent can list), so order and
    sharding do not matter.
    """

    def __init__(self, path: Path, *, regime: str | None = None) -> None:
        from sfumato_opaque_knapsack.instances import generate
        from sfumato_opaque_knapsack.prompts import instance_key
        from sfumato_opaque_knapsack.traces import read_jsonl

        self._said: dict[str, list[str]] = {}
        for record in read_jsonl(path, regime=regime):
            meta = record["meta"]
            key = instance_key(generate(meta["level"], meta["seed"]))
            said = [m["content"] for m in record["messages"] if m["role"] == "assistant"]
            if self._said.setdefault(key, said) != said:
                raise ValueError(
                    f"{path}: expected one recording an instance, got two of {meta['level']} seed {meta['seed']}; "
                    "name a regime"
                )

    def episode(self, key: str) -> Backend:
        """Return a backend for one episode.

        Raises:
            ModelCallFailed: the file holds no recording of this instance.
        """
        if key not in self._said:
            raise ModelCallFailed(f"no recording of instance {key}; make traces of the same level and seeds")
        return _Recording(self._said[key])


class _Recording:
    def __init__(self, said: list[str]) -> None:
        self._said = said

    def complete(self, messages: Messages, seed: int) -> Completion:
        k = sum(1 for m in messages if m["role"] == "assistant")
        if k >= len(self._said):
            raise ModelCallFailed(
                f"the recording has {len(self._said)} messages, the episode asked for one more"
            )
        from sfumato_opaque_knapsack.metrics import count_words

        prompt = sum(count_words(m["content"]) for m in messages)
        return Completion(self._said[k], "stop", prompt, count_words(self._said[k]), 0.0)
