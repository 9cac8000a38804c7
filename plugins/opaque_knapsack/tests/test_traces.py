"""Paired traces and their files."""

import json

import attrs
import pytest

from sfumato_opaque_knapsack import traces
from sfumato_opaque_knapsack.metrics import count_words
from sfumato_opaque_knapsack.traces import (
    BadTrace,
    PairMismatch,
    TraceSettings,
    digest,
    make_pair,
    make_pairs,
    matched_by_tokens,
    read_jsonl,
    token_counts,
    write_jsonl,
)


def test_a_pair_differs_in_state_handling_only():
    """Same calls but for repeated listing, same score, same goal; the stateless half has more to say."""
    for seed in range(10):
        first, second = make_pair(TraceSettings(), seed)
        calls = [
            [call for step in half["steps"] for call in step["tool_calls"] if call[0] != "list_items"]
            for half in (first, second)
        ]
        assert calls[0] == calls[1]
        assert first["pair_id"] == second["pair_id"]
        assert first["meta"]["score"] == second["meta"]["score"]
        assert first["messages"][:4] == second["messages"][:4]
        assert second["meta"]["tokens"]["completion"] > 1.5 * first["meta"]["tokens"]["completion"]


def test_many_pairs_agree_and_use_every_style():
    records = list(make_pairs(TraceSettings(level="micro"), range(100)))
    openings = {record["steps"][0]["code"].split("\n")[1] for record in records}
    assert len(openings) >= 5
    total = dict.fromkeys(("persistent", "stateless"), 0)
    for record in records:
        total[record["regime"]] += record["meta"]["tokens"]["completion"]
    assert total["stateless"] > 1.5 * total["persistent"]


def test_a_pair_that_differs_in_the_world_is_refused(monkeypatch):
    """The check can fail: a renderer that takes one item less is caught."""
    good = traces.play_expert

    def tampered(expert, world, public, seed, **how):
        turns = good(expert, world, public, seed, **how)
        if expert.regime == "stateless":
            _, ran = turns[-2]
            object.__setattr__(ran, "tool_calls", ran.tool_calls[:-1])
        return turns

    monkeypatch.setattr(traces, "play_expert", tampered)
    with pytest.raises(PairMismatch, match="ok-easy-000003"):
        make_pair(TraceSettings(), 3)


def test_the_profiles_differ_as_they_say():
    """Matched halves share their system messages; paper halves have notes, and examples for one regime only."""
    matched = make_pair(TraceSettings(profile="matched"), 1)
    paper = make_pair(TraceSettings(profile="paper"), 1)

    def system(half):
        return [m["content"] for m in half["messages"] if m["role"] == "system"]

    assert system(matched[0]) == system(matched[1])
    assert len(system(paper[0])) == len(system(paper[1])) + 1
    assert system(paper[0])[1] != system(paper[1])[1]


def test_the_papers_format_merges_system_messages_and_wraps_observations():
    half, _ = make_pair(TraceSettings(format="paper"), 1)
    roles = [m["role"] for m in half["messages"]]
    assert roles[:3] == ["system", "user", "assistant"]
    assert set(json.loads(half["messages"][3]["content"])) == {"output"}


def test_the_papers_format_cuts_long_conversations_from_the_end_and_says_how_much(monkeypatch):
    monkeypatch.setattr(traces, "PAPER_CHARACTERS", 2500)
    _, half = make_pair(TraceSettings(format="paper"), 1)
    assert sum(len(m["content"]) for m in half["messages"]) == 2500
    assert half["meta"]["characters_cut"] > 0


def test_tokens_are_counted_three_ways():
    """Prompt 2, answer 3, observation 1, answer 4, by hand."""
    messages = [
        {"role": "user", "content": "a b"},
        {"role": "assistant", "content": "c d e"},
        {"role": "user", "content": "f"},
        {"role": "assistant", "content": "g h i j"},
    ]
    counts = token_counts(messages, count_words)
    assert counts == {"prompt": 2 + 6, "completion": 7, "cumulative": 5 + 10, "unique": 10}


def test_a_file_reads_back_what_was_written(tmp_path):
    path = tmp_path / "t.jsonl"
    records = list(make_pairs(TraceSettings(level="micro"), range(2)))
    assert write_jsonl(path, records) == 4
    assert list(read_jsonl(path)) == records
    assert [r["id"] for r in read_jsonl(path, regime="stateless")] == [
        "ok-micro-000000-s",
        "ok-micro-000001-s",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"\xff\xfe", "line 2: expected one JSON object in UTF-8"),
        (b"{", "line 2: expected one JSON object"),
        (b"[]", "got list"),
        (b'{"id": "x"}', "messages"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, message):
    path = tmp_path / "t.jsonl"
    (record, _) = make_pair(TraceSettings(level="micro"), 0)
    path.write_bytes(json.dumps(record).encode() + b"\n" + line + b"\n")
    with pytest.raises(BadTrace, match=message):
        list(read_jsonl(path))


def test_a_changed_message_is_found_out(tmp_path):
    path = tmp_path / "t.jsonl"
    (record, _) = make_pair(TraceSettings(level="micro"), 0)
    record["messages"][-1]["content"] += " "
    assert digest(record["messages"]) != record["sha256"]
    write_jsonl(path, [record])
    with pytest.raises(BadTrace, match="SHA-256"):
        list(read_jsonl(path))


def test_matching_by_tokens_keeps_no_more_text_than_given():
    records = [r for r in make_pairs(TraceSettings(level="micro"), range(20)) if r["regime"] == "stateless"]
    kept = matched_by_tokens(records, 3000)
    assert 0 < len(kept) < 20
    assert sum(r["meta"]["tokens"]["completion"] for r in kept) <= 3000


@pytest.mark.parametrize("style", ["varied", "compact"])
def test_a_lost_state_changes_the_code_and_not_what_it_comes_to(style):
    """The expert looks at everything again and goes on in stateless code; what it takes and earns is the same."""
    settings = TraceSettings(level="micro", style=style, losses=0.5)
    records = list(make_pairs(settings, range(60)))
    lost = [r for r in records if "lost_from" in r["meta"]]
    assert 15 < len(lost) < 45
    assert {r["regime"] for r in lost} == {"persistent"}
    for record in lost:
        where = record["meta"]["lost_from"]
        assert [k for k, step in enumerate(record["steps"]) if not step["ok"]] == [where]
        assert record["steps"][where]["error"].startswith("NameError")
    told = list(make_pairs(attrs.evolve(settings, cues="globals_list"), range(60)))
    assert all(step["ok"] for record in told for step in record["steps"])
    assert [r["meta"]["score"] for r in told] == [r["meta"]["score"] for r in records]


def test_losses_are_refused_in_what_imitates_the_release():
    with pytest.raises(ValueError, match="losses"):
        TraceSettings(format="paper", losses=0.1)
