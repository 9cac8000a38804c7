"""Claims are complete, and their functions return what the runner expects."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import sfumato_cpto
from sfumato_cpto import claims
from sfumato_cpto.closed_loop import wilson

FOLDER = Path(sfumato_cpto.__file__).parent / "reproduce"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.toml")), ids=lambda p: p.stem)
def test_a_claim_names_a_function_that_takes_its_settings(path):
    import inspect

    claim = tomllib.loads(path.read_text())
    assert claim["id"] == path.stem
    assert claim["band"][0] <= claim["band"][1]
    module, name = claim["run"]["call"].split(":")
    function = getattr(import_module(module), name)
    inspect.signature(function).bind(**claim["run"]["settings"])


def test_zero_of_n_still_has_a_bound():
    low, high = wilson(0, 200)
    assert low == 0.0
    assert high == pytest.approx(1.959964**2 / (200 + 1.959964**2))
    assert wilson(5, 10)[0] < 0.5 < wilson(5, 10)[1]


def test_random_scenes_are_planned_honestly():
    found = claims.honest_scenes(n_scenes=20, n_candidates=3)
    assert found["details"]["dishonest"] == 0
    assert found["value"] >= 0.95
    assert found["low"] <= found["value"] <= found["high"]
