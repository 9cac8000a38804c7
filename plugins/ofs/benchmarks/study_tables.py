"""The tables of the README: methods, lock-out, drift, thresholds by group, peers.

    SFUMATO_DATA=... python benchmarks/study_tables.py methods lockout drift groups peers offline

Every number is a mean over seeds with half the width of its 95% bootstrap interval. Figures are those of our reference design.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from sfumato_ofs.config import (
    ObservedScoresConfig,
    OptimisticFeasibleConfig,
    PrimalDualConfig,
    UnconstrainedConfig,
)
from sfumato_ofs.constraints import Constraints, reward_scale
from sfumato_ofs.loops import BetaLoop, product_arms, shared_arms, threshold_grid
from sfumato_ofs.observed import ObservedScores
from sfumato_ofs.oracle import Sweep, sweep
from sfumato_ofs.search import OptimisticFeasible
from sfumato_ofs.simulate import World, play, play_observed
from sfumato_ofs.studies import CONSTRAINTS, generators, interval, named_loop, run_many

ROUNDS = 5000


def figure(values: np.ndarray, digits: int = 4) -> str:
    low, high = interval(np.asarray(values, dtype=np.float64))
    return f"{np.mean(values):.{digits}f} +- {(high - low) / 2:.{digits}f}"


def line(name: str, run, best: float) -> None:
    rounds, tail = run["rounds"], run["tail_rounds"]
    gap = best - run["tail_reward"] / tail
    print(
        f"| {name} | {figure(run['reward'] / rounds)} | {figure(gap)} | {figure(run['violation'], 1)} | "
        f"{np.mean(run['tail_violation'] / tail):.4f} |",
        flush=True,
    )


HEAD = "| method | mean reward | gap to the oracle, last fifth | cumulative violation | violation a round, last fifth |\n|---|---|---|---|---|"


def methods(n_seeds: int = 20) -> None:
    data = os.environ.get("SFUMATO_DATA")
    for name in ("A", "A-slow", *(("german", "compas") if data else ())):
        loop = named_loop(name, Path(data) if data else None)
        oracle = sweep(loop, CONSTRAINTS)
        best = float(oracle.reward[oracle.best])
        print(
            f"\n{name}: oracle {oracle.arms[oracle.best, 0]:g}, reward {best:.4f}; {n_seeds} seeds\n\n{HEAD}"
        )
        for beta in (0.5, 1.0, 0.25):
            config = OptimisticFeasibleConfig(beta=beta)
            line(f"search, beta {beta:g}", run_many(loop, oracle, config, n_seeds=n_seeds), best)
        config = OptimisticFeasibleConfig(gap_weight="equal")
        line(
            "search, beta 0.5, gaps as of equal groups", run_many(loop, oracle, config, n_seeds=n_seeds), best
        )
        line("observed scores", run_many(loop, oracle, ObservedScoresConfig(), n_seeds=n_seeds), best)
        for beta in (1.0, 0.5, 0.25):
            config = PrimalDualConfig(beta=beta)
            line(f"primal-dual, beta {beta:g}", run_many(loop, oracle, config, n_seeds=n_seeds), best)
        line(
            "primal-dual on means, beta 1",
            run_many(loop, oracle, PrimalDualConfig(beta=1.0, residual="mean"), n_seeds=n_seeds),
            best,
        )
        for beta in (1.0, 0.5):
            config = UnconstrainedConfig(beta=beta)
            line(f"unconstrained, beta {beta:g}", run_many(loop, oracle, config, n_seeds=n_seeds), best)


def lockout(n_seeds: int = 20) -> None:
    loop = named_loop("A")
    oracle = sweep(loop, CONSTRAINTS)
    best = float(oracle.reward[oracle.best])
    print(f"\nA, beta 0.25, {n_seeds} seeds\n\n{HEAD}")
    for name, options in {
        "no remedy": {},
        "re-probe every 500": {"reprobe_every": 500},
        "re-probe every 100": {"reprobe_every": 100},
        "discount 0.999": {"discount": 0.999},
        "window 1000": {"window": 1000},
        "block 4": {"block": 4},
        "block 10": {"block": 10},
        "margin 0.01": {"margin": 0.01},
        "bias allowance b = 0.05": {"bias": 0.05},
        "bias allowance b = 0.2": {"bias": 0.2},
        "monotone bounds": {"monotone": True},
        "Bernstein bounds": {"bounds": "bernstein"},
    }.items():
        line(
            name,
            run_many(loop, oracle, OptimisticFeasibleConfig(beta=0.25, **options), n_seeds=n_seeds),
            best,
        )
    line("observed scores", run_many(loop, oracle, ObservedScoresConfig(), n_seeds=n_seeds), best)


def drift(n_seeds: int = 10) -> None:
    from sfumato_ofs.config import SyntheticConfig
    from sfumato_ofs.evaluators import readaptation
    from sfumato_ofs.tasks import SyntheticTask

    task = SyntheticTask(SyntheticConfig(drift="jump"))
    loop, later = named_loop("A"), sweep(task._loop(task.config.drift_means), CONSTRAINTS)
    best = float(later.reward[later.best])
    print(f"\nA, jump of the base means to {task.config.drift_means} at round {task.config.drift_at}, {n_seeds} seeds; "
          f"afterwards oracle {later.arms[later.best, 0]:g}, reward {best:.4f}\n\n"
          + HEAD[: HEAD.index("\n")] + " rounds to re-adapt |\n|---|---|---|---|---|---|")  # fmt: skip
    instance = SimpleNamespace(later=later, drift_at=task.config.drift_at)

    def show(name: str, truth) -> None:
        rounds, tail = truth["rounds"], truth["tail_rounds"]
        again = readaptation(instance, truth)  # type: ignore[arg-type]
        print(f"| {name} | {figure(truth['reward'] / rounds)} | {figure(best - truth['tail_reward'] / tail)} | "
              f"{figure(truth['violation'], 1)} | {np.mean(truth['tail_violation'] / tail):.4f} | {figure(again, 0)} |", flush=True)  # fmt: skip

    for name, options in {
        "no remedy": {},
        "window 1000": {"window": 1000},
        "discount 0.999": {"discount": 0.999},
        "discount 0.998": {"discount": 0.998},
        "CUSUM, alarm at 20": {"detect": 20.0},
    }.items():
        config = OptimisticFeasibleConfig(**options)
        learner = OptimisticFeasible(
            n_seeds,
            41,
            ROUNDS,
            config,
            reward_scale=reward_scale(1.0, 200),
            residual_scales=CONSTRAINTS.scales(200),
        )
        world = World(
            loop, CONSTRAINTS, ROUNDS, generators(0, n_seeds), ~later.is_feasible, base_means=task.base_means
        )
        show(name, play(world, learner).truth())
    world = World(
        loop,
        CONSTRAINTS,
        ROUNDS,
        generators(0, n_seeds),
        ~later.is_feasible,
        base_means=task.base_means,
        scores_seen=True,
    )
    observed = ObservedScores(n_seeds, loop.arms, CONSTRAINTS, ObservedScoresConfig(), loss=1.0)
    show("observed scores", play_observed(world, observed).truth())


def groups(n_seeds: int = 10) -> None:
    grid = threshold_grid(15)
    shared, own = BetaLoop(shared_arms(grid)), BetaLoop(product_arms([grid, grid]))
    print("\nA, 15 thresholds shared against 15 x 15 by group\n")
    for name, loop in (("shared", shared), ("by group", own)):
        s = sweep(loop, CONSTRAINTS)
        print(f"oracle {name}: {loop.arms[s.best].round(3).tolist()}, reward {s.reward[s.best]:.4f}")
    oracle = sweep(own, CONSTRAINTS)
    best = float(oracle.reward[oracle.best])
    print(f"\n{HEAD}")
    line(
        "shared, search",
        run_many(shared, sweep(shared, CONSTRAINTS), OptimisticFeasibleConfig(), n_seeds=n_seeds),
        best,
    )
    line("by group, search", run_many(own, oracle, OptimisticFeasibleConfig(), n_seeds=n_seeds), best)
    line(
        "by group, search, monotone",
        run_many(own, oracle, OptimisticFeasibleConfig(monotone=True), n_seeds=n_seeds),
        best,
    )
    config = ObservedScoresConfig(tau=0.5)
    line("by group, observed scores", run_many(own, oracle, config, n_seeds=n_seeds), best)


def peers(n_seeds: int = 4) -> None:
    import peer_grid

    from sfumato.context import RunContext
    from sfumato_ofs.config import SyntheticConfig
    from sfumato_ofs.solvers import ObservedScoresSolver, OptimisticFeasibleSolver
    from sfumato_ofs.tasks import SyntheticTask

    (instance,) = list(SyntheticTask(SyntheticConfig()).instances(RunContext(indices=range(1))))
    oracle = instance.oracle
    best = float(oracle.reward[oracle.best])
    print(f"\nA, {n_seeds} seeds, one world for all; CPU s of the learner and the world together\n\n"
          + HEAD[: HEAD.index("\n")] + " CPU s |\n|---|---|---|---|---|---|")  # fmt: skip
    rivals = {"search, beta 0.5": (OptimisticFeasibleSolver(OptimisticFeasibleConfig()), "hidden")}
    rivals["observed scores"] = (ObservedScoresSolver(ObservedScoresConfig()), "observed")
    for kind in peer_grid.grid():
        config = peer_grid.best(kind)
        rivals[f"{kind}: {peer_grid.name(config)}"] = (peer_grid.solver(config), "hidden")
    for name, (made, scores) in rivals.items():
        before = time.process_time()
        truth = peer_grid.play(made, range(n_seeds), scores)
        spent = time.process_time() - before
        gap = best - truth["tail_reward"] / truth["tail_rounds"]
        print(f"| {name} | {figure(truth['reward'] / ROUNDS)} | {figure(gap)} | {figure(truth['violation'], 1)} | "
              f"{np.mean(truth['tail_violation'] / truth['tail_rounds']):.4f} | {spent:.1f} |", flush=True)  # fmt: skip


def offline() -> None:
    from sfumato_ofs.peers import fairlearn_answers

    data = os.environ.get("SFUMATO_DATA")
    if not data:
        return
    from sfumato_ofs import data as files
    from sfumato_ofs.score_model import out_of_fold_scores

    print("\nOffline, with thresholds by group, at the closed loop's steady state (eps 0.10)\n")
    print("| data | rule | reward | gap | rate |\n|---|---|---|---|---|")
    for name, table in (
        ("German", files.load_german(Path(data) / files.GERMAN_FILE)),
        ("COMPAS", files.load_compas(Path(data) / files.COMPAS_MINIMAL_FILE)),
    ):
        loop = named_loop(name.lower(), Path(data))
        oracle: Sweep = sweep(loop, Constraints())
        b = oracle.best
        print(
            f"| {name} | best shared threshold | {oracle.reward[b]:.4f} | {oracle.gap[b]:.4f} | {oracle.overall[b]:.4f} |"
        )
        for answer in fairlearn_answers(out_of_fold_scores(table), table.good, table.groups):
            print(
                f"| {name} | {answer.name} | {answer.reward:.4f} | {answer.gap:.4f} | {answer.rate:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="BetaLoop")
    for wanted in sys.argv[1:] or ("methods", "lockout"):
        {
            "methods": methods,
            "lockout": lockout,
            "drift": drift,
            "groups": groups,
            "peers": peers,
            "offline": offline,
        }[wanted]()
