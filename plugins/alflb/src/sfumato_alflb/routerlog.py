"""A router log: what a model's routers did in training, kept in one file that `diagnose` reads.

The file is an .npz of plain arrays, so that other frameworks can write it too: `layers` (names [n_layers]), `k`
(int [n_layers]), `updates` (int [n], numbers of the updates kept), and for layer i `counts_i` (int [n, E], loads
summed over ranks), `biases_i` (float [n, E], after the update) and, where a batch was sampled, `scores_i`
(float [T, E]) with `bias_i` (float [E], the bias that routed it).

Writing needs a torch model, reading does not need torch.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from .errors import ArgumentError
from .problem import Floats, Ints, checked_bias, checked_count, checked_k, max_vio
from .scorefiles import load_npz

if TYPE_CHECKING:
    from torch import Tensor

    from .balancer import Balancer


@attrs.frozen(eq=False)
class LayerLog:
    """One layer of a log; arrays as in the module's description, `scores` and `bias` None where none was sampled."""

    name: str
    k: int
    updates: Ints
    counts: Ints
    biases: Floats
    scores: Floats | None = None
    bias: Floats | None = None

    @property
    def vio(self) -> Floats:
        """MaxVio [n] of each kept update."""
        return np.array([max_vio(row) for row in self.counts])

    def summary(self) -> dict[str, Any]:
        """Return the figures of `log_lines`, for a program. First and last are tenths of the kept updates."""
        part, vio = max(1, len(self.updates) // 10), self.vio
        last = self.biases[-part:]
        return {
            "name": self.name, "n_experts": self.counts.shape[1], "k": self.k, "n_updates": len(self.updates),
            "max_vio_first": float(vio[:part].mean()), "max_vio_last": float(vio[-part:].mean()),
            "max_vio_last_sum": max_vio(self.counts[-part:].sum(axis=0)),
            "max_abs_bias": float(np.abs(last[-1]).max()),
            "bias_change_last": float(np.abs(last[-1] - last[0]).max()), "n_sampled": 0 if self.scores is None else len(self.scores),
        }  # fmt: skip


class RouterLog:
    """Keep counts, biases and a sample of scores of every router of a `Balancer`, and save them.

        log = RouterLog(balancer, every=10)
        ...                                  # train
        log.save("router-log.npz")           # then: sfumato alflb diagnose router-log.npz

    every: updates from one kept row to the next; keeping one reads it back from the device. tokens: the most
    tokens of the last batch before a kept update whose scores are kept, evenly spaced and without padding; 0 for
    none. Of a batch spread over ranks that is this rank's part, while counts are those of all ranks. Scores are
    sampled from `BiasRouter` and from attached routers whose choice `attach` makes; not in a compiled graph, and
    not from routers that add a bias of their own.
    """

    def __init__(self, balancer: Balancer, *, every: int = 1, tokens: int = 4096) -> None:
        self.every = checked_count(every, "every")
        self.tokens = checked_count(tokens, "tokens", least=0)
        self._balancer = balancer
        n = len(balancer.states)
        self._updates: list[int] = []
        self._counts: list[list[Any]] = [[] for _ in range(n)]
        self._biases: list[list[Any]] = [[] for _ in range(n)]
        self._samples: dict[int, tuple[Any, Any]] = {}
        self._n_updates = 0
        balancer.observers.append(self._keep)
        if self.tokens:
            for i, state in enumerate(balancer.states):
                state.on_scores = partial(self._sample, i)

    def close(self) -> None:
        """Keep nothing more; what was kept can still be saved."""
        if self._keep in self._balancer.observers:
            self._balancer.observers.remove(self._keep)
        for state in self._balancer.states:
            state.on_scores = None

    def _keep(self) -> None:
        self._n_updates += 1
        if self._n_updates % self.every:
            return
        self._updates.append(self._n_updates)
        for i, (state, counts) in enumerate(
            zip(self._balancer.states, self._balancer.last_counts, strict=True)
        ):
            self._counts[i].append(counts.detach().cpu().numpy().copy())
            self._biases[i].append(_plain(state.bias))

    def _sample(self, layer: int, scores: Tensor, mask: Tensor | None) -> None:
        if (self._n_updates + 1) % self.every:
            return
        rows = scores.detach().reshape(-1, scores.shape[-1])
        if mask is not None:
            rows = rows[mask.reshape(-1)]
        n = rows.shape[0]
        if n > self.tokens:
            rows = rows[[i * n // self.tokens for i in range(self.tokens)]]
        if n:
            self._samples[layer] = (
                rows.float().cpu().numpy().copy(),
                _plain(self._balancer.states[layer].bias),
            )

    def save(self, path: str | Path) -> Path:
        """Write the log; return the path, which ends in .npz. Raises ArgumentError before the first kept update."""
        if not self._updates:
            raise ArgumentError("log", f"at least {self.every} update(s) of the balancer", "none kept so far")
        arrays: dict[str, Any] = {
            "layers": np.array(self._balancer.names),
            "k": np.array([state.k for state in self._balancer.states]),
            "updates": np.array(self._updates),
        }
        for i in range(len(self._balancer.states)):
            arrays[f"counts_{i}"] = np.array(self._counts[i])
            arrays[f"biases_{i}"] = np.array(self._biases[i])
            if i in self._samples:
                arrays[f"scores_{i}"], arrays[f"bias_{i}"] = self._samples[i]
        place = Path(path)
        place = place if place.suffix == ".npz" else place.with_name(place.name + ".npz")
        np.savez_compressed(place, **arrays)
        return place


def _plain(bias: Tensor) -> Any:
    whole = bias.to_local() if hasattr(bias, "to_local") else bias
    return whole.detach().reshape(-1).float().cpu().numpy().copy()


def load_router_log(path: str | Path) -> list[LayerLog] | None:
    """Read a log; return its layers, or None when the file is no router log (no array `layers`).

    Raises ArgumentError for a log whose arrays do not fit together.
    """
    arrays = load_npz(path)
    if arrays is None or "layers" not in arrays:
        return None
    names = [str(name) for name in arrays["layers"].ravel()]
    layers = []
    for i, name in enumerate(names):
        missing = [key for key in ("k", "updates", f"counts_{i}", f"biases_{i}") if key not in arrays]
        if missing:
            raise ArgumentError("path", f"a router log with {', '.join(missing)}", f"{path} without")
        updates, counts, biases = arrays["updates"], arrays[f"counts_{i}"], arrays[f"biases_{i}"]
        n_rows = updates.size
        fits = counts.ndim == 2 and counts.shape == biases.shape and len(counts) == n_rows and n_rows
        if not fits or len(arrays["k"]) != len(names) or counts.dtype.kind not in "iu" or (counts < 0).any():
            raise ArgumentError(
                "path", f"counts_{i} (int) and biases_{i} of one shape [{n_rows}, E], and k of each layer",
                f"{counts.dtype} {counts.shape}, {biases.shape}, and {len(arrays['k'])} k for {len(names)} layers",
            )  # fmt: skip
        k = checked_k(int(arrays["k"][i]), counts.shape[1])
        scores = arrays.get(f"scores_{i}")
        bias = arrays.get(f"bias_{i}")
        if scores is not None and (scores.ndim != 2 or scores.shape[1] != counts.shape[1]):
            raise ArgumentError(f"scores_{i}", f"shape [T, {counts.shape[1]}]", f"{scores.shape}")
        layers.append(
            LayerLog(
                name, k, updates.astype(np.int64), counts.astype(np.int64), biases.astype(np.float64),
                None if scores is None else scores.astype(np.float64),
                None if bias is None else checked_bias(bias, counts.shape[1], f"bias_{i}"),
            )
        )  # fmt: skip
    return layers


def log_lines(layers: list[LayerLog]) -> list[str]:
    """Return a log as a table, one line a layer."""
    updates = layers[0].updates
    part = max(1, len(updates) // 10)
    width = max(5, *(len(layer.name) for layer in layers))
    text = [
        f"router log: {len(layers)} layer(s), {len(updates)} updates kept, number {updates[0]} to {updates[-1]}",
        f"{'layer':<{width}} {'E':>4} {'K':>3} {'MaxVio first':>13} {'last':>8} {'of last sum':>12} {'max|bias|':>10} {'still moving':>13}",
    ]
    for layer in layers:
        s = layer.summary()
        text.append(
            f"{layer.name:<{width}} {s['n_experts']:>4} {layer.k:>3} {s['max_vio_first']:>13.4f} "
            f"{s['max_vio_last']:>8.4f} {s['max_vio_last_sum']:>12.4f} {s['max_abs_bias']:>10.4f} "
            f"{s['bias_change_last']:>13.4f}"
        )
    text.append(
        f"(first, last: mean over the first and last {part} kept updates; of last sum: of the loads summed over the "
        f"last {part}; still moving: the largest change of a bias over them)"
    )
    return text


def most_violated(layers: list[LayerLog]) -> LayerLog:
    """Return the layer with the largest mean MaxVio over the last tenth, among those with scores if any has them."""
    sampled = [layer for layer in layers if layer.scores is not None]
    return max(sampled or layers, key=lambda layer: float(layer.summary()["max_vio_last"]))
