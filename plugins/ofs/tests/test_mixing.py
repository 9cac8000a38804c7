"""Block lengths and allowances from a contraction factor."""

from __future__ import annotations

import numpy as np
import pytest

from sfumato_ofs.errors import OfsError
from sfumato_ofs.mixing import bias_allowance, block_length


def test_half_a_block_forgets_all_but_the_tolerance() -> None:
    """q = 0.9: 0.9^29 is the first power below 0.05, so blocks of 58; q = 0.5 and 1/8: three rounds and three."""
    assert block_length(0.9) == 58 and 0.9**29 <= 0.05 < 0.9**28
    assert block_length(0.5, 0.125) == 6
    assert block_length(0.01, 0.5) == 2


def test_the_allowance_bounds_what_a_geometric_memory_sums_up() -> None:
    """C q^k summed over any number of rounds stays below b, so the mean of N plays is off by at most b / N."""
    b = bias_allowance(0.2, 0.9)
    sums = np.cumsum(0.2 * 0.9 ** np.arange(500))
    assert b == pytest.approx(2.0) and (sums <= b + 1e-12).all() and sums[-1] == pytest.approx(b)
    assert bias_allowance(0.2, 0.9, switches=3) == pytest.approx(6.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: block_length(1.05), "factor must lie between 0 and 1, got 1.05: the loop must contract"),
        (lambda: block_length(0.9, 0.0), "tolerance must lie"),
        (lambda: bias_allowance(-1.0, 0.9), "disturbance must be"),
        (lambda: bias_allowance(0.1, 0.9, 0), "switches must be"),
    ],
)
def test_loops_that_do_not_contract_are_refused(call, message: str) -> None:
    with pytest.raises(OfsError, match=message):
        call()
