"""Where scores come from: fixed matrices, i.i.d. streams with unequal experts, and drifting streams."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import numpy as np

from .errors import ArgumentError
from .problem import Floats, checked_count
from .rules import checked_rate

FIXED_KINDS = ("unif", "skew", "peaked")
STREAM_KINDS = ("iid", "walk", "shift")


def fixed_scores(kind: str, n_tokens: int, n_experts: int, rng: np.random.Generator) -> Floats:
    """Return one score matrix [T, E].

    'unif': uniform on [0, 1], alike for all experts. 'skew': sigmoid of a standard normal plus an offset
    per expert, so that plain top-K overloads a few. 'peaked': softmax of the same logits, the scores of a
    softmax gate. With `numpy.random.default_rng(0)`, T = 4096, E = 64, the first two are the matrices that
    this package's reference figures rest on.
    """
    checked_count(n_tokens, "n_tokens", least=0)
    checked_count(n_experts, "n_experts", least=2)
    if kind == "unif":
        return rng.random((n_tokens, n_experts))
    if kind not in FIXED_KINDS:
        raise ArgumentError("kind", f"one of {', '.join(FIXED_KINDS)}", repr(kind))
    z = rng.standard_normal((n_tokens, n_experts))
    logits = z + rng.standard_normal(n_experts)
    if kind == "skew":
        return np.asarray(1.0 / (1.0 + np.exp(-logits)))
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(exps / exps.sum(axis=1, keepdims=True))


@attrs.frozen
class StreamSpec:
    """A stream of batches with unequal experts: scores are U[0, 1] plus an offset per expert.

    n_tokens: T a batch. spread: offsets are uniform on [-spread, spread]. kind: 'iid' keeps them; 'walk'
    adds a normal step of size `drift` to each, every batch; 'shift' draws them anew halfway through.
    """

    n_tokens: int = attrs.field(default=256, converter=lambda n: checked_count(n, "n_tokens", least=0))
    n_experts: int = attrs.field(default=16, converter=lambda n: checked_count(n, "n_experts", least=2))
    kind: str = attrs.field(default="iid", validator=attrs.validators.in_(STREAM_KINDS))
    spread: float = attrs.field(default=0.15, converter=lambda x: checked_rate(x, "spread"))
    drift: float = attrs.field(default=1e-3, converter=lambda x: checked_rate(x, "drift"))


class ScoreStream:
    """Batches of one stream, and the bias that is best in expectation for each.

    For i.i.d. offsets o, the bias -o makes all experts alike, so it minimises the expected dual and no
    fixed bias does better in expectation.
    """

    def __init__(self, spec: StreamSpec, n_batches: int, rng: np.random.Generator) -> None:
        self.spec, self.n_batches, self._rng = spec, n_batches, rng
        self.offsets: Floats = spec.spread * (2.0 * rng.random(spec.n_experts) - 1.0)

    @property
    def best_bias(self) -> Floats:
        """The minimiser of the expected dual of the current batch, with mean zero. Float [E]."""
        return np.asarray(self.offsets.mean() - self.offsets)

    def __iter__(self) -> Iterator[Floats]:
        spec = self.spec
        for n in range(self.n_batches):
            if n and spec.kind == "walk":
                self.offsets = self.offsets + spec.drift * self._rng.standard_normal(spec.n_experts)
            if n and spec.kind == "shift" and n == self.n_batches // 2:
                self.offsets = spec.spread * (2.0 * self._rng.random(spec.n_experts) - 1.0)
            yield self._rng.random((spec.n_tokens, spec.n_experts)) + self.offsets
