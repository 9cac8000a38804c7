"""From the state of a BQ-MDP to the tokens that the network reads.

A state is an instance and nothing else, so the tokens are a function of the remaining nodes alone: two different
pasts with the same remaining instance give the same tokens.

Token order: slot 0 is the origin, slot 1 the destination, then the unvisited nodes in any order, then padding.
Knapsack items have no ends. The network is permutation-equivariant from slot 2 on, so the order carries nothing.
"""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor

from .assignment import regrets
from .config import NetworkConfig

N_ARC_COSTS = 4
N_ARC_ENDS = 14
"""Features of an ATSP token: the four costs to and from both ends; relative ones add what `arc_features` says."""


@frozen(eq=False)
class Tokens:
    """What the network reads.

    `x`: features [B, N, F]; `valid`: bool [B, N], False on padding; `xy`: coordinates [B, N, 2] in units of the
    typical spacing (for the distance bias), or None; `matrix` [B, C, N, N] or None: costs divided by their mean and, with
    relative features, the regret of each arc (`assignment`) in the same unit.
    """

    x: Tensor
    valid: Tensor
    xy: Tensor | None = None
    matrix: Tensor | None = None

    def to(self, device: torch.device) -> Tokens:
        """The same tokens on another device."""
        return Tokens(
            self.x.to(device),
            self.valid.to(device),
            None if self.xy is None else self.xy.to(device),
            None if self.matrix is None else self.matrix.to(device),
        )


def n_features(config: NetworkConfig) -> int:
    """Number of input features per token under this configuration."""
    if config.features == "absolute":
        return {"tsp": 2, "cvrp": 4, "op": 4, "kp": 3, "atsp": N_ARC_COSTS, "cvrptw": 8}[config.problem]
    return {"tsp": 9, "cvrp": 12, "op": 12, "kp": 7, "atsp": N_ARC_ENDS, "cvrptw": 20}[config.problem]


def unit_box(xy: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Centre each row's valid points and divide by the longer side; returns points [B, N, 2] and scale [B].

    One common factor for both axes keeps the aspect. A single point, or coincident ones, keep scale 1.
    """
    inf = torch.full_like(xy, torch.inf)
    keep = valid[..., None]
    low = torch.where(keep, xy, inf).amin(1)
    high = torch.where(keep, xy, -inf).amax(1)
    scale = (high - low).amax(-1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    centred = (xy - ((low + high) / 2)[:, None]) / scale[:, None, None]
    return torch.where(keep, centred, torch.zeros_like(centred)), scale


def _geometry(xy: Tensor, valid: Tensor, relative: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Geometric features [B, N, 2 or 9], spaced coordinates [B, N, 2], unit-box coordinates, and the scale [B]."""
    box, scale = unit_box(xy, valid)
    n = valid.sum(1)
    spaced = box * n.to(box.dtype).sqrt()[:, None, None]
    if not relative:
        return xy, spaced, box, scale
    to_origin = box - box[:, :1]
    to_end = box - box[:, 1:2]
    log_n = (n.to(box.dtype).log() / 5.0)[:, None, None].expand(-1, box.shape[1], 1)
    x = torch.cat(
        (
            box,
            to_origin,
            to_origin.norm(dim=-1, keepdim=True),
            to_end,
            to_end.norm(dim=-1, keepdim=True),
            log_n,
        ),
        -1,
    )
    return x, spaced, box, scale


def tsp_tokens(config: NetworkConfig, xy: Tensor, valid: Tensor) -> Tokens:
    """Tokens of path-TSP states; `xy`: [B, N, 2], origin first, destination second."""
    x, spaced, _, _ = _geometry(xy, valid, config.features == "relative")
    return Tokens(x, valid, spaced)


def cvrp_tokens(
    config: NetworkConfig, xy: Tensor, valid: Tensor, demand: Tensor, remaining: Tensor
) -> Tokens:
    """Tokens of path-CVRP states; `demand`: [B, N] and `remaining`: [B], both divided by the capacity."""
    relative = config.features == "relative"
    x, spaced, _, _ = _geometry(xy, valid, relative)
    left = remaining[:, None].expand_as(demand)
    extra = [demand, left]
    if relative:
        extra.append((demand <= left + 1e-6).to(demand.dtype))
    return Tokens(torch.cat((x, torch.stack(extra, -1)), -1), valid, spaced)


@frozen(eq=False)
class Times:
    """Time on the tokens of a path-CVRPTW state, all divided by the depot's opening hours and counted from its opening.

    `early`, `late`, `service` [B, N]: window and duration; `travel`, `home` [B, N]: way from the origin and from the depot;
    `clock` [B]: when the vehicle can leave the origin.
    """

    early: Tensor
    late: Tensor
    service: Tensor
    travel: Tensor
    home: Tensor
    clock: Tensor


def cvrptw_tokens(
    config: NetworkConfig, xy: Tensor, valid: Tensor, demand: Tensor, remaining: Tensor, times: Times
) -> Tokens:
    """Tokens of path-CVRPTW states; `demand` [B, N] and `remaining` [B] divided by the capacity.

    The windows of the two ends are left out: the origin is served, and the depot's is the unit of time.
    """
    relative = config.features == "relative"
    x, spaced, _, _ = _geometry(xy, valid, relative)
    left, clock = remaining[:, None].expand_as(demand), times.clock[:, None].expand_as(demand)
    if not relative:
        extra = [demand, left, times.early, times.late, times.service, clock]
    else:
        arrival = clock + times.travel
        spare, spare_via = times.late - arrival, times.late - times.home
        fits = ((demand <= left + 1e-6) & (spare >= -1e-6)).to(demand.dtype)
        extra = [
            demand, left, fits, times.early - clock, times.late - clock, spare, (times.early - arrival).clamp_min(0.0),
            spare_via, (times.early - times.home).clamp_min(0.0), times.service, clock,
        ]  # fmt: skip
    stacked = torch.stack(extra, -1)
    between = torch.ones_like(demand)
    between[:, :2] = 0.0
    kept = (0, 1, 5) if not relative else (0, 1, 10)
    mask = torch.stack([torch.ones_like(demand) if i in kept else between for i in range(len(extra))], -1)
    return Tokens(torch.cat((x, stacked * mask), -1), valid, spaced)


def op_tokens(config: NetworkConfig, xy: Tensor, valid: Tensor, prize: Tensor, budget: Tensor) -> Tokens:
    """Tokens of path-OP states; `prize`: [B, N], `budget`: [B] in the unit of the coordinates."""
    relative = config.features == "relative"
    x, spaced, box, scale = _geometry(xy, valid, relative)
    if not relative:
        left = budget[:, None].expand_as(prize)
        return Tokens(torch.cat((x, torch.stack((prize, left), -1)), -1), valid, spaced)
    top = torch.where(valid, prize, torch.zeros_like(prize)).amax(1).clamp_min(1e-9)
    left = (budget / scale)[:, None].expand_as(prize)
    detour = (box - box[:, :1]).norm(dim=-1) + (box - box[:, 1:2]).norm(dim=-1)
    return Tokens(
        torch.cat((x, torch.stack((prize / top[:, None], left, left - detour), -1)), -1), valid, spaced
    )


def kp_tokens(
    config: NetworkConfig, value: Tensor, weight: Tensor, capacity: Tensor, valid: Tensor
) -> Tokens:
    """Tokens of knapsack states; `value`, `weight`: [B, N], `capacity`: [B], any one unit.

    Among the relative features are what the fractional relaxation says of an item: how full the knapsack is when all
    denser items are packed, and its value beyond the price (the density of the first item that no longer fits whole)
    of its weight. O(N log N).
    """
    value, weight = torch.where(valid, value, 0.0), torch.where(valid, weight, 0.0)
    top = value.amax(1, keepdim=True).clamp_min(1e-12)
    if config.features == "absolute":
        heaviest = weight.amax(1, keepdim=True).clamp_min(1e-12)
        left = (capacity[:, None] / heaviest).expand_as(value)
        return Tokens(torch.stack((value / top, weight / heaviest, left), -1), valid)
    density = value / weight.clamp_min(1e-9)
    best = density.amax(1, keepdim=True).clamp_min(1e-12)
    left = capacity[:, None].clamp_min(1e-12)
    tightness = (left / weight.sum(1, keepdim=True).clamp_min(1e-9)).clamp_max(4.0).expand_as(value)
    fill, price = _relaxation(density, weight, capacity, valid)
    x = torch.stack(
        (
            value / top,
            (weight / left).clamp_max(4.0),
            density / best,
            (density / best).sqrt(),
            tightness,
            fill.clamp_max(2.0),
            4.0 * (value - price[:, None] * weight) / top,
        ),
        -1,
    )
    return Tokens(x, valid)


def _relaxation(
    density: Tensor, weight: Tensor, capacity: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Weight of all strictly denser items over the capacity [B, N], and the price of weight [B] (0: all items fit)."""
    key = torch.where(valid, -density, torch.inf)
    ranked, order = key.sort(1)
    # Sums in float64: whether an item still fits must not hang on the order of additions.
    total = weight.double().gather(1, order).cumsum(1)
    before = torch.cat((torch.zeros_like(total[:, :1]), total[:, :-1]), 1)
    denser = before.gather(1, torch.searchsorted(ranked, key).clamp_max(key.shape[1] - 1))
    beyond = (total > capacity[:, None].double() + 1e-9) & (ranked < torch.inf)
    first = beyond.to(torch.int8).argmax(1, keepdim=True)
    price = torch.where(beyond.any(1), -ranked.gather(1, first)[:, 0], 0.0)
    return (denser / capacity[:, None].double().clamp_min(1e-12)).to(density.dtype), price


def atsp_tokens(config: NetworkConfig, matrix: Tensor, valid: Tensor) -> Tokens:
    """Tokens of path-ATSP states; `matrix`: costs [B, N, N], origin first, destination second.

    The features of tokens and arcs follow from the matrices; the network asks `arc_features` for them.
    """
    both = valid[:, :, None] & valid[:, None]
    kept = torch.where(both, matrix, torch.zeros_like(matrix))
    mean = kept.abs().sum((1, 2)) / both.sum((1, 2)).clamp_min(1)
    scaled = kept / mean.clamp_min(1e-12)[:, None, None]
    parts = [scaled]
    if config.features == "relative":
        parts.append(torch.from_numpy(regrets(scaled.numpy(), valid.sum(1).numpy())))
    return Tokens(matrix.new_zeros((*valid.shape, 0)), valid, None, torch.stack(parts, 1))


def arc_features(matrix: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """What the costs say of an ATSP state: features of its tokens [B, N, 14] and of its arcs [B, N, N, 6].

    `matrix` [B, 2, N, N]: costs and regrets, origin first, destination second. The unit is the mean cost of the cheapest
    arcs out of the nodes, which grows as the instance shrinks; only arcs of the tail instance count: none into the origin,
    out of the destination, or past all the rest.
    """
    cost, regret = matrix.unbind(1)
    n = cost.shape[1]
    barred = ~(valid[:, :, None] & valid[:, None]) | torch.eye(n, dtype=torch.bool, device=matrix.device)
    ends = torch.zeros(n, n, dtype=torch.bool, device=matrix.device)
    ends[1], ends[:, 0] = True, True
    if n > 2:
        ends[0, 1] = True
    allowed = cost.masked_fill(barred | ends, torch.inf)
    out, into = allowed.amin(2), allowed.amin(1)
    out = torch.where(out < torch.inf, out, 0.0)
    into = torch.where(into < torch.inf, into, 0.0)
    real = valid.to(matrix.dtype) * (~ends[:, 0] | (torch.arange(n, device=matrix.device) == 0)).to(matrix.dtype)
    # The costs have mean one: a fiftieth of it keeps the unit from vanishing where many arcs are free.
    unit = (out.clamp_min(0.0) * real).sum(1) / real.sum(1).clamp_min(1.0) + 0.02
    cost, regret = cost / unit[:, None, None], regret / unit[:, None, None]
    out, into = out / unit[:, None], into / unit[:, None]
    size = 0.5 * torch.log1p(cost.clamp_min(0.0))
    near = torch.exp(-(cost - out[:, :, None]).clamp_min(0.0))
    fits, roughly = torch.exp(-4.0 * regret), torch.exp(-0.5 * regret)
    arcs = torch.stack((size, near, fits, size.mT, fits.mT, roughly), -1)
    count = (valid.sum(1, keepdim=True).to(matrix.dtype).log() / 5.0).expand(-1, n)
    tokens = torch.stack(
        (
            size[:, 0], near[:, 0], fits[:, 0], roughly[:, 0], torch.exp(-16.0 * regret[:, 0]), size[:, :, 1],
            fits[:, :, 1], roughly[:, :, 1], size[:, :, 0], size[:, 1], 0.5 * torch.log1p(out.clamp_min(0.0)),
            0.5 * torch.log1p(into.clamp_min(0.0)),
            torch.exp(-(cost[:, 0] - into).clamp_min(0.0)), count,
        ),
        -1,
    )  # fmt: skip
    return tokens, arcs
