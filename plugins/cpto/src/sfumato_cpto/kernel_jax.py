"""JAX kernel of the ADMM: the iteration of `admm.iterate` as a pure function, batched over scenes.

Runs on CPU and GPU in float64 (the cached factors need it). One scene at a time it is slower than the compiled CPU
kernel; its use is many scenes of one size at once. Importing this module switches JAX to 64 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import attrs
import jax
import jax.numpy as jnp
import numpy as np

from sfumato_cpto.admm import FREEZE_SPEED, AdmmState, Array, fixed_coefficients
from sfumato_cpto.barrier import decay
from sfumato_cpto.config import Stage
from sfumato_cpto.problem import Problem
from sfumato_cpto.transcription import Factors, Transcription

jax.config.update("jax_enable_x64", True)

_FIELDS = tuple(field.name for field in attrs.fields(AdmmState))


def _project(raw: Any, gamma: np.ndarray) -> Any:
    # The forward clamp as running maxima in e = (d - 1) / product, block by block (blocks are known when tracing).
    product, block = decay(gamma)
    e = (raw - 1.0) / product
    parts = []
    for number in range(int(block[-1]) + 1):
        part = e[..., np.flatnonzero(block == number)]
        if number:
            part = jnp.maximum(part, 0.0)
        parts.append(jax.lax.cummax(part, axis=part.ndim - 1))
    return 1.0 + jnp.concatenate(parts, axis=-1) * product


def _unwrapped(v_x: Any, v_y: Any, heading: Any) -> Any:
    phi, moving = jnp.arctan2(v_y, v_x), v_x**2 + v_y**2 >= FREEZE_SPEED**2

    def step(last: Any, row: Any) -> Any:
        angle, moves = row
        turn = angle - last
        turn = turn - 2.0 * jnp.pi * jnp.floor(turn / (2.0 * jnp.pi) + 0.5)
        last = jnp.where(moves, last + turn, last)
        return last, last

    _, out = jax.lax.scan(step, jnp.full(phi.shape[0], heading), (phi.T, moving.T))
    return out.T


def _iterate(
    shape: dict[str, Any], k: dict[str, Any], q: dict[str, Any], s: dict[str, Any]
) -> tuple[Any, Any]:
    n, near, penalty = shape["n"], shape["n_consensus"], shape["penalty"]
    c, m = s["heading"].shape[0], q["centre"].shape[0]
    w = q["weight"]
    velocity = s["sample"][:, n : 2 * n]
    phi = _unwrapped(velocity[:c], velocity[c:], q["heading0"])
    target = k["rho_heading"] * (phi - s["dual_heading"])
    if penalty:
        pull = k["rho_consensus"] * (s["share_heading"] - s["dual_share_heading"])
        target = target.at[:, :near].add(pull[:, :near])
    coef_heading = target @ k["heading_tail"] + (w @ target) @ k["heading_shared"] + q["heading_offset"]
    heading = coef_heading @ k["p_t"]
    direction = jnp.concatenate([jnp.cos(heading), jnp.sin(heading)])
    group = jnp.repeat(k["box_weight"], n, axis=1)
    targets = jnp.repeat(group, c, axis=0) * (s["box"] - s["dual_box"])
    targets = targets.at[:, :n].add(k["rho_obstacle"] * s["pull"])
    targets = targets.at[c:, :n].add(k["w_lane"] * q["goal_y"][:, None] * k["lane_rows"])
    speed = jnp.concatenate([s["speed"], s["speed"]])
    targets = targets.at[:, n : 2 * n].add(k["rho_motion"] * (speed * direction - s["dual_motion"]))
    targets = targets.at[:c, n : 2 * n].add(k["w_speed"] * q["goal_speed"][:, None])
    if penalty:
        for block in range(3):
            rows = slice(block * n, block * n + near)
            share = jnp.repeat(s["share"][:, rows], c, axis=0)
            targets = targets.at[:, rows].add(k["rho_consensus"] * (share - s["dual_share"][:, rows]))
    coef = jnp.concatenate(
        [
            targets[a * c : (a + 1) * c] @ k["tail"][a]
            + (w @ targets[a * c : (a + 1) * c]) @ k["shared"][a]
            + q["offset"][a]
            for a in range(2)
        ]
    )
    sample = coef @ k["samples"]
    velocity = sample[:, n : 2 * n]
    lifted = velocity + s["dual_motion"]
    along = lifted[:c] * direction[:c] + lifted[c:] * direction[c:]
    new_speed = jnp.clip(along, 0.0, q["speed_cap"]).at[:, 0].set(q["start_speed"])
    position = sample[:, :n].reshape(2, c, 1, n)
    offset = position - q["centre"].transpose(1, 0, 2)[:, None]
    scaled = offset / q["axes"].transpose(1, 0, 2)[:, None]
    raw = jnp.sqrt((scaled**2).sum(axis=0))
    distance = _project(raw, shape["gamma"])
    present = q["present"][:, :, None]
    residual_obstacle = jnp.where(present, offset * (1.0 - distance / jnp.maximum(raw, 1e-9)), 0.0)
    dual_obstacle = jnp.where(present, s["dual_obstacle"] + residual_obstacle, 0.0)
    pull = (
        jnp.where(present, position - residual_obstacle - dual_obstacle, position)
        .sum(axis=2)
        .reshape(2 * c, n)
    )
    relaxed = k["relaxation"] * sample + (1.0 - k["relaxation"]) * s["box"]
    box = jnp.clip(relaxed + s["dual_box"], q["low"], q["high"])
    active = jnp.repeat(group > 0.0, c, axis=0)
    speed = jnp.concatenate([new_speed, new_speed])
    residual_motion = velocity - speed * direction
    residual_heading = heading - phi
    new = dict(
        s, coef=coef, sample=sample, heading=heading, speed=new_speed, box=box,
        dual_box=s["dual_box"] + relaxed - box, dual_motion=s["dual_motion"] + residual_motion,
        dual_heading=s["dual_heading"] + residual_heading, dual_obstacle=dual_obstacle, distance=distance, pull=pull,
    )  # fmt: skip
    residual_share: Any = 0.0
    if penalty:
        share, dual = s["share"], s["dual_share"]
        for block in range(3):
            rows = slice(block * n, block * n + near)
            for a in range(2):
                part = slice(a * c, (a + 1) * c)
                mean = w @ (sample[part, rows] + dual[part, rows])
                gap = sample[part, rows] - mean
                share = share.at[a, rows].set(mean)
                dual = dual.at[part, rows].add(gap)
                residual_share = jnp.maximum(residual_share, jnp.abs(gap).max())
        mean = w @ (heading + s["dual_share_heading"])[:, :near]
        new["share"], new["dual_share"] = share, dual
        new["share_heading"] = s["share_heading"].at[:near].set(mean)
        new["dual_share_heading"] = s["dual_share_heading"].at[:, :near].add(heading[:, :near] - mean)
    residuals = jnp.stack(
        [
            jnp.abs(residual_obstacle).max() if m else jnp.zeros(()),
            jnp.abs((sample - box) * active).max(),
            jnp.abs(residual_motion).max(),
            jnp.abs(residual_heading).max(),
            jnp.asarray(residual_share, dtype=jnp.float64),
            jnp.abs((box - s["box"]) * active).max(),
        ]
    )
    return new, residuals


@partial(jax.jit, static_argnames=("static", "n_iterations"))
def _run(static: Any, n_iterations: int, k: Any, q: Any, s: Any) -> Any:
    shape = dict(static)
    shape["gamma"] = np.array(shape["gamma"])

    def body(_: Any, carry: Any) -> Any:
        state, _residuals = carry
        return jax.vmap(partial(_iterate, shape, k))(q, state)

    batch = q["goal_y"].shape[0]
    return jax.lax.fori_loop(0, n_iterations, body, (s, jnp.zeros((batch, 6))))


def _constants(t: Transcription, factors: Factors, stage: Stage) -> dict[str, Any]:
    return {
        "tail": factors.tail, "shared": factors.shared, "box_weight": factors.box_weight,
        "heading_tail": factors.heading_tail, "heading_shared": factors.heading_shared, "samples": t.samples,
        "p_t": t.p.T, "lane_rows": t.lane_rows.astype(np.float64), "rho_obstacle": stage.rho_obstacle,
        "rho_motion": stage.rho_motion, "rho_heading": stage.rho_heading, "rho_consensus": stage.rho_consensus,
        "w_lane": t.settings.weights.lane, "w_speed": t.settings.weights.speed, "relaxation": t.settings.relaxation,
    }  # fmt: skip


def _questions(t: Transcription, factors: Factors, problems: Sequence[Problem]) -> dict[str, Any]:
    rows: dict[str, list[Any]] = {}
    for problem in problems:
        fixed, fixed_heading = fixed_coefficients(t, problem)
        row = {
            "weight": problem.weight, "goal_y": problem.goal_y, "goal_speed": problem.goal_speed, "low": problem.low,
            "high": problem.high, "speed_cap": problem.speed_cap, "centre": problem.centre, "axes": problem.axes,
            "present": problem.present, "heading0": problem.heading,
            "start_speed": np.hypot(problem.start[0, 1], problem.start[1, 1]),
            "offset": np.stack([fixed[a] @ factors.start[a] for a in range(2)]),
            "heading_offset": fixed_heading @ factors.heading_start,
        }  # fmt: skip
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return {name: np.stack(values) for name, values in rows.items()}


def batch(
    t: Transcription, factors: Factors, stage: Stage, problems: Sequence[Problem], states: Sequence[AdmmState]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Stack B scenes of one size (C, M, N and bounded groups alike) for `run_arrays`.

    Returns: what all scenes share (factors and penalties), what each asks, and its state, as dicts of arrays;
    the last two with leading axis B. `jax.device_put` moves them to a device for good.
    Raises: ValueError for scenes of different sizes, or a projection other than "forward".
    """
    s = t.settings
    if s.projection != "forward":
        raise ValueError(
            f'expected projection "forward" for the JAX kernel, got "{s.projection}"; use kernel "numba"'
        )
    sizes = {(p.n_candidates, p.n_obstacles, p.bounded.tobytes()) for p in problems}
    if len(sizes) != 1:
        raise ValueError(f"expected scenes of one size in a batch, got {len(sizes)} sizes; group them first")
    state = {name: np.stack([getattr(one, name) for one in states]) for name in _FIELDS}
    return _constants(t, factors, stage), _questions(t, factors, problems), state


def _static(t: Transcription) -> tuple[tuple[str, Any], ...]:
    s = t.settings
    return (
        ("n", t.n), ("n_consensus", s.n_consensus), ("penalty", s.consensus == "admm"), ("gamma", tuple(t.gamma.tolist())),
    )  # fmt: skip


def run_arrays(
    t: Transcription, arrays: tuple[dict[str, Any], dict[str, Any], dict[str, Any]], n_iterations: int
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Iterate what `batch` stacked, where its arrays lie: the states, and the residuals [B, 6] of the last iteration."""
    result: tuple[dict[str, jax.Array], jax.Array] = _run(_static(t), n_iterations, *arrays)
    return result


def operations(t: Transcription, arrays: tuple[dict[str, Any], dict[str, Any], dict[str, Any]]) -> float:
    """Return the floating-point operations of one iteration of the whole batch, as XLA counts them."""
    costs = _run.lower(_static(t), 1, *arrays).compile().cost_analysis()
    counted = costs[0] if isinstance(costs, list) else costs
    if counted is None:
        raise RuntimeError(
            "expected XLA to count operations on this device, got no analysis; count on the CPU instead"
        )
    return float(counted["flops"])


def run_batch(
    t: Transcription,
    factors: Factors,
    stage: Stage,
    problems: Sequence[Problem],
    states: Sequence[AdmmState],
    n_iterations: int,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Iterate B scenes of one size (C, M, N and bounded groups alike) together, on JAX's default device.

    Returns: the states as arrays with leading axis B, and the residuals [B, 6] of the last iteration.
    Raises: ValueError for scenes of different sizes, or a projection other than "forward".
    """
    return run_arrays(t, batch(t, factors, stage, problems, states), n_iterations)


def run(
    t: Transcription,
    factors: Factors,
    stage: Stage,
    problem: Problem,
    state: AdmmState,
    n_iterations: int,
    tolerance: float,
    check_every: int = 10,
) -> tuple[int, Array]:
    """Iterate one scene in place, like the other kernels: stops when a check finds residuals within `tolerance`."""
    done, residual = 0, np.zeros(6)
    while done < n_iterations:
        step = min(check_every, n_iterations - done)
        found, residuals = run_batch(t, factors, stage, [problem], [state], step)
        for name in _FIELDS:
            setattr(state, name, np.array(found[name][0]))
        residual = np.array(residuals[0])
        done += step
        if residual.max() <= tolerance:
            break
    return done, residual
