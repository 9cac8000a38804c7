"""Claims that take no longer than a test, and the files that state them."""

import tomllib
from importlib import import_module
from importlib.resources import files

import pytest

from sfumato_vopp.task_config import PlannerConfig

pytest.importorskip("numba", reason="the claims' searches are compiled")
from sfumato_vopp.claims import survivor_bias

CLAIMS = sorted(p for p in files("sfumato_vopp").joinpath("reproduce").iterdir() if p.name.endswith(".toml"))


@pytest.mark.parametrize("path", CLAIMS, ids=lambda p: p.name)
def test_a_claim_names_things_that_exist(path) -> None:  # type: ignore[no-untyped-def]
    claim = tomllib.loads(path.read_text())
    assert claim["id"] + ".toml" == path.name and claim["band"][0] <= claim["band"][1]
    assert claim["class"] in ("cpu-minutes", "cpu-hour", "gpu")
    run = claim["run"]
    if "call" in run:
        module, name = run["call"].split(":")
        assert callable(getattr(import_module(module), name))
    else:
        PlannerConfig(**run["solver_settings"])


def test_the_survivors_denominator_doubles_the_value() -> None:
    assert survivor_bias(episodes=50_000)["value"] == pytest.approx(2.0, abs=0.05)
