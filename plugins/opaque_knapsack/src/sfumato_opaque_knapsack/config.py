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
    """

    split: str = attrs.field(default="eval", validator=v.in_(("eval", "train")))
    reveal_allowed: bool = False
    reveal_items: bool = False
    strict_take: bool = False
    tool_calls_per_action: int | None = attrs.field(default=None, validator=v.optional(v.ge(2)))
    max_turns: int = attrs.field(default=40, validator=v.ge(1))
    max_calls: int = attrs.field(default=1000, validator=v.ge(1))
    pomdp_model: bool = False


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
