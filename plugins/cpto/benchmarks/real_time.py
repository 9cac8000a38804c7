"""Closed loop at 10 Hz with C = 5, M = 6, N = 50: distribution of the planning time over many cycles, and memory.

python benchmarks/real_time.py --cycles 10000 --json real_time.json
"""

from __future__ import annotations

import argparse
import json
import resource
import time

import numpy as np

from sfumato_cpto import CPTOSolver, PlannerSettings
from sfumato_cpto.driver import Driver
from sfumato_cpto.simulator import scenes
from sfumato_cpto.simulator.world import World
from sfumato_cpto.solvers import warmed


class Timed(Driver):
    """A driver that notes process CPU time of every plan."""

    cpu: list[float]

    def solve(self, situation, previous):  # type: ignore[no-untyped-def]
        """Plan and take the time."""
        begun = time.process_time()
        plan = super().solve(situation, previous)
        self.cpu.append(time.process_time() - begun)
        return plan


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--deadline", type=float, default=0.1)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    settings = PlannerSettings()
    warmed(settings)
    driver = Timed(CPTOSolver(settings), 6, 5, deadline=arguments.deadline)
    driver.cpu = []
    wall: list[float] = []
    statuses: dict[str, int] = {}
    memory = []
    contacts = 0
    seed = 0
    while len(wall) < arguments.cycles:
        rng = np.random.default_rng([seed, 7])
        scene = scenes.cruise(rng) if seed % 2 == 0 else scenes.noisy(rng)
        world = World(scene, rng)
        driver.reset(scene.public)
        while not world.timed_out and len(wall) + len(driver.log) < arguments.cycles:
            world.step(*driver.act(world.observe()))
        wall += [row["plan_seconds"] for row in driver.log]
        for row in driver.log:
            statuses[row["status"]] = statuses.get(row["status"], 0) + 1
        contacts += sum(c.at_fault for c in world.contacts)
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        seed += 1
    result = {
        "cycles": len(wall), "C": 5, "M": 6, "N": 50, "deadline_s": arguments.deadline, "statuses": statuses,
        "at_fault_contacts": contacts, "peak_memory_MiB_after_first": memory[0], "peak_memory_MiB_at_end": memory[-1],
    }  # fmt: skip
    for name, values in (("cpu", driver.cpu), ("wall", wall)):
        ms = 1e3 * np.array(values[: len(wall)])
        for q in (50, 95, 99, 99.9):
            result[f"{name}_ms_p{q}"] = float(np.percentile(ms, q))
        result[f"{name}_ms_max"] = float(ms.max())
        counts, edges = np.histogram(ms, bins=np.geomspace(0.5, 500.0, 31))
        result[f"{name}_histogram"] = {
            "edges_ms": [round(float(e), 3) for e in edges],
            "counts": counts.tolist(),
        }
    print(json.dumps({k: v for k, v in result.items() if "histogram" not in k}, indent=1))
    if arguments.json:
        with open(arguments.json, "w") as stream:
            json.dump(result, stream, indent=1)


if __name__ == "__main__":
    main()
