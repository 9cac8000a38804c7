"""Growth: time and MaxVio against T, E and K, and the exact solvers' time and memory against T*E.

OMP_NUM_THREADS=1 python benchmarks/growth.py
"""

from __future__ import annotations

import resource
import time

import numpy as np
from common import save

from sfumato_alflb import AlfProblem, alf_run, lp_reference
from sfumato_alflb.streams import fixed_scores


def peak_mb() -> float:
    """Return the peak memory of this process so far; it only grows, so sizes run in increasing order."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def rule_row(n_tokens: int, n_experts: int, k: int, steps: int = 300) -> dict:
    problem = AlfProblem(fixed_scores("skew", n_tokens, n_experts, np.random.default_rng(0)), k)
    cpu = time.process_time()
    run = alf_run(problem, "prop_inv", 0.5, steps=steps, engine="compiled")
    row = {
        "T": n_tokens, "E": n_experts, "K": k, "cpu_ms_per_update": (time.process_time() - cpu) * 1e3 / max(1, run.n_updates),
        "updates": run.n_updates, "below_0.1": run.first_below(0.1), "below_0.01": run.first_below(0.01),
        "max_vio": float(run.max_vio[-1]), "optimum_proved": run.final.is_optimal(), "peak_mb": peak_mb(),
    }  # fmt: skip
    print(row, flush=True)
    return row


def exact_row(n_tokens: int, n_experts: int, k: int, methods: tuple[str, ...]) -> dict:
    problem = AlfProblem(fixed_scores("skew", n_tokens, n_experts, np.random.default_rng(0)), k)
    row: dict = {"T": n_tokens, "E": n_experts, "K": k, "pairs": n_tokens * n_experts}
    for method in methods:
        cpu = time.process_time()
        solution = lp_reference(problem, method)
        row[method] = {
            "cpu_s": time.process_time() - cpu,
            "objective": solution.objective,
            "columns": solution.n_columns,
        }
    row["peak_mb"] = peak_mb()
    print(row, flush=True)
    return row


def main() -> None:
    alf_run(AlfProblem(np.random.default_rng(0).random((8, 4)), 1), steps=2, engine="compiled")  # compile
    by_tokens = [rule_row(2**p, 64, 8) for p in range(10, 18)]
    by_experts = [rule_row(4096, e, min(8, e // 2)) for e in (8, 16, 32, 64, 128, 256, 512)]
    by_k = [rule_row(4096, 64, k) for k in (1, 2, 4, 8, 16, 32)]
    everything = ("flow", "highs", "highs-ds", "highs-ipm")
    exact = [exact_row(2**p, 64, 8, everything if p <= 11 else ("flow", "highs")) for p in range(8, 14)]
    save("growth", {"tokens": by_tokens, "experts": by_experts, "k": by_k, "exact": exact})


if __name__ == "__main__":
    main()
