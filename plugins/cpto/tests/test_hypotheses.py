"""On real roads: who counts as an obstacle, and by which ellipse."""

import numpy as np
import pytest

from sfumato_cpto.config import Bounds
from sfumato_cpto.hypotheses import Interpreter


def _situation(users, size=(4.5, 1.8)):
    """Interpret (x, y, v_x, v_y) of users around a vehicle at (50, 0), 5 m/s, on a straight road along x."""
    public = {
        "kind": "road",
        "path": np.stack([np.linspace(0.0, 200.0, 201), np.zeros(201)], axis=1),
        "lanes": np.array([0.0]), "road": np.array([-1.0, 4.5]), "goal_s": 120.0, "goal_y": 0.0,
        "goal_time": np.array([9.0, 10.0]), "goal_speeds": np.array([0.0, 10.0]), "goal_speed": 5.0,
        "speed_limit": 20.0, "lateral_limit": 3.0, "goal_x": np.inf, "dt": 0.1, "size": np.array([4.5, 1.7]),
        "walls": np.zeros((0, 2, 2)), "certain_range": 200.0, "sigma": np.zeros(3),
    }  # fmt: skip
    users = np.asarray(users, dtype=float).reshape(-1, 4)
    observation = {
        "ego": np.array([50.0, 0.0, 0.0, 5.0, 0.0, 0.0]), "time": np.array(0.0),
        "detected": np.ones(len(users), dtype=bool), "position": users[:, :2], "velocity": users[:, 2:],
        "heading": np.arctan2(users[:, 3], users[:, 2]), "size": np.tile(size, (len(users), 1)),
    }  # fmt: skip
    return Interpreter(public, Bounds()).interpret(observation)


@pytest.mark.parametrize(
    ("user", "counts"),
    [
        ((40.0, 0.3, 8.0, 0.0), False),  # follows, faster
        ((46.5, 0.3, 3.0, 0.0), False),  # touches our rear; in a recording nobody brakes for us
        ((40.0, 0.0, 0.0, 0.0), False),  # stands behind us
        ((40.0, 3.5, 8.0, 0.0), True),  # comes up beside us
        ((49.0, 1.0, 5.0, 0.0), True),  # beside us, not behind
        ((40.0, 0.0, 0.0, 6.0), True),  # crosses behind us: left to the planner
        ((62.0, 0.0, 3.0, 0.0), True),  # leads
    ],
)
def test_who_follows_in_our_own_corridor_is_no_obstacle(user, counts):
    assert (len(_situation([user]).user) == 1) is counts


def test_a_queue_is_closed_up_to_and_a_neighbour_is_passed_closely():
    queue, neighbour = (
        np.asarray(_situation([(70.0, y, 0.0, 0.0)]).obstacles.semi_axes)[0] for y in (0.3, 3.5)
    )
    assert queue[0] - 4.5 < 1.5  # m between bumpers at rest
    assert neighbour[1] < 2.6  # m beside a body 1.8 m wide
    for axes in (queue, neighbour):  # corner to corner of the two bodies lies within either ellipse
        assert (4.5 / axes[0]) ** 2 + (1.75 / axes[1]) ** 2 <= 1.0
