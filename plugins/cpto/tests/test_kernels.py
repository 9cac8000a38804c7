"""The compiled kernel does what the reference does."""

import attrs
import numpy as np
import pytest

from sfumato_cpto import admm, coldstart, kernel_numba
from sfumato_cpto.config import PlannerSettings, Stage
from sfumato_cpto.problem import build
from sfumato_cpto.random_scenes import BOUNDS, scene
from sfumato_cpto.transcription import Transcription


@pytest.mark.parametrize("consensus", ["control-points", "admm"])
@pytest.mark.parametrize("projection", ["forward", "exact", "previous-iterate"])
@pytest.mark.parametrize("n_candidates", [1, 3])
def test_numpy_and_compiled_kernels_agree(consensus, projection, n_candidates):
    settings = PlannerSettings(bounds=BOUNDS, consensus=consensus, projection=projection, relaxation=1.4)
    t = Transcription(settings)
    state, obstacles, hypotheses = scene(np.random.default_rng(4), n_candidates, 5)
    present = np.array(hypotheses.present)
    present[-1, 1:] = False
    problem = build(settings, state, obstacles, attrs.evolve(hypotheses, present=present))
    stage = Stage(iterations=3)
    factors = t.factors(stage, problem.n_obstacles, problem.bounded)
    guess = coldstart.roll_out(t, problem)
    one, two = (admm.initial_state(t, problem, guess) for _ in range(2))
    for _ in range(3):
        residual = admm.iterate(t, factors, stage, problem, one)
        _, other = kernel_numba.run(t, factors, stage, problem, two, 1, 0.0)
        np.testing.assert_allclose(two.coef, one.coef, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(other, residual, rtol=1e-6, atol=1e-8)
    for field in attrs.fields(admm.AdmmState):
        if field.name == "distance" and projection != "previous-iterate":
            continue  # the compiled kernel keeps distances only where the next iteration needs them
        if field.name.startswith(("share", "dual_share")) and consensus != "admm":
            continue
        a, b = getattr(one, field.name), getattr(two, field.name)
        if field.name in ("box", "dual_box"):
            rows = np.repeat(np.repeat(problem.bounded, t.n, axis=1), n_candidates, axis=0)
            a, b = a * rows, b * rows
        if field.name == "distance":
            a, b = a * problem.present[:, :, None], b * problem.present[:, :, None]
        if field.name == "share":
            continue  # only the first N_c rows of each block are used
        np.testing.assert_allclose(b, a, rtol=1e-7, atol=1e-8, err_msg=field.name)


def test_a_guess_is_left_as_it_was_handed_in():
    settings = PlannerSettings(bounds=BOUNDS)
    t = Transcription(settings)
    problem = build(settings, *scene(np.random.default_rng(1), 3))
    guess = coldstart.roll_out(t, problem)
    before = guess.copy()
    factors = t.factors(settings.stages[0], problem.n_obstacles, problem.bounded)
    one, two = (admm.initial_state(t, problem, guess) for _ in range(2))
    kernel_numba.run(t, factors, settings.stages[0], problem, one, 5, 0.0)
    assert np.array_equal(guess, before)
    assert not np.array_equal(one.coef, two.coef)


def test_the_same_call_gives_the_same_bits():
    settings = PlannerSettings(bounds=BOUNDS)
    t = Transcription(settings)
    problem = build(settings, *scene(np.random.default_rng(1), 3))
    stage = settings.stages[0]
    factors = t.factors(stage, problem.n_obstacles, problem.bounded)
    runs = []
    for _ in range(2):
        state = admm.initial_state(t, problem, coldstart.roll_out(t, problem))
        kernel_numba.run(t, factors, stage, problem, state, 30, 0.0)
        runs.append(state.coef.tobytes())
    assert runs[0] == runs[1]


@pytest.mark.parametrize("n_candidates", [2, 5])
def test_without_obstacles_the_iteration_converges_to_the_bounded_optimum(n_candidates):
    from sfumato_cpto.polish import Polisher

    settings = PlannerSettings(bounds=BOUNDS, relaxation=1.6)
    t = Transcription(settings)
    problem = build(settings, *scene(np.random.default_rng(1), n_candidates, 0))
    stage = Stage(iterations=3000, rho_box=200.0, rho_motion=0.0)
    factors = t.factors(stage, 0, problem.bounded)
    run = admm.initial_state(t, problem, coldstart.roll_out(t, problem))
    kernel_numba.run(t, factors, stage, problem, run, 3000, 0.0)
    polisher = Polisher(t)
    best = polisher.run(problem, run.sample, 1)
    assert best.feasible
    assert polisher.cost(problem, run.sample) == pytest.approx(best.cost, rel=1e-8)
    assert (
        np.abs(run.sample - run.box)[
            np.repeat(np.repeat(problem.bounded, t.n, axis=1), n_candidates, axis=0)
        ].max()
        < 1e-6
    )
