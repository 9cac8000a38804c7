"""Batches at the border."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs.batches import check_batch
from sfumato_ofs.errors import OfsError

GOOD = {
    "groups": [0, 0, 1, 1],
    "accepted": [1, 0, 1, 1],
    "labels": [1, np.nan, 0, 1],
    "scores": [0.9, 0.1, 0.5, 1.0],
}


def test_rates_and_reward_by_hand() -> None:
    """Half of group 0 and all of group 1 accepted; two good, one bad of four people."""
    batch = check_batch(**GOOD)
    assert batch.rates().tolist() == [0.5, 1.0]
    assert batch.reward(1.0) == pytest.approx(0.25)
    assert batch.reward(0.5) == pytest.approx(1.5 / 4)


def test_an_unknown_label_of_an_accepted_person_leaves_the_reward_open() -> None:
    assert np.isnan(check_batch(**{**GOOD, "labels": [1, 0, np.nan, 1]}).reward(1.0))
    assert check_batch(**{**GOOD, "labels": [1, np.nan, 0, 1]}).reward(1.0) == 0.25


def test_probable_membership_weighs_the_rates() -> None:
    """A person of group 1 with probability 0.25 counts a quarter there."""
    batch = check_batch(**{**GOOD, "groups": [[0.75, 0.25], [1, 0], [0, 1], [0, 1]]})
    assert batch.rates() == pytest.approx([0.75 / 1.75, 2.25 / 2.25])


def test_intersecting_groups_may_overlap() -> None:
    """The second column is a subset of the first."""
    batch = check_batch(**{**GOOD, "groups": [[1, 0], [1, 1], [1, 1], [1, 0]]})
    assert batch.rates().tolist() == [0.75, 0.5]


def test_a_group_below_the_minimum_count_has_no_rate() -> None:
    rates = check_batch(**GOOD).rates(min_count=3)
    assert np.isnan(rates).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [0.9, 1.1, 0.5, 1.0]}, r"scores must lie in \[0, 1\], got 1.1 at position 1"),
        ({"scores": [0.9, np.nan, 0.5, 1.0]}, "scores must lie"),
        ({"scores": ["a", "b", "c", "d"]}, "scores must be numbers"),
        ({"labels": [1, 2, 0, 1]}, "labels must be 0, 1 or NaN, got 2.0"),
        ({"labels": [1, 0]}, "labels must have one entry a person"),
        ({"groups": [0, 0, 2, 1]}, "groups must be integers 0..1"),
        ({"groups": [0, 0.5, 1, 1]}, "groups must be integers"),
        ({"groups": [0, 1]}, "groups must have one entry a person"),
        ({"groups": [[2, 0]] * 4}, "memberships must lie"),
        ({"accepted": [1, 2, 0, 1]}, "accepted must be one true or false"),
        ({"accepted": [[1, 0], [0, 1]]}, "accepted must be one true or false"),
    ],
)
def test_bad_input_names_the_argument(change: dict, message: str) -> None:
    with pytest.raises(OfsError, match=message):
        check_batch(**{**GOOD, **change})
