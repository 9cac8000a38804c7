"""Sections of the report: loads and biases over steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato.report.parts import PALETTE, Plot, RunView, Text

# Plotly's own RdBu is grey in the middle and turns the other way than matplotlib's.
LOW_TO_HIGH = [[0.0, "#2166ac"], [0.5, "#f7f7f7"], [1.0, "#b2182b"]]


def _layout(title: str, height: int = 300) -> dict[str, Any]:
    return {
        "height": height, "margin": {"l": 60, "r": 20, "t": 10, "b": 40}, "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)", "xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": title}},
    }  # fmt: skip


def biases(view: RunView) -> Plot | Text:
    """Return the bias of each expert over steps, as a heat map (tasks `alflb/stream` and `alflb/scores`)."""
    actions = view.trace().get("actions")
    if not isinstance(actions, np.ndarray) or actions.ndim != 2:
        return Text("This run's actions are no biases of experts.")
    step = max(1, len(actions) // 400)
    z = actions[::step].T
    figure = {
        "data": [{"type": "heatmap", "z": z, "x": np.arange(z.shape[1]) * step, "colorscale": LOW_TO_HIGH, "zmid": 0, "colorbar": {"title": {"text": "bias"}}}],
        "layout": _layout("expert", 140 + 10 * len(z)),
    }  # fmt: skip
    return Plot(
        figure,
        f"Bias of {len(z)} experts over {len(actions)} steps; at the end from {actions[-1].min():.3g} to {actions[-1].max():.3g}",
    )


def reward(view: RunView) -> Plot | Text:
    """Return the reward of each step."""
    rewards = view.trace().get("native.rewards")
    if not isinstance(rewards, np.ndarray) or rewards.ndim != 1 or len(rewards) < 2:
        return Text("A single step: see the figures.")
    figure = {
        "data": [{"type": "scatter", "mode": "lines", "y": rewards, "line": {"color": PALETTE[0]}}],
        "layout": _layout("reward"),
    }
    return Plot(figure, f"Reward over {len(rewards)} steps, last {rewards[-1]:.4g}")


def training(view: RunView) -> list[Plot | Text]:
    """Return loss and load violation over training steps (task `alflb/char-lm`)."""
    truth = view.trace().get("truth") or {}
    if "losses" not in truth:
        return [Text("The trace holds no training curves.")]
    made: list[Plot | Text] = []
    for key, title in (
        ("losses", "training loss (nats a character)"),
        ("max_vio_by_step", "MaxVio of the batch, mean over layers"),
    ):
        values = np.asarray(truth[key], float)
        figure = {
            "data": [{"type": "scatter", "mode": "lines", "y": values, "line": {"color": PALETTE[0]}}],
            "layout": _layout(title),
        }
        made.append(
            Plot(
                figure,
                f"{title[0].upper() + title[1:]}: from {values[0]:.3g} to {values[-1]:.3g} over {len(values)} steps",
            )
        )
    return made
