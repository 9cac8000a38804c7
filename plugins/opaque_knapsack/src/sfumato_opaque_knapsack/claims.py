"""What `reproduce/*.toml` measures: the ladder, the pairs, the metrics' validation, and the learned 2 x 2.

Each function returns value, interval, count and details, as the claims want them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from sfumato.context import ArtifactStore, RunContext
from sfumato_opaque_knapsack import metrics
from sfumato_opaque_knapsack.config import ExpertConfig, InjectorConfig, TaskConfig
from sfumato_opaque_knapsack.evaluators import AgentEvaluator, ScoreEvaluator
from sfumato_opaque_knapsack.instances import EVAL_SEED_BASE, generate_many
from sfumato_opaque_knapsack.solvers import ExpertSolver, InjectorSolver
from sfumato_opaque_knapsack.traces import TraceSettings, make_pairs


def _silent(line: str) -> None:
    return


def _task(level: str, config: TaskConfig) -> Any:
    from sfumato_opaque_knapsack import tasks

    classes = {
        "easy": tasks.EasyTask,
        "hard": tasks.HardTask,
        "legacy_hard": tasks.LegacyHardTask,
        "micro": tasks.MicroTask,
    }
    return classes[level](config)


def _runtime(name: str, **settings: Any) -> Any:
    if name == "direct":
        return RunContext().component("direct", settings, kind="runtime")
    # Whatever packages are installed, the code gets the standard library alone; it asks for no more.
    return RunContext().component(f"runtime-{name}/python", {"packages": (), **settings}, kind="runtime")


def _rows(task: Any, solver: Any, runtime: Any, n: int, concurrency: int = 1) -> list[dict[str, float]]:
    from sfumato.driver import drive

    evaluators = {"score": ScoreEvaluator(), "agent": AgentEvaluator()}
    refusal = solver.supports(task, runtime)
    if refusal is not None:
        raise ValueError(f"{refusal.reason}. {refusal.advice}")
    result = drive(task, solver, runtime, evaluators, RunContext(indices=range(n)), concurrency=concurrency)
    return [{m["name"]: m["values"][0] for m in row["metrics"]} for row in result.rows]


def ladder(
    level: str = "easy", policy: str = "greedy", runtime: str = "direct", n: int = 1000
) -> dict[str, Any]:
    """Mean score in per cent of one reference policy through one runtime."""
    task = _task(
        level,
        TaskConfig(
            reveal_allowed=policy in ("dp-known", "oracle-greedy"), reveal_items=policy == "oracle-greedy"
        ),
    )
    writer = "native" if runtime == "direct" else "calls"
    solver = ExpertSolver(ExpertConfig(policy=policy, writer=writer))
    # An interpreter's episode mostly waits for its child; results do not depend on how many run at once.
    rows = _rows(task, solver, _runtime(runtime), n, concurrency=1 if runtime == "direct" else 16)
    interval = metrics.bootstrap_mean([100 * row["score"] for row in rows])
    return {
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "n": n,
        "details": {"solved_percent": 100 * float(np.mean([row["solved"] for row in rows]))},
    }


def ladder_deviation(
    level: str = "easy", runtimes: str = "persistent,stateless", n: int = 1000
) -> dict[str, Any]:
    """Largest distance, in points, of the five policies' mean scores from the reference figures, over runtimes."""
    reference = {
        "easy": {"dp-known": 89.3, "dp": 89.0, "greedy": 88.0, "inspect-10": 45.3, "oracle-greedy": 98.3},
        "hard": {"dp-known": 85.3, "dp": 85.3, "greedy": 84.9, "inspect-10": 13.3, "oracle-greedy": 99.3},
    }[level]
    figures: dict[str, dict[str, float]] = {}
    worst = 0.0
    for name in runtimes.split(","):
        figures[name] = {}
        for policy, expected in reference.items():
            found = ladder(level, policy, name, n)["value"]
            figures[name][policy] = found
            worst = max(worst, abs(found - expected))
    return {
        "value": worst,
        "low": worst,
        "high": worst,
        "n": n,
        "details": {"reference": reference, "found": figures},
    }


def pair_ratio(level: str = "easy", pairs: int = 1000, count: str = "cumulative") -> dict[str, Any]:
    """Stateless over persistent tokens in pairs whose calls and scores are equal (checked on every pair)."""
    totals: dict[str, list[float]] = {"persistent": [], "stateless": []}
    scores = []
    for record in make_pairs(TraceSettings(level=level), range(pairs)):
        totals[record["regime"]].append(record["meta"]["tokens"][count])
        scores.append(record["meta"]["score"])
    first, second = (np.array(totals[regime], float) for regime in ("persistent", "stateless"))
    rng = np.random.default_rng(0)
    draws = rng.integers(0, pairs, (2000, pairs))
    low, high = np.percentile(second[draws].sum(1) / first[draws].sum(1), [2.5, 97.5])
    return {
        "value": float(second.sum() / first.sum()),
        "low": float(low),
        "high": float(high),
        "n": pairs,
        "details": {
            "mean_score": float(np.mean(scores)),
            "persistent": float(first.mean()),
            "stateless": float(second.mean()),
        },
    }


def recovered_rate(rate: float = 0.3, n: int = 300) -> dict[str, Any]:
    """Share of stateless episodes with a missing variable when one is injected with a known probability."""
    config = InjectorConfig(faults="stale-name", rate=rate, per="episode", style="plain")
    rows = _rows(
        _task("micro", TaskConfig()), InjectorSolver(config), _runtime("stateless"), n, concurrency=16
    )
    interval = metrics.share(int(sum(row["missing_var_strict"] for row in rows)), n)
    return {
        **attrs.asdict(interval),
        "details": {"injected": rate, "inside": interval.low <= rate <= interval.high},
    }


def generation_means(level: str = "easy", n: int = 1000) -> dict[str, Any]:
    """Share of items that the budget covers, and the other means of a level."""
    instances = list(generate_many(level, range(EVAL_SEED_BASE, EVAL_SEED_BASE + n)))
    interval = metrics.bootstrap_mean([i.budget / i.n for i in instances])
    details = {
        "n": float(np.mean([i.n for i in instances])),
        "optimal_items": float(np.mean([len(i.optimal_ids) for i in instances])),
        "capacity": float(np.mean([i.capacity for i in instances])),
        "budget": float(np.mean([i.budget for i in instances])),
        "inspection_is_free": float(np.mean([i.budget == i.n for i in instances])),
    }
    return {**attrs.asdict(interval), "details": details}


# ------------------------------------------------------------------ the learned 2 x 2


def run_two_by_two(
    size: str = "cpu",
    seed: int = 3407,
    match: str = "episodes",
    cue: str = "none",
    losses: float = 0.0,
    regimes: str = "persistent,stateless",
    device: str = "",
    artifacts: str = "",
    report: Callable[[str], None] = _silent,
) -> dict[str, Any]:
    """Train, play all cells, and return figures, tests, and every episode's summary, ready for JSON.

    `losses` is the share of persistent traces in which the state is lost for good (`TraceSettings`), `regimes` those
    that models are trained on. Trained decoders are kept in the artifact store, so a second call only plays.
    """
    import torch

    from sfumato_opaque_knapsack import learned, study

    device = device or ("cuda" if size == "gpu" else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            f"size {size!r} is meant for a CUDA device and torch {torch.__version__} sees none; run it where there is one, "
            "or give device='cpu' and hours of time"
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # bits do not depend on how many cores are free
    begun, cpu = time.perf_counter(), time.process_time()
    try:
        chosen = attrs.evolve(learned.SIZES[size], cues=cue, losses=losses)
        ctx = RunContext(artifacts=ArtifactStore(Path(artifacts) if artifacts else None))
        settings = study.PlaySettings(show_cue=cue != "none")
        result = learned.two_by_two(
            ctx,
            chosen,
            seed=seed,
            match=match,
            train_regimes=regimes.split(","),
            settings=settings,
            runtime_settings={"cues": cue, "packages": ()},
            report=report,
        )
    finally:
        torch.set_num_threads(threads)
    episodes = {
        cell: [
            {k: v for k, v in attrs.asdict(p).items() if k != "messages"} | {"last_message": p.messages[-1:]}
            for p in played
        ]
        for cell, played in result["played"].items()
    }
    return {
        "expert_score": float(np.mean(result["expert"])),
        "cells": result["cells"],
        "tests": result["tests"],
        "training": result["training"],
        "episodes": episodes,
        "provenance": {
            "size": size,
            "seed": seed,
            "match": match,
            "cue": cue,
            "losses": losses,
            "device": device,
            "episodes": chosen.episodes,
            "torch": torch.__version__,
            "wall_seconds": time.perf_counter() - begun,
            "cpu_seconds": time.process_time() - cpu,
            "cpu_seconds_training": sum(t["cpu_seconds"] for t in result["training"].values()),
        },
    }


def study_of(
    size: str, seed: int, cue: str, losses: float = 0.0, regimes: str = "persistent,stateless"
) -> dict[str, Any]:
    """Several claims read one study; it is kept with the trained decoders, under the digest of this package's code."""
    from sfumato.provenance import code_digest

    def build(folder: Path) -> None:
        result = run_two_by_two(size=size, seed=seed, cue=cue, losses=losses, regimes=regimes)
        (folder / "study.json").write_text(json.dumps(result))

    key = {"size": size, "seed": seed, "cue": cue, "losses": losses, "regimes": regimes}
    key["code"] = code_digest(__package__)
    folder = ArtifactStore(None).get_or_build("opaque-knapsack/two-by-two", key, build)
    result: dict[str, Any] = json.loads((folder / "study.json").read_text())
    return result


def two_by_two(figure: str, size: str = "cpu", seed: int = 3407, cue: str = "none") -> dict[str, Any]:
    """One figure of the 2 x 2.

    `aligned_share`: the lower of the two aligned arms' shares of the expert's score. `missing_gap`: strict missing
    variables, P->S minus P->P. `token_ratio`: completion tokens, S->P over P->P. `score_equivalence`: mean score
    P->P minus S->S, with the 90 % interval that belongs to two one-sided tests.
    """
    result = study_of(size, seed, cue)
    cells, episodes = result["cells"], result["episodes"]
    n = cells["P->P"]["n"]
    rng = np.random.default_rng(0)
    draws = rng.integers(0, n, (5000, n))

    def column(cell: str, get: Callable[[dict[str, Any]], float]) -> np.ndarray:
        return np.array([get(e) for e in episodes[cell]], float)

    if figure == "aligned_share":
        expert = result["expert_score"]
        shares = {c: column(c, lambda e: e["score"]) for c in ("P->P", "S->S")}
        worst = min(shares, key=lambda c: shares[c].mean())
        values = shares[worst] / expert
        value, spread, level = values.mean(), values[draws].mean(1), (2.5, 97.5)
    elif figure == "missing_gap":
        gap = column("P->S", lambda e: e["missing_strict"]) - column("P->P", lambda e: e["missing_strict"])
        value, spread, level = gap.mean(), gap[draws].mean(1), (2.5, 97.5)
    elif figure == "token_ratio":
        top, bottom = (column(c, lambda e: e["tokens"]["completion"]) for c in ("S->P", "P->P"))
        value, spread, level = top.sum() / bottom.sum(), top[draws].sum(1) / bottom[draws].sum(1), (2.5, 97.5)
    elif figure == "score_equivalence":
        d = column("P->P", lambda e: e["score"]) - column("S->S", lambda e: e["score"])
        value, spread, level = d.mean(), d[draws].mean(1), (5.0, 95.0)
    else:
        raise ValueError(
            f"figure: expected aligned_share, missing_gap, token_ratio or score_equivalence, got {figure!r}"
        )
    low, high = np.percentile(spread, level)
    details = {k: result[k] for k in ("cells", "tests", "training", "provenance", "expert_score")}
    return {"value": float(value), "low": float(low), "high": float(high), "n": n, "details": details}
