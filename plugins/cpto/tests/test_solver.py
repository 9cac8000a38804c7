"""Plans: promises of the statuses, exact sharing, agreement with general solvers, bad input."""

import attrs
import numpy as np
import pytest

from sfumato_cpto import Bounds, CPTOSolver, Hypotheses, Obstacles, PlannerSettings, Stage, State, Status
from sfumato_cpto.random_scenes import BOUNDS, scene


@pytest.fixture(scope="module")
def solver():
    return CPTOSolver(PlannerSettings(bounds=BOUNDS))


@pytest.mark.parametrize("n_candidates", [2, 5])
@pytest.mark.parametrize("dense", [False, True])
def test_a_feasible_status_means_clear_of_everything_and_within_bounds(solver, n_candidates, dense):
    rng = np.random.default_rng(7)
    feasible = 0
    for _ in range(25):
        state, obstacles, hypotheses = scene(rng, n_candidates, dense=dense)
        plan = solver.plan(state, obstacles, hypotheses)
        if not plan.status.is_feasible:
            continue
        feasible += 1
        # Recomputed from the control points on a grid of 0.02 s, with the axes the settings describe.
        problem = solver.build(state, obstacles, hypotheses)
        from sfumato_cpto.bernstein import derivative_matrices

        n = (solver.settings.n_samples - 1) * 5 + 1
        fine = derivative_matrices(10, n, 0.02)
        position = np.einsum("nk,cak->can", fine[0], plan.coefficients)
        k = np.arange(n) / 5
        coarse = np.arange(solver.settings.n_samples)
        for j in range(problem.n_obstacles):
            h = -1.0
            for axis in range(2):
                centre = np.interp(k, coarse, problem.centre[j, axis])
                axes = np.interp(k, coarse, problem.axes[j, axis])
                h = h + ((position[:, axis] - centre) / axes) ** 2
            assert h.min() >= -1e-3
        for order, (x_bound, y_bound) in enumerate(
            [(BOUNDS.v_x, BOUNDS.v_y), (BOUNDS.a_x, BOUNDS.a_y), (BOUNDS.j_x, BOUNDS.j_y)], start=1
        ):
            value = np.einsum("nk,cak->can", solver.transcription.__dict__[f"p{order}"], plan.coefficients)
            for axis, (low, high) in enumerate((x_bound, y_bound)):
                assert value[:, axis].min() >= low - 1e-6
                assert value[:, axis].max() <= high + 1e-6
    assert feasible >= 24


def test_candidates_share_control_points_exactly_and_the_driven_step_nearly(solver):
    plan = solver.plan(*scene(np.random.default_rng(3), 5))
    shared = plan.coefficients[:, :, :5]
    assert np.abs(shared - shared[:1]).max() <= 1e-12
    assert np.abs(plan.position[:, :, 1] - plan.position[:1, :, 1]).max() <= 1e-4
    assert plan.gap <= 0.02


def test_six_shared_points_bring_the_segment_together():
    solver = CPTOSolver(PlannerSettings(bounds=BOUNDS, shared_points=6))
    plan = solver.plan(*scene(np.random.default_rng(3), 5))
    assert plan.status.is_feasible
    assert plan.gap <= 0.002


@pytest.mark.parametrize(("shared", "most"), [(5, (0.01, 0.12)), (6, (0.0006, 0.0085))])
def test_candidates_stay_together_to_the_end_of_the_segment_as_far_as_asked(shared, most):
    loose = CPTOSolver(PlannerSettings(bounds=BOUNDS, shared_points=shared, segment_gap=(np.inf, np.inf)))
    bound = CPTOSolver(PlannerSettings(bounds=BOUNDS, shared_points=shared, segment_gap=most))
    rng = np.random.default_rng(2)
    farther = 0
    for _ in range(60):
        arguments = scene(rng, 5)
        before, after = loose.plan(*arguments), bound.plan(*arguments)
        assert after.status.is_feasible == before.status.is_feasible
        if not after.status.is_feasible:
            continue
        farther += before.gap > most[0]
        assert after.gap <= most[0]
        speeds = after.velocity[:, :, :5]
        assert np.sqrt(((speeds[:, None] - speeds[None]) ** 2).sum(axis=2)).max() <= most[1]
        assert after.cost <= 1.02 * before.cost
        assert after.excess <= 1e-9
    assert farther >= 1


def test_a_candidate_that_fails_starts_anew_without_taking_back_what_the_others_reached(solver):
    # In these scenes different candidates fail at different starts; each has one that is safe.
    for seed, numbers in ((1, (28, 78, 148)), (4, (45, 147)), (9, (22, 128))):
        rng = np.random.default_rng(seed)
        scenes = [scene(rng, 5, dense=True) for _ in range(max(numbers) + 1)]
        for number in numbers:
            plan = solver.plan(*scenes[number])
            assert plan.status.is_feasible, (seed, number)
            assert plan.attempts > 2


@pytest.mark.optional
@pytest.mark.parametrize("n_candidates", [2, 5])
def test_one_program_of_the_polish_agrees_with_clarabel(solver, n_candidates):
    pytest.importorskip("clarabel", reason="verification extra not installed")
    from sfumato_cpto import convex

    t = solver.transcription
    rng = np.random.default_rng(11)
    for _ in range(3):
        problem = solver.build(*scene(rng, n_candidates))
        from sfumato_cpto.coldstart import roll_out

        start = roll_out(t, problem).reshape(2 * n_candidates, -1) @ t.samples
        found = solver.polisher.run(problem, start, 12)
        if not found.feasible:
            continue
        program = convex.program(t, problem, found.sample)
        ours = solver.polisher.run(problem, found.sample, 1)
        other = convex.solve(program, "clarabel")
        assert other.ok
        assert program.violation(ours.coef.ravel()) <= 1e-9
        assert program.objective(ours.coef.ravel()) == pytest.approx(other.objective, rel=1e-8)
        assert ours.cost == pytest.approx(program.objective(ours.coef.ravel()), rel=1e-9)


@pytest.mark.optional
def test_the_polished_cost_is_that_of_ipopt_from_the_same_start(solver):
    pytest.importorskip("casadi", reason="verification extra not installed")
    from sfumato_cpto.coldstart import roll_out
    from sfumato_cpto.nlp import EliminatedNlp

    rng = np.random.default_rng(2)
    ratios = []
    nlp = None
    for _ in range(4):
        arguments = scene(rng, 2)
        plan, problem = solver.plan(*arguments), solver.build(*arguments)
        nlp = nlp or EliminatedNlp(solver.transcription, 2, 6, problem.bounded)
        other = nlp.solve(problem, roll_out(solver.transcription, problem).reshape(4, -1))
        if plan.status.is_feasible and other.ok:
            ratios.append(plan.cost / other.objective)
    assert len(ratios) >= 3
    assert np.median(ratios) <= 1.01


def test_one_hypothesis_and_no_obstacles_are_ordinary_problems(solver):
    empty = Hypotheses(np.ones((2, 0), dtype=bool), [0.0, 3.75], [15.0, 15.0])
    assert solver.plan(State(0, 0, 0, 15), Obstacles.none(), empty).status is Status.CONVERGED
    assert solver.plan(*scene(np.random.default_rng(0), 1)).status.is_feasible


def test_driving_straight_at_the_goal_speed_costs_nothing(solver):
    plan = solver.plan(
        State(0, 0, 0, 15), Obstacles.none(), Hypotheses(np.ones((1, 0), dtype=bool), [0.0], [15.0])
    )
    assert plan.cost == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(plan.position[0, 0], 15.0 * 0.1 * np.arange(50), atol=1e-6)
    assert plan.command == pytest.approx((15.0, 0.0), abs=1e-6)


_STATE = State(0.0, 0.0, 0.0, 15.0)
_CARS = Obstacles([[30.0, 0.0]], [[10.0, 0.0]], [[5.6, 2.9]])
_ONE = Hypotheses([[True]], [0.0], [15.0])


@pytest.mark.parametrize(
    ("state", "obstacles", "hypotheses", "word"),
    [
        (State(float("nan"), 0, 0, 15), _CARS, _ONE, "state"),
        (State(0, 0, 0, -1.0), _CARS, _ONE, "speed"),
        (_STATE, Obstacles([[30.0, np.nan]], [[10.0, 0.0]], [[5.6, 2.9]]), _ONE, "position"),
        (_STATE, Obstacles([[30.0, 0.0]], [[10.0, 0.0]], [[-1.0, 2.9]]), _ONE, "semi_axes"),
        (_STATE, Obstacles([[30.0, 0.0]], [[10.0]], [[1.0, 2.9]]), _ONE, "velocity"),
        (_STATE, _CARS, Hypotheses(np.zeros((0, 1), dtype=bool), [], []), "hypothesis"),
        (None, _CARS, _ONE, "expected a State, got None"),
        ("here", _CARS, _ONE, "State"),
        ([0.0, 0.0], _CARS, _ONE, "shape"),
        (State(0.0, 0.0, 0.0, None), _CARS, _ONE, "finite state"),
        (State(1e300, 0.0, 0.0, 15.0), _CARS, _ONE, "finite state"),
        (_STATE, None, _ONE, "obstacles"),
        (_STATE, _CARS, None, "hypotheses"),
        (_STATE, Obstacles([[1e200, 0.0]], [[10.0, 0.0]], [[5.6, 2.9]]), _ONE, "position"),
        (_STATE, Obstacles([[30.0, 0.0]], [[10.0, 0.0]], [[1e-300, 2.9]]), _ONE, "semi_axes"),
        (_STATE, _CARS, Hypotheses([[0.3]], [0.0], [15.0]), "true and false"),
        (_STATE, _CARS, Hypotheses([[np.nan]], [0.0], [15.0]), "true and false"),
        (_STATE, _CARS, Hypotheses([["yes"]], [0.0], [15.0]), "true and false"),
        (_STATE, _CARS, Hypotheses([[2]], [0.0], [15.0]), "true and false"),
        (_STATE, _CARS, Hypotheses([[True], [True, False]], [0.0, 0.0], [15.0, 15.0]), "lengths"),
        (_STATE, _CARS, Hypotheses([[True, True]], [0.0], [15.0]), "present"),
        (_STATE, _CARS, Hypotheses([[True]], [0.0, 1.0], [15.0]), "goal_y"),
        (_STATE, _CARS, Hypotheses([[True]], [0.0], [15.0], weight=[0.4]), "weight"),
        (_STATE, _CARS, Hypotheses([[True]], [0.0], [15.0], speed_cap=[-1.0]), "speed_cap"),
    ],
)
def test_bad_input_is_named_and_never_raises(solver, state, obstacles, hypotheses, word):
    plan = solver.plan(state, obstacles, hypotheses)
    assert plan.status is Status.BAD_INPUT
    assert word in plan.message
    assert len(plan.position) == 0


def test_a_start_inside_a_certain_obstacle_is_said_and_left(solver):
    inside = Obstacles([[4.0, 0.5]], [[15.0, 0.0]], [[5.6, 2.9]])
    plan = solver.plan(_STATE, inside, _ONE)
    assert plan.status is Status.START_IN_COLLISION
    offset = (
        plan.position[0] - np.array([[4.0], [0.5]]) - np.array([[15.0], [0.0]]) * 0.1 * np.arange(50)
    ) / np.array([[5.6], [2.9]])
    distance = np.hypot(*offset)
    assert distance[-1] > distance[0]


def test_an_obstacle_on_the_vehicle_is_a_status_not_a_crash(solver):
    assert solver.plan(_STATE, Obstacles([[0.0, 0.0]], [[0.0, 0.0]], [[5.6, 2.9]]), _ONE).status is (
        Status.START_IN_COLLISION
    )


def test_a_start_far_outside_a_bound_is_refused(solver):
    plan = solver.plan(State(0, 12.0, 0, 15), _CARS, _ONE)
    assert plan.status is Status.START_OUT_OF_BOUNDS
    assert plan.fallback is not None


def test_bounds_that_no_curve_meets_are_told_apart_from_obstacles(solver):
    tight = Bounds(y=(-9.4, 9.4), v_x=(14.0, 16.0), a_x=(1.0, 3.0))
    plan = solver.plan(State(0, 0, 0, 15, acceleration=1.0), _CARS, _ONE, bounds=tight)
    assert plan.status is Status.EMPTY_BOX


def test_a_deadline_in_the_past_still_brings_a_checked_answer(solver):
    rng = np.random.default_rng(5)
    for _ in range(5):
        plan = solver.plan(*scene(rng, 5, dense=True), deadline=1e-6)
        assert plan.fallback is not None
        assert plan.status is Status.TIME_LIMIT or plan.status.is_feasible
        if plan.status.is_feasible:
            assert plan.min_h.min() >= -1e-3


def test_a_speed_cap_below_the_present_speed_is_reached_by_braking(solver):
    capped = Hypotheses(np.ones((2, 0), dtype=bool), [0.0, 0.0], [15.0, 15.0], speed_cap=[24.0, 5.0])
    plan = solver.plan(_STATE, Obstacles.none(), capped)
    assert plan.status.is_feasible
    assert plan.velocity[1, 0, -1] <= 5.0 + 1e-6
    assert plan.velocity[0, 0, -1] > 10.0


def test_weights_move_the_shared_segment_towards_the_likely_candidate(solver):
    goals = {"goal_y": [-3.75, 3.75], "goal_speed": [15.0, 15.0]}
    none = Obstacles.none()
    left = solver.plan(_STATE, none, Hypotheses(np.ones((2, 0), bool), weight=[0.05, 0.95], **goals))
    right = solver.plan(_STATE, none, Hypotheses(np.ones((2, 0), bool), weight=[0.95, 0.05], **goals))
    assert left.position[0, 1, 5] > 0.0 > right.position[0, 1, 5]


def test_a_warm_start_of_the_previous_plan_is_feasible_again(solver):
    state, obstacles, hypotheses = scene(np.random.default_rng(8), 3)
    first = solver.plan(state, obstacles, hypotheses)
    x, y = first.shared[:, 1]
    v, w = first.command
    moved = attrs.evolve(
        obstacles, position=np.asarray(obstacles.position) + 0.1 * np.asarray(obstacles.velocity)
    )
    second = solver.plan(State(x, y, 0.1 * w, v), moved, hypotheses, previous=first)
    assert second.status.is_feasible
    assert second.attempts == 1


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="shared_points"):
        PlannerSettings(shared_points=10)
    with pytest.raises(ValueError, match="gamma"):
        PlannerSettings(gamma=(0.0, 1.0))
    with pytest.raises(ValueError, match="v_x"):
        Bounds(v_x=(3.0, 1.0))
    with pytest.raises(ValueError):
        Stage(rho_box=-1.0)


@pytest.mark.parametrize("attempts", [1, 3])
def test_the_numpy_kernel_finds_the_same_plan(attempts):
    arguments = (
        scene(np.random.default_rng(9), 2)
        if attempts == 1
        else scene(np.random.default_rng(22), 5, dense=True)
    )
    plans = [
        CPTOSolver(PlannerSettings(bounds=BOUNDS, kernel=kernel, polish_tolerance=1e-9)).plan(*arguments)
        for kernel in ("numpy", "numba")
    ]
    assert plans[0].attempts == plans[1].attempts == attempts
    assert plans[0].cost == pytest.approx(plans[1].cost, rel=1e-6)


def test_hopeless_input_is_answered_after_one_attempt(solver):
    inside = Obstacles([[4.0, 0.5]], [[15.0, 0.0]], [[5.6, 2.9]])
    tight = Bounds(y=(-9.4, 9.4), v_x=(14.0, 16.0), a_x=(1.0, 3.0))
    assert solver.plan(_STATE, inside, _ONE).attempts == 1
    assert solver.plan(State(0, 0, 0, 15, acceleration=1.0), _CARS, _ONE, bounds=tight).attempts == 1
    assert solver.plan(State(float("nan"), 0, 0, 1), _CARS, _ONE).attempts == 0


@pytest.mark.parametrize(
    ("how", "word"),
    [
        ({"bounds": "wide"}, "bounds"),
        ({"previous": "the last one"}, "previous"),
        ({"elapsed": -1}, "elapsed"),
        ({"elapsed": 1.5}, "elapsed"),
        ({"deadline": float("nan")}, "deadline"),
        ({"deadline": -1.0}, "deadline"),
    ],
)
def test_options_that_make_no_sense_are_named_too(solver, how, word):
    plan = solver.plan(_STATE, _CARS, _ONE, **how)
    assert plan.status is Status.BAD_INPUT
    assert word in plan.message


def test_a_deadline_that_has_passed_brings_the_fall_back_at_once(solver):
    plan = solver.plan(_STATE, _CARS, _ONE, deadline=0.0)
    assert plan.status is Status.TIME_LIMIT
    assert plan.command == plan.fallback.command
    assert plan.programs == plan.iterations == 0


def test_what_may_not_be_driven_is_not_what_is_commanded(solver):
    on_us = Obstacles([[1.0, 0.0]], [[0.0, 0.0]], [[5.6, 3.1]])
    plan = solver.plan(_STATE, on_us, _ONE)
    assert plan.status is Status.START_IN_COLLISION
    assert plan.command == plan.fallback.command
