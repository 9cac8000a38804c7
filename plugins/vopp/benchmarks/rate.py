"""Simulated model steps per CPU second inside planning, tree work included, beside the peers that are at hand.

    python benchmarks/rate.py [--seconds 1] [--vopp-reference PATH]

`--vopp-reference` is a checkout of RDLLab/VOPP (torch on the CPU, on its own MARS and on our RockSample; see
`vopp_released.py`). pomdp_py runs its own RockSample on our map. What is absent is skipped with a reason. One thread; process CPU time; best of three, because other work only ever slows a run down.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import time
from types import SimpleNamespace

import numpy as np

from sfumato_vopp import POMCP, VOPP, Belief, POMCPConfig, RockSample, SearchConfig
from sfumato_vopp.models.mars import Mars
from sfumato_vopp.models.tag import Tag


def ours(planner: object, model: object, seconds: float) -> tuple[float, float, float]:
    """Return (steps per CPU second, rate in the last third over rate in the first, MB)."""
    belief = model.initial(10_000, np.random.default_rng(0))
    tree, config = planner._tree, planner.config
    best = (0.0, 0.0, 0.0)
    for attempt in range(3):
        tree.begin(belief, None, attempt)
        began, i, done, marks = time.process_time(), 0, 0, [(0.0, 0)]
        while (now := time.process_time() - began) < seconds:
            if now > seconds * len(marks) / 3:
                marks.append((now, tree.steps))
            done += tree.iterate(i, config.n_episodes, done, config.depth(i))
            i += 1
        now = time.process_time() - began
        marks.append((now, tree.steps))
        first = marks[1][1] / marks[1][0]
        last = (marks[-1][1] - marks[-2][1]) / (marks[-1][0] - marks[-2][0])
        best = max(best, (tree.steps / now, last / first, tree.nbytes / 1e6))
    return best


def released(path: str, n: int, rocks: int, size: int, depth: int, seconds: float) -> float:
    """Return steps per CPU second of the released code on MARS(size, rocks), or raise ImportError."""
    import torch

    sys.path.insert(0, path)
    torch.set_num_threads(1)
    args = SimpleNamespace(
        pomdp_model="ma_rocksample", discount_factor=0.983, n_steps=90, num_envs=n, max_sampled_episodes=0,
        simulate_headless=True, headless=True, eta=2.0, max_search_depth=depth, num_belief_particles=10_000, alpha_t=0.5,
        beta_t=1.0, map_size=size, num_rocks=rocks, planning_time_per_step=seconds, device="cpu", seed=0, file_logging=False,
    )  # fmt: skip
    model_class = importlib.import_module("pomdp_problems.ma_rocksample").REGISTERED_MODELS["ma_rocksample"]
    world = model_class(args_cli=args, num_envs=n, role="exec")
    inner = model_class(args_cli=args, num_envs=n, role="planning", exec_env=world)
    model = importlib.import_module("pomdp").POMDP(inner, num_belief_particles=10_000, num_envs=n, device="cpu")
    planner = importlib.import_module("vopp").VOPP(args, model)
    with torch.no_grad():
        world.reset()
        planner.reset()
        counted = [0]
        step = model.step

        def counting(state, action, debug=False):  # type: ignore[no-untyped-def]
            counted[0] += state.shape[0]
            return step(state, action, debug=debug)

        model.step = counting
        best = 0.0
        for _ in range(3):
            counted[0], began = 0, time.process_time()
            planner.plan()
            best = max(best, counted[0] / (time.process_time() - began))
    return best


def pomdp_py_rate(seconds: float) -> float:
    """Return steps per CPU second of pomdp_py's POMCP on its own RockSample(7,8), our map, or raise ImportError."""
    import pomdp_py
    from pomdp_py.problems.rocksample import rocksample_problem as theirs

    model = RockSample(7, 8)
    state = theirs.State((0, 3), tuple(theirs.RockType.random() for _ in range(8)), False)
    belief = theirs.init_particles_belief(8, 1000, state)
    problem = theirs.RockSampleProblem(7, 8, state, {tuple(rock): i for i, rock in enumerate(model.rocks)}, belief)
    agent = problem.agent
    counted, sample = [0], agent.transition_model.sample

    def counting(state, action):  # type: ignore[no-untyped-def]
        counted[0] += 1
        return sample(state, action)

    agent.transition_model.sample = counting
    best = 0.0
    for _ in range(3):
        planner = pomdp_py.POMCP(
            max_depth=40, discount_factor=0.95, planning_time=seconds, exploration_const=20, rollout_policy=agent.policy_model
        )
        counted[0], began = 0, time.process_time()
        planner.plan(agent)
        best = max(best, counted[0] / (time.process_time() - began))
        agent.tree = None
    return best


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--vopp-reference")
    options = parser.parse_args()
    if importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)
    print(f"{'problem':18} {'planner':34} {'steps/CPU s':>12} {'last/first third':>17} {'MB':>7}")
    rates = {}
    for model, name in ((RockSample(7, 8), "RockSample(7,8)"), (Tag(), "Tag"), (Mars(7, 8), "MARS(7,8)")):
        for n in (1000, 4000):
            for backup in ("visited", "tree"):
                planner = VOPP(model, SearchConfig(n_episodes=n, backup=backup))
                planner.warmup()
                rate, fall, mb = ours(planner, model, options.seconds)
                rates[name, n, backup] = rate
                print(f"{name:18} {f'VOPP numba n={n} backup={backup}':34} {rate:12.3g} {fall:17.2f} {mb:7.0f}", flush=True)
    model = RockSample(7, 8)
    for backend, n in (("numpy", 1000), ("torch", 1000), ("torch", 4000), ("torch", 20_000)):
        try:
            planner = VOPP(model, SearchConfig(n_episodes=n), backend=backend)
        except ImportError as reason:
            print(f"RockSample(7,8)    VOPP {backend}: skipped, {reason}")
            continue
        rate, fall, mb = ours(planner, model, options.seconds)
        rates["RockSample(7,8)", n, backend] = rate
        print(f"{'RockSample(7,8)':18} {f'VOPP {backend} n={n}':34} {rate:12.3g} {fall:17.2f} {mb:7.0f}", flush=True)
    planner = POMCP(model, POMCPConfig(leaf="rollout"))
    planner.warmup()
    pomcp, fall, mb = ours(planner, model, options.seconds)
    print(f"{'RockSample(7,8)':18} {'POMCP numba, rollouts':34} {pomcp:12.3g} {fall:17.2f} {mb:7.0f}", flush=True)
    try:
        rate = pomdp_py_rate(max(1.0, options.seconds))
        print(f"{'RockSample(7,8)':18} {'pomdp_py POMCP, rollouts':34} {rate:12.3g}", flush=True)
        print(f"{'':18} ratio our POMCP / pomdp_py's: {pomcp / rate:.0f}")
        print(f"{'':18} ratio VOPP numba n=1000 / pomdp_py's POMCP: {rates['RockSample(7,8)', 1000, 'visited'] / rate:.0f}")
    except ImportError as reason:
        print(f"pomdp_py: skipped, {reason}")
    print("pomdpplanners: skipped, its installation compiles for more than twenty minutes")
    if not options.vopp_reference:
        print("released VOPP: skipped, give --vopp-reference PATH of a checkout of RDLLab/VOPP")
        return
    from vopp_released import ReleasedVOPP

    belief = Belief(model.initial(10_000, np.random.default_rng(0)))
    for n in (1000, 4000):
        planner, best = ReleasedVOPP(options.vopp_reference, options.seconds, n), 0.0
        for attempt in range(3):
            planner.reseed(np.random.default_rng(attempt))
            began = time.process_time()
            best = max(best, planner.plan(belief).stats.steps / (time.process_time() - began))
        print(f"{'RockSample(7,8)':18} {f'released VOPP torch CPU n={n}':34} {best:12.3g}", flush=True)
        for kind in ("visited", "tree", "torch"):
            if ("RockSample(7,8)", n, kind) in rates:
                print(f"{'':18} ratio ours ({kind}) / released: {rates['RockSample(7,8)', n, kind] / best:.1f}")
    for n in (1000, 4000):
        rate = released(options.vopp_reference, n, 8, 7, 40, options.seconds)
        print(f"{'MARS(7,8)':18} {f'released VOPP torch CPU n={n}':34} {rate:12.3g}", flush=True)
        for backup in ("visited", "tree"):
            print(f"{'':18} ratio ours ({backup}) / released: {rates['MARS(7,8)', n, backup] / rate:.0f}")


if __name__ == "__main__":
    main()
