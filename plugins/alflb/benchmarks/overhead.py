"""What the balanced router costs over plain top-k, in the forward pass of a whole mixture-of-experts layer.

    OMP_NUM_THREADS=1 python benchmarks/overhead.py [--device cuda]

The layer: 2048 tokens of width 512, 64 experts of width 256, 6 chosen, sigmoid gate. Plain routing is linear,
sigmoid, topk, gather, normalise. On a GPU the fused kernel is measured too.
"""

from __future__ import annotations

import argparse

import torch
from common import interleaved, save

from sfumato_alflb import BiasRouter
from sfumato_alflb.lm import Experts
from sfumato_alflb.router import Routed


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    if device == "cpu":
        torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    n_tokens, dim, n_experts, k, width = 2048, 512, 64, 6, 256
    router = BiasRouter(dim, n_experts, k, u=1e-3).to(device).train()
    experts = Experts(n_experts, dim, width)
    for weight in experts.parameters():
        torch.nn.init.normal_(weight, 0.0, dim**-0.5, generator=generator)
    experts.to(device)
    x = torch.randn(n_tokens, dim, generator=generator).to(device)
    synchronise = torch.cuda.synchronize if device != "cpu" else lambda: None

    def plain() -> Routed:
        logits = torch.nn.functional.linear(x, router.weight)
        scores = logits.sigmoid()
        weights, chosen = scores.topk(k, dim=-1, sorted=False)
        return Routed(chosen, weights / weights.sum(-1, keepdim=True), scores, logits)

    def balanced() -> Routed:
        return router(x)

    def with_update() -> Routed:
        routed = router(x)
        router.update_()
        return routed

    def layer(route):
        def run() -> None:
            experts(x, route())
            synchronise()

        return run

    def alone(route):
        def run() -> None:
            route()
            synchronise()

        return run

    contenders = {
        "router alone: plain top-k": alone(plain), "router alone: balanced": alone(balanced),
        "router alone: balanced and updated": alone(with_update), "layer: plain top-k": layer(plain),
        "layer: balanced": layer(balanced), "layer: balanced and updated": layer(with_update),
    }  # fmt: skip
    if device != "cpu":
        fused = BiasRouter(dim, n_experts, k, kernel="triton").to(device).train()
        fused.load_state_dict(router.state_dict())
        contenders |= {
            "router alone: fused kernel": alone(lambda: fused(x)),
            "layer: fused kernel": layer(lambda: fused(x)),
        }
    with torch.no_grad():
        times = interleaved(contenders, 15)
    for name, row in times.items():
        base = times[name.split(":")[0] + ": plain top-k"]
        row["cpu_ratio"] = row["cpu_ms"] / base["cpu_ms"]
        row["wall_ratio"] = row["wall_ms"] / base["wall_ms"]
        print(
            f"{name:<38} {row['cpu_ms']:8.2f} ms CPU {row['wall_ms']:8.2f} ms wall  ratio {row['cpu_ratio']:.3f}"
        )
    save(f"overhead-{device.split(':')[0]}", times)


if __name__ == "__main__":
    main()
