"""Discounted return at equal planning time, paired episodes, beside POMCP, DESPOT-like search and the C++ DESPOT.

    python benchmarks/returns.py rocksample-7-8 --seconds 0.1 --episodes 200 [--despot BUILD_FOLDER]

Planning time is CPU time of one thread for every planner (DESPOT's own clock is CPU time). Episodes start in the same fixed
random order of start states for ours; the C++ program draws its own starts and worlds, so against it the difference is not
paired. ± is a 95 % interval.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from pathlib import Path

import numpy as np
from common import interval

from sfumato_vopp import POMCP, VOPP, POMCPConfig, RockSample, SearchConfig
from sfumato_vopp.models.lasertag import LaserTag
from sfumato_vopp.models.lightdark import LightDark
from sfumato_vopp.models.mars import Mars
from sfumato_vopp.models.navigation import Navigation
from sfumato_vopp.models.tag import Tag
from sfumato_vopp.simulate import play

PROBLEMS = {
    "rocksample-7-8": lambda: RockSample(7, 8),
    "rocksample-11-11": lambda: RockSample(11, 11),
    "tag": Tag,
    "lasertag": LaserTag,
    "light-dark": LightDark,
    "navigation": Navigation,
    "mars-20-20": lambda: Mars(20, 20),
    "mars-50-50": lambda: Mars(50, 50),
}
DESPOT = {
    "rocksample-7-8": ("examples/cpp_models/rock_sample/despot_rock_sample", ["--size", "7", "--number", "8"]),
    "rocksample-11-11": ("examples/cpp_models/rock_sample/despot_rock_sample", ["--size", "11", "--number", "11"]),
    "tag": ("examples/cpp_models/tag/despot_tag", []),
}


def despot(folder: str, problem: str, seconds: float, episodes: int) -> np.ndarray:
    """Run the C++ program and return its discounted returns."""
    program, arguments = DESPOT[problem]
    command = [str(Path(folder) / program), *arguments, "-t", str(seconds), "--runs", str(episodes), "-r", "1"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return np.array([float(x) for x in re.findall(r"Total discounted reward = (\S+)", text)])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problem", choices=sorted(PROBLEMS))
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--max-steps", type=int, default=90)
    parser.add_argument("--eta", type=float, default=None)
    parser.add_argument("--despot")
    parser.add_argument("--planners", nargs="+", default=["vopp", "pomcp"])
    options = parser.parse_args()
    model = PROBLEMS[options.problem]()
    vopp = SearchConfig(seconds=options.seconds, clock="cpu", eta=options.eta)
    pomcp = POMCPConfig(seconds=options.seconds, clock="cpu")
    planners = {"vopp": lambda: VOPP(model, vopp), "pomcp": lambda: POMCP(model, pomcp)}
    returns = {}
    for name in options.planners:
        planner = planners[name]()
        planner.warmup()
        results = [play(planner, model, k, options.max_steps) for k in range(options.episodes)]
        returns[name] = np.array([r.discounted_return for r in results])
        steps = np.mean([s.steps for r in results for s in r.stats])
        ended = np.mean([r.ended for r in results])
        print(f"{name:12} {interval(returns[name])}  ended {ended:.0%}  {steps:.3g} steps a decision", flush=True)
    if len(returns) == 2:
        a, b = returns.values()
        print(f"{'difference':12} {interval(a - b)}  paired")
    if not options.despot or options.problem not in DESPOT:
        print("despot       skipped: give --despot BUILD_FOLDER and one of " + ", ".join(DESPOT))
        return
    print(f"{'despot C++':12} {interval(despot(options.despot, options.problem, options.seconds, options.episodes))}")


if __name__ == "__main__":
    main()
