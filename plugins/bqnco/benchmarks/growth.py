"""How greedy and beam decoding grow with nodes, batch and width: CPU seconds, tokens per second, peak memory.

    python benchmarks/growth.py [--sizes 50 100 200 500] [--network shipped|paper|perceiver] [-o results/growth.json]
    python benchmarks/growth.py --cases 1000,1,1,250 1000,16,1,250      # nodes, batch, width, neighbours

Each row runs in a process of its own, so that the peak is its own. One thread; random uniform TSP. A batch of one is
latency, larger ones are throughput. With `-o` rows that are there already are kept, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

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
    parser.add_argument("--cases", nargs="*", help="nodes,batch,width,neighbours instead of the standard ones")
    parser.add_argument("--network", default="shipped")
    parser.add_argument("-o", "--output", type=Path)
    a = parser.parse_args()
    cases = [(n, 8, 1, 0) for n in a.sizes] + [(n, 8, 1, 60) for n in a.sizes if n > 100]
    cases += [(100, b, 1, 0) for b in (1, 32)] + [(100, 4, w, 0) for w in (4, 16)]
    if a.cases:
        cases = [tuple(int(x) for x in c.split(",")) for c in a.cases]
    rows = json.loads(a.output.read_text()) if a.output and a.output.exists() else []
    print("| network | n | batch | beam | nearest | CPU s each | tokens / s | peak MiB | above start |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case in cases:
        row = next((r for r in rows if r["network"] == a.network and tuple(r["case"]) == case), None)
        if row is None:
            out = subprocess.run(
                [sys.executable, "-c", ROW, json.dumps([*case, a.network])], capture_output=True, text=True, check=True
            )
            each, rate, peak, above = json.loads(out.stdout)
            row = {
                "network": a.network, "case": list(case), "cpu_seconds": round(each, 4), "tokens_per_second": round(rate),
                "peak_mib": round(peak), "above_start_mib": round(above),
            }  # fmt: skip
            rows.append(row)
            if a.output:
                a.output.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")
        n, batch, width, near = case
        figures = (row["cpu_seconds"], row["tokens_per_second"], row["peak_mib"], row["above_start_mib"])
        print("| {} | {} | {} | {} | {} |".format(a.network, n, batch, width, near or "all"), end="")
        print(" {:.3f} | {} | {} | {} |".format(*figures), flush=True)


if __name__ == "__main__":
    main()
