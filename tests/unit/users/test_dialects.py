"""What servers do differently, in small hand-written streams; each must come out the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.project import ROOT
from tests.stream_bytes import (
    CHUNKED,
    DONE,
    FRAMINGS,
    UNTIL_CLOSE,
    chat_events,
    delta,
    event,
    head,
    reply,
    split_everywhere,
    stream,
    usage,
)
from tests.unit.users.rig import Rig
from tests.wire_server import CLOSE, Wire, pause, send

RECORDED = ROOT.parent / "shared" / "real" / "raw_sse"


def finish_with_usage(output: int) -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": "length"}
    return event({"id": "x", "choices": [choice], "usage": {"completion_tokens": output, "prompt_tokens": 7}})


def message(content: str, finish: str | None = None, **more: Any) -> bytes:
    """An event with a message in the place of the delta."""
    said = {"role": "assistant", "content": content, **more}
    return event({"id": "x", "choices": [{"index": 0, "message": said, "finish_reason": finish}]})


def renumbered(part: bytes, index: int) -> bytes:
    return part.replace(b'"index": 0', b'"index": %d' % index)


A, B = delta(content="a"), delta(content="b")
ROLE = delta(role="assistant", content="")
EMPTY_CHOICES = event({"id": "x", "choices": [], "prompt_filter_results": []})
END = [delta("stop"), usage(2), DONE]

NO_REASON = (b'"finish_reason": null', b'"finish_reason": ""')
STREAMS: dict[str, list[bytes]] = {
    "plain": [ROLE, A, B, *END],
    "no role": [A, B, *END],
    "role with null content": [delta(role="assistant", content=None), A, B, *END],
    "role without content": [delta(role="assistant"), A, B, *END],
    "role with the first text": [delta(role="assistant", content="a"), B, *END],
    "no done": [ROLE, A, B, delta("stop"), usage(2)],
    "usage in the finish chunk, no done": [delta(role="assistant"), A, B, finish_with_usage(2)],
    "finish with the last text": [ROLE, A, delta("stop", content="b"), usage(2), DONE],
    "comments": [b":\n\n", ROLE, b": keep-alive\n\n", A, b":\n", B, *END],
    "empty data as keep-alive": [ROLE, b"data:\n\n", A, b"data: \n\n", B, *END],
    "choices empty first": [EMPTY_CHOICES, ROLE, A, B, *END],
    "choices null": [event({"id": "x", "choices": None}), A, B, *END],
    "usage in every chunk": [A.replace(b"}\n", b', "usage": {"completion_tokens": 1, "prompt_tokens": 7}}\n'), B, *END],
    "usage null in every chunk": [part.replace(b"}\n", b', "usage": null}\n') for part in (ROLE, A, B)] + END,
    "usage before the finish": [ROLE, A, B, usage(2), delta("stop"), DONE],
    "usage with floats": [
        A,
        B,
        delta("stop"),
        event({"choices": [], "usage": {"completion_tokens": 2.0, "prompt_tokens": 7.0}}),
        DONE,
    ],
    "carriage returns and newlines": [part.replace(b"\n", b"\r\n") for part in (ROLE, A, B, *END)],
    "carriage returns": [part.replace(b"\n", b"\r") for part in (ROLE, A, B, *END)],
    "byte order mark": [b"\xef\xbb\xbf" + ROLE, A, B, *END],
    "named events": [b"event: message\n" + part for part in (ROLE, A, B, *END)],
    "identifiers and retry": [b"retry: 10\nid: 5\n" + part for part in (ROLE, A, B, *END)],
    "no space after the colon": [part.replace(b"data: ", b"data:") for part in (ROLE, A, B, *END)],
    "done with white space": [ROLE, A, B, delta("stop"), usage(2), b"data:  [DONE] \n\n"],
    "done in quotes": [ROLE, A, B, delta("stop"), usage(2), event(b'"[DONE]"')],
    "done without a field name": [ROLE, A, B, delta("stop"), usage(2), b"[DONE]\n\n"],
    "named heartbeats": [ROLE, A, event(b"ping", name="heartbeat") + event({"type": "ping"}, name="ping") + B, *END],
    "words as keep-alive": [event(b"ping"), ROLE, A, event(b"heartbeat") + event(b"keep-alive") + B, *END],
    "null as keep-alive": [event(b"null"), ROLE, A, event(b"null") + B, *END],
    "the field's name twice": [event(part.rstrip()) for part in (ROLE, A, B, *END)],
    "white space before the first event": [b"\n \r\n" + ROLE, A, B, *END],
    "message in the place of delta": [message("a"), message("b", "stop"), usage(2), DONE],
    "delta null and a message": [
        part.replace(b'"message"', b'"delta": null, "message"') for part in (message("a"), message("b", "stop"))
    ]
    + [usage(2), DONE],
    "the whole message at the end again": [ROLE, A, B, message("ab", "stop"), usage(2), DONE],
    "text beside an empty delta": [
        event({"choices": [{"index": 0, "text": text, "delta": fields, "finish_reason": None}]})
        for text, fields in (("a", {}), ("b", {"role": "assistant", "content": ""}))
    ]
    + END,
    "text and delta alike": [event({"choices": [{"text": "a", "delta": {"content": "a"}}]}), B, *END],
    "the only choice with index 1": [*(renumbered(part, 1) for part in (ROLE, A, B, delta("stop"))), usage(2), DONE],
    "the only choice with index 1, no done": [*(renumbered(part, 1) for part in (A, B, delta("stop"))), usage(2)],
    "several lines of data": [ROLE, A.replace(b', "object"', b',\ndata: "object"'), B, *END],
    "no blank line at the end": [ROLE, A, B, delta("stop"), usage(2), DONE.rstrip()],
    "identifier as a number": [A.replace(b'"chat-1"', b"17"), B, *END],
    "finish reason as a number": [ROLE, A, B, event({"choices": [{"delta": {}, "finish_reason": 1}]}), usage(2), DONE],
    "finish reason empty until the end": [part.replace(*NO_REASON) for part in (ROLE, A, B)] + END,
    "index null": [part.replace(b'"index": 0', b'"index": null') for part in (ROLE, A, B)] + END,
    "delta null at the end": [
        A,
        B,
        event({"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}),
        usage(2),
        DONE,
    ],
    "error null": [A.replace(b"}\n", b', "error": null}\n'), B, *END],
    "content as a list of parts": [delta(content=[{"type": "text", "text": "a"}]), B, *END],
    "content as a list with thinking": [
        delta(content=[{"type": "thinking", "thinking": []}, {"type": "text", "text": "a"}]),
        B,
        *END,
    ],
}


@pytest.mark.alone
@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize("name", STREAMS)
def test_every_dialect_gives_the_same_answer(rig: Rig, wire: Wire, name: str, framing: str) -> None:
    answer = rig.ask(wire.serve(stream(STREAMS[name], framing, gap_s=0.01)).url)
    record = answer.record
    assert record.error_code is None
    assert (answer.text, record.chunks) == ("ab", 2)
    assert (record.output_tokens, record.output_tokens_source, record.input_tokens) == (2, "usage", 7)
    assert answer.finish_reason in ("stop", "length", "1")
    assert record.ttft_s == record.ttfat_s
    if not record.first_coalesced:  # chunks that a busy machine read together have no time per token
        assert record.tpot_s == pytest.approx(0.01, abs=0.02)
        assert record.tpot_s > 0


@pytest.mark.parametrize("kind", ["application/json", "text/html", "text/plain", "application/octet-stream"])
def test_a_stream_is_one_whatever_its_content_type(rig: Rig, wire: Wire, kind: str) -> None:
    script = stream([b": first\n\n", ROLE, A, B, *END], gap_s=0.01)
    first = send(head(CHUNKED, kind=kind))
    answer = rig.ask(wire.serve([first, *script[1:]]).url)
    record = answer.record
    assert (record.error_code, answer.text, record.chunks, record.output_tokens) == (None, "ab", 2, 2)
    assert record.ttft_s is not None


@pytest.mark.parametrize("kind", ["text/event-stream", "text/html"])
def test_json_is_an_unstreamed_answer_whatever_its_content_type(rig: Rig, wire: Wire, kind: str) -> None:
    body = {"id": "w", "choices": [{"message": {"content": "ab"}, "finish_reason": "stop"}]}
    data = json.dumps(body, indent=2).encode()
    answer = rig.ask(wire.serve(reply("200 OK", data, kind=kind)).url)
    assert (answer.text, answer.record.error_code, answer.record.ttft_s) == ("ab", "buffered", None)


def test_a_whole_completion_in_one_event_is_an_answer_of_one_chunk(rig: Rig, wire: Wire) -> None:
    whole = message("all at once", "stop").replace(b"\n", b"").replace(b"data: ", b"")
    answer = rig.ask(wire.serve(stream([event(whole), usage(3), DONE], gap_s=0.01)).url)
    record = answer.record
    assert (record.error_code, answer.text, record.chunks, record.output_tokens) == (None, "all at once", 1, 3)
    assert (answer.finish_reason, record.tpot_s) == ("stop", None)
    assert record.ttft_s is not None


def test_the_first_id_that_is_one_is_the_answer_s(rig: Rig, wire: Wire) -> None:
    filtered = event({"id": "", "object": "", "model": "", "choices": [], "prompt_filter_results": []})  # Azure
    offsets = event({"id": "", "choices": [{"index": 0, "finish_reason": None, "content_filter_offsets": {}}]})
    record = rig.ask(wire.serve(stream([filtered, ROLE, A, delta("stop"), offsets, usage(1), DONE])).url).record
    assert (record.error_code, record.response_id) == (None, "chat-1")


@pytest.mark.parametrize(
    ("audio", "text"),
    [
        ({"id": "au", "transcript": "hi"}, "hihi"),
        ({"id": "au", "data": "AAAA"}, ""),
        ({"data": "A", "transcript": "hi"}, "hihi"),
    ],
)
def test_audio_is_output(rig: Rig, wire: Wire, audio: dict[str, str], text: str) -> None:
    parts = [delta(role="assistant", content=None), delta(content=None, audio={"id": "au"})]  # no output yet
    parts += [delta(content=None, audio=audio)] * 2 + [delta(content=None, audio={"expires_at": 5}), delta("stop")]
    answer = rig.ask(wire.serve(stream([*parts, usage(60), DONE], gap_s=0.01)).url)
    record = answer.record
    assert (record.error_code, answer.text, record.chunks, record.output_tokens) == (None, text, 2, 60)
    assert record.ttfat_s == record.ttft_s
    whole = {"choices": [{"message": {"content": None, "audio": audio}, "finish_reason": "stop"}]}
    answer = rig.ask(wire.serve(reply("200 OK", whole)).url)
    assert (answer.record.error_code, answer.text) == ("buffered", text[:2])


@pytest.mark.parametrize("framing", FRAMINGS)
def test_streams_of_real_servers_replayed(rig: Rig, wire: Wire, framing: str) -> None:
    files = sorted(RECORDED.glob("*.sse"))
    if not files:
        pytest.skip("no recorded streams beside the checkout")
    for file in files:
        events = [part + b"\n\n" for part in file.read_bytes().split(b"\n\n") if part.strip()]
        said = [json.loads(part[6:]) for part in events if part.startswith(b"data: {")]
        texts = [c["delta"].get("content") for e in said for c in e["choices"] if c["delta"].get("content")]
        counted = next(e["usage"] for e in said if e.get("usage"))
        answer = rig.ask(wire.serve(stream(events, framing, gap_s=0.001)).url)
        record = answer.record
        assert record.error_code is None
        assert (answer.text, record.chunks) == ("".join(texts), len(texts))
        assert (record.output_tokens, record.input_tokens) == (counted["completion_tokens"], counted["prompt_tokens"])
        assert record.output_tokens_source == "usage"


@pytest.mark.alone
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "reasoning_text", "thinking"])
def test_reasoning_under_any_name_comes_before_the_answer(rig: Rig, wire: Wire, name: str) -> None:
    parts = [ROLE, delta(**{name: "hm "}), delta(content=None, **{name: "so"}), A, B, *END]
    answer = rig.ask(wire.serve(stream(parts, gap_s=0.01)).url)
    record = answer.record
    assert (answer.reasoning, answer.text, record.chunks) == ("hm so", "ab", 4)
    assert record.ttft_s is not None
    assert record.ttfat_s is not None
    assert record.ttfat_s - record.ttft_s == pytest.approx(0.02, abs=0.01)


def test_an_answer_of_reasoning_alone_is_not_empty(rig: Rig, wire: Wire) -> None:
    record = rig.ask(wire.serve(stream([delta(reasoning="hm"), delta("length"), usage(1), DONE])).url).record
    assert (record.error_code, record.chunks, record.ttfat_s) == (None, 1, None)


def test_reasoning_and_answer_in_one_chunk_are_both_kept(rig: Rig, wire: Wire) -> None:
    answer = rig.ask(wire.serve(stream([delta(reasoning="hm", content="a"), B, *END])).url)
    assert (answer.reasoning, answer.text) == ("hm", "ab")


def test_thinking_parts_are_reasoning(rig: Rig, wire: Wire) -> None:
    thought = delta(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}])
    answer = rig.ask(wire.serve(stream([thought, A, B, *END], gap_s=0.005)).url)
    assert (answer.reasoning, answer.text) == ("hm", "ab")
    assert answer.record.ttfat_s > answer.record.ttft_s  # type: ignore[operator]


def call(index: int, **function: str) -> dict[str, Any]:
    return {"index": index, "id": f"call-{index}" if "name" in function else None, "function": function}


def test_tool_calls_are_chunks_and_are_assembled(rig: Rig, wire: Wire) -> None:
    parts = [
        delta(role="assistant", content=None, tool_calls=[call(0, name="look", arguments="")]),
        delta(tool_calls=[call(0, arguments='{"at"')]),
        delta(tool_calls=[call(0, arguments=': "sea"}')]),
        delta(tool_calls=[call(1, name="wait", arguments="{}")]),
        delta("tool_calls"),
        usage(4),
        DONE,
    ]
    answer = rig.ask(wire.serve(stream(parts, gap_s=0.003)).url)
    assert (answer.record.error_code, answer.record.chunks, answer.finish_reason) == (None, 4, "tool_calls")
    functions = [tool["function"] for tool in answer.tool_calls]
    assert functions == [{"name": "look", "arguments": '{"at": "sea"}'}, {"name": "wait", "arguments": "{}"}]
    assert [tool["id"] for tool in answer.tool_calls] == ["call-0", "call-1"]


def test_a_tool_call_beside_text_is_kept(rig: Rig, wire: Wire) -> None:
    answer = rig.ask(wire.serve(stream([delta(content="a", tool_calls=[call(0, name="f", arguments="")]), *END])).url)
    assert (answer.text, answer.record.chunks) == ("a", 1)
    assert [tool["function"]["name"] for tool in answer.tool_calls] == ["f"]


def fragment(index: Any = None, identifier: Any = None, **function: Any) -> dict[str, Any]:
    """A fragment of a tool call; without what is None."""
    said = {"index": index, "id": identifier, "type": "function", "function": function}
    return {name: value for name, value in said.items() if value is not None}


def pieces(*fragments: dict[str, Any]) -> list[bytes]:
    return [delta(tool_calls=[one]) for one in fragments]


TWO_CALLS = [("look", '{"at": "sea"}'), ("wait", '{"s": 1}')]
FRAGMENTS: dict[str, tuple[list[bytes], list[tuple[str, str]]]] = {
    "two ids under one index (Gemini)": (
        pieces(
            fragment(0, "c1", name="look", arguments='{"at": "sea"}'),
            fragment(0, "c2", name="wait", arguments='{"s": 1}'),
        ),
        TWO_CALLS,
    ),
    "two ids under one index, in pieces": (
        pieces(
            fragment(0, "c1", name="look"),
            fragment(0, arguments='{"at": '),
            fragment(0, arguments='"sea"}'),
            fragment(0, "c2", name="wait"),
            fragment(0, arguments='{"s": '),
            fragment(0, arguments="1}"),
        ),
        TWO_CALLS,
    ),
    "two ids under one index, alternating": (
        pieces(
            fragment(0, "c1", name="look"),
            fragment(0, "c2", name="wait"),
            fragment(0, "c1", arguments='{"at": "sea"}'),
            fragment(0, "c2", arguments='{"s": 1}'),
        ),
        TWO_CALLS,
    ),
    "both in one event": (
        [
            delta(
                tool_calls=[
                    fragment(0, "c1", name="look", arguments='{"at": "sea"}'),
                    fragment(0, "c2", name="wait", arguments='{"s": 1}'),
                ]
            )
        ],
        TWO_CALLS,
    ),
    "indexes from 1": (
        pieces(
            fragment(1, "c1", name="look", arguments=""),
            fragment(1, arguments='{"at": '),
            fragment(1, arguments='"sea"}'),
            fragment(2, "c2", name="wait", arguments=""),
            fragment(2, arguments='{"s": 1}'),
        ),
        TWO_CALLS,
    ),
    "no indexes": (
        pieces(
            fragment(None, "c1", name="look", arguments='{"at": '),
            fragment(arguments='"sea"}'),
            fragment(None, "c2", name="wait", arguments='{"s": 1}'),
        ),
        TWO_CALLS,
    ),
    "no ids": (
        pieces(
            fragment(0, name="look", arguments='{"at": "sea"}'),
            fragment(0, name="wait", arguments='{"s": 1}'),
        ),
        TWO_CALLS,
    ),
    "an id for each fragment (older vLLM)": (
        pieces(
            fragment(0, "r1", name="look"),
            fragment(0, "r2", arguments='{"at": '),
            fragment(0, "r3", arguments='"sea"}'),
        ),
        TWO_CALLS[:1],
    ),
    "id and name in each fragment": (
        pieces(fragment(0, "c1", name="look", arguments='{"at": '), fragment(0, "c1", name="look", arguments='"sea"}')),
        TWO_CALLS[:1],
    ),
    "a name in pieces": (
        pieces(fragment(0, "c1", name="lo"), fragment(0, name="ok", arguments='{"at": "sea"}')),
        TWO_CALLS[:1],
    ),
    "arguments as an object": (pieces(fragment(0, "c1", name="look", arguments={"at": "sea"})), TWO_CALLS[:1]),
    "a custom tool": (
        [
            delta(
                tool_calls=[
                    {"index": 0, "id": "c1", "type": "custom", "custom": {"name": "look", "input": '{"at": "sea"}'}}
                ]
            )
        ],
        TWO_CALLS[:1],
    ),
    "the older function_call": (
        [
            delta(function_call={"name": "look", "arguments": ""}),
            delta(function_call={"arguments": '{"at": '}),
            delta(function_call={"arguments": '"sea"}'}),
        ],
        TWO_CALLS[:1],
    ),
}


@pytest.mark.parametrize("name", FRAGMENTS)
def test_fragments_become_the_calls_that_the_server_meant(rig: Rig, wire: Wire, name: str) -> None:
    parts, calls = FRAGMENTS[name]
    answer = rig.ask(wire.serve(stream([*parts, delta("tool_calls"), usage(9), DONE])).url)
    made = [(tool["function"]["name"], tool["function"]["arguments"]) for tool in answer.tool_calls]
    assert (made, answer.text, answer.record.error_code) == (calls, "", None)
    assert answer.record.chunks == len(parts)


def test_a_whole_answer_s_calls_are_not_in_its_text(rig: Rig, wire: Wire) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": {"at": "sea"}}}]
    body = {"choices": [{"message": {"content": "So", "tool_calls": calls}, "finish_reason": "tool_calls"}]}
    answer = rig.ask(wire.serve(reply("200 OK", body)).url)
    assert (answer.text, answer.choices) == ("So", ["So"])
    assert answer.tool_calls[0]["function"] == {"name": "look", "arguments": '{"at": "sea"}'}


def test_without_usage_the_tokens_of_tool_calls_are_counted_here(rig: Rig, wire: Wire) -> None:
    parts = [delta(content="So "), *pieces(fragment(0, "c", name="look", arguments="one two"))]
    answer = rig.ask(wire.serve(stream([*parts, delta("tool_calls"), DONE], gap_s=0.005)).url)
    count = rig.call(lambda user: user.run_context.tokenizer.count)
    assert (answer.text, answer.record.output_tokens) == ("So ", count("So lookone two"))


@pytest.mark.parametrize("fields", [{"refusal": "No."}, {"function_call": {"name": "f", "arguments": "{}"}}])
def test_refusals_and_function_calls_are_output(rig: Rig, wire: Wire, fields: dict[str, Any]) -> None:
    answer = rig.ask(wire.serve(stream([ROLE, delta(**fields), delta("stop"), usage(1), DONE])).url)
    assert (answer.record.error_code, answer.record.chunks) == (None, 1)
    assert answer.text == fields.get("refusal", "")


TRICKY = ["naïve ", "日本語 ", "👩‍👩‍👧 ", "\u2028", "tab\there"]


@pytest.mark.parametrize("framing", [CHUNKED, UNTIL_CLOSE])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_text_split_at_every_byte_is_whole_again(rig: Rig, wire: Wire, framing: str, end: bytes) -> None:
    body = b"".join(part.replace(b"\n", end) for part in chat_events(*TRICKY))
    answer = rig.ask(wire.serve(split_everywhere(body, framing)).url)
    assert (answer.record.error_code, answer.text) == (None, "".join(TRICKY))
    assert answer.record.chunks == len(TRICKY)


def test_a_first_token_long_after_the_role_is_the_first_token(rig: Rig, wire: Wire) -> None:
    port = wire.serve([send(head(UNTIL_CLOSE) + ROLE), pause(0.1), send(A), send(B + b"".join(END)), CLOSE])
    record = rig.ask(port.url).record
    assert record.ttft_s is not None
    assert record.ttft_s > 0.09


# Usage: there, absent, refused.


def test_without_usage_the_tokenizer_counts_and_says_so_once(rig: Rig, wire: Wire) -> None:
    parts = [ROLE, delta(content="two words"), delta(content=" more"), delta("stop"), DONE]
    port = wire.serve(stream(parts, gap_s=0.01))  # chunks of one moment have no time per token
    rig.notes.clear()
    for _ in range(2):
        record = rig.ask(port.url, "three words here").record
        assert (record.output_tokens, record.output_tokens_source) == (3, "tokenizer")
        assert (record.input_tokens, record.input_tokens_source) == (3, "tokenizer")
        assert record.tpot_s is not None
    assert len([note for note in rig.notes if "sends no usage" in note]) <= 1


def test_details_of_usage_are_kept(rig: Rig, wire: Wire) -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 1}}
    record = rig.ask(wire.serve(stream([A, B, delta("stop"), usage(2, **details), DONE])).url).record
    assert (record.cached_tokens, record.reasoning_tokens) == (3, 1)


@pytest.mark.parametrize("counts", [{}, {"completion_tokens": None}, {"completion_tokens": 0}, [1], "2"])
def test_useless_usage_is_not_believed(rig: Rig, wire: Wire, counts: Any) -> None:
    parts = [A, B, delta("stop"), event({"choices": [], "usage": counts}), DONE]
    record = rig.ask(wire.serve(stream(parts)).url).record
    assert (record.error_code, record.output_tokens, record.output_tokens_source) == (None, 1, "tokenizer")


REFUSALS = {
    "named": ("400 Bad Request", {"error": {"message": "Unrecognized request argument: stream_options"}}),
    "validation list": (
        "422 Unprocessable Entity",
        {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]},
    ),
    "unnamed": ("400 Bad Request", {"error": "unknown field"}),
    "unnamed and empty": ("422 Unprocessable Entity", ""),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_of_usage_is_survived_once_per_endpoint(rig: Rig, wire: Wire, name: str) -> None:
    status, body = REFUSALS[name]
    port = wire.serve(reply(status, body), stream([A, B, delta("stop"), DONE], gap_s=0.005))
    for _ in range(3):
        record = rig.ask(port.url).record
        assert (record.error_code, record.output_tokens_source) == (None, "tokenizer")
        assert record.ttft_s is not None
        assert record.ttft_s < 0.05
    asked = ["stream_options" in request.json() for request in port.requests()]
    assert asked == [True, False, False, False]
    assert any("refuses stream_options" in note for note in rig.notes)


def test_users_that_start_together_all_survive_a_refusal_that_does_not_name_the_field(
    make_rig: Callable[..., Rig], wire: Wire
) -> None:
    rig = make_rig(users=8)
    refusals = [[pause(0.05), *reply("400 Bad Request", {"error": "unknown field"})]] * 8
    port = wire.serve(*refusals, stream([A, B, delta("stop"), DONE]))
    waiting = [rig.send(lambda user: _ask_at(user, port.url)) for _ in range(8)]
    records = [result.get(timeout=10).record for result in waiting]
    assert [record.error_code for record in records] == [None] * 8
    assert rig.ask(port.url).record.error_code is None
    assert "stream_options" not in port.requests()[-1].json()


def _ask_at(user: Any, url: str) -> Any:
    user.host = url
    return user.chat("hi")


def test_another_bad_request_is_reported_as_the_server_said_it(rig: Rig, wire: Wire) -> None:
    too_long = reply("400 Bad Request", {"error": {"message": "maximum context length is 10 tokens"}})
    port = wire.serve(too_long, too_long, too_long, stream(chat_events("a")))
    first, second, third = (rig.ask(port.url).record for _ in range(3))
    assert (first.error_code, first.error_message) == ("400", "maximum context length is 10 tokens")
    assert second.error_code == "400"
    assert third.error_code is None
    assert len(port.requests()) == 4  # the first was tried without the field as well, the second was not
    assert "stream_options" in port.requests()[-1].json()
