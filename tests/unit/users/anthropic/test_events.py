"""What comes back from the Messages API: what every event means, how a stream may end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_users import AnthropicUser
from tests.stream_bytes import (
    CHUNKED,
    DONE,
    FRAMINGS,
    UNTIL_CLOSE,
    chunk,
    event,
    framed,
    head,
    reply,
    split_everywhere,
    stream,
)
from tests.unit.users.anthropic.messages_api import (
    CLOSED,
    PING,
    PLAIN,
    START,
    STOP,
    ask,
    delta,
    ended,
    only,
    opened,
    said,
    text,
)
from tests.unit.users.rig import Rig
from tests.wire_server import CLOSE, HOLD, RESET, Wire, pause, send

MakeRig = Callable[..., Rig]
NS = 1_000_000_000


@pytest.mark.alone
@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_answer_is_timed_as_the_server_sent_it(claude: Rig, wire: Wire, framing: str) -> None:
    port = wire.serve(stream(PLAIN, framing, gap_s=0.02))
    answer = ask(claude, port.url)
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
def test_every_dialect_gives_the_same_answer(claude: Rig, wire: Wire, name: str) -> None:
    answer = ask(claude, wire.serve(stream(STREAMS[name], gap_s=0.002)).url)
    record = answer.record
    assert (record.error_code, answer.text, record.chunks, answer.finish_reason) == (None, "ab", 2, "end_turn")
    assert (record.output_tokens, record.input_tokens) == (2, 12)


TRICKY = ["naïve ", "日本語 ", "👩‍👩‍👧 ", "tab\there", "line\nbreak"]


@pytest.mark.parametrize("framing", [CHUNKED, UNTIL_CLOSE])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_text_split_at_every_byte_is_whole_again(claude: Rig, wire: Wire, framing: str, end: bytes) -> None:
    body = b"".join(part.replace(b"\n", end) for part in [START, *map(text, TRICKY), ended(), STOP])
    answer = ask(claude, wire.serve(split_everywhere(body, framing)).url)
    assert (answer.record.error_code, answer.text, answer.record.chunks) == (None, "".join(TRICKY), 5)


def test_a_character_in_two_halves_is_whole_again(claude: Rig, wire: Wire) -> None:
    start, end = b'{"type": "content_block_delta", "delta": {"type": "text_delta", "text": "', b'"}}'
    halves = [event(start + half + end) for half in (b"\\ud83d", b"\\ude00")]
    answer = ask(claude, wire.serve(stream([START, *halves, ended(), STOP], gap_s=0.005)).url)
    assert (answer.record.error_code, answer.text) == (None, "\N{GRINNING FACE}")


@pytest.mark.alone
def test_thinking_comes_before_the_answer_and_a_signature_is_no_output(claude: Rig, wire: Wire) -> None:
    parts = [START, opened("thinking", thinking="", signature=""), delta("thinking_delta", "hm "),
             delta("thinking_delta", "so"), delta("signature_delta", "c2ln"), CLOSED, opened(place=1, text=""),
             text("a"), text("b"), CLOSED, ended(), STOP]  # fmt: skip
    answer = ask(claude, wire.serve(stream(parts, gap_s=0.01)).url)
    record = answer.record
    assert (answer.reasoning, answer.text, record.chunks) == ("hm so", "ab", 4)
    assert record.ttfat_s is not None
    assert record.ttft_s is not None
    assert record.ttfat_s - record.ttft_s == pytest.approx(0.05, abs=0.015)


def test_redacted_thinking_is_output(claude: Rig, wire: Wire) -> None:
    parts = [START, opened("redacted_thinking", data="c2VjcmV0"), CLOSED, text("a"), ended(), STOP]
    answer = ask(claude, wire.serve(stream(parts, gap_s=0.01)).url)
    assert (answer.record.error_code, answer.text, answer.record.chunks) == (None, "a", 2)


def test_tool_calls_are_assembled(claude: Rig, wire: Wire) -> None:
    parts = [START, opened("tool_use", id="toolu_1", name="look", input={}), delta("input_json_delta", ""),
             delta("input_json_delta", '{"at"'), delta("input_json_delta", ': "sea"}'), CLOSED,
             opened("tool_use", 1, id="toolu_2", name="wait", input={}), delta("input_json_delta", "{}", 1), CLOSED,
             ended("tool_use"), STOP]  # fmt: skip
    answer = ask(claude, wire.serve(stream(parts, gap_s=0.003)).url)
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
    claude: Rig, rig_with: MakeRig, wire: Wire, status: str, kind: str, words: str, transport: str
) -> None:
    if transport == "sdk":
        claude = rig_with(llm_transport="sdk", user_class=AnthropicUser)
    message = {"404": "model: claude-none", "400": "max_tokens: too large"}.get(status[:3], "slow down")
    port = wire.serve(reply(status, failure(kind, message), more="request-id: req_7\r\n"))
    record = ask(claude, port.url).record
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
def test_an_error_inside_the_stream_is_the_server_s(
    claude: Rig, wire: Wire, data: bytes, code: str, words: str
) -> None:
    answer = ask(claude, wire.serve(stream([START, text("a"), data], gap_s=0.005)).url)
    record = answer.record
    assert (record.error_code, answer.text, record.chunks, record.http_status) == (code, "a", 1, 200)
    assert "inside the stream" in (record.error_message or "")
    assert words in (record.error_message or "")


@pytest.mark.parametrize(
    "bad",
    [b'{"type": [', b"not json", b"[1, 2]", b"12", b'{"type": "message_start", "message": 3}',
     b'{"type": "content_block_delta", "delta": "x"}'],
)  # fmt: skip
def test_what_is_no_event_is_malformed(claude: Rig, wire: Wire, bad: bytes) -> None:
    answer = ask(claude, wire.serve(stream([START, text("a"), event(bad), ended(), STOP], gap_s=0.005)).url)
    assert (answer.record.error_code, answer.text) == ("malformed", "a")


@pytest.mark.parametrize("ending", [CLOSE, RESET])
@pytest.mark.parametrize("after", [text("b"), CLOSED, ended()])
def test_a_stream_without_message_stop_is_truncated(claude: Rig, wire: Wire, after: bytes, ending: list[str]) -> None:
    clean = wire.serve(stream([START, text("a"), after], gap_s=0.005))
    script = [send(head(CHUNKED) + chunk(START + text("a"))), pause(0.01), send(chunk(after)), pause(0.01), ending]
    for port in (clean, wire.serve(script)):
        answer = ask(claude, port.url)
        assert answer.record.error_code in ("truncated", "reset")
        assert answer.text[:1] == "a"
        assert answer.record.ttft_s is not None
    assert "message_stop" in (ask(claude, clean.url).record.error_message or "")


def test_a_server_that_holds_the_connection_after_the_end_does_not_hold_the_user(claude: Rig, wire: Wire) -> None:
    writes = framed(PLAIN)
    record = ask(claude, wire.serve([send(b"".join(writes[:-1])), HOLD]).url).record
    assert record.error_code is None
    assert record.end_to_end_latency_s is not None
    assert record.end_to_end_latency_s < 0.05


def test_an_empty_message_and_one_without_usage(claude: Rig, wire: Wire) -> None:
    assert ask(claude, wire.serve(stream([START, ended(output_tokens=0), STOP])).url).record.error_code == "empty"
    bare = [said("message_start", message={"id": "m"}), text("two words"),
            said("message_delta", delta={"stop_reason": "end_turn"}), STOP]  # fmt: skip
    record = ask(claude, wire.serve(stream(bare, gap_s=0.005)).url, "three words here").record
    assert (record.error_code, record.output_tokens, record.output_tokens_source) == (None, 2, "tokenizer")
    assert (record.input_tokens, record.input_tokens_source) == (3, "tokenizer")


def test_a_json_body_instead_of_a_stream_is_buffered(claude: Rig, wire: Wire) -> None:
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "All at once"},
               {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}]  # fmt: skip
    body = {"id": "msg_9", "type": "message", "content": content, "stop_reason": "tool_use",
            "usage": {"input_tokens": 5, "output_tokens": 3}}  # fmt: skip
    answer = ask(claude, wire.serve(reply("200 OK", body)).url)
    record = answer.record
    assert (answer.text, answer.reasoning) == ("All at once", "hm")
    assert [call["function"]["arguments"] for call in answer.tool_calls] == ['{"a": 1}']
    assert (record.error_code, record.ttft_s, record.output_tokens, record.response_id) == (
        "buffered",
        None,
        3,
        "msg_9",
    )
    assert ask(claude, wire.serve(reply("200 OK", failure("api_error", "no"))).url).record.error_code == "api_error"
    assert ask(claude, wire.serve(reply("200 OK", {"id": 5})).url).record.error_code == "truncated"


def test_the_sdk_s_transport_gives_the_same_answer(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(llm_transport="sdk", user_class=AnthropicUser)
    port = wire.serve(stream(PLAIN, gap_s=0.02))
    for _ in range(2):
        answer = ask(rig, port.url)
        assert (answer.text, answer.finish_reason, answer.record.error_code) == ("ab", "end_turn", None)
        assert (answer.record.output_tokens, answer.record.stamp_source) == (2, "user")
    assert port.connections == 1
