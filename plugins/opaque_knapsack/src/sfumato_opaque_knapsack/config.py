"""Settings of the tasks, solvers and evaluators, checked where they enter."""

from __future__ import annotations

import attrs
from attrs import validators as v

POLICIES = ("dp-known", "dp", "greedy", "inspect-10", "oracle-greedy")
WRITERS = ("auto", "native", "calls", "persistent", "stateless")
STYLE_NAMES = ("varied", "plain", "dicts", "functional", "object", "compact")


@attrs.frozen
class TaskConfig:
    """What an episode shows and how strictly it refuses.

    Attributes:
        split: `eval` or `train`: which of the paper's two disjoint seed ranges the instances come from.
        reveal_allowed: tell the allowed classes. The paper's prompt does not; an example in its data set does.
        reveal_items: put every item's weight, value and class into the public part. Only the oracle of the reference
            ladder needs it.
        strict_take: refuse takes of uninspected items, so that refusals tell nothing that was not paid for.
        tool_calls_per_action: cap on calls in one block of code; None: the level's own (25, micro 4).
        max_turns: actions that a runtime carries out before it cuts the episode off.
        max_calls: tool calls after which an episode is cut off, whatever made them.
        pomdp_model: put a batched generative model of the level into the public part, for planners that want one.
        pomdp_actions: what the model's numbered actions mean. `ranked`: finish; inspect while budget lasts, then take the
            first to fourth candidate by value per weight (inspected, not refused for its class, fitting); nothing that is sure
            to be refused can be said. `items`: inspect or take each item, 1 + 2 n actions.
    """

    split: str = attrs.field(default="eval", validator=v.in_(("eval", "train")))
    reveal_allowed: bool = False
    reveal_items: bool = False
    strict_take: bool = False
    tool_calls_per_action: int | None = attrs.field(default=None, validator=v.optional(v.ge(2)))
    max_turns: int = attrs.field(default=40, validator=v.ge(1))
    max_calls: int = attrs.field(default=1000, validator=v.ge(1))
    pomdp_model: bool = False
    pomdp_actions: str = attrs.field(default="ranked", validator=v.in_(("ranked", "items")))


@attrs.frozen
class ExpertConfig:
    """A scripted reference policy and how it acts.

    Attributes:
        policy: which policy of the ladder.
        writer: `native` makes tool calls one by one (runtime `direct`); `calls` writes code that only relays calls;
            `persistent` and `stateless` write code as an agent of that regime would (policy `greedy` only);
            `auto` is `native` without an interpreter, and `calls` or the interpreter's own regime with one.
        style: coding style of the persistent and stateless writers.
        words: write a sentence before each block.
    """

    policy: str = attrs.field(default="greedy", validator=v.in_(POLICIES))
    writer: str = attrs.field(default="auto", validator=v.in_(WRITERS))
    style: str = attrs.field(default="varied", validator=v.in_(STYLE_NAMES))
    words: bool = True


@attrs.frozen
class InjectorConfig:
    """An expert with faults put in at a known rate; see `experts.FAULTS` for the names.

    Attributes:
        faults: comma-separated names; one is drawn each time.
        rate: probability of a fault.
        per: `turn` or `episode`.
        writer: regime in which the expert underneath writes; `auto`: the interpreter's own.
        style: coding style.
    """

    faults: str = "stale-name"
    rate: float = attrs.field(default=0.3, validator=[v.ge(0.0), v.le(1.0)])
    per: str = attrs.field(default="turn", validator=v.in_(("turn", "episode")))
    writer: str = attrs.field(default="auto", validator=v.in_(("auto", "persistent", "stateless")))
    style: str = attrs.field(default="varied", validator=v.in_(STYLE_NAMES))


_PROFILE = v.in_(("matched", "paper"))
_PROMPT = v.in_(("full", "short"))


@attrs.frozen
class OpenAIConfig:
    """A server that speaks the OpenAI chat protocol.

    Attributes:
        base_url: address up to and with the version.
        model: name the server knows the model by.
        api_key_env: environment variable that holds the key; empty: none is sent.
        temperature, max_tokens: of sampling; the paper's values.
        timeout_seconds: of one request.
        retries: further attempts after a time-out, a lost connection, 429 or 5xx.
        concurrency: requests at a time, over all episodes.
        cache: folder in which answers are kept under a hash of the whole request; empty: none.
        profile, prompt: what the conversation begins with; see `conversation.opening`.
    """

    base_url: str = "http://127.0.0.1:8000/v1"
    model: str = "model"
    api_key_env: str = "OPENAI_API_KEY"
    temperature: float = attrs.field(default=0.2, validator=v.ge(0.0))
    max_tokens: int = attrs.field(default=12_288, validator=v.ge(1))
    timeout_seconds: float = attrs.field(default=300.0, validator=v.gt(0.0))
    retries: int = attrs.field(default=3, validator=v.ge(0))
    concurrency: int = attrs.field(default=4, validator=v.ge(1))
    cache: str = ""
    profile: str = attrs.field(default="matched", validator=_PROFILE)
    prompt: str = attrs.field(default="full", validator=_PROMPT)


@attrs.frozen
class TransformersConfig:
    """A transformers model in process; device and dtype are the run's.

    Attributes:
        model: folder of the model, with tokenizer and chat template.
        adapter: folder of a peft adapter; empty: none.
        temperature, max_tokens: of sampling.
        context: tokens a conversation may have.
        profile, prompt: what the conversation begins with; see `conversation.opening`.
    """

    model: str = ""
    adapter: str = ""
    temperature: float = attrs.field(default=0.2, validator=v.ge(0.0))
    max_tokens: int = attrs.field(default=1024, validator=v.ge(1))
    context: int = attrs.field(default=40_960, validator=v.ge(64))
    profile: str = attrs.field(default="matched", validator=_PROFILE)
    prompt: str = attrs.field(default="full", validator=_PROMPT)


@attrs.frozen
class ReplayConfig:
    """A trace file whose assistant messages are said again.

    Attributes:
        traces: JSONL file.
        regime: which half of its pairs; empty when it holds one regime only.
    """

    traces: str = ""
    regime: str = attrs.field(default="", validator=v.in_(("", "persistent", "stateless")))


@attrs.frozen
class DecoderSolverConfig:
    """A small decoder, trained on one regime's traces when it is first needed, and kept.

    Attributes:
        trained_on: whose traces: `persistent` or `stateless`.
        size: `smoke`, `cpu` or `gpu`; see `learned.SIZES`. Sizes belong to a level: cpu is for micro.
        match: `episodes`, or `tokens`: as much text as the persistent regime has.
        temperature: of sampling.
    """

    trained_on: str = attrs.field(default="persistent", validator=v.in_(("persistent", "stateless")))
    size: str = attrs.field(default="cpu", validator=v.in_(("smoke", "cpu", "gpu")))
    match: str = attrs.field(default="episodes", validator=v.in_(("episodes", "tokens")))
    temperature: float = attrs.field(default=0.2, validator=v.ge(0.0))
