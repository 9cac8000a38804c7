"""The authors' event form, there and back."""

import json

import pytest

from sfumato_opaque_knapsack.paper_trace import EVENTS, from_events, loads, to_events
from sfumato_opaque_knapsack.traces import BadTrace, TraceSettings, make_pair


@pytest.mark.parametrize("half", [0, 1])
def test_messages_and_steps_survive_the_way_there_and_back(half):
    record = make_pair(TraceSettings(level="micro"), 2)[half]
    trace = to_events(record)
    back = loads(json.dumps(trace))
    for field in ("id", "pair_id", "regime", "messages", "steps", "sha256"):
        assert back[field] == record[field]
    assert back["meta"]["score"] == record["meta"]["score"]
    assert trace["summary"]["finish_reason"] == "finish"
    assert {event["type"] for event in trace["events"]} <= set(EVENTS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON object"),
        ("[]", "got list"),
        ("{}", "list of events"),
        ('{"events": [3]}', "event 0"),
        ('{"events": [{"type": "Dream"}]}', "Dream"),
        ('{"events": []}', "ModelResponse"),
    ],
)
def test_what_is_no_trace_is_refused_by_name(text, message):
    with pytest.raises(BadTrace, match=message):
        loads(text)


def test_a_trace_without_optional_parts_still_becomes_a_record():
    record = from_events({"events": [{"type": "ModelResponse", "content": "hello"}]})
    assert record["id"].startswith("imported-")
    assert record["meta"]["source"] == "imported"
