"""The figures on courses whose answer is plain."""

import numpy as np
import pytest

from sfumato_cpto import measures


def _truth(**changes):
    t = np.arange(11) * 0.1
    ego = np.column_stack([t, 10.0 * t, 0 * t, 0 * t, np.full(11, 10.0), 0 * t, 0 * t])
    users = np.tile([40.0, 0.0, 0.0, 0.0, 4.0, 1.8], (11, 1, 1))
    base = {
        "ego": ego, "users": users, "contacts": [], "finished": True, "has_goal": True, "left_road": False,
        "goal_speed": 12.0, "ego_size": np.array([4.0, 1.8]), "dt": 0.1,
    }  # fmt: skip
    return {**base, **changes}


def test_speed_and_time_to_collision_of_a_steady_approach():
    rows = measures.from_truth(_truth())
    assert rows["mean_speed"][0] == pytest.approx(10.0)
    assert rows["speed_error"][0] == pytest.approx(2.0)
    assert rows["min_ttc"][0] == pytest.approx((40.0 - 10.0 - 4.0) / 10.0)
    assert rows["min_clearance"][0] == pytest.approx(30.0 / 5.6 - 1.0)
    assert rows["max_acceleration"][0] == 0.0
    assert rows["max_jerk"][0] == 0.0


def test_jerk_is_the_change_of_acceleration_and_its_greatest_value_is_kept():
    truth = _truth()
    truth["ego"][4:, 6] = 2.0
    rows = measures.from_truth(truth)
    assert rows["max_jerk"][0] == pytest.approx(20.0)
    assert rows["mean_jerk"][0] == pytest.approx(20.0 / 9)


def test_cycles_that_took_longer_than_a_period_are_counted_though_the_simulation_waits():
    notes = {
        "segments": np.zeros((4, 2, 24)), "plan_seconds": [0.01, 0.02, 0.09, 0.01], "status": ["CONVERGED"] * 4,
        "gap": [0.0] * 4, "n_consensus": 5, "cycle_seconds": [0.02, 0.03, 0.11, 0.02], "dt": 0.1, "iterations": [50, 50, 0, 20],
        "programs": [2, 2, 9, 3],
    }  # fmt: skip
    rows = measures.from_notes(notes)
    assert rows["late_cycles"][0] == pytest.approx(0.25)
    assert rows["iterations"][0] == pytest.approx(30.0)
    assert rows["plan_ms_max"][0] == pytest.approx(90.0)


def test_contacts_are_counted_by_blame():
    contacts = [{"time": 1.0, "user": 0, "at_fault": False, "speed": 0.0}]
    rows = measures.from_truth(_truth(contacts=contacts))
    assert rows["at_fault"][0] == 0.0
    assert rows["struck"][0] == 1.0


def test_a_plan_that_is_kept_is_consistent_and_a_shifted_one_is_off_by_the_shift():
    k = np.arange(24)
    segments = np.stack([np.stack([(k + step) * 1.0, 0.0 * k]) for step in range(5)])
    assert measures.consistency(segments, 6) == pytest.approx(0.0)
    segments[2:, 1] += 0.3
    assert measures.consistency(segments, 6) == pytest.approx(0.3 / 4)
