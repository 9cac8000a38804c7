"""The BQ-MDPs of six problems: one vectorised environment each, state by index.

A row of the state is a path instance: an origin, a destination, the list of remaining nodes, what is left of the
capacity or budget. Nothing of the past is kept but the objective so far, which the network never sees. Choosing a
node moves the last remaining index into its place; coordinates and matrices are never copied, and many rows (beams,
symmetries, pieces) share one instance.

Source: Drakulic, Michel, Mai, Sors, Andreoli, NeurIPS 2023, section 3 and appendix on the five problems. Ours: nodes
that can no longer be afforded (OP, KP) are dropped from the state, which merges further states that are bisimilar.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import numpy as np
import torch
from attrs import define
from torch import Tensor

from .config import NetworkConfig
from .errors import InstanceError
from .features import Times, Tokens, atsp_tokens, cvrp_tokens, cvrptw_tokens, kp_tokens, op_tokens, tsp_tokens

OP_TOLERANCE = 1e-6


@define(eq=False)
class State:
    """R rows of tail instances; W is the longest list of remaining nodes.

    `inst` [R]: which instance; `origin`, `dest` [R]: nodes; `rem` [R, W]: remaining nodes, the first `count` [R] of
    each row; `left` float64 [R]: capacity or budget left; `cost` float64 [R]: objective so far, always minimised
    (prizes and values count negative); `key` int64 [R]: hash of the remaining set; `sym` [R]: which of the eight
    symmetries of the square the network sees; `done` bool [R]; `clock` float64 [R]: when the origin can be left (CVRPTW,
    else None).
    """

    inst: Tensor
    origin: Tensor
    dest: Tensor
    rem: Tensor
    count: Tensor
    left: Tensor
    cost: Tensor
    key: Tensor
    sym: Tensor
    done: Tensor
    clock: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inst)

    def take(self, rows: Tensor) -> State:
        """The given rows, in that order (repeats allowed), cut to their own longest list."""
        fields = {f.name: getattr(self, f.name) for f in attrs.fields(State) if f.name != "rem"}
        fields = {name: None if value is None else value[rows] for name, value in fields.items()}
        width = int(fields["count"].max()) if len(rows) else 0
        return State(rem=self.rem[rows, :width], **fields)


class Environment:
    """A batch of B instances of one problem as a BQ-MDP.

    `n_options`: options per node (2 for the CVRP). `prunes`: whether unaffordable nodes leave the state.
    """

    problem: str
    n_options = 1
    has_ends = True
    prunes = False

    def __init__(self, batch: int, n: int, seed: int = 0) -> None:
        self.batch, self.n = batch, n
        # Zobrist keys: the hash of a set is the XOR of its members' keys.
        keys = np.random.default_rng([seed, 64]).integers(-(2**63), 2**63 - 1, size=n, dtype=np.int64)
        self.keys = torch.from_numpy(keys)

    def distance(self, inst: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """True cost of i -> j (float64), broadcasting."""
        raise NotImplementedError

    def _state(
        self, inst: Tensor, origin: Tensor, dest: Tensor, rem: Tensor, count: Tensor, left: Tensor
    ) -> State:
        inside = torch.arange(rem.shape[1])[None] < count[:, None]
        key = torch.zeros(len(inst), dtype=torch.int64)
        for w in range(rem.shape[1]):
            key ^= torch.where(inside[:, w], self.keys[rem[:, w]], 0)
        state = State(
            inst, origin, dest, rem, count, left.double(), torch.zeros(len(inst), dtype=torch.float64), key,
            torch.zeros_like(inst), torch.zeros(len(inst), dtype=torch.bool),
        )  # fmt: skip
        state.done = self._over(state)
        return state

    def path_state(
        self,
        inst: Tensor,
        origin: Tensor,
        dest: Tensor,
        rem: Tensor,
        left: Tensor | None = None,
        count: Tensor | None = None,
    ) -> State:
        """Rows of path instances: any piece of a solution is one. `count` [R]: how many of `rem` count (all)."""
        if count is None:
            count = torch.full((len(inst),), rem.shape[1], dtype=torch.int64)
        return self._state(
            inst, origin, dest, rem.clone(), count, torch.zeros(len(inst)) if left is None else left
        )

    def initial(self) -> State:
        """One row an instance: nothing chosen yet."""
        raise NotImplementedError

    def feasible(self, state: State) -> Tensor:
        """Which options are allowed: bool [R, W, n_options]; False beyond each row's list."""
        inside = torch.arange(state.rem.shape[1])[None] < state.count[:, None]
        return inside[..., None]

    def _over(self, state: State) -> Tensor:
        return state.count == 0

    def step_cost(self, state: State, node: Tensor, flag: Tensor) -> tuple[Tensor, Tensor]:
        """Cost of choosing `node` in each row, and what is then left."""
        return self.distance(state.inst, state.origin, node), state.left

    def next_clock(self, state: State, node: Tensor, flag: Tensor) -> Tensor | None:
        """When `node` can be left again if it is chosen in each row; None where time plays no part."""
        return None

    def closing_cost(self, state: State) -> Tensor:
        """What is added in rows that have just ended: the leg to the destination."""
        return self.distance(state.inst, state.origin, state.dest)

    def step(self, state: State, slot: Tensor, flag: Tensor) -> State:
        """Choose `rem[row, slot]` with option `flag` in every row that is not done; done rows stay as they are.

        Returns a new state; the reward is minus the change of `cost`.
        """
        rows = torch.arange(len(state))
        node = state.rem[rows, slot.clamp_max(max(state.rem.shape[1] - 1, 0))]
        cost, left = self.step_cost(state, node, flag)
        clock = self.next_clock(state, node, flag)
        live = ~state.done
        rem = state.rem.clone()
        final = (state.count - 1).clamp_min(0)
        rem[rows, torch.where(live, slot, final)] = rem[rows, final]
        moved = State(
            state.inst,
            torch.where(live, node, state.origin),
            state.dest,
            rem,
            torch.where(live, state.count - 1, state.count),
            torch.where(live, left, state.left),
            torch.where(live, state.cost + cost, state.cost),
            torch.where(live, state.key ^ self.keys[node], state.key),
            state.sym,
            state.done,
            None if clock is None or state.clock is None else torch.where(live, clock, state.clock),
        )
        over = self._over(moved)
        moved.cost = torch.where(over & live, moved.cost + self.closing_cost(moved), moved.cost)
        moved.done = state.done | over
        moved.rem = moved.rem[:, : int(moved.count.max())] if len(moved) else moved.rem
        return moved

    def replay(self, state: State, nodes: Tensor, flags: Tensor) -> Tensor:
        """Cost float64 [R] of following `nodes` [R, T] (-1: ended) with options `flags` from `state` to the end.

        The sum that `step` would make, without the states between. Prizes and values count negative.
        """
        real = nodes >= 0
        inst = state.inst[:, None]
        at = nodes.clamp_min(0)
        before = torch.cat((state.origin[:, None], at[:, :-1]), 1)
        moved = self.move_cost(inst, before, at, flags)
        last = torch.where(real.any(1), at.gather(1, (real.sum(1, keepdim=True) - 1).clamp_min(0))[:, 0], state.origin)
        end = self.closing_cost(attrs.evolve(state, origin=last))
        total = torch.where(real, moved, 0.0).sum(1)
        return torch.where(state.done, state.cost, state.cost + total + end)

    def move_cost(self, inst: Tensor, before: Tensor, node: Tensor, flag: Tensor) -> Tensor:
        """Cost of `before` -> `node` with option `flag`; all [R, T]."""
        return self.distance(inst, before, node)

    def preference(self, state: State) -> Tensor:
        """Smaller is nearer: decides which nodes the network sees when their number is limited. [R, W]"""
        return self.distance(state.inst[:, None], state.origin[:, None], state.rem)

    def choose(self, state: State, limit: int) -> tuple[Tensor, Tensor]:
        """Slots which the network is to see, int [R, K], and which of them are real, bool [R, K].

        All feasible nodes, or, when there are more than `limit` (0: no limit), the preferred ones among the feasible.
        """
        width = state.rem.shape[1]
        usable = self.feasible(state).any(-1)
        most = int(usable.sum(1).max())
        if most == width and bool(usable.all()) and not (limit and width > limit):
            return torch.arange(width).expand(len(state), -1), usable
        if limit and most > limit:
            rank = self.preference(state).masked_fill(~usable, torch.inf)
            slots = rank.topk(limit, dim=1, largest=False, sorted=True).indices
        else:
            slots = (~usable).to(torch.int8).argsort(dim=1, stable=True)[:, : max(most, 1)]
        return slots, usable.gather(1, slots)

    def tokens(self, config: NetworkConfig, state: State, slots: Tensor, valid: Tensor) -> Tokens:
        """Tokens of the chosen slots: the two ends first, then the slots in the order given."""
        raise NotImplementedError

    def identifiers(self, state: State, slots: Tensor) -> Tensor | None:
        """Random node identifiers of the tokens; ATSP only."""
        return None

    def _with_ends(self, state: State, slots: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        nodes = torch.cat((state.origin[:, None], state.dest[:, None], state.rem.gather(1, slots)), 1)
        return nodes, torch.cat((torch.ones_like(valid[:, :1]).expand(-1, 2), valid), 1)


class _Planar(Environment):
    """Problems with coordinates: unit-square coordinates for the network, the file's own distances for the cost."""

    def __init__(self, xy: Any, rounding: str = "euclid", matrix: Any = None, seed: int = 0) -> None:
        exact = torch.as_tensor(np.asarray(xy, dtype=np.float64))
        super().__init__(exact.shape[0], exact.shape[1], seed)
        self.xy, self.rounding = exact, rounding
        self.matrix = None if matrix is None else torch.as_tensor(np.asarray(matrix, dtype=np.float64))
        low, high = exact.amin(1, keepdim=True), exact.amax(1, keepdim=True)
        side = (high - low).amax(-1, keepdim=True)
        # Coordinates that lie in the unit square already are what the network was trained on: leave them alone.
        inside = ((low >= 0) & (high <= 1)).all(-1, keepdim=True) & (side > 0.5)
        side = torch.where(inside | (side <= 0), 1.0, side)
        self.unit = side[:, 0, 0]
        self.plane = torch.where(inside, exact, (exact - low) / side).float()

    def distance(self, inst: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """See `Environment`: the matrix when there is one, else Euclidean with the stated rounding."""
        if self.matrix is not None:
            return self.matrix[inst, i, j]
        d = (self.xy[inst, i] - self.xy[inst, j]).square().sum(-1).sqrt()
        if self.rounding == "nint":
            return torch.floor(d + 0.5)
        return torch.ceil(d) if self.rounding == "ceil" else d

    def _seen(self, state: State, nodes: Tensor) -> Tensor:
        xy = self.plane[state.inst[:, None], nodes]
        if not bool(state.sym.any()):
            return xy
        # About the centre of the unit square, so that absolute features stay inside it.
        xy = xy - 0.5
        bit = state.sym[:, None, None]
        xy = torch.where((bit & 1) > 0, xy.flip(-1), xy)
        sign = torch.stack((1.0 - (state.sym & 2), 1.0 - (state.sym & 4) / 2.0), -1).to(xy.dtype)
        return xy * sign[:, None] + 0.5


class TspEnv(_Planar):
    """Path-TSP: visit every remaining node between the origin and the destination."""

    problem = "tsp"

    def initial(self) -> State:
        """Node 0 is origin and destination at once: the start stands twice in the token list."""
        inst = torch.arange(self.batch)
        zero = torch.zeros_like(inst)
        return self.path_state(inst, zero, zero, torch.arange(1, self.n).expand(self.batch, -1))

    def tokens(self, config: NetworkConfig, state: State, slots: Tensor, valid: Tensor) -> Tokens:
        """See `Environment`."""
        nodes, valid = self._with_ends(state, slots, valid)
        return tsp_tokens(config, self._seen(state, nodes), valid)


class AtspEnv(Environment):
    """Path-ATSP on cost matrices [B, N, N]; identifiers are drawn once, so a rollout keeps its own."""

    problem = "atsp"

    def __init__(self, matrix: Any, *, n_identifiers: int = 32, seed: int = 0) -> None:
        exact = torch.as_tensor(np.asarray(matrix, dtype=np.float64))
        super().__init__(exact.shape[0], exact.shape[1], seed)
        self.matrix = exact
        mean = exact.abs().mean((1, 2), keepdim=True).clamp_min(1e-12)
        self.scaled = (exact / mean).float()
        noise = np.random.default_rng([seed, 65]).random((self.n, n_identifiers), dtype=np.float32)
        self.noise = torch.from_numpy(noise)

    def distance(self, inst: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """See `Environment`."""
        return self.matrix[inst, i, j]

    def initial(self) -> State:
        """As for the TSP."""
        inst = torch.arange(self.batch)
        zero = torch.zeros_like(inst)
        return self.path_state(inst, zero, zero, torch.arange(1, self.n).expand(self.batch, -1))

    def tokens(self, config: NetworkConfig, state: State, slots: Tensor, valid: Tensor) -> Tokens:
        """See `Environment`; O(K^2) memory a row, because the costs themselves are the input."""
        nodes, valid = self._with_ends(state, slots, valid)
        return atsp_tokens(config, self.scaled[state.inst[:, None, None], nodes[:, :, None], nodes[:, None]], valid)

    def identifiers(self, state: State, slots: Tensor) -> Tensor:
        """See `Environment`."""
        nodes = torch.cat((state.origin[:, None], state.dest[:, None], state.rem.gather(1, slots)), 1)
        return self.noise[nodes]


class CvrpEnv(_Planar):
    """Path-CVRP: option 0 goes straight to a customer, option 1 by way of the depot (node 0), with a full vehicle.

    At the depot nothing is left in the vehicle, so only option 1 is feasible there: both options would be the same
    edge, and the probability must not be split between them.
    """

    problem = "cvrp"
    n_options = 2

    def __init__(
        self, xy: Any, demand: Any, capacity: Any, rounding: str = "euclid", matrix: Any = None, seed: int = 0
    ) -> None:
        super().__init__(xy, rounding, matrix, seed)
        self.demand = torch.as_tensor(np.asarray(demand, dtype=np.float64))
        self.capacity = torch.as_tensor(np.asarray(capacity, dtype=np.float64))

    def initial(self) -> State:
        """At the depot, with all customers to serve."""
        inst = torch.arange(self.batch)
        zero = torch.zeros_like(inst)
        return self.path_state(inst, zero, zero, torch.arange(1, self.n).expand(self.batch, -1))

    def feasible(self, state: State) -> Tensor:
        """Option 0 needs demand <= left and an origin other than the depot; option 1 is open whenever 0 <= capacity."""
        inside = torch.arange(state.rem.shape[1])[None] < state.count[:, None]
        demand = self.demand[state.inst[:, None], state.rem]
        direct = inside & (demand <= state.left[:, None]) & (state.origin != 0)[:, None]
        via = inside & (demand <= self.capacity[state.inst][:, None])
        return torch.stack((direct, via), -1)

    def step_cost(self, state: State, node: Tensor, flag: Tensor) -> tuple[Tensor, Tensor]:
        """See `Environment`."""
        direct = self.distance(state.inst, state.origin, node)
        depot = torch.zeros_like(node)
        via = self.distance(state.inst, state.origin, depot) + self.distance(state.inst, depot, node)
        full = torch.where(flag > 0, self.capacity[state.inst], state.left)
        return torch.where(flag > 0, via, direct), full - self.demand[state.inst, node]

    def move_cost(self, inst: Tensor, before: Tensor, node: Tensor, flag: Tensor) -> Tensor:
        """See `Environment`."""
        depot = torch.zeros_like(node)
        via = self.distance(inst, before, depot) + self.distance(inst, depot, node)
        return torch.where(flag > 0, via, self.distance(inst, before, node))

    def tokens(self, config: NetworkConfig, state: State, slots: Tensor, valid: Tensor) -> Tokens:
        """See `Environment`."""
        nodes, valid = self._with_ends(state, slots, valid)
        capacity = self.capacity[state.inst]
        # The origin is served already: its demand is no part of the tail instance.
        demand = torch.where(valid, self.demand[state.inst[:, None], nodes], 0.0) / capacity[:, None]
        demand[:, :2] = 0.0
        return cvrp_tokens(
            config, self._seen(state, nodes), valid, demand.float(), (state.left / capacity).float()
        )


class CvrptwEnv(CvrpEnv):
    """Path-CVRPTW: as the path-CVRP, and the vehicle has a clock, which the depot sets back to its opening.

    The tail instance is the origin, the clock with which it can be left, what is left in the vehicle, and the remaining
    customers. Waiting is free. A vehicle that comes by way of the depot starts with the day, so option 1 is open for every
    customer that can be served at all; customers that cannot are refused when the environment is made.
    """

    problem = "cvrptw"

    def __init__(
        self, xy: Any, demand: Any, capacity: Any, windows: Any, service: Any, rounding: str = "euclid",
        matrix: Any = None, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(xy, demand, capacity, rounding, matrix, seed)
        windows = torch.as_tensor(np.asarray(windows, dtype=np.float64))
        self.early, self.late = windows[..., 0], windows[..., 1]
        # Nothing is served at the depot.
        self.service = torch.as_tensor(np.array(service, dtype=np.float64))
        self.service[:, 0] = 0.0
        self.horizon = (self.late[:, 0] - self.early[:, 0]).clamp_min(1e-9)
        inst = torch.arange(self.batch)[:, None]
        nodes = torch.arange(self.n).expand(self.batch, -1)
        alone = self._on_time(inst, torch.zeros_like(nodes), nodes, self.early[:, :1])
        alone[:, 0] = True
        if not bool(alone.all()):
            b, v = torch.nonzero(~alone)[0].tolist()
            raise InstanceError(
                f"expected customers that a vehicle of their own can serve on time, got customer {v} of item {b}, which none "
                "can: check its window against the way from the depot and back"
            )

    def _on_time(self, inst: Tensor, start: Tensor, node: Tensor, clock: Tensor) -> Tensor:
        """Whether a vehicle that leaves `start` at `clock` is in time for `node` and then for the depot."""
        depot = torch.zeros_like(node)
        arrival = clock + self.distance(inst, start, node)
        served = torch.maximum(arrival, self.early[inst, node]) + self.service[inst, node]
        back = served + self.distance(inst, node, depot)
        return (arrival <= self.late[inst, node] + 1e-9) & (back <= self.late[inst, depot] + 1e-9)

    def path_state(
        self, inst: Tensor, origin: Tensor, dest: Tensor, rem: Tensor, left: Tensor | None = None,
        count: Tensor | None = None, clock: Tensor | None = None,
    ) -> State:  # fmt: skip
        """As `Environment.path_state`; `clock` [R]: when the origin can be left (absent: the depot's opening)."""
        state = super().path_state(inst, origin, dest, rem, left, count)
        state.clock = self.early[inst, 0] if clock is None else clock.double()
        return state

    def feasible(self, state: State) -> Tensor:
        """As in the CVRP; option 0 also needs to be in time for the customer and, after it, for the depot."""
        allowed = super().feasible(state)
        assert state.clock is not None
        allowed[..., 0] &= self._on_time(
            state.inst[:, None], state.origin[:, None], state.rem, state.clock[:, None]
        )
        return allowed

    def next_clock(self, state: State, node: Tensor, flag: Tensor) -> Tensor:
        """See `Environment`: arrival or the opening of the window, whichever is later, and the service."""
        assert state.clock is not None
        start = torch.where(flag > 0, torch.zeros_like(node), state.origin)
        clock = torch.where(flag > 0, self.early[state.inst, 0], state.clock)
        arrival = clock + self.distance(state.inst, start, node)
        return torch.maximum(arrival, self.early[state.inst, node]) + self.service[state.inst, node]

    def tokens(self, config: NetworkConfig, state: State, slots: Tensor, valid: Tensor) -> Tokens:
        """See `Environment`."""
        assert state.clock is not None
        nodes, valid = self._with_ends(state, slots, valid)
        inst, horizon, opening = state.inst[:, None], self.horizon[state.inst], self.early[state.inst, 0]
        capacity = self.capacity[state.inst]
        demand = torch.where(valid, self.demand[inst, nodes], 0.0) / capacity[:, None]
        demand[:, :2] = 0.0

        def share(x: Tensor) -> Tensor:
            return torch.where(valid, x / horizon[:, None], 0.0).float()

        times = Times(
            share(self.early[inst, nodes] - opening[:, None]), share(self.late[inst, nodes] - opening[:, None]),
            share(self.service[inst, nodes]), share(self.distance(inst, state.origin[:, None], nodes)),
            share(self.distance(inst, torch.zeros_like(nodes), nodes)), ((state.clock - opening) / horizon).float(),
        )  # fmt: skip
        left = (state.left / capacity).float()
        return cvrptw_tokens(config, self._seen(state, nodes), valid, demand.float(), left, times)


class OpEnv(_Planar):
    """Path-OP: collect prizes on the way from the origin to the depot (node 0) within the budget.

    The state keeps only nodes that can still be visited. An episode ends when there is none; there is no stop action.
    """

    problem = "op"
    prunes = True

    def __init__(
        self, xy: Any, prize: Any, budget: Any, rounding: str = "euclid", matrix: Any = None, seed: int = 0
    ) -> None:
        super().__init__(xy, rounding, matrix, seed)
        self.prize = torch.as_tensor(np.asarray(prize, dtype=np.float64))
        self.budget = torch.as_tensor(np.asarray(budget, dtype=np.float64))

    def initial(self) -> State:
        """At the depot with the whole budget."""
        inst = torch.arange(self.batch)
        zero = torch.zeros_like(inst)
        rem = torch.arange(1, self.n).expand(self.batch, -1)
        return self.path_state(inst, zero, zero, rem, self.budget)

    def feasible(self, state: State) -> Tensor:
        """Nodes from which the destination is still within the budget."""
        inside = torch.arange(state.rem.shape[1])[None] < state.count[:, None]
        inst = state.inst[:, None]
        there = self.distance(inst, state.origin[:, None], state.rem)
        back = self.distance(inst, state.rem, state.dest[:, None])
        return (inside & (there + back <= state.left[:, None] + OP_TOLERANCE))[..., None]

    def _over(self, state: State) -> Tensor:
        return ~self.feasible(state).any(-1).any(-1) if state.rem.shape[1] else state.count == 0

    def step_cost(self, state: State, node: Tensor, flag: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the prize; the budget shrinks by the leg (float64, so it does not drift)."""
        return -self.prize[state.inst, node], state.left - self.distance(state.inst, state.origin, node)

    def move_cost(self, inst: Tensor, before: Tensor, node: Tensor, flag: Tensor) -> Tensor:
        """See `Environment`."""
        return -self.prize[inst, node]

    def closing_cost(self, state: State) -> Tensor:
        """Nothing: only prizes count."""
        return torch.zeros_like(state.cost)

    def preference(self, state: State) -> Tensor:
        """Nearest and richest alternately: the smaller of the two ranks, so that each kind fills half the places."""
        usable = self.feasible(state)[..., 0]
        near = super().preference(state).masked_fill(~usable, torch.inf)
        rich = self.prize[state.inst[:, None], state.rem].masked_fill(~usable, -torch.inf)
        first = near.argsort(dim=1, stable=True).argsort(dim=1)
        second = rich.argsort(dim=1, stable=True, descending=True).argsort(dim=1)
        return torch.minimum(first, second).double()

    def tokens(self, config: NetworkConfig, state: State, slots: Tensor, valid: Tensor) -> Tokens:
        """See `Environment`."""
        nodes, valid = self._with_ends(state, slots, valid)
        prize = torch.where(valid, self.prize[state.inst[:, None], nodes], 0.0)
        prize[:, :2] = 0.0
        budget = state.left / self.unit[state.inst]
        return op_tokens(config, self._seen(state, nodes), valid, prize.float(), budget.float())


class KpEnv(Environment):
    """0/1 knapsack: a state is the set of items that still fit, and the capacity left. Rewards are values."""

    problem = "kp"
    has_ends = False
    prunes = True

    def __init__(self, value: Any, weight: Any, capacity: Any, seed: int = 0) -> None:
        self.value = torch.as_tensor(np.asarray(value, dtype=np.float64))
        self.weight = torch.as_tensor(np.asarray(weight, dtype=np.float64))
        self.capacity = torch.as_tensor(np.asarray(capacity, dtype=np.float64))
        super().__init__(self.value.shape[0], self.value.shape[1], seed)

    def distance(self, inst: Tensor, i: Tensor, j: Tensor) -> Tensor:
        """There is none; zero."""
        return torch.zeros(torch.broadcast_shapes(inst.shape, i.shape, j.shape), dtype=torch.float64)

    def initial(self) -> State:
        """All items, the whole capacity. Origin and destination mean nothing here and stay 0."""
        inst = torch.arange(self.batch)
        zero = torch.zeros_like(inst)
        return self.path_state(inst, zero, zero, torch.arange(self.n).expand(self.batch, -1), self.capacity)

    def feasible(self, state: State) -> Tensor:
        """Items that fit (1e-9 of tolerance: weights are often decimal fractions)."""
        inside = torch.arange(state.rem.shape[1])[None] < state.count[:, None]
        return (inside & (self.weight[state.inst[:, None], state.rem] <= state.left[:, None] + 1e-9))[
            ..., None
        ]

    def _over(self, state: State) -> Tensor:
        return ~self.feasible(state).any(-1).any(-1) if state.rem.shape[1] else state.count == 0

    def step_cost(self, state: State, node: Tensor, flag: Tensor) -> tuple[Tensor, Tensor]:
        """Minus the value; the capacity shrinks by the weight."""
        return -self.value[state.inst, node], state.left - self.weight[state.inst, node]

    def move_cost(self, inst: Tensor, before: Tensor, node: Tensor, flag: Tensor) -> Tensor:
        """See `Environment`."""
        return -self.value[inst, node]

    def closing_cost(self, state: State) -> Tensor:
        """Nothing."""
        return torch.zeros_like(state.cost)

    def step(self, state: State, slot: Tensor, flag: Tensor) -> State:
        """As above, but the last item packed is no part of the state: two orders of one set are one state."""
        moved = super().step(state, slot, flag)
        moved.origin = state.origin
        return moved

    def preference(self, state: State) -> Tensor:
        """Densest first."""
        inst = state.inst[:, None]
        return -self.value[inst, state.rem] / self.weight[inst, state.rem].clamp_min(1e-12)

    def tokens(self, config: NetworkConfig, state: State, slots: Tensor, valid: Tensor) -> Tokens:
        """See `Environment`; no ends."""
        items = state.rem.gather(1, slots)
        inst = state.inst[:, None]
        return kp_tokens(
            config,
            self.value[inst, items].float(),
            self.weight[inst, items].float(),
            state.left.float(),
            valid,
        )


def environment(problem: str, arrays: Mapping[str, Any], *, seed: int = 0) -> Environment:
    """The environment of a batch of instances given as arrays with leading axis B (see `generate`).

    Optional entries: `rounding` (`euclid`, `nint`, `ceil`) and, beside coordinates, `matrix` for the true costs.
    """
    a = arrays
    extra: dict[str, Any] = {
        "rounding": str(a.get("rounding", "euclid")),
        "matrix": a.get("matrix"),
        "seed": seed,
    }
    if problem == "tsp":
        return TspEnv(a["xy"], **extra)
    if problem == "atsp":
        return AtspEnv(a["matrix"], seed=seed)
    if problem == "cvrp":
        return CvrpEnv(a["xy"], a["demand"], a["capacity"], **extra)
    if problem == "cvrptw":
        return CvrptwEnv(a["xy"], a["demand"], a["capacity"], a["windows"], a["service"], **extra)
    if problem == "op":
        return OpEnv(a["xy"], a["prize"], a["budget"], **extra)
    if problem == "kp":
        return KpEnv(a["value"], a["weight"], a["capacity"], seed=seed)
    raise ValueError(f"expected a problem among tsp, atsp, cvrp, cvrptw, op, kp, got {problem!r}")
