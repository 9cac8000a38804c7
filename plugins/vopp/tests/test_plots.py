"""Pictures are drawn; what they say is in their data."""

import numpy as np
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is an extra")
pytest.importorskip("numba", reason="the planner here is compiled")
from sfumato_vopp import VOPP, Belief, RockSample, SearchConfig, Tiger
from sfumato_vopp.plots import belief_on_map, episode, returns_by_time, tree_statistics
from sfumato_vopp.simulate import play

pytestmark = pytest.mark.optional


def test_an_episode_can_be_played_back(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = RockSample()
    planner = VOPP(model, SearchConfig(seconds=None, max_episodes=400, n_episodes=200))
    played = play(planner, model, 0, 3, keep=True)
    assert len(played.records) == len(played.stats) == 3
    episode(model, played.records).savefig(tmp_path / "episode.png")
    figure = tree_statistics(played.records[0].decision)
    heights = [patch.get_height() for patch in figure.axes[1].patches]
    assert sum(heights) == 400
    figure.savefig(tmp_path / "tree.png")
    assert (tmp_path / "episode.png").stat().st_size > 1000


def test_a_belief_picture_shows_its_marginal() -> None:
    model = RockSample()
    belief = Belief(np.array([[0], [0], [8]]), np.array([0.25, 0.25, 0.5]))
    figure = belief_on_map(model, belief)
    shown = figure.axes[0].images[0].get_array()
    assert shown[0, 0] == pytest.approx(0.5) and shown[1, 1] == pytest.approx(0.5)
    with pytest.raises(Exception, match="no map"):
        belief_on_map(Tiger(), Belief(np.array([[0], [1]])))


def test_bands_are_the_interval_of_the_mean() -> None:
    figure = returns_by_time({"a": {0.1: [1.0, 3.0], 1.0: [2.0, 2.0]}})
    low = figure.axes[0].collections[0].get_paths()[0].vertices[:, 1].min()
    assert low == pytest.approx(2 - 1.96)
