"""The report's top view draws what the planner thought, frame by frame."""

from types import SimpleNamespace

import numpy as np
import pytest

from sfumato.report.parts import Playback, Plot, Text
from sfumato_cpto import CPTOSolver, report
from sfumato_cpto.driver import Driver
from sfumato_cpto.simulator import scenes
from sfumato_cpto.solvers import DrivingPolicy
from sfumato_cpto.tasks import DrivingEpisode


def _view(make, cycles):
    rng = np.random.default_rng([3, 0])
    episode = DrivingEpisode(make(rng), rng)
    policy = DrivingPolicy(lambda rng: Driver(CPTOSolver(), certified=True))
    start = episode.reset()
    policy.reset(start, rng)
    observation = start.observation
    for k in range(cycles):
        step = episode.step(policy.act(None if k == 4 else observation))
        observation = step.observation
    trace = {"truth": episode.truth(), "notes": policy.notes()}
    return SimpleNamespace(trace=lambda: trace)


@pytest.mark.parametrize(
    ("make", "cycles", "phantoms"),
    [
        (scenes.cruise, 8, False),
        (scenes.tight_intersection, 70, True),
        (scenes.occluded_pedestrian, 30, True),
    ],
)
def test_every_hypothesis_the_shared_segment_shadows_and_phantoms_are_drawn(make, cycles, phantoms):
    view = _view(make, cycles)
    text, playback, plot = report.scene(view)
    assert isinstance(text, Text)
    assert isinstance(playback, Playback)
    assert isinstance(plot, Plot)
    notes = view.trace()["notes"]
    last = playback.frames[cycles - 1]
    count = int(np.isfinite(notes["curves"][-1][:, 0, 0]).sum())
    assert count >= 2
    assert last.count('stroke-width="1.8"') == count
    assert last.count('stroke-width="5"') == 1
    assert last.count("<circle") == int(np.isfinite(notes["phantoms"][-1][:, 0]).sum())
    assert ("<circle" in last) == phantoms
    assert ("<polygon" in last) == phantoms
    assert "nan" not in "".join(playback.frames)
    # Nothing was seen in the fifth cycle, so nothing was planned: no line, and the page goes on.
    assert 'stroke-width="1.8"' not in playback.frames[4]


def test_a_trace_without_notes_still_has_its_view():
    view = _view(scenes.cruise, 3)
    trace = {"truth": view.trace()["truth"], "notes": None}
    assert len(report.scene(SimpleNamespace(trace=lambda: trace))) == 3
