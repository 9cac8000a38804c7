"""Sections of the report: the belief played over the map, and an episode's actions, observations and rewards over time."""

from __future__ import annotations

from typing import Any

import numpy as np

from sfumato.report.parts import PALETTE, Playback, Plot, RunView, Table, Text

MAX_ROWS = 200
MAX_FRAMES = 120
PARTICLES = 4000


def belief(view: RunView) -> list[Any]:
    """Return the first episode as frames of the belief over the map, filtered anew from what was done and seen."""
    from sfumato_vopp.drawing import belief_frame, belief_in_words
    from sfumato_vopp.errors import DegenerateBelief
    from sfumato_vopp.solvers import make_filter

    trace = view.trace()
    notes, truth = trace.get("notes") or {}, trace.get("truth") or {}
    actions, rewards = trace.get("native.actions"), trace.get("native.rewards")
    observations = notes.get("observations")
    if actions is None or rewards is None or observations is None:
        return [Text("No belief to show: the trace, or what the planner saw, was not kept.")]
    model = getattr(view.instance(), "model", None)
    if model is None or hasattr(model, "make_filter"):
        return [Text("This task has no map to draw a belief on.")]
    states = truth.get("states")
    believed = make_filter(model, "auto", PARTICLES, 4096, np.random.default_rng(0))
    frames, captions, done = [], [], "before the first action"
    for t in range(min(len(actions) + 1, MAX_FRAMES)):
        frame = belief_frame(model, believed.belief, None if states is None else states[t])
        if frame is None:
            return [Text("This task has no map to draw a belief on.")]
        frames.append(frame)
        captions.append(f"step {t}, {done}; {belief_in_words(model, believed.belief)}")
        if t >= len(observations) or t >= len(actions):
            break
        done = f"action {int(actions[t])}, observed {int(observations[t])}, reward {float(rewards[t]):g}"
        if t == len(actions) - 1:
            captions[-1] += f"; then {done}, and the episode is over"
            break
        try:
            believed.update(int(actions[t]), int(observations[t]))
        except DegenerateBelief:
            captions[-1] += "; from here the particles of this drawing no longer explain what was seen"
            break
    alt = (
        f"The belief over the map in {len(frames)} steps: shades of blue for what may be where, green for the robot, orange "
        f"rings for the truth that the planner does not see. {captions[0]}. In the end: {captions[-1]}."
    )
    return [Playback(frames, captions, alt, seconds=0.6)]


def episode(view: RunView) -> list[Any]:
    """Return the first episode: cumulative reward, and what was done and seen."""
    trace = view.trace()
    actions, rewards = trace.get("native.actions"), trace.get("native.rewards")
    if actions is None or rewards is None:
        return [Text("The trace was not kept.")]
    total = np.cumsum(np.asarray(rewards, float))
    figure = {
        "data": [
            {"type": "scatter", "mode": "lines", "y": total, "name": "sum of rewards", "line": {"color": PALETTE[0], "shape": "hv"}},
        ],
        "layout": {
            "height": 260, "margin": {"l": 50, "r": 20, "t": 10, "b": 40}, "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)", "xaxis": {"title": {"text": "step"}}, "yaxis": {"title": {"text": "sum of rewards (undiscounted)"}},
        },
    }  # fmt: skip
    observed = (trace.get("notes") or {}).get("observations") or []
    rows = [
        (t, int(a), int(observed[t]) if t < len(observed) else "", float(r))
        for t, (a, r) in enumerate(zip(actions[:MAX_ROWS], rewards[:MAX_ROWS], strict=True))
    ]
    plot = Plot(figure, f"First episode: {len(total)} steps, rewards sum to {total[-1]:.4g}")
    return [plot, Table(("step", "action", "observation", "reward"), rows, "What was done and seen")]
