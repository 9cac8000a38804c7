"""How greedy and beam decoding grow with nodes, batch and width: CPU seconds, tokens per second, peak memory.

    python benchmarks/growth.py [--sizes 50 100 200 500] [--network shipped|paper|perceiver]

Each row runs in a process of its own, so that the peak is its own. One thread; random uniform TSP.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

ROW = """
import json, resource, sys, time
import numpy as np, torch
from sfumato_bqnco import generate
from sfumato_bqnco.config import NetworkConfig
from sfumato_bqnco.decode import Limits, beam, greedy
from sfumato_bqnco.env import environment
from sfumato_bqnco.network import BQNetwork
from sfumato_bqnco.policy import BQPolicy
n, batch, width, neighbours, network = json.loads(sys.argv[1])
torch.set_num_threads(1)
limits = Limits(4096, neighbours)
kinds = {"paper": lambda: BQPolicy(BQNetwork(NetworkConfig()), limits=limits),
         "perceiver": lambda: BQPolicy(BQNetwork(NetworkConfig(kind="perceiver")), limits=limits),
         "shipped": lambda: BQPolicy.shipped("tsp", limits=limits)}
policy = kinds[network]()
env = environment("tsp", generate.tsp(np.random.default_rng(0), batch, n))
tiny = environment("tsp", generate.tsp(np.random.default_rng(1), 2, 8))
greedy(policy.scorer, tiny); beam(policy.scorer, tiny, 2)  # load what is compiled
policy.scorer.n_tokens = 0
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
began = time.process_time()
greedy(policy.scorer, env) if width == 1 else beam(policy.scorer, env, width)
used = time.process_time() - began
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([used / batch, policy.scorer.n_tokens / used, peak, peak - before]))
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="*", default=[50, 100, 200, 500])
    parser.add_argument("--network", default="shipped")
    a = parser.parse_args()
    cases = [(n, 8, 1, 0) for n in a.sizes] + [(n, 8, 1, 60) for n in a.sizes if n > 100]
    cases += [(100, b, 1, 0) for b in (1, 32)] + [(100, 4, w, 0) for w in (4, 16)]
    print(
        f"{'n':>5} {'batch':>5} {'width':>5} {'kNN':>4} {'CPU-s each':>10} {'tokens/s':>9} {'peak MiB':>8} {'above start':>11}"
    )
    for case in cases:
        out = subprocess.run(
            [sys.executable, "-c", ROW, json.dumps([*case, a.network])],
            capture_output=True,
            text=True,
            check=True,
        )
        each, rate, peak, above = json.loads(out.stdout)
        print(
            "{:>5} {:>5} {:>5} {:>4}".format(*case),
            f"{each:>10.3f} {rate:>9.0f} {peak:>8.0f} {above:>11.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
