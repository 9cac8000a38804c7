"""The report's sections: frames follow the episode, captions say what was done and seen."""

from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sfumato.report.parts", reason="sections are parts of the core's report")
pytest.importorskip("numba", reason="Tag is compiled by numba")
from sfumato.report import parts
from sfumato_vopp import ExactFilter, RockSample, Tag, Tiger
from sfumato_vopp.report import belief, episode


def played(model, actions, seed: int = 0):  # type: ignore[no-untyped-def]
    """A view of an episode with these actions, as the runner would have kept it."""
    rng = np.random.default_rng(seed)
    state = model.initial(1, rng)
    states, seen, rewards = [state[0].tolist()], [], []
    for action in actions:
        out = model.step(state, np.array([action]), rng)
        state = out.states
        states.append(state[0].tolist())
        seen.append(int(out.observations[0]))
        rewards.append(float(out.rewards[0]))
    trace = {
        "native.actions": actions, "native.rewards": rewards, "notes": {"observations": seen}, "truth": {"states": states}
    }  # fmt: skip
    return SimpleNamespace(trace=lambda: trace, instance=lambda: SimpleNamespace(model=model)), seen


def test_the_belief_is_played_a_frame_a_step_with_words_for_each() -> None:
    model = RockSample()
    view, seen = played(model, [5, 5, 6, 1])
    (shown,) = belief(view)
    assert isinstance(shown, parts.Playback)
    assert len(shown.frames) == len(shown.captions) == 4
    assert all(frame.startswith("<svg") for frame in shown.frames)
    assert shown.captions[0].startswith("step 0, before the first action; 256 states")
    assert f"action 5, observed {seen[0]}" in shown.captions[1]
    assert "the episode is over" in shown.captions[-1]
    # Two checks of rock 0 from afar: the drawing shows the exact posterior.
    exact = ExactFilter(model)
    for observation in seen[:2]:
        exact.update(5, observation)
    good = exact.belief.probability((exact.belief.particles[:, 0] >> 16) & 1 == 1)
    assert good > 0.995 and ">&gt;99%<" in shown.frames[2]  # nearly sure is not drawn as sure
    assert "orange" in shown.alt and "256 states" in shown.alt


def test_tag_is_played_too() -> None:
    view, _ = played(Tag(), [0, 1, 0])
    (shown,) = belief(view)
    assert len(shown.frames) == 3 and "opponent at" in shown.captions[0]


def test_without_a_map_or_a_trace_it_says_so() -> None:
    view, _ = played(Tiger(), [0, 0])
    assert isinstance(belief(view)[0], parts.Text)
    empty = SimpleNamespace(trace=dict, instance=lambda: None)
    assert "not kept" in belief(empty)[0].text and "not kept" in episode(empty)[0].text


def test_the_table_shows_what_was_seen() -> None:
    view, seen = played(RockSample(), [5, 1])
    table = episode(view)[1]
    assert [row[2] for row in table.rows] == seen
