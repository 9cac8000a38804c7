"""Greedy decoding without torch's overhead: the whole rollout of many path instances in one compiled function (Numba).

A rollout on one core is thousands of passes over a few dozen tokens, and there the bookkeeping of a general library
costs more than the arithmetic. Here rows of any lengths are laid one after another without padding; activations are
stored feature by feature ([C, T], T tokens), so that every product is one BLAS call and everything else is a loop over
contiguous tokens, which the compiler turns into vector instructions. Normalisation, ReZero factors and the distance
bias are folded into the matrices when the network is packed.

It takes the transformer and the Perceiver on TSP, CVRP, OP and KP in float32 on the CPU. The ATSP and other devices use
torch. Both paths agree within float32's rounding (tests/test_engine.py).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from attrs import frozen
from numba import njit
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from .baselines.tsp_local import _d

Floats = NDArray[np.float32]

PROBLEM = {"tsp": 0, "cvrp": 1, "op": 2, "kp": 3}
OP_TOLERANCE = 1e-6
KP_TOLERANCE = 1e-9
# Tokens in one pass: activations of the small network then stay in a core's second-level cache.
CHUNK = 512

# Sums may be reordered and products fused; infinities keep their meaning, because masks use them.
_FAST = {"reassoc", "contract", "arcp", "nsz"}
_F = np.float32
_LOG2E, _HALF, _LOWEST = _F(1.4426950408889634), _F(0.5), _F(-60.0)
_C1, _C2, _C3, _C4, _C5 = _F(0.69314718), _F(0.24022651), _F(0.05550411), _F(0.00961813), _F(0.00133336)
_ONE, _ZERO, _EPS = _F(1.0), _F(0.0), _F(1e-5)


_NONE = np.zeros((0, 0), np.float32)


@frozen(eq=False)
class Packed:
    """A network as arrays for the kernels. K layers, width C, inner width I = heads * head, feed-forward D.

    `w_in` [C, F + 1]; `ends` [2, C]; `w_qkv` [K, 3 I, C + X]; `w_out` [K, C, I]; `w_ff1` [K, D, C + 1]; `w_ff2`
    [K, C, D + 1]; `w_head` [A, C + 1]. The last column is the constant; X is 4 with a distance bias (x, y, minus the
    squared norm, one), else 1. With a Perceiver these are the layers of the latents, `w_token` is what is computed from
    tokens and `bridge` the latents [L, M], their questions [S, M], and the matrices behind both cross-attentions.
    """

    problem: str
    relative: bool
    normed: bool
    n_heads: int
    w_in: Floats
    ends: Floats
    w_qkv: Floats
    w_out: Floats
    w_ff1: Floats
    w_ff2: Floats
    w_head: Floats
    w_token: tuple[Floats, ...] = (_NONE, _NONE, _NONE, _NONE)
    bridge: tuple[Floats, ...] = (_NONE, _NONE, _NONE, _NONE)

    def arrays(self) -> tuple[Any, ...]:
        """What the kernels take."""
        return (
            self.normed, self.n_heads, self.w_in, self.ends, self.w_qkv, self.w_out, self.w_ff1, self.w_ff2, self.w_head,
            self.w_token, self.bridge,
        )  # fmt: skip


def pack(network: Any) -> Packed | None:
    """Fold a `BQNetwork` into arrays; None when this engine does not take it (see the module)."""
    c = network.config
    if c.problem not in PROBLEM or next(network.parameters()).device.type != "cpu":
        return None
    if c.kind == "perceiver":
        return _pack_perceiver(network)
    if (c.width // c.n_heads) % 4:
        return None
    state = {k: t.detach().double().numpy() for k, t in network.state_dict().items()}
    heads, size = c.n_heads, c.width // c.n_heads
    content = size - (3 if c.distance_bias else 0)
    extra = 4 if c.distance_bias else 1
    scale = 1.0 / np.sqrt(size) if c.scaled_attention else 1.0
    normed = c.norm == "pre"

    def affine(prefix: str) -> tuple[Any, Any]:
        if not normed:
            return np.ones(c.width), np.zeros(c.width)
        return state[f"{prefix}.weight"], state[f"{prefix}.bias"]

    qkv, out, first, second = [], [], [], []
    for k in range(c.n_layers):
        at = f"blocks.{k}."
        gain, shift = affine(at + "norms.0")
        alpha = state[at + "alpha"] if c.norm == "rezero" else np.ones(2)
        full = np.zeros((3, heads, size, c.width + extra))
        for which, (name, rows, factor) in enumerate(
            (("query", content, scale), ("key", content, 1.0), ("value", size, 1.0))
        ):
            w = state[f"{at}attention.{name}.weight"] * factor
            constant = w @ shift
            if name == "value":
                constant = constant + state[f"{at}attention.value.bias"]
            full[which, :, :rows, : c.width] = (w * gain).reshape(heads, rows, c.width)
            full[which, :, :rows, -1] = constant.reshape(heads, rows)
        if c.distance_bias:
            # -s |p_i - p_j|^2 without the part that is the same for all j: 2 s p_i.p_j - s |p_j|^2.
            slope = np.logaddexp(0.0, state[f"{at}attention.slope"])
            full[0, :, -3, c.width] = full[0, :, -2, c.width + 1] = 2.0 * slope
            full[0, :, -1, c.width + 3] = slope
            full[1, :, -3, c.width] = full[1, :, -2, c.width + 1] = full[1, :, -1, c.width + 2] = 1.0
        qkv.append(full.reshape(3 * c.width, -1))
        out.append(alpha[0] * state[at + "attention.out.weight"])
        gain, shift = affine(at + "norms.1")
        w = state[at + "inner.weight"]
        first.append(np.column_stack((w * gain, w @ shift + state[at + "inner.bias"])))
        second.append(alpha[1] * np.column_stack((state[at + "outer.weight"], state[at + "outer.bias"])))
    gain, shift = affine("norm")
    w = state["head.weight"]
    ends = state["ends"] if c.problem != "kp" else np.zeros((2, c.width))

    def f32(x: Any) -> Floats:
        return np.ascontiguousarray(x, dtype=np.float32)

    return Packed(
        c.problem, c.features == "relative", normed, heads, f32(np.column_stack((state["input.weight"], state["input.bias"]))),
        f32(ends), f32(np.stack(qkv)), f32(np.stack(out)), f32(np.stack(first)), f32(np.stack(second)),
        f32(np.column_stack((w * gain, w @ shift + state["head.bias"]))),
    )  # fmt: skip


def _pack_perceiver(network: Any) -> Packed | None:
    c = network.config
    if (c.width // c.latent_heads) % 4:
        return None
    state = {k: t.detach().double().numpy() for k, t in network.state_dict().items()}
    heads, size, width = c.latent_heads, c.latent_width // c.latent_heads, c.latent_width
    # Heads are filled up to a multiple of four features with zeros, which change neither products nor sums.
    full = -(-size // 4) * 4

    def behind(norm: str, *parts: tuple[Any, Any]) -> Any:
        """Matrices (and biases) behind one normalisation, the constant as the last column."""
        gain, shift = state[f"perceiver.{norm}.weight"], state[f"perceiver.{norm}.bias"]
        return np.concatenate([np.column_stack((w * gain, w @ shift + b)) for w, b in parts])

    def wide(w: Any) -> Any:
        return np.pad(w.reshape(heads, size, -1), ((0, 0), (0, full - size), (0, 0))).reshape(heads * full, -1)

    def get(name: str) -> Any:
        return state[f"perceiver.{name}"]

    scale, small = 1.0 / np.sqrt(c.width // heads), 1.0 / np.sqrt(size)
    qkv, out, first, second = [], [], [], []
    for k in range(c.n_layers):
        at = f"blocks.{k}."
        rows = behind(
            at + "norms.0", (get(at + "attention.query.weight") * small, 0.0), (get(at + "attention.key.weight"), 0.0),
            (get(at + "attention.value.weight"), get(at + "attention.value.bias")),
        )  # fmt: skip
        qkv.append(np.concatenate([wide(part) for part in np.split(rows, 3)]))
        w = get(at + "attention.out.weight").reshape(width, heads, size)
        out.append(np.pad(w, ((0, 0), (0, 0), (0, full - size))).reshape(width, -1))
        first.append(behind(at + "norms.1", (get(at + "inner.weight"), get(at + "inner.bias"))))
        second.append(np.column_stack((get(at + "outer.weight"), get(at + "outer.bias"))))
    latents = get("latents")
    spread = np.sqrt(latents.var(1, keepdims=True) + 1e-5)
    normal = (latents - latents.mean(1, keepdims=True)) / spread * get("norm_latents.weight") + get("norm_latents.bias")
    token = (
        behind("norm_in", (get("read.key.weight"), 0.0), (get("read.value.weight"), get("read.value.bias")),
               (get("write.query.weight") * scale, 0.0)),
        behind("norm_out", (get("write.key.weight"), 0.0), (get("write.value.weight"), get("write.value.bias"))),
        behind("norm_token", (get("inner.weight"), get("inner.bias"))),
        np.column_stack((get("outer.weight"), get("outer.bias"))),
    )  # fmt: skip
    bridge = (latents.T, (normal @ get("read.query.weight").T * scale).T, get("read.out.weight"), get("write.out.weight"))
    ends = state["ends"] if c.problem != "kp" else np.zeros((2, c.width))

    def f32(x: Any) -> Floats:
        return np.ascontiguousarray(x, dtype=np.float32)

    return Packed(
        c.problem, c.features == "relative", True, heads,
        f32(np.column_stack((state["input.weight"], state["input.bias"]))), f32(ends), f32(np.stack(qkv)),
        f32(np.stack(out)), f32(np.stack(first)), f32(np.stack(second)),
        f32(np.column_stack((state["head.weight"], state["head.bias"]))), tuple(f32(w) for w in token),
        tuple(f32(w) for w in bridge),
    )  # fmt: skip


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _normalise(x: Any, h: Any, normed: bool, mean: Any, var: Any) -> None:
    """The first C rows of `h` become the columns of `x` [C, T], centred and divided by their spread."""
    c, t = x.shape
    if not normed:
        for i in range(c):
            for j in range(t):
                h[i, j] = x[i, j]
        return
    share = _ONE / _F(c)
    for j in range(t):
        mean[j] = _ZERO
        var[j] = _ZERO
    for i in range(c):
        for j in range(t):
            mean[j] += x[i, j]
    for j in range(t):
        mean[j] *= share
    for i in range(c):
        for j in range(t):
            d = x[i, j] - mean[j]
            var[j] += d * d
    for j in range(t):
        var[j] = _ONE / np.sqrt(var[j] * share + _EPS)
    for i in range(c):
        for j in range(t):
            h[i, j] = (x[i, j] - mean[j]) * var[j]


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _softmax(s: Any, bits: Any, power: Any) -> Any:
    """Replace `s` by exp(s - max); returns 1 / sum. `bits` int32 and `power` float32 are the same memory.

    2^x = 2^whole * polynomial(x - whole), relative error below 3e-6; written so that the loops become vector code.
    Weights stop at 2^-60 of the largest: far smaller ones make products that are no normal numbers, which are slow.
    """
    n = s.size
    top = s[0]
    for j in range(n):
        top = max(top, s[j])
    for j in range(n):
        x = max((s[j] - top) * _LOG2E, _LOWEST)
        whole = np.floor(x + _HALF)
        f = x - whole
        bits[j] = (np.int32(whole) + np.int32(127)) << np.int32(23)
        s[j] = _ONE + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * _C5))))
    total = _ZERO
    for j in range(n):
        s[j] *= power[j]
        total += s[j]
    return _ONE / total


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _attend(
    q: Any, k: Any, v: Any, out: Any, first: int, last: int, off: int, n: int, n_heads: int, s: Any, bits: Any, power: Any
) -> None:
    """Softmax attention of the queries at columns first..last of `q` [I, T'] to the n keys and values at column off of
    `k`, `v` [I, T]; the result is in the queries' columns of `out` [I, T'].

    Four queries and four features at a time, so that every key and value that is loaded serves sixteen products.
    `s` [4, >= n], `bits`, `power` [>= n]: scratch. Slices, not offsets, because negative indices forbid vector code.
    """
    head = q.shape[0] // n_heads
    s0, s1, s2, s3 = s[0, :n], s[1, :n], s[2, :n], s[3, :n]
    some_bits, some_power = bits[:n], power[:n]
    end = off + n
    for h in range(n_heads):
        q0 = h * head
        for i in range(first, last, 4):
            # The last block may hold fewer than four queries: the last one is then repeated.
            i1, i2, i3 = min(i + 1, last - 1), min(i + 2, last - 1), min(i + 3, last - 1)
            for d in range(0, head, 4):
                ka, kb, kc, kd = (
                    k[q0 + d, off:end], k[q0 + d + 1, off:end], k[q0 + d + 2, off:end], k[q0 + d + 3, off:end]
                )  # fmt: skip
                qa, qb, qc, qd = q[q0 + d], q[q0 + d + 1], q[q0 + d + 2], q[q0 + d + 3]
                a0, b0, c0, d0 = qa[i], qb[i], qc[i], qd[i]
                a1, b1, c1, d1 = qa[i1], qb[i1], qc[i1], qd[i1]
                a2, b2, c2, d2 = qa[i2], qb[i2], qc[i2], qd[i2]
                a3, b3, c3, d3 = qa[i3], qb[i3], qc[i3], qd[i3]
                if d == 0:
                    for j in range(n):
                        s0[j] = a0 * ka[j] + b0 * kb[j] + c0 * kc[j] + d0 * kd[j]
                        s1[j] = a1 * ka[j] + b1 * kb[j] + c1 * kc[j] + d1 * kd[j]
                        s2[j] = a2 * ka[j] + b2 * kb[j] + c2 * kc[j] + d2 * kd[j]
                        s3[j] = a3 * ka[j] + b3 * kb[j] + c3 * kc[j] + d3 * kd[j]
                else:
                    for j in range(n):
                        s0[j] += a0 * ka[j] + b0 * kb[j] + c0 * kc[j] + d0 * kd[j]
                        s1[j] += a1 * ka[j] + b1 * kb[j] + c1 * kc[j] + d1 * kd[j]
                        s2[j] += a2 * ka[j] + b2 * kb[j] + c2 * kc[j] + d2 * kd[j]
                        s3[j] += a3 * ka[j] + b3 * kb[j] + c3 * kc[j] + d3 * kd[j]
            w0 = _softmax(s0, some_bits, some_power)
            w1 = _softmax(s1, some_bits, some_power)
            w2 = _softmax(s2, some_bits, some_power)
            w3 = _softmax(s3, some_bits, some_power)
            for d in range(0, head, 2):
                va, vb = v[q0 + d, off:end], v[q0 + d + 1, off:end]
                a0, a1, a2, a3, b0, b1, b2, b3 = _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
                for j in range(n):
                    x, y = va[j], vb[j]
                    p0, p1, p2, p3 = s0[j], s1[j], s2[j], s3[j]
                    a0 += p0 * x
                    b0 += p0 * y
                    a1 += p1 * x
                    b1 += p1 * y
                    a2 += p2 * x
                    b2 += p2 * y
                    a3 += p3 * x
                    b3 += p3 * y
                oa, ob = out[q0 + d], out[q0 + d + 1]
                oa[i], ob[i] = a0 * w0, b0 * w0
                oa[i1], ob[i1] = a1 * w1, b1 * w1
                oa[i2], ob[i2] = a2 * w2, b2 * w2
                oa[i3], ob[i3] = a3 * w3, b3 * w3


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _add(x: Any, y: Any) -> None:
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            x[i, j] += y[i, j]


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _feed_forward(x: Any, g: Any, hidden: Any, y: Any, w1: Any, w2: Any) -> None:
    """x += w2 relu(w1 g), the constants in the last rows of `g` and `hidden`."""
    d = w1.shape[0]
    up = hidden[:d]
    np.dot(w1, g, up)
    for i in range(d):
        for j in range(x.shape[1]):
            up[i, j] = max(up[i, j], _ZERO)
    hidden[d] = _ONE
    np.dot(w2, hidden, y)
    _add(x, y)


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _forward_perceiver(net: Any, feat: Any, off: Any, length: Any, has_ends: bool, logits: Any) -> None:
    """As `_forward`, for the Perceiver: the latents of all rows lie side by side as M columns each.

    What tokens say to the latents and ask of them comes from one product; what the latents ask of the tokens is the
    same in every pass and was computed when the network was packed.
    """
    _, n_heads, w_in, ends, w_qkv, w_out, w_ff1, w_ff2, w_head, w_token, bridge = net
    latents, asked, w_read, w_write = bridge
    w_kvq, w_tell, w_up, w_down = w_token
    n_rows, t = off.size, feat.shape[1]
    c, m, width = w_in.shape[0], latents.shape[1], latents.shape[0]
    x = np.dot(w_in, feat)
    if has_ends:
        for r in range(n_rows):
            for i in range(c):
                x[i, off[r]] += ends[0, i]
                x[i, off[r] + 1] += ends[1, i]
    total = m * n_rows
    longest = m
    for r in range(n_rows):
        longest = max(longest, length[r])
    s = np.empty((4, longest), np.float32)
    bits = np.empty(longest, np.int32)
    power = bits.view(np.float32)
    mean, var = np.empty(max(t, total), np.float32), np.empty(max(t, total), np.float32)
    g = np.empty((c + 1, t), np.float32)
    g[c] = _ONE
    _normalise(x, g, True, mean, var)
    kvq = np.dot(w_kvq, g)
    size = w_read.shape[1]
    lat = np.empty((width, total), np.float32)
    mixed = np.empty((size, total), np.float32)
    some = np.empty((size, m), np.float32)
    for r in range(n_rows):
        _attend(asked, kvq[:size], kvq[size : 2 * size], some, 0, m, off[r], length[r], n_heads, s, bits, power)
        for i in range(size):
            for j in range(m):
                mixed[i, r * m + j] = some[i, j]
        for i in range(width):
            for j in range(m):
                lat[i, r * m + j] = latents[i, j]
    y = np.dot(w_read, mixed)
    _add(lat, y)
    g2 = np.empty((width + 1, total), np.float32)
    g2[width] = _ONE
    inner = w_qkv.shape[1] // 3
    qkv = np.empty((3 * inner, total), np.float32)
    own = np.empty((inner, total), np.float32)
    hidden = np.empty((w_ff1.shape[1] + 1, total), np.float32)
    for k in range(w_qkv.shape[0]):
        _normalise(lat, g2, True, mean, var)
        np.dot(w_qkv[k], g2, qkv)
        for r in range(n_rows):
            _attend(qkv[:inner], qkv[inner : 2 * inner], qkv[2 * inner :], own, r * m, r * m + m, r * m, m, n_heads, s, bits,
                    power)  # fmt: skip
        np.dot(w_out[k], own, y)
        _add(lat, y)
        _normalise(lat, g2, True, mean, var)
        _feed_forward(lat, g2, hidden, y, w_ff1[k], w_ff2[k])
    _normalise(lat, g2, True, mean, var)
    told = np.dot(w_tell, g2)
    back = np.empty((size, t), np.float32)
    for r in range(n_rows):
        _attend(kvq[2 * size :], told[:size], told[size:], back, off[r], off[r] + length[r], r * m, m, n_heads, s, bits,
                power)  # fmt: skip
    y2 = np.dot(w_write, back)
    _add(x, y2)
    _normalise(x, g, True, mean, var)
    _feed_forward(x, g, np.empty((w_up.shape[0] + 1, t), np.float32), y2, w_up, w_down)
    for i in range(c):
        for j in range(t):
            g[i, j] = x[i, j]
    np.dot(w_head, g, logits)


@njit(cache=True, fastmath=_FAST, error_model="numpy")
def _forward(net: Any, feat: Any, place: Any, off: Any, length: Any, has_ends: bool, logits: Any) -> None:
    """Logits [A, T] of rows laid one after another. `feat` [F + 1, T] (last row ones), `place` [X, T], `off` and
    `length` [R]: where each row begins and how many tokens it has.
    """
    normed, n_heads, w_in, ends, w_qkv, w_out, w_ff1, w_ff2, w_head, _w_token, bridge = net
    if bridge[0].shape[0] > 0:
        _forward_perceiver(net, feat, off, length, has_ends, logits)
        return
    inner = w_qkv.shape[1] // 3
    t = feat.shape[1]
    c = w_in.shape[0]
    n_place = place.shape[0]
    x = np.dot(w_in, feat)
    if has_ends:
        for r in range(off.size):
            for i in range(c):
                x[i, off[r]] += ends[0, i]
                x[i, off[r] + 1] += ends[1, i]
    h = np.empty((c + n_place, t), np.float32)
    for i in range(n_place):
        h[c + i] = place[i]
    g = np.empty((c + 1, t), np.float32)
    g[c] = _ONE
    d = w_ff1.shape[1]
    hidden = np.empty((d + 1, t), np.float32)
    mean, var = np.empty(t, np.float32), np.empty(t, np.float32)
    longest = 1
    for r in range(off.size):
        longest = max(longest, length[r])
    s = np.empty((4, longest), np.float32)
    bits = np.empty(longest, np.int32)
    power = bits.view(np.float32)
    qkv = np.empty((w_qkv.shape[1], t), np.float32)
    mixed = np.empty((w_out.shape[2], t), np.float32)
    y = np.empty((c, t), np.float32)
    for k in range(w_qkv.shape[0]):
        _normalise(x, h, normed, mean, var)
        np.dot(w_qkv[k], h, qkv)
        for r in range(off.size):
            end = off[r] + length[r]
            _attend(qkv[:inner], qkv[inner : 2 * inner], qkv[2 * inner :], mixed, off[r], end, off[r], length[r], n_heads,
                    s, bits, power)  # fmt: skip
        np.dot(w_out[k], mixed, y)
        _add(x, y)
        _normalise(x, g, normed, mean, var)
        _feed_forward(x, g, hidden, y, w_ff1[k], w_ff2[k])
    _normalise(x, g, normed, mean, var)
    np.dot(w_head, g, logits)


@njit(cache=True, error_model="numpy")
def _features(
    problem: int, relative: bool, with_place: bool, plane: Any, unit: float, demand: Any, capacity: float, worth: Any,
    weight: Any, left: float, sym: int, nodes: Any, n: int, off: int, feat: Any, place: Any,
) -> None:  # fmt: skip
    """Fill columns off..off + n of `feat` and `place` for one row; `nodes` [n]: ends first (not for KP).

    The same numbers as `features.py` computes for torch, in float64 until they are stored.
    """
    last = feat.shape[0] - 1
    for t in range(n):
        feat[last, off + t] = 1.0
        place[place.shape[0] - 1, off + t] = 1.0
    if problem == 3:
        top, best, total = 1e-12, 1e-12, 0.0
        heaviest = 1e-12
        for t in range(n):
            v = nodes[t]
            top = max(top, worth[v])
            heaviest = max(heaviest, weight[v])
            best = max(best, worth[v] / max(weight[v], 1e-9))
            total += weight[v]
        room = max(left, 1e-12)
        # The fractional relaxation, as `features._relaxation`: densities in float32, so that ties are the same ties.
        dense = np.empty(n, np.float32)
        for t in range(n):
            v = nodes[t]
            dense[t] = np.float32(worth[v]) / max(np.float32(weight[v]), np.float32(1e-9))
        order = np.argsort(-dense)
        fill = np.empty(n, np.float64)
        price, packed, denser = 0.0, 0.0, 0.0
        for i in range(n):
            t = order[i]
            if i == 0 or dense[t] < dense[order[i - 1]]:
                denser = packed
            fill[t] = denser
            packed += np.float64(np.float32(weight[nodes[t]]))
            if price == 0.0 and packed > np.float64(np.float32(left)) + 1e-9:
                price = dense[t]
        for t in range(n):
            v = nodes[t]
            feat[0, off + t] = worth[v] / top
            if not relative:
                feat[1, off + t] = weight[v] / heaviest
                feat[2, off + t] = left / heaviest
                continue
            density = worth[v] / max(weight[v], 1e-9) / best
            feat[1, off + t] = min(weight[v] / room, 4.0)
            feat[2, off + t] = density
            feat[3, off + t] = np.sqrt(density)
            feat[4, off + t] = min(room / max(total, 1e-9), 4.0)
            feat[5, off + t] = min(fill[t] / room, 2.0)
            feat[6, off + t] = 4.0 * (worth[v] - price * weight[v]) / top
        return
    xy = np.empty((n, 2), np.float64)
    low0, low1, high0, high1 = np.inf, np.inf, -np.inf, -np.inf
    for t in range(n):
        a, b = plane[nodes[t], 0] - 0.5, plane[nodes[t], 1] - 0.5
        if sym & 1:
            a, b = b, a
        if sym & 2:
            a = -a
        if sym & 4:
            b = -b
        xy[t, 0], xy[t, 1] = a + 0.5, b + 0.5
        low0, high0 = min(low0, xy[t, 0]), max(high0, xy[t, 0])
        low1, high1 = min(low1, xy[t, 1]), max(high1, xy[t, 1])
    scale = max(high0 - low0, high1 - low1)
    if not scale > 0.0:
        scale = 1.0
    root = np.sqrt(float(n))
    box = np.empty((n, 2), np.float64)
    for t in range(n):
        box[t, 0] = (xy[t, 0] - 0.5 * (low0 + high0)) / scale
        box[t, 1] = (xy[t, 1] - 0.5 * (low1 + high1)) / scale
        if with_place:
            p0, p1 = box[t, 0] * root, box[t, 1] * root
            place[0, off + t], place[1, off + t] = p0, p1
            place[2, off + t] = -(p0 * p0 + p1 * p1)
    top = 1e-9
    if problem == 2:
        for t in range(2, n):
            top = max(top, worth[nodes[t]])
    room = left / capacity if problem == 1 else left / unit
    for t in range(n):
        at = 2
        if relative:
            feat[0, off + t], feat[1, off + t] = box[t, 0], box[t, 1]
            u0, u1 = box[t, 0] - box[0, 0], box[t, 1] - box[0, 1]
            w0, w1 = box[t, 0] - box[1, 0], box[t, 1] - box[1, 1]
            near, far = np.sqrt(u0 * u0 + u1 * u1), np.sqrt(w0 * w0 + w1 * w1)
            feat[2, off + t], feat[3, off + t], feat[4, off + t] = u0, u1, near
            feat[5, off + t], feat[6, off + t], feat[7, off + t] = w0, w1, far
            feat[8, off + t] = np.log(float(n)) / 5.0
            at = 9
        else:
            feat[0, off + t], feat[1, off + t] = xy[t, 0], xy[t, 1]
        if problem == 1:
            q = 0.0 if t < 2 else demand[nodes[t]] / capacity
            feat[at, off + t], feat[at + 1, off + t] = q, room
            if relative:
                feat[at + 2, off + t] = 1.0 if np.float32(q) <= np.float32(room) + np.float32(1e-6) else 0.0
        elif problem == 2:
            prize = 0.0 if t < 2 else worth[nodes[t]]
            if relative:
                feat[at, off + t] = prize / top
                feat[at + 1, off + t] = room / scale
                feat[at + 2, off + t] = room / scale - near - far
            else:
                feat[at, off + t], feat[at + 1, off + t] = prize, room


@njit(cache=True, error_model="numpy")
def _usable(
    problem: int, metric: Any, demand: Any, capacity: float, weight: Any, origin: int, dest: int, left: float, rem: Any,
    count: int, slots: Any,
) -> int:  # fmt: skip
    """Write the slots of nodes with a feasible option to `slots`; returns how many."""
    n = 0
    for w in range(count):
        v = rem[w]
        fits = True
        if problem == 1:
            fits = demand[v] <= capacity
        elif problem == 2:
            fits = _d(metric, origin, v) + _d(metric, v, dest) <= left + OP_TOLERANCE
        elif problem == 3:
            fits = weight[v] <= left + KP_TOLERANCE
        if fits:
            slots[n] = w
            n += 1
    return n


@njit(cache=True, error_model="numpy")
def _preferred(problem: int, metric: Any, worth: Any, weight: Any, origin: int, rem: Any, slots: Any, n: int,
               limit: int) -> None:  # fmt: skip
    """Put the `limit` preferred of `slots[:n]` first (see `Environment.preference`)."""
    key = np.empty(n, np.float64)
    for t in range(n):
        v = rem[slots[t]]
        key[t] = -worth[v] / max(weight[v], 1e-12) if problem == 3 else _d(metric, origin, v)
    order = np.argsort(key, kind="mergesort")
    if problem == 2:
        rank = np.empty(n, np.float64)
        for i in range(n):
            rank[order[i]] = i
        for t in range(n):
            key[t] = -worth[rem[slots[t]]]
        rich = np.argsort(key, kind="mergesort")
        for i in range(n):
            rank[rich[i]] = min(rank[rich[i]], i)
        order = np.argsort(rank, kind="mergesort")
    kept = slots[:n].copy()
    for t in range(min(limit, n)):
        slots[t] = kept[order[t]]


@njit(cache=True, error_model="numpy")
def _greedy(
    problem: int, relative: bool, net: Any, kind: int, exact: Any, matrix: Any, plane: Any, unit: Any, demand: Any,
    capacity: Any, worth: Any, weight: Any, inst: Any, origin: Any, dest: Any, rem: Any, count: Any, left: Any, sym: Any,
    done: Any, limit: int, chunk: int, nodes: Any, flags: Any, logp: Any,
) -> Any:  # fmt: skip
    """Roll all rows out; `origin`, `rem`, `count`, `left` are used up. Returns calls of the network and tokens seen."""
    n_rows = inst.size
    n_ends = 0 if problem == 3 else 2
    n_options = 2 if problem == 1 else 1
    w_in, w_qkv = net[2], net[4]
    n_place = 1 if net[10][0].shape[0] > 0 else w_qkv.shape[2] - w_in.shape[0]
    n_feat = w_in.shape[1]
    live = np.empty(n_rows, np.int64)
    n_live = 0
    for r in range(n_rows):
        if not done[r]:
            live[n_live] = r
            n_live += 1
    at = np.zeros(n_rows, np.int64)
    widest = rem.shape[1]
    slots = np.empty((n_rows, max(widest, 1)), np.int64)
    many = np.empty(n_rows, np.int64)
    off = np.empty(n_rows, np.int64)
    length = np.empty(n_rows, np.int64)
    ids = np.empty(n_ends + max(widest, 1), np.int64)
    n_calls = 0
    n_tokens = 0
    while n_live > 0:
        first = 0
        while first < n_live:
            # Rows first..last - 1 go through the network together.
            last = first
            t = 0
            while last < n_live:
                r = live[last]
                b = inst[r]
                metric = (kind, exact[b], matrix[b])
                m = _usable(problem, metric, demand[b], capacity[b], weight[b], origin[r], dest[r], left[r], rem[r],
                            count[r], slots[r])  # fmt: skip
                if limit > 0 and m > limit:
                    _preferred(problem, metric, worth[b], weight[b], origin[r], rem[r], slots[r], m, limit)
                    m = limit
                size = m + n_ends
                if m == 1 and n_options == 1:
                    # One option has probability one: the network need not be asked.
                    size = 0
                if t > 0 and t + size > chunk:
                    break
                many[r] = m
                off[r] = t
                length[r] = size
                t += size
                last += 1
            logits = np.empty((n_options, t), np.float32)
            if t > 0:
                feat = np.zeros((n_feat, t), np.float32)
                place = np.zeros((n_place, t), np.float32)
                n_in = 0
                offs = np.empty(last - first, np.int64)
                lens = np.empty(last - first, np.int64)
                for i in range(first, last):
                    r = live[i]
                    if length[r] == 0:
                        continue
                    b = inst[r]
                    if n_ends:
                        ids[0], ids[1] = origin[r], dest[r]
                    for w in range(many[r]):
                        ids[n_ends + w] = rem[r, slots[r, w]]
                    _features(problem, relative, n_place == 4, plane[b], unit[b], demand[b], capacity[b], worth[b],
                              weight[b], left[r], sym[r], ids, length[r], off[r], feat, place)  # fmt: skip
                    offs[n_in] = off[r]
                    lens[n_in] = length[r]
                    n_in += 1
                _forward(net, feat, place, offs[:n_in], lens[:n_in], n_ends > 0, logits)
                n_calls += 1
                n_tokens += t
            for i in range(first, last):
                r = live[i]
                b = inst[r]
                best, flag, pick = -np.inf, 0, 0
                if length[r] == 0:
                    pick = 0
                else:
                    start = off[r] + n_ends
                    for w in range(many[r]):
                        v = rem[r, slots[r, w]]
                        for a in range(n_options):
                            if problem == 1 and a == 0 and (origin[r] == 0 or demand[b, v] > left[r]):
                                continue
                            if logits[a, start + w] > best:
                                best, pick, flag = logits[a, start + w], w, a
                    total = 0.0
                    for w in range(many[r]):
                        v = rem[r, slots[r, w]]
                        for a in range(n_options):
                            if problem == 1 and a == 0 and (origin[r] == 0 or demand[b, v] > left[r]):
                                continue
                            total += np.exp(float(logits[a, start + w]) - best)
                    logp[r] -= np.log(total)
                slot = slots[r, pick]
                v = rem[r, slot]
                nodes[r, at[r]] = v
                flags[r, at[r]] = flag
                at[r] += 1
                if problem == 1:
                    left[r] = (capacity[b] if flag else left[r]) - demand[b, v]
                elif problem == 2:
                    left[r] -= _d((kind, exact[b], matrix[b]), origin[r], v)
                elif problem == 3:
                    left[r] -= weight[b, v]
                if problem != 3:
                    origin[r] = v
                count[r] -= 1
                rem[r, slot] = rem[r, count[r]]
            first = last
        kept = 0
        for i in range(n_live):
            r = live[i]
            going = count[r] > 0
            if going and problem >= 2:
                b = inst[r]
                metric = (kind, exact[b], matrix[b])
                going = _usable(problem, metric, demand[b], capacity[b], weight[b], origin[r], dest[r], left[r],
                                    rem[r], count[r], slots[r]) > 0  # fmt: skip
            if going:
                live[kept] = r
                kept += 1
        n_live = kept
    return n_calls, n_tokens


@njit(cache=True, error_model="numpy")
def _score(
    problem: int, relative: bool, net: Any, plane: Any, unit: Any, demand: Any, capacity: Any, worth: Any, weight: Any,
    inst: Any, origin: Any, dest: Any, rem: Any, left: Any, sym: Any, slots: Any, many: Any, chunk: int, logits: Any,
) -> int:  # fmt: skip
    """Logits [R, K, A] of the first `many` [R] of `slots` [R, K] in each row; the rest is left as it is."""
    n_ends = 0 if problem == 3 else 2
    n_place = 1 if net[10][0].shape[0] > 0 else net[4].shape[2] - net[2].shape[0]
    n_feat = net[2].shape[1]
    n_options = logits.shape[2]
    ids = np.empty(n_ends + max(slots.shape[1], 1), np.int64)
    n_calls = 0
    first = 0
    while first < inst.size:
        last, t = first, 0
        while last < inst.size and (t == 0 or t + many[last] + n_ends <= chunk):
            t += many[last] + n_ends
            last += 1
        feat = np.zeros((n_feat, t), np.float32)
        place = np.zeros((n_place, t), np.float32)
        out = np.empty((n_options, t), np.float32)
        off = np.empty(last - first, np.int64)
        length = np.empty(last - first, np.int64)
        t = 0
        for r in range(first, last):
            b = inst[r]
            if n_ends:
                ids[0], ids[1] = origin[r], dest[r]
            for w in range(many[r]):
                ids[n_ends + w] = rem[r, slots[r, w]]
            off[r - first], length[r - first] = t, many[r] + n_ends
            _features(problem, relative, n_place == 4, plane[b], unit[b], demand[b], capacity[b], worth[b], weight[b],
                      left[r], sym[r], ids, many[r] + n_ends, t, feat, place)  # fmt: skip
            t += many[r] + n_ends
        _forward(net, feat, place, off, length, n_ends > 0, out)
        n_calls += 1
        for r in range(first, last):
            start = off[r - first] + n_ends
            for w in range(many[r]):
                for a in range(n_options):
                    logits[r, w, a] = out[a, start + w]
        first = last
    return n_calls


@frozen(eq=False)
class World:
    """The instances of an environment as the kernels take them; unused arrays have one column."""

    arrays: tuple[Any, ...]

    @classmethod
    def of(cls, env: Any) -> World:
        """Views of the environment's own tensors; nothing is copied but what is float32 there."""
        kinds = {"euclid": 1, "nint": 2, "ceil": 3}
        batch = env.batch
        none2 = np.zeros((batch, 1))
        exact, matrix, plane = np.zeros((batch, 1, 2)), np.zeros((batch, 1, 1)), np.zeros((batch, 1, 2))
        kind, unit, capacity = 1, np.ones(batch), np.ones(batch)
        demand = worth = weight = none2
        if env.problem != "kp":
            exact, plane, unit = env.xy.numpy(), env.plane.double().numpy(), env.unit.numpy()
            kind = kinds[env.rounding]
            if env.matrix is not None:
                kind, matrix = 0, env.matrix.numpy()
        if env.problem == "cvrp":
            demand, capacity = env.demand.numpy(), env.capacity.numpy()
        elif env.problem == "op":
            worth = env.prize.numpy()
        elif env.problem == "kp":
            worth, weight = env.value.numpy(), env.weight.numpy()
        arrays = (exact, matrix, plane, unit, demand, capacity, worth, weight)
        return cls((kind, *(np.ascontiguousarray(a) for a in arrays)))


@lru_cache(maxsize=1)
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


@frozen(eq=False)
class Engine:
    """A packed network that rolls out and scores states (see `env.State`) of its problem."""

    packed: Packed
    chunk: int = CHUNK

    def rollout(self, world: World, state: Any, limit: int) -> tuple[Any, ...]:
        """Take the best option in every row of `state` until its end; `limit`: most nodes seen (0: all).

        Returns `nodes` int64 [R, T] (-1 after the end), `flags` int64 [R, T], `logp` float64 [R], calls, tokens.
        """
        n_rows, horizon = len(state), int(state.count.max()) if len(state) else 0
        nodes = np.full((n_rows, horizon), -1, np.int64)
        flags = np.zeros((n_rows, horizon), np.int64)
        logp = np.zeros(n_rows)
        # Products of this size on several BLAS threads lose more to waiting than they gain.
        with _pools().limit(limits=1, user_api="blas"):
            calls, tokens = _greedy(  # type: ignore[call-arg]
                PROBLEM[self.packed.problem], self.packed.relative, self.packed.arrays(), *world.arrays,
                _flat(state.inst), _flat(state.origin).copy(), _flat(state.dest), _flat(state.rem).copy(),
                _flat(state.count).copy(), _flat(state.left).copy(), _flat(state.sym), _flat(state.done), limit,
                self.chunk, nodes, flags, logp,
            )  # fmt: skip
        return nodes, flags, logp, int(calls), int(tokens)

    def score(self, world: World, state: Any, slots: Any, valid: Any) -> tuple[Any, int]:
        """Logits float32 [R, K, A] over `slots` [R, K], real ones first (`valid`); and the calls made."""
        n_options = self.packed.w_head.shape[0]
        logits = np.zeros((*slots.shape, n_options), np.float32)
        with _pools().limit(limits=1, user_api="blas"):
            calls = _score(  # type: ignore[call-arg]
                PROBLEM[self.packed.problem], self.packed.relative, self.packed.arrays(), *world.arrays[3:],
                _flat(state.inst), _flat(state.origin), _flat(state.dest), _flat(state.rem), _flat(state.left),
                _flat(state.sym), _flat(slots), _flat(valid.sum(1)), self.chunk, logits,
            )  # fmt: skip
        return logits, int(calls)


def _flat(x: Any) -> Any:
    """A contiguous array: other strides would be compiled for anew."""
    return np.ascontiguousarray(x.numpy())
