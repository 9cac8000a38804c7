"""Pictures: load over steps, dual against optimum, regret against log n, affinity lost. Needs matplotlib.

Every function draws into axes that it is given, or makes, and returns them; nothing is shown or saved here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .diagnosis import Diagnosis, Regrets
from .errors import MissingExtraError
from .problem import Floats


def _axes(axes: Any) -> Any:
    return axes if axes is not None else _figure(6.4).subplots()


def _panels() -> Any:
    return _figure(10.0).subplots(1, 2)


def _figure(width: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("a picture", "plots") from error
    # No pyplot: a library must not choose a window system or keep figures alive.
    return Figure(figsize=(width, 4.0), layout="constrained")


def thinned(rows: Floats, most: int = 400) -> tuple[Floats, int]:
    """Return at most `most` rows [n, E], each the mean of a run of rows, and the length of a run."""
    n = len(rows)
    run = max(1, -(-n // most))
    return (np.array([rows[i : i + run].mean(axis=0) for i in range(0, n, run)]) if run > 1 else rows), run


def load_heat_map(
    loads: ArrayLike, axes: Any = None, *, updates: ArrayLike | None = None, what: str = ""
) -> Any:
    """Draw loads [n, E] relative to their mean: experts down, steps across; 1 is balanced.

    updates: int [n], the number of each row (0 to n - 1). More than 400 rows are drawn as the means of runs of
    equal length: a screen would leave rows out. what: said in the title.
    """
    axes = _axes(axes)
    table = np.asarray(loads, dtype=np.float64)
    number = np.arange(len(table)) if updates is None else np.asarray(updates)
    relative = table / np.maximum(table.mean(axis=1, keepdims=True), 1e-300)
    n, n_experts = relative.shape
    relative, run = thinned(relative)
    first, last = float(number[0]), float(number[-1])
    edge = (last - first) / max(1, n - 1) / 2 or 0.5
    image = axes.imshow(
        relative.T, aspect="auto", cmap="RdBu_r", vmin=0.0, vmax=2.0, interpolation="nearest",
        extent=(first - edge, last + edge, n_experts - 0.5, -0.5),
    )  # fmt: skip
    axes.figure.colorbar(image, ax=axes, label="load / mean load", extend="max")
    from matplotlib.ticker import MaxNLocator

    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    label = "update" if run == 1 else f"update (means of {run})"
    axes.set(
        xlabel=label, ylabel="expert", title=f"Load of each expert, {what}" if what else "Load of each expert"
    )
    return axes


def dual_curves(found: Diagnosis, axes: Any = None) -> Any:
    """Draw D(p) minus the optimum for every rule, on logarithmic axes; a ring ends a run that proved the optimum.

    Gaps below 1e-12 of the optimum are drawn there: they are rounding.
    """
    axes = _axes(axes)
    best = found.optimum.objective
    for row in found.rules:
        gap = np.maximum((row.run.dual - best) / max(abs(best), 1e-300), 1e-12)
        proved = row.run.final.is_optimal()
        label = f"{row.rule.name} {row.rule.u:.2g}" + (", optimum proved" if proved else "")
        (line,) = axes.loglog(np.arange(1, len(gap) + 1), gap, label=label)
        if proved:
            axes.plot(len(gap), gap[-1], "o", color=line.get_color(), fillstyle="none", clip_on=False)
    axes.set(xlabel="routings", ylabel="(dual - optimum) / optimum", title="Dual against the optimum")
    axes.legend(fontsize="small")
    return axes


def regret_curves(
    curves: Mapping[str, Floats], slope: float | None = None, axes: Any = None, unit: str = "score"
) -> Any:
    """Draw cumulative regret against the batch number on a logarithmic axis; `slope`: theory per ln n."""
    axes = _axes(axes)
    for name, curve in curves.items():
        axes.semilogx(np.arange(1, len(curve) + 1), curve, label=name)
    if slope is not None and curves:
        curve = next(iter(curves.values()))
        n = np.geomspace(max(2, len(curve) // 8), len(curve), 50)  # the end: early batches cost more
        axes.semilogx(n, curve[int(n[0]) - 1] + slope * np.log(n / n[0]), "k--", label="theory's slope")
    axes.set(xlabel="batch", ylabel=f"regret ({unit})", title="Regret against log n")
    axes.legend(fontsize="small")
    return axes


def regret_panels(found: Regrets, pair: Any = None) -> Any:
    """Draw the regret of all rules, and beside it that of the step 1/(mu n) alone, on a scale of its own."""
    axes = pair if pair is not None else _panels()
    unit = "score per token"
    regret_curves(found.curves, axes=axes[0], unit=unit)
    name, curve = next(iter(found.curves.items()))
    regret_curves({name: curve}, found.slope, axes[1], unit)
    axes[1].set(title=f"The step {name} alone", ylabel="")
    return axes


def affinity_lost(found: Diagnosis, axes: Any = None) -> Any:
    """Draw, for every expert, the score that its tokens gave up for balance at the optimum, per token moved in.

    A bar is the mean, over tokens that the optimum sends to the expert and plain top-K would not, of the
    score below the token's K-th best: high bars mark experts that are filled against preference.
    """
    axes = _axes(axes)
    problem = found.problem
    plain = problem.route().chosen
    kth = np.where(plain, problem.scores, np.inf).min(axis=1)
    moved = found.optimum.chosen & ~plain
    lost = np.where(moved, kth[:, None] - problem.scores, 0.0).sum(axis=0) / np.maximum(1, moved.sum(axis=0))
    order = np.argsort(-lost)
    axes.bar(np.arange(len(lost)), lost[order])
    axes.margins(x=0.01)
    if len(lost) <= 64:
        axes.set_xticks(
            np.arange(len(lost)), [str(e) for e in order], fontsize=9 if len(lost) <= 24 else 5, rotation=90
        )
    label = (
        "expert" if len(lost) <= 64 else "experts, sorted (the first: " + ", ".join(map(str, order[:8])) + ")"
    )
    axes.set(xlabel=label, ylabel="score lost per token moved in", title="Affinity lost to balance")
    return axes


def save_all(
    found: Diagnosis,
    folder: Any,
    loads: ArrayLike | None = None,
    regrets: Regrets | None = None,
    *,
    updates: ArrayLike | None = None,
    what: str = "",
) -> list[str]:
    """Write the pictures of a diagnosis as PNG files into `folder`; return their names. updates, what: of the loads."""
    drawn = {"dual.png": dual_curves(found), "affinity.png": affinity_lost(found)}
    if loads is not None:
        drawn["load.png"] = load_heat_map(loads, updates=updates, what=what)
    if regrets is not None:
        drawn["regret.png"] = regret_panels(regrets)[0]
    return [save_picture(axes, folder, name) for name, axes in drawn.items()]


def save_picture(axes: Any, folder: Any, name: str) -> str:
    """Write one picture into `folder`, which is made if need be; return its path."""
    from pathlib import Path

    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    axes.figure.savefig(place / name, dpi=120)
    return str(place / name)
