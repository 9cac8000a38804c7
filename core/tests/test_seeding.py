"""Named streams."""

from __future__ import annotations

import os
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from sfumato.context import RunContext
from sfumato.seeding import stream

KNOWN = "from sfumato.seeding import stream; print(stream(7, 'world', 3).integers(0, 2**62, 3).tolist())"


def test_a_stream_is_the_same_in_every_process():
    """PYTHONHASHSEED does not enter."""
    seen = {
        subprocess.run(
            [sys.executable, "-c", KNOWN], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout
        for seed in ("0", "1", "random")
    }
    assert seen == {str(stream(7, "world", 3).integers(0, 2**62, 3).tolist()) + "\n"}


@given(st.integers(0, 2**32), st.integers(0, 2**32 - 2), st.sampled_from(["world", "policy", "instance", "train"]))
def test_streams_differ_by_seed_name_and_key(seed, key, name):
    """Neighbours share nothing."""

    def draw(*words):
        return tuple(stream(*words).integers(0, 2**62, 2))

    drawn = {draw(seed, name, key), draw(seed + 1, name, key), draw(seed, name + "x", key), draw(seed, name, key + 1)}
    assert len({*drawn, draw(seed, name), draw(seed, name, key, 0)}) == 6


def test_the_training_stream_follows_the_train_seed_alone():
    """The same training under another seed of the world."""
    a, b = RunContext(seed=0, train_seed=5), RunContext(seed=1, train_seed=5)
    assert a.stream("train").random() == b.stream("train").random()
    assert a.stream("world").random() != b.stream("world").random()
