"""The plugin's commands."""

import json

import pytest

click_testing = pytest.importorskip("click.testing", reason="needs click, which the core brings")

from sfumato_opaque_knapsack import cli  # noqa: E402
from sfumato_opaque_knapsack.traces import read_jsonl  # noqa: E402


def run(command, *arguments):
    return click_testing.CliRunner().invoke(command, [str(a) for a in arguments])


def test_traces_writes_checked_pairs_and_says_what_they_are_like(tmp_path):
    out = tmp_path / "t.jsonl"
    done = run(cli.traces, "--level", "legacy-hard", "--pairs", 3, "-o", out, "--json")
    assert done.exit_code == 0, done.output
    figures = json.loads(done.output)
    assert figures["episodes"] == 6 == len(list(read_jsonl(out)))
    assert figures["stateless / persistent, completion"] > 1.5


def test_traces_with_cues_name_what_survives_and_what_is_lost(tmp_path):
    out = tmp_path / "t.jsonl"
    assert (
        run(cli.traces, "--level", "micro", "--pairs", 1, "--cues", "globals_list", "-o", out).exit_code == 0
    )
    kept, lost = read_jsonl(out)
    assert "exist now: none" in json.dumps(kept["messages"][3])
    assert "Variables that exist now: " in kept["messages"][5]["content"]
    assert "gone now" in lost["messages"][5]["content"]
    assert kept["meta"]["cues"] == "globals_list"


def test_train_without_a_place_to_write_says_what_to_give(tmp_path):
    out = tmp_path / "t.jsonl"
    run(cli.traces, "--level", "micro", "--pairs", 1, "-o", out)
    done = run(cli.train, out, "--regime", "persistent", "--model", tmp_path)
    assert done.exit_code == 2
    assert "--dry-run" in done.output


def test_an_unknown_level_is_refused_with_those_that_exist(tmp_path):
    done = run(cli.traces, "--level", "medium", "-o", tmp_path / "t")
    assert done.exit_code == 2
    assert "legacy-hard" in done.output


def test_traces_with_losses_teach_recovery_and_are_refused_where_the_release_has_none(tmp_path):
    out = tmp_path / "t.jsonl"
    assert run(cli.traces, "--level", "micro", "--pairs", 4, "--losses", 1, "-o", out).exit_code == 0
    assert all("lost_from" in record["meta"] for record in read_jsonl(out, regime="persistent"))
    assert not any("lost_from" in record["meta"] for record in read_jsonl(out, regime="stateless"))
    refused = run(cli.traces, "--losses", 0.5, "--format", "paper", "-o", out)
    assert (refused.exit_code, "losses: expected profile matched" in refused.output) == (2, True)
