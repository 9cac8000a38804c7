"""Typed settings of the planner and the tasks. Light: imports attrs only."""

from __future__ import annotations

import attrs
from attrs import validators as v

_POSITIVE = v.gt(0.0)
_NOT_NEGATIVE = v.ge(0.0)


REPLAY_SCENES = (
    "USA_US101-4_1_T-1",
    "USA_US101-5_1_T-1",
    "USA_US101-3_3_T-1",
    "USA_Lanker-1_1_T-1",
    "USA_Lanker-1_3_T-1",
    "USA_Peach-4_8_T-1",
    "OSC_PedestrianCollision-1_1_T-1",
)


def _ordered(instance: object, attribute: attrs.Attribute, value: tuple[float, float]) -> None:  # type: ignore[type-arg]
    if len(value) != 2 or not value[0] < value[1]:
        raise ValueError(
            f"expected {attribute.name} = (low, high) with low < high, got {value!r}; give two numbers in order"
        )


@attrs.frozen
class Bounds:
    """Boxes on the motion, axis by axis in the planning frame (x along the road, y across it).

    Units: m, m/s, m/s^2, m/s^3. `speed_max` also caps the norm of the velocity. Infinite position bounds
    cost nothing.
    """

    x: tuple[float, float] = attrs.field(default=(float("-inf"), float("inf")), validator=_ordered)
    y: tuple[float, float] = attrs.field(default=(float("-inf"), float("inf")), validator=_ordered)
    v_x: tuple[float, float] = attrs.field(default=(0.0, 24.0), validator=_ordered)
    v_y: tuple[float, float] = attrs.field(default=(-4.0, 4.0), validator=_ordered)
    a_x: tuple[float, float] = attrs.field(default=(-4.0, 3.0), validator=_ordered)
    a_y: tuple[float, float] = attrs.field(default=(-2.0, 2.0), validator=_ordered)
    j_x: tuple[float, float] = attrs.field(default=(-6.0, 6.0), validator=_ordered)
    j_y: tuple[float, float] = attrs.field(default=(-6.0, 6.0), validator=_ordered)
    speed_max: float = attrs.field(default=24.0, validator=_POSITIVE)


@attrs.frozen
class Weights:
    """Weights of the objective (dimensionless): smoothness, heading, speed, lane."""

    smooth: float = attrs.field(default=100.0, validator=_POSITIVE)
    heading: float = attrs.field(default=150.0, validator=_NOT_NEGATIVE)
    speed: float = attrs.field(default=50.0, validator=_POSITIVE)
    lane: float = attrs.field(default=100.0, validator=_POSITIVE)


@attrs.frozen
class Stage:
    """One run of the ADMM: how many iterations, and the penalty of each block (dimensionless)."""

    iterations: int = attrs.field(default=50, validator=v.ge(0))
    rho_obstacle: float = attrs.field(default=5.0, validator=_POSITIVE)
    rho_box: float = attrs.field(default=50.0, validator=_POSITIVE)
    rho_motion: float = attrs.field(default=50.0, validator=_NOT_NEGATIVE)
    rho_heading: float = attrs.field(default=50.0, validator=_POSITIVE)
    rho_consensus: float = attrs.field(default=50.0, validator=_POSITIVE)


@attrs.frozen
class PlannerSettings:
    """Everything `CPTOSolver` needs to know before it sees a scene.

    Attributes:
        degree: degree n of the Bernstein curves.
        n_samples: N, samples along the horizon.
        dt: spacing of the samples and the control period, seconds.
        n_consensus: N_c, samples of the segment that all candidates share.
        shared_points: m, control points shared exactly when `consensus` is "control-points".
        consensus: "control-points" shares m control points exactly; "admm" pulls the first N_c positions,
            velocities and accelerations together by a penalty, as the paper does.
        segment_gap: how far candidates may be apart at the end of the shared segment, m, and in velocity there, m/s; plans
            that exceed it are polished once more with the segment's end boxed in. Infinite: as the shared points leave it.
        gamma: barrier rate at the first and the last sample; linear in between.
        projection: how the distances are projected on the barrier set: "forward" (clamp along time),
            "exact" (nearest point), or "previous-iterate" (the released code's rule, for comparison).
        relaxation: over-relaxation alpha of the bounds block.
        stages: ADMM runs. The first begins every cycle; where its polished plan is not feasible, candidates that fail start
            anew, and then the further stages run for all.
        polish_steps: most convex programs the polish may solve after one stage.
        polish_tolerance: relative decrease of the cost at which the polish stops.
        barrier_rows: impose the barrier condition along time in the polish, not only h >= 0.
        margin: factor on the ellipse axes inside the polish, so that h >= 0 also holds between samples.
        inflation: factors on the two axes at t = 0, falling linearly to 1 at the horizon.
        rank_scale: how much of the inflation each further obstacle loses, per rank, on the two axes; an ellipse is
            never smaller than it was handed in.
        start_tolerance: how far the start may break a position, velocity, acceleration bound (m, m/s, m/s^2);
            the bound then recovers along the horizon.
        brake: deceleration of the braking fall-back, m/s^2.
        kernel: "numba", "numpy" or "jax".
    """

    degree: int = attrs.field(default=10, validator=v.in_(range(6, 21)))
    n_samples: int = attrs.field(default=50, validator=v.ge(5))
    dt: float = attrs.field(default=0.1, validator=_POSITIVE)
    n_consensus: int = attrs.field(default=5, validator=v.ge(1))
    shared_points: int = attrs.field(default=5, validator=v.ge(3))
    consensus: str = attrs.field(default="control-points", validator=v.in_(("control-points", "admm")))
    segment_gap: tuple[float, float] = (0.01, 0.12)
    gamma: tuple[float, float] = (0.2, 1.0)
    projection: str = attrs.field(
        default="forward", validator=v.in_(("forward", "exact", "previous-iterate"))
    )
    relaxation: float = attrs.field(default=1.0, validator=v.and_(v.ge(1.0), v.lt(2.0)))
    stages: tuple[Stage, ...] = (Stage(), Stage(iterations=100, rho_obstacle=20.0))
    polish_steps: int = attrs.field(default=12, validator=v.ge(0))
    polish_tolerance: float = attrs.field(default=1e-3, validator=_POSITIVE)
    barrier_rows: bool = False
    margin: float = attrs.field(default=1.006, validator=v.ge(1.0))
    inflation: tuple[float, float] = (1.2, 1.1)
    rank_scale: tuple[float, float] = (0.05, 0.03)
    start_tolerance: tuple[float, float, float] = (0.05, 0.1, 0.3)
    residual_tolerance: float = attrs.field(default=0.1, validator=_POSITIVE)
    brake: float = attrs.field(default=4.0, validator=_POSITIVE)
    bounds: Bounds = attrs.field(factory=Bounds)
    weights: Weights = attrs.field(factory=Weights)
    kernel: str = attrs.field(default="numba", validator=v.in_(("numba", "numpy", "jax")))

    def __attrs_post_init__(self) -> None:
        if self.shared_points > self.degree - 1:
            raise ValueError(
                f"expected shared_points <= degree - 1 = {self.degree - 1}, got {self.shared_points}; with more "
                "the candidates have no tail left to differ in"
            )
        if self.n_consensus >= self.n_samples:
            raise ValueError(
                f"expected n_consensus < n_samples = {self.n_samples}, got {self.n_consensus}; shorten the segment"
            )
        low, high = self.gamma
        if not (0.0 < low <= 1.0 and 0.0 < high <= 1.0):
            raise ValueError(f"expected barrier rates gamma in (0, 1], got {self.gamma}; 1 means h >= 0 only")
        if len(self.segment_gap) != 2 or not all(gap > 0.0 for gap in self.segment_gap):
            raise ValueError(
                f"expected segment_gap = (m, m/s), both positive, got {self.segment_gap}; inf means no limit"
            )
        if not self.stages:
            raise ValueError(
                "expected at least one stage, got none; give Stage(iterations=0) for polish alone"
            )


@attrs.frozen
class CruiseConfig:
    """Dense traffic on six lanes. `slow` draws desired speeds of 4 to 10 m/s for the other cars."""

    n_cars: int = attrs.field(default=18, validator=v.in_(range(1, 61)))
    slow: bool = False
    seconds: float = attrs.field(default=20.0, validator=_POSITIVE)


@attrs.frozen
class RacingConfig:
    """The same road with sparser traffic and 22 m/s wanted."""

    seconds: float = attrs.field(default=20.0, validator=_POSITIVE)


@attrs.frozen
class NoisyConfig:
    """The cruise through noisy sensors.

    Attributes: scale multiplies the deviations 1.0 m, 0.5 m, 0.5 m/s; `released` takes the noise model of the authors'
    simulator (none inside 15 m) instead of one that grows with distance; detection: probability at the end of the
    sensors' range.
    """

    scale: float = attrs.field(default=1.0, validator=_NOT_NEGATIVE)
    released: bool = False
    detection: float = attrs.field(default=0.7, validator=v.and_(v.ge(0.0), v.le(1.0)))
    seconds: float = attrs.field(default=20.0, validator=_POSITIVE)


@attrs.frozen
class IntersectionConfig:
    """The occluded intersection.

    Attributes: yields: crossing cars brake for the ego vehicle; off, they have the right of way. n_cars: on both crossing
    lanes together. corners: |y| in m at which the two buildings begin, left and right of the vehicle's lane. goal_speed:
    wanted, m/s. The studies' `tight-intersection` has 4 cars, corners (5, 5) and 9 m/s.
    """

    yields: bool = False
    n_cars: int = attrs.field(default=10, validator=v.in_(range(1, 11)))
    corners: tuple[float, float] = attrs.field(default=(12.0, 8.5), converter=tuple)
    goal_speed: float = attrs.field(default=7.0, validator=_POSITIVE)
    hidden_speed: float = attrs.field(default=10.0, validator=_POSITIVE)
    seconds: float = attrs.field(default=40.0, validator=_POSITIVE)

    def __attrs_post_init__(self) -> None:
        if len(self.corners) != 2 or not all(2.0 <= corner < 32.0 for corner in self.corners):
            raise ValueError(f"expected corners = (left, right) between 2 and 32 m, got {self.corners!r}")


@attrs.frozen
class PedestrianConfig:
    """The occluded pedestrian.

    Attributes: what is assumed of somebody who is hidden, and monitored: hidden_speed, the fastest pace, m/s; hidden_size, the
    least length and width of a body, m (shadows in which no body of that size has room hold nobody); gap_reach, how far from a
    gap's middle they step out at most, m. body: length and width of whoever does step out, m.
    """

    probability: float = attrs.field(default=0.5, validator=v.and_(v.ge(0.0), v.le(1.0)))
    hidden_speed: float = attrs.field(default=2.0, validator=_POSITIVE)
    hidden_size: float = attrs.field(default=0.3, validator=_POSITIVE)
    gap_reach: float = attrs.field(default=0.15, validator=v.and_(v.gt(0.0), v.le(1.5)))
    body: float = attrs.field(default=0.6, validator=v.and_(v.ge(0.1), v.le(0.6)))
    seconds: float = attrs.field(default=40.0, validator=_POSITIVE)


@attrs.frozen
class ReplayConfig:
    """Recorded traffic from CommonRoad files, looked for as `traffic/NAME.xml` in the data folder.

    Attributes: scenes: names; course k replays scene k modulo their number. `seconds` is an upper limit. route: "own" search of
    the lanelets, or "commonroad" for commonroad-route-planner's (extra `commonroad`).
    """

    scenes: tuple[str, ...] = attrs.field(default=REPLAY_SCENES, validator=v.min_len(1), converter=tuple)
    seconds: float = attrs.field(default=20.0, validator=_POSITIVE)
    route: str = attrs.field(default="own", validator=v.in_(("own", "commonroad")))


@attrs.frozen
class PlannerConfig:
    """Settings of the planner as a solver of the runner.

    Attributes:
        n_obstacles: M, most obstacles handed to the planner.
        n_candidates: C in lane traffic; at the occluded scenes the shadows decide it.
        deadline: seconds for a cycle, 0 for none (then the same run gives the same bits).
        kernel: "numba" or "numpy".
        shared_points, n_samples: m and N.
        iterations: of the ADMM that begins every cycle.
        penalty: factor on all penalties of the ADMM.
        certified: release a plan only with a fall-back that is clear of every user's reachable occupancy.
    """

    n_obstacles: int = attrs.field(default=6, validator=v.ge(1))
    n_candidates: int = attrs.field(default=3, validator=v.ge(1))
    certified: bool = True
    deadline: float = attrs.field(default=0.0, validator=_NOT_NEGATIVE)
    kernel: str = attrs.field(default="numba", validator=v.in_(("numba", "numpy")))
    shared_points: int = attrs.field(default=5, validator=v.ge(3))
    n_samples: int = attrs.field(default=50, validator=v.ge(10))
    iterations: int = attrs.field(default=50, validator=v.ge(1))
    penalty: float = attrs.field(default=1.0, validator=_POSITIVE)

    def planner_settings(self) -> PlannerSettings:
        """Return the settings of the planner beneath."""
        stages = []
        for stage in PlannerSettings().stages:
            rhos = {
                f.name: self.penalty * getattr(stage, f.name)
                for f in attrs.fields(Stage)
                if f.name != "iterations"
            }
            stages.append(attrs.evolve(stage, **rhos))
        return PlannerSettings(
            kernel=self.kernel, shared_points=self.shared_points, n_samples=self.n_samples,
            stages=(attrs.evolve(stages[0], iterations=self.iterations), *stages[1:]),
        )  # fmt: skip


@attrs.frozen
class BaselineConfig:
    """Settings of the baselines.

    Attributes: reguess (most-likely only): draw one hypothesis by its weight each cycle instead of taking the likeliest.
    """

    n_obstacles: int = attrs.field(default=6, validator=v.ge(1))
    n_candidates: int = attrs.field(default=3, validator=v.ge(1))
    reguess: bool = False
    n_samples: int = attrs.field(default=50, validator=v.ge(10))
