"""`torch.compile` by length bucket, with an eager fallback.

A rollout shows the network every length from N down to 3. Compiled for each of them anew it would spend its time in the
compiler; compiled for lengths that may vary, the kernels cannot be planned. So lengths are rounded up to a few buckets
and rows to powers of two; the padding is masked. One compilation serves each bucket, for as long as the compiler keeps
within `compile_seconds`; what is not compiled by then, or what fails to compile, runs in eager mode.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import torch
from attrs import define, field
from torch import Tensor
from torch.nn import functional as F

from .features import Tokens
from .network import BQNetwork

# Steps of about a third: at most a quarter of the tokens of a large state are padding, an eighth on average.
LENGTHS = (8, 12, 16, 24, 32, 48, 64, 80, 104, 128, 160, 208, 256, 320, 416, 512, 640, 832, 1024)


def bucket(length: int) -> int:
    """The number of tokens that `length` is padded to; beyond the last bucket, the next multiple of it."""
    for known in LENGTHS:
        if length <= known:
            return known
    return -(-length // LENGTHS[-1]) * LENGTHS[-1]


def pad(tokens: Tokens, identifiers: Tensor | None, rows: int, length: int) -> tuple[Tensor | None, ...]:
    """`x`, `valid`, `xy`, `matrix`, `identifiers` with `rows` rows of `length` tokens; what is added is not valid.

    Added rows have two valid tokens, so that no softmax runs over nothing.
    """
    more_rows, more = rows - len(tokens.x), length - tokens.x.shape[1]
    valid = F.pad(tokens.valid, (0, more, 0, more_rows))
    valid[len(tokens.x) :, :2] = True
    flat = (0, 0, 0, more, 0, more_rows)
    return (
        F.pad(tokens.x, flat),
        valid,
        None if tokens.xy is None else F.pad(tokens.xy, flat),
        None if tokens.matrix is None else F.pad(tokens.matrix, (0, more, 0, more, 0, 0, 0, more_rows)),
        None if identifiers is None else F.pad(identifiers, flat),
    )


@define(eq=False)
class Bucketed:
    """A network as a callable with the signature of its `forward`, compiled once for each bucket.

    `backend`: of `torch.compile`. `compile_seconds`: wall seconds after which no further bucket is compiled. `seconds`:
    spent on first calls so far; `buckets`: (rows, length) that are compiled; `failed`: why it gave up, or empty.
    """

    network: BQNetwork
    backend: str = "inductor"
    compile_seconds: float = 120.0
    seconds: float = field(default=0.0, init=False)
    buckets: set[tuple[int, int]] = field(factory=set, init=False)
    failed: str = field(default="", init=False)
    _compiled: Any = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._compiled = torch.compile(self.network.logits, dynamic=False, fullgraph=True, backend=self.backend)

    def __call__(self, tokens: Tokens, identifiers: Tensor | None = None) -> Tensor:
        """As `BQNetwork.forward`. The first failure of the compiler warns and turns it off."""
        n, length = tokens.x.shape[:2]
        key = (1 << max(n - 1, 0).bit_length(), bucket(length))
        if self.failed or (key not in self.buckets and self.seconds > self.compile_seconds):
            return self._eager(tokens, identifiers)
        began = time.perf_counter()
        try:
            # One code object holds the kernels of all buckets; the default limit is eight.
            with torch._dynamo.config.patch(recompile_limit=512, accumulated_recompile_limit=4096):  # type: ignore[no-untyped-call]
                out: Tensor = self._compiled(*pad(tokens, identifiers, *key))
        except Exception as error:  # torch.compile has no narrower base class for its failures
            self.failed = f"{type(error).__name__}: {error}"
            warnings.warn(
                f"torch.compile failed ({self.failed}); this network continues in eager mode", stacklevel=2
            )
            return self._eager(tokens, identifiers)
        if key not in self.buckets:
            self.seconds += time.perf_counter() - began
            self.buckets.add(key)
        return out[:n, :length]

    def _eager(self, tokens: Tokens, identifiers: Tensor | None) -> Tensor:
        out: Tensor = self.network(tokens, identifiers)
        return out
