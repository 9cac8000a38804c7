"""Settings of the tasks and solvers: frozen, with defaults, checked when made."""

from __future__ import annotations

import attrs
from attrs import validators as v

RULE_NAMES = ("sign", "sign_sqrt", "sign_inv", "prop", "prop_sqrt", "prop_inv", "ogd")
_positive = v.and_(v.instance_of(int), v.ge(1))
_not_negative = v.ge(0.0)


@attrs.frozen
class ScoresConfig:
    """Fixed score matrices; one step, whose action is an assignment of the whole batch.

    kind: 'unif', 'skew' (sigmoid gate) or 'peaked' (softmax gate). path: a .npy file of scores [T, E] to
    use instead; then kind, n_tokens and n_experts are ignored. k: experts per token.
    """

    kind: str = attrs.field(default="skew", validator=v.in_(("unif", "skew", "peaked")))
    n_tokens: int = attrs.field(default=1024, validator=_positive)
    n_experts: int = attrs.field(default=32, validator=v.ge(2))
    k: int = attrs.field(default=4, validator=_positive)
    path: str = ""


@attrs.frozen
class StreamConfig:
    """A stream of n_batches batches; each step's action assigns one batch.

    kind: 'iid', 'walk' or 'shift'. spread, drift: see `StreamSpec`.
    """

    kind: str = attrs.field(default="iid", validator=v.in_(("iid", "walk", "shift")))
    n_batches: int = attrs.field(default=200, validator=_positive)
    n_tokens: int = attrs.field(default=256, validator=_positive)
    n_experts: int = attrs.field(default=16, validator=v.ge(2))
    k: int = attrs.field(default=2, validator=_positive)
    spread: float = attrs.field(default=0.15, validator=_not_negative)
    drift: float = attrs.field(default=1e-3, validator=_not_negative)


@attrs.frozen
class CharLmConfig:
    """A character model with mixture-of-experts layers, trained on the help topics of CPython.

    The defaults are the small model: 2.4 million weights. Sizes for a GPU: dim 512, n_layers 8, heads 8,
    experts 64, k 6, shared 2, expert_width 256, batch 64, context 512, bf16 true.
    steps: optimiser steps. valid_characters: length of text to validate on, 0 for all that is held out. bf16: run experts and attention in bfloat16 (the router stays float32).
    """

    steps: int = attrs.field(default=1000, validator=_positive)
    dim: int = attrs.field(default=128, validator=_positive)
    n_layers: int = attrs.field(default=4, validator=_positive)
    heads: int = attrs.field(default=4, validator=_positive)
    experts: int = attrs.field(default=16, validator=v.ge(2))
    k: int = attrs.field(default=2, validator=_positive)
    shared: int = attrs.field(default=0, validator=v.ge(0))
    expert_width: int = attrs.field(default=128, validator=_positive)
    context: int = attrs.field(default=128, validator=_positive)
    batch: int = attrs.field(default=16, validator=_positive)
    learning_rate: float = attrs.field(default=1e-3, validator=v.gt(0.0))
    bf16: bool = False
    valid_characters: int = attrs.field(default=0, validator=v.ge(0))


@attrs.frozen
class RouterChoice:
    """How a model's routers are balanced: the action of `alflb/char-lm`.

    rule: 'none' or a rule of `RULES`, with step u; 'ogd' takes mu instead, in tokens per unit of score. switch, sequence, z: coefficients of the Switch loss,
    the per-sequence loss and the z-loss. groups, top_groups: 0 for no limit. score: 'sigmoid', 'softmax'.
    """

    rule: str = attrs.field(default="none", validator=v.in_(("none", *RULE_NAMES)))
    u: float = attrs.field(default=1e-3, validator=_not_negative)
    mu: float = attrs.field(default=0.0, validator=_not_negative)
    switch: float = attrs.field(default=0.0, validator=_not_negative)
    sequence: float = attrs.field(default=0.0, validator=_not_negative)
    z: float = attrs.field(default=0.0, validator=_not_negative)
    groups: int = attrs.field(default=0, validator=v.ge(0))
    top_groups: int = attrs.field(default=0, validator=v.ge(0))
    score: str = attrs.field(default="sigmoid", validator=v.in_(("sigmoid", "softmax")))


@attrs.frozen
class BiasConfig:
    """The bias rules. iterations: updates on a fixed matrix (on a stream: one per batch).

    mu: for rule 'ogd'; 0 takes the mean curvature of the first batch (see `estimate_convexity`), which a model to
    be trained does not have: there it must be given. engine: 'numpy' or 'compiled', on a fixed matrix. groups,
    top_groups: limit every token to that many of the groups, 0 for no limit. sequence, score: only where a model is
    trained.
    """

    rule: str = attrs.field(default="sign", validator=v.in_(RULE_NAMES))
    u: float = attrs.field(default=1e-3, validator=_not_negative)
    mu: float = attrs.field(default=0.0, validator=_not_negative)
    iterations: int = attrs.field(default=1000, validator=v.ge(0))
    engine: str = attrs.field(default="numpy", validator=v.in_(("numpy", "compiled")))
    sequence: float = attrs.field(default=0.0, validator=_not_negative)
    groups: int = attrs.field(default=0, validator=v.ge(0))
    top_groups: int = attrs.field(default=0, validator=v.ge(0))
    score: str = attrs.field(default="sigmoid", validator=v.in_(("sigmoid", "softmax")))


@attrs.frozen
class ExpertChoiceConfig:
    """Expert choice has no settings: every expert takes the tokens that score best on it."""


@attrs.frozen
class LpConfig:
    """The exact optimum. method: 'highs', 'highs-ds', 'highs-ipm' or 'flow' (extra `flow`)."""

    method: str = attrs.field(default="highs", validator=v.in_(("highs", "highs-ds", "highs-ipm", "flow")))


@attrs.frozen
class SweepsConfig:
    """Price sweeps over a batch: for the two-sided quantile method and for BIP."""

    sweeps: int = attrs.field(default=8, validator=_positive)


@attrs.frozen
class SinkhornConfig:
    """Sinkhorn scaling. tau: temperature in units of score.

    The default is the best of 0.05 to 1 on skewed scores (MaxVio 0.23 to 0.29; 0.05 leaves 0.6 to 1.1).
    """

    tau: float = attrs.field(default=0.15, validator=v.gt(0.0))
    iterations: int = attrs.field(default=100, validator=_positive)


@attrs.frozen
class AuxLossConfig:
    """Balancing by a loss. alpha: Switch/GShard coefficient; z: z-loss coefficient, only where a model is
    trained (given scores have no logits to keep small).

    learning_rate, tau: of the offsets on given scores, see `SwitchOffsets` (10 is about the best at alpha = 0.01 on
    skewed scores: MaxVio 0.02 after 300 steps, where 1 leaves 0.6); iterations: steps on a fixed
    matrix. alpha = 0 is no balancing at all.
    """

    alpha: float = attrs.field(default=0.01, validator=_not_negative)
    z: float = attrs.field(default=0.0, validator=_not_negative)
    learning_rate: float = attrs.field(default=10.0, validator=_not_negative)
    tau: float = attrs.field(default=1.0, validator=v.gt(0.0))
    iterations: int = attrs.field(default=300, validator=v.ge(0))
    score: str = attrs.field(default="sigmoid", validator=v.in_(("sigmoid", "softmax")))
