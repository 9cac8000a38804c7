"""Claims and the ledger: a verdict needs a run, a scaled-down run says so, what was run is not run again."""

from __future__ import annotations

import json
import math

import attrs
import pytest

from sfumato.errors import ConfigError
from sfumato.ledger import Result, claims, markdown, read_claim, read_result, write_result

GOOD = """
id = "x"
title = "T"
source = "Table 1"
unit = "1"
band = [-inf, 3]
[run]
call = "a:b"
"""


def claim(tmp_path, text, name="x"):
    path = tmp_path / f"{name}.toml"
    path.write_text(text)
    return read_claim(path, "toys")


def test_a_figure_in_the_band_is_reproduced_and_nan_never_is(tmp_path):
    """The band is closed."""
    made = claim(tmp_path, GOOD)
    assert [made.verdict(v) for v in (3.0, -1e9, 3.1, math.nan)] == [
        "reproduced", "reproduced", "not reproduced", "not reproduced",
    ]  # fmt: skip


def test_an_interval_that_leaves_the_band_is_said(tmp_path):
    """The figure decides, and the doubt stands beside it; an interval within the band, or none, says nothing."""
    from sfumato.cli import reproduce

    made = reproduce.not_run(claim(tmp_path, GOOD), "")
    inside, beyond, bare = (
        attrs.evolve(made, verdict="reproduced", value=2.0, low=low, high=high) for low, high in ((1.0, 2.5), (1.0, 3.5), (None, None))
    )
    assert [r.said for r in (inside, beyond, bare)] == [
        "reproduced", "reproduced, though its interval leaves the band", "reproduced",
    ]  # fmt: skip
    assert attrs.evolve(beyond, verdict="not run", reason="class gpu").said == "not run: class gpu"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[run]", "scaled_down = true\n[run]"), "must say so in its title"),
        (('call = "a:b"', ""), "wants either 'call' or 'task'"),
        (('call = "a:b"', 'task = "a/b"'), "must name 'solver' and 'metric'"),
        (('id = "x"', 'id = "y"'), "expected 'x', the name of the file"),
        (('unit = "1"', 'unit = "1"\nclass = "cpu"'), "Did you mean 'cpu-hour'|expected one of"),
        (('unit = "1"', 'units = "1"'), "unknown key 'units'"),
    ],
)
def test_a_malformed_claim_names_file_and_key(tmp_path, change, message):
    """The author of a plugin sees what to mend."""
    with pytest.raises(ConfigError, match=message) as caught:
        claim(tmp_path, GOOD.replace(*change))
    assert "x.toml" in str(caught.value)


def test_a_result_survives_a_round_trip(tmp_path):
    """Infinite bounds too, which JSON lacks."""
    result = Result("x", "toys", "T", "S", "1", (-math.inf, 3.0), "reproduced", value=1.0, low=0.5, high=2.0, n=3)
    write_result(tmp_path / "r" / "x.json", result)
    assert read_result(tmp_path / "r" / "x.json") == result
    json.loads((tmp_path / "r" / "x.json").read_text(), parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    assert "| 1 [0.5, 2] | 3 | reproduced |" in markdown([result])


def test_reproduce_prints_the_papers_figure_beside_ours(sfumato, tmp_path):
    """One claim holds, one does not, one needs another machine, one a file, one gives no number; exit status 1."""
    nothing = {"XDG_DATA_HOME": str(tmp_path / "none"), "SFUMATO_DATA": ""}
    done = sfumato("reproduce", "toys", "--json", check=1, env=nothing)
    by_id = {r["id"]: r for r in map(json.loads, done.stdout.splitlines())}
    assert by_id["coin-right"]["verdict"] == "reproduced"
    assert by_id["coin-right"]["n"] == 20
    assert by_id["coin-right"]["provenance"]["versions"]["numpy"]
    assert by_id["called"]["verdict"] == "not reproduced"
    assert by_id["dear"]["verdict"] == "not run"
    assert by_id["dear"]["reason"] == "needs --class gpu"
    assert by_id["lacking"]["verdict"] == "not run"
    assert "Traceback" not in done.stderr
    assert by_id["lacking"]["reason"].startswith("DataMissing: the data file 'figure.txt' was looked for in")
    assert (by_id["nameless"]["verdict"], by_id["nameless"]["reason"]) == ("not reproduced", "its figure is nan")
    sfumato("reproduce", "toys", "--claim", "lacking", check=0, env=nothing)  # what was not run is no failure


def test_what_was_run_is_not_run_again(sfumato):
    """The second time the same figures come from the store, with the time of the first."""
    first = sfumato("reproduce", "toys", "--claim", "coin-right", "--json", check=0)
    second = sfumato("reproduce", "toys", "--claim", "coin-right", "--json", check=0)
    assert second.stdout == first.stdout


def test_the_ledger_runs_nothing(sfumato):
    """Without a committed result a claim is `not run`."""
    done = sfumato("reproduce", "toys", "--ledger", "--json", check=0)
    assert {json.loads(line)["verdict"] for line in done.stdout.splitlines()} == {"not run"}


def test_a_result_by_earlier_code_says_so(sfumato, monkeypatch):
    """In the ledger that came with a plugin; one by the code as it stands needs no such words."""
    from sfumato.cli import reproduce
    from sfumato.plugins import Registry
    from sfumato.provenance import code_digest

    registry = Registry()
    (dear,) = (c for c in claims(registry, ["toys"]) if c.id == "dear")
    now = attrs.evolve(reproduce.not_run(dear, ""), verdict="reproduced", value=1.0, code={"sfumato_toys": code_digest("sfumato_toys")})
    for result, reason in ((now, ""), (attrs.evolve(now, code={"sfumato_toys": "0"}), "by earlier code of sfumato_toys")):
        monkeypatch.setattr(reproduce, "committed", lambda registry, claim, result=result: result)
        assert reproduce._came_with(registry, dear).reason == reason


def test_an_unknown_claim_or_plugin_is_explained(sfumato):
    """With the nearest name."""
    assert "Did you mean 'coin-right'" in sfumato("reproduce", "toys", "--claim", "coin-rihgt", check=2).stderr
    assert "Did you mean 'toys'" in sfumato("reproduce", "tois", check=2).stderr
