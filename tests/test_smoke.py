"""Every plugin runs beside the others: from the command line, through the store, replayed, compared, reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

RUNS = {
    "ofs": ("ofs/synthetic", "--solver", "ofs/optimistic-feasible", "-t", "rounds=80", "--seeds", "3"),
    "alflb": ("alflb/stream", "--solver", "alflb/bias", "-t", "n_batches=20", "--seeds", "2"),
    "bqnco": ("bqnco/tsp", "--solver", "bqnco/classical", "-t", "n=20", "-s", "method=nearest-neighbour", "--seeds", "3"),
    "vopp": ("vopp/tiger", "--solver", "vopp/qmdp", "-t", "max_steps=20", "--seeds", "3", "--level", "full"),
    "cpto": ("cpto/cruise", "--solver", "cpto/most-likely", "-t", "seconds=1.0", "-t", "n_cars=4", "--seeds", "1"),
    "opaque-knapsack": ("opaque-knapsack/micro", "--solver", "opaque-knapsack/expert", "--seeds", "2"),
    "persistent": (
        "opaque-knapsack/micro", "--solver", "opaque-knapsack/expert", "--runtime", "runtime-persistent/python", "--seeds", "2",
    ),
    "stateless": (
        "opaque-knapsack/micro", "--solver", "opaque-knapsack/expert", "--runtime", "runtime-stateless/python", "--seeds", "2",
    ),
}  # fmt: skip


def sfumato(store, *words: str):
    env = {**os.environ, "SFUMATO_STORE": str(store), "COLUMNS": "100"}
    return subprocess.run([sys.executable, "-m", "sfumato", *words], capture_output=True, text=True, env=env, timeout=300)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with one small run of every plugin."""
    return tmp_path_factory.mktemp("smoke") / "store"


@pytest.fixture(scope="module")
def records(store):
    """The records, by name; each run was asked for once."""
    made = {}
    for name, words in RUNS.items():
        done = sfumato(store, "run", *words, "--json")
        assert done.stdout, f"{name}: {done.stderr}"
        made[name] = json.loads(done.stdout)
    return made


@pytest.mark.parametrize("name", RUNS)
def test_a_small_run_of_every_plugin_ends_well(records, name):
    """Status ok, figures with units, a digest, provenance."""
    record = records[name]
    assert record["status"] == "ok", record["error"]
    assert len(record["figures"]) > 3
    assert all(f["unit"] for f in record["figures"])
    assert record["digest"]
    assert record["provenance"]["versions"]["numpy"]


@pytest.mark.parametrize("name", ["ofs", "alflb", "bqnco", "vopp", "opaque-knapsack", "stateless"])
def test_a_run_that_promises_bits_comes_out_again(store, records, name):
    """Replayed in another process."""
    if records[name]["promise"] != "bits":
        pytest.skip(f"promises {records[name]['promise']}")
    done = sfumato(store, "replay", records[name]["run_id"])
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_agent_scores_alike_in_both_runtimes(store, records):
    """The expert that writes code writes for the runtime it is in; the same items, the same score in both."""

    def score(name):
        return [m["values"] for row in rows(store, records[name]["run_id"]) for m in row["metrics"] if m["name"] == "score"]

    assert score("persistent") == score("stateless")


def rows(store, run_id):
    return [json.loads(line) for line in sfumato(store, "show", run_id, "--rows").stdout.splitlines()]


def test_the_report_has_a_section_of_every_plugin_and_none_is_broken(store, records, tmp_path):
    """Curves, maps, routes, scenes, loads, transcripts."""
    pytest.importorskip("plotly", reason="needs the extra `report`")
    done = sfumato(store, "report", "-o", str(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    titles = {
        "ofs": "Over time", "alflb": "Biases over steps", "bqnco": "Routes", "vopp": "First episode", "cpto": "The scene from above",
        "persistent": "Transcript",
    }  # fmt: skip
    for name, title in titles.items():
        page = (tmp_path / "site" / "runs" / f"{records[name]['run_id']}.html").read_text()
        assert f"<h2>{title}</h2>" in page
        assert "could not be drawn" not in page, page[page.index("could not be drawn") :][:300]
