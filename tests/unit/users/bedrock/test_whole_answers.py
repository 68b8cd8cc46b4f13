"""Converse and InvokeModel, whose answers are not streamed: rows against the simulator's log and boto3's parser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

from llm_users.simulator.launch import launch
from llm_users.users.answer import Answer
from tests.stream_bytes import LENGTH, head, reply
from tests.unit.users.bedrock.frames import MODEL
from tests.unit.users.rig import Rig, at
from tests.wire_server import CLOSE, HOLD, Wire, send

MakeRig = Callable[..., Rig]
Simulate = Callable[[str], str]

MODELS = {
    "anthropic-messages": "anthropic.claude-3-5-sonnet-20240620-v1:0",
    "anthropic-text": "anthropic.claude-v2:1",
    "llama": "meta.llama3-1-8b-instruct-v1:0",
    "nova": "amazon.nova-lite-v1:0",
    "mistral-text": "mistral.mistral-7b-instruct-v0:2",
    "mistral-chat": "mistral.mistral-large-2407-v1:0",
    "jamba": "ai21.jamba-1-5-large-v1:0",
    "deepseek-text": "us.deepseek.r1-v1:0",
    "openai": "openai.gpt-oss-20b-1:0",
}

CONVERSED: dict[str, Any] = {
    "output": {"message": {"role": "assistant", "content": [{"text": "Hello"}, {"text": " there"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 7, "outputTokens": 3, "totalTokens": 12, "cacheReadInputTokens": 2},
    "metrics": {"latencyMs": 40},
    "performanceConfig": {"latency": "optimized"},
    "serviceTier": {"type": "flex"},
}


def converse(rig: Rig, url: str, **more: Any) -> Answer:
    answer: Answer = rig.call(at(url, lambda user: user.converse("hello", stream=False, **more)))
    return answer


def invoke(rig: Rig, url: str, **more: Any) -> Answer:
    answer: Answer = rig.call(at(url, lambda user: user.invoke("hello", stream=False, **more)))
    return answer


def with_content(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**CONVERSED, "output": {"message": {"role": "assistant", "content": list(blocks)}}, **more}


@pytest.mark.alone
@pytest.mark.parametrize("transport", ["fast", "sdk"])
@pytest.mark.parametrize("ask", [converse, invoke])
def test_latency_and_tokens_are_those_of_the_simulators_log(
    rig_with: MakeRig, tmp_path: Path, ask: Callable[..., Answer], transport: str
) -> None:
    rig, log = rig_with(llm_output_tokens="12,0", llm_transport=transport), tmp_path / "log.jsonl"
    with launch("ttft=60ms,itl=5ms", log=log) as server:
        record = ask(rig, server.url.removesuffix("/v1")).record
    entry = json.loads(log.read_text())
    sent_s = (entry["last_ns"] - entry["received_ns"]) / 1e9
    assert sent_s >= 0.060 + 0.005 * 11
    assert (record.error_code, record.streamed, record.http_status) == (None, 0, 200)
    assert record.end_to_end_latency_s == pytest.approx(sent_s, abs=0.002 if transport == "fast" else 0.03)
    assert (record.output_tokens, record.output_tokens_source) == (entry["tokens"], "usage") == (12, "usage")
    assert record.input_tokens == entry["prompt_tokens"]
    assert record.response_id == entry["response_id"]
    assert (record.ttft_s, record.tpot_s, record.last_token_s, record.gap_max_s, record.chunks) == (None,) * 4 + (0,)
    assert record.server_latency_s == pytest.approx(sent_s, abs=0.01)
    assert record.stamp_source == ("kernel" if transport == "fast" else "user")


@pytest.mark.parametrize("name", MODELS)
def test_every_family_gives_the_answer_of_its_stream(rig_with: MakeRig, name: str) -> None:
    rig = rig_with(llm_output_tokens="12,0")
    answers = []
    for stream in (True, False):
        with launch("ttft=1ms,itl=1ms,reasoning=3,tool=2,cached=2") as server:
            url = server.url.removesuffix("/v1")
            answers.append(
                rig.call(
                    at(
                        url,
                        lambda user, stream=stream: user.invoke(
                            "why is the sky blue", stream=stream, modelId=MODELS[name]
                        ),
                    )
                )
            )
    streamed, whole = answers
    assert (whole.record.error_code, whole.record.streamed, streamed.record.streamed) == (None, 0, 1)
    assert whole.text.strip() == streamed.text.strip()
    assert whole.reasoning.split() == streamed.reasoning.split()
    assert whole.finish_reason == streamed.finish_reason
    assert whole.tool_calls == streamed.tool_calls or [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in whole.tool_calls
    ] == [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
        for call in streamed.tool_calls
    ]
    for column in ("output_tokens", "output_tokens_source", "input_tokens", "cached_tokens", "model"):
        assert getattr(whole.record, column) == getattr(streamed.record, column), column


TOOL = {"toolUse": {"toolUseId": "tool_1", "name": "weather", "input": {"city": "Ulm"}}}
THOUGHT = {"reasoningContent": {"reasoningText": {"text": "Let me think.", "signature": "sig"}}}
REDACTED = {"reasoningContent": {"redactedContent": "c2VjcmV0"}}


@pytest.mark.parametrize("transport", ["fast", "sdk"])
@pytest.mark.parametrize(
    "body",
    [
        CONVERSED,
        with_content(THOUGHT, {"text": "Hello"}),
        with_content(REDACTED, {"text": "Hello"}),
        with_content({"text": "I look."}, TOOL, stopReason="tool_use"),
        with_content({"text": "Blocked."}, stopReason="guardrail_intervened"),
    ],
)
def test_boto3s_parser_agrees_on_converse(rig_with: MakeRig, wire: Wire, body: dict[str, Any], transport: str) -> None:
    port = wire.serve(reply("200 OK", body, more="x-amzn-RequestId: 1-2-3\r\n"))
    answer = converse(rig_with(llm_transport=transport), port.root)
    client = boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=port.root)
    theirs = client.converse(modelId=MODEL, messages=[{"role": "user", "content": [{"text": "hello"}]}])
    blocks = theirs["output"]["message"]["content"]
    assert answer.record.error_code is None
    assert answer.text == "".join(block.get("text", "") for block in blocks)
    assert answer.reasoning == "".join(
        block["reasoningContent"].get("reasoningText", {}).get("text", "")
        for block in blocks
        if "reasoningContent" in block
    )
    assert [
        (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in answer.tool_calls
    ] == [
        (block["toolUse"]["toolUseId"], block["toolUse"]["name"], block["toolUse"]["input"])
        for block in blocks
        if "toolUse" in block
    ]
    record = answer.record
    assert answer.finish_reason == theirs["stopReason"]
    assert record.response_id == theirs["ResponseMetadata"]["RequestId"]
    assert record.output_tokens == theirs["usage"]["outputTokens"]
    assert record.input_tokens == theirs["usage"]["inputTokens"] + theirs["usage"]["cacheReadInputTokens"]
    assert record.server_latency_s == theirs["metrics"]["latencyMs"] / 1000
    assert record.latency_mode == theirs["performanceConfig"]["latency"]
    assert port.requests()[0].target == f"/model/{MODEL}/converse".replace(":", "%3A")


def test_boto3_reads_the_same_body_of_invoke_model(rig_with: MakeRig, wire: Wire) -> None:
    body = {"generation": "Hello there", "prompt_token_count": 5, "generation_token_count": 2, "stop_reason": "stop"}
    counts = "x-amzn-bedrock-input-token-count: 6\r\nx-amzn-bedrock-output-token-count: 3\r\n"
    port = wire.serve(reply("200 OK", body, more=f"{counts}x-amzn-bedrock-invocation-latency: 40\r\n"))
    answer = invoke(rig_with(), port.root, modelId=MODELS["llama"])
    client = boto3.client("bedrock-runtime", region_name="us-east-1", endpoint_url=port.root)
    theirs = json.loads(client.invoke_model(modelId=MODELS["llama"], body=b"{}")["body"].read())
    assert (answer.text, answer.finish_reason) == (theirs["generation"], theirs["stop_reason"])
    record = answer.record
    assert (record.input_tokens, record.output_tokens, record.server_latency_s) == (6, 3, 0.04)  # the service's
    assert port.requests()[0].target.endswith("/invoke")


def test_a_custom_format_reads_the_whole_document(make_rig: MakeRig, wire: Wire) -> None:
    form = {"body": {"inputs": "{prompt}"}, "text": "outputs[0].text", "finish_reason": "outputs[0].stop"}
    rig = make_rig(attributes={"invoke_format": form})
    body = {"outputs": [{"text": "Hello", "stop": "end"}]}
    answer = invoke(rig, wire.serve(reply("200 OK", body)).root, modelId="own.model-v1:0")
    assert (answer.record.error_code, answer.text, answer.finish_reason) == (None, "Hello", "end")


def test_a_guardrail_that_blocks_an_answer_is_its_finish_reason(rig_with: MakeRig, wire: Wire) -> None:
    body = {"amazon-bedrock-guardrailAction": "INTERVENED", "outputText": "Sorry, no."}
    answer = invoke(rig_with(), wire.serve(reply("200 OK", body)).root, modelId=MODELS["llama"])
    assert (answer.record.error_code, answer.text) == (None, "Sorry, no.")
    assert answer.finish_reason == "guardrail_intervened"


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_exceptions_before_an_answer_have_their_names(rig_with: MakeRig, simulate: Simulate, transport: str) -> None:
    url = simulate("ttft=1ms,itl=1ms,bedrock_error=throttling:1")
    record = converse(rig_with(llm_transport=transport), url).record
    assert (record.error_code, record.http_status, record.outcome) == ("ThrottlingException", 429, "throttled")


WRONG: dict[str, tuple[Any, str, str]] = {
    "an exception": (
        {"__type": "com.amazon.coral.service#InternalServerException", "message": "try later"},
        "com.amazon.coral.service#InternalServerException", "try later"),
    "an error": ({"error": {"code": "busy", "message": "no GPU"}}, "busy", "no GPU"),
    "cut document": (json.dumps(CONVERSED)[:70], "truncated", "in the middle of its JSON"),
    "no JSON": ("Hello", "malformed", "not valid JSON"),
    "another shape": ({"output": "Hello"}, "malformed", "shape of Converse"),
    "empty": ("", "empty", "empty body"),
    "page": ("<html><body>Welcome</body></html>", "malformed", "Welcome"),
    "an event stream": (b"\x00\x00\x00\x10\x00\x00\x00\x00", "malformed", "not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_body_has_an_error_code_that_says_what_is_wrong(rig_with: MakeRig, wire: Wire, case: str) -> None:
    body, code, words = WRONG[case]
    record = converse(rig_with(), wire.serve(reply("200 OK", body)).root).record
    assert (record.error_code, record.http_status, record.streamed) == (code, 200, 0)
    assert words in (record.error_message or "")


def test_an_answer_of_another_family_is_malformed(rig_with: MakeRig, wire: Wire) -> None:
    body = {"generation": "Hello", "stop_reason": "stop"}
    record = invoke(rig_with(), wire.serve(reply("200 OK", body)).root, modelId=MODELS["nova"]).record
    assert record.error_code == "malformed"
    assert "--llm-invoke-format" in (record.error_message or "")


def test_a_connection_that_closes_within_the_body_is_truncated(rig_with: MakeRig, wire: Wire) -> None:
    for ask in (converse, invoke):
        body = json.dumps(CONVERSED).encode()
        script = [send(head(LENGTH, len(body), kind="application/json") + body[:-30]), CLOSE]
        record = ask(rig_with(), wire.serve(script).root, modelId=MODELS["nova"]).record
        assert record.error_code == "truncated"


def test_deadlines_end_a_request(rig_with: MakeRig, wire: Wire) -> None:
    script = [send(head(LENGTH, 400, kind="application/json")), HOLD]
    for ask in (converse, invoke):
        record = ask(rig_with(llm_timeout="0.3s"), wire.serve(script).root).record
        assert record.error_code == "timeout"
        assert record.end_to_end_latency_s == pytest.approx(0.3, abs=0.15)
