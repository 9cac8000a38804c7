"""Columns, digests and trace files."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato import trace as trace_module
from sfumato.errors import ProtocolError
from sfumato.trace import Column, EpisodeColumns, TraceFile, read_trace, shrink


def column(values, name="c"):
    made = Column(name)
    for value in values:
        made.append(value)
    return made


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1))
def test_whole_numbers_survive_in_the_smallest_dtype(values):
    """Shrinking is exact."""
    assert column(values).array().tolist() == values


@given(st.lists(st.floats(allow_nan=True), min_size=1))
def test_floats_survive(values):
    """float32 is used only when nothing is lost."""
    np.testing.assert_array_equal(column(values).array(), np.array(values))


def test_small_numbers_take_little_room():
    """Expert indices fit into a byte each, thresholds that need it keep eight."""
    assert shrink(np.arange(200)).dtype == np.uint8
    assert shrink(np.array([0.5, 0.25])).dtype == np.float32
    assert shrink(np.array([0.1])).dtype == np.float64


@given(
    st.lists(st.floats(allow_nan=False) | st.integers(-5, 5) | st.text(max_size=2) | st.booleans(), min_size=1, max_size=40),
    st.integers(1, 50),
)
def test_the_digest_does_not_depend_on_chunking(values, size):
    """Chunk size is an implementation detail."""
    whole = column(values).digest
    before = trace_module.CHUNK_VALUES
    trace_module.CHUNK_VALUES = size
    try:
        assert column(values).digest == whole
    finally:
        trace_module.CHUNK_VALUES = before


@pytest.mark.parametrize(
    ("a", "b"),
    [([1, 2], [2, 1]), ([1], [1.5]), (["a"], ["b"]), ([np.zeros(2)], [np.zeros(3)]), ([{"x": 1}], [{"x": 2}]), ([True], [1])],
)
def test_different_values_have_different_digests(a, b):
    """Order, shape and kind count."""
    assert column(a).digest != column(b).digest


def test_an_array_is_copied_because_worlds_reuse_their_buffers():
    """Later changes of the buffer do not rewrite history."""
    buffer = np.zeros(3)
    made = column([buffer])
    buffer += 1
    assert made[0].tolist() == [0, 0, 0]


def test_values_of_many_kinds_can_be_read_back_by_index():
    """Text, bytes, tables and attrs objects stay what they are."""

    @attrs.frozen
    class Call:
        name: str
        args: tuple

    values = ["x = 1", b"\x00", {"a": [1, 2]}, Call("look", (1,)), None, np.arange(3), 7]
    made = column(values)
    assert made[3] == Call("look", (1,))
    assert made[-1] == 7
    assert len(made) == len(list(made)) == 7
    with pytest.raises(IndexError):
        made[7]


def test_what_cannot_be_recorded_is_refused_with_its_type():
    """An action must be data."""
    with pytest.raises(ProtocolError, match="actions of type object cannot be recorded"):
        column([object()], "actions").flush()


def test_a_trace_file_is_read_back(tmp_path):
    """Columns come back as arrays where they are numbers, as lists where they are not."""
    columns = EpisodeColumns()
    for t in range(3000):
        columns.said.append(f"step {t}")
        columns.actions.append(np.full(4, t))
        columns.rewards.append(0.5)
    file = TraceFile(tmp_path / "trace.zip")
    file.write_chunks(0, columns)
    file.write_json("e000000/truth.json", {"state": np.arange(2)})
    file.close()
    back = read_trace(tmp_path / "trace.zip")
    assert back["actions"][2999] == "step 2999"
    assert back["native.actions"].shape == (3000, 4)
    assert back["native.actions"].dtype == np.uint16
    assert back["native.rewards"].sum() == 1500
    assert back["truth"] == {"state": [0, 1]}


def test_past_the_limit_only_the_digest_is_kept_and_the_file_says_so(tmp_path):
    """No half trace passes for a whole one."""
    columns = EpisodeColumns()
    rng = np.random.default_rng(0)
    for _ in range(50):
        columns.actions.append(rng.random(5000))
    file = TraceFile(tmp_path / "trace.zip", limit=100_000)
    file.write_chunks(0, columns)
    file.close()
    assert not file.complete
    assert read_trace(tmp_path / "trace.zip") == {}
    assert (tmp_path / "trace.zip").stat().st_size < 1000
