"""Closed loop at 10 Hz with C = 5, M = 6, N = 50: times of plans and of whole cycles (with certificate), and memory.

python benchmarks/real_time.py --cycles 10000 --json real_time.json --plot real_time.png
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
    whole: list[float]

    def act(self, observation):  # type: ignore[no-untyped-def]
        """Take the time of the whole cycle: interpretation, plan and certificate."""
        begun = time.process_time()
        command = super().act(observation)
        self.whole.append(time.process_time() - begun)
        return command

    def solve(self, situation, previous):  # type: ignore[no-untyped-def]
        """Plan and take the time."""
        begun = time.process_time()
        plan = super().solve(situation, previous)
        self.cpu.append(time.process_time() - begun)
        return plan


def plot(series: dict[str, list[float]], memory: list[float], path: str) -> None:
    """Draw every cycle's time, the distribution's tail, and memory over the run."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (top, tail, below) = plt.subplots(3, 1, figsize=(8, 8), constrained_layout=True)
    for name, colour in (("cycle_wall", "#c8553d"), ("wall", "#28666e")):
        ms = 1e3 * np.array(series[name])
        label = "whole cycle with certificate" if name == "cycle_wall" else "plan alone"
        top.plot(ms, ".", markersize=1.5, color=colour, label=f"{label}, wall")
        order = np.sort(ms)
        tail.semilogy(order, 1.0 - np.arange(len(order)) / len(order), color=colour, label=f"{label}, wall")
    top.axhline(100.0, color="black", linewidth=0.8)
    top.set(ylabel="ms", xlabel="cycle", title="10 Hz, C = 5, M = 6, N = 50, one core")
    top.legend()
    tail.axhline(1e-3, color="black", linewidth=0.8)
    tail.set(xlabel="ms", ylabel="share of cycles that take longer")
    below.plot(memory, color="#28666e")
    below.set(xlabel="course", ylabel="peak memory, MiB", ylim=(0.0, 1.2 * max(memory)))
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--deadline", type=float, default=0.1)
    parser.add_argument("--json")
    parser.add_argument("--plot", help="An image of the times of all cycles.")
    arguments = parser.parse_args()
    settings = PlannerSettings()
    warmed(settings)
    driver = Timed(CPTOSolver(settings), 6, 5, deadline=arguments.deadline, certified=True)
    driver.cpu, driver.whole = [], []
    wall: list[float] = []
    wall_whole: list[float] = []
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
        wall_whole += [row["seconds"] for row in driver.log]
        for row in driver.log:
            statuses[row["status"]] = statuses.get(row["status"], 0) + 1
        contacts += sum(c.at_fault for c in world.contacts)
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        seed += 1
    result = {
        "cycles": len(wall), "C": 5, "M": 6, "N": 50, "deadline_s": arguments.deadline, "statuses": statuses,
        "at_fault_contacts": contacts, "peak_memory_MiB_after_first": memory[0], "peak_memory_MiB_at_end": memory[-1],
    }  # fmt: skip
    series = {"cpu": driver.cpu, "wall": wall, "cycle_cpu": driver.whole, "cycle_wall": wall_whole}
    if arguments.plot:
        plot(series, memory, arguments.plot)
    for name, values in series.items():
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
