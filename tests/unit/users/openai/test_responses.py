"""The Responses API: what is sent, what every event means, how a stream may end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_users import Prompt
from llm_users.users.answer import Answer
from tests.stream_bytes import (
    CHUNKED,
    DONE,
    FRAMINGS,
    UNTIL_CLOSE,
    chunk,
    event,
    head,
    reply,
    split_everywhere,
    stream,
)
from tests.unit.users.rig import Rig, at
from tests.wire_server import CLOSE, RESET, Wire, pause, send

MakeRig = Callable[..., Rig]
NS = 1_000_000_000


def said(kind: str, **fields: Any) -> bytes:
    return event({"type": kind, **fields}, name=kind)


def text(piece: str) -> bytes:
    return said("response.output_text.delta", item_id="msg_1", output_index=0, content_index=0, delta=piece)


def ended(status: str = "completed", *, output: int = 2, name: bool = True, **more: Any) -> bytes:
    counts = {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 1},
    }
    whole = {"id": "resp_1", "status": status, "output": [{"type": "message"}], "usage": counts, **more}
    data = {"type": f"response.{status}", "response": whole}
    return event(data, name=data["type"] if name else "")


CREATED = said("response.created", response={"id": "resp_1", "status": "in_progress", "usage": None})
ADDED = said("response.output_item.added", output_index=0, item={"type": "message", "id": "msg_1", "content": []})
PART = said("response.content_part.added", output_index=0, part={"type": "output_text", "text": ""})
TEXT_DONE = said("response.output_text.done", output_index=0, text="ab")
ITEM_DONE = said("response.output_item.done", output_index=0, item={"type": "message", "id": "msg_1"})
PLAIN = [CREATED, ADDED, PART, text("a"), text("b"), TEXT_DONE, ITEM_DONE, ended()]


def ask(rig: Rig, url: str, prompt: str | None = "hi", **more: Any) -> Answer:
    answer: Answer = rig.call(at(url, lambda user: user.respond(prompt, **more)))
    return answer


def test_a_prompt_is_the_input_and_the_cap_has_this_api_s_name(rig: Rig, wire: Wire) -> None:
    port = wire.serve(stream(PLAIN))
    record = ask(rig, port.url, "Why?", max_output_tokens=9, instructions="Be short.").record
    (request,) = port.requests()
    assert request.target == "/v1/responses"
    assert request.json() == {
        "model": "tiny",
        "input": "Why?",
        "stream": True,
        "max_output_tokens": 9,
        "instructions": "Be short.",
    }
    assert (record.requested_output_tokens, record.model, record.api) == (9, "tiny", "openai-responses")


def test_a_prompt_of_the_source_has_its_cap(rig: Rig, wire: Wire) -> None:
    port = wire.serve(stream(PLAIN))
    record = ask(rig, port.url, None).record
    body = port.requests()[0].json()
    assert body["max_output_tokens"] == record.requested_output_tokens
    assert isinstance(body["input"], str)
    assert record.prompt_index is not None


def test_input_is_sent_as_given_and_chat_s_parts_are_renamed(make_rig: MakeRig, rig: Rig, wire: Wire) -> None:
    port = wire.serve(stream(PLAIN))
    items = [{"type": "function_call_output", "call_id": "c", "output": "5"}, {"role": "user", "content": "so?"}]
    ask(rig, port.url, None, input=items)
    ask(rig, port.url, None, input="plain")

    turns: list[dict[str, Any]] = [
        {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
        {"role": "user", "content": [{"type": "text", "text": "what?"},
                                     {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
                                     {"type": "input_text", "text": "own"}]},
    ]  # fmt: skip

    def asking(user: Any) -> Any:
        user.make_prompt = lambda: Prompt(0, None, turns)
        try:
            return user.respond()
        finally:
            del user.make_prompt

    rig.call(at(port.url, asking))
    given, plain, renamed = (request.json()["input"] for request in port.requests())
    assert (given, plain) == (items, "plain")
    assert renamed[0]["content"] == [{"type": "output_text", "text": "yes"}]
    assert renamed[1]["content"] == [
        {"type": "input_text", "text": "what?"},
        {"type": "input_image", "image_url": "data:x", "detail": "low"},
        {"type": "input_text", "text": "own"},
    ]


@pytest.mark.alone
@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_answer_is_timed_as_the_server_sent_it(rig: Rig, wire: Wire, framing: str) -> None:
    port = wire.serve(stream(PLAIN, framing, gap_s=0.02))
    answer = ask(rig, port.url)
    record = answer.record
    (request,) = port.requests()
    first_ns, last_ns = request.sent_ns[4], request.sent_ns[5]  # after head, created, item and part
    assert record.error_code is None
    assert (answer.text, answer.finish_reason) == ("ab", "completed")
    assert record.ttft_s == pytest.approx((first_ns - request.received_ns) / NS, abs=0.005)
    assert record.last_token_s == pytest.approx((last_ns - request.received_ns) / NS, abs=0.005)
    assert record.end_to_end_latency_s == pytest.approx((request.sent_ns[8] - request.received_ns) / NS, abs=0.005)
    assert (record.chunks, record.output_tokens, record.output_tokens_source) == (2, 2, "usage")
    assert (record.input_tokens, record.cached_tokens, record.reasoning_tokens) == (7, 3, 1)
    assert (record.response_id, record.stamp_source, record.http_status) == ("resp_1", "kernel", 200)


STREAMS = {
    "no names of events": [part.partition(b"\n")[2] for part in PLAIN],
    "only what counts": [text("a"), text("b"), ended()],
    "carriage returns": [part.replace(b"\n", b"\r\n") for part in PLAIN],
    "keep-alives, comments, a foreign end": [b":\n\n", b"data:\n\n", *PLAIN[:-1], b": x\n\n", ended(), DONE],
    "events that nobody knows": [CREATED, said("response.new_thing", delta={"a": 1}), *PLAIN[1:]],
    "empty deltas": [CREATED, text(""), text("a"), text(""), text("b"), ended()],
    "incomplete": [text("a"), text("b"), ended("incomplete", incomplete_details={"reason": "max_output_tokens"})],
    "incomplete without a reason": [text("a"), text("b"), ended("incomplete")],
    "a refusal": [said("response.refusal.delta", delta="a"), said("response.refusal.delta", delta="b"), ended()],
}  # fmt: skip
REASONS = {"incomplete": "max_output_tokens", "incomplete without a reason": "incomplete"}


@pytest.mark.parametrize("name", STREAMS)
def test_every_dialect_gives_the_same_answer(rig: Rig, wire: Wire, name: str) -> None:
    answer = ask(rig, wire.serve(stream(STREAMS[name], gap_s=0.002)).url)
    assert (answer.record.error_code, answer.text, answer.record.chunks) == (None, "ab", 2)
    assert answer.finish_reason == REASONS.get(name, "completed")
    assert answer.record.output_tokens_source == "usage"


TRICKY = ["naïve ", "日本語 ", "👩‍👩‍👧 ", "tab\there", "line\nbreak"]


@pytest.mark.parametrize("framing", [CHUNKED, UNTIL_CLOSE])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_text_split_at_every_byte_is_whole_again(rig: Rig, wire: Wire, framing: str, end: bytes) -> None:
    parts = [CREATED, *map(text, TRICKY), ended(output=5)]
    body = b"".join(part.replace(b"\n", end) for part in parts)
    answer = ask(rig, wire.serve(split_everywhere(body, framing)).url)
    assert (answer.record.error_code, answer.text, answer.record.chunks) == (None, "".join(TRICKY), 5)


def test_a_character_in_two_halves_is_whole_again(rig: Rig, wire: Wire) -> None:
    halves = [
        event(b'{"type": "response.output_text.delta", "delta": "' + half + b'"}') for half in (b"\\ud83d", b"\\ude00")
    ]
    answer = ask(rig, wire.serve(stream([*halves, ended()], gap_s=0.005)).url)
    assert (answer.record.error_code, answer.text) == (None, "\N{GRINNING FACE}")


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["reasoning_summary_text", "reasoning_text"])
def test_reasoning_comes_before_the_answer(rig: Rig, wire: Wire, kind: str) -> None:
    thoughts = [said(f"response.{kind}.delta", delta=piece) for piece in ("hm ", "so")]
    answer = ask(rig, wire.serve(stream([CREATED, *thoughts, text("a"), text("b"), ended()], gap_s=0.01)).url)
    record = answer.record
    assert (answer.reasoning, answer.text, record.chunks) == ("hm so", "ab", 4)
    assert record.ttfat_s is not None
    assert record.ttft_s is not None
    assert record.ttfat_s - record.ttft_s == pytest.approx(0.02, abs=0.01)


def called(place: int, arguments: str = "", *, done: bool = False, name: str = "look") -> bytes:
    item = {
        "type": "function_call",
        "id": f"fc_{place}",
        "call_id": f"call_{place}",
        "name": name,
        "arguments": arguments,
    }
    return said(f"response.output_item.{'done' if done else 'added'}", output_index=place, item=item)


def arguments(place: int, piece: str) -> bytes:
    return said("response.function_call_arguments.delta", item_id=f"fc_{place}", output_index=place, delta=piece)


def test_tool_calls_are_assembled_whatever_their_order(rig: Rig, wire: Wire) -> None:
    parts = [
        CREATED,
        called(1),
        called(2, name="wait"),
        arguments(1, '{"at"'),
        arguments(2, "{}"),
        arguments(1, ': "sea"}'),
        called(1, '{"at": "sea"}', done=True),
        called(2, "{}", done=True, name="wait"),
        ended(output=3),
    ]
    answer = ask(rig, wire.serve(stream(parts, gap_s=0.003)).url)
    assert (answer.record.error_code, answer.record.chunks) == (None, 3)
    assert answer.tool_calls == [
        {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}},
        {"id": "call_2", "type": "function", "function": {"name": "wait", "arguments": "{}"}},
    ]


@pytest.mark.parametrize("begun", [True, False])
def test_a_tool_call_that_comes_whole_is_output_when_it_comes(rig: Rig, wire: Wire, begun: bool) -> None:
    parts = [CREATED, *([called(0)] if begun else []), called(0, '{"at": 1}', done=True), ended()]
    answer = ask(rig, wire.serve(stream(parts, gap_s=0.01)).url)
    assert (answer.record.error_code, answer.record.chunks) == (None, 1)
    assert [call["function"] for call in answer.tool_calls] == [{"name": "look", "arguments": '{"at": 1}'}]


def test_what_the_service_does_itself_is_no_tool_call(rig: Rig, wire: Wire) -> None:
    search = said("response.output_item.added", output_index=0, item={"type": "web_search_call", "id": "ws_1"})
    code = said("response.code_interpreter_call_code.delta", output_index=1, delta="1+1")
    answer = ask(rig, wire.serve(stream([CREATED, search, code, text("a"), ended()], gap_s=0.003)).url)
    assert (answer.tool_calls, answer.record.chunks, answer.record.error_code) == ([], 2, None)


@pytest.mark.parametrize(
    ("failure", "code", "words"),
    [
        (ended("failed", error={"code": "rate_limit_exceeded", "message": "slow down"}), "rate_limit_exceeded", "slow"),
        (ended("failed", error=None), "error", "without a reason"),
        (ended("cancelled"), "server_cancelled", "cancelled"),
        (said("response.failed", error={"code": "server_error", "message": "bare"}), "server_error", "bare"),
        (said("error", code="server_error", message="it broke", param=None), "server_error", "it broke"),
        (said("error", error={"type": "invalid_request_error", "message": "no"}), "invalid_request_error", "no"),
        (event(b"no json", name="error"), "error", "no json"),
        (event({"error": {"message": "out of memory", "code": 500}}), "500", "out of memory"),
        (event({"object": "error", "message": "old style", "code": 400}), "400", "old style"),
        (event({"detail": "detailed"}), "error", "detailed"),
    ],
)
def test_an_error_inside_the_stream_is_the_server_s(
    rig: Rig, wire: Wire, failure: bytes, code: str, words: str
) -> None:
    answer = ask(rig, wire.serve(stream([CREATED, text("a"), failure], gap_s=0.005)).url)
    record = answer.record
    assert (record.error_code, answer.text, record.chunks, record.http_status) == (code, "a", 1, 200)
    assert "inside the stream" in (record.error_message or "")
    assert words in (record.error_message or "")
    assert record.ttft_s is not None


@pytest.mark.parametrize("bad", [b'{"type": [', b"not json", b"[1, 2]", b"12", b'{"type": 5}', b'{"response": 3}'])
def test_what_is_no_event_is_malformed(rig: Rig, wire: Wire, bad: bytes) -> None:
    answer = ask(rig, wire.serve(stream([CREATED, text("a"), event(bad), ended()], gap_s=0.005)).url)
    assert (answer.record.error_code, answer.text) == ("malformed", "a")


@pytest.mark.parametrize("ending", [CLOSE, RESET])
@pytest.mark.parametrize("after", [text("b"), TEXT_DONE, ITEM_DONE])
def test_a_stream_without_its_end_is_truncated(rig: Rig, wire: Wire, after: bytes, ending: list[str]) -> None:
    clean = wire.serve(stream([CREATED, text("a"), after], gap_s=0.005))
    broken = wire.serve(
        [send(head(CHUNKED) + chunk(CREATED + text("a"))), pause(0.01), send(chunk(after)), pause(0.01), ending]
    )
    for port in (clean, broken):
        answer = ask(rig, port.url)
        assert answer.record.error_code in ("truncated", "reset")
        assert (answer.text[:1], answer.record.output_tokens_source) == ("a", "tokenizer")
    assert "response.completed" in (ask(rig, clean.url).record.error_message or "")


@pytest.mark.parametrize(
    ("status", "message"), [("429 Too Many Requests", "slow down"), ("401 Unauthorized", "no key")]
)
def test_a_refusal_has_its_status(rig: Rig, wire: Wire, status: str, message: str) -> None:
    port = wire.serve(reply(status, {"error": {"message": message}}, more="x-request-id: req_7\r\n"))
    record = ask(rig, port.url).record
    assert (record.error_code, record.http_status, record.response_id) == (status[:3], int(status[:3]), "req_7")
    assert message in (record.error_message or "")


def test_an_empty_response_and_one_without_usage(rig: Rig, wire: Wire) -> None:
    assert ask(rig, wire.serve(stream([CREATED, ended(output=0)])).url).record.error_code == "empty"
    port = wire.serve(stream([CREATED, text("two words"), ended(usage=None)], gap_s=0.005))
    rig.notes.clear()
    record = ask(rig, port.url).record
    assert (record.error_code, record.output_tokens, record.output_tokens_source) == (None, 2, "tokenizer")
    ask(rig, port.url)
    assert len([note for note in rig.notes if "sends no usage" in note]) <= 1


def test_a_json_body_instead_of_a_stream_is_buffered(rig: Rig, wire: Wire) -> None:
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {
            "type": "message",
            "content": [{"type": "output_text", "text": "All "}, {"type": "output_text", "text": "at once"}],
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ]
    body = {"id": "resp_9", "object": "response", "status": "completed", "output": output,
            "usage": {"input_tokens": 5, "output_tokens": 3}}  # fmt: skip
    answer = ask(rig, wire.serve(reply("200 OK", body)).url)
    record = answer.record
    assert (answer.text, answer.reasoning, len(answer.tool_calls)) == ("All at once", "hm", 1)
    assert (record.error_code, record.ttft_s, record.output_tokens, record.response_id) == (
        "buffered",
        None,
        3,
        "resp_9",
    )
    failed = {"status": "failed", "output": [], "error": {"code": "server_error", "message": "no"}}
    assert ask(rig, wire.serve(reply("200 OK", failed)).url).record.error_code == "server_error"
    assert ask(rig, wire.serve(reply("200 OK", {"id": 5})).url).record.error_code == "truncated"


def test_the_sdk_s_transport_gives_the_same_answer(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(llm_transport="sdk")
    port = wire.serve(stream(PLAIN, gap_s=0.02))
    for _ in range(2):
        answer = ask(rig, port.url)
        assert (answer.text, answer.finish_reason, answer.record.error_code) == ("ab", "completed", None)
        assert (answer.record.output_tokens, answer.record.stamp_source) == (2, "user")
    assert port.connections == 1
    refused = wire.serve(reply("503 Service Unavailable", json.dumps({"error": "busy"})))
    assert ask(rig, refused.url).record.error_code == "503"


# Calls of tools.


def built_in(kind: str) -> list[bytes]:
    """The service does something by itself."""
    item = {"type": kind, "id": "ws_1", "status": "in_progress"}
    return [
        said("response.output_item.added", output_index=0, item=item),
        said(f"response.{kind}.in_progress", output_index=0, item_id="ws_1"),
        said("response.output_item.done", output_index=0, item={**item, "status": "completed"}),
    ]


@pytest.mark.parametrize("kind", ["web_search_call", "file_search_call", "image_generation_call", "computer_call"])
def test_an_answer_of_a_built_in_call_alone_is_not_empty(rig: Rig, wire: Wire, kind: str) -> None:
    answer = ask(rig, wire.serve(stream([CREATED, *built_in(kind), ended()])).url)
    record = answer.record
    assert (record.error_code, record.chunks, record.output_tokens, answer.tool_calls) == (None, 0, 2, [])
    whole = {"id": "r", "status": "completed", "output": [{"type": kind, "id": "ws_1"}], "usage": {"output_tokens": 2}}
    assert ask(rig, wire.serve(reply("200 OK", whole)).url).record.error_code == "buffered"
    empty = said("response.output_item.done", output_index=0, item={"type": "message", "content": []})
    assert ask(rig, wire.serve(stream([CREATED, empty, ended()])).url).record.error_code == "empty"


@pytest.mark.parametrize("arguments", ['{"at": "sea"}', {"at": "sea"}])
def test_a_call_is_not_in_the_text(rig: Rig, wire: Wire, arguments: Any) -> None:
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": ""}
    parts = [
        CREATED,
        text("So"),
        said("response.output_item.added", output_index=1, item=item),
        said("response.output_item.done", output_index=1, item={**item, "arguments": arguments}),
        ended(),
    ]
    made = [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}}]
    answer = ask(rig, wire.serve(stream(parts)).url)
    assert (answer.text, answer.tool_calls, answer.record.chunks) == ("So", made, 2)
    output = [{"type": "message", "content": [{"text": "So"}]}, {**item, "arguments": arguments}]
    whole = {"id": "r", "status": "completed", "output": output}
    answer = ask(rig, wire.serve(reply("200 OK", whole)).url)
    assert (answer.text, answer.tool_calls) == ("So", made)
