"""Answers that are not streamed: their rows against the simulator's log and the SDK's parser, and wrong bodies."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from llm_users import AnthropicUser, OpenAIUser
from llm_users.record import RequestRecord
from llm_users.simulator.launch import Simulator, launch
from llm_users.simulator.log import Entry
from llm_users.users.answer import Answer
from tests.stream_bytes import CHUNKED, FRAMINGS, LENGTH, chat_events, framed, head, reply, stream
from tests.unit.users.rig import Rig, at, eventually
from tests.wire_server import CLOSE, HOLD, Wire, pause, send

MakeRig = Callable[..., Rig]

SPEC = "ttft=60ms,itl=5ms,reasoning=4,tool=3,cached=2"
TOKENS = 12
STREAM_COLUMNS = (
    "ttft_s", "ttfat_s", "last_token_s", "tpot_s", "gap_p50_s", "gap_p95_s", "gap_p99_s", "gap_max_s",
    "corrected_ttft_s", "events_per_token",
)  # fmt: skip

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "Hello there"}, "finish_reason": "stop"}
CHAT = {
    "id": "chat_1",
    "object": "chat.completion",
    "created": 1,
    "model": "tiny",
    "choices": [CHOICE],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
}


@dataclass
class Endpoint:
    """A simulated endpoint and its log."""

    simulator: Simulator
    log: Path

    @property
    def url(self) -> str:
        return self.simulator.url

    def entry_of(self, record: RequestRecord) -> Entry:
        """What the log says about the answer of a row; the server writes it when it is idle."""

        def find() -> Entry | None:
            lines = self.log.read_bytes().splitlines()
            entries = [msgspec.json.decode(line, type=Entry) for line in lines]
            return next((entry for entry in entries if entry.response_id == record.response_id), None)

        entry: Entry = eventually(find)
        return entry


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    log = tmp_path_factory.mktemp("simulator") / "log.jsonl"
    with launch(SPEC, log=log, max_seconds=120) as simulator:
        yield Endpoint(simulator, log)


CALLS: dict[str, tuple[Any, Callable[[Any], Answer]]] = {
    "openai-chat": (OpenAIUser, lambda user: user.chat("hello", stream=False, max_tokens=TOKENS)),
    "openai-completions": (OpenAIUser, lambda user: user.complete("hello", stream=False, max_tokens=TOKENS)),
    "openai-responses": (OpenAIUser, lambda user: user.respond("hello", stream=False, max_output_tokens=TOKENS)),
    "anthropic-messages": (AnthropicUser, lambda user: user.message("hello", stream=False, max_tokens=TOKENS)),
}


def asked(rig_with: MakeRig, api: str, url: str, **options: Any) -> Answer:
    user_class, call = CALLS[api]
    answer: Answer = rig_with(user_class=user_class, **options).call(at(url, call))
    return answer


@pytest.mark.alone
@pytest.mark.parametrize("transport", ["fast", "sdk"])
@pytest.mark.parametrize("api", CALLS)
def test_latency_and_tokens_are_those_of_the_simulators_log(
    rig_with: MakeRig, endpoint: Endpoint, api: str, transport: str
) -> None:
    answer = asked(rig_with, api, endpoint.url, llm_transport=transport)
    record, entry = answer.record, endpoint.entry_of(answer.record)
    assert (record.api, record.streamed, record.error_code, record.http_status) == (api, 0, None, 200)
    assert entry.last_ns is not None
    sent_s = (entry.last_ns - entry.received_ns) / 1e9
    assert sent_s >= 0.060 + 0.005 * (TOKENS - 1)
    assert record.end_to_end_latency_s == pytest.approx(sent_s, abs=0.002 if transport == "fast" else 0.02)
    assert (record.output_tokens, record.output_tokens_source) == (TOKENS, "usage") == (entry.tokens, "usage")
    assert (record.input_tokens, record.input_tokens_source) == (entry.prompt_tokens, "usage")
    assert record.request_output_throughput_token_per_s == pytest.approx(TOKENS / record.end_to_end_latency_s)
    assert [name for name in STREAM_COLUMNS if getattr(record, name) is not None] == []
    assert (record.chunks, record.coalesced, record.burst_chunks) == (0, 0, 0)
    assert record.stamp_source == ("kernel" if transport == "fast" else "user")


@pytest.mark.parametrize("api", CALLS)
def test_an_answer_is_the_same_with_and_without_a_stream(rig_with: MakeRig, api: str) -> None:
    """Two endpoints with one seed give their first requests the same answer."""
    answers = []
    for streams in (True, False):
        with launch("ttft=1ms,itl=1ms,reasoning=4,tool=3,cached=2,finish=stop", max_seconds=30) as simulator:
            user_class, _ = CALLS[api]
            call = {"chat": "chat", "completions": "complete", "responses": "respond", "messages": "message"}
            cap = "max_output_tokens" if api == "openai-responses" else "max_tokens"
            method = call[api.partition("-")[2]]
            answers.append(
                rig_with(user_class=user_class).call(
                    at(
                        simulator.url,
                        lambda user, method=method, cap=cap, streams=streams: getattr(user, method)(
                            "hello", stream=streams, **{cap: TOKENS}
                        ),
                    )
                )
            )
    streamed, whole = answers
    assert (streamed.record.streamed, whole.record.streamed) == (1, 0)
    assert whole.text.strip() == streamed.text.strip()
    assert whole.reasoning.strip() == streamed.reasoning.strip()
    assert whole.finish_reason == streamed.finish_reason
    assert [call["function"]["name"] for call in whole.tool_calls] == [
        call["function"]["name"] for call in streamed.tool_calls
    ]
    for column in ("output_tokens", "input_tokens", "cached_tokens", "reasoning_tokens", "response_id", "model"):
        assert getattr(whole.record, column) == getattr(streamed.record, column), column


def test_the_option_applies_to_all_calls_and_the_keyword_of_a_call_has_precedence(
    rig_with: MakeRig, endpoint: Endpoint
) -> None:
    rig = rig_with(llm_no_stream=True)
    assert rig.ask(endpoint.url, max_tokens=2).record.streamed == 0
    streamed = rig.ask(endpoint.url, max_tokens=2, stream=True).record
    assert (streamed.streamed, streamed.chunks) == (1, 2)
    assert streamed.ttft_s is not None


def test_requests_without_a_stream_do_not_ask_for_usage_in_one(rig_with: MakeRig, wire: Wire) -> None:
    """OpenAI refuses stream_options in a request that is not streamed."""
    port = wire.serve(reply("200 OK", CHAT))
    assert rig_with(llm_no_stream=True).ask(port.url).text == "Hello there"
    sent = port.requests()[0].json()
    assert sent["stream"] is False
    assert "stream_options" not in sent


def test_no_event_of_a_first_token_is_fired(rig: Rig, wire: Wire) -> None:
    record = rig.ask(wire.serve(reply("200 OK", CHAT)).url, stream=False).record
    assert record.ok
    assert rig.seen.first_tokens == []
    assert [request["response_time"] for request in rig.seen.locust_requests] == [
        pytest.approx(record.end_to_end_latency_s * 1000)
    ]


def test_a_whole_answer_counts_at_its_end_in_the_window(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(llm_warmup="0", llm_no_stream=True)
    record = rig.ask(wire.serve(reply("200 OK", CHAT)).url).record
    assert (record.phase, record.window_share, record.window_tokens) == ("measure", 1.0, 2.0)


TOOL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
BODIES: list[dict[str, Any]] = [
    CHAT,
    {**CHAT, "choices": [{**CHOICE, "message": {"role": "assistant", "content": None, "tool_calls": [TOOL]}}]},
    {**CHAT, "choices": [{**CHOICE, "message": {"role": "assistant", "content": None, "refusal": "I cannot"}}]},
    {**CHAT, "choices": [CHOICE, {**CHOICE, "index": 1, "message": {"role": "assistant", "content": "Other"}}]},
    {**CHAT, "choices": [{**CHOICE, "message": {"role": "assistant", "content": "a", "reasoning_content": "b"}}]},
]


@pytest.mark.parametrize("body", BODIES)
def test_the_sdks_parser_agrees_on_chat_completions(rig: Rig, wire: Wire, body: dict[str, Any]) -> None:
    port = wire.serve(reply("200 OK", body))
    answer = rig.ask(port.url, stream=False, **({"n": 2} if len(body["choices"]) > 1 else {}))
    client = openai.OpenAI(base_url=port.url, api_key="none", max_retries=0)
    theirs = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "hello"}])
    message = theirs.choices[0].message
    assert answer.record.error_code is None
    assert answer.text == (message.content or message.refusal or "")
    assert answer.choices == [choice.message.content or choice.message.refusal or "" for choice in theirs.choices]
    assert answer.reasoning == ((message.model_extra or {}).get("reasoning_content") or "")
    assert answer.tool_calls == [call.model_dump() for call in message.tool_calls or []]
    assert answer.finish_reason == theirs.choices[0].finish_reason
    assert answer.record.response_id == theirs.id
    assert theirs.usage is not None
    assert (answer.record.input_tokens, answer.record.output_tokens) == (
        theirs.usage.prompt_tokens,
        theirs.usage.completion_tokens,
    )


def test_the_sdks_parser_agrees_on_completions_and_responses(rig_with: MakeRig, endpoint: Endpoint) -> None:
    client = openai.OpenAI(base_url=endpoint.url, api_key="none", max_retries=0)
    completion = client.completions.create(model="tiny", prompt="hello", max_tokens=TOKENS)
    ours = asked(rig_with, "openai-completions", endpoint.url)
    assert completion.usage is not None
    assert completion.usage.completion_tokens == ours.record.output_tokens
    assert completion.choices[0].finish_reason == ours.finish_reason
    assert len(completion.choices[0].text.split()) == len(ours.text.split())
    response = client.responses.create(model="tiny", input="hello", max_output_tokens=TOKENS)
    ours = asked(rig_with, "openai-responses", endpoint.url)
    assert response.usage is not None
    assert response.usage.output_tokens == ours.record.output_tokens
    assert response.usage.output_tokens_details.reasoning_tokens == ours.record.reasoning_tokens == 4
    assert len(response.output_text.split()) == len(ours.text.split())


WRONG: dict[str, tuple[Any, str, str]] = {
    "error object": (reply("200 OK", {"error": {"code": "busy", "message": "no GPU"}}), "busy", "no GPU"),
    "error in a choice": (
        reply("200 OK", {"choices": [{"error": {"code": 502, "message": "upstream"}}]}), "502", "upstream"),
    "error finish reason": (
        reply("200 OK", {**CHAT, "choices": [{**CHOICE, "finish_reason": "error"}]}), "error", "in the body"),
    "message only": (reply("200 OK", {"message": "not enough balance"}), "error", "not enough balance"),
    "cut document": (reply("200 OK", json.dumps(CHAT)[:80]), "truncated", "in the middle of its JSON"),
    "cut string": (reply("200 OK", json.dumps(CHAT)[:-90]), "truncated", "in the middle of its JSON"),
    "no JSON": (reply("200 OK", '{"choices": nothing}'), "malformed", "not valid JSON"),
    "a list": (reply("200 OK", "[1, 2]"), "malformed", "not an object"),
    "text": (reply("200 OK", "Hello there", kind="text/plain"), "malformed", "not valid JSON"),
    "null": (reply("200 OK", "null"), "malformed", "without an answer of this API"),
    "another API": (reply("200 OK", {"response": "Hello", "done": True}), "malformed", "without an answer"),
    "empty": (reply("200 OK", ""), "empty", "empty body"),
    "spaces": (reply("200 OK", " \n\n "), "empty", "empty body"),
    "no output": (
        reply("200 OK", {**CHAT, "choices": [{**CHOICE, "message": {"content": ""}}]}), "empty", "without any output"),
    "page": (reply("200 OK", "<html><body>Welcome</body></html>", kind="text/html"), "malformed", "Welcome"),
    "events": (stream(chat_events("a", "b")), "malformed", "sent a stream of events although"),
    "error event": (
        stream([b'data: {"error": {"code": "overloaded", "message": "try later"}}\n\n']), "overloaded", "try later"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_body_has_an_error_code_that_says_what_is_wrong(rig: Rig, wire: Wire, case: str) -> None:
    script, code, words = WRONG[case]
    record = rig.ask(wire.serve(script).url, stream=False).record
    assert (record.error_code, record.http_status, record.streamed) == (code, 200, 0)
    assert words in (record.error_message or "")
    assert "inside the stream" not in (record.error_message or "")
    assert record.end_to_end_latency_s is not None


def test_a_connection_that_closes_within_the_body_is_truncated(rig: Rig, wire: Wire) -> None:
    body = json.dumps(CHAT).encode()
    for framing in (CHUNKED, LENGTH):
        parts = framed([body], framing)
        data = b"".join(parts)
        record = rig.ask(wire.serve([send(data[: len(data) - 40]), CLOSE]).url, stream=False).record
        assert record.error_code == "truncated", framing


def test_a_body_until_the_end_of_the_connection_and_in_many_pieces_is_read_whole(rig: Rig, wire: Wire) -> None:
    body = json.dumps({**CHAT, "choices": [{**CHOICE, "message": {"content": "words " * 50_000}}]}).encode()
    for framing in FRAMINGS:
        pieces = [body[start : start + 30_000] for start in range(0, len(body), 30_000)]
        answer = rig.ask(wire.serve(stream(pieces, framing)).url, stream=False)
        assert (answer.record.error_code, len(answer.text)) == (None, 300_000), framing


def test_an_answer_without_a_finish_reason_is_complete(rig: Rig, wire: Wire) -> None:
    """The end of the document is the end of the answer."""
    body = {"choices": [{"message": {"content": "Hello"}}]}
    answer = rig.ask(wire.serve(reply("200 OK", body)).url, stream=False)
    assert (answer.record.error_code, answer.text, answer.finish_reason) == (None, "Hello", None)
    assert (answer.record.output_tokens, answer.record.output_tokens_source) == (1, "tokenizer")


def test_usage_of_zero_tokens_for_a_text_is_not_used(rig: Rig, wire: Wire) -> None:
    body = {**CHAT, "usage": {"prompt_tokens": 7, "completion_tokens": 0}}
    record = rig.ask(wire.serve(reply("200 OK", body)).url, stream=False).record
    assert (record.output_tokens_source, record.output_tokens) == ("tokenizer", 2)


def test_limits_on_an_answer_apply(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(user_class=_Short)
    long = {**CHAT, "choices": [{**CHOICE, "message": {"content": "x" * 5000}}]}
    record = rig.ask(wire.serve(reply("200 OK", long)).url, stream=False).record
    assert record.error_code == "malformed"
    assert "longer than 1,000 characters" in (record.error_message or "")
    filler = b" " * (1 << 20)
    record = rig.ask(wire.serve(stream([filler] * 34)).url, stream=False).record
    assert record.error_code == "malformed"
    assert "32 MiB arrived" in (record.error_message or "")


class _Short(OpenAIUser):
    abstract = True
    max_answer_characters = 1000


def test_deadlines_and_cancellations_end_a_request(rig_with: MakeRig, wire: Wire) -> None:
    silent = [send(head(LENGTH, 400, kind="application/json")), HOLD]
    record = rig_with(llm_timeout="0.3s", llm_no_stream=True).ask(wire.serve(silent).url).record
    assert (record.error_code, record.streamed) == ("timeout", 0)
    assert record.end_to_end_latency_s == pytest.approx(0.3, abs=0.1)
    record = rig_with(llm_cancel="1:0.2s", llm_no_stream=True).ask(wire.serve(silent).url).record
    assert (record.error_code, record.ttft_s) == ("cancelled", None)
    assert record.end_to_end_latency_s == pytest.approx(0.2, abs=0.1)


def test_a_connection_is_used_again(rig: Rig, wire: Wire) -> None:
    port = wire.serve(reply("200 OK", CHAT))
    for _ in range(3):
        assert rig.ask(port.url, stream=False).record.ok
    assert port.connections == 1


def test_the_end_of_an_answer_is_stamped_at_its_last_byte(rig: Rig, wire: Wire) -> None:
    first, second = json.dumps(CHAT).encode()[:50], json.dumps(CHAT).encode()[50:]
    headers = head(LENGTH, len(first + second), kind="application/json")
    port = wire.serve([send(headers + first), pause(0.2), send(second)])
    record = rig.ask(port.url, stream=False).record
    sent = port.requests()[0]
    truth_s = (sent.sent_ns[-1] - sent.received_ns) / 1e9
    assert truth_s >= 0.2
    assert record.end_to_end_latency_s == pytest.approx(truth_s, abs=0.003)
