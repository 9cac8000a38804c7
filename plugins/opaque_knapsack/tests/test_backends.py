"""Model backends: a stub server on loopback that behaves and misbehaves, a tiny transformers model, a recording."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sfumato_opaque_knapsack.backends import ModelCallFailed, OpenAIBackend, ReplayBackend, ServerSettings
from sfumato_opaque_knapsack.instances import generate
from sfumato_opaque_knapsack.prompts import instance_key
from sfumato_opaque_knapsack.traces import TraceSettings, make_pairs, write_jsonl

pytest.importorskip("httpx", reason="needs httpx")
MESSAGES = [{"role": "user", "content": "Hello."}]


def _answer(text="Good.", finish="stop"):
    return json.dumps(
        {
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3},
        }
    ).encode()


class _Server:
    """Answers requests with the behaviours given, in order, the last one for ever."""

    def __init__(self, *behaviours):
        self.requests = []
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.requests.append((self.path, dict(self.headers), body))
                    behaviour = behaviours[min(len(outer.requests), len(behaviours)) - 1]
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    behaviour(self)

            def log_message(self, *args):
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def _says(body, status=200, **headers):
    def behave(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def _sleeps(seconds):
    def behave(handler):
        time.sleep(seconds)

    return behave


def _stops_midway(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [{"mess')
    handler.wfile.flush()
    handler.connection.close()


def _dribbles(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    with contextlib.suppress(OSError):  # the client has gone
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)


def _backend(server, **settings):
    settings = {"timeout_seconds": 5.0, "retries": 2, **settings}
    return OpenAIBackend(ServerSettings(base_url=server.url, model="m", **settings))


def test_a_message_comes_back_with_its_usage_and_the_request_is_as_documented():
    with _Server(_says(_answer())) as server:
        backend = _backend(server, api_key="secret")
        completion = backend.complete(MESSAGES, 5)
    assert (completion.text, completion.finish) == ("Good.", "stop")
    assert (backend.prompt_tokens, backend.completion_tokens, backend.calls) == (7, 3, 1)
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert (body["stream"], body["seed"], body["temperature"]) == (False, 5, 0.2)


def test_busy_servers_are_asked_again():
    with _Server(_says(b"busy", 429, Retry_After="0"), _says(b"oops", 503), _says(_answer())) as server:
        assert _backend(server).complete(MESSAGES, 0).attempts == 3


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (_says(b"<html>not json</html>"), "expected a chat completion"),
        (_says(b"\xff\xfe\x00"), "expected a chat completion"),
        (_says(b'{"choices": []}'), "expected a chat completion"),
        (_says(b"[1, 2]"), "expected a chat completion"),
        (_says(b'{"choices": [{"message": {"content": [1]}}]}'), "to be text"),
        (_says(b"no such model", 404), "404"),
    ],
)
def test_garbage_is_a_clear_error_and_is_not_asked_for_again(behaviour, message):
    with _Server(behaviour) as server:
        with pytest.raises(ModelCallFailed, match=message):
            _backend(server).complete(MESSAGES, 0)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (_sleeps(1.0), "no answer within 0.1 s"),
        (_stops_midway, "Protocol|Read|peer"),
        (_dribbles, "no answer within 0.1 s"),
    ],
)
def test_a_server_that_times_out_or_stops_midway_is_tried_again_then_reported(behaviour, message):
    with _Server(behaviour) as server:
        with pytest.raises(ModelCallFailed, match=message):
            _backend(server, timeout_seconds=0.1, retries=1).complete(MESSAGES, 0)
        assert len(server.requests) == 2


def test_nobody_listening_is_reported():
    with _Server(_says(b"")) as server:
        url = server.url
    with pytest.raises(ModelCallFailed, match="2 attempts"):
        OpenAIBackend(ServerSettings(base_url=url, model="m", retries=1)).complete(MESSAGES, 0)


def test_an_answer_is_cached_under_the_whole_request(tmp_path):
    """The same request needs no server; another temperature, seed or message is another request."""
    with _Server(_says(_answer())) as server:
        _backend(server, cache=tmp_path).complete(MESSAGES, 1)
        again = _backend(server, cache=tmp_path)
        assert again.complete(MESSAGES, 1).cached
        assert len(server.requests) == 1
        assert not again.complete(MESSAGES, 2).cached
        assert not _backend(server, cache=tmp_path, temperature=0.7).complete(MESSAGES, 1).cached
        assert not again.complete([*MESSAGES, *MESSAGES], 1).cached
    assert len(list(tmp_path.iterdir())) == 4


def test_no_more_requests_run_at_once_than_allowed():
    lock, live, most = threading.Lock(), [0], [0]

    def slow(handler):
        # Counted before the answer goes out: once it is out, the next request may come before this thread ends.
        with lock:
            live[0] += 1
            most[0] = max(most[0], live[0])
        time.sleep(0.05)
        with lock:
            live[0] -= 1
        _says(_answer())(handler)

    with _Server(slow) as server:
        backend = _backend(server, concurrency=2)
        threads = [threading.Thread(target=backend.complete, args=(MESSAGES, k)) for k in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.requests) == 8
    assert most[0] <= 2


def test_a_recording_is_found_by_its_instance_and_ends_in_a_clear_error(tmp_path):
    path = tmp_path / "traces.jsonl"
    records = list(make_pairs(TraceSettings(level="micro"), range(3)))
    write_jsonl(path, records)
    with pytest.raises(ValueError, match="name a regime"):
        ReplayBackend(path)
    backend = ReplayBackend(path, regime="stateless")
    episode = backend.episode(instance_key(generate("micro", 2)))
    conversation = list(MESSAGES)
    for message in records[5]["messages"]:
        if message["role"] == "assistant":
            assert episode.complete(conversation, 0).text == message["content"]
            conversation.append(message)
    with pytest.raises(ModelCallFailed, match="one more"):
        episode.complete(conversation, 0)
    with pytest.raises(ModelCallFailed, match="no recording"):
        backend.episode("0" * 16)
