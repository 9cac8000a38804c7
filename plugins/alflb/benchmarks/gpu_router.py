"""The fused routing kernel on a GPU, beside plain top-k and the eager and compiled paths, against its floor in bytes.

    python benchmarks/gpu_router.py [--out gpu-router.json]
    python benchmarks/gpu_router.py --device cpu --tokens 512      # tries the script where there is no GPU

Each contender starts from float32 logits [T, E] and gives chosen experts, scores and, but for plain top-k, the load of
each expert. The floor is the time that the card needs to move the bytes that any such kernel must: logits read once
(4 E a token), scores written once (4 E) and experts (8 K), over the bandwidth of a large copy measured in the same run.
Before anything is timed, the fused kernel's answer is compared with the eager path's. Inputs rotate among several sets,
so that no run finds its data in the cache. Times are medians, by device events on a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import machine
from torch import Tensor

SIZES = ((16, 2), (64, 6), (128, 8), (256, 8))


def median_ms(run: Callable[[int], object], device: torch.device, repeats: int) -> float:
    """Return the median milliseconds of run(i), over `repeats` calls after five that are not counted."""
    for i in range(5):
        run(i)
    times = []
    for i in range(repeats):
        if device.type == "cuda":
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            torch.cuda.synchronize()
            begin.record()
            run(i)
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            started = time.perf_counter()
            run(i)
            times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times)


def bandwidth(device: torch.device, repeats: int) -> float:
    """Return bytes a second of a large copy, reads and writes counted."""
    n = 1 << (28 if device.type == "cuda" else 24)
    source, target = torch.rand(n, device=device), torch.empty(n, device=device)
    return 2 * 4 * n / (1e-3 * median_ms(lambda _: target.copy_(source), device, repeats))


def plain(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sigmoid and top-k: what a router without balancing does."""
    scores = logits.sigmoid()
    return scores.topk(k, dim=-1, sorted=False)[1], scores


def eager(logits: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The balanced path from PyTorch's own operations: bias, top-k, load."""
    scores = logits.sigmoid()
    experts = (scores + bias).topk(k, dim=-1, sorted=False)[1]
    return experts, scores, torch.bincount(experts.flatten(), minlength=logits.shape[-1])


def counted(logits: Tensor, bias: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same with a scatter instead of bincount, which would make the host wait."""
    scores = logits.sigmoid()
    experts = (scores + bias).topk(k, dim=-1, sorted=False)[1]
    loads = torch.zeros(logits.shape[-1], dtype=torch.int64, device=logits.device)
    return experts, scores, loads.scatter_add_(0, experts.flatten(), torch.ones_like(experts.flatten()))


def measure(
    device: torch.device, n_tokens: int, n_experts: int, k: int, repeats: int, rate: float
) -> list[dict[str, Any]]:
    """Return one row a contender at one size."""
    generator = torch.Generator(device).manual_seed(0)
    sets = [torch.randn(n_tokens, n_experts, generator=generator, device=device) for _ in range(4)]
    bias = 0.05 * torch.randn(n_experts, generator=generator, device=device)
    contenders: dict[str, Callable[[int], object]] = {
        "plain top-k": lambda i: plain(sets[i % 4], k),
        "balanced, eager, bincount": lambda i: eager(sets[i % 4], bias, k),
        "balanced, eager, scatter": lambda i: counted(sets[i % 4], bias, k),
    }
    if device.type == "cuda":
        from sfumato_alflb.triton_kernels import fused_route

        ours, scores, loads = fused_route(sets[0], bias, k)
        reference = (sets[0].double().sigmoid() + bias.double()).sort(-1, descending=True, stable=True)
        gap = (
            (reference[0].gather(1, torch.argsort(reference[1], 1).gather(1, ours)) - reference[0][:, :k])
            .abs()
            .max()
        )
        if gap > 1e-6 or (scores - sets[0].sigmoid()).abs().max() > 1e-6 or int(loads.sum()) != n_tokens * k:
            raise SystemExit(
                f"the fused kernel is wrong at E={n_experts}, K={k}: expected a gap below 1e-6, got {float(gap)}"
            )
        compiled = torch.compile(counted)
        contenders["balanced, torch.compile"] = lambda i: compiled(sets[i % 4], bias, k)
        contenders["balanced, fused kernel"] = lambda i: fused_route(sets[i % 4], bias, k)
    floor = 1e3 * n_tokens * (8 * n_experts + 8 * k) / rate
    rows, base = [], 0.0
    for name, run in contenders.items():
        with torch.no_grad():
            ms = median_ms(run, device, repeats)
        base = base or ms
        rows.append({
            "T": n_tokens, "E": n_experts, "K": k, "contender": name, "ms": round(ms, 4), "over_plain": round(ms / base, 3),
            "floor_ms": round(floor, 4), "fraction_of_floor": round(floor / ms, 3),
        })  # fmt: skip
        print(
            f"T {n_tokens} E {n_experts:>3} K {k}  {name:<28}{ms:9.4f} ms  {ms / base:6.2f} x plain  {floor / ms:6.1%} of the floor"
        )
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 65536])
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.exit(
            3, "expected a CUDA device, found none; --device cpu tries the script without the kernel\n"
        )
    rate = bandwidth(device, options.repeats)
    print(f"a large copy moves {rate / 1e9:.0f} GB/s")
    rows = [
        row
        for n in options.tokens
        for e, k in SIZES
        for row in measure(device, n, e, k, options.repeats, rate)
    ]
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    if options.out:
        table = {
            "machine": machine(),
            "card": card,
            "torch": torch.__version__,
            "copy_bytes_a_second": rate,
            "rows": rows,
        }
        options.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
