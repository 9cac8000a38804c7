"""Many scenes at once: the JAX kernel on a batch beside the compiled CPU kernel one scene after another.

python benchmarks/jax_batch.py --scenes 1000 --iterations 50
"""

from __future__ import annotations

import argparse
import time

import jax
import numpy as np

from sfumato_cpto import PlannerSettings, admm, coldstart, kernel_jax, kernel_numba
from sfumato_cpto.problem import build
from sfumato_cpto.random_scenes import BOUNDS, scene
from sfumato_cpto.transcription import Transcription


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("-c", type=int, default=5)
    arguments = parser.parse_args()
    settings = PlannerSettings(bounds=BOUNDS)
    t = Transcription(settings)
    rng = np.random.default_rng(0)
    problems = [build(settings, *scene(rng, arguments.c)) for _ in range(arguments.scenes)]
    stage = settings.stages[0]
    factors = t.factors(stage, 6, problems[0].bounded)
    guesses = [coldstart.roll_out(t, problem) for problem in problems]

    def states() -> list[admm.AdmmState]:
        return [admm.initial_state(t, p, g) for p, g in zip(problems, guesses, strict=True)]

    for size in (1, 10, 100, arguments.scenes):
        chosen, one, two = problems[:size], states()[:size], states()[:size]
        kernel_numba.run(t, factors, stage, chosen[0], one[0], 1, 0.0)
        wall, cpu = time.perf_counter(), time.process_time()
        for problem, state in zip(chosen, one, strict=True):
            kernel_numba.run(t, factors, stage, problem, state, arguments.iterations, 0.0)
        numba_wall, numba_cpu = time.perf_counter() - wall, time.process_time() - cpu
        wall = time.perf_counter()
        kernel_jax.run_batch(t, factors, stage, chosen, two, arguments.iterations)[1].block_until_ready()
        first = time.perf_counter() - wall
        wall, cpu = time.perf_counter(), time.process_time()
        found, residuals = kernel_jax.run_batch(t, factors, stage, chosen, two, arguments.iterations)
        residuals.block_until_ready()
        jax_wall, jax_cpu = time.perf_counter() - wall, time.process_time() - cpu
        gap = (
            max(float(np.abs(np.asarray(found["coef"][i]) - one[i].coef).max()) for i in range(1, size))
            if size > 1
            else 0.0
        )
        print(
            f"B {size:>5}  numba {1e3 * numba_cpu:>8.1f} ms cpu {1e3 * numba_wall:>8.1f} wall   jax on "
            f"{jax.devices()[0].platform} {1e3 * jax_cpu:>8.1f} cpu {1e3 * jax_wall:>8.1f} wall   compile {first - jax_wall:>5.1f} s"
            f"   greatest difference of a coefficient {gap:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
