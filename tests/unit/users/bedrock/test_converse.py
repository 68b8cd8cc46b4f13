"""ConverseStream over real sockets: what is sent, what the row and the answer say of what came back."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from llm_users.users.answer import Answer
from tests.stream_bytes import CHUNKED, LAST_CHUNK, LENGTH, chunk, head
from tests.unit.users.bedrock.conftest import ACCESS_KEY
from tests.unit.users.bedrock.frames import (
    MODEL,
    REQUEST_ID,
    START,
    STOP,
    answer,
    converse_events,
    cut_after,
    delta,
    event,
    exception,
    metadata,
    opening,
    refusal,
)
from tests.unit.users.rig import Rig, at
from tests.wire_server import CLOSE, HOLD, RESET, Script, Wire, bytewise, pause, send

MakeRig = Callable[..., Rig]


def ask(rig: Rig, url: str, prompt: str | None = "hello", **more: Any) -> Answer:
    answered: Answer = rig.call(at(url, lambda user: user.converse(prompt, **more)))
    return answered


def test_an_answer_becomes_a_row(rig: Rig, wire: Wire) -> None:
    answered = ask(rig, wire.serve(answer(*converse_events("Be", "cause"))).root)
    record = answered.record
    assert (answered.text, answered.finish_reason) == ("Because", "end_turn")
    assert (record.error_code, record.error_message) == (None, None)
    assert (record.api, record.model, record.framework) == ("bedrock-converse", MODEL, "bedrock")
    assert (record.output_tokens, record.output_tokens_source) == (2, "usage")
    assert (record.input_tokens, record.input_tokens_source) == (7, "usage")
    assert (record.chunks, record.events_per_token) == (2, 1.0)
    assert (record.response_id, record.http_status) == (REQUEST_ID, 200)
    assert record.server_latency_s == pytest.approx(0.321)
    assert record.stamp_source in ("kernel", "user")
    assert rig.seen.records == [record]
    assert [request["exception"] for request in rig.seen.locust_requests] == [None]


def test_what_is_sent(rig: Rig, wire: Wire) -> None:
    port = wire.serve(answer(*converse_events("x")))
    record = ask(rig, port.root, "Why?", temperature=0, stop=["."], system="Be short.").record
    request = port.requests()[0]
    body = request.json()
    assert request.target == f"/model/{MODEL.replace(':', '%3A')}/converse-stream"
    assert body["messages"] == [{"role": "user", "content": [{"text": "Why?"}]}]
    assert body["system"] == [{"text": "Be short."}]
    # Without a cap of its own a request is sent with the run's mean: Bedrock reserves quota for the cap.
    assert body["inferenceConfig"] == {"maxTokens": 150, "temperature": 0, "stopSequences": ["."]}
    assert record.requested_output_tokens == 150
    assert body["requestMetadata"] == {"locust-run": record.run_id, "locust-stage": "1"}
    headers = request.headers
    assert headers["authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/")
    assert "/us-east-1/bedrock/aws4_request" in headers["authorization"]
    assert headers["user-agent"].startswith("locust-llm/")
    assert headers["accept-encoding"] == "identity"


def test_every_parameter_of_converse_goes_through(rig: Rig, wire: Wire) -> None:
    port = wire.serve(answer(*converse_events("x")))
    tool = {"toolSpec": {"name": "weather", "inputSchema": {"json": {"type": "object"}}}}
    given: dict[str, Any] = {
        "toolConfig": {"tools": [tool]},
        "guardrailConfig": {"guardrailIdentifier": "g1", "guardrailVersion": "1"},
        "performanceConfig": {"latency": "optimized"},
        "serviceTier": {"type": "flex"},
        "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
    }
    assert ask(rig, port.root, maxTokens=9, requestMetadata={"team": "a"}, **given).record.ok
    body = port.requests()[0].json()
    assert {name: body[name] for name in given} == given
    assert body["inferenceConfig"] == {"maxTokens": 9}
    assert body["requestMetadata"]["team"] == "a"


def test_messages_in_either_apis_shape(rig: Rig, wire: Wire) -> None:
    port = wire.serve(answer(*converse_events("x")))
    picture = base64.b64encode(b"not really").decode()
    parts = [
        {"type": "text", "text": "what is it?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
    ]
    turns = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"text": "A"}, {"cachePoint": {"type": "default"}}]},
        {"role": "user", "content": "and?"},
    ]
    assert ask(rig, port.root, None, messages=turns).record.ok
    body = port.requests()[0].json()
    assert body["system"] == [{"text": "Be short."}]
    image = {"image": {"format": "png", "source": {"bytes": picture}}}
    assert [turn["content"] for turn in body["messages"]] == [
        [{"text": "what is it?"}, image],
        [{"text": "A"}, {"cachePoint": {"type": "default"}}],
        [{"text": "and?"}],
    ]


def test_an_unknown_parameter_is_boto3s_error(rig: Rig, wire: Wire) -> None:
    port = wire.serve([HOLD])
    record = ask(rig, port.root, top_k=4).record
    assert port.requests() == []
    assert record.error_code == "ParamValidationError"
    assert "top_k" in (record.error_message or "")
    assert record.end_to_end_latency_s is None


def test_arns_and_profiles_are_sent_as_they_are(rig: Rig, wire: Wire) -> None:
    port = wire.serve(answer(*converse_events("x")))
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
    record = ask(rig, port.root, modelId=arn).record
    assert (record.error_code, record.model) == (None, arn)
    assert port.requests()[0].target == f"/model/{arn.replace(':', '%3A').replace('/', '%2F')}/converse-stream"


def test_the_first_token_is_the_first_output(rig: Rig, wire: Wire) -> None:
    """messageStart comes at once and empty; so does the signature of nothing."""
    early = [START, delta(text=""), delta(reasoningContent={"signature": "c2ln"})]
    late = [delta(text="late"), STOP, metadata(1)]
    script = [
        *opening(),
        *(send(chunk(e)) for e in early),
        pause(0.15),
        *(send(chunk(e)) for e in late),
        send(LAST_CHUNK),
    ]
    record = ask(rig, wire.serve(script).root).record
    assert record.chunks == 1
    assert record.ttft_s is not None
    assert record.ttft_s > 0.15


def test_reasoning_comes_before_the_answer(rig: Rig, wire: Wire) -> None:
    thinking = [START, delta(reasoningContent={"text": "hm, "}), delta(reasoningContent={"redactedContent": "eA=="})]
    said = [delta(text="Yes"), STOP, metadata(3)]
    script = [
        *opening(),
        *(send(chunk(e)) for e in thinking),
        pause(0.1),
        *(send(chunk(e)) for e in said),
        send(LAST_CHUNK),
    ]
    answered = ask(rig, wire.serve(script).root)
    record = answered.record
    assert (answered.reasoning, answered.text, record.chunks) == ("hm, ", "Yes", 3)
    assert record.ttft_s is not None
    assert record.ttfat_s is not None
    assert record.ttfat_s - record.ttft_s > 0.09


def test_tool_calls_are_assembled(rig: Rig, wire: Wire) -> None:
    start = event("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t1", "name": "f"}}})
    events = [START, start, delta(toolUse={"input": '{"a"'}), delta(toolUse={"input": ": 1}"})]
    stop = event("messageStop", {"stopReason": "tool_use"})
    answered = ask(rig, wire.serve(answer(*events, stop, metadata(5))).root)
    assert answered.record.error_code is None
    assert answered.finish_reason == "tool_use"
    assert answered.tool_calls == [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}]
    assert answered.record.chunks == 2


def test_caching_mode_and_tier_become_columns(rig: Rig, wire: Wire) -> None:
    said = metadata(
        2,
        usage={"cacheReadInputTokens": 100, "cacheWriteInputTokens": 20},
        performanceConfig={"latency": "optimized"},
        serviceTier={"type": "flex"},
    )
    record = ask(rig, wire.serve(answer(START, delta(text="x"), STOP, said)).root).record
    # AWS counts cached input apart; the column is all of it, as everywhere.
    assert (record.input_tokens, record.cached_tokens, record.cache_write_tokens) == (127, 100, 20)
    assert (record.latency_mode, record.service_tier) == ("optimized", "flex")
    assert record.events_per_token == 0.5


def test_any_split_of_the_bytes(rig: Rig, wire: Wire) -> None:
    body = b"".join(converse_events("a", "b", "c"))
    script = [*opening(), bytewise(chunk(body)), send(LAST_CHUNK)]
    answered = ask(rig, wire.serve(script).root)
    assert (answered.text, answered.record.output_tokens, answered.record.error_code) == ("abc", 3, None)


def test_events_of_tomorrow_are_passed_over(rig: Rig, wire: Wire) -> None:
    new = event("messageWeather", {"rain": True})
    citation = delta(citation={"title": "x"})
    assert ask(rig, wire.serve(answer(START, new, citation, delta(text="x"), STOP, metadata(1))).root).record.ok


@pytest.mark.parametrize(
    ("events", "code", "words"),
    [
        ([START, delta(text="x")], "truncated", ["messageStop"]),
        ([START, STOP, metadata(0)], "empty", ["without any output"]),
        ([START, delta(text="x"), exception("throttlingException", message="Too many tokens, please wait")],
         "ThrottlingException", ["inside the stream", "Too many tokens"]),
        ([START, exception("serviceUnavailableException", message="busy")], "ServiceUnavailableException", ["busy"]),
        ([START, exception("internalServerException", message="oops")], "InternalServerException", ["oops"]),
        ([START, exception("validationException", message="bad")], "ValidationException", ["bad"]),
        ([START, exception("modelStreamErrorException", message="broke", originalStatusCode=500,
                           originalMessage="cuda")], "ModelStreamErrorException", ["broke", "500", "cuda"]),
        ([START, delta(text="x")[:-1] + b"\0"], "malformed", ["checksum"]),
        ([START, event("contentBlockDelta", b"no json")], "malformed", ["contentBlockDelta"]),
    ],
)  # fmt: skip
def test_what_goes_wrong_inside_the_stream(
    rig: Rig, wire: Wire, events: list[bytes], code: str, words: list[str]
) -> None:
    record = ask(rig, wire.serve(answer(*events)).root).record
    assert record.error_code == code
    assert record.http_status == 200
    assert record.response_id == REQUEST_ID
    for word in words:
        assert word in (record.error_message or "")


def test_what_was_measured_up_to_an_error_stays(rig: Rig, wire: Wire) -> None:
    events = [START, delta(text="one "), delta(text="two"), exception("throttlingException", message="slow down")]
    answered = ask(rig, wire.serve(answer(*events)).root)
    assert answered.text == "one two"
    assert answered.record.ttft_s is not None
    assert (answered.record.chunks, answered.record.output_tokens_source) == (2, "tokenizer")


@pytest.mark.parametrize(
    ("script", "codes"),
    [
        (cut_after(START, delta(text="x")), {"truncated"}),
        (cut_after(START, delta(text="x")[:20]), {"truncated"}),
        (answer(START, delta(text="x")[:20]), {"truncated"}),
        ([*opening(), send(chunk(START)), pause(0.05), RESET], {"reset", "truncated"}),
        ([CLOSE], {"reset"}),
        ([send(b"what?\r\n\r\n"), CLOSE], {"malformed"}),
        ([send(head(LENGTH, 2, kind="application/json") + b"{}")], {"malformed"}),
        ([send(head(CHUNKED, kind="text/html") + chunk(b"<html>") + LAST_CHUNK)], {"malformed"}),
    ],
)
def test_broken_answers(rig: Rig, wire: Wire, script: Script, codes: set[str]) -> None:
    assert ask(rig, wire.serve(script).root).record.error_code in codes


@pytest.mark.parametrize("kind", ["application/json", "text/html", "application/vnd.amazon.eventstream"])
@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b'{"message":"the model said: bad"}', "Error", "the model said: bad"),
        (b'{"__type":"ThrottlingException","message":"slow"}', "ThrottlingException", "slow"),
        (b'{"Message":"no such path here"}', "Error", "no such path here"),
        (b"<html><title>Log in</title></html>", "malformed", "Log in"),
        (b'{"Output":{"__type":"UnknownOperation"}}', "malformed", "UnknownOperation"),
    ],
)
def test_text_in_the_place_of_events_is_put_into_words(
    rig: Rig, wire: Wire, body: bytes, code: str, words: str, kind: str
) -> None:
    record = ask(rig, wire.serve([send(head(LENGTH, len(body), kind=kind) + body)]).root).record
    assert record.error_code.lower() == code.lower()
    assert words in (record.error_message or "")
    assert record.http_status == 200


@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_events_are_read_whatever_their_content_type(rig: Rig, wire: Wire, kind: str) -> None:
    script = [send(head(CHUNKED, kind=kind)), *(send(chunk(part)) for part in converse_events("a", "b"))]
    answered = ask(rig, wire.serve([*script, send(LAST_CHUNK)]).root)
    assert (answered.record.error_code, answered.text, answered.record.chunks) == (None, "ab", 2)


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_a_stop_reason_that_is_a_failure(rig: Rig, wire: Wire, reason: str) -> None:
    events = [START, delta(text="x"), event("messageStop", {"stopReason": reason}), metadata(1)]
    record = ask(rig, wire.serve(answer(*events)).root).record
    assert (record.error_code.lower(), record.finish_reason, record.output_tokens) == (reason, reason, 1)
    assert record.failed


def test_what_a_guardrail_blocked_without_a_word_is_an_answer(rig: Rig, wire: Wire) -> None:
    events = [START, event("messageStop", {"stopReason": "guardrail_intervened"}), metadata(0)]
    record = ask(rig, wire.serve(answer(*events)).root).record
    assert (record.error_code, record.finish_reason) == (None, "guardrail_intervened")


@pytest.mark.parametrize("arguments", ['{"at": "sea"}', {"at": "sea"}])
def test_a_tool_call_is_not_in_the_text(rig: Rig, wire: Wire, arguments: Any) -> None:
    start = {"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "c1", "name": "look"}}}
    events = [START, delta(text="So"), event("contentBlockStart", start), delta(toolUse={"input": arguments})]
    answered = ask(rig, wire.serve(answer(*events, STOP, metadata(5))).root)
    assert (answered.text, answered.record.chunks) == ("So", 2)
    assert answered.tool_calls[0]["function"] == {"name": "look", "arguments": '{"at": "sea"}'}


def test_a_cut_after_the_end_is_no_error(rig: Rig, wire: Wire) -> None:
    record = ask(rig, wire.serve(cut_after(START, delta(text="x"), STOP, metadata(1)[:30])).root).record
    assert (record.error_code, record.output_tokens_source) == (None, "tokenizer")


def test_an_unchunked_answer_is_buffered(rig: Rig, wire: Wire) -> None:
    body = b"".join(converse_events("a", "b"))
    record = ask(
        rig, wire.serve([send(head(LENGTH, len(body), kind="application/vnd.amazon.eventstream") + body)]).root
    ).record
    assert (record.error_code, record.ttft_s, record.output_tokens) == ("buffered", None, 2)


def test_nobody_there(rig: Rig) -> None:
    record = ask(rig, "http://127.0.0.1:9").record
    assert record.error_code == "connect"
    assert "127.0.0.1:9" in (record.error_message or "")
    assert (record.ttft_s, record.end_to_end_latency_s) == (None, None)


def test_the_deadline(rig_with: MakeRig, wire: Wire) -> None:
    rig = rig_with(llm_timeout="0.3")
    for script in ([*opening(), send(chunk(START)), HOLD], [HOLD]):
        assert ask(rig, wire.serve(script).root).record.error_code == "timeout"


@pytest.mark.parametrize(
    ("status", "name", "message", "words"),
    [
        ("429 Too Many Requests", "ThrottlingException", "Too many requests, please wait", ["Too many requests"]),
        ("429 Too Many Requests", "ThrottlingException", "Too many tokens, please wait", ["Too many tokens"]),
        ("429 Too Many Requests", "ModelNotReadyException", "not ready", ["not ready"]),
        ("400 Bad Request", "ValidationException", "Invocation of x with on-demand throughput isn't supported.",
         ["on-demand throughput", "inference profile", "us.ID"]),
        ("400 Bad Request", "ServiceQuotaExceededException", "quota", ["quota"]),
        ("403 Forbidden", "AccessDeniedException", "no access", ["no access", "bedrock:InvokeModelWithResponseStream"]),
        ("403 Forbidden", "ExpiredTokenException", "token is expired", ["expired", "renew"]),
        ("403 Forbidden", "UnrecognizedClientException", "token is invalid", ["token is invalid"]),
        ("404 Not Found", "ResourceNotFoundException", "no such model", ["no such model", "--llm-model"]),
        ("408 Request Timeout", "ModelTimeoutException", "too long", ["too long"]),
        ("424 Failed Dependency", "ModelErrorException", "it failed", ["it failed"]),
        ("500 Internal Server Error", "InternalServerException", "oops", ["oops"]),
        ("503 Service Unavailable", "ServiceUnavailableException", "busy", ["busy"]),
    ],
)  # fmt: skip
def test_refusals(rig: Rig, wire: Wire, status: str, name: str, message: str, words: list[str]) -> None:
    port = wire.serve(refusal(status, name, message))
    record = ask(rig, port.root).record
    assert (record.error_code, record.http_status) == (name, int(status[:3]))
    assert (record.response_id, record.retries, len(port.requests())) == (REQUEST_ID, 0, 1)
    assert record.end_to_end_latency_s is not None
    assert record.ttft_s is None
    for word in words:
        assert word in (record.error_message or "")


def test_a_gateways_refusal_has_its_status(rig: Rig, wire: Wire) -> None:
    page = b"<html>bad gateway</html>"
    record = ask(
        rig, wire.serve([send(head(LENGTH, len(page), status="502 Bad Gateway", kind="text/html") + page)]).root
    ).record
    assert (record.error_code, record.http_status) == ("502", 502)


def test_the_models_own_status_is_kept(rig: Rig, wire: Wire) -> None:
    script = refusal("424 Failed Dependency", "ModelErrorException", "it failed", originalStatusCode=503)
    assert "503" in (ask(rig, wire.serve(script).root).record.error_message or "")


def test_connections_are_used_again(rig: Rig, wire: Wire) -> None:
    port = wire.serve(answer(*converse_events("x")))
    for _ in range(3):
        assert ask(rig, port.root).record.ok
    assert port.connections == 1
