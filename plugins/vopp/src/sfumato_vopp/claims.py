"""Figures that `sfumato reproduce` checks and that no single run gives: each function returns value, interval and details."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from sfumato_vopp.config import POMCPConfig, SearchConfig
from sfumato_vopp.exact import bracket
from sfumato_vopp.models.rocksample import RockSample
from sfumato_vopp.models.tag import Tag
from sfumato_vopp.models.tiger import Tiger
from sfumato_vopp.planner import POMCP, VOPP
from sfumato_vopp.simulate import play
from sfumato_vopp.tabular import TabularModel, tabulate

__all__ = ["survivor_bias", "tiger_gap", "tiger_value", "time_ratio"]


def _summary(values: np.ndarray, details: dict[str, Any]) -> dict[str, Any]:
    # A single value here is one that is computed exactly, so its interval is itself.
    half = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    mean = float(values.mean())
    return {"value": mean, "low": mean - half, "high": mean + half, "n": len(values), "details": details}


def tiger_value(steps: int = 200_000, decisions: int = 1) -> dict[str, Any]:
    """Return the exact value at b = 1/2 of the policy that VOPP's decisions make on the lattice of net sounds."""
    values, chosen = [], []
    for seed in range(decisions):
        planner = VOPP(Tiger(), SearchConfig(seconds=None, max_steps=steps), np.random.default_rng(seed))
        depth = 6
        size = 2 * depth + 1
        matrix, reward = np.eye(size), np.zeros(size)
        actions = []
        for i, net in enumerate(range(-depth, depth + 1)):
            odds = (0.85 / 0.15) ** net
            p = odds / (1 + odds)
            action = planner.plan((np.array([[0], [1]]), np.array([p, 1 - p]))).action
            actions.append(action)
            if action == 0:
                heard = 0.85 * p + 0.15 * (1 - p)
                reward[i] = -1.0
                matrix[i, min(i + 1, size - 1)] -= 0.95 * heard
                matrix[i, max(i - 1, 0)] -= 0.95 * (1 - heard)
            else:
                reward[i] = -100 * p + 10 * (1 - p) if action == 1 else 10 * p - 100 * (1 - p)
                matrix[i, depth] -= 0.95
        values.append(float(np.linalg.solve(matrix, reward)[depth]))
        chosen.append(actions)
    return _summary(np.array(values), {"actions": chosen, "optimal": 19.3714})


def tiger_gap(gap: float = 1e-3, seconds: float = 120.0) -> dict[str, Any]:
    """Return the width of the bracket on Tiger; NaN when it does not hold the exact value 19.3714."""
    found = bracket(tabulate(Tiger()), gap, seconds)
    width = found.high - found.low
    holds = found.low <= 19.37145 and found.high >= 19.37135
    value = width if holds else float("nan")
    return {"value": value, "low": value, "high": value, "n": 1, "details": {"low": found.low, "high": found.high}}


def survivor_bias(episodes: int = 200_000) -> dict[str, Any]:
    """Return by what factor the survivors' denominator over-values an action that ends the episode half of the time."""
    transition = np.array([[[0.0, 0.5, 0.5], [0, 0, 1.0], [0, 0, 1.0]]])
    model = TabularModel(
        transition, np.ones((1, 3, 1)), np.array([[0.0, 8.0, 0.0]]), np.array([1.0, 0, 0]), 0.9, np.array([False, False, True])
    )
    values = {}
    for denominator in ("all", "survivors"):
        config = SearchConfig(seconds=None, max_episodes=episodes, max_depth=2, depth_factor=2, denominator=denominator)  # type: ignore[arg-type]
        values[denominator] = float(VOPP(model, config).plan(np.zeros((1, 1), np.int64)).values[0])
    ratio = values["survivors"] / values["all"]
    return {"value": ratio, "low": ratio, "high": ratio, "n": 1, "details": values}


def time_ratio(problem: str = "rocksample", peer_seconds: float = 0.1, our_seconds: float = 0.005, episodes: int = 40) -> dict[str, Any]:
    """Return our mean return at a short planning time less POMCP's at a long one, paired episodes, CPU clock.

    Where the interval lies above zero, the ratio of the planning times is an efficiency that was shown.
    """
    model = {"rocksample": RockSample, "tag": Tag}[problem]()
    ours = VOPP(model, SearchConfig(seconds=our_seconds, clock="cpu"))
    peer = POMCP(model, POMCPConfig(seconds=peer_seconds, clock="cpu"))
    differences, returns, began = [], [], time.process_time()
    for planner in (ours, peer):
        planner.warmup()
    for k in range(episodes):
        a, b = (play(planner, model, k, 90).discounted_return for planner in (ours, peer))
        returns.append((a, b))
        differences.append(a - b)
    means = np.mean(returns, axis=0)
    details = {
        "ours": float(means[0]), "pomcp": float(means[1]), "planning_time_ratio": peer_seconds / our_seconds,
        "cpu_seconds": time.process_time() - began,
    }  # fmt: skip
    return _summary(np.array(differences), details)
