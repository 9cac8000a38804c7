"""The tree of the search in fixed shapes, and how its steps are launched: op by op, compiled, or as captured CUDA graphs.

The host reads one small tensor an iteration (counts, steps, flags); between two readings nothing waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sfumato_vopp import fixed_torch as f
from sfumato_vopp.config import SearchConfig
from sfumato_vopp.errors import ModelError
from sfumato_vopp.model import Array, Model
from sfumato_vopp.ops_torch import TorchOps

__all__ = ["FixedTree"]

#: Rows of a table at first, where tables may grow.
_ROOM = 1 << 12


class FixedTree:
    """A tree in tables of fixed capacity; same interface as the other trees: ``begin``, ``iterate``, ``root``.

    Arguments:
        model: one whose ``array_library`` is "torch" and whose draws are counter-based.
        capacity: most beliefs, and most actions tried, that one depth may hold.
        capture: "none" launches op by op, "graph" replays captured CUDA graphs, "compile" compiles each step, and on CUDA
            captures the compiled ones. Tables start small and double, except with "compile", where each size of
            table would be compiled anew.

    An iteration always simulates ``config.n_episodes`` places side by side; where fewer episodes are asked for, the rest is
    masked and costs the same.
    """

    storage = "fixed"

    def __init__(
        self, model: Model, config: SearchConfig, eta: float, device: str, capacity: int, capture: str | None = None
    ) -> None:
        self._ops = TorchOps(device)
        self.device = self._ops.device
        if getattr(model, "array_library", "numpy") != "torch" or not model.uses_counter_draws:
            raise ModelError(
                f"the search in fixed shapes needs a model on tensors with counter-based draws (array_library = 'torch', "
                f"uses_counter_draws = True), got {type(model).__name__}; give it on_tensors(device), or leave capacity out"
            )
        if capacity < 2 * config.n_episodes:
            raise ValueError(f"expected capacity >= 2·n_episodes = {2 * config.n_episodes}, got {capacity}")
        capture = capture or ("graph" if self.device.type == "cuda" else "none")
        if capture == "graph" and self.device.type != "cuda":
            raise ValueError(f"capture='graph' needs device 'cuda', got {device!r}; choose 'none' or 'compile'")
        leaf = config.initial_preference == "leaf"
        A = model.n_actions
        self._rules = f.Rules(
            model, config, eta, A, leaf, 0.0 if leaf else config.initial_constant, float(np.log(A)) / eta
        )
        self._model, self._config, self.eta, self._A = model, config, eta, A
        self._capacity, self._capture = capacity, capture
        self.fixed_batch = config.n_episodes
        dtype = torch.as_tensor(np.zeros(0, model.state_dtype)).dtype
        self._carry = f.Carry(self.fixed_batch, model.state_width, dtype, self.device)
        self._levels: list[f.Level] = []
        self._graphs: dict[tuple[str, int, bool], Any] = {}
        self._pool: Any = None
        self._advance: Callable[..., None] = f.advance
        self._back_up: Callable[..., None] = f.back_up
        if capture == "compile":
            self._advance = torch.compile(f.advance, fullgraph=True, dynamic=False)
            self._back_up = torch.compile(f.back_up, fullgraph=True, dynamic=False)
        self.overflow = False
        self.steps = 0
        self._used: list[tuple[int, int]] = []

    @property
    def nbytes(self) -> int:
        """Bytes held by the tables."""
        return sum(level.nbytes for level in self._levels)

    @property
    def n_beliefs(self) -> int:
        """Belief nodes in the tree."""
        return sum(beliefs for beliefs, _ in self._used)

    @property
    def n_action_nodes(self) -> int:
        """Actions tried, over all beliefs."""
        return sum(actions for _, actions in self._used)

    def begin(self, particles: Any, cumulative: Array | None, seed: int) -> None:
        """Empty the tree and set the root belief: particles [N, width], cumulative weights [N] or None (equal)."""
        self._open([(particles, cumulative)], seed)

    def begin_many(self, roots: list[tuple[Array, Array | None]], seed: int) -> None:
        """Empty the tree and set several root beliefs, nodes 0 … R-1 of depth 0; the episodes take turns at them."""
        self._open(roots, seed)

    def _open(self, roots: list[tuple[Any, Array | None]], seed: int) -> None:
        ops = self._ops
        sizes = np.array([len(particles) for particles, _ in roots])
        self._n_roots, self._n_particles, self._seed = len(roots), int(sizes.sum()), int(seed) & 0xFFFFFFFFFFFFFFFF
        particles = torch.as_tensor(np.concatenate([np.asarray(p) for p, _ in roots]), device=self.device)
        self._particles = particles.to(self._carry.states.dtype)
        self._cumulative: torch.Tensor | None = None
        if self._n_roots > 1 or roots[0][1] is not None:
            # Root r owns the part (r, r+1] of one line, so that one search draws for all roots.
            lines = [
                r + (np.arange(1, n + 1) / n if c is None else np.asarray(c) / c[-1])
                for r, (n, (_, c)) in enumerate(zip(sizes, roots, strict=True))
            ]
            self._cumulative = torch.as_tensor(np.concatenate(lines), device=self.device)
        self.overflow, self.steps = False, 0
        self._carry.steps.zero_()
        self._carry.flags.zero_()
        self._used = []
        self._ready(0)
        if self._n_roots > self._levels[0].room:
            raise ModelError(f"expected at most {self._levels[0].room} roots at once, got {self._n_roots}")
        level = self._levels[0]
        level.beliefs.count.fill_(self._n_roots)
        self._used[0] = (self._n_roots, 0)
        if self._rules.leaf:
            first = 0
            for r, n in enumerate(sizes):
                few = self._particles[first : first + min(int(n), 256)]
                level.hint[r] = self._rules.model.value_hint(few, ops.full(len(few), 0, "ids")).double().sum()  # type: ignore[attr-defined]
                level.hint_n[r] = len(few)  # type: ignore[attr-defined]
                first += int(n)

    def _ready(self, depth: int) -> None:
        """Have empty tables down to a depth that this search has not reached before."""
        while len(self._used) <= depth:
            d = len(self._used)
            if d == len(self._levels):
                room = self._capacity if self._capture == "compile" else min(self._capacity, max(_ROOM, self._rounded()))
                self._levels.append(f.Level(room, self.device))
            else:
                self._levels[d].clear()
            self._used.append((0, 0))

    def _rounded(self) -> int:
        return 1 << (2 * self.fixed_batch - 1).bit_length()

    def _room(self, depth: int) -> bool:
        """Make sure that no table can be filled by one iteration; False where the capacity forbids it."""
        for d in range(depth + 1):
            need = max(self._used[d]) + self.fixed_batch
            level = self._levels[d]
            if need > level.room:
                room = min(self._capacity, max(2 * level.room, need))
                if need > room:
                    return False
                self._levels[d] = level.grown(room)
                for key in [key for key in self._graphs if abs(key[1] - d) <= 1]:
                    del self._graphs[key]
        return True

    def iterate(self, iteration: int, n_episodes: int, first_episode: int, depth: int) -> int:
        """Run one iteration: at most ``n_episodes`` of the given length, then the backup. Returns the episodes that were run."""
        n_episodes = min(n_episodes, self.fixed_batch)
        self._ready(depth)
        if self.n_beliefs + n_episodes * depth > self._config.max_nodes or not self._room(depth):
            self.overflow = True
            return 0
        self.launch(iteration, n_episodes, first_episode, depth)
        self._read()
        return n_episodes

    def launch(self, iteration: int, n_episodes: int, first_episode: int, depth: int) -> None:
        """Put an iteration on the device's queue; the host waits for nothing."""
        self._draw_starts(n_episodes, first_episode, iteration)
        levels, carry = self._levels, self._carry
        for d in range(depth):
            last = d + 1 == depth and not self._rules.leaf
            self._run("advance", d, last, self._advance, self._rules, levels[d], levels[d + 1], carry, d == 0, last)
        f.arrive(levels[depth], carry)
        for d in range(len(self._used) - 1, -1, -1):
            self._run("back_up", d, False, self._back_up, self._rules, levels[d], levels[d - 1] if d else None, carry.iteration)

    def _draw_starts(self, n_episodes: int, first_episode: int, iteration: int) -> None:
        ops, carry, n = self._ops, self._carry, self.fixed_batch
        keys = ops.keys(self._seed, first_episode, n)
        u = ops.draws(keys, 0).random()
        place = torch.arange(n, device=self.device)
        alive = place < n_episodes
        nodes = (place + first_episode) % self._n_roots
        if self._cumulative is None:
            start = (u * self._n_particles).long()
        elif self._n_roots == 1:
            # The number of entries not above x, as the oracle counts.
            start = torch.searchsorted(self._cumulative, u * self._cumulative[-1], right=True)
        else:
            start = torch.searchsorted(self._cumulative, u + nodes)
        carry.states.copy_(self._particles[start.clamp(max=self._n_particles - 1)])
        carry.nodes.copy_(torch.where(alive, nodes, self._levels[0].room))
        carry.alive.copy_(alive)
        carry.streams.copy_(keys)
        carry.iteration.fill_(iteration)

    def _run(self, kind: str, depth: int, last: bool, step: Callable[..., None], *arguments: Any) -> None:
        """Launch a step: directly the first time, which also readies its kernels, and later from its captured graph."""
        if self._capture == "none" or self.device.type != "cuda":
            step(*arguments)
            return
        key = (kind, depth, last)
        graph = self._graphs.get(key)
        if key not in self._graphs:
            self._graphs[key] = None
            step(*arguments)
            return
        if graph is None:
            graph = torch.cuda.CUDAGraph()
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            with torch.cuda.graph(graph, pool=self._pool):
                step(*arguments)
            self._graphs[key] = graph
        graph.replay()

    def _read(self) -> None:
        """Read counts, steps and flags; the one place where the host waits for the device."""
        counts = [c for d in range(len(self._used)) for c in (self._levels[d].beliefs.count, self._levels[d].actions.count)]
        found = torch.stack([self._carry.steps, self._carry.flags, *counts]).tolist()
        self.steps, flags, used = found[0], found[1], found[2:]
        self._used = list(zip(used[::2], used[1::2], strict=True))
        if flags & f.BAD_REWARD:
            raise ModelError("step should return finite rewards, got NaN or infinity; check the model")
        if flags & f.BAD_STATE:
            raise ModelError("step should return finite states, got NaN or infinity in at least one row; check the model")
        if flags & f.BAD_OBSERVATION:
            limit = self._model.n_observations
            assert limit is not None
            raise ModelError(f"step should return observations in 0 … {limit - 1}; set n_observations = None for any number")
        if flags & f.COLLISION:
            raise ModelError("two observations got one 63-bit key, which chance alone does not do; give n_observations a bound")
        self.overflow = bool(flags & f.FULL)

    def root(self, which: int = 0) -> tuple[Array, Array, Array, float]:
        """Return a root's preferences [A], visits [A], mean values [A] (NaN where untried), and value."""
        level, A = self._levels[0], self._A
        used = self._used[0][1]
        keys, ids = level.actions.keys[:used], level.actions.ids[:used]
        columns = [level.psi, level.act_n, level.end, level.reward, level.q_sum]  # type: ignore[attr-defined]
        mine = (keys // A == which).cpu().numpy()
        tried = (keys % A).cpu().numpy()[mine]
        psi_t, n, end, reward, q_sum = (column[ids].cpu().numpy()[mine] for column in columns)
        psi = np.full(A, float(level.untried[which]))  # type: ignore[attr-defined]
        visits, q = np.zeros(A, np.int64), np.full(A, np.nan)
        psi[tried], visits[tried] = psi_t, n
        below = n - end if self._config.denominator == "survivors" else n
        q[tried] = reward / n + self._model.discount * np.where(below > 0, q_sum / np.maximum(below, 1), 0.0)
        return psi, visits, q, float(level.v[which])  # type: ignore[attr-defined]

    def depth_histogram(self) -> Array:
        """Return the number of belief nodes at each depth, the root first."""
        return np.trim_zeros(np.array([beliefs for beliefs, _ in self._used], np.int64), "b")
