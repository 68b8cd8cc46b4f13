"""What a call returns and what its row says, against what the server sent and when."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llm_users.simulator.launch import launch
from tests.stream_bytes import (
    CHUNKED,
    DONE,
    FRAMINGS,
    UNTIL_CLOSE,
    at_once,
    chat_events,
    delta,
    event,
    framed,
    reply,
    stream,
    usage,
)
from tests.unit.users.rig import Rig, at
from tests.wire_server import CLOSE, HOLD, Wire, pause, send

NS = 1_000_000_000
NEAR_S = 0.005


@pytest.mark.alone
@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_answer_is_timed_as_the_server_sent_it(rig: Rig, wire: Wire, framing: str) -> None:
    port = wire.serve(stream(chat_events("Hel", "lo", " wor", "ld"), framing, gap_s=0.02))
    answer = rig.ask(port.url)
    record = answer.record
    assert (answer.text, answer.finish_reason) == ("Hello world", "stop")
    assert record.error_code is None
    (request,) = port.requests()
    tokens_ns = request.sent_ns[2:6]  # after the head and the role
    received_ns = request.received_ns
    assert record.ttft_s == pytest.approx((tokens_ns[0] - received_ns) / NS, abs=NEAR_S)
    assert record.ttfat_s == record.ttft_s
    assert record.last_token_s == pytest.approx((tokens_ns[-1] - received_ns) / NS, abs=NEAR_S)
    assert record.tpot_s == pytest.approx((tokens_ns[-1] - tokens_ns[0]) / NS / 3, abs=0.002)
    assert record.gap_max_s == pytest.approx(0.02, abs=0.01)
    assert record.end_to_end_latency_s == pytest.approx((request.sent_ns[8] - received_ns) / NS, abs=NEAR_S)
    assert record.request_output_throughput_token_per_s == pytest.approx(4 / record.end_to_end_latency_s)
    assert (record.chunks, record.coalesced, record.output_tokens, record.output_tokens_source) == (4, 0, 4, "usage")
    assert (record.input_tokens, record.input_tokens_source, record.stamp_source) == (7, "usage", "kernel")
    assert (record.http_status, record.response_id, record.api) == (200, "chat-1", "openai-chat")
    assert record.queue_s is not None
    assert record.reads == 9 + (framing == CHUNKED)  # the last chunk comes after [DONE]


def test_several_chunks_in_one_read_are_counted_as_coalesced(rig: Rig, wire: Wire) -> None:
    record = rig.ask(wire.serve(at_once(chat_events("a", "b", "c"))).url).record
    assert (record.error_code, record.chunks, record.coalesced, record.reads) == (None, 3, 2, 1)
    assert record.first_coalesced == 2


def test_only_what_comes_with_the_first_chunk_makes_its_stamp_late(rig: Rig, wire: Wire) -> None:
    head, role, first, *rest = framed(chat_events("a", "b", "c"))
    port = wire.serve([send(head + role + first), pause(0.03), send(b"".join(rest))])
    record = rig.ask(port.url).record
    assert (record.chunks, record.coalesced, record.first_coalesced) == (3, 1, 0)


def test_a_one_token_answer_has_no_tpot(rig: Rig, wire: Wire) -> None:
    record = rig.ask(wire.serve(stream(chat_events("Yes"), gap_s=0.01)).url).record
    assert (record.error_code, record.output_tokens, record.chunks) == (None, 1, 1)
    assert record.ttft_s is not None
    assert record.end_to_end_latency_s is not None
    assert record.tpot_s is None


@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_answer_without_output_is_an_error_named_empty(rig: Rig, wire: Wire, framing: str) -> None:
    parts = [delta(role="assistant", content=""), delta("stop"), usage(0), DONE]
    record = rig.ask(wire.serve(stream(parts, framing, gap_s=0.005)).url).record
    assert (record.error_code, record.ttft_s, record.output_tokens) == ("empty", None, 0)
    assert record.end_to_end_latency_s is not None


@pytest.mark.alone
def test_a_first_token_that_shares_the_read_with_the_headers_is_stamped(rig: Rig, wire: Wire) -> None:
    writes = framed(chat_events("a", "b"))
    script = [pause(0.03), send(b"".join(writes[:3])), pause(0.03), send(b"".join(writes[3:]))]
    port = wire.serve(script)
    record = rig.ask(port.url).record
    (request,) = port.requests()
    assert record.ttft_s == pytest.approx((request.sent_ns[0] - request.received_ns) / NS, abs=NEAR_S)
    assert record.stamp_source == "kernel"


def test_an_event_that_ends_in_a_later_read_has_that_read_s_stamp(rig: Rig, wire: Wire) -> None:
    whole = b"".join(framed(chat_events("a", "b")))
    cut = whole.index(b'"content": "a"') + 4
    port = wire.serve([send(whole[:cut]), pause(0.04), send(whole[cut:])])
    record = rig.ask(port.url).record
    (request,) = port.requests()
    assert record.ttft_s == pytest.approx((request.sent_ns[1] - request.received_ns) / NS, abs=NEAR_S)
    assert record.coalesced == 1


@pytest.mark.parametrize("framing", ["content-length", UNTIL_CLOSE])
def test_an_unchunked_stream_that_came_at_once_is_buffered(rig: Rig, wire: Wire, framing: str) -> None:
    answer = rig.ask(wire.serve(at_once(chat_events("a", "b", "c"), framing)).url)
    record = answer.record
    assert (answer.text, record.error_code, record.ok) == ("abc", "buffered", True)
    assert (record.ttft_s, record.ttfat_s, record.tpot_s) == (None, None, None)
    assert record.end_to_end_latency_s is not None
    assert record.output_tokens == 3


@pytest.mark.alone
def test_a_large_body_of_announced_length_in_several_reads_is_buffered_too(rig: Rig, wire: Wire) -> None:
    port = wire.serve([pause(0.2), *at_once(chat_events(*["word " * 40] * 1000), "content-length")])
    record = rig.ask(port.url).record
    assert (record.error_code, record.ttft_s, record.output_tokens) == ("buffered", None, 1000)
    assert record.reads > 2


WHOLE = {
    "id": "whole-1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "All at once"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_json_body_instead_of_a_stream_is_buffered(rig: Rig, wire: Wire, framing: str) -> None:
    body = event(WHOLE).removeprefix(b"data: ").strip()
    writes = framed([body], framing)
    writes[0] = writes[0].replace(b"text/event-stream", b"application/json; charset=utf-8")
    closing = [CLOSE] if framing == UNTIL_CLOSE else []
    answer = rig.ask(wire.serve([*map(send, writes), *closing]).url)
    record = answer.record
    assert (answer.text, answer.finish_reason, record.error_code) == ("All at once", "stop", "buffered")
    assert (record.ttft_s, record.output_tokens, record.input_tokens, record.response_id) == (None, 3, 5, "whole-1")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"content": ""}, "empty"),
        ({"content": None}, "empty"),
        ({"content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}, "buffered"),
        ({"content": [{"type": "text", "text": "parts"}]}, "buffered"),
        ({"reasoning_content": "hm", "content": "so"}, "buffered"),
        (None, "empty"),
    ],
)
def test_json_bodies_of_unusual_shape_are_judged(rig: Rig, wire: Wire, message: object, code: str) -> None:
    body = {**WHOLE, "choices": [{"message": message, "finish_reason": "stop"}]}
    assert rig.ask(wire.serve(reply("200 OK", body)).url).record.error_code == code


@pytest.mark.parametrize("body", [{"choices": "no"}, {"choices": ["no"]}, {}, {"choices": None, "id": 5, "usage": 3}])
def test_json_bodies_without_an_answer_are_truncated(rig: Rig, wire: Wire, body: object) -> None:
    assert rig.ask(wire.serve(reply("200 OK", body)).url).record.error_code == "truncated"


def test_a_server_that_holds_the_connection_after_done_does_not_hold_the_user(rig: Rig, wire: Wire) -> None:
    writes = framed(chat_events("a", "b"))
    port = wire.serve([send(b"".join(writes[:-1])), HOLD])
    record = rig.ask(port.url).record
    assert record.error_code is None
    assert record.end_to_end_latency_s is not None
    assert record.end_to_end_latency_s < 0.05
    request = port.left_by_client()
    assert request.client_closed_ns - request.sent_ns[0] < 0.3 * NS


def test_legacy_completions_are_streamed(rig: Rig, wire: Wire) -> None:
    parts = [event({"id": "t", "choices": [{"index": 0, "text": text, "finish_reason": None}]}) for text in ("a", "b")]
    parts += [event({"id": "t", "choices": [{"index": 0, "text": "", "finish_reason": "length"}]}), usage(2), DONE]
    port = wire.serve(stream(parts, gap_s=0.005))
    answer = rig.call(at(port.url, lambda user: user.complete("once upon", max_tokens=2)))
    assert (answer.text, answer.finish_reason, answer.record.api) == ("ab", "length", "openai-completions")
    assert answer.record.requested_output_tokens == 2
    (request,) = port.requests()
    assert request.target == "/v1/completions"
    assert request.json()["prompt"] == "once upon"


def test_a_user_may_ask_in_on_start_and_in_several_tasks(make_rig: object, wire: Wire) -> None:
    port = wire.serve(stream(chat_events("a")))
    answers = []

    def on_start(user: object) -> None:
        answers.append(user.chat("first"))  # type: ignore[attr-defined]

    rig: Rig = make_rig(host=port.url, attributes={"on_start": on_start})  # type: ignore[operator]
    assert rig.ask(port.url).record.error_code is None
    assert [answer.text for answer in answers] == ["a"]
    assert len(rig.seen.records) == 2


@pytest.mark.alone
def test_the_simulator_s_answers_are_counted_exactly_and_timed(rig: Rig) -> None:
    with launch("ttft=50ms,itl=5ms", max_seconds=30) as simulator:
        for api in ("chat", "complete"):
            answer = rig.call(at(simulator.url, lambda user, api=api: getattr(user, api)("hello", max_tokens=20)))
            record = answer.record
            assert record.error_code is None
            assert (record.output_tokens, record.output_tokens_source, record.finish_reason) == (20, "usage", "length")
            assert record.chunks == 20
            assert record.ttft_s == pytest.approx(0.05, abs=0.01)
            assert record.tpot_s == pytest.approx(0.005, abs=0.001)
            assert record.stamp_source == "kernel"
        reconnected = record.connect_s
    assert reconnected == 0  # the second call came over the first one's connection


@pytest.mark.alone
@pytest.mark.parametrize("dialect", ["vllm", "llamacpp", "transformers"])
def test_every_dialect_of_the_simulator_measures_alike(rig: Rig, dialect: str) -> None:
    with launch(f"ttft=30ms,itl=4ms,dialect={dialect}", max_seconds=30) as simulator:
        for _ in range(2):
            record = rig.ask(simulator.url, max_tokens=10).record
            assert record.error_code is None
            assert (record.output_tokens, record.output_tokens_source, record.chunks) == (10, "usage", 10)
            assert record.ttft_s == pytest.approx(0.03, abs=0.01)


def test_a_prompt_is_counted_only_when_the_server_does_not_say_how_many_tokens_it_has(
    make_rig: Callable[..., Rig], wire: Wire
) -> None:
    rig = make_rig()
    counted: list[str] = []

    class Recorder:
        def __init__(self, tokenizer: Any) -> None:
            self._tokenizer = tokenizer

        def count(self, text: str) -> int:
            counted.append(text)
            return int(self._tokenizer.count(text))

    def record_counts(user: Any) -> None:
        user.run_context.tokenizer = Recorder(user.run_context.tokenizer)

    rig.call(record_counts)
    assert rig.ask(wire.serve(stream(chat_events("a", "b"))).url, "hello there").record.input_tokens == 7  # usage
    assert rig.ask(wire.serve(reply("429 Slow", {"error": "no"})).url, "hello there").record.error_code == "429"
    assert counted == []
    unsaid = [delta(content="a"), delta(finish="stop"), b"data: [DONE]\n\n"]
    record = rig.ask(wire.serve(*[stream(unsaid)] * 3).url, "hello there").record
    assert (record.input_tokens, record.input_tokens_source) == (2, "tokenizer")
    assert sorted(counted) == ["a", "hello there"]
