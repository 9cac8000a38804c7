"""From labelled instances to training pieces: tail instances with the set of optimal next options.

Any contiguous piece of an optimal solution is an optimal solution of its own path instance. For the TSP that means
any window, in either direction, from any start of the tour. For the CVRP the routes of a solution have no order and
no direction, so after a return to the depot the ends of all remaining routes are optimal next nodes: the target is
a *set*, and the loss is minus the log of its total probability.

Source of the piece sampling: Drakulic et al., NeurIPS 2023, section 4 (imitation on sub-paths); target sets, windows
and reversals are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from attrs import define
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from .config import NetworkConfig
from .features import Times, Tokens, atsp_tokens, cvrp_tokens, cvrptw_tokens, kp_tokens, op_tokens, tsp_tokens

Data = Mapping[str, NDArray[Any]]


class Sampler(Protocol):
    """Draws a batch of pieces which all hold `n_tokens` tokens."""

    longest: int

    def sample(self, n_tokens: int, batch: int, rng: np.random.Generator) -> tuple[Tokens, Tensor, Tensor]:
        """Tokens; feasible options, bool [B, N, A]; optimal options, bool [B, N, A]."""
        ...


def _symmetries(xy: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Apply to each row [B, N, 2] one of the eight symmetries of the unit square."""
    swap = rng.random(len(xy)) < 0.5
    xy = np.where(swap[:, None, None], xy[..., ::-1], xy)
    sign = np.where(rng.random((len(xy), 1, 2)) < 0.5, -1.0, 1.0).astype(np.float32)
    half = np.float32(0.5)
    return np.ascontiguousarray((xy - half) * sign + half)


def _targets(batch: int, n: int) -> tuple[Tensor, Tensor]:
    feasible = torch.zeros(batch, n, 1, dtype=torch.bool)
    feasible[:, 2:] = True
    best = torch.zeros(batch, n, 1, dtype=torch.bool)
    best[:, 2] = True
    return feasible, best


@define
class TspPieces:
    """Windows of tours. `data`: `xy` float32 [M, N, 2], `tour` int [M, N]."""

    config: NetworkConfig
    data: Data

    @property
    def longest(self) -> int:
        """N + 1: the whole tour, whose start stands at both ends."""
        return int(self.data["tour"].shape[1]) + 1

    def sample(self, n_tokens: int, batch: int, rng: np.random.Generator) -> tuple[Tokens, Tensor, Tensor]:
        """See `Sampler`."""
        tours = self.data["tour"]
        m, n = tours.shape
        which = rng.integers(m, size=batch)
        step = np.where(rng.random(batch) < 0.5, 1, -1)
        at = (rng.integers(n, size=batch)[:, None] + step[:, None] * np.arange(n_tokens)) % n
        window = tours[which[:, None], at]
        # Slot order: first node, last node, then the nodes between in tour order.
        window = np.concatenate((window[:, :1], window[:, -1:], window[:, 1:-1]), 1)
        xy = _symmetries(self.data["xy"][which[:, None], window], rng)
        tokens = tsp_tokens(self.config, torch.from_numpy(xy), torch.ones(batch, n_tokens, dtype=torch.bool))
        return tokens, *_targets(batch, n_tokens)


@define
class AtspPieces:
    """Windows of directed tours. `data`: `matrix` [M, N, N], `tour` int [M, N].

    A tour run backwards is a tour of the transposed matrix, of the same length: half of the pieces are such.
    """

    config: NetworkConfig
    data: Data

    @property
    def longest(self) -> int:
        """N + 1, as for the TSP."""
        return int(self.data["tour"].shape[1]) + 1

    def sample(self, n_tokens: int, batch: int, rng: np.random.Generator) -> tuple[Tokens, Tensor, Tensor]:
        """See `Sampler`."""
        tours = self.data["tour"]
        m, n = tours.shape
        which = rng.integers(m, size=batch)
        back = rng.random(batch) < 0.5
        step = np.where(back, -1, 1)
        at = (rng.integers(n, size=batch)[:, None] + step[:, None] * np.arange(n_tokens)) % n
        window = tours[which[:, None], at]
        window = np.concatenate((window[:, :1], window[:, -1:], window[:, 1:-1]), 1)
        matrix = self.data["matrix"][which[:, None, None], window[:, :, None], window[:, None]]
        matrix = np.where(back[:, None, None], matrix.transpose(0, 2, 1), matrix)
        tokens = atsp_tokens(
            self.config,
            torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32)),
            torch.ones(batch, n_tokens, dtype=torch.bool),
        )
        return tokens, *_targets(batch, n_tokens)


@njit(cache=True)
def _cvrp_pieces(
    which: Any,
    seq: Any,
    starts: Any,
    demand: Any,
    capacity: Any,
    k: int,
    draws: Any,
    slots: Any,
    left: Any,
    best: Any,
) -> None:
    """Fill `slots` [B, k + 2], `left` [B] and `best` [B, k + 2, 2]; `draws` [B, 2 N] are uniform numbers."""
    n = seq.shape[1]
    for b in range(which.size):
        m = which[b]
        first = np.empty(n + 1, np.int64)
        n_routes = 0
        for i in range(n):
            if starts[m, i]:
                first[n_routes] = i
                n_routes += 1
        first[n_routes] = n
        load = np.zeros(n_routes, np.float64)
        for r in range(n_routes):
            for i in range(first[r], first[r + 1]):
                load[r] += demand[m, seq[m, i]]
        # Random order of the routes, but the least full one last: slack is then left to the end.
        order = np.argsort(draws[b, :n_routes])
        emptiest = np.argmin(load)
        at = 0
        for r in range(n_routes):
            if order[r] == emptiest:
                at = r
        order[at] = order[n_routes - 1]
        order[n_routes - 1] = emptiest
        flat = np.empty(n, np.int64)
        begin = np.zeros(n + 1, np.bool_)
        place = 0
        for r in range(n_routes):
            begin[place] = True
            i, j = first[order[r]], first[order[r] + 1]
            forward = draws[b, n + r] < 0.5
            for t in range(j - i):
                flat[place] = seq[m, i + t] if forward else seq[m, j - 1 - t]
                place += 1
        begin[n] = True
        # The state after n - k customers: origin, what is left in the vehicle, and the k customers to come.
        done = n - k
        left[b] = 0.0
        origin = 0
        if done > 0:
            origin = flat[done - 1]
            used = 0.0
            i = done - 1
            while True:
                used += demand[m, flat[i]]
                if begin[i]:
                    break
                i -= 1
            left[b] = capacity[m] - used
        slots[b, 0] = origin
        slots[b, 1] = 0
        for t in range(k):
            slots[b, 2 + t] = flat[done + t]
        if not begin[done]:
            best[b, 2, 0] = True
            continue
        last = n - 1
        while not begin[last]:
            last -= 1
        for t in range(done, n):
            ends_route = begin[t] or begin[t + 1]
            if ends_route and (t < last or done == last):
                best[b, 2 + t - done, 1] = True


@define
class CvrpPieces:
    """Suffixes of route lists. `data`: `xy` float32 [M, N + 1, 2] (depot first), `demand` [M, N + 1], `capacity` [M],
    `seq` int [M, N] (customers in route order), `starts` bool [M, N] (first of its route).
    """

    config: NetworkConfig
    data: Data

    @property
    def longest(self) -> int:
        """All N customers and the two ends."""
        return int(self.data["seq"].shape[1]) + 2

    def sample(self, n_tokens: int, batch: int, rng: np.random.Generator) -> tuple[Tokens, Tensor, Tensor]:
        """See `Sampler`."""
        d = self.data
        m, n = d["seq"].shape
        which = rng.integers(m, size=batch)
        slots = np.zeros((batch, n_tokens), np.int64)
        left = np.zeros(batch)
        best = np.zeros((batch, n_tokens, 2), np.bool_)
        draws = rng.random((batch, 2 * n))
        _cvrp_pieces(
            which, d["seq"], d["starts"], d["demand"], d["capacity"], n_tokens - 2, draws, slots, left, best
        )
        xy = _symmetries(d["xy"][which[:, None], slots], rng)
        capacity = d["capacity"][which].astype(np.float64)
        demand = d["demand"][which[:, None], slots] / capacity[:, None]
        demand[:, :2] = 0.0
        feasible = np.ones((batch, n_tokens, 2), np.bool_)
        feasible[:, :2] = False
        feasible[:, :, 0] &= d["demand"][which[:, None], slots] <= left[:, None]
        tokens = cvrp_tokens(
            self.config,
            torch.from_numpy(xy),
            torch.ones(batch, n_tokens, dtype=torch.bool),
            torch.from_numpy(demand.astype(np.float32)),
            torch.from_numpy((left / capacity).astype(np.float32)),
        )
        return tokens, torch.from_numpy(feasible), torch.from_numpy(best)


@define
class CvrptwPieces:
    """Suffixes of route lists with time windows. `data` as for `CvrpPieces`, and `windows` [M, N + 1, 2], `service`
    [M, N + 1].

    Time runs one way, so routes are not reversed; after a return to the depot the first customers of all remaining routes
    are optimal (the least full route is kept last, as for the CVRP).
    """

    config: NetworkConfig
    data: Data

    @property
    def longest(self) -> int:
        """All N customers and the two ends."""
        return int(self.data["seq"].shape[1]) + 2

    def _row(self, m: int, k: int, rng: np.random.Generator) -> tuple[list[int], float, float, list[int], bool]:
        """Nodes (origin, depot, the k customers to come), what is left, the clock, targets (slots), whether at a start."""
        d = self.data
        routes = [[int(v) for v in r] for r in np.split(d["seq"][m], np.flatnonzero(d["starts"][m])[1:])]
        load = [int(d["demand"][m, r].sum()) for r in routes]
        last = int(np.argmin(load))
        order = [*(int(r) for r in rng.permutation(len(routes)) if r != last), last]
        flat = [v for r in order for v in routes[r]]
        firsts = np.cumsum([0, *(len(routes[r]) for r in order)])[:-1].tolist()
        done = len(flat) - k
        begun = max((f for f in firsts if f < done), default=0)
        origin, left, clock = 0, 0.0, float(d["windows"][m, 0, 0])
        if done:
            left = float(d["capacity"][m]) - float(d["demand"][m, flat[begun:done]].sum())
            for v in flat[begun:done]:
                arrival = clock + float(np.hypot(*(d["xy"][m, v].astype(np.float64) - d["xy"][m, origin])))
                clock = max(arrival, float(d["windows"][m, v, 0])) + float(d["service"][m, v])
                origin = v
        starts = [f - done for f in firsts if f >= done]
        fresh = 0 in starts
        if fresh:
            targets = [2 + t for t in starts if t + done != firsts[-1]] or [2]
        else:
            targets = [2]
        return [origin, 0, *flat[done:]], left, clock, targets, fresh

    def sample(self, n_tokens: int, batch: int, rng: np.random.Generator) -> tuple[Tokens, Tensor, Tensor]:
        """See `Sampler`."""
        d = self.data
        which = rng.integers(len(d["seq"]), size=batch)
        rows = [self._row(int(m), n_tokens - 2, rng) for m in which]
        slots = np.array([r[0] for r in rows])
        left, clock = (np.array([r[i] for r in rows]) for i in (1, 2))
        best = np.zeros((batch, n_tokens, 2), np.bool_)
        for b, (*_, targets, fresh) in enumerate(rows):
            best[b, targets, int(fresh)] = True
        at = which[:, None]
        exact = d["xy"][at, slots].astype(np.float64)
        depot = d["xy"][which, 0].astype(np.float64)[:, None]
        travel = np.sqrt(((exact - exact[:, :1]) ** 2).sum(-1))
        home = np.sqrt(((exact - depot) ** 2).sum(-1))
        capacity = d["capacity"][which].astype(np.float64)
        opening, closing = (d["windows"][which, 0, i].astype(np.float64)[:, None] for i in (0, 1))
        horizon = closing - opening
        early, late = (d["windows"][at, slots, i].astype(np.float64) for i in (0, 1))
        service = d["service"][at, slots].astype(np.float64)
        demand = d["demand"][at, slots] / capacity[:, None]
        demand[:, :2] = 0.0
        feasible = np.ones((batch, n_tokens, 2), np.bool_)
        feasible[:, :2] = False
        arrival = clock[:, None] + travel
        back = np.maximum(arrival, early) + service + home
        feasible[..., 0] &= d["demand"][at, slots] <= left[:, None]
        feasible[..., 0] &= (arrival <= late + 1e-4) & (back <= closing + 1e-4) & (slots[:, :1] != 0)
        # Labels are on time to a thousandth, the float32 of their coordinates is not: what was driven is feasible.
        feasible |= best

        def share(x: NDArray[np.float64]) -> Tensor:
            return torch.from_numpy((x / horizon).astype(np.float32))

        times = Times(
            share(early - opening), share(late - opening), share(service), share(travel), share(home),
            share(clock[:, None] - opening)[:, 0],
        )  # fmt: skip
        low, high = d["xy"][which].min(1, keepdims=True), d["xy"][which].max(1, keepdims=True)
        plane = (exact - low) / (high - low).max(-1, keepdims=True)
        tokens = cvrptw_tokens(
            self.config,
            torch.from_numpy(_symmetries(plane.astype(np.float32), rng)),
            torch.ones(batch, n_tokens, dtype=torch.bool),
            torch.from_numpy(demand.astype(np.float32)),
            torch.from_numpy((left / capacity).astype(np.float32)),
            times,
        )
        return tokens, torch.from_numpy(feasible), torch.from_numpy(best)


@define
class OpPieces:
    """States along labelled paths. `data`: `xy` float32 [M, N, 2] (depot first), `prize` [M, N], `budget` [M],
    `path` int [M, P] (visited nodes in order, then -1).

    Only feasible nodes are tokens, here and in the environment; rows of one batch are padded to the longest.
    """

    config: NetworkConfig
    data: Data

    @property
    def longest(self) -> int:
        """All N nodes and one more end."""
        return int(self.data["xy"].shape[1]) + 1

    def sample(self, n_tokens: int, batch: int, rng: np.random.Generator) -> tuple[Tokens, Tensor, Tensor]:
        """See `Sampler`; here `n_tokens` only sets how far along its path each state lies."""
        d = self.data
        m, n = d["xy"].shape[:2]
        share = 1.0 - (n_tokens - 2) / max(1, self.longest - 2)
        rows: list[tuple[int, NDArray[np.int64], float]] = []
        closed = np.zeros(batch, np.bool_)
        for b, w in enumerate(rng.integers(m, size=batch)):
            path = d["path"][w]
            path = path[path >= 0]
            if rng.random() < 0.5:
                path = path[::-1]
            done = min(len(path) - 1, int(share * len(path) + rng.random()))
            xy = d["xy"][w].astype(np.float64)
            legs = np.concatenate(([0], path[:done]))
            travelled = np.sqrt((np.diff(xy[legs], axis=0) ** 2).sum(-1)).sum()
            left = float(d["budget"][w]) - travelled
            free = np.ones(n, bool)
            free[legs] = False
            free[0] = False
            origin = legs[-1]
            out = np.sqrt(((xy - xy[origin]) ** 2).sum(-1)) + np.sqrt(((xy - xy[0]) ** 2).sum(-1))
            others = np.flatnonzero(free & (out <= left + 1e-6))
            # At the depot the path may be walked from either end; under way there is one next node.
            closed[b] = done == 0 and len(path) > 1
            target = path[[0, -1]] if closed[b] else path[done : done + 1]
            others = others[~np.isin(others, target)]
            rows.append((int(w), np.concatenate(([origin, 0], target, others)), left))
        width = max(len(r[1]) for r in rows)
        slots = np.zeros((batch, width), np.int64)
        valid = np.zeros((batch, width), np.bool_)
        for b, (_, nodes, _) in enumerate(rows):
            slots[b, : len(nodes)] = nodes
            valid[b, : len(nodes)] = True
        which = np.array([r[0] for r in rows])
        xy = _symmetries(d["xy"][which[:, None], slots], rng)
        prize = np.where(valid, d["prize"][which[:, None], slots], 0.0).astype(np.float32)
        prize[:, :2] = 0.0
        tokens = op_tokens(
            self.config,
            torch.from_numpy(xy),
            torch.from_numpy(valid),
            torch.from_numpy(prize),
            torch.from_numpy(np.array([r[2] for r in rows], dtype=np.float32)),
        )
        feasible, best = _targets(batch, width)
        if width > 3:
            best[:, 3, 0] = torch.from_numpy(closed)
        return tokens, feasible & torch.from_numpy(valid)[..., None], best


@define
class KpPieces:
    """Remaining items after a random part of an optimal set was packed. `data`: `value`, `weight` [M, N],
    `capacity` [M], `chosen` bool [M, N].
    """

    config: NetworkConfig
    data: Data

    @property
    def longest(self) -> int:
        """All N items."""
        return int(self.data["value"].shape[1])

    def sample(self, n_tokens: int, batch: int, rng: np.random.Generator) -> tuple[Tokens, Tensor, Tensor]:
        """See `Sampler`; here `n_tokens` sets how many items are still to be packed (quadratically: the end is hard).

        A greedy rollout packs what is certain first and comes to states where only doubtful items remain. Packing at
        random would never show such states, so items leave in the order of their density, blurred more or less.
        """
        d = self.data
        which = rng.integers(len(d["value"]), size=batch)
        chosen, weight = d["chosen"][which], d["weight"][which].astype(np.float64)
        n_chosen = chosen.sum(1)
        share = min(1.0, n_tokens / self.longest) ** 2
        rest = np.maximum(1, np.ceil(n_chosen * share).astype(int))
        blur = 10.0 ** rng.uniform(-2.0, 1.0, size=(batch, 1))
        dense = np.log(d["value"][which] + 1e-6) - np.log(weight + 1e-6)
        rank = np.where(chosen, dense + blur * rng.normal(size=chosen.shape), np.inf).argsort(1).argsort(1)
        packed = chosen & (rank >= rest[:, None])
        left = d["capacity"][which] - (weight * packed).sum(1)
        best = chosen & ~packed
        # Sums of float32 weights miss an exact fit by some 1e-7 of the capacity.
        valid = best | (~packed & (weight <= left[:, None] + 1e-6 * d["capacity"][which][:, None]))
        width = int(valid.sum(1).max())
        order = np.argsort(~valid, axis=1, kind="stable")[:, :width]
        take = np.take_along_axis
        valid, best = take(valid, order, 1), take(best, order, 1)
        tokens = kp_tokens(
            self.config,
            torch.from_numpy(take(d["value"][which], order, 1).astype(np.float32)),
            torch.from_numpy(take(weight, order, 1).astype(np.float32)),
            torch.from_numpy(left.astype(np.float32)),
            torch.from_numpy(valid),
        )
        return tokens, torch.from_numpy(valid)[..., None], torch.from_numpy(best)[..., None]


def sampler(config: NetworkConfig, data: Data) -> Sampler:
    """The sampler of the problem that `config` names."""
    kinds: dict[str, Any] = {
        "tsp": TspPieces, "atsp": AtspPieces, "cvrp": CvrpPieces, "cvrptw": CvrptwPieces, "op": OpPieces,
        "kp": KpPieces,
    }  # fmt: skip
    made: Sampler = kinds[config.problem](config, data)
    return made
