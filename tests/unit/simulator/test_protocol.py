"""What the endpoint answers, byte for byte, over real sockets."""

import json
import time

import pytest

from .wire import CHAT, TEXT, Client, body, request_bytes

USAGE = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}


def test_health_models_stats(connect):
    client = connect()
    assert client.ask("GET", "/health").json() == {"status": "ok"}
    models = client.ask("GET", "/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["simulated"]
    assert client.ask("GET", "/v1/stats").json()["active"] == 0


@pytest.mark.parametrize(("path", "hint"), [("/chat/completions", "/v1/chat/completions"), ("/v1/nothing", "")])
def test_unknown_path(connect, path, hint):
    answer = connect().ask("POST", path, body())
    assert answer.status == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert hint in answer.json()["error"]["message"]


def test_wrong_method(connect):
    answer = connect().ask("GET", CHAT)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_stream(connect, path):
    answer = connect().chat(path=path)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.events[-1] == "[DONE]"
    assert answer.events[-2]["choices"][0]["finish_reason"] == "length"
    assert len(answer.text().split()) == len(answer.pieces()) == 5
    assert not answer.text().startswith(" ")
    ids = {event["id"] for event in answer.events[:-1]}
    assert ids == {answer.headers["x-request-id"]}
    assert {event["object"] for event in answer.events[:-1]} == {
        "chat.completion.chunk" if path == CHAT else "text_completion"
    }
    assert answer.usages() == []


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_whole(connect, path):
    answer = connect().chat(path=path, stream=False)
    choice = answer.json()["choices"][0]
    text = choice["text"] if path == TEXT else choice["message"]["content"]
    assert len(text.split()) == 5
    assert answer.json()["usage"] == USAGE
    assert answer.json()["id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(("cap", "count"), [("max_tokens", 3), ("max_completion_tokens", 9)])
def test_caps(connect, cap, count):
    answer = connect().chat(**{cap: count}, stream_options={"include_usage": True})
    assert len(answer.text().split()) == count == answer.usages()[0]["completion_tokens"]


def test_prompt_tokens_are_words(connect):
    client = connect()
    parts = [{"type": "text", "text": "two words"}, {"type": "image_url", "image_url": {"url": "x y z"}}]
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": parts}]
    answer = client.ask("POST", CHAT, {"messages": messages, "stream": False})
    assert answer.json()["usage"]["prompt_tokens"] == 4
    for prompt, count in (("a b c", 3), (["a b c"], 3), ([5, 6, 7, 8], 4), ([[5, 6]], 2)):
        assert client.chat(path=TEXT, prompt=prompt, stream=False).json()["usage"]["prompt_tokens"] == count


@pytest.mark.parametrize(
    ("mode", "asked", "where"),
    [
        ("on", True, "own event"),
        ("on", False, None),
        ("off", True, None),
        ("always", False, "own event"),
        ("finish", False, "finish event"),
    ],
)
def test_usage_modes(connect, mode, asked, where):
    options = {"stream_options": {"include_usage": True}} if asked else {}
    answer = connect(f"usage={mode}").chat(**options)
    assert answer.usages() == ([USAGE] if where else [])
    if where == "own event":
        assert answer.events[-2]["choices"] == []
    elif where == "finish event":
        assert answer.events[-2]["choices"][0]["finish_reason"] == "length"


def test_usage_refused(connect):
    asked = {"stream_options": {"include_usage": True}}
    answer = connect("usage=refuse").chat(**asked)
    assert answer.status == 400
    assert "stream_options" in answer.json()["error"]["message"]
    answer = connect("usage=refuse422").chat(**asked)
    assert answer.status == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "stream_options"]
    assert answer.json()["detail"][0]["input"] == {"include_usage": True}
    assert connect("usage=refuse").chat().status == connect("usage=refuse422").chat().status == 200


@pytest.mark.alone
@pytest.mark.parametrize("role", ["early", "none", "late", "with-first"])
def test_role_modes(connect, role):
    answer = connect(f"role={role},ttft=60ms").chat()
    first = answer.events[0]["choices"][0]["delta"]
    gap_s = (answer.stamps_ns[1] - answer.stamps_ns[0]) / 1e9
    if role == "none":
        assert first.keys() == {"content"}
        assert first["content"]
    else:
        assert first == {"role": "assistant", "content": ""}
        assert gap_s > 0.04 if role == "early" else gap_s < 0.01
    assert len(answer.pieces()) == 5
    assert len(answer.events) == 5 + 2 + (role != "none")


def test_reasoning(connect):
    answer = connect("reasoning=3,tokens_per_chunk=2").chat(stream_options={"include_usage": True})
    assert [len(text.split()) for _, text in answer.pieces("reasoning_content")] == [2, 1]
    assert [len(text.split()) for _, text in answer.pieces()] == [2]
    assert answer.usages()[0]["completion_tokens_details"] == {"reasoning_tokens": 3}
    message = connect("reasoning=3,tokens_per_chunk=2").chat(stream=False).json()["choices"][0]["message"]
    assert (len(message["reasoning_content"].split()), len(message["content"].split())) == (3, 2)


def test_tokens_per_chunk_and_finish(connect):
    answer = connect("tokens_per_chunk=4,tokens=10,finish=stop").chat()
    assert [len(text.split()) for _, text in answer.pieces()] == [4, 4, 2]
    assert answer.events[-2]["choices"][0]["finish_reason"] == "stop"


def test_a_silent_stop_token_is_counted_and_takes_its_time(connect):
    answer = connect("finish=stop,stop_token=silent,itl=40ms").chat(stream_options={"include_usage": True})
    assert len(answer.pieces()) == 4
    assert answer.usages()[0]["completion_tokens"] == 5
    finish = next(i for i, event in enumerate(answer.events) if event["choices"][0]["finish_reason"] == "stop")
    assert (answer.stamps_ns[finish] - answer.stamps_ns[finish - 1]) / 1e9 > 0.025
    answer = connect("stop_token=silent").chat()  # the cap ends it: every token has a chunk
    assert len(answer.pieces()) == 5


@pytest.mark.parametrize(("shown", "thoughts"), [("none", 0), ("summary", 2), ("full", 20)])
def test_reasoning_shown(connect, shown, thoughts):
    keys = f"reasoning=20,reasoning_shown={shown},tokens=25,itl=2ms,reasoning_counted=off"
    answer = connect(keys).chat(stream_options={"include_usage": True})
    assert (len(answer.pieces("reasoning_content")), len(answer.pieces())) == (thoughts, 5)
    assert answer.usages() == [{"prompt_tokens": 5, "completion_tokens": 25, "total_tokens": 30}]
    assert (answer.stamps_ns[-1] - answer.stamps_ns[0]) / 1e9 > 0.03  # hidden tokens take their time


def test_several_choices(connect):
    """Each is a sixth of the first one's length shorter than the one before it."""
    answer = connect("tokens=12,usage=every").chat(n=3, stream_options={"include_usage": True})
    said: dict[int, list] = {0: [], 1: [], 2: []}
    for event in answer.events[1:-2]:
        said[event["choices"][0]["index"]].append(event)
    texts = {index: [event["choices"][0]["delta"].get("content") for event in said[index]] for index in said}
    assert {index: len(list(filter(None, text))) for index, text in texts.items()} == {0: 12, 1: 10, 2: 8}
    assert all(events[-1]["choices"][0]["finish_reason"] == "length" for events in said.values())
    counts = [event["usage"]["completion_tokens"] for event in said[2]]
    assert counts == [*range(1, 9), 8]
    assert answer.events[-2]["usage"]["completion_tokens"] == 30
    assert len(connect("tokens=12").chat(n=3, stream=False).json()["choices"]) == 3


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_a_buffering_proxy_lets_all_events_go_together(connect, path):
    started_ns = time.monotonic_ns()
    answer = connect("buffered=on,itl=20ms,role=none").chat(path=path)
    assert len(answer.pieces()) == 5
    assert (answer.stamps_ns[0] - started_ns) / 1e9 > 0.08
    assert (answer.stamps_ns[-1] - answer.stamps_ns[0]) / 1e9 < 0.02


def test_framing_close(connect):
    client = connect("framing=close")
    answer = client.chat()
    assert "transfer-encoding" not in answer.headers
    assert answer.headers["connection"] == "close"
    assert (answer.events[-1], len(answer.text().split())) == ("[DONE]", 5)


def test_dialects(connect):
    client = connect("dialect=llamacpp,comments=20ms,ttft=90ms")
    answer = client.chat()
    assert answer.events[:4] == [":"] * 4
    assert answer.events[4]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert answer.headers["connection"] == "keep-alive"
    assert client.at_end()
    answer = connect("dialect=transformers").chat()
    assert answer.events[-1]["usage"] == USAGE


def test_keep_alive_and_pipelining(connect):
    client = connect()
    for _ in range(3):
        assert client.chat().status == 200
    client.sock.sendall(b"".join(request_bytes("POST", CHAT, body(max_tokens=n)) for n in (2, 3, 4)))
    client.send("GET", "/health")
    assert [len(client.read().text().split()) for _ in range(3)] == [2, 3, 4]
    assert client.read().json() == {"status": "ok"}


@pytest.mark.parametrize("stream", [True, False])
def test_connection_close_is_honoured(connect, stream):
    client = connect()
    answer = client.ask("POST", CHAT, body(stream=stream), {"Connection": "close"})
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert client.at_end()


def test_http_1_0_gets_no_chunks(connect):
    client = connect()
    client.sock.sendall(request_bytes("POST", CHAT, body()).replace(b"HTTP/1.1", b"HTTP/1.0"))
    answer = client.read()
    assert "transfer-encoding" not in answer.headers
    assert answer.events[-1] == "[DONE]"


def test_chunked_request_and_expect(connect):
    client = connect()
    data = json.dumps(body(prompt="x " * 9)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n".encode()
    client.sock.sendall(head)
    assert client.read().status == 100
    for part in (data[:10], data[10:]):
        client.sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        time.sleep(0.01)
    client.sock.sendall(b"0\r\n\r\n")
    assert len(client.read().text().split()) == 5


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "could not parse"),
        (b"\xff", "could not parse"),
        (b"[]", "could not parse"),
        (b"{}", "messages"),
        (b'{"messages":[],"max_tokens":0}', "max_tokens must be"),
        (b'{"messages":[],"max_tokens":"9"}', "max_tokens"),
        (b'{"messages":[],"n":9}', "n must be from 1 to 8"),
    ],
)
def test_bad_bodies(connect, data, says):
    client = connect()
    answer = client.ask("POST", CHAT, data)
    assert answer.status == 400
    assert says in answer.json()["error"]["message"]
    assert client.chat().status == 200  # the connection is still good


def test_bytes_that_are_no_request(connect):
    client = connect()
    client.sock.sendall(b"what?\r\n\r\n")
    assert client.read().status == 400
    assert client.at_end()


def test_model_check(connect):
    client = connect("model=mine,check_model=on")
    assert client.ask("GET", "/v1/models").json()["data"][0]["id"] == "mine"
    answer = client.chat(model="other")
    assert (answer.status, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert client.chat(model="mine").events[0]["model"] == "mine"
    assert connect().chat(model='any "name"').events[0]["model"] == 'any "name"'


def test_api_key(connect):
    client = connect("api_key=sesame")
    answer = client.chat()
    assert (answer.status, answer.json()["error"]["type"]) == (401, "authentication_error")
    answer = client.ask("POST", CHAT, body(), {"Authorization": "Bearer wrong-key"})
    assert (answer.status, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "wrong-key" not in answer.body.decode()
    assert client.ask("GET", "/v1/models").status == 401
    assert client.ask("POST", CHAT, body(), {"Authorization": "Bearer sesame"}).status == 200
    assert client.ask("GET", "/health").status == 200


SHAPES = {"object": dict, "string": str, "detail": None, "text": None, "empty": None}


@pytest.mark.parametrize("shape", SHAPES)
def test_error_shapes(connect, shape):
    answer = connect(f"error=429:1,error_shape={shape},retry_after=2s").chat()
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")
    if shape == "empty":
        assert answer.body == b""
    elif shape == "text":
        assert answer.body.startswith(b"Rate limit")
    elif shape == "detail":
        assert answer.json()["detail"].startswith("Rate limit")
    else:
        assert isinstance(answer.json()["error"], SHAPES[shape])


def test_errors_repeat_with_the_seed(endpoint):
    runs = []
    for seed in ("7", "7", "8"):
        # A space makes a spec of its own text, so a process of its own, and means the same.
        spec = f"error=429:0.3+500:0.2,seed={seed}" + " " * len(runs)
        with Client(endpoint(spec).port) as client:
            runs.append([client.chat(max_tokens=1).status for _ in range(60)])
    assert runs[0] == runs[1] != runs[2]
    assert 8 <= runs[0].count(429) <= 30
    assert 3 <= runs[0].count(500) <= 24
