"""The JAX kernel does what the reference does, alone and in batches."""

import attrs
import numpy as np
import pytest

from sfumato_cpto import admm, coldstart
from sfumato_cpto.config import PlannerSettings
from sfumato_cpto.problem import build
from sfumato_cpto.random_scenes import BOUNDS, scene
from sfumato_cpto.transcription import Transcription

pytest.importorskip("jax", reason="jax extra not installed")
pytestmark = pytest.mark.optional


@pytest.mark.parametrize("consensus", ["control-points", "admm"])
def test_a_batch_agrees_with_the_reference_scene_by_scene(consensus):
    from sfumato_cpto import kernel_jax

    settings = PlannerSettings(bounds=BOUNDS, consensus=consensus, n_samples=20, relaxation=1.3)
    t = Transcription(settings)
    rng = np.random.default_rng(0)
    problems = [build(settings, *scene(rng, 2, 3)) for _ in range(3)]
    stage = settings.stages[0]
    factors = t.factors(stage, 3, problems[0].bounded)
    states = [admm.initial_state(t, p, coldstart.roll_out(t, p)) for p in problems]
    found, residuals = kernel_jax.run_batch(t, factors, stage, problems, states, 2)
    for i, (problem, state) in enumerate(zip(problems, states, strict=True)):
        for _ in range(2):
            expected = admm.iterate(t, factors, stage, problem, state)
        np.testing.assert_allclose(residuals[i], expected, rtol=1e-6, atol=1e-8)
        for field in attrs.fields(admm.AdmmState):
            np.testing.assert_allclose(
                found[field.name][i], getattr(state, field.name), rtol=1e-8, atol=1e-8, err_msg=field.name
            )


def test_scenes_of_different_sizes_and_other_projections_are_refused():
    from sfumato_cpto import kernel_jax

    settings = PlannerSettings(bounds=BOUNDS, n_samples=20)
    t = Transcription(settings)
    problems = [build(settings, *scene(np.random.default_rng(0), c, 3)) for c in (1, 2)]
    factors = t.factors(settings.stages[0], 3, problems[0].bounded)
    states = [admm.initial_state(t, p, coldstart.roll_out(t, p)) for p in problems]
    with pytest.raises(ValueError, match="one size"):
        kernel_jax.run_batch(t, factors, settings.stages[0], problems, states, 1)
    other = Transcription(attrs.evolve(settings, projection="exact"))
    with pytest.raises(ValueError, match="forward"):
        kernel_jax.run_batch(other, factors, settings.stages[0], problems[:1], states[:1], 1)
