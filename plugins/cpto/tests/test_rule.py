"""The rule planner follows, stops, and disregards what it cannot see."""

import numpy as np
import pytest

from sfumato_cpto import CPTOSolver
from sfumato_cpto.closed_loop import drive
from sfumato_cpto.problem import Hypotheses, Obstacles, State, build
from sfumato_cpto.rule import RuleDriver, roll_out, score
from sfumato_cpto.simulator import scenes

SOLVER = CPTOSolver()
OWN = np.array([4.0, 1.8])


def _problem(position, velocity, speed=10.0):
    obstacles = (
        Obstacles(position, velocity, [[5.6, 3.1]] * len(position)) if len(position) else Obstacles.none()
    )
    return build(
        SOLVER.settings,
        State(0.0, 0.0, 0.0, speed),
        obstacles,
        Hypotheses(np.ones((1, len(position)), dtype=bool), [0.0], [15.0]),
    )


def test_proposals_keep_behind_a_standing_car_and_none_is_scored_that_does_not():
    problem = _problem([[40.0, 0.0]], [[0.0, 0.0]])
    found = roll_out(problem, OWN[None], OWN, 0.1)
    assert found.position.shape == (15, 2, 50)
    middle = found.position[np.abs(found.position[:, 1, -1]) < 0.1]
    assert (middle[:, 0].max(axis=1) < 36.0 + 1e-9).all()
    value, contact = score(problem, found, OWN[None], OWN, 0.1)
    assert value.max() > 0.0
    assert (value[np.isfinite(contact)] == 0.0).all()


def test_on_an_empty_road_the_fastest_proposal_wins():
    problem = _problem(np.zeros((0, 2)), np.zeros((0, 2)))
    found = roll_out(problem, np.zeros((0, 2)), OWN, 0.1)
    value, contact = score(problem, found, np.zeros((0, 2)), OWN, 0.1)
    assert np.isinf(contact).all()
    assert found.speed[np.argmax(value), -1] == pytest.approx(found.speed[:, -1].max())


def test_it_drives_through_traffic_and_asks_for_no_phantoms():
    rng = np.random.default_rng(3)
    import attrs

    driver = RuleDriver(CPTOSolver())
    world = drive(attrs.evolve(scenes.cruise(rng), max_time=4.0), driver, rng)
    assert not [c for c in world.contacts if c.at_fault]
    assert world.ego[0] > -50.0 + 25.0
    rng = np.random.default_rng(0)
    world = drive(attrs.evolve(scenes.tight_intersection(rng), max_time=3.0), driver, rng)
    assert not np.asarray(driver.situation.hypotheses.present)[:, np.asarray(driver.situation.user) < 0].any()
