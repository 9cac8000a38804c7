"""Settings: strict types, and errors that name file, table, key, expectation and nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato import config
from sfumato.errors import ConfigError
from sfumato.experiment import Experiment, Settings, shards
from sfumato.records import ComponentRef, Limits, RunRecord, RunSpec, Status


@attrs.frozen
class Inner:
    depth: int = 3


@attrs.frozen
class Config:
    beta: float = attrs.field(default=0.5, validator=attrs.validators.ge(0))
    n_arms: int = 41
    rule: Literal["ucb", "lcb"] = "ucb"
    monotone: bool = False
    window: int | None = None
    sizes: tuple[int, ...] = (1, 2)
    path: Path | None = None
    inner: Inner = Inner()


def test_good_settings_become_a_typed_object():
    """A whole number is a number; a table becomes a class."""
    made = config.structure(
        {"beta": 1, "window": 5, "sizes": [3], "path": "a/b", "inner": {"depth": 9}}, Config, "here"
    )
    assert made == Config(beta=1.0, window=5, sizes=(3,), path=Path("a/b"), inner=Inner(9))
    assert isinstance(made.beta, float)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"betta": 1}, r"file.toml: unknown key 'betta'. Did you mean 'beta'\? Known keys: beta, n_arms"),
        ({"inner": {"dept": 1}}, r"unknown key 'inner.dept'. Did you mean 'depth'"),
        ({"n_arms": "3"}, r"key 'n_arms': expected a whole number, got '3' \(str\)"),
        ({"n_arms": 3.5}, r"key 'n_arms': expected a whole number, got 3.5 \(float\)"),
        ({"n_arms": True}, r"key 'n_arms': expected a whole number, got True \(bool\)"),
        ({"monotone": 1}, r"key 'monotone': expected true or false, got 1"),
        ({"beta": -1}, r"'beta' must be >= 0"),
        ({"rule": "uc"}, r"key 'rule': expected one of 'ucb', 'lcb'; got 'uc'. Did you mean 'ucb'"),
        ({"sizes": [1, "x"]}, r"key 'sizes\[1\]': expected a whole number, got 'x'"),
        ({"sizes": 3}, r"key 'sizes'"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    """The reader knows which key of which file to change, and to what."""
    with pytest.raises(ConfigError, match=message):
        config.structure(settings, Config, "file.toml")


def test_every_mistake_is_reported_at_once():
    """Two mistakes, two lines."""
    with pytest.raises(ConfigError) as caught:
        config.structure({"n_arms": "x", "monotone": "y"}, Config, "f")
    assert len(str(caught.value).splitlines()) == 2


@given(st.builds(Config, beta=st.floats(0, 1e9), n_arms=st.integers(), window=st.none() | st.integers()))
def test_settings_survive_a_round_trip(settings):
    """Resolved settings in a record make the same component again."""
    assert config.structure(config.unstructure(settings), Config, "f") == settings


def test_none_unsets_a_setting_that_may_be_unset():
    """TOML has no null, so the text "none" stands for it, but never where it could be meant as a text."""

    @attrs.frozen
    class Budget:
        seconds: float | None = 0.1
        label: str | None = "x"
        count: int = 1

    assert config.structure({"seconds": "none", "label": "none"}, Budget, "here") == Budget(None, "none")
    assert config.structure({"seconds": 2}, Budget, "here").seconds == 2.0
    for wrong in ({"count": "none"}, {"seconds": "no"}):
        with pytest.raises(ConfigError, match="expected a"):
            config.structure(wrong, Budget, "here")


def test_a_record_survives_a_round_trip():
    """What is written is what is read."""
    spec = RunSpec(ComponentRef("a/b", 1, {"x": [1]}), ComponentRef("c/d"), limits=Limits(steps=3))
    record = RunRecord("0", spec, Status.TIMEOUT, provenance={"versions": {"numpy": "2"}})
    again = config.structure(config.unstructure(record), RunRecord, "f")
    assert again == record
    assert isinstance(again.status, Status)


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("beta=0.5", {"beta": 0.5}),
        ("on=true", {"on": True}),
        ("name=plain text", {"name": "plain text"}),
        ("sizes=[1, 2]", {"sizes": [1, 2]}),
        ("a.b=1", {"a": {"b": 1}}),
        ("expr=a=b", {"expr": "a=b"}),
    ],
)
def test_assignments_are_read_as_toml_or_text(pair, expected):
    """`-s key=value`."""
    assert config.parse_assignments([pair], "-s") == expected


@pytest.mark.parametrize("pair", ["beta", "=3", ""])
def test_an_assignment_without_a_key_or_sign_is_refused(pair):
    """With an example of how to write it."""
    with pytest.raises(ConfigError, match="-s wants key=value"):
        config.parse_assignments([pair], "-s")


@given(st.text())
def test_any_text_as_a_value_is_taken_or_refused_cleanly(text):
    """The parser never raises anything else."""
    try:
        config.parse_assignments([f"k={text}"], "-s")
    except ConfigError:
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seeds = ", "not valid TOML"),
        ("[[task]]\nuse = 'a/b'\n", r"no \[\[solver\]\] table"),
        ("[[task]]\nuse = 'a/b'\n[[solver]]\nuze = 'c/d'\n", r"\[\[solver\]\] 1: key 'use' is missing"),
        ("seds = 3\n[[task]]\nuse='a/b'\n[[solver]]\nuse='c/d'\n", "unknown key 'seds'. Did you mean 'seeds'"),
        ("[[taks]]\nuse='a/b'\n[[solver]]\nuse='c/d'\n", "unknown key 'taks'. Did you mean 'task'"),
        ("seeds = 0\n[[task]]\nuse='a/b'\n[[solver]]\nuse='c/d'\n", "'seeds' must be >= 1"),
        ("[limits]\nsteps = 0\n[[task]]\nuse='a/b'\n[[solver]]\nuse='c/d'\n", "'steps' must be >= 1"),
    ],
)
def test_an_experiment_file_with_a_mistake_names_file_and_place(tmp_path, text, message):
    """File, table, key."""
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        Experiment.from_toml(path)
    assert str(path) in str(caught.value)


def test_an_experiment_file_is_read(tmp_path):
    """Settings of a component stand beside `use`."""
    path = tmp_path / "x.toml"
    path.write_text("seeds = 4\n[[task]]\nuse='toys/bandit'\nn_rounds = 9\n[[solver]]\nuse='toys/greedy'\nlabel='mine'\n")
    made = Experiment.from_toml(path, {"seed": 2})
    assert made.settings == Settings(seeds=4, seed=2)
    assert made.tasks[0].settings == {"n_rounds": 9}
    assert made.solvers[0].label == "mine"


def test_an_option_changes_what_it_names_and_leaves_the_rest(tmp_path):
    """One limit given on the command line leaves the file's other limits; --seeds replaces the file's instances."""
    path = tmp_path / "x.toml"
    path.write_text("instances='0:3'\n[limits]\nseconds=600\n[[task]]\nuse='a/b'\n[[solver]]\nuse='c/d'\n")
    made = Experiment.from_toml(path, {"limits": {"steps": 3}, "seeds": 7}).settings
    assert made.limits == Limits(seconds=600, steps=3)
    assert (made.seeds, made.instances) == (7, None)


@given(st.integers(0, 50), st.integers(1, 200), st.integers(1, 300))
def test_shards_cover_every_instance_once(first, count, parts):
    """No instance is lost or done twice."""
    ranges = [range(*map(int, s.split(":"))) for s in shards(f"{first}:{first + count}", parts)]
    assert [k for r in ranges for k in r] == list(range(first, first + count))
    assert len(ranges) == min(parts, count)
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@pytest.mark.parametrize("text", ["3", "5:5", "a:b", "-1:4", "4:2", "1:2:3"])
def test_a_malformed_range_is_refused(text):
    """With an example."""
    with pytest.raises(ConfigError, match="Example: 0:20"):
        shards(text, 1)
