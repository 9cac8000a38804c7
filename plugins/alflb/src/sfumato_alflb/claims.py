"""What the files in `reproduce/` call: each function measures one claim and returns its figures.

Every function returns a mapping with `value`, `low`, `high`, `n` and `details`; intervals are 95 %
intervals of the mean by Student's t over seeds or instances, unless said otherwise.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import attrs
import numpy as np

from .config import CharLmConfig, RouterChoice
from .convexity import iid_modulus, pair_weight, uniform_modulus
from .online import fitted_slope, growth_exponent, online_run, regret_slope
from .problem import AlfProblem
from .rules import BiasRule
from .streams import ScoreStream, StreamSpec, fixed_scores
from .theory import approximate_balance, improvement_over_run, preference, separating_step

ARMS: dict[str, RouterChoice] = {
    "none": RouterChoice(),
    "switch 0.01": RouterChoice(switch=0.01),
    "switch 0.001": RouterChoice(switch=0.001),
    "sign 1e-3": RouterChoice(rule="sign", u=1e-3),
    "sign 1e-2": RouterChoice(rule="sign", u=1e-2),
    "prop_sqrt 0.05": RouterChoice(rule="prop_sqrt", u=0.05),
}
# A sixteenth of the small model's work: 308,288 weights.
SCALED: dict[str, Any] = {"dim": 64, "n_layers": 2, "heads": 2, "expert_width": 64, "context": 64}


def _mean(values: Any) -> dict[str, Any]:
    """Return the mean with its 95 % interval."""
    from scipy.stats import t

    values = np.asarray(values, dtype=np.float64)
    n = len(values)
    half = float(t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    mean = float(values.mean())
    return {"value": mean, "low": mean - half, "high": mean + half, "n": n}


def improvement_condition(instances: int = 12, steps: int = 200, seed: int = 0) -> dict[str, Any]:
    """Largest error of the identity of T1 over all updates; `details` has the share that improved."""
    rng = np.random.default_rng(seed)
    reports = []
    for _ in range(instances):
        problem = AlfProblem(rng.random((64, 8)), 2)
        for rule in (BiasRule("sign", 0.01), BiasRule("prop", 0.05)):
            reports.append(improvement_over_run(problem, rule, steps=steps))
    n = sum(r.n_updates for r in reports)
    worst = max(r.largest_error for r in reports)
    share = sum(r.improved for r in reports) / n
    return {
        "value": worst,
        "low": worst,
        "high": worst,
        "n": n,
        "details": {"share of updates that improved": share},
    }


def preference_rule(updates: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Violations of T2 over random updates of random instances."""
    rng = np.random.default_rng(seed)
    violations = n_moved = 0
    problem = AlfProblem(rng.random((40, 6)), 1)
    for i in range(updates):
        if i % 50 == 0:
            problem = AlfProblem(rng.random((40, 6)), 1 + (i // 50) % 5)
        p = rng.normal(size=6) * 0.2
        rule = BiasRule(("sign", "prop")[i % 2], float(rng.random() * 0.2))
        moves = preference(problem, p, p + rule.delta(problem.route(p).loads, 1, problem.mean_load))
        violations += moves.violations + moves.load_violations
        n_moved += moves.n_moved
    value = float(violations)
    return {
        "value": value,
        "low": value,
        "high": value,
        "n": n_moved,
        "details": {"tokens that moved": n_moved},
    }


def balance_band(instances: int = 50, max_steps: int = 400_000, seed: int = 0) -> dict[str, Any]:
    """Largest deviation after entering the band of T3, divided by its bound; infinite if never entered."""
    rng = np.random.default_rng(seed)
    ratios, entries, proved = [], [], 0
    for i in range(instances):
        problem = AlfProblem(rng.random(((16, 24, 32)[i % 3], (3, 4)[i % 2])), 1 + (i // 2) % 2)
        u = max(1e-6, 0.99 * separating_step(problem))
        band = approximate_balance(problem, u, max_steps=max_steps, engine="compiled")
        ratios.append(band.worst_after / band.bound)
        entries.append(band.n_steps if band.entered is None else band.entered)
        proved += band.is_forever
    worst = float(max(ratios))
    details = {"routings until the band, median": float(np.median(entries)), "routings until the band, most": max(entries),
               "proved for ever by a closed cycle": proved}  # fmt: skip
    return {"value": worst, "low": worst, "high": worst, "n": instances, "details": details}


def strong_convexity(n_experts: int = 64, k: int = 8) -> dict[str, Any]:
    """mu of uniform scores by quadrature, as a multiple of T E/(E - 1)."""
    weight = pair_weight(n_experts, k, np.ones_like, lambda x: x, (0.0, 1.0))
    ratio = iid_modulus(1, n_experts, weight) / uniform_modulus(1, n_experts)
    return {"value": ratio, "low": ratio, "high": ratio, "n": 1, "details": {"weight": weight}}


def log_regret(
    rule: str = "ogd", u: float = 0.0, seeds: int = 8, batches: int = 4000, what: str = "slope"
) -> dict[str, Any]:
    """Regret on i.i.d. streams with T=256, E=16, K=2, offsets in [-0.15, 0.15].

    what: 'slope' is the fitted slope per ln n over n >= 100, divided by theory; 'linear' is the mean cost
    of a batch over the last quarter divided by that over the second quarter (1 for linear growth);
    'exponent' is `growth_exponent` over n >= 400.
    """
    n_tokens, n_experts, k = 256, 16, 2
    mu = uniform_modulus(n_tokens, n_experts)
    law = BiasRule(rule, u, mu=mu if rule == "ogd" else None)
    values, curves = [], []
    for seed in range(seeds):
        stream = ScoreStream(StreamSpec(n_tokens, n_experts), batches, np.random.default_rng(seed))
        curve = online_run(stream, k, law, lambda stream=stream: stream.best_bias).smooth  # type: ignore[misc]
        curves.append(curve)
        quarter = batches // 4
        if what == "slope":
            values.append(fitted_slope(curve) / regret_slope(n_tokens, n_experts, k, mu))
        elif what == "exponent":
            values.append(growth_exponent(curve))
        else:
            early = curve[2 * quarter - 1] - curve[quarter - 1]
            values.append((curve[-1] - curve[-quarter - 1]) / early)
    mean = np.mean(curves, axis=0) / n_tokens
    at = {f"regret / T at n = {n}": float(mean[n - 1]) for n in (100, 1000, 4000) if n <= batches}
    return {**_mean(values), "details": at}


def exact_optimum(kind: str = "skew", u: float = 0.5, steps: int = 600) -> dict[str, Any]:
    """Routings until rule `prop_inv` proves the optimum of a reference matrix (T=4096, E=64, K=8)."""
    from .run import alf_run

    scores = fixed_scores(kind, 4096, 64, np.random.default_rng(0))
    run = alf_run(AlfProblem(scores, 8), "prop_inv", u, steps=steps)
    value = float(run.n_updates + 1) if run.final.is_optimal() else float("inf")
    details = {
        "objective": run.final.objective,
        "certificate gap": run.final.gap,
        "MaxVio": run.final.max_vio,
    }
    return {"value": value, "low": value, "high": value, "n": 1, "details": details}


@cache
def trained(arm: str, seed: int, steps: int, scaled: bool) -> dict[str, float]:
    """Train one arm of `ARMS` and return its figures; the same seed gives the same weights and batches."""
    import torch

    from .lm import train
    from .text import help_topics

    torch.set_num_threads(1)
    config = attrs.evolve(CharLmConfig(steps=steps), **(SCALED if scaled else {}))
    report = train(help_topics(), config, ARMS[arm], np.random.default_rng(seed))
    return {
        "validation nats per character": report.valid_loss,
        "MaxVio_global": report.max_vio_global,
        "MaxVio_batch": report.max_vio_batch,
        "max |bias|": report.max_abs_bias,
        "CPU seconds": report.cpu_seconds,
    }


def training(
    what: str = "balance", arm: str = "sign 1e-3", seeds: int = 3, steps: int = 1000, scaled: bool = True
) -> dict[str, Any]:
    """Train the character model with a bias rule and with a baseline, paired by seed.

    what: 'balance' is MaxVio_global of `arm` divided by that of 'none', 'against-loss' by that of
    'switch 0.001'; 'loss' is the validation loss of `arm` minus that of 'switch 0.01', in nats per character.
    """
    baseline, figure = {
        "balance": ("none", "MaxVio_global"),
        "against-loss": ("switch 0.001", "MaxVio_global"),
        "loss": ("switch 0.01", "validation nats per character"),
    }[what]
    ours = [trained(arm, seed, steps, scaled) for seed in range(seeds)]
    theirs = [trained(baseline, seed, steps, scaled) for seed in range(seeds)]
    pairs = [(a[figure], b[figure]) for a, b in zip(ours, theirs, strict=True)]
    values = [a - b if what == "loss" else a / b for a, b in pairs]
    details: dict[str, Any] = {}
    for name, rows in ((arm, ours), (baseline, theirs)):
        for key in rows[0]:
            column = np.array([row[key] for row in rows])
            spread = float(column.std(ddof=1)) if len(column) > 1 else float("nan")
            details[f"{name}: {key}"] = {"mean": float(column.mean()), "deviation": spread}
    return {**_mean(values), "details": details}
