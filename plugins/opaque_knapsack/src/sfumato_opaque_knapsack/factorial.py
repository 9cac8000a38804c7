"""The learned studies over several training seeds, and the factorial of persistence and visibility cue.

Every seed plays the same instances, so intervals come from a crossed bootstrap: training seeds and instances are drawn
anew, independently of each other. With three seeds the interval says little about seeds; the figures of each are in the
details.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import numpy as np

from sfumato_opaque_knapsack import metrics
from sfumato_opaque_knapsack.claims import study_of

RESAMPLES = 5000
SEEDS = "3407,2,3"

CONTRASTS: dict[str, tuple[str, dict[tuple[str, str], int]]] = {
    "missing": ("missing_strict", {("globals_list", "P->S"): 1, ("none", "P->S"): -1}),
    "interaction": (
        "missing_strict",
        {
            ("globals_list", "P->S"): 1,
            ("none", "P->S"): -1,
            ("globals_list", "P->P"): -1,
            ("none", "P->P"): 1,
        },
    ),
    "score": ("score", {("globals_list", "P->S"): 1, ("none", "P->S"): -1}),
    "recovery": ("score", {("none", "P->S"): 1, ("none", "P->P"): -1}),
}
"""Figure -> column of an episode, and the weight of each (cue, cell)."""


def matrix(
    studies: Sequence[dict[str, Any]], cell: str, get: Callable[[dict[str, Any]], float]
) -> np.ndarray:
    """Return one value an episode of a cell, float array [seeds, instances]."""
    return np.array([[get(e) for e in study["episodes"][cell]] for study in studies], float)


def crossed(statistic: Callable[..., float], *arrays: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the bootstrap interval of a statistic of arrays [seeds, instances]; both axes are drawn anew."""
    n_seeds, n = arrays[0].shape
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        pick = np.ix_(rng.integers(0, n_seeds, n_seeds), rng.integers(0, n, n))
        drawn.append(statistic(*(array[pick] for array in arrays)))
    tail = 50 * (1 - level)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return float(low), float(high)


def _summary(study: dict[str, Any]) -> dict[str, Any]:
    return {k: study[k] for k in ("cells", "tests", "training", "provenance", "expert_score")}


def over_seeds(figure: str, size: str = "cpu", seeds: str = SEEDS) -> dict[str, Any]:
    """A figure of the 2 x 2, see `claims.two_by_two`, over training seeds: their mean, `aligned_share` the worst of them."""
    numbers = [int(seed) for seed in seeds.split(",")]
    studies = [study_of(size, seed, "none") for seed in numbers]
    per_seed: list[float]
    if figure == "aligned_share":
        shares = {
            (k, cell): matrix([study], cell, lambda e: e["score"]) / study["expert_score"]
            for k, study in enumerate(studies)
            for cell in ("P->P", "S->S")
        }
        worst = min(shares, key=lambda key: shares[key].mean())
        value, (low, high) = float(shares[worst].mean()), crossed(np.mean, shares[worst])
        per_seed = [min(float(shares[k, c].mean()) for c in ("P->P", "S->S")) for k in range(len(studies))]
    elif figure == "token_ratio":
        top, bottom = (matrix(studies, c, lambda e: e["tokens"]["completion"]) for c in ("S->P", "P->P"))

        def ratio(a: np.ndarray, b: np.ndarray) -> float:
            return float((a.sum(1) / b.sum(1)).mean())

        value, (low, high) = ratio(top, bottom), crossed(ratio, top, bottom)
        per_seed = [ratio(top[[k]], bottom[[k]]) for k in range(len(studies))]
    elif figure in ("missing_gap", "score_equivalence"):
        column, cells = (
            ("missing_strict", ("P->S", "P->P")) if figure == "missing_gap" else ("score", ("P->P", "S->S"))
        )
        first, second = (matrix(studies, cell, lambda e: e[column]) for cell in cells)
        level = 0.95 if figure == "missing_gap" else 0.90
        value, (low, high) = float((first - second).mean()), crossed(np.mean, first - second, level=level)
        per_seed = [float(row.mean()) for row in first - second]
    else:
        raise ValueError(
            f"figure: expected aligned_share, missing_gap, token_ratio or score_equivalence, got {figure!r}"
        )
    details: dict[str, Any] = {
        "per_seed": dict(zip(seeds.split(","), per_seed, strict=True)),
        "studies": dict(zip(seeds.split(","), map(_summary, studies), strict=True)),
    }
    if figure == "score_equivalence":  # the tests on scores averaged over seeds, one value an instance
        a, b = first.mean(0).tolist(), second.mean(0).tolist()
        details["equivalence"] = attrs.asdict(metrics.equivalence(a, b))
        details["wilcoxon"] = attrs.asdict(metrics.wilcoxon(a, b))
    return {"value": value, "low": low, "high": high, "n": int(first_size(studies)), "details": details}


def first_size(studies: Sequence[dict[str, Any]]) -> int:
    """Return the number of episodes a cell, all seeds together."""
    return sum(study["cells"]["P->P"]["n"] for study in studies)


def cue_contrast(figure: str, losses: float = 0.0, size: str = "cpu", seeds: str = SEEDS) -> dict[str, Any]:
    """A contrast of the factorial persistence x visibility cue, for models trained on persistent traces.

    Figures:
        missing: share of episodes with a missing variable in the stateless interpreter, with the list of names minus
            without it.
        interaction: the same, minus the cue's effect in the persistent interpreter.
        score: the cue's effect on the score in the stateless interpreter.
        recovery: without the cue, score in the stateless minus in the persistent interpreter (90 % interval, as for
            two one-sided tests).

    `losses` is the share of training traces in which the state is lost for good. Models are trained and played with
    the same cue.
    """
    if figure not in CONTRASTS:
        raise ValueError(f"figure: expected one of {', '.join(CONTRASTS)}, got {figure!r}")
    column, terms = CONTRASTS[figure]
    numbers = [int(seed) for seed in seeds.split(",")]
    cues = sorted({cue for cue, _ in terms} | {"none"})
    studies = {cue: [study_of(size, seed, cue, losses, "persistent") for seed in numbers] for cue in cues}

    def values(cue: str, cell: str, name: str) -> np.ndarray:
        return matrix(studies[cue], cell, lambda e: e[name])

    contrast = sum(
        (weight * values(cue, cell, column) for (cue, cell), weight in terms.items()), np.zeros(())
    )
    low, high = crossed(np.mean, contrast, level=0.90 if figure == "recovery" else 0.95)
    per_instance = contrast.mean(0)
    nothing = np.zeros_like(per_instance)
    table = {
        f"{cell}, {cue}": {
            name: values(cue, cell, name).mean(1).tolist()
            for name in ("missing_strict", "missing_any", "score", "failed_actions", "turns")
        }
        | {
            "completion_tokens": matrix(studies[cue], cell, lambda e: e["tokens"]["completion"])
            .mean(1)
            .tolist()
        }
        for cue in cues
        for cell in ("P->P", "P->S")
    }
    details: dict[str, Any] = {
        "per_seed": dict(zip(seeds.split(","), contrast.mean(1).tolist(), strict=True)),
        "sign_flip": attrs.asdict(
            metrics.interaction(per_instance.tolist(), nothing.tolist(), nothing.tolist(), nothing.tolist())
        ),
        "table_by_seed": table,
        "expert_score": studies["none"][0]["expert_score"],
        "studies": {
            cue: dict(zip(seeds.split(","), map(_summary, found), strict=True))
            for cue, found in studies.items()
        },
    }
    if figure == "recovery":
        pair = [values("none", cell, "score").mean(0).tolist() for cell in ("P->S", "P->P")]
        details["equivalence"] = attrs.asdict(metrics.equivalence(*pair))
    return {
        "value": float(contrast.mean()),
        "low": low,
        "high": high,
        "n": int(contrast.size),
        "details": details,
    }
