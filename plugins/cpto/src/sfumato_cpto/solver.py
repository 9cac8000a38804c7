"""`CPTOSolver`: one planning cycle from state, obstacles and hypotheses to checked trajectories.

    from sfumato_cpto import CPTOSolver, State, Obstacles, Hypotheses
    plan = CPTOSolver().plan(State(0, 0, 0, 15), obstacles, hypotheses)
    if plan.status.is_feasible:
        speed, yaw_rate = plan.command

Source: L. Zheng, R. Yang, M. Zheng, M. Y. Wang, J. Ma, "Safe and Real-Time Consistent Planning for Autonomous
Vehicles in Partially Observed Environments via Parallel Consensus Optimization", arXiv:2409.10310. The polish, the
exact consensus through shared control points and the fall-back are ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import numpy as np

from sfumato_cpto import admm, coldstart, compilation, kernel_numba
from sfumato_cpto.admm import Array
from sfumato_cpto.config import Bounds, PlannerSettings, Stage
from sfumato_cpto.fallback import Fallback, escape
from sfumato_cpto.polish import Polished, Polisher, start_distance
from sfumato_cpto.problem import Hypotheses, InputError, Obstacles, Problem, State, as_state, build
from sfumato_cpto.statuses import Status
from sfumato_cpto.transcription import Transcription

FEASIBLE_H = -1e-3
FEASIBLE_EXCESS = 1e-6
RESERVE_SECONDS = 0.002  # kept back of a deadline for the checks that follow the last program


@attrs.frozen(eq=False)
class Plan:
    """What one cycle returns.

    Attributes:
        status: outcome; `status.is_feasible` says whether the curves may be driven.
        message: what was wrong with the input, or empty.
        coefficients: [C, 2, n + 1] control points in x and y; [0, 2, n + 1] when there is no plan.
        position, velocity, acceleration, jerk: [C, 2, N], m and s.
        shared: [2, N], the consensus curve (weighted mean of the candidates); its first N_c samples are driven.
        command: (speed m/s, yaw rate rad/s) to hold for one period: that of the consensus curve at the next sample, or the
            fall-back's where the status is not feasible; (0, 0) for BAD_INPUT, where nothing is known.
        chosen: index of the candidate with the best score, -1 without a plan; scores: [C], lower is better.
        min_h: [C] least ((x - x_o)/a)^2 + ((y - y_o)/b)^2 - 1 over the samples and obstacles of the hypothesis.
        excess: greatest violation of a bound, in the bound's own unit.
        gap: greatest distance between candidates over the consensus segment, m.
        cost: the weighted objective without the heading term.
        fallback: the braking manoeuvre to use when the status is not feasible.
        iterations, programs, attempts: ADMM iterations, convex programs, stages tried.
        residuals: [6] ADMM residuals in the order of `admm.RESIDUALS`.
        seconds: wall time of the call.
    """

    status: Status
    message: str
    coefficients: Array
    position: Array
    velocity: Array
    acceleration: Array
    jerk: Array
    shared: Array
    command: tuple[float, float]
    chosen: int
    scores: Array
    min_h: Array
    excess: float
    gap: float
    cost: float
    fallback: Fallback | None
    iterations: int
    programs: int
    attempts: int
    residuals: Array
    seconds: float


def least_h(problem: Problem, sample: Array) -> Array:
    """Return min over k >= 1 and present obstacles of h, [C] (inf without obstacles), from samples [2 C, >= N]."""
    c, n = problem.n_candidates, problem.centre.shape[2] if problem.n_obstacles else 0
    if not problem.n_obstacles:
        return np.full(c, np.inf)
    position = sample[:, :n].reshape(2, c, 1, n)
    scaled = (position - problem.centre.transpose(1, 0, 2)[:, None]) / problem.axes.transpose(1, 0, 2)[
        :, None
    ]
    h = (scaled**2).sum(axis=0)[:, :, 1:] - 1.0
    h = np.where(problem.present[:, :, None], h, np.inf)
    least: Array = h.min(axis=(1, 2))
    return least


def bound_excess(problem: Problem, sample: Array, n: int) -> Array:
    """Return the greatest violation of bounds and speed cap per candidate, [C]; samples fixed by the start are exempt."""
    c = problem.n_candidates
    over = np.maximum(sample - problem.high, problem.low - sample)
    for group in range(3):
        over[:, group * n] = -np.inf
    speed = np.hypot(sample[:c, n : 2 * n], sample[c:, n : 2 * n]) - problem.speed_cap
    worst: Array = np.maximum(over.reshape(2, c, -1).max(axis=(0, 2)), speed[:, 1:].max(axis=1))
    return np.maximum(worst, 0.0)


class CPTOSolver:
    """Consistent parallel trajectory optimisation. Builds its matrices once; `plan` is then called every cycle.

    `plan` depends on its arguments alone (the warm start is handed in), so one solver may serve many vehicles, but
    not two threads at once: it owns buffers. Deterministic: the same arguments give the same bits, unless a
    deadline cuts the work short.
    """

    def __init__(self, settings: PlannerSettings | None = None) -> None:
        self.settings = settings or PlannerSettings()
        self.transcription = Transcription(self.settings)
        self.polisher = Polisher(self.transcription)
        self._admm = self._kernel()
        self._polish_alone = attrs.evolve(self.settings.stages[-1], iterations=0)

    def _kernel(self) -> Callable[..., tuple[int, Array]]:
        if self.settings.kernel == "numpy":
            return _run_numpy
        if self.settings.kernel == "jax":
            from sfumato_cpto import kernel_jax

            return kernel_jax.run  # type: ignore[no-any-return]
        return kernel_numba.run

    def build(
        self, state: State, obstacles: Obstacles, hypotheses: Hypotheses, bounds: Bounds | None = None
    ) -> Problem:
        """Return the checked problem arrays. Raises InputError."""
        return build(self.settings, state, obstacles, hypotheses, bounds)

    def warm_up(self, apart: bool = True) -> CPTOSolver:
        """Compile what a plan needs and load it, by planning twice for a small scene; return the solver.

        The first call on a machine takes half a minute of compilation (numba keeps the result beside the package, or in
        NUMBA_CACHE_DIR); later processes load it in a second. Without this call the first plan takes that time.

        Arguments: apart: leave the compilation to a child process, for the process that compiles runs other machine code than
            those that load it, and the last bits of its results differ (`compilation`).
        """
        if apart:
            compilation.compile_apart()
        state, cars = State(0.0, 0.0, 0.0, 12.0), Obstacles([[15.0, 0.5]], [[6.0, 0.0]], [[5.6, 3.1]])
        hypotheses = Hypotheses([[True], [False]], [0.0, 3.75], [15.0, 15.0])
        self.plan(state, cars, hypotheses, previous=self.plan(state, cars, hypotheses))
        return self

    def warm_guess(self, problem: Problem, previous: Plan, n_steps: int = 1) -> Array | None:
        """Return the previous curves shifted by `n_steps` periods as coefficients [2, C, n + 1], or None.

        The shift is exact on the horizon the two cycles share; beyond it the old curve is continued at constant
        velocity (a degree-10 polynomial must not be extrapolated) and refitted with the new start.
        """
        t, c = self.transcription, problem.n_candidates
        if len(previous.coefficients) != c or n_steps >= t.n // 2:
            return None
        old = previous.coefficients.transpose(1, 0, 2) @ t.p.T  # [2, C, N]
        speed = previous.velocity.transpose(1, 0, 2)[:, :, -1:]
        path = np.empty_like(old)
        path[:, :, : t.n - n_steps] = old[:, :, n_steps:]
        ahead = np.arange(1, n_steps + 1) * t.dt
        path[:, :, t.n - n_steps :] = old[:, :, -1:] + speed * ahead
        return coldstart.fit(t, problem, path)

    def plan(
        self,
        state: State,
        obstacles: Obstacles,
        hypotheses: Hypotheses,
        *,
        bounds: Bounds | None = None,
        previous: Plan | None = None,
        elapsed: int = 1,
        deadline: float | None = None,
    ) -> Plan:
        """Plan one cycle.

        Arguments:
            bounds: overrides the settings' bounds for this cycle.
            previous: the last plan, for a warm start; the same number of hypotheses, else it is not used.
            elapsed: periods since `previous` was made.
            deadline: seconds from now. No stage or program is begun that the time used so far says would end
                later; what comes back then is the best checked plan so far, or TIME_LIMIT with the fall-back.
        Returns: a Plan. Never raises on bad input: the status says BAD_INPUT and the message why.
        """
        begun = time.monotonic()
        if not (isinstance(elapsed, int | np.integer) and elapsed >= 0) or (
            deadline is not None and not deadline >= 0.0
        ):
            message = f"expected elapsed >= 0 whole periods and a deadline >= 0 s or None, got {elapsed!r} and {deadline!r}"
            return self.without_curves(Status.BAD_INPUT, message, None, begun)
        posed = self.pose(state, obstacles, hypotheses, bounds, previous, begun)
        if isinstance(posed, Plan):
            return posed
        problem, brake = posed
        limit = None if deadline is None else begun + deadline - RESERVE_SECONDS
        certain = problem.present.all(axis=0) if problem.n_obstacles else np.zeros(0, dtype=bool)
        inside = bool((start_distance(problem)[certain] < 1.0).any())
        best, iterations, programs, attempts, residuals, late = self._search(
            problem, previous, elapsed, limit, inside
        )
        if best is None:
            return self.without_curves(Status.TIME_LIMIT, "", brake, begun)
        sample = best.sample
        min_h = least_h(problem, sample)
        excess = bound_excess(problem, sample, self.settings.n_samples)
        sound = best.feasible and float(min_h.min()) >= FEASIBLE_H and float(excess.max()) <= FEASIBLE_EXCESS
        if inside:
            status = Status.START_IN_COLLISION
        elif sound:
            status = Status.CONVERGED if best.converged else Status.MAX_ITER_FEASIBLE
        elif attempts == 1 and self._box_is_empty(problem, sample):
            status = Status.EMPTY_BOX
        elif late:
            status = Status.TIME_LIMIT
        else:
            status = Status.MAX_ITER_INFEASIBLE
        return self._assemble(
            problem,
            best,
            status,
            min_h,
            float(excess.max()),
            brake,
            iterations,
            programs,
            attempts,
            residuals,
            begun,
        )

    def pose(
        self,
        state: State,
        obstacles: Obstacles,
        hypotheses: Hypotheses,
        bounds: Bounds | None,
        previous: Plan | None,
        begun: float,
        start_within_bounds: bool = True,
    ) -> tuple[Problem, Fallback] | Plan:
        """Return the problem and its braking manoeuvre, or the plan that answers what cannot be planned on.

        Arguments: begun: `time.monotonic()` of the call; start_within_bounds: whether a start beyond its bounds is such a case.
        """
        try:
            state = as_state(state)
            if previous is not None and not isinstance(previous, Plan):
                raise InputError(f"expected previous to be the last Plan or None, got {previous!r}")
            problem = self.build(state, obstacles, hypotheses, bounds)
        except (InputError, TypeError, ValueError) as error:
            return self.without_curves(Status.BAD_INPUT, str(error), None, begun)
        brake = self._fallback(problem, previous)
        if start_within_bounds and problem.start_excess > 0.0:
            message = f"the start breaks a bound by {problem.start_excess:.3g} more than its tolerance"
            return self.without_curves(Status.START_OUT_OF_BOUNDS, message, brake, begun)
        return problem, brake

    def check(self, problem: Problem, coef: Array, brake: Fallback, begun: float) -> Plan:
        """Return foreign coefficients [2 C, n + 1] as a Plan, judged by the same tests as our own curves."""
        sample = coef @ self.transcription.samples
        found = Polished(coef, sample, self.polisher.cost(problem, sample), True, True, 0, 0, 0, False)
        min_h = least_h(problem, sample)
        excess = float(bound_excess(problem, sample, self.settings.n_samples).max())
        # General solvers stop at 1e-6 or so; a thousandth of a unit is granted them.
        sound = float(min_h.min()) >= FEASIBLE_H and excess <= 1e-3
        status = Status.CONVERGED if sound else Status.MAX_ITER_INFEASIBLE
        return self._assemble(problem, found, status, min_h, excess, brake, 0, 0, 1, np.zeros(6), begun)

    def _fallback(self, problem: Problem, previous: Plan | None) -> Fallback:
        # Along the last plan's shared curve where there is one, else straight on.
        path = None
        if previous is not None and len(previous.position):
            path = previous.shared
            direction = np.array([np.cos(problem.heading), np.sin(problem.heading)])
            path = path[:, direction @ (path - problem.start[:, :1]) > 0.05]
        return escape(self.settings, problem, path, float(problem.speed_cap.max()))

    def _search(
        self, problem: Problem, previous: Plan | None, elapsed: int, limit: float | None, once: bool
    ) -> tuple[Polished | None, int, int, int, Array, bool]:
        t, s = self.transcription, self.settings
        guess = None if previous is None else self.warm_guess(problem, previous, elapsed)
        cold = guess is None
        if guess is None:
            guess = coldstart.roll_out(t, problem)
        first = kept = guess
        reached = np.full(problem.n_candidates, -np.inf)  # least h of each candidate's best start so far
        best: Polished | None = None
        iterations = programs = attempts = 0
        residuals = np.zeros(6)
        late = False
        slowest = 0.0
        for stage, start in self._attempts(cold):
            now = time.monotonic()
            if limit is not None and now + slowest > limit:
                late = True
                break
            if start == "guess":
                guess = first
            elif start == "cold":
                guess = coldstart.roll_out(t, problem)
            else:
                guess = self._anew(problem, reached, kept, start)
            factors = t.factors(stage, problem.n_obstacles, problem.bounded)
            state = admm.initial_state(t, problem, guess)
            done, residuals = self._admm(
                t, factors, stage, problem, state, stage.iterations, s.residual_tolerance
            ) if stage.iterations else (0, residuals)  # fmt: skip
            found = self.polisher.run(problem, state.sample, s.polish_steps, limit)
            # Further attempts go on from where the ADMM came to, not from where it began: that is nearer to what is feasible.
            came_to = state.coef.reshape(guess.shape)
            if start in ("guess", "cold"):
                first = came_to
            if attempts == 0:
                kept = came_to
            attempts += 1
            iterations += done
            programs += found.programs
            slowest = max(slowest, time.monotonic() - now)
            h = least_h(problem, found.sample)
            if best is None or found.feasible or h.min() > least_h(problem, best.sample).min():
                best = found
            better = (reached < FEASIBLE_H) & (h > reached)
            reached = np.where(better, h, reached)
            kept = np.where(better[None, :, None], came_to, kept)
            if found.feasible or once:
                break
            # Where bounds and start alone contradict each other, another start cannot help.
            if attempts == 1 and (problem.n_obstacles == 0 or self._box_is_empty(problem, found.sample)):
                break
        if best is not None and best.feasible and not late:
            narrower = self._narrowed(problem, best, limit)
            programs += narrower.programs if narrower is not best else 0
            best = narrower
        return best, iterations, programs, attempts, residuals, late

    def _attempts(self, cold: bool) -> list[tuple[Stage, str]]:
        # What is tried in turn, with its start. The polish cannot go from before to behind somebody who crosses; a start from
        # behind it can keep. Cheap restarts of the candidates that fail come before another run of the ADMM for all.
        first, *further = self.settings.stages
        alone = self._polish_alone
        return [
            (first, "guess"),
            (alone, "give way"),
            *([] if cold else [(first, "cold")]),
            (alone, "timid"),
            (alone, "stop"),
            *((stage, "guess") for stage in further),
            (self.settings.stages[-1], "timid"),
        ]

    def _anew(self, problem: Problem, reached: Array, kept: Array, how: str) -> Array:
        # Only candidates that still touch something start again; what one of them has reached is not given up for the others.
        bad = reached < FEASIBLE_H
        anew = coldstart.roll_out(
            self.transcription, problem, hold=how == "timid", stop=how == "stop", gives_way=how == "give way"
        )
        return np.where((bad if bad.any() else ~bad)[None, :, None], anew, kept)

    def _narrowed(self, problem: Problem, best: Polished, limit: float | None) -> Polished:
        # Where the candidates part too early, the end of the segment is boxed in about its middle and polished again.
        s, c, n = self.settings, problem.n_candidates, self.settings.n_samples
        last = s.n_consensus - 1
        if c == 1 or (limit is not None and time.monotonic() > limit):
            return best
        low, high = problem.low.copy(), problem.high.copy()
        bounded = problem.bounded.copy()
        sample = best.sample.reshape(2, c, 4 * n)
        narrow = False
        for group, most in enumerate(s.segment_gap):
            at = group * n + last
            least, greatest = sample[:, :, at].min(axis=1), sample[:, :, at].max(axis=1)
            spread = float(np.hypot(*(greatest - least)))
            if spread <= most:
                continue
            narrow = True
            middle, half = 0.5 * (greatest + least), 0.5 * (greatest - least) * (1.0 - 1e-6) * most / spread
            for axis in range(2):
                rows = slice(axis * c, (axis + 1) * c)
                low[rows, at] = np.maximum(low[rows, at], middle[axis] - half[axis])
                high[rows, at] = np.minimum(high[rows, at], middle[axis] + half[axis])
                bounded[axis, group] = True
        if not narrow:
            return best
        boxed = attrs.evolve(problem, low=low, high=high, bounded=bounded)
        found = self.polisher.run(boxed, best.sample, s.polish_steps, limit)
        return found if found.feasible else best

    def _box_is_empty(self, problem: Problem, sample: Array) -> bool:
        free = attrs.evolve(
            problem,
            centre=np.zeros((0, 2, self.settings.n_samples)),
            axes=np.zeros((0, 2, self.settings.n_samples)),
            present=np.zeros((problem.n_candidates, 0), dtype=bool),
        )
        return not self.polisher.run(free, sample, 1).feasible

    def without_curves(self, status: Status, message: str, brake: Fallback | None, begun: float) -> Plan:
        """Return a plan that holds an outcome and the braking manoeuvre alone; begun: `time.monotonic()` of the call."""
        n = self.settings.n_samples
        nothing = np.zeros((0, 2, n))
        return Plan(
            status, message, np.zeros((0, 2, self.settings.degree + 1)), nothing, nothing, nothing, nothing,
            np.zeros((2, n)), brake.command if brake else (0.0, 0.0), -1, np.zeros(0), np.zeros(0), 0.0, 0.0,
            float("inf"), brake, 0, 0, 0, np.zeros(6), time.monotonic() - begun,
        )  # fmt: skip

    def _assemble(
        self, problem: Problem, best: Polished, status: Status, min_h: Array, excess: float, brake: Fallback,
        iterations: int, programs: int, attempts: int, residuals: Array, begun: float,
    ) -> Plan:  # fmt: skip
        s, c, n = self.settings, problem.n_candidates, self.settings.n_samples
        sample = best.sample.reshape(2, c, 4, n).transpose(1, 2, 0, 3)  # [C, 4, 2, N]
        mean = np.einsum("c,cgan->gan", problem.weight, sample)
        v_x, v_y = mean[1, :, 1]
        a_x, a_y = mean[2, :, 1]
        speed = float(np.hypot(v_x, v_y))
        yaw_rate = float((v_x * a_y - v_y * a_x) / speed**2) if speed > admm.FREEZE_SPEED else 0.0
        near = sample[:, 0, :, : s.n_consensus]
        gap = float(np.sqrt(((near[:, None] - near[None]) ** 2).sum(axis=2)).max())
        scores = score_candidates(problem, sample, min_h)
        return Plan(
            status=status, message="", coefficients=best.coef.reshape(2, c, -1).transpose(1, 0, 2).copy(),
            position=sample[:, 0], velocity=sample[:, 1], acceleration=sample[:, 2], jerk=sample[:, 3],
            shared=mean[0], command=(speed, yaw_rate) if status.is_feasible else brake.command, chosen=int(np.argmin(scores)), scores=scores, min_h=min_h,
            excess=excess, gap=gap, cost=best.cost, fallback=brake, iterations=iterations, programs=programs,
            attempts=attempts, residuals=residuals, seconds=time.monotonic() - begun,
        )  # fmt: skip


def score_candidates(problem: Problem, sample: Array, min_h: Array) -> Array:
    """Return scores [C], lower is better: speed, jerk, lane and clearance terms, near samples counting most.

    Weights 200, 20, 20, 40 on the terms normalised by their largest value among the candidates; samples beyond the
    fifth are discounted by exp(-(k - 5) / 4).
    """
    n = sample.shape[-1]
    k = np.arange(n)
    discount = np.where(k <= 5, 1.0, np.exp(-(k - 5) / 4.0))
    discount = discount / discount.sum()
    speed = np.abs(np.hypot(sample[:, 1, 0], sample[:, 1, 1]) - problem.goal_speed[:, None]) @ discount
    jerk = np.hypot(sample[:, 3, 0], sample[:, 3, 1]) @ discount
    lane = np.abs(sample[:, 0, 1] - problem.goal_y[:, None]) @ discount
    near = np.maximum(-min_h, 0.0)
    score = np.zeros(len(sample))
    for weight, term in ((200.0, speed), (20.0, jerk), (20.0, lane), (40.0, near)):
        top = float(term.max())
        if top > 1e-9:
            score += weight * term / top
    return score


def _run_numpy(
    t: Transcription, factors: object, stage: Stage, problem: Problem, state: admm.AdmmState, n_iterations: int,
    tolerance: float, check_every: int = 10,
) -> tuple[int, Array]:  # fmt: skip
    residual = np.zeros(6)
    for done in range(1, n_iterations + 1):
        residual = admm.iterate(t, factors, stage, problem, state)  # type: ignore[arg-type]
        if (done % check_every == 0 or done == n_iterations) and residual.max() <= tolerance:
            return done, residual
    return n_iterations, residual
