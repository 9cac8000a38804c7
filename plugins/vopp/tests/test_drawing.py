"""A belief drawn over a map: what is likely is shaded, and the words say the same."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

pytest.importorskip("numba", reason="most of these problems are compiled by numba")
from sfumato_vopp import Belief, LaserTag, LightDark, Mars, Navigation, RockSample, Tag, Tiger
from sfumato_vopp.drawing import belief_frame, belief_in_words

MODELS = [RockSample(), Tag(), LaserTag(), LightDark(), Mars(7, 4), Navigation()]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_every_problem_with_a_map_gives_a_drawing_that_parses(model, rng) -> None:  # type: ignore[no-untyped-def]
    states = model.initial(200, rng)
    frame = belief_frame(model, Belief(states), states[0])
    assert frame is not None
    root = ElementTree.fromstring(frame)
    assert root.tag.endswith("svg") and len(root) > 2
    assert len(frame) < 60_000


def test_a_sure_belief_shades_one_cell_and_says_so() -> None:
    model = Tag()
    state = 3 * model.n_cells + 7
    belief = Belief(np.full((10, 1), state))
    frame = belief_frame(model, belief)
    assert frame is not None and frame.count('fill="#0072B2"') == 1
    words = belief_in_words(model, belief)
    assert words.startswith("1 states possible, likeliest (100%)") and "opponent at (7, 0)" in words


def test_rocks_show_the_probability_that_they_are_good() -> None:
    model = RockSample()
    start = model.start_cell
    frame = belief_frame(model, Belief(np.array([[start], [1 << 16 | start]]), np.array([0.25, 0.75])))
    assert frame is not None and ">75%<" in frame and frame.count(">0%<") == 7


def test_a_problem_without_a_map_has_no_drawing() -> None:
    assert belief_frame(Tiger(), Belief(np.array([[0], [1]]))) is None


def test_a_share_that_is_not_nothing_is_not_called_nothing(rng) -> None:  # type: ignore[no-untyped-def]
    assert "likeliest (<1%)" in belief_in_words(RockSample(), Belief(RockSample().initial_distribution()[0]))
    model = RockSample(4, 2, rocks=((1, 0), (3, 1)))
    bad, good = (model.start_cell | worth << 16 for worth in (0, 1))
    frame = belief_frame(model, Belief(np.array([[bad], [good]]), np.array([0.999, 0.001])))
    assert frame is not None and "&lt;1%" in frame and ">0%<" in frame
    ElementTree.fromstring(frame)
