"""Numbers at the border."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sfumato_ofs.errors import OfsError
from sfumato_ofs.inputs import number, row, whole


def test_numbers_in_range_pass_as_floats() -> None:
    """Python's and numpy's, integers too; NaN where it may be unknown."""
    for value in (1, 1.0, np.float32(1), np.int64(1)):
        assert type(number("x", value, least=0, most=1)) is float
    assert math.isnan(number("x", float("nan"), unknown=True))
    assert whole("n", 200.0, least=1) == 200 and type(whole("n", np.int32(3))) is int
    assert row("r", np.array([0.5, 1.0]), 2, "one a group", least=0, most=1) == [0.5, 1.0]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "1", None, True, [1.0], np.array([1.0]), -1, 2, 0]
)
def test_other_things_are_refused_by_name(value: object) -> None:
    with pytest.raises(OfsError, match=r"^loss must be a finite number above 0 in \[-1, 1\], got"):
        number("loss", value if value != -1 else -2, least=-1, most=1, above=0)


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf"), "3", None, False, -1])
def test_counts_are_integers(value: object) -> None:
    with pytest.raises(OfsError, match="^n must be an integer of at least 0, got"):
        whole("n", value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("12", "r must be 2 numbers"),
        (0.5, "r must be 2 numbers"),
        ([0.5], "r must have 2 entries, one a group; got 1"),
        ([0.5, 1.5], r"r\[1\] must be a finite number in \[0, 1\] or NaN, got 1.5"),
        ([[0.5], 0.5], r"r\[0\] must be"),
    ],
)
def test_rows_name_the_entry(values: object, message: str) -> None:
    with pytest.raises(OfsError, match=message):
        row("r", values, 2, "one a group", least=0, most=1)
