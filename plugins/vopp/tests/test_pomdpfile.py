"""Reading Cassandra's format."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato_vopp import FileFormatError, Tiger
from sfumato_vopp.pomdpfile import parse_pomdp

TIGER = """
# the tiger, as everybody writes it
discount: 0.95
values: reward
states: tiger-left tiger-right
actions: listen open-left open-right
observations: tiger-left tiger-right

T:listen
identity
T:open-left
uniform
T:open-right
uniform

O:listen
0.85 0.15
0.15 0.85
O:open-left
uniform
O:open-right
uniform

R:listen : * : * : * -1
R:open-left : tiger-left : * : * -100
R:open-left : tiger-right : * : * 10
R:open-right : tiger-left : * : * 10
R:open-right : tiger-right : * : * -100
"""


def test_the_tiger_file_is_the_tiger() -> None:
    read = parse_pomdp(TIGER)
    assert read.action_names == ("listen", "open-left", "open-right")
    assert read.discount == 0.95
    tiger = Tiger()
    for a in range(3):
        ours, theirs = read.transitions(np.array([[0], [1]]), a), tiger.transitions(np.array([[0], [1]]), a)
        np.testing.assert_array_equal(ours.states, theirs.states)
        np.testing.assert_allclose(ours.probabilities, theirs.probabilities)
        np.testing.assert_allclose(ours.rewards, theirs.rewards)
        for o in range(2):
            np.testing.assert_allclose(
                read.log_likelihood(o, theirs.states, a, theirs.states),
                tiger.log_likelihood(o, theirs.states, a, theirs.states),
            )
    np.testing.assert_allclose(read.start, 0.5)


def test_wildcards_single_entries_and_the_last_word() -> None:
    read = parse_pomdp(
        """
        discount: 0.9
        values: cost
        states: 3
        actions: 2
        observations: a b
        start exclude: 1
        T: * : * uniform
        T: 0 : 2
        0 0 1
        T: 1 : 0 : 0 0.5
        T: 1 : 0 : 1 0.5
        T: 1 : 0 : 2 0
        O: * uniform
        O: 1 : 2 : a 0.25
        O: 1 : 2 : b 0.75
        R: * : * : * : * 1
        R: 1 : 2 : * : * 5
        R: 1 : 2 : 0 : b 7
        """
    )
    np.testing.assert_allclose(read.start, [0.5, 0, 0.5])
    np.testing.assert_allclose(read.transition[0, 2], [0, 0, 1])
    np.testing.assert_allclose(read.transition[1, 0], [0.5, 0.5, 0])
    np.testing.assert_allclose(read.observe[1, 2], [0.25, 0.75])
    # Costs are negated; the reward of (1, 2, 0) averages 5 and 7 over the observations of state 0.
    assert read.reward[1, 2, 0] == pytest.approx(-6)
    assert read.reward[1, 2, 1] == pytest.approx(-5)
    assert read.reward[0, 0, 0] == pytest.approx(-1)


def test_reward_rows_and_matrices() -> None:
    head = "discount: 1\nstates: 2\nactions: 1\nobservations: 2\nT: 0 identity\nO: 0 uniform\n"
    by_row = parse_pomdp(head + "R: 0 : 0 : 1 2 4\n")
    assert by_row.reward[0, 0].tolist() == [0, 3]
    by_matrix = parse_pomdp(head + "R: 0 : 1\n1 3\n5 7\n")
    assert by_matrix.reward[0, 1].tolist() == [2, 6]


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (("0.85 0.15", "0.85 0.25"), 17, "sum to 1, got 1.1"),
        (("0.85 0.15", "0.85 x"), 18, "got 'x'"),
        (("0.85 0.15", "1.5 -0.5"), 17, "between 0 and 1"),
        (("T:open-left\nuniform\n", ""), None, "no line sets"),
        (("R:listen :", "R:lisen :"), 24, "got 'lisen'"),
        (("discount: 0.95", "discount: 1.95"), 3, "discount in"),
        (("values: reward", "values: dollars"), 4, "'reward' or 'cost'"),
        (("states: tiger-left tiger-right", "states: a a"), 5, "distinct"),
        (("R:open-right : tiger-right : * : * -100", "R:open-right : tiger-right : * : *"), 28, "end of the file"),
        (("# the tiger", "start: uniform\n# the tiger"), 2, "before 'start'"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(change, line, message: str) -> None:  # type: ignore[no-untyped-def]
    text = TIGER.replace(*change)
    assert text != TIGER
    with pytest.raises(FileFormatError, match=message) as caught:
        parse_pomdp(text)
    if line is not None:
        assert caught.value.line is not None and abs(caught.value.line - line) <= 1


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="TOR:* \n01.5abe-", max_size=80), st.integers(0, len(TIGER)))
def test_garbage_is_a_format_error_and_nothing_else(noise: str, place: int) -> None:
    try:
        parse_pomdp(TIGER[:place] + noise + TIGER[place:])
    except FileFormatError:
        pass
