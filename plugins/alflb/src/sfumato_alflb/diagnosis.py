"""What a batch of router scores says: the optimum, the best balance, and how each rule would fare."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
from numpy.typing import ArrayLike

from .certificates import Certificate, certificate
from .convexity import Convexity, estimate_convexity
from .errors import ArgumentError
from .lp import LpSolution, lp_reference
from .online import online_run, spectral_slope
from .peers import two_sided_quantile
from .problem import AlfProblem, Floats, checked_count, max_vio, min_vio
from .rules import BiasRule
from .run import AlfRun, alf_run

THRESHOLDS = (0.1, 0.05, 0.01)


@attrs.frozen(eq=False)
class RuleRow:
    """How one rule fared: routings until MaxVio fell below each of `THRESHOLDS` (None: never), and the end."""

    rule: BiasRule
    below: tuple[int | None, ...]
    run: AlfRun


@attrs.frozen(eq=False)
class Diagnosis:
    """Everything `diagnose` finds; `lines` and `to_dict` show it.

    greedy_max_vio, greedy_ratio: of plain top-K, its objective over the optimum. best_max_vio: of the
    optimal assignment, 0 when T*K is divisible by E. scale: see `score_spread`. convexity: at the optimal
    prices. suggested_u: for three rules, the step that was fastest on this batch, see `fastest_steps`.
    running: where a bias was given, the certificate of this batch routed by it; its D(p) over the optimum
    says how far the bias is from the best prices.
    """

    problem: AlfProblem
    optimum: LpSolution
    greedy_max_vio: float
    greedy_min_vio: float
    greedy_ratio: float
    best_max_vio: float
    quantile_max_vio: float
    scale: float
    convexity: Convexity | None
    rules: tuple[RuleRow, ...]
    suggested_u: dict[str, float]
    running: Certificate | None = None

    @property
    def running_gap(self) -> float | None:
        """D(p) of the given bias above the optimum, as a share of what is at stake; None without a bias."""
        if self.running is None:
            return None
        return (self.running.dual - self.optimum.objective) / (self.running.at_stake or 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, for a program."""
        return {
            "n_tokens": self.problem.n_tokens, "n_experts": self.problem.n_experts, "k": self.problem.k,
            "optimum": self.optimum.objective, "optimum_seconds": self.optimum.seconds,
            "greedy_max_vio": self.greedy_max_vio, "greedy_min_vio": self.greedy_min_vio,
            "greedy_ratio": self.greedy_ratio, "best_max_vio": self.best_max_vio,
            "quantile_max_vio": self.quantile_max_vio, "suggested_u": self.suggested_u,
            "mu": None if self.convexity is None else self.convexity.mu,
            "running_max_vio": None if self.running is None else self.running.max_vio,
            "running_gap": self.running_gap,
            "mean_curvature": None if self.convexity is None else self.convexity.mean,
            "rules": [
                {
                    "rule": row.rule.name, "u": row.rule.u, "n_updates": row.run.n_updates,
                    "below": dict(zip(map(str, THRESHOLDS), row.below, strict=True)),
                    "max_vio": float(row.run.max_vio[-1]), "is_optimal": row.run.final.is_optimal(),
                    "ratio": float(row.run.objective[-1] / self.optimum.objective) if self.optimum.objective else 1.0,
                    "max_abs_bias": float(np.abs(row.run.bias).max()),
                    "cycle": row.run.cycle,
                }
                for row in self.rules
            ],
        }  # fmt: skip


def diagnose(
    scores: Floats,
    k: int,
    *,
    steps: int = 1000,
    rules: tuple[BiasRule, ...] | None = None,
    bias: ArrayLike | None = None,
    engine: str = "numpy",
) -> Diagnosis:
    """Examine scores [T, E] for K experts a token. Cost: one exact solution and `steps` routings per rule.

    rules: by default sign at 1e-3 and 1e-2, the damped sign rule, and the proportional rules, with u in
    units of the spread of the scores (softmax scores are small). bias: float [E], the running bias of the
    router that made the scores, to be judged on them.
    """
    problem = AlfProblem(scores, k)
    if problem.n_tokens == 0:
        raise ArgumentError("scores", "at least one token", "an empty batch")
    optimum = lp_reference(problem)
    plain = problem.route()
    scale = score_spread(problem)
    # On scores of a sigmoid gate the spread is about a quarter: there the steps below are the published ones.
    unit = scale / 0.25 if scale else 1.0
    chosen = rules or (
        BiasRule("sign", 1e-3 * unit), BiasRule("sign", 1e-2 * unit), BiasRule("sign_inv", 0.1 * unit),
        BiasRule("prop", 0.01 * unit), BiasRule("prop_sqrt", 0.1 * unit), BiasRule("prop_inv", 0.5 * unit),
    )  # fmt: skip
    rows = []
    for rule in chosen:
        run = alf_run(problem, rule, steps=steps, engine=engine)
        rows.append(RuleRow(rule, tuple(run.first_below(t) for t in THRESHOLDS), run))
    try:
        convexity = estimate_convexity(problem.scores, k, optimum.prices)
    except ArgumentError:
        convexity = None  # tied scores have no density
    return Diagnosis(
        problem=problem,
        optimum=optimum,
        greedy_max_vio=max_vio(plain.loads, problem.mean_load),
        greedy_min_vio=min_vio(plain.loads, problem.mean_load),
        greedy_ratio=plain.value / optimum.objective if optimum.objective else 1.0,
        best_max_vio=max_vio(optimum.chosen.sum(axis=0), problem.mean_load),
        quantile_max_vio=max_vio(two_sided_quantile(problem, 8).chosen.sum(axis=0), problem.mean_load),
        scale=scale,
        convexity=convexity,
        rules=tuple(rows),
        suggested_u=fastest_steps(problem, unit, min(steps, 400), engine),
        running=None if bias is None else certificate(problem, bias),
    )


@attrs.frozen(eq=False)
class Regrets:
    """Regret of rules over batches drawn from the tokens of a score matrix.

    curves: by rule, float [n_batches], cumulative D_n(p_n) - D_n(p*), noise of mean zero removed (see
    `OnlineRun.smooth`), in units of score per token. slope: what theory says that the step 1/(mu n) pays per
    unit of ln n in the end, likewise per token, see `spectral_slope`. n_tokens: of a batch.
    """

    curves: dict[str, Floats]
    slope: float
    n_tokens: int


def regrets(
    found: Diagnosis,
    rng: np.random.Generator,
    *,
    n_batches: int = 1000,
    n_tokens: int = 256,
    engine: str = "numpy",
) -> Regrets:
    """Draw batches of tokens at random, with return, and follow rules through them (T6 on the user's scores).

    For tokens drawn from the matrix the expected dual of a batch is the matrix's own, so the optimal prices
    are the best fixed bias exactly. Rules: 1/(mu n) with the estimated modulus for mu, and the suggested
    constant and damped steps.
    Raises ArgumentError where there is no curvature to estimate (tied scores, experts that never compete).
    """
    checked_count(n_batches, "n_batches", least=2)
    checked_count(n_tokens, "n_tokens")
    problem, prices = found.problem, found.optimum.prices
    if prices is None or found.convexity is None or not found.convexity.mu > 0:
        raise ArgumentError("scores", "scores with a curvature", "ties, or experts that never compete")
    mu = found.convexity.mu * n_tokens / problem.n_tokens
    rules = [BiasRule("ogd", mu=mu)] + [
        BiasRule(name, found.suggested_u[name]) for name in ("sign", "prop_sqrt")
    ]
    picks = rng.integers(problem.n_tokens, size=(n_batches, n_tokens))
    curves = {}
    for rule in rules:
        batches = (problem.scores[rows] for rows in picks)
        run = online_run(batches, problem.k, rule, lambda: prices, engine=engine)
        label = "1/(mu n)" if rule.name == "ogd" else f"{rule.name} {rule.u:g}"
        curves[label] = run.smooth / n_tokens
    noise = n_tokens * np.cov(problem.route(prices).chosen.astype(np.float64), rowvar=False, bias=True)
    slope = spectral_slope(n_tokens * found.convexity.laplacian, noise, mu)
    return Regrets(curves, slope / n_tokens, n_tokens)


def fastest_steps(problem: AlfProblem, unit: float, steps: int, engine: str = "numpy") -> dict[str, float]:
    """Return, for three rules, the step that brought MaxVio below 0.05 first on this batch.

    Tried: a ladder of five steps each, in multiples of `unit`. Where none got there, the one with the
    least MaxVio over the last tenth. One batch is one batch: a stream with noise wants smaller steps.
    """
    ladders = {
        "sign": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
        "prop_sqrt": (0.01, 0.03, 0.1, 0.3, 1.0),
        "prop_inv": (0.1, 0.3, 1.0, 3.0, 10.0),
    }
    best = {}
    for name, ladder in ladders.items():
        marks = []
        for factor in ladder:
            u = float(f"{factor * unit:.2g}")
            run = alf_run(problem, name, u, steps=steps, engine=engine)
            first = run.first_below(0.05)
            marks.append((first or steps + 2, float(run.max_vio[-max(1, steps // 10) :].mean()), u))
        best[name] = min(marks)[2]
    return best


def score_spread(problem: AlfProblem) -> float:
    """Return the mean over tokens of the standard deviation of their scores: the natural unit of u."""
    return float(problem.scores.std(axis=1).mean()) if problem.n_tokens else 0.0


def lines(found: Diagnosis) -> list[str]:
    """Return the report as text, one line each."""
    p = found.problem
    best = found.optimum
    text = [
        f"{p.n_tokens} tokens, {p.n_experts} experts, {p.k} per token; balanced load {p.mean_load:g} tokens",
        f"optimum of the balanced assignment   {best.objective:.6f}  ({best.method}, {best.seconds:.2f} s)",
        f"best reachable MaxVio                {found.best_max_vio:.4f}",
        f"plain top-{p.k:<2}: MaxVio {found.greedy_max_vio:.4f}, MinVio {found.greedy_min_vio:.4f}, "
        f"objective/optimum {found.greedy_ratio:.5f}",
        f"two-sided quantile, 8 sweeps: MaxVio {found.quantile_max_vio:.4f}",
    ]
    if found.running is not None:
        text.append(
            f"the given bias: MaxVio {found.running.max_vio:.4f}, D(p) above the optimum by {found.running_gap:.2e} "
            "of what is at stake"
        )
    if found.convexity is not None:
        text.append(
            f"curvature at the optimal prices: mean {found.convexity.mean:.1f}, modulus mu {found.convexity.mu:.1f} "
            f"tokens per unit of score ({found.convexity.n_used} tokens used, {found.convexity.n_parts} part(s))"
        )
    text += ["", f"{'rule':<10} {'u':>9} " + "".join(f"{'<' + str(t):>8}" for t in THRESHOLDS)
             + f" {'MaxVio':>8} {'obj/opt':>9} {'max|bias|':>10}  end"]  # fmt: skip
    for row in found.rules:
        run = row.run
        cells = "".join(f"{'-' if n is None else n:>8}" for n in row.below)
        ratio = run.objective[-1] / best.objective if best.objective else 1.0
        end = f"optimum proved after {run.n_updates + 1} routings" if run.final.is_optimal() else (
            f"cycle of {run.cycle[1]} from step {run.cycle[0]}" if run.cycle else f"{run.n_updates} updates")  # fmt: skip
        text.append(
            f"{row.rule.name:<10} {row.rule.u:>9.2g} {cells} {run.max_vio[-1]:>8.4f} {ratio:>9.5f} "
            f"{np.abs(run.bias).max():>10.4f}  {end}"
        )
    text.append(
        "(routings until MaxVio fell below a threshold; an objective above the optimum is not balanced)"
    )
    text.append(
        "suggested first steps: " + ", ".join(f"{name} u={u:g}" for name, u in found.suggested_u.items())
    )
    return text
