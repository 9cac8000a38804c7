"""Ten thousand scenes in one JAX batch on a GPU, beside the compiled kernel on two processor cores.

    python benchmarks/gpu_batch.py --out gpu-batch.json
    python benchmarks/gpu_batch.py --device cpu --scenes 20 --iterations 5      # tries the script where there is no GPU

C = 5, M = 6, N = 50, 50 iterations of the first stage. Two times are given: `whole` begins with the scenes as objects and
ends with the answer on the host; `device` begins and ends on the card. The answers of both kernels are compared
before anything is timed. Two floors: the operations that XLA counts in one iteration over `--peak` (float64), and
the state, questions and answer read and written once an iteration over the bandwidth of a copy measured in the same run. The larger
binds, unless a compiler keeps the state on the chip between iterations.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sfumato_cpto import PlannerSettings, admm, coldstart, kernel_jax, kernel_numba
from sfumato_cpto.problem import build
from sfumato_cpto.random_scenes import BOUNDS, scene
from sfumato_cpto.transcription import Transcription


class Work:
    """Scenes of one size with their cold starts, and what the kernels need beside them."""

    def __init__(self, first: int, count: int) -> None:
        settings = PlannerSettings(bounds=BOUNDS)
        self.t = Transcription(settings)
        self.problems = [
            build(settings, *scene(np.random.default_rng(i), 5)) for i in range(first, first + count)
        ]
        self.stage = settings.stages[0]
        self.factors = self.t.factors(self.stage, 6, self.problems[0].bounded)
        self.guesses = [coldstart.roll_out(self.t, problem) for problem in self.problems]

    def states(self) -> list[admm.AdmmState]:
        """Return fresh states."""
        return [admm.initial_state(self.t, p, g) for p, g in zip(self.problems, self.guesses, strict=True)]

    def solve(self, iterations: int, count: int | None = None) -> list[admm.AdmmState]:
        """Iterate scenes one after another with the compiled kernel."""
        states = self.states()[:count]
        for problem, state in zip(self.problems, states, strict=False):
            kernel_numba.run(self.t, self.factors, self.stage, problem, state, iterations, 0.0)
        return states


def core(first: int, count: int, iterations: int, ready: Any, gate: Any, out: Any) -> None:
    """Solve a share of the scenes in a process of its own, when all are ready."""
    work = Work(first, count)
    work.solve(iterations, 1)
    states = work.states()
    ready.release()
    gate.wait()
    begun = time.perf_counter()
    for problem, state in zip(work.problems, states, strict=True):
        kernel_numba.run(work.t, work.factors, work.stage, problem, state, iterations, 0.0)
    out.put(time.perf_counter() - begun)


def two_cores(scenes: int, iterations: int) -> float:
    """Return the seconds that two processes take for all scenes together."""
    context = multiprocessing.get_context("spawn")
    ready, gate, out = context.Semaphore(0), context.Event(), context.Queue()
    half = scenes // 2
    shares = ((0, half), (half, scenes - half))
    processes = [
        context.Process(target=core, args=(*share, iterations, ready, gate, out)) for share in shares
    ]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    gate.set()
    seconds = max(out.get() for _ in processes)
    for process in processes:
        process.join()
    return seconds


def bandwidth(device: Any) -> float:
    """Return bytes a second of a large copy on the device, reads and writes counted."""
    n = 1 << (27 if device.platform == "gpu" else 22)
    source = jax.device_put(np.random.default_rng(0).random(n), device)
    move = jax.jit(lambda x: x + 1.0)
    move(source).block_until_ready()
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        move(source).block_until_ready()
        times.append(time.perf_counter() - begun)
    return 2 * 8 * n / statistics.median(times)


def main() -> None:
    """Compare, measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--scenes", type=int, default=10_000)
    parser.add_argument("--iterations", type=int, default=50)
    parser.add_argument("--peak", type=float, default=34e12, help="float64 operations a second of the card")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    try:
        device = jax.devices(options.device)[0]
    except RuntimeError:
        parser.exit(3, "expected a GPU that JAX can use, found none; --device cpu tries the script\n")
    rows: list[dict[str, Any]] = []
    cores = two_cores(options.scenes, options.iterations)
    print(
        f"two cores, compiled kernel: {options.scenes} scenes in {cores:.3f} s, {options.scenes / cores:.0f} a second"
    )
    work = Work(0, options.scenes)
    rate = bandwidth(device)
    sizes = sorted({min(options.scenes, size) for size in (10, 100, 1000, 10_000, options.scenes)})
    with jax.default_device(device):
        for size in sizes:
            problems, states = work.problems[:size], work.states()[:size]
            arguments = (work.t, work.factors, work.stage, problems, states, options.iterations)
            found, _ = kernel_jax.run_batch(*arguments)
            some = min(size, 20)
            expected = work.solve(options.iterations, some)
            gap = max(
                float(np.abs(np.asarray(found["coef"][i]) - expected[i].coef).max()) for i in range(some)
            )
            if not gap < 1e-6:
                raise SystemExit(f"the kernels disagree: expected coefficients within 1e-6, got {gap:.1e}")
            whole, resident = [], []
            fixed = jax.device_put(kernel_jax.batch(*arguments[:5]), device)
            for _ in range(5):
                begun = time.perf_counter()
                out, residuals = kernel_jax.run_batch(*arguments)
                np.asarray(out["coef"]), np.asarray(residuals)
                whole.append(time.perf_counter() - begun)
                begun = time.perf_counter()
                jax.block_until_ready(kernel_jax.run_arrays(work.t, fixed, options.iterations))
                resident.append(time.perf_counter() - begun)
            moved = sum(leaf.nbytes for leaf in jax.tree.leaves(fixed[1])) + 2 * sum(
                leaf.nbytes for leaf in jax.tree.leaves(fixed[2])
            )
            counted = kernel_jax.operations(work.t, fixed)
            floor = options.iterations * max(counted / options.peak, moved / rate)
            seconds = statistics.median(resident)
            rows.append({
                "scenes": size, "iterations": options.iterations, "whole_s": statistics.median(whole), "device_s": seconds,
                "scenes_a_second": size / seconds, "over_two_cores": (size / seconds) / (options.scenes / cores),
                "floor_s": floor, "fraction_of_floor": floor / seconds, "greatest_difference": gap,
            })  # fmt: skip
            print(
                f"B {size:>6}  whole {1e3 * rows[-1]['whole_s']:9.1f} ms  device {1e3 * seconds:9.2f} ms  {size / seconds:10.0f} scenes/s  "
                f"{rows[-1]['over_two_cores']:7.2f} x two cores  {floor / seconds:6.1%} of the floor"
            )
    if options.out:
        content = {
            "card": device.device_kind,
            "jax": jax.__version__,
            "cpus": os.cpu_count(),
            "two_cores_s": cores,
            "rows": rows,
        }
        options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
