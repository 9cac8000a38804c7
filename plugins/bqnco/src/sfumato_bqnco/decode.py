"""Greedy and beam decoding over any of the environments.

Sources: Drakulic et al., NeurIPS 2023, section 5 (greedy; beam of width 16 on joint log-probabilities; restriction
to the 250 nearest nodes). The bisimulation-aware beam is ours, and follows from the paper's theorem: two beams with
the same tail instance have the same future, so only the cheaper past is worth a place. Where the states differ in
what is left (capacity, budget) one is dropped only if the other is at least as good in cost *and* in what is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from attrs import define, field, frozen
from torch import Tensor

from .buckets import Bucketed
from .engine import Engine, World, pack
from .env import Environment, State
from .features import Tokens
from .network import BQNetwork


@frozen
class Limits:
    """How much one pass may hold. `tokens`: most tokens in one call of the network; `neighbours`: most remaining
    nodes that the network sees at a step (0: all).
    """

    tokens: int = 4096
    neighbours: int = 250


@frozen(eq=False)
class Solutions:
    """R rows of decoded sequences.

    `nodes` int [R, T] in order of choice, then -1; `flags` int [R, T]: option chosen (CVRP: 1 = via the depot);
    `cost` float64 [R]: true objective, minimised; `logp` float [R]; `merged`: share of kept candidates that were
    dropped because another beam had the same tail instance (beam only); `spread`: log-probabilities of the final
    beams [R, width] and their costs.
    """

    nodes: Tensor
    flags: Tensor
    cost: Tensor
    logp: Tensor
    merged: float = 0.0
    beam_logp: Tensor | None = None
    beam_cost: Tensor | None = None


@define(eq=False)
class Scorer:
    """The network as a function from state rows to log-probabilities, in chunks of bounded size.

    On a GPU it runs in bfloat16; on a CPU that is slower than float32 and stays off. `compiled`: what `compile_` made.
    `use_engine`: on a CPU take the compiled engine (`engine.py`) for the networks that it knows; the same numbers.
    """

    network: BQNetwork
    limits: Limits = field(factory=Limits)
    n_calls: int = 0
    n_tokens: int = 0
    compiled: Callable[[Tokens, Tensor | None], Tensor] | None = None
    use_engine: bool = True
    _engine: tuple[Any, Engine | None] = field(default=(None, None), init=False)
    _world: tuple[Environment | None, World | None] = field(default=(None, None), init=False)

    def engine(self, env: Environment) -> tuple[Engine, World] | None:
        """The compiled engine and its view of `env`; None where torch has to do it."""
        if not self.use_engine or self.compiled is not None:
            return None
        # A step of an optimiser raises the version of a parameter: the packed copy is then made anew.
        stamp = tuple((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.network.parameters())
        if self._engine[0] != stamp:
            packed = pack(self.network)
            self._engine = (stamp, None if packed is None else Engine(packed))
        made = self._engine[1]
        if made is None:
            return None
        if self._world[0] is not env:
            self._world = (env, World.of(env))
        assert self._world[1] is not None
        return made, self._world[1]

    def compile_(self, backend: str = "inductor") -> None:
        """Use `torch.compile` by length bucket (`buckets.Bucketed`); a failure falls back to eager, with a warning."""
        self.compiled = Bucketed(self.network, backend)

    @torch.inference_mode()
    def __call__(self, env: Environment, state: State) -> tuple[Tensor, Tensor]:
        """Log-probabilities [R, K, A] over the chosen slots, and the slots [R, K]; every row must be live."""
        slots, valid = env.choose(state, self.limits.neighbours)
        allowed = (
            env.feasible(state).gather(1, slots[..., None].expand(-1, -1, env.n_options)) & valid[..., None]
        )
        width = slots.shape[1] + 2 * env.has_ends
        fast = self.engine(env)
        if fast is not None:
            found, calls = fast[0].score(fast[1], state, slots, valid)
            self.n_calls += calls
            self.n_tokens += len(state) * width
            logits = torch.from_numpy(found).masked_fill(~allowed, -torch.inf)
            return logits.flatten(1).log_softmax(1).view_as(logits), slots
        chunk = max(1, self.limits.tokens // width)
        device = next(self.network.parameters()).device
        parts = []
        for at in range(0, len(state), chunk):
            rows = torch.arange(at, min(at + chunk, len(state)))
            part = state.take(rows)
            tokens = env.tokens(self.network.config, part, slots[rows], valid[rows])
            identifiers = env.identifiers(part, slots[rows])
            if device.type != "cpu":
                tokens = tokens.to(device)
                identifiers = None if identifiers is None else identifiers.to(device)
            parts.append(self._run(tokens, identifiers, device.type))
            self.n_calls += 1
            self.n_tokens += len(rows) * width
        logits = parts[0] if len(parts) == 1 else torch.cat(parts)
        logits = logits[:, 2 * env.has_ends :].float().cpu().masked_fill(~allowed, -torch.inf)
        return logits.flatten(1).log_softmax(1).view_as(logits), slots

    def _run(self, tokens: Tokens, identifiers: Tensor | None, device: str) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            out: Tensor = (self.compiled or self.network)(tokens, identifiers)
            return out


def _assign(full: Tensor, rows: Tensor, part: Tensor) -> Tensor:
    full = full.clone()
    full[rows] = part
    return full


def greedy(
    scorer: Scorer,
    env: Environment,
    state: State | None = None,
    *,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> Solutions:
    """Follow the most probable option from every row of `state` (the initial one when absent) until all are done.

    `temperature` > 0 samples instead, with `generator`. O(N) steps; each costs one pass of the network.
    """
    state = env.initial() if state is None else state
    n_rows = len(state)
    fast = scorer.engine(env) if temperature <= 0 else None
    if fast is not None:
        found, options_, best, calls, tokens = fast[0].rollout(fast[1], state, scorer.limits.neighbours)
        scorer.n_calls += calls
        scorer.n_tokens += tokens
        chosen = torch.from_numpy(found), torch.from_numpy(options_)
        return Solutions(*chosen, env.replay(state, *chosen), torch.from_numpy(best).float())
    horizon = int(state.count.max()) if n_rows else 0
    nodes = torch.full((n_rows, horizon), -1, dtype=torch.int64)
    flags = torch.zeros((n_rows, horizon), dtype=torch.int64)
    cost, logp = state.cost.clone(), torch.zeros(n_rows)
    live = torch.arange(n_rows)[~state.done]
    state = state.take(live)
    for t in range(horizon):
        if not len(live):
            break
        options, slots = scorer(env, state)
        flat = options.flatten(1)
        if temperature > 0:
            noise = -torch.log(-torch.log(torch.rand(flat.shape, generator=generator).clamp(1e-9, 1 - 1e-7)))
            pick = (flat / temperature + noise).argmax(1)
        else:
            pick = flat.argmax(1)
        where, flag = pick // env.n_options, pick % env.n_options
        slot = slots.gather(1, where[:, None])[:, 0]
        nodes[live, t] = state.rem.gather(1, slot[:, None])[:, 0]
        flags[live, t] = flag
        logp[live] += flat.gather(1, pick[:, None])[:, 0]
        state = env.step(state, slot, flag)
        cost[live] = state.cost
        going = ~state.done
        if not bool(going.all()):
            live = live[going]
            state = state.take(torch.nonzero(going)[:, 0])
    return Solutions(nodes, flags, cost, logp)


def _survivors(
    key: Tensor, cost: Tensor, left: Tensor, logp: Tensor, clock: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Merge bisimilar candidates of each instance.

    All [B, M], sorted by `logp`, best first. Candidate j dominates i when both have the same key, j is at least as
    good in cost, in what is left and in time (where there is a `clock`), and better in one of them (or stands earlier). Returns the rank value of each
    survivor (the best log-probability among those it dominates: the best-ranked copy takes the cheapest past), -inf
    where dominated, and which were dominated.
    """
    m = key.shape[1]
    alive = logp > -torch.inf
    earlier = torch.arange(m)[:, None] < torch.arange(m)[None]
    same = (key[:, :, None] == key[:, None]) & alive[:, :, None] & alive[:, None]
    cheaper = cost[:, :, None] - cost[:, None]
    richer = left[:, :, None] - left[:, None]
    # Sums over different orders of the same legs differ in the last bits: equal within 1e-9 counts as equal.
    tie = (cheaper.abs() <= 1e-9) & (richer.abs() <= 1e-9)
    better = (cheaper <= 1e-9) & (richer >= -1e-9)
    if clock is not None:
        sooner = clock[:, :, None] - clock[:, None]
        tie &= sooner.abs() <= 1e-9
        better &= sooner <= 1e-9
    dominates = same & torch.where(tie, earlier, better)
    beaten = dominates.any(1)
    inherited = torch.where(dominates, logp[:, None], -torch.inf).amax(2)
    return torch.where(beaten, -torch.inf, torch.maximum(logp, inherited)), beaten


def beam(
    scorer: Scorer,
    env: Environment,
    width: int = 16,
    *,
    merge: bool = True,
    state: State | None = None,
    surplus: int = 4,
) -> Solutions:
    """Beam search on joint log-probability, without length normalisation; the best true objective is returned.

    `merge`: the bisimulation-aware beam. `surplus`: candidates drawn per place, from which merged ones are refilled.
    Rows of `state` are the instances; memory O(rows * width * N), parents are kept instead of paths.
    """
    state = env.initial() if state is None else state
    n_rows, horizon = len(state), int(state.count.max()) if len(state) else 0
    start = state
    logp = torch.full((n_rows, width), -torch.inf)
    logp[:, 0] = 0.0
    state = state.take(torch.arange(n_rows).repeat_interleave(width))
    parents: list[Tensor] = []
    chosen: list[Tensor] = []
    flags: list[Tensor] = []
    n_merged = n_kept = 0
    base = torch.arange(n_rows)[:, None] * width
    for _ in range(horizon):
        usable = (logp > -torch.inf).flatten()
        live = torch.nonzero(usable & ~state.done)[:, 0]
        if not len(live):
            break
        options, slots = scorer(env, state.take(live))
        k, a = options.shape[1:]
        # One more column, for beams that are done: they keep their place and their probability.
        scores = torch.full((n_rows * width, k * a + 1), -torch.inf)
        scores[live, :-1] = options.flatten(1) + logp.flatten()[live, None]
        scores[:, -1] = torch.where(usable & state.done, logp.flatten(), -torch.inf)
        all_slots = torch.zeros((n_rows * width, k), dtype=torch.int64)
        all_slots[live] = slots
        columns = k * a + 1
        best, index = scores.view(n_rows, -1).topk(
            min((surplus if merge else 1) * width, width * columns), dim=1
        )
        parent = base + index // columns
        option = index % columns
        finished = option == k * a
        where = (option // a).clamp_max(k - 1)
        flag = torch.where(finished, 0, option % a)
        slot = all_slots[parent, where]
        if merge:
            flat = parent.flatten()
            node = state.rem[flat, slot.flatten().clamp_max(max(state.rem.shape[1] - 1, 0))]
            narrow = State(
                state.inst[flat], state.origin[flat], state.dest[flat], state.rem[flat, :0], state.count[flat],
                state.left[flat], state.cost[flat], state.key[flat], state.sym[flat], state.done[flat],
                None if state.clock is None else state.clock[flat],
            )  # fmt: skip
            cost, left = env.step_cost(narrow, node, flag.flatten())
            clock = env.next_clock(narrow, node, flag.flatten())
            stays = finished.flatten()
            key = torch.where(stays, narrow.key, narrow.key ^ env.keys[node])
            if env.has_ends:
                # The new origin belongs to the state; an odd multiplier keeps it apart from the set's hash.
                key = key * 6364136223846793005 + torch.where(stays, narrow.origin, node) + 1
            total = torch.where(stays, narrow.cost, narrow.cost + cost)
            rest = torch.where(stays, narrow.left, left)
            shape = parent.shape
            when = None if clock is None else torch.where(stays, 0.0, clock).view(shape)
            rank, beaten = _survivors(key.view(shape), total.view(shape), rest.view(shape), best, when)
            head = best[:, :width] > -torch.inf
            n_merged += int((beaten[:, :width] & head).sum())
            n_kept += int(head.sum())
            rank, order = rank.topk(min(width, rank.shape[1]), dim=1)
            best = torch.where(rank > -torch.inf, best.gather(1, order).maximum(rank), -torch.inf)
            parent, slot, flag, finished = (x.gather(1, order) for x in (parent, slot, flag, finished))
        if best.shape[1] < width:
            pad = width - best.shape[1]
            best = torch.cat((best, torch.full((n_rows, pad), -torch.inf)), 1)
            parent = torch.cat((parent, base.expand(-1, pad)), 1)
            slot, flag, finished = (
                torch.cat((x, torch.zeros((n_rows, pad), dtype=x.dtype)), 1) for x in (slot, flag, finished)
            )
        logp = best
        node = state.rem[parent.flatten(), slot.flatten().clamp_max(max(state.rem.shape[1] - 1, 0))].view(
            parent.shape
        )
        parents.append(parent - base)
        chosen.append(torch.where(finished | (logp == -torch.inf), -1, node))
        flags.append(flag)
        state = env.step(state.take(parent.flatten()), slot.flatten(), flag.flatten())
    cost = state.cost.view(n_rows, width).masked_fill(
        (logp == -torch.inf) | ~state.done.view(n_rows, width), torch.inf
    )
    winner = cost.argmin(1)
    path = torch.full((n_rows, len(parents)), -1, dtype=torch.int64)
    path_flags = torch.zeros((n_rows, len(parents)), dtype=torch.int64)
    at = winner
    for t in range(len(parents) - 1, -1, -1):
        path[:, t] = chosen[t].gather(1, at[:, None])[:, 0]
        path_flags[:, t] = flags[t].gather(1, at[:, None])[:, 0]
        at = parents[t].gather(1, at[:, None])[:, 0]
    rows = torch.arange(n_rows)
    return Solutions(
        path,
        path_flags,
        torch.where(start.done, start.cost, cost[rows, winner]),
        logp[rows, winner],
        n_merged / max(n_kept, 1),
        logp,
        cost,
    )


def symmetries(scorer: Scorer, env: Environment, n: int = 8, state: State | None = None) -> Solutions:
    """Greedy on `n` of the eight symmetries of the square; the best of each instance. Planar problems only."""
    state = env.initial() if state is None else state
    n_rows = len(state)
    many = state.take(torch.arange(n_rows).repeat_interleave(n))
    many.sym = torch.arange(n).repeat(n_rows)
    out = greedy(scorer, env, many)
    pick = out.cost.view(n_rows, n).argmin(1) + torch.arange(n_rows) * n
    return Solutions(out.nodes[pick], out.flags[pick], out.cost[pick], out.logp[pick])
