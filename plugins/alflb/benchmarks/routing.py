"""One routing iteration (biased scores, top-K, loads) on T=4096, E=64, K=8, and its growth in T, E and K.

    OMP_NUM_THREADS=1 python benchmarks/routing.py

Contenders: the reference (stable sort of indices), a partial sort of indices (the usual numpy idiom), ours in
numpy (partial sort of values), ours compiled, and torch's topk with bincount in float32.
"""

from __future__ import annotations

import numpy as np
import torch
from common import interleaved, save

from sfumato_alflb import AlfProblem, alf_run, route, top_k_stable
from sfumato_alflb.kernels import route_compiled
from sfumato_alflb.streams import fixed_scores


def sort_indices(scores: np.ndarray, bias: np.ndarray, k: int) -> np.ndarray:
    return np.bincount(top_k_stable(scores + bias, k).ravel(), minlength=scores.shape[1])


def partition_indices(scores: np.ndarray, bias: np.ndarray, k: int) -> np.ndarray:
    chosen = np.argpartition(scores + bias, scores.shape[1] - k, axis=1)[:, -k:]
    return np.bincount(chosen.ravel(), minlength=scores.shape[1])


def torch_topk(scores: torch.Tensor, bias: torch.Tensor, k: int) -> torch.Tensor:
    chosen = (scores + bias).topk(k, dim=-1, sorted=False).indices
    return torch.bincount(chosen.flatten(), minlength=scores.shape[1])


def contenders(n_tokens: int, n_experts: int, k: int) -> dict:
    scores = fixed_scores("skew", n_tokens, n_experts, np.random.default_rng(0))
    bias = np.zeros(n_experts)
    s32, b32 = torch.from_numpy(scores).float(), torch.zeros(n_experts)
    return {
        "stable sort of indices": lambda: sort_indices(scores, bias, k),
        "argpartition": lambda: partition_indices(scores, bias, k),
        "torch float32 topk": lambda: torch_topk(s32, b32, k),
        "ours, numpy": lambda: route(scores, bias, k),
        "ours, compiled": lambda: route_compiled(scores, bias, k),
    }


def main() -> None:
    torch.set_num_threads(1)
    table = []
    sizes = [(4096, 64, 8), (1024, 64, 8), (16384, 64, 8), (131072, 64, 8), (4096, 8, 2), (4096, 256, 8),
             (4096, 512, 8), (4096, 64, 1), (4096, 64, 2), (4096, 64, 32)]  # fmt: skip
    for n_tokens, n_experts, k in sizes:
        times = interleaved(contenders(n_tokens, n_experts, k), 15 if n_tokens <= 16384 else 3)
        base = times["argpartition"]["cpu_ms"]
        for name, row in times.items():
            row["speed_over_argpartition"] = base / row["cpu_ms"]
            print(f"T={n_tokens:<7} E={n_experts:<4} K={k:<3} {name:<24} {row['cpu_ms']:8.2f} ms CPU "
                  f"{row['wall_ms']:8.2f} ms wall  x{row['speed_over_argpartition']:.2f}", flush=True)  # fmt: skip
        table.append({"T": n_tokens, "E": n_experts, "K": k, "times": times})
    problem = AlfProblem(fixed_scores("skew", 4096, 64, np.random.default_rng(0)), 8)
    runs = interleaved(
        {
            e: (lambda e=e: alf_run(problem, "prop_inv", 0.5, steps=600, engine=e))
            for e in ("numpy", "compiled")
        },
        3,
    )
    ratio = runs["numpy"]["cpu_ms"] / runs["compiled"]["cpu_ms"]
    print(f"476 updates to the exact optimum: numpy {runs['numpy']['cpu_ms']:.0f} ms, incremental "
          f"{runs['compiled']['cpu_ms']:.0f} ms CPU, x{ratio:.1f}")  # fmt: skip
    save("routing", {"one_iteration": table, "whole_run": runs})


if __name__ == "__main__":
    main()
