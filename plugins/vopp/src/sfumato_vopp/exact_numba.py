"""Compiled inner loops of :mod:`sfumato_vopp.exact`; tables as in :class:`sfumato_vopp.tabular.Tables`."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = [
    "back_project", "blind_values", "informed_bound", "lower", "predict", "sawtooth", "undominated",
    "useful_points", "value_iteration",
]  # fmt: skip


@njit(cache=True)
def value_iteration(indptr, indices, data, reward, discount, tolerance, max_iterations):  # type: ignore[no-untyped-def]
    """Return Q [A, S] of the MDP, from above: started at the largest conceivable value, so each iterate is a bound."""
    n, n_actions = reward.shape
    v = np.full(n, max(0.0, reward.max()) / (1.0 - discount) if discount < 1.0 else 0.0)
    q = np.zeros((n_actions, n))
    for _ in range(max_iterations):
        change = 0.0
        for s in range(n):
            best = -np.inf
            for a in range(n_actions):
                x = 0.0
                for j in range(indptr[a * n + s], indptr[a * n + s + 1]):
                    x += data[j] * v[indices[j]]
                q[a, s] = reward[s, a] + discount * x
                best = max(best, q[a, s])
            change = max(change, abs(best - v[s]))
            v[s] = best
        if change < tolerance:
            break
    return q


@njit(cache=True)
def blind_values(indptr, indices, data, reward, discount, tolerance, max_iterations):  # type: ignore[no-untyped-def]
    """Return the value [A, S] of each constant policy, from below."""
    n, n_actions = reward.shape
    out = np.zeros((n_actions, n))
    for a in range(n_actions):
        low = min(0.0, reward[:, a].min()) / (1.0 - discount) if discount < 1.0 else 0.0
        for s in range(n):
            out[a, s] = low
        for _ in range(max_iterations):
            change = 0.0
            for s in range(n):
                x = 0.0
                for j in range(indptr[a * n + s], indptr[a * n + s + 1]):
                    x += data[j] * out[a, indices[j]]
                x = reward[s, a] + discount * x
                change = max(change, abs(x - out[a, s]))
                out[a, s] = x
            if change < tolerance:
                break
    return out


@njit(cache=True)
def informed_bound(indptr, indices, data, observe, reward, discount, start, tolerance, max_iterations):  # type: ignore[no-untyped-def]
    """Return the fast informed bound [A, S], started at the QMDP vectors, so each iterate is a bound."""
    n, n_actions = reward.shape
    n_obs = observe.shape[2]
    alpha = start.copy()
    new = np.zeros_like(alpha)
    sums = np.zeros((n_obs, n_actions))
    for _ in range(max_iterations):
        change = 0.0
        for a in range(n_actions):
            for s in range(n):
                sums[:] = 0.0
                for j in range(indptr[a * n + s], indptr[a * n + s + 1]):
                    t = indices[j]
                    for o in range(n_obs):
                        p = data[j] * observe[a, t, o]
                        if p > 0.0:
                            for b in range(n_actions):
                                sums[o, b] += p * alpha[b, t]
                x = 0.0
                for o in range(n_obs):
                    best = sums[o, 0]
                    for b in range(1, n_actions):
                        best = max(best, sums[o, b])
                    x += best
                new[a, s] = reward[s, a] + discount * x
                change = max(change, abs(new[a, s] - alpha[a, s]))
        alpha[:] = new
        if change < tolerance:
            break
    return alpha


@njit(cache=True)
def lower(vectors, m, states, weights):  # type: ignore[no-untyped-def]
    """Return (value, number) of the best of the first m vectors at a sparse belief."""
    best, which = -np.inf, 0
    for i in range(m):
        x = 0.0
        for j in range(states.size):
            x += vectors[i, states[j]] * weights[j]
        if x > best:
            best, which = x, i
    return best, which


@njit(cache=True)
def sawtooth(corner, ptr, point_states, point_weights, value, n_points, dense, states, weights):  # type: ignore[no-untyped-def]
    """Return the sawtooth interpolation of points and corners at a sparse belief; ``dense`` [S] is zero before and after."""
    base = 0.0
    for j in range(states.size):
        base += corner[states[j]] * weights[j]
        dense[states[j]] = weights[j]
    best = base
    for i in range(n_points):
        if value[i] == np.inf:
            continue
        ratio = 1.0
        for j in range(ptr[i], ptr[i + 1]):
            x = dense[point_states[j]] / point_weights[j]
            if x < ratio:
                ratio = x
                if x == 0.0:
                    break
        if ratio > 0.0:
            corners = 0.0
            for j in range(ptr[i], ptr[i + 1]):
                corners += corner[point_states[j]] * point_weights[j]
            best = min(best, base + ratio * (value[i] - corners))
    for j in range(states.size):
        dense[states[j]] = 0.0
    return best


@njit(cache=True)
def useful_points(corner, ptr, point_states, point_weights, value, n_points, dense):  # type: ignore[no-untyped-def]
    """Return flags [n_points] of points that lie below what corners and the other points imply."""
    keep = np.ones(n_points, np.bool_)
    held = value[:n_points].copy()
    for i in range(n_points):
        held[i] = np.inf
        states, weights = point_states[ptr[i] : ptr[i + 1]], point_weights[ptr[i] : ptr[i + 1]]
        if sawtooth(corner, ptr, point_states, point_weights, held, n_points, dense, states, weights) <= value[i] + 1e-12:
            keep[i] = False
        else:
            held[i] = value[i]
    return keep


@njit(cache=True)
def predict(indptr, indices, data, n, a, states, weights, dense):  # type: ignore[no-untyped-def]
    """Return the distribution after action a as (states, weights), unnormalised where the episode may end."""
    found = np.empty(n, np.int64)
    count = 0
    for i in range(states.size):
        for j in range(indptr[a * n + states[i]], indptr[a * n + states[i] + 1]):
            t = indices[j]
            p = weights[i] * data[j]
            if p > 0.0:
                if dense[t] == 0.0:
                    found[count] = t
                    count += 1
                dense[t] += p
    out = np.empty(count)
    for i in range(count):
        out[i] = dense[found[i]]
        dense[found[i]] = 0.0
    return found[:count].copy(), out


@njit(cache=True)
def back_project(indptr, indices, data, observe, reward, discount, a, vectors, choice):  # type: ignore[no-untyped-def]
    """Return the vector [S] of taking a and then, on each observation o, following vector choice[o]."""
    n = reward.shape[0]
    n_obs = observe.shape[2]
    ahead = np.zeros(n)
    for t in range(n):
        for o in range(n_obs):
            ahead[t] += observe[a, t, o] * vectors[choice[o], t]
    out = np.empty(n)
    for s in range(n):
        x = 0.0
        for j in range(indptr[a * n + s], indptr[a * n + s + 1]):
            x += data[j] * ahead[indices[j]]
        out[s] = reward[s, a] + discount * x
    return out


@njit(cache=True)
def undominated(vectors, m):  # type: ignore[no-untyped-def]
    """Return flags [m] of vectors that no single other one covers everywhere."""
    keep = np.ones(m, np.bool_)
    for i in range(m):
        for j in range(m):
            if i != j and keep[j]:
                covers = True
                for s in range(vectors.shape[1]):
                    if vectors[j, s] < vectors[i, s] - 1e-12:
                        covers = False
                        break
                if covers:
                    keep[i] = False
                    break
    return keep
