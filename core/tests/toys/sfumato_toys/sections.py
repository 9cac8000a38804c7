"""Sections for the report."""

from sfumato.report.parts import Playback, Plot, Table, Text, Transcript, Turn


def cart(view):
    path = view.trace()["truth"]["path"]
    frames = [
        f'<svg viewBox="0 0 100 20" width="400"><circle cx="{50 + 20 * x:.1f}" cy="10" r="4" fill="#0072B2"/></svg>'
        for x in path[::20]
    ]
    plot = {"data": [{"type": "scatter", "y": path}], "layout": {"height": 240}}
    return [
        Plot(plot, "Position over ticks"),
        Playback(frames, [f"{0.2 * k:.1f} s" for k in range(len(frames))], "The cart, seen from the side"),
        Table(("tick", "position"), list(enumerate(path[:5]))),
    ]


def transcript(view):
    actions = view.trace()["actions"]
    seen = view.trace()["truth"]["runtime"]["actions"]
    return Transcript([Turn("agent", code=a, output=str(s["error"] or "")) for a, s in zip(actions, seen, strict=True)])


def broken(view):
    raise RuntimeError("<b>cannot</b> be drawn")


def text(view):
    return Text("x")
