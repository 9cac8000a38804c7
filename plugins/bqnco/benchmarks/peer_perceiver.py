"""Greedy decoding on one core: our Perceiver variant and our other networks beside the authors' PerceiverIO code.

    git clone --branch perceiver https://github.com/naver/bq-nco /somewhere/bq-nco      # CC BY-NC-SA: stays outside
    python benchmarks/peer_perceiver.py /somewhere/bq-nco [--sizes 100 200] [--instances 8] [--repeats 3]

Rows alternate within one process on the same instances, one thread; process CPU seconds per instance, median over the
repeats; the ratio is peer over ours. The peer runs its own decoder with its own weights, which also gives its gap.
Ours: the Perceiver variant and the paper's network with random weights (time does not depend on them), and the small
network that ships.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
import torch

from sfumato_bqnco import generate
from sfumato_bqnco.config import NetworkConfig
from sfumato_bqnco.decode import Limits
from sfumato_bqnco.instances import from_arrays
from sfumato_bqnco.network import BQNetwork
from sfumato_bqnco.policy import BQPolicy
from sfumato_bqnco.tasks import search_reference


def peer(path):
    """The authors' network and their decode function, imported from their own checkout."""
    sys.path.insert(0, path)
    from learning.tsp.decoding import decode
    from model.model import BQModel

    net = BQModel(2, 192, 64, 48, 8, 512, "relu", 9, "tsp")
    state = torch.load(f"{path}/pretrained_models/tsp_perceiver.best", map_location="cpu", weights_only=False)
    weights = next(v for v in state.values() if isinstance(v, dict) and "latent_array" in v)
    net.load_state_dict(weights)
    net.eval()

    def run(xy):
        closed = torch.tensor(np.concatenate((xy, xy[:, :1]), 1), dtype=torch.float32)
        with torch.no_grad():
            _, lengths = decode(closed, torch.cdist(closed, closed), net, 1, -1)
        return lengths.numpy()

    return run


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("--sizes", type=int, nargs="*", default=[100, 200])
    parser.add_argument("--instances", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    a = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    limits = Limits(4096, 0)
    runs = {"authors' Perceiver, own code": peer(a.peer)}
    for name, policy in (
        ("our Perceiver variant", BQPolicy(BQNetwork(NetworkConfig(kind="perceiver")), limits=limits)),
        ("our paper network", BQPolicy(BQNetwork(NetworkConfig()), limits=limits)),
        ("our shipped small network", BQPolicy.shipped("tsp", limits=limits)),
    ):
        runs[name] = lambda xy, policy=policy: policy.solve({"xy": xy}).cost
    for n in a.sizes:
        arrays = generate.tsp(np.random.default_rng(1), a.instances, n)
        reference = np.array(
            [
                search_reference(from_arrays("tsp", arrays, b), np.random.default_rng(0), 20)
                for b in range(a.instances)
            ]
        )
        for run in runs.values():  # compile, fill caches
            run(arrays["xy"][:1])
        seconds = {name: [] for name in runs}
        gaps = {}
        for _ in range(a.repeats):
            for name, run in runs.items():
                began = time.process_time()
                cost = run(arrays["xy"])
                seconds[name].append((time.process_time() - began) / a.instances)
                gaps[name] = 100 * float(np.mean(cost / reference - 1))
        base = statistics.median(seconds["authors' Perceiver, own code"])
        for name, values in seconds.items():
            middle = statistics.median(values)
            trained = (
                "gap of random weights" if "variant" in name or "paper" in name else f"gap {gaps[name]:.2f} %"
            )
            print(
                f"TSP{n} {name:<30} {middle:7.3f} CPU-s   peer/ours {base / middle:5.2f}   {trained}",
                flush=True,
            )


if __name__ == "__main__":
    main()
