"""One level of the search in tensors of fixed shape: what a captured CUDA graph, or a compiler, can run.

No shape and no branch here depends on data, and nothing is read back to the host. Episodes that have ended stay in the
batch under a mask and write to one spare row, the sink, at the end of every table. Each depth has tables of its own: belief
nodes with their keys in sorted order, and the actions tried at them in order of (belief, action), so that the actions of a
belief lie side by side and sums over them are sums over segments.

The numbers are those of :mod:`sfumato_vopp.search_array` on the same draws, up to the order of floating-point sums.

Source: as :mod:`sfumato_vopp.search_array`.
"""

from __future__ import annotations

from typing import Any

import attrs
import torch

from sfumato_vopp.config import SearchConfig
from sfumato_vopp.counter import SLOTS_PER_STEP
from sfumato_vopp.ops_torch import GAMMA, TorchDraws, check_types, mix64, signed

__all__ = ["Carry", "Index", "Level", "Rules", "advance", "arrive", "back_up", "find_or_add"]

#: Fills the unused part of an index; no real key reaches it.
NO_KEY = (1 << 63) - 1
FULL, COLLISION, BAD_REWARD, BAD_OBSERVATION, BAD_STATE = 1, 2, 4, 8, 16


@attrs.frozen(eq=False)
class Rules:
    """What does not change during a search: the model, on tensors, and the options of the method."""

    model: Any
    config: SearchConfig
    eta: float
    n_actions: int
    leaf: bool
    prior: float
    log_actions: float


class Index:
    """A map from int64 keys to the ids 0 … count-1, in ``room`` places: sorted keys, then ``NO_KEY``."""

    def __init__(self, room: int, device: Any) -> None:
        self.keys = torch.full((room,), NO_KEY, dtype=torch.int64, device=device)
        self.ids = torch.full((room,), room, dtype=torch.int64, device=device)
        self.count = torch.zeros((), dtype=torch.int64, device=device)

    @property
    def room(self) -> int:
        """Places there are."""
        return self.keys.shape[0]

    def clear(self) -> None:
        """Forget all keys."""
        self.keys.fill_(NO_KEY)
        self.ids.fill_(self.room)
        self.count.zero_()


#: Columns of a level's two tables: name -> (dtype, value of an empty row).
BELIEF: dict[str, tuple[torch.dtype, float]] = {
    "n": (torch.int64, 0), "hint": (torch.float64, 0.0), "hint_n": (torch.int64, 0), "share": (torch.float64, 0.0),
    "v": (torch.float64, 0.0), "born": (torch.int64, -1), "stamp": (torch.int64, -1), "untried": (torch.float64, 0.0),
    "parent": (torch.int64, 0), "obs": (torch.int64, 0), "first": (torch.int64, 0), "m": (torch.int64, 0),
    "mass": (torch.float64, 0.0), "w0": (torch.float64, 0.0),
}  # fmt: skip
ACTION: dict[str, tuple[torch.dtype, float]] = {
    "act_n": (torch.int64, 0), "end": (torch.int64, 0), "reward": (torch.float64, 0.0), "q_sum": (torch.float64, 0.0),
    "psi": (torch.float64, 0.0), "before": (torch.float64, 0.0), "weight": (torch.float64, 0.0),
}  # fmt: skip


class Level:
    """The nodes of one depth, ``room`` beliefs and ``room`` actions, each column with a sink at its end.

    ``before`` and ``weight`` are in the order of ``actions.keys``: the mass of all actions ahead of this one at its belief,
    and its own. All other columns are in the order in which nodes were made.
    """

    def __init__(self, room: int, device: Any) -> None:
        self.room = room
        self.beliefs, self.actions = Index(room, device), Index(room, device)
        for name, (dtype, fill) in {**BELIEF, **ACTION}.items():
            setattr(self, name, torch.full((room + 1,), fill, dtype=dtype, device=device))

    def clear(self) -> None:
        """Empty the tables."""
        self.beliefs.clear()
        self.actions.clear()
        for name, (_, fill) in {**BELIEF, **ACTION}.items():
            getattr(self, name).fill_(fill)

    def grown(self, room: int) -> Level:
        """Return a level of more room with the same nodes."""
        out = Level(room, self.n.device)  # type: ignore[attr-defined]
        for name in (*BELIEF, *ACTION):
            getattr(out, name)[: self.room] = getattr(self, name)[: self.room]
        for mine, theirs in ((self.beliefs, out.beliefs), (self.actions, out.actions)):
            theirs.keys[: self.room] = mine.keys
            theirs.ids[: self.room] = torch.where(mine.ids == self.room, room, mine.ids)
            theirs.count.copy_(mine.count)
        return out

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        columns = [getattr(self, name) for name in (*BELIEF, *ACTION)]
        columns += [self.beliefs.keys, self.beliefs.ids, self.actions.keys, self.actions.ids]
        return sum(c.numel() * c.element_size() for c in columns)


class Carry:
    """The episodes of an iteration under way: tensors of n items, overwritten level by level.

    Attributes:
        nodes: int64, belief of each episode at the present depth; the sink where it has ended.
        states: [n, width]; streams: int64, place of each episode in its random stream; alive: bool.
        iteration, steps, flags: 0-dimensional int64; steps simulated since the tree was begun, and what went wrong.
    """

    def __init__(self, n: int, width: int, dtype: torch.dtype, device: Any) -> None:
        self.nodes = torch.zeros(n, dtype=torch.int64, device=device)
        self.states = torch.zeros((n, width), dtype=dtype, device=device)
        self.streams = torch.zeros(n, dtype=torch.int64, device=device)
        self.alive = torch.zeros(n, dtype=torch.bool, device=device)
        self.iteration, self.steps, self.flags = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(3))


def find_or_add(index: Index, keys: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the id [n] of each wanted key, new ids for keys not known yet, and a flag (0-dim) if there was no room.

    Items not wanted, or without room, get the sink's id, ``index.room``. O(room + n log n).
    """
    room, n, device = index.room, keys.shape[0], keys.device
    keys = torch.where(wanted, keys, NO_KEY)
    place = torch.searchsorted(index.keys, keys).clamp(max=room - 1)
    known = wanted & (index.keys[place] == keys)
    ordered, which = torch.sort(torch.where(known, NO_KEY, keys))
    is_key = ordered < NO_KEY
    first = is_key & torch.cat([is_key[:1], ordered[1:] != ordered[:-1]])
    rank = torch.cumsum(first, 0) - 1
    fresh = torch.where(is_key, index.count + rank, room).clamp(max=room)
    ids = torch.where(known, index.ids[place], torch.empty_like(fresh).scatter_(0, which, fresh))

    # Merge: the j-th fresh key goes behind j fresh ones and all old ones that are smaller.
    target = torch.where(first, rank, n)
    fresh_keys = torch.full((n + 1,), NO_KEY, dtype=torch.int64, device=device).scatter_(0, target, ordered)[:n]
    number = torch.arange(n, device=device)
    count = rank[-1] + 1
    is_fresh = number < count
    insert = torch.searchsorted(index.keys, fresh_keys)
    shift = torch.cumsum(torch.zeros(room + 1, dtype=torch.int64, device=device).index_add_(0, insert, is_fresh.long()), 0)
    old_place = (torch.arange(room, device=device) + shift[:room]).clamp(max=room)
    new_place = torch.where(is_fresh, insert + number, room).clamp(max=room)
    for column, fill, added in (
        (index.keys, NO_KEY, fresh_keys), (index.ids, room, (index.count + number).clamp(max=room))
    ):  # fmt: skip
        merged = torch.full((room + 1,), fill, dtype=torch.int64, device=device).scatter_(0, old_place, column)
        column.copy_(merged.scatter_(0, new_place, added)[:room])
    full = index.count + count > room
    index.count.copy_((index.count + count).clamp(max=room))
    return ids, full


def choose(rules: Rules, level: Any, carry: Carry, u: torch.Tensor, is_root: bool) -> torch.Tensor:
    """Draw one action an episode from softmax(η Ψ), by inversion in the order of action ids; int64 [n].

    Untried actions, all of one weight, fill the gaps between the tried ones.
    """
    A, epsilon = rules.n_actions, rules.config.root_mixing
    nodes = carry.nodes
    uniform = level.born[nodes] == carry.iteration
    if is_root and epsilon > 0.0:
        mixed = u < epsilon
        u = torch.where(mixed, u / epsilon, (u - epsilon) / max(1.0 - epsilon, 1e-300))
        uniform = uniform | mixed
    x, first, m = u * level.mass[nodes], level.first[nodes], level.m[nodes]
    # The number of tried actions that start at or before x, by bisection; as many rounds as the largest m may need.
    low, high = torch.zeros_like(m), m
    for _ in range(A.bit_length()):
        middle = (low + high) // 2
        right = (low < high) & (level.before[first + middle] <= x)
        low, high = torch.where(right, middle + 1, low), torch.where((low < high) & ~right, middle, high)
    at = first + low - 1
    has = low > 0
    here = at.clamp(min=0)
    keys = level.actions.keys
    tried = keys[here.clamp(max=level.room - 1)] % A
    end = torch.where(has, level.before[here] + level.weight[here], 0.0)
    gap = torch.where(has, tried + 1, 0)
    limit = torch.where(low < m, keys[(at + 1).clamp(max=level.room - 1)] % A, A) - 1
    w0 = level.w0[nodes]
    skipped = torch.where(w0 > 0.0, (x - end) / torch.where(w0 > 0.0, w0, 1.0), 0.0).clamp(min=0.0, max=float(A)).long()
    untried = torch.minimum(gap + skipped, limit)
    # Rounding may leave x in a gap of no width: then it belongs to the action before, or to the first.
    sure = has & ((x < end) | (limit < gap))
    action = torch.where(sure, tried, untried.clamp(min=0))
    return torch.where(uniform, (u * A).long().clamp(max=A - 1), action)


def arrive(level: Any, carry: Carry) -> None:
    """Count a visit of each episode's node."""
    level.n.index_add_(0, carry.nodes, carry.alive.long())
    level.stamp[carry.nodes] = carry.iteration


def _belief_keys(rules: Rules, entries: torch.Tensor, observations: torch.Tensor) -> torch.Tensor:
    """Return a key for each (action entry, observation): exact when ids are bounded, else 63 well-mixed bits."""
    if rules.model.n_observations is not None:
        return entries * rules.model.n_observations + observations
    return mix64(mix64(observations) + entries * GAMMA) & (NO_KEY >> 1)


def advance(rules: Rules, level: Any, below: Any, carry: Carry, is_root: bool, is_last: bool) -> None:
    """Take all episodes one step: choose, simulate, find or make the nodes that they come to, gather leaf estimates."""
    A, model = rules.n_actions, rules.model
    arrive(level, carry)
    nodes, alive, iteration = carry.nodes, carry.alive, carry.iteration
    born = level.born[nodes]
    level.born[nodes] = torch.where(born < 0, iteration, born)
    draws = TorchDraws(carry.streams, 1, SLOTS_PER_STEP)
    actions = choose(rules, level, carry, draws.random(), is_root)
    out = model.step(carry.states, actions, draws)
    check_types(model, out, len(nodes))
    rewards = torch.where(alive, out.rewards.double(), 0.0)
    bad = torch.where(torch.isfinite(rewards).all(), 0, BAD_REWARD)
    if out.states.is_floating_point():
        sound = torch.isfinite(out.states).all(1) | ~alive | out.terminal
        bad = bad | torch.where(sound.all(), 0, BAD_STATE)
    observations = torch.where(alive, out.observations, 0)
    if model.n_observations is not None:
        inside = (observations >= 0) & (observations < model.n_observations)
        bad = bad | torch.where(inside.all(), 0, BAD_OBSERVATION)
        observations = torch.where(inside, observations, 0)

    before = level.actions.count.clone()
    entries, full = find_or_add(level.actions, nodes * A + actions, alive)
    fresh = torch.where(entries >= before, entries, level.room)
    level.psi[fresh] = level.untried[nodes]
    level.act_n.index_add_(0, entries, alive.long())
    level.reward.index_add_(0, entries, rewards)
    level.end.index_add_(0, entries, (alive & out.terminal).long())
    carry.steps.add_(alive.sum())
    alive = alive & ~out.terminal

    before = below.beliefs.count.clone()
    arrived, too_many = find_or_add(below.beliefs, _belief_keys(rules, entries, observations), alive)
    fresh = torch.where(arrived >= before, arrived, below.room)
    below.parent[fresh] = entries
    below.obs[fresh] = observations
    same = (below.parent[arrived] == entries) & (below.obs[arrived] == observations)
    lost = alive & (arrived < below.room) & ~same
    bad = bad | torch.where(full | too_many, FULL, 0) | torch.where(lost.any(), COLLISION, 0)
    carry.flags.copy_(carry.flags | bad)

    carry.states.copy_(torch.where(alive[:, None], out.states, carry.states))
    if rules.leaf or is_last:
        hints = model.value_hint(carry.states, actions).double()
        born = below.born[arrived]
        open_ = alive & ((born < 0) | (born == iteration))
        below.hint.index_add_(0, arrived, torch.where(open_, hints, 0.0))
        below.hint_n.index_add_(0, arrived, open_.long())
    carry.nodes.copy_(arrived)
    carry.alive.copy_(alive)
    carry.streams.add_(signed(SLOTS_PER_STEP * (GAMMA % (1 << 64)) % (1 << 64)))


def _segment_sum(values: torch.Tensor, segments: torch.Tensor, n: int) -> torch.Tensor:
    return torch.zeros(n, dtype=values.dtype, device=values.device).index_add_(0, segments, values)


def _segment_max(values: torch.Tensor, segments: torch.Tensor, n: int) -> torch.Tensor:
    return torch.full((n,), -torch.inf, dtype=values.dtype, device=values.device).scatter_reduce_(0, segments, values, "amax")


def back_up(rules: Rules, level: Any, above: Any | None, iteration: torch.Tensor) -> None:
    """Ψ(b,a) += Q(e) - V_old(b) at this depth, then V(b), the sampling masses, and the share of the level above."""
    c, eta, A, room = rules.config, rules.eta, rules.n_actions, level.room
    rows = torch.arange(room + 1, device=iteration.device)
    chosen = rows < level.beliefs.count if c.backup == "tree" else level.stamp == iteration
    chosen = chosen & (rows < room)
    counted = level.hint_n > 0
    leaf = torch.where(counted, level.hint / torch.where(counted, level.hint_n, 1), 0.0)
    on, fresh = chosen & (level.born >= 0), level.born == iteration
    start = leaf - rules.log_actions if rules.leaf else torch.full_like(leaf, rules.prior)

    valid = rows[:room] < level.actions.count
    entry = level.actions.ids
    belief = torch.where(valid, level.actions.keys // A, room)
    action = torch.where(valid, level.actions.keys % A, 0)
    psi = torch.where(fresh[belief], start[belief], level.psi[entry])
    untried = torch.where(fresh, start, level.untried)
    old = torch.where(fresh, start + rules.log_actions, level.v)
    if c.log_sum == "children":
        top = _segment_max(torch.where(valid, psi, -torch.inf), belief, room + 1)
        mass = _segment_sum(torch.where(valid, torch.exp(eta * (psi - top[belief])), 0.0), belief, room + 1)
        old = top + torch.log(mass) / eta
    n = level.act_n[entry]
    under = n - level.end[entry] if c.denominator == "survivors" else n
    q = level.reward[entry] / n.clamp(min=1) + rules.model.discount * torch.where(
        under > 0, level.q_sum[entry] / under.clamp(min=1), 0.0
    )
    psi = torch.where(on[belief], psi + q - old[belief], psi)
    if c.subtract == "all":
        untried = torch.where(on, untried - old, untried)
    m = _segment_sum(valid.long(), belief, room + 1)
    some_untried = m < A
    best = _segment_max(torch.where(valid, psi, -torch.inf), belief, room + 1)
    best = torch.where(some_untried, torch.maximum(best, untried), best)
    psi, untried = torch.maximum(psi, (best - c.clip / eta)[belief]), torch.maximum(untried, best - c.clip / eta)
    weight = torch.where(valid, torch.exp(eta * (psi - best[belief])), 0.0)
    w0 = torch.where(some_untried, torch.exp(eta * (untried - best)), 0.0)
    tried_mass = _segment_sum(weight, belief, room + 1)
    mass = tried_mass + (A - m) * w0
    value = best + torch.log(tried_mass if c.log_sum == "children" else mass) / eta
    value = torch.where(on, value, torch.where(chosen, leaf, level.v))

    first = torch.cumsum(m, 0) - m
    running = torch.cumsum(weight, 0) - weight
    place = rows[:room]
    own = first[belief].clamp(max=room - 1)
    before = running - running[own] + (action - (place - own)) * w0[belief]
    level.before[:room] = before
    level.weight[:room] = weight
    level.psi[entry] = psi
    for name, fill in (("untried", untried), ("v", value), ("first", first.clamp(max=room)), ("m", m), ("mass", mass), ("w0", w0)):
        getattr(level, name).copy_(fill)
    if above is not None:
        share = torch.where(chosen, level.n * value, level.share)
        above.q_sum.index_add_(0, torch.where(chosen, level.parent, above.room), torch.where(chosen, share - level.share, 0.0))
        level.share.copy_(share)
