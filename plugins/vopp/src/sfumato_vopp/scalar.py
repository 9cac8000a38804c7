"""Models written once, as compiled scalar functions; their batched methods are compiled loops over them.

Needs numba. The batched methods draw from counter-based streams, so the search on arrays and the fused search see the same
numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato_vopp.counter import CounterDraws
from sfumato_vopp.model import Array, CompiledModel, Model, Step

__all__ = ["ScalarModel"]

_LOOPS: dict[tuple[int, int, int], tuple[Any, Any, Any]] = {}


class ScalarModel(Model):
    """Base of models that define ``compiled()`` and get ``step``, ``log_likelihood`` and ``value_hint`` from it."""

    uses_counter_draws = True

    def _loops(self) -> tuple[CompiledModel, Any, Any, Any]:
        c = self.compiled()
        assert c is not None
        key = (id(c.step), id(c.hint), id(c.log_likelihood))
        if key not in _LOOPS:
            from sfumato_vopp.scalar_numba import loops

            _LOOPS[key] = loops(c)
        return c, *_LOOPS[key]

    def step(self, states: Array, actions: Array, rng: Any) -> Step:
        """Advance a batch; states [B, state_width], actions int64 [B]."""
        c, step, _, _ = self._loops()
        following = np.array(states, self.state_dtype, order="C")
        if isinstance(rng, CounterDraws):
            streams = rng.streams()
        else:
            streams = rng.integers(0, 2**64, len(following), dtype=np.uint64)
        return Step(following, *step(following, np.asarray(actions, np.int64), streams, np.zeros(1, np.uint64), c.ints, c.floats))

    def log_likelihood(self, observation: int, states: Array, action: int, next_states: Array) -> Array:
        """Return log P(o | s, a, s'); float64 [B]."""
        c, _, _, likelihood = self._loops()
        before, after = (np.ascontiguousarray(s, self.state_dtype) for s in (states, next_states))
        return likelihood(int(observation), before, int(action), after, c.ints, c.floats)

    def value_hint(self, states: Array, actions: Array) -> Array:
        """Return the compiled hint of each state; float64 [B]."""
        c, _, hint, _ = self._loops()
        return hint(np.ascontiguousarray(states, self.state_dtype), np.asarray(actions, np.int64), c.ints, c.floats)
