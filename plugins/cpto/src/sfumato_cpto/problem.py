"""What a planning cycle is asked: state, obstacles, hypotheses, and their checked arrays.

Everything lives in the planning frame: x along the road, y across it, headings from the x axis.
"""

from __future__ import annotations

import attrs
import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfumato_cpto.config import Bounds, PlannerSettings
from sfumato_cpto.transcription import UNBOUNDED

Array = NDArray[np.float64]


class InputError(ValueError):
    """Raised when the arguments are not a planning problem; the message says which, and what to do."""


LARGEST = 1e9  # m, m/s: beyond that a figure is a mistake, and its square no longer tells metres apart
LEAST_AXIS = 1e-3  # m


def _floats(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> Array:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected numbers for {name}, got {value!r}; hand in floats") from error
    if array.ndim != len(shape) or any(
        want is not None and want != got for want, got in zip(shape, array.shape, strict=True)
    ):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise InputError(f"expected {name} of shape [{wanted}], got {list(array.shape)}; check the axes")
    bad = ~np.isfinite(array)
    if bad.any():
        raise InputError(f"expected finite {name}, got {array[bad][0]} at {np.argwhere(bad)[0].tolist()}")
    far = np.abs(array) > LARGEST
    if far.any():
        raise InputError(
            f"expected {name} of at most {LARGEST:g}, got {array[far][0]:g} at {np.argwhere(far)[0].tolist()}; units are m and s, "
            "relative to an origin near the road"
        )
    return array


def as_state(state: object) -> State:
    """Return a State from a State or a sequence (x, y, heading, speed[, yaw_rate[, acceleration]]). Raises InputError."""
    if isinstance(state, State):
        return state
    if state is None:
        raise InputError(
            "expected a State, got None; a missing measurement is not a state: brake from the last command instead of planning"
        )
    try:
        values = np.asarray(state, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected a State or its numbers, got {state!r}") from error
    if values.ndim != 1 or not 4 <= len(values) <= 6:
        raise InputError(
            f"expected a State or (x, y, heading, speed[, yaw_rate[, acceleration]]), got an array of shape {list(values.shape)}"
        )
    return State(*values.tolist())


def _mask(value: object, m: int) -> NDArray[np.bool_]:
    try:
        present = np.asarray(value)
    except ValueError as error:
        raise InputError(
            f"expected hypotheses.present of shape [C, {m}], got rows of different lengths"
        ) from error
    if present.ndim != 2 or present.shape[1] != m:
        raise InputError(
            f"expected hypotheses.present of shape [C, {m}], got {list(present.shape)}; one row per hypothesis, "
            "one column per obstacle"
        )
    if len(present) == 0:
        raise InputError("expected at least one hypothesis, got none; give present=[[True, ...]]")
    # With no obstacle an empty list is a mask of floats; there is nothing in it to get wrong.
    whole = present.dtype == bool or (present.dtype.kind in "iu" and bool(np.isin(present, (0, 1)).all()))
    if present.size and not whole:
        raise InputError(
            f"expected hypotheses.present of true and false, got {present.dtype} values such as {present.flat[0]!r}; "
            "say what counts as present, for example chance > 0.1"
        )
    return present.astype(bool)


@attrs.frozen
class State:
    """State of the ego vehicle: m, m, rad, m/s, rad/s, m/s^2 (along the heading)."""

    x: float
    y: float
    heading: float
    speed: float
    yaw_rate: float = 0.0
    acceleration: float = 0.0

    def flat(self) -> Array:
        """Return position, velocity and acceleration in both axes, [2, 3]."""
        c, s = np.cos(self.heading), np.sin(self.heading)
        turn = self.speed * self.yaw_rate
        return np.array(
            [
                [self.x, self.speed * c, self.acceleration * c - turn * s],
                [self.y, self.speed * s, self.acceleration * s + turn * c],
            ]
        )


@attrs.frozen(eq=False)
class Obstacles:
    """Detected or imagined obstacles with constant-velocity prediction.

    Attributes:
        position, velocity: [M, 2], m and m/s.
        semi_axes: [M, 2], of the safety ellipse along x and y, m.
        centres: [M, 2, N] or None: predicted centres; None means constant velocity from `position`.
        grow: whether the axes are inflated along the horizon and shrunk by rank as the settings say.
    """

    position: ArrayLike
    velocity: ArrayLike
    semi_axes: ArrayLike
    centres: ArrayLike | None = None
    grow: bool = True

    @classmethod
    def none(cls) -> Obstacles:
        """Return an empty set."""
        return cls(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros((0, 2)))


@attrs.frozen(eq=False)
class Hypotheses:
    """One candidate trajectory each: what exists, and what is wanted then.

    Attributes:
        present: bool [C, M]: which obstacles exist under which hypothesis.
        goal_y: [C], lateral goal, m.
        goal_speed: [C], m/s.
        speed_cap: [C], m/s, or None; approached by comfortable braking when it lies below the present speed.
        weight: [C] >= 0, summing to 1, or None for equal weights.
    """

    present: ArrayLike
    goal_y: ArrayLike
    goal_speed: ArrayLike
    speed_cap: ArrayLike | None = None
    weight: ArrayLike | None = None


@attrs.frozen(eq=False)
class Problem:
    """Checked arrays of one cycle, as the kernels take them.

    Attributes:
        start: [2, 3] position, velocity, acceleration per axis; heading, yaw_rate: scalars.
        goal_speed: [C]; goal_y: [C]; weight: [C], positive, summing to 1.
        low, high: [2 C, 4 N] bounds on position, velocity, acceleration, jerk.
        speed_cap: [C, N] bound on the norm of the velocity.
        bounded: [2, 4], which groups have a finite bound.
        centre, axes: [M, 2, N]; present: bool [C, M].
        start_excess: by how much the start broke its bounds beyond tolerance (0: it did not).
    """

    start: Array
    heading: float
    yaw_rate: float
    goal_speed: Array
    goal_y: Array
    weight: Array
    low: Array
    high: Array
    speed_cap: Array
    bounded: NDArray[np.bool_]
    centre: Array
    axes: Array
    present: NDArray[np.bool_]
    start_excess: float

    @property
    def n_candidates(self) -> int:
        """C."""
        return len(self.goal_y)

    @property
    def n_obstacles(self) -> int:
        """M."""
        return len(self.centre)


MIN_WEIGHT = 1e-3  # a hypothesis of weight 0 still has a curve of its own; its Hessian must stay regular


def build(
    settings: PlannerSettings,
    state: State,
    obstacles: Obstacles,
    hypotheses: Hypotheses,
    bounds: Bounds | None = None,
) -> Problem:
    """Check the arguments and lay them out. Raises InputError, naming the argument, on anything unusable."""
    bounds = settings.bounds if bounds is None else bounds
    for name, value, kind in (("state", state, State), ("obstacles", obstacles, Obstacles), ("hypotheses", hypotheses, Hypotheses),
                              ("bounds", bounds, Bounds)):  # fmt: skip
        if not isinstance(value, kind):
            advice = "; Obstacles.none() is an empty set" if kind is Obstacles else ""
            raise InputError(f"expected {name} to be {kind.__name__}, got {value!r}{advice}")
    n, dt = settings.n_samples, settings.dt
    try:
        values = np.array(attrs.astuple(state), dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected numbers for the state, got {state}") from error
    if values.shape != (6,) or not (np.abs(values) <= LARGEST).all():
        raise InputError(f"expected a finite state, got {state}; a missing measurement is not a state")
    if state.speed < 0.0:
        raise InputError(f"expected speed >= 0, got {state.speed}; the model does not reverse")
    position = _floats("obstacles.position", obstacles.position, (None, 2))
    m = len(position)
    velocity = _floats("obstacles.velocity", obstacles.velocity, (m, 2))
    semi = _floats("obstacles.semi_axes", obstacles.semi_axes, (m, 2))
    if (semi < LEAST_AXIS).any():
        raise InputError(
            f"expected obstacles.semi_axes > 0 (at least {LEAST_AXIS} m), got {semi.min()}; axes are half the ellipse's extent in m"
        )
    present = _mask(hypotheses.present, m)
    c = len(present)
    goal_y = _floats("hypotheses.goal_y", hypotheses.goal_y, (c,))
    goal_speed = _floats("hypotheses.goal_speed", hypotheses.goal_speed, (c,))
    weight = np.full(c, 1.0 / c)
    if hypotheses.weight is not None:
        weight = _floats("hypotheses.weight", hypotheses.weight, (c,))
        if (weight < 0.0).any() or abs(weight.sum() - 1.0) > 1e-6:
            raise InputError(
                f"expected hypotheses.weight >= 0 with sum 1, got {weight.tolist()}; normalise them"
            )
        weight = np.maximum(weight, MIN_WEIGHT)
        weight = weight / weight.sum()
    times = np.arange(n) * dt
    start = state.flat()
    box = np.array(
        [
            [bounds.x, bounds.v_x, bounds.a_x, bounds.j_x],
            [bounds.y, bounds.v_y, bounds.a_y, bounds.j_y],
        ],
        dtype=float,
    )  # [2, 4, 2]
    bounded = np.isfinite(box).any(axis=2)
    box = np.clip(box, -UNBOUNDED, UNBOUNDED)
    low = np.repeat(box[:, :, 0], n, axis=1)
    high = np.repeat(box[:, :, 1], n, axis=1)  # [2, 4 N]
    start_excess = 0.0
    recovery = 1.0 - times / times[-1]
    for axis in range(2):
        for group, tolerance in enumerate(settings.start_tolerance):
            block = slice(group * n, (group + 1) * n)
            over = start[axis, group] - box[axis, group, 1]
            under = box[axis, group, 0] - start[axis, group]
            start_excess = max(start_excess, over - tolerance, under - tolerance)
            # A start slightly outside (a held command is not the curve) returns inside linearly.
            high[axis, block] += max(0.0, min(over, tolerance)) * recovery
            low[axis, block] -= max(0.0, min(under, tolerance)) * recovery
    speed_cap = np.full((c, n), bounds.speed_max)
    if state.speed > bounds.speed_max:
        start_excess = max(start_excess, state.speed - bounds.speed_max - settings.start_tolerance[1])
        speed_cap += min(state.speed - bounds.speed_max, settings.start_tolerance[1]) * recovery
    low = np.repeat(low[:, None], c, axis=1)
    high = np.repeat(high[:, None], c, axis=1)
    if hypotheses.speed_cap is not None:
        cap = _floats("hypotheses.speed_cap", hypotheses.speed_cap, (c,))
        if (cap < 0.0).any():
            raise InputError(f"expected hypotheses.speed_cap >= 0, got {cap.min()}; it is in m/s")
        # Braking down to the cap at a rate that the acceleration and jerk bounds leave room for.
        rate = 0.6 * abs(bounds.a_x[0])
        delay = max(0.0, (start[0, 2] + rate) / min(abs(bounds.j_x[0]), 1e3)) + 0.3
        ramp = start[0, 1] + max(start[0, 2], 0.0) * delay - rate * np.maximum(times - delay, 0.0)
        limit = np.maximum(cap[:, None], ramp)
        block = slice(n, 2 * n)
        high[0, :, block] = np.minimum(high[0, :, block], np.maximum(limit, bounds.v_x[0] + 1e-3))
    if obstacles.centres is None:
        centre = position[:, :, None] + velocity[:, :, None] * times
    else:
        centre = _floats("obstacles.centres", obstacles.centres, (m, 2, n))
    axes = np.repeat(semi[:, :, None], n, axis=2)
    if obstacles.grow and m:
        rank = np.arange(m)[:, None, None]
        shrink = 1.0 - np.array(settings.rank_scale)[None, :, None] * rank
        swell = 1.0 + (np.array(settings.inflation)[None, :, None] - 1.0) * recovery
        # Rank may take back the inflation, never the body: below its nominal axes an ellipse no longer covers it.
        axes = axes * np.maximum(shrink * swell, 1.0)
    return Problem(
        start=start,
        heading=float(state.heading),
        yaw_rate=float(state.yaw_rate),
        goal_speed=goal_speed,
        goal_y=goal_y,
        weight=weight,
        low=np.ascontiguousarray(low.reshape(2 * c, 4 * n)),
        high=np.ascontiguousarray(high.reshape(2 * c, 4 * n)),
        speed_cap=speed_cap,
        bounded=bounded,
        centre=np.ascontiguousarray(centre),
        axes=np.ascontiguousarray(axes),
        present=np.ascontiguousarray(present),
        start_excess=float(start_excess),
    )
