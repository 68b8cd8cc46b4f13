"""The Messages API: what is sent and with which key, what every event means, how a stream may end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_users import AnthropicUser, image_part
from llm_users.extension import wiring_of
from llm_users.users.llm import Answer
from tests.stream_bytes import CHUNKED, DONE, FRAMINGS, UNTIL_CLOSE, chunk, event, framed, head, reply, stream
from tests.users.rig import Rig, at, eventually
from tests.wire_server import CLOSE, HOLD, RESET, Port, Wire, bytewise, pause, send

MakeRig = Callable[..., Rig]
NS = 1_000_000_000
KEY, TOKEN = "key-of-anthropic-1234", "token-of-a-gateway-5678"


def said(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, name=kind)


def started(**usage: Any) -> bytes:
    counts = {"input_tokens": 7, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 2, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "usage": {**counts, **usage}}
    return said("message_start", message=message)


def opened(kind: str = "text", place: int = 0, **fields: Any) -> bytes:
    return said("content_block_start", index=place, content_block={"type": kind, **fields})


def delta(kind: str, piece: str, place: int = 0) -> bytes:
    name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}.get(
        kind, "signature"
    )
    return said("content_block_delta", index=place, delta={"type": kind, name: piece})


def text(piece: str) -> bytes:
    return delta("text_delta", piece)


def ended(reason: str | None = "end_turn", **usage: Any) -> bytes:
    return said(
        "message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage={"output_tokens": 2, **usage}
    )


START, CLOSED, STOP, PING = started(), said("content_block_stop", index=0), said("message_stop"), said("ping")
PLAIN = [START, opened(text=""), PING, text("a"), text("b"), CLOSED, ended(), STOP]


@pytest.fixture(scope="module")
def claude(make_rig: MakeRig) -> Rig:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
            patch.delenv(name, raising=False)
        return make_rig(user_class=AnthropicUser)


@pytest.fixture
def rig(claude: Rig) -> Rig:
    for log in vars(claude.seen).values():
        log.clear()
    return claude


def ask(rig: Rig, url: str, prompt: str | None = "hi", **more: Any) -> Answer:
    answer: Answer = rig.call(at(url, lambda user: user.message(prompt, **more)))
    return answer


def only(port: Port) -> Any:
    (request,) = port.requests()
    return request


# What is sent.


@pytest.mark.parametrize("place", ["root", "url"])
def test_a_prompt_becomes_one_user_message(rig: Rig, wire: Wire, place: str) -> None:
    port = wire.serve(stream(PLAIN))
    record = ask(rig, getattr(port, place), "Why?", max_tokens=9, temperature=0).record
    request = only(port)
    assert request.target == "/v1/messages"  # the base URL may have its /v1, or not
    assert request.json() == {
        "model": "tiny",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Why?"}],
        "stream": True,
        "temperature": 0,
    }
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["user-agent"].startswith("locust-llm/")
    assert request.headers["accept-encoding"] == "identity"
    assert not [name for name in request.headers if "stainless" in name or "openai" in name]
    assert (record.requested_output_tokens, record.model, record.name) == (9, "tiny", "tiny")
    assert (record.api, record.framework) == ("anthropic-messages", "anthropic")


def test_a_cap_is_always_sent(rig: Rig, wire: Wire) -> None:
    port = wire.serve(stream(PLAIN))
    records = [ask(rig, port.url, prompt).record for prompt in ("hi", None)]
    assert [request.json()["max_tokens"] for request in port.requests()] == [
        150,  # the mean of --llm-output-tokens
        records[1].requested_output_tokens,
    ]


def test_conversations_of_either_shape(rig: Rig, wire: Wire) -> None:
    port = wire.serve(stream(PLAIN))
    image = image_part("data:image/png;base64,aGk=")
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "what?"}, image, image_part("https://a.test/b.png")]},
        {"role": "assistant", "content": "that"},
    ]
    ask(rig, port.url, None, messages=turns)
    ask(rig, port.url, "hi", system=[{"type": "text", "text": "own", "cache_control": {"type": "ephemeral"}}])
    first, second = (request.json() for request in port.requests())
    assert first["system"] == "be brief"
    assert first["messages"] == [
        {"role": "user", "content": [
            {"type": "text", "text": "what?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
            {"type": "image", "source": {"type": "url", "url": "https://a.test/b.png"}},
        ]},
        {"role": "assistant", "content": "that"},
    ]  # fmt: skip
    assert second["system"][0]["cache_control"] == {"type": "ephemeral"}


@pytest.mark.parametrize("transport", ["fast", "sdk"])
@pytest.mark.parametrize(
    ("variables", "sent"),
    [
        ({"ANTHROPIC_API_KEY": KEY}, {"x-api-key": KEY}),
        ({"ANTHROPIC_AUTH_TOKEN": TOKEN}, {"authorization": f"Bearer {TOKEN}"}),
        ({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_AUTH_TOKEN": TOKEN}, {"x-api-key": KEY}),
        ({"OPENAI_API_KEY": "not-for-others", "OPENAI_ORG_ID": "org-not-for-others"}, {}),
    ],
)
def test_the_key_goes_where_it_belongs(
    make_rig: MakeRig,
    wire: Wire,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    sent: dict[str, str],
    transport: str,
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    port = wire.serve(stream(PLAIN))
    rig = make_rig(user_class=AnthropicUser, host=port.url, llm_transport=transport)
    assert ask(rig, port.url).record.error_code is None
    headers = only(port).headers
    assert {name: headers[name] for name in ("x-api-key", "authorization") if name in headers} == sent
    assert "not-for-others" not in only(port).head
    assert any("no ANTHROPIC_API_KEY" in note for note in rig.notes) == (not sent)


def test_headers_of_the_class_and_of_the_environment(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GATEWAY_KEY", "key-of-the-gateway")
    port = wire.serve(stream(PLAIN))
    attributes = {"default_headers": {"Anthropic-Beta": "new-things", "Anthropic-Version": "2030-01-01"}}
    rig = make_rig(
        user_class=AnthropicUser, host=port.url, attributes=attributes, llm_header_env=["X-API-Key=GATEWAY_KEY"]
    )
    ask(rig, port.url)
    headers = only(port).headers
    assert (headers["anthropic-beta"], headers["anthropic-version"]) == ("new-things", "2030-01-01")
    assert headers["x-api-key"] == "key-of-the-gateway"
    assert only(port).head.lower().count("anthropic-version") == 1


def test_user_info_and_query_of_the_base_url_are_sent(make_rig: MakeRig, wire: Wire) -> None:
    port = wire.serve(stream(PLAIN))
    hidden = port.root.replace("http://", "http://anna:password@") + "/claude?code=secret-code"
    rig = make_rig(user_class=AnthropicUser, host=hidden)
    record = rig.call(lambda user: user.message("hi")).record
    assert record.error_code is None
    assert only(port).target == "/claude/v1/messages?code=secret-code"
    assert only(port).headers["authorization"].startswith("Basic ")
    assert "password" not in repr([record, rig.environment.host, rig.seen.locust_requests])


def refused(rig: Rig) -> str:
    """Why the run was refused."""
    wiring = wiring_of(rig.environment)
    assert wiring is not None
    assert wiring.coordinating is not None
    role = wiring.coordinating
    return str(eventually(lambda: role.coordinator.refused))


def test_a_run_needs_a_key_for_anthropic_itself_and_its_own_api(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    rig = make_rig(user_class=AnthropicUser, host="https://api.anthropic.com")
    assert "set ANTHROPIC_API_KEY" in refused(rig)
    assert "there is messages" in refused(make_rig(user_class=AnthropicUser, llm_api="chat"))
    assert "locustfiles/messages.py" in refused(make_rig(llm_api="messages"))


def test_an_endpoint_must_be_named(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit):
        make_rig(user_class=AnthropicUser, host=None)
    assert "ANTHROPIC_BASE_URL" in capsys.readouterr().err
    port = wire.serve(stream(PLAIN))
    monkeypatch.setenv("ANTHROPIC_BASE_URL", port.root)
    rig = make_rig(user_class=AnthropicUser, host=None)
    assert rig.call(lambda user: user.message("hi")).text == "ab"
    assert only(port).target == "/v1/messages"


def test_the_only_listed_model_is_asked(make_rig: MakeRig, wire: Wire) -> None:
    models = {"data": [{"type": "model", "id": "claude-one"}], "has_more": False}
    port = wire.serve(reply("200 OK", models), stream(PLAIN))
    rig = make_rig(user_class=AnthropicUser, host=port.url, llm_model=None)
    assert ask(rig, port.url).record.model == "claude-one"
    assert port.requests()[0].target == "/v1/models"


# What comes back.


@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_answer_is_timed_as_the_server_sent_it(rig: Rig, wire: Wire, framing: str) -> None:
    port = wire.serve(stream(PLAIN, framing, gap_s=0.02))
    answer = ask(rig, port.url)
    record = answer.record
    request = only(port)
    first_ns, last_ns = request.sent_ns[4], request.sent_ns[5]  # after head, start, block and ping
    assert record.error_code is None
    assert (answer.text, answer.finish_reason) == ("ab", "end_turn")
    assert record.ttft_s == pytest.approx((first_ns - request.received_ns) / NS, abs=0.005)
    assert record.last_token_s == pytest.approx((last_ns - request.received_ns) / NS, abs=0.005)
    assert record.end_to_end_latency_s == pytest.approx((request.sent_ns[8] - request.received_ns) / NS, abs=0.005)
    assert (record.chunks, record.output_tokens, record.output_tokens_source) == (2, 2, "usage")
    assert (record.input_tokens, record.cached_tokens, record.cache_write_tokens) == (12, 3, 2)  # the API counts apart
    assert (record.response_id, record.stamp_source, record.http_status) == ("msg_1", "kernel", 200)


STREAMS = {
    "no names of events": [part.partition(b"\n")[2] for part in PLAIN],
    "carriage returns": [part.replace(b"\n", b"\r\n") for part in PLAIN],
    "pings, comments, a foreign end": [b":\n\n", PING, *PLAIN[:-1], PING, STOP, DONE],
    "events that nobody knows": [START, said("new_thing", delta={"type": "x"}), *PLAIN[1:]],
    "deltas that nobody knows": [*PLAIN[:3], said("content_block_delta", index=0, delta={"type": "new"}), *PLAIN[3:]],
    "empty deltas": [START, opened(text=""), text(""), text("a"), text("b"), text(""), CLOSED, ended(), STOP],
    "text in the block's start": [START, opened(text="a"), text("b"), CLOSED, ended(), STOP],
    "no blocks": [START, text("a"), text("b"), ended(), STOP],
    "counts at the end only": [
        said("message_start", message={"id": "msg_1", "usage": None}), text("a"), text("b"),
        ended(input_tokens=7, cache_read_input_tokens=3, cache_creation_input_tokens=2), STOP,
    ],
    "no blank line at the end": [*PLAIN[:-1], STOP.rstrip()],
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_every_dialect_gives_the_same_answer(rig: Rig, wire: Wire, name: str) -> None:
    answer = ask(rig, wire.serve(stream(STREAMS[name], gap_s=0.002)).url)
    record = answer.record
    assert (record.error_code, answer.text, record.chunks, answer.finish_reason) == (None, "ab", 2, "end_turn")
    assert (record.output_tokens, record.input_tokens) == (2, 12)


TRICKY = ["naïve ", "日本語 ", "👩‍👩‍👧 ", "tab\there", "line\nbreak"]


@pytest.mark.parametrize("framing", [CHUNKED, UNTIL_CLOSE])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_text_split_at_every_byte_is_whole_again(rig: Rig, wire: Wire, framing: str, end: bytes) -> None:
    body = b"".join(part.replace(b"\n", end) for part in [START, *map(text, TRICKY), ended(), STOP])
    if framing == CHUNKED:
        writes = framed([bytes([byte]) for byte in body])
        script = [send(writes[0]), *(send(b"".join(writes[i : i + 7])) for i in range(1, len(writes), 7))]
    else:
        half = len(body) // 2
        script = [send(head(framing)), bytewise(body[:half]), pause(0.01), bytewise(body[half:]), CLOSE]
    answer = ask(rig, wire.serve(script).url)
    assert (answer.record.error_code, answer.text, answer.record.chunks) == (None, "".join(TRICKY), 5)


def test_a_character_in_two_halves_is_whole_again(rig: Rig, wire: Wire) -> None:
    start, end = b'{"type": "content_block_delta", "delta": {"type": "text_delta", "text": "', b'"}}'
    halves = [event(start + half + end) for half in (b"\\ud83d", b"\\ude00")]
    answer = ask(rig, wire.serve(stream([START, *halves, ended(), STOP], gap_s=0.005)).url)
    assert (answer.record.error_code, answer.text) == (None, "\N{GRINNING FACE}")


def test_thinking_comes_before_the_answer_and_a_signature_is_no_output(rig: Rig, wire: Wire) -> None:
    parts = [START, opened("thinking", thinking="", signature=""), delta("thinking_delta", "hm "),
             delta("thinking_delta", "so"), delta("signature_delta", "c2ln"), CLOSED, opened(place=1, text=""),
             text("a"), text("b"), CLOSED, ended(), STOP]  # fmt: skip
    answer = ask(rig, wire.serve(stream(parts, gap_s=0.01)).url)
    record = answer.record
    assert (answer.reasoning, answer.text, record.chunks) == ("hm so", "ab", 4)
    assert record.ttfat_s is not None
    assert record.ttft_s is not None
    assert record.ttfat_s - record.ttft_s == pytest.approx(0.05, abs=0.015)


def test_redacted_thinking_is_output(rig: Rig, wire: Wire) -> None:
    parts = [START, opened("redacted_thinking", data="c2VjcmV0"), CLOSED, text("a"), ended(), STOP]
    answer = ask(rig, wire.serve(stream(parts, gap_s=0.01)).url)
    assert (answer.record.error_code, answer.text, answer.record.chunks) == (None, "a", 2)


def test_tool_calls_are_assembled(rig: Rig, wire: Wire) -> None:
    parts = [START, opened("tool_use", id="toolu_1", name="look", input={}), delta("input_json_delta", ""),
             delta("input_json_delta", '{"at"'), delta("input_json_delta", ': "sea"}'), CLOSED,
             opened("tool_use", 1, id="toolu_2", name="wait", input={}), delta("input_json_delta", "{}", 1), CLOSED,
             ended("tool_use"), STOP]  # fmt: skip
    answer = ask(rig, wire.serve(stream(parts, gap_s=0.003)).url)
    assert (answer.record.error_code, answer.record.chunks, answer.finish_reason) == (None, 3, "tool_use")
    assert answer.tool_calls == [
        {"id": "toolu_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}},
        {"id": "toolu_2", "type": "function", "function": {"name": "wait", "arguments": "{}"}},
    ]


# What goes wrong.


def failure(kind: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_7"}


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        ("429 Too Many Requests", "rate_limit_error", "slow down"),
        ("529 Overloaded", "overloaded_error", "a limit of this account would be a 429"),
        ("401 Unauthorized", "authentication_error", "set ANTHROPIC_API_KEY"),
        ("404 Not Found", "not_found_error", "--llm-model"),
        ("400 Bad Request", "invalid_request_error", "max_tokens"),
    ],
)
@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_a_refusal_says_what_to_do(
    rig: Rig, rig_with: MakeRig, wire: Wire, status: str, kind: str, words: str, transport: str
) -> None:
    if transport == "sdk":
        rig = rig_with(llm_transport="sdk", user_class=AnthropicUser)
    message = {"404": "model: claude-none", "400": "max_tokens: too large"}.get(status[:3], "slow down")
    port = wire.serve(reply(status, failure(kind, message), more="request-id: req_7\r\n"))
    record = ask(rig, port.url).record
    assert (record.error_code, record.http_status, record.response_id) == (status[:3], int(status[:3]), "req_7")
    assert message in (record.error_message or "")
    assert words in (record.error_message or "")
    assert "OPENAI" not in (record.error_message or "")


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (event(failure("overloaded_error", "Overloaded"), name="error"), "overloaded_error", "Overloaded"),
        (event(failure("rate_limit_error", "too many")), "rate_limit_error", "too many"),
        (event(b"no json", name="error"), "error", "no json"),
        (event({"error": {"message": "bare", "code": 500}}), "500", "bare"),
        (event({"object": "error", "message": "old style", "code": 400}), "400", "old style"),
    ],
)
def test_an_error_inside_the_stream_is_the_server_s(rig: Rig, wire: Wire, data: bytes, code: str, words: str) -> None:
    answer = ask(rig, wire.serve(stream([START, text("a"), data], gap_s=0.005)).url)
    record = answer.record
    assert (record.error_code, answer.text, record.chunks, record.http_status) == (code, "a", 1, 200)
    assert "inside the stream" in (record.error_message or "")
    assert words in (record.error_message or "")


@pytest.mark.parametrize(
    "bad",
    [b'{"type": [', b"not json", b"[1, 2]", b"12", b'{"type": "message_start", "message": 3}',
     b'{"type": "content_block_delta", "delta": "x"}'],
)  # fmt: skip
def test_what_is_no_event_is_malformed(rig: Rig, wire: Wire, bad: bytes) -> None:
    answer = ask(rig, wire.serve(stream([START, text("a"), event(bad), ended(), STOP], gap_s=0.005)).url)
    assert (answer.record.error_code, answer.text) == ("malformed", "a")


@pytest.mark.parametrize("ending", [CLOSE, RESET])
@pytest.mark.parametrize("after", [text("b"), CLOSED, ended()])
def test_a_stream_without_message_stop_is_truncated(rig: Rig, wire: Wire, after: bytes, ending: list[str]) -> None:
    clean = wire.serve(stream([START, text("a"), after], gap_s=0.005))
    script = [send(head(CHUNKED) + chunk(START + text("a"))), pause(0.01), send(chunk(after)), pause(0.01), ending]
    for port in (clean, wire.serve(script)):
        answer = ask(rig, port.url)
        assert answer.record.error_code in ("truncated", "reset")
        assert answer.text[:1] == "a"
        assert answer.record.ttft_s is not None
    assert "message_stop" in (ask(rig, clean.url).record.error_message or "")


def test_a_server_that_holds_the_connection_after_the_end_does_not_hold_the_user(rig: Rig, wire: Wire) -> None:
    writes = framed(PLAIN)
    record = ask(rig, wire.serve([send(b"".join(writes[:-1])), HOLD]).url).record
    assert record.error_code is None
    assert record.end_to_end_latency_s is not None
    assert record.end_to_end_latency_s < 0.05


def test_an_empty_message_and_one_without_usage(rig: Rig, wire: Wire) -> None:
    assert ask(rig, wire.serve(stream([START, ended(output_tokens=0), STOP])).url).record.error_code == "empty"
    bare = [said("message_start", message={"id": "m"}), text("two words"),
            said("message_delta", delta={"stop_reason": "end_turn"}), STOP]  # fmt: skip
    record = ask(rig, wire.serve(stream(bare, gap_s=0.005)).url, "three words here").record
    assert (record.error_code, record.output_tokens, record.output_tokens_source) == (None, 2, "tokenizer")
    assert (record.input_tokens, record.input_tokens_source) == (3, "tokenizer")


def test_a_json_body_instead_of_a_stream_is_buffered(rig: Rig, wire: Wire) -> None:
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "All at once"},
               {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]  # fmt: skip
    body = {"id": "msg_9", "type": "message", "content": content, "stop_reason": "tool_use",
            "usage": {"input_tokens": 5, "output_tokens": 3}}  # fmt: skip
    answer = ask(rig, wire.serve(reply("200 OK", body)).url)
    record = answer.record
    assert (answer.text, answer.reasoning) == ('All at once{"a": 1}', "hm")
    assert [call["function"]["arguments"] for call in answer.tool_calls] == ['{"a": 1}']
    assert (record.error_code, record.ttft_s, record.output_tokens, record.response_id) == (
        "buffered",
        None,
        3,
        "msg_9",
    )
    assert ask(rig, wire.serve(reply("200 OK", failure("api_error", "no"))).url).record.error_code == "api_error"
    assert ask(rig, wire.serve(reply("200 OK", {"id": 5})).url).record.error_code == "truncated"


def test_the_sdk_s_transport_gives_the_same_answer(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(llm_transport="sdk", user_class=AnthropicUser)
    port = wire.serve(stream(PLAIN, gap_s=0.02))
    for _ in range(2):
        answer = ask(rig, port.url)
        assert (answer.text, answer.finish_reason, answer.record.error_code) == ("ab", "end_turn", None)
        assert (answer.record.output_tokens, answer.record.stamp_source) == (2, "user")
    assert port.connections == 1


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_a_redirect_is_followed_but_the_key_stays_at_home(
    make_rig: MakeRig, wire: Wire, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    port = wire.serve(stream(PLAIN))
    here = wire.serve(reply("307 Temporary Redirect", more="Location: /v1/elsewhere\r\n"), stream(PLAIN))
    away = wire.serve(reply("307 Temporary Redirect", more=f"Location: {port.url}/messages\r\n"))
    rig = make_rig(user_class=AnthropicUser, host=away.url, llm_transport=transport)
    assert [ask(rig, url).text for url in (away.url, here.url)] == ["ab", "ab"]
    assert only(away).headers["x-api-key"] == KEY
    assert KEY not in only(port).head
    assert [request.headers["x-api-key"] for request in here.requests()] == [KEY, KEY]


def test_connections_are_kept(rig: Rig, wire: Wire) -> None:
    port = wire.serve(stream(PLAIN))
    assert [ask(rig, port.url).text for _ in range(3)] == ["ab"] * 3
    assert port.connections == 1
