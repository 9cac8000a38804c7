"""Compiled loops that make batched functions of a model's scalar ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato_vopp.borrow_numba import borrow
from sfumato_vopp.model import CompiledModel
from sfumato_vopp.numba_cache import with_disk_cache

__all__ = ["loops"]


def loops(model: CompiledModel) -> tuple[Any, Any, Any]:
    """Return batched (step in place, hint, log-likelihood)."""
    step, hint, log_likelihood = model.step, model.hint, model.log_likelihood

    def step_all(S_, actions, streams, stream_, ints_, floats_):  # type: ignore[no-untyped-def]
        S, stream, ints, floats = borrow(S_), borrow(stream_), borrow(ints_), borrow(floats_)
        n = actions.size
        observations, rewards, terminal = np.empty(n, np.int64), np.empty(n), np.empty(n, np.bool_)
        for i in range(n):
            stream[0] = streams[i]
            observations[i], rewards[i], terminal[i] = step(S, i, actions[i], stream, ints, floats)
        return observations, rewards, terminal

    def hint_all(S_, actions, ints_, floats_):  # type: ignore[no-untyped-def]
        S, ints, floats = borrow(S_), borrow(ints_), borrow(floats_)
        out = np.empty(actions.size)
        for i in range(actions.size):
            out[i] = hint(S, i, actions[i], ints, floats)
        return out

    def likelihood_all(o, P_, a, S_, ints_, floats_):  # type: ignore[no-untyped-def]
        P, S, ints, floats = borrow(P_), borrow(S_), borrow(ints_), borrow(floats_)
        out = np.empty(S.shape[0])
        for i in range(S.shape[0]):
            out[i] = log_likelihood(o, P, i, a, S, i, ints, floats)
        return out

    key = model.cache_key
    return with_disk_cache(step_all, key), with_disk_cache(hint_all, key), with_disk_cache(likelihood_all, key)
