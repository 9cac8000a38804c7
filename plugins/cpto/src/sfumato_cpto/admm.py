"""Bi-convex consensus ADMM: its state, its reference iteration in numpy, and residuals.

One iteration fixes everything but one block at a time, and each block has a closed form: heading, positions
(one product with a cached factor), speed, angle and distance to each obstacle, bounds, consensus, duals.

Source: Zheng et al., arXiv:2409.10310, section on parallel consensus optimisation. Departures: two-sided bounds
are projected as intervals instead of as pairs of slack rows (the same fixed points with half the rows); angle and
distance come from the raw offset, without the dual, since a growing dual would flip the passing side; terms that
involve an absent obstacle are proximal, so that every candidate shares one factor.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import NDArray

from sfumato_cpto.barrier import project_exact, project_forward
from sfumato_cpto.bernstein import start_coefficients
from sfumato_cpto.config import Stage
from sfumato_cpto.problem import Problem
from sfumato_cpto.transcription import Factors, Transcription

Array = NDArray[np.float64]

PROJECTIONS = {"forward": 0, "exact": 1, "previous-iterate": 2}
RESIDUALS = ("obstacle", "bounds", "motion", "heading", "consensus", "dual")
FREEZE_SPEED = 0.5  # m/s; below it the direction of motion says nothing about the heading


@attrs.define(eq=False)
class AdmmState:
    """Iterates and scaled duals. Rows of [2 C, ...] are axis * C + candidate.

    Attributes:
        coef: [2 C, n + 1]; sample: [2 C, 4 N]; heading: [C, N]; speed: [C, N].
        box: [2 C, 4 N] projected samples; dual_box the same shape.
        dual_motion: [2 C, N]; dual_heading: [C, N]; dual_obstacle: [2, C, M, N].
        distance: [C, M, N]; pull: [2 C, N], the obstacle block's summed targets.
        share: [2, 4 N], consensus samples; dual_share: [2 C, 4 N] (rows beyond N_c stay 0);
        share_heading: [N]; dual_share_heading: [C, N].
    """

    coef: Array
    sample: Array
    heading: Array
    speed: Array
    box: Array
    dual_box: Array
    dual_motion: Array
    dual_heading: Array
    dual_obstacle: Array
    distance: Array
    pull: Array
    share: Array
    dual_share: Array
    share_heading: Array
    dual_share_heading: Array


def fixed_coefficients(t: Transcription, problem: Problem) -> tuple[Array, Array]:
    """Return the coefficients that the start fixes: [2, 3] for x and y, [2] for the heading."""
    degree = t.settings.degree
    rows = problem.start.tolist()
    xy = np.stack([start_coefficients(p, v, a, degree, t.duration) for p, v, a in rows])
    turn = problem.yaw_rate * t.duration / degree
    return xy, np.array([problem.heading, problem.heading + turn])


def initial_state(t: Transcription, problem: Problem, guess: Array) -> AdmmState:
    """Return the state at coefficients `guess` [2, C, n + 1] with zero duals and slacks taken from the guess."""
    c, m, n = problem.n_candidates, problem.n_obstacles, t.n
    coef = np.array(
        guess.reshape(2 * c, -1), order="C"
    )  # a copy: kernels work in place, and the guess may be needed again
    sample = coef @ t.samples
    velocity = sample[:, n : 2 * n]
    # The heading step comes first in an iteration; only the penalty consensus looks at this value.
    heading = np.unwrap(np.arctan2(velocity[c:], velocity[:c]), axis=1)
    speed = np.clip(np.hypot(velocity[:c], velocity[c:]), 0.0, problem.speed_cap)
    _, scaled = _offsets(problem, sample, c, n)
    distance = np.sqrt((scaled**2).sum(axis=0))
    pull = sample[:, :n] * m
    weight = problem.weight
    share = np.stack([weight @ sample[:c], weight @ sample[c:]])
    return AdmmState(
        coef=coef,
        sample=sample,
        heading=heading,
        speed=speed,
        box=np.clip(sample, problem.low, problem.high),
        dual_box=np.zeros_like(sample),
        dual_motion=np.zeros((2 * c, n)),
        dual_heading=np.zeros((c, n)),
        dual_obstacle=np.zeros((2, c, m, n)),
        distance=distance,
        pull=pull,
        share=share,
        dual_share=np.zeros_like(sample),
        share_heading=weight @ heading,
        dual_share_heading=np.zeros((c, n)),
    )


def unwrapped_heading(v_x: Array, v_y: Array, heading: float) -> Array:
    """Return the direction of motion [C, N], continuous from `heading`, frozen where nearly at rest."""
    phi = np.arctan2(v_y, v_x)
    moving = v_x * v_x + v_y * v_y >= FREEZE_SPEED**2
    result = np.empty_like(phi)
    last = np.full(len(phi), heading)
    for k in range(phi.shape[1]):
        turn = phi[:, k] - last
        turn = turn - 2.0 * np.pi * np.floor(turn / (2.0 * np.pi) + 0.5)
        last = np.where(moving[:, k], last + turn, last)
        result[:, k] = last
    return result


def _offsets(problem: Problem, sample: Array, c: int, n: int) -> tuple[Array, Array]:
    position = sample[:, :n].reshape(2, c, 1, n)
    offset = position - problem.centre.transpose(1, 0, 2)[:, None]
    return offset, offset / problem.axes.transpose(1, 0, 2)[:, None]


def iterate(t: Transcription, factors: Factors, stage: Stage, problem: Problem, state: AdmmState) -> Array:
    """Do one iteration in place; return the residuals in the order of RESIDUALS, as maxima over samples.

    Cost: O(C N (n + M)). The reference for the compiled kernels, which agree to 1e-8.
    """
    s = t.settings
    n, c, m = t.n, problem.n_candidates, problem.n_obstacles
    near = slice(0, s.n_consensus)
    penalty = s.consensus == "admm"
    w = problem.weight
    fixed, fixed_heading = fixed_coefficients(t, problem)

    velocity = state.sample[:, n : 2 * n]
    phi = unwrapped_heading(velocity[:c], velocity[c:], problem.heading)
    target = stage.rho_heading * (phi - state.dual_heading)
    if penalty:
        target[:, near] += stage.rho_consensus * (state.share_heading - state.dual_share_heading)[:, near]
    coef_heading = target @ factors.heading_tail + (w @ target) @ factors.heading_shared
    coef_heading = coef_heading + fixed_heading @ factors.heading_start
    state.heading = coef_heading @ t.p.T
    cos, sin = np.cos(state.heading), np.sin(state.heading)
    direction = np.concatenate([cos, sin])

    group = np.repeat(factors.box_weight, n, axis=1)  # [2, 4 N]
    targets = np.repeat(group, c, axis=0) * (state.box - state.dual_box)
    targets[:, :n] += stage.rho_obstacle * state.pull
    targets[c:, :n] += s.weights.lane * problem.goal_y[:, None] * t.lane_rows
    speed = np.concatenate([state.speed, state.speed])
    targets[:, n : 2 * n] += stage.rho_motion * (speed * direction - state.dual_motion)
    targets[:c, n : 2 * n] += s.weights.speed * problem.goal_speed[:, None]
    if penalty:
        for block in range(3):
            span = slice(block * n, block * n + s.n_consensus)
            share = np.repeat(state.share[:, span], c, axis=0)
            targets[:, span] += stage.rho_consensus * (share - state.dual_share[:, span])
    for axis in range(2):
        rows = slice(axis * c, (axis + 1) * c)
        part = targets[rows]
        state.coef[rows] = part @ factors.tail[axis] + (w @ part) @ factors.shared[axis]
        state.coef[rows] += fixed[axis] @ factors.start[axis]
    state.sample = state.coef @ t.samples

    velocity = state.sample[:, n : 2 * n]
    lifted = velocity + state.dual_motion
    state.speed = np.clip(lifted[:c] * cos + lifted[c:] * sin, 0.0, problem.speed_cap)
    state.speed[:, 0] = np.hypot(problem.start[0, 1], problem.start[1, 1])

    offset, scaled = _offsets(problem, state.sample, c, n)
    raw = np.sqrt((scaled**2).sum(axis=0))
    if s.projection == "forward":
        distance = project_forward(raw, t.gamma)
    elif s.projection == "exact":
        distance = project_exact(raw, t.gamma)
    else:
        distance = np.maximum(raw, 1.0)
        step = 1.0 + (1.0 - t.gamma) * (state.distance[..., :-1] - 1.0)
        distance[..., 1:] = np.maximum(raw[..., 1:], step)
    state.distance = distance
    stretch = distance / np.maximum(raw, 1e-9)
    present = problem.present[:, :, None]
    residual_obstacle = np.where(present, offset * (1.0 - stretch), 0.0)
    state.dual_obstacle = np.where(present, state.dual_obstacle + residual_obstacle, 0.0)
    position = state.sample[:, :n].reshape(2, c, 1, n)
    pull = np.where(present, position - residual_obstacle - state.dual_obstacle, position)
    state.pull = pull.sum(axis=2).reshape(2 * c, n)

    relaxed = s.relaxation * state.sample + (1.0 - s.relaxation) * state.box
    old = state.box
    state.box = np.clip(relaxed + state.dual_box, problem.low, problem.high)
    state.dual_box = state.dual_box + relaxed - state.box
    active = np.repeat(np.repeat(factors.box_weight > 0.0, n, axis=1), c, axis=0)

    speed = np.concatenate([state.speed, state.speed])
    residual_motion = velocity - speed * direction
    state.dual_motion = state.dual_motion + residual_motion
    residual_heading = state.heading - phi
    state.dual_heading = state.dual_heading + residual_heading

    residual_share = 0.0
    if penalty:
        for block in range(3):
            span = slice(block * n, block * n + s.n_consensus)
            for axis in range(2):
                half = slice(axis * c, (axis + 1) * c)
                lift = state.sample[half, span] + state.dual_share[half, span]
                state.share[axis, span] = w @ lift
                gap = state.sample[half, span] - state.share[axis, span]
                state.dual_share[half, span] += gap
                residual_share = max(residual_share, float(np.abs(gap).max()))
        state.share_heading[near] = w @ (state.heading + state.dual_share_heading)[:, near]
        state.dual_share_heading[:, near] += state.heading[:, near] - state.share_heading[near]
    return np.array(
        [
            np.abs(residual_obstacle).max() if m else 0.0,
            np.abs((state.sample - state.box) * active).max(),
            np.abs(residual_motion).max(),
            np.abs(residual_heading).max(),
            residual_share,
            np.abs((state.box - old) * active).max(),
        ]
    )
