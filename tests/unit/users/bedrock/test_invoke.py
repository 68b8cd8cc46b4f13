"""InvokeModelWithResponseStream: every family against the simulator, and its odd ends by script."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import launch
from llm_users.users.answer import Answer
from llm_users.users.bedrock.families import FAMILIES, family_of
from llm_users.users.bedrock.invoke import custom_family
from llm_users.users.bedrock.reasoning_tags import ReasoningTags
from tests.unit.users.bedrock.frames import REQUEST_ID, answer, cut_after, exception, metrics, part
from tests.unit.users.rig import Rig, at
from tests.wire_server import Script, Wire, pause

Simulate = Callable[[str], str]
MakeRig = Callable[..., Rig]
Document = dict[str, Any]

CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
# One model per family, in each of the ways in which AWS names models.
MODELS = {
    "anthropic-messages": "eu.anthropic.claude-sonnet-4-20250514-v1:0",
    "anthropic-text": "anthropic.claude-instant-v1",
    "llama": "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.meta.llama3-1-8b-instruct-v1:0",
    "nova": "us-gov.amazon.nova-lite-v1:0",
    "mistral-text": "mistral.mixtral-8x7b-instruct-v0:1",
    "mistral-chat": "mistral.mistral-large-2407-v1:0",
    "jamba": "ai21.jamba-1-5-mini-v1:0",
    "deepseek-text": "us.deepseek.r1-v1:0",
    "openai": "openai.gpt-oss-20b-1:0",
}


def ask(rig: Rig, url: str, prompt: str | None = "why is the sky blue", **more: Any) -> Answer:
    answered: Answer = rig.call(at(url, lambda user: user.invoke(prompt, **more)))
    return answered


@pytest.mark.parametrize("transport", ["fast", "sdk"])
@pytest.mark.parametrize("name", MODELS)
def test_every_family(rig_with: MakeRig, simulate: Simulate, name: str, transport: str) -> None:
    assert family_of(MODELS[name]).name == name
    rig = rig_with(llm_output_tokens="6,0", llm_transport=transport)
    answered = ask(rig, simulate("ttft=20ms,itl=2ms"), modelId=MODELS[name])
    record = answered.record
    assert (record.error_code, record.error_message) == (None, None)
    assert len(answered.text.split()) == 6
    assert (record.chunks, record.output_tokens, record.output_tokens_source) == (6, 6, "usage")
    assert record.input_tokens is not None
    assert 5 <= record.input_tokens <= 16  # the template's words count in the simulator
    assert (record.api, record.requested_output_tokens) == ("bedrock-invoke", 6)
    assert record.finish_reason in ("max_tokens", "length")
    assert record.server_ttft_s is not None
    assert record.server_latency_s is not None
    assert record.response_id
    assert record.ttft_s is not None
    assert record.ttft_s >= 0.0195


@pytest.mark.alone
@pytest.mark.parametrize("name", ["anthropic-messages", "nova", "openai"])
def test_reasoning(rig_with: MakeRig, tmp_path: Path, name: str) -> None:
    rig, log = rig_with(llm_output_tokens="6,0"), tmp_path / "log.jsonl"
    with launch("ttft=10ms,itl=20ms,reasoning=3", log=log) as server:
        answered = ask(rig, server.url.removesuffix("/v1"), modelId=MODELS[name])
    sent_ns = json.loads(log.read_text())["sent_ns"]
    assert answered.record.error_code is None
    assert (len(answered.reasoning.split()), len(answered.text.split())) == (3, 3)
    assert answered.record.ttft_s is not None
    assert answered.record.ttfat_s is not None
    assert answered.record.ttfat_s - answered.record.ttft_s == pytest.approx((sent_ns[3] - sent_ns[0]) / 1e9, abs=0.004)
    assert (answered.record.chunks, "<" in answered.reasoning + answered.text) == (6, False)


def choices(*pieces: str) -> list[bytes]:
    """An OpenAI-shaped answer in these pieces of content."""
    documents = [{"choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]} for piece in pieces]
    last = {"choices": [{"index": 0, "delta": {"content": None}, "finish_reason": "stop"}], **metrics(len(pieces))}
    return [part(document) for document in (*documents, last)]


@pytest.mark.parametrize(
    ("pieces", "reasoning", "text", "first_answer"),
    [
        # As Bedrock sends it: a pair of tags around each piece.
        (["", "<reasoning>First, </reasoning>", "<reasoning>then.</reasoning>", "Yes", "."], "First, then.", "Yes.", 2),
        (["<reasoning>a b", " c</reasoning>\n\nYes", " so"], "a b c\n\n", "Yes so", 1),
        (["<reas", "oning>a</rea", "soning>", "Yes"], "a", "Yes", 1),
        (["<reasoning></reasoning>", "Yes"], "", "Yes", 0),
        (["No <reasoning>", "tags</reasoning>"], "", "No <reasoning>tags</reasoning>", 0),
        (["<reasoning>never closed"], "never closed", "", None),
        (["\n", "<b>"], "", "\n<b>", 0),
        (["<rea"], "", "<rea", 0),
    ],
)
def test_reasoning_between_tags(
    rig: Rig, wire: Wire, pieces: list[str], reasoning: str, text: str, first_answer: int | None
) -> None:
    steps = answer(*choices(*pieces))
    script = [step for sent in steps for step in (sent, pause(0.005))]  # arrivals of their own
    answered = ask(rig, wire.serve(script).root, modelId=MODELS["openai"])
    assert (answered.record.error_code, answered.reasoning, answered.text) == (None, reasoning, text)
    record = answered.record
    assert (record.ttfat_s is None) == (first_answer is None)
    if record.ttfat_s is not None and record.ttft_s is not None:
        assert (record.ttfat_s > record.ttft_s) == bool(first_answer)


def test_tags_are_found_wherever_they_are_split() -> None:
    text = "<reasoning>a < b</reasoning>\n<reasoning> c</reasoning> Yes <reasoning>"
    for size in range(1, len(text) + 1):
        tags = ReasoningTags()
        pieces = [tags.split(text[start : start + size]) for start in range(0, len(text), size)] + [tags.rest()]
        assert ["".join(part) for part in zip(*pieces, strict=True)] == ["Yes <reasoning>", "a < b\n c "]


@pytest.mark.parametrize("name", ["anthropic-messages", "nova"])
def test_tool_calls_and_cached_tokens(rig_with: MakeRig, simulate: Simulate, name: str) -> None:
    rig = rig_with(llm_output_tokens="6,0")
    answered = ask(rig, simulate("ttft=10ms,itl=1ms,tool=4,cached=3"), modelId=MODELS[name])
    record = answered.record
    assert record.error_code is None
    assert [call["function"]["name"] for call in answered.tool_calls] == ["simulated"]
    assert answered.tool_calls[0]["function"]["arguments"]
    assert record.chunks == 6
    assert (record.cached_tokens, record.input_tokens) == (3, 5)


SYSTEM = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": [{"type": "text", "text": "three"}]},
]


@pytest.mark.parametrize(
    ("name", "field", "wanted"),
    [
        ("anthropic-messages", "system", "Be short."),
        ("anthropic-text", "prompt", "Be short.\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:"),
        ("llama", "prompt", "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe short.<|eot_id|>"
         "<|start_header_id|>user<|end_header_id|>\n\none<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
         "two<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nthree<|eot_id|>"
         "<|start_header_id|>assistant<|end_header_id|>\n\n"),
        ("nova", "system", [{"text": "Be short."}]),
        ("mistral-text", "prompt", "<s>[INST] Be short.\n\none [/INST] two</s><s>[INST] three [/INST]"),
        ("mistral-chat", "messages", SYSTEM),
        ("deepseek-text", "prompt", "<\uff5cbegin\u2581of\u2581sentence\uff5c>Be short.<\uff5cUser\uff5c>one"
         "<\uff5cAssistant\uff5c>two<\uff5cUser\uff5c>three<\uff5cAssistant\uff5c><think>\n"),
        ("openai", "messages", SYSTEM),
    ],
)  # fmt: skip
def test_a_conversation_in_each_familys_words(name: str, field: str, wanted: Any) -> None:
    from llm_users.prompts import Prompt

    family = FAMILIES[name]
    body = family.body(MODELS[name], Prompt(-1, None, SYSTEM, None, None), 9)
    assert body[field] == wanted
    value: Any = body
    for key in ("max_completion_tokens",) if name == "openai" else family.cap:
        value = value[key]
    assert value == 9


def test_what_is_sent(rig: Rig, wire: Wire) -> None:
    port = wire.serve(answer(part({"type": "message_stop", **metrics(0)})))
    given = {"guardrailIdentifier": "g1", "guardrailVersion": "1", "serviceTier": "flex", "temperature": 0}
    record = ask(rig, port.root, "Why?", performanceConfigLatency="optimized", **given).record
    request = port.requests()[0]
    assert request.target == f"/model/{CLAUDE.replace(':', '%3A')}/invoke-with-response-stream"
    assert request.json() == {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 150,
        "messages": [{"role": "user", "content": "Why?"}],
        "temperature": 0,
    }
    headers = request.headers
    assert headers["x-amzn-bedrock-guardrailidentifier"] == "g1"
    assert headers["x-amzn-bedrock-service-tier"] == "flex"
    assert headers["x-amzn-bedrock-performanceconfig-latency"] == "optimized"
    assert json.loads(headers["x-amzn-bedrock-request-metadata"]) == {
        "locust-run": record.run_id,
        "locust-stage": "1",
    }


NOVA_TEXT = {"contentBlockDelta": {"delta": {"text": "x"}}}
NOVA_STOP = {"messageStop": {"stopReason": "end_turn"}}


def test_fields_of_the_user_replace_ours_one_by_one(rig: Rig, wire: Wire) -> None:
    port = wire.serve(answer(part(NOVA_TEXT), part({**NOVA_STOP, **metrics(1)})))
    record = ask(rig, port.root, modelId=MODELS["nova"], inferenceConfig={"temperature": 0}).record
    assert record.error_code is None
    assert port.requests()[0].json()["inferenceConfig"] == {"maxTokens": 150, "temperature": 0}
    record = ask(rig, port.root, modelId=MODELS["nova"], inferenceConfig={"maxTokens": 3}).record
    assert record.requested_output_tokens == 3
    port = wire.serve(answer(part({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}], **metrics(1)})))
    record = ask(rig, port.root, None, modelId=MODELS["openai"], max_tokens=5, messages=SYSTEM).record
    body = port.requests()[0].json()
    assert (body["max_tokens"], "max_completion_tokens" in body, body["messages"]) == (5, False, SYSTEM)
    assert record.requested_output_tokens == 5


def text_delta(text: str) -> Document:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


STOP = {"type": "message_stop", **metrics(9, cacheReadInputTokenCount=5, cacheWriteInputTokenCount=1)}
REASON = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}}
BEGIN = {"type": "message_start", "message": {"usage": {"input_tokens": 3, "output_tokens": 1}}}


def test_the_services_counts_go_before_the_familys(rig: Rig, wire: Wire) -> None:
    script = answer(part(BEGIN), part(text_delta("x")), part(REASON), part(STOP))
    record = ask(rig, wire.serve(script).root).record
    assert (record.output_tokens, record.input_tokens, record.cached_tokens) == (9, 13, 5)
    assert (record.server_ttft_s, record.server_latency_s) == (pytest.approx(0.123), pytest.approx(0.321))
    assert (record.finish_reason, record.response_id) == ("end_turn", REQUEST_ID)


def test_the_familys_own_counts_will_do(rig: Rig, wire: Wire) -> None:
    script = answer(part(BEGIN), part(text_delta("x")), part(REASON), part({"type": "message_stop"}))
    record = ask(rig, wire.serve(script).root).record
    assert (record.error_code, record.output_tokens, record.input_tokens) == (None, 4, 3)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (answer(part(text_delta("x")), part(REASON), part(STOP)), None),  # without message_start
        (answer(part(BEGIN), part(text_delta("x")), part(STOP)), None),  # without message_delta
        (answer(part(BEGIN), part(text_delta("x")), part(REASON)), "truncated"),  # without message_stop
        (cut_after(part(BEGIN), part(text_delta("x"))), "truncated"),
        (answer(part(BEGIN), part({"type": "ping"}), part(text_delta("x")), part(STOP)), None),
        (answer(part(BEGIN), part(STOP)), "empty"),
        (answer(part({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}})), "Overloaded_error"),
        (answer(part({"surprise": 1}), part(STOP)), "malformed"),
        (answer(part([1])), "malformed"),
        (answer(part(b"no json")), "malformed"),
        (answer(part(text_delta("x")), exception("throttlingException", message="m")), "ThrottlingException"),
        (answer(part(text_delta("x")), exception("modelTimeoutException", message="m")), "ModelTimeoutException"),
    ],
)
def test_the_ends_of_anthropics_stream(rig: Rig, wire: Wire, script: Script, code: str | None) -> None:
    record = ask(rig, wire.serve(script).root).record
    assert (record.error_code or "").lower() == (code or "").lower()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "anthropic-messages"])
def test_an_unknown_shape_is_an_error(rig: Rig, wire: Wire, name: str) -> None:
    record = ask(rig, wire.serve(answer(part({"surprise": 1, "text_": "x"}))).root, modelId=MODELS[name]).record
    assert record.error_code == "malformed"
    assert "surprise" in (record.error_message or "")
    assert "--llm-invoke-format" in (record.error_message or "")


def test_a_guardrails_word_is_the_finish_reason(rig: Rig, wire: Wire) -> None:
    said = {"amazon-bedrock-guardrailAction": "INTERVENED", **metrics(1)}
    script = answer(part({"completion": " No.", "stop_reason": None}), part(said))
    answered = ask(rig, wire.serve(script).root, modelId=MODELS["anthropic-text"])
    assert (answered.record.error_code, answered.finish_reason) == (None, "guardrail_intervened")


BLOCKED = {"amazon-bedrock-guardrailAction": "INTERVENED", "amazon-bedrock-trace": {"guardrail": {"input": {}}}}
SORRY = "Sorry, the model cannot answer this question."


@pytest.mark.parametrize(
    ("documents", "text"),
    [
        ([{"type": "message", "content": [{"type": "text", "text": SORRY}], **BLOCKED}], ""),  # a type of no event
        ([{"content": [{"type": "text", "text": SORRY}], **BLOCKED}], SORRY),
        ([{"completion": SORRY, **BLOCKED}], SORRY),
        ([{"outputText": SORRY, **BLOCKED}], SORRY),
        ([BLOCKED], ""),
        ([BEGIN, text_delta(SORRY), BLOCKED], SORRY),
        ([BEGIN, text_delta(SORRY), {**REASON, **BLOCKED}, STOP], SORRY),
        ([BEGIN, text_delta(SORRY), BLOCKED, REASON, STOP], SORRY),
        ([BEGIN, text_delta(SORRY), REASON, {**STOP, **BLOCKED}], SORRY),
    ],
)
def test_what_a_guardrail_blocked_is_an_answer(rig: Rig, wire: Wire, documents: list[Document], text: str) -> None:
    answered = ask(rig, wire.serve(answer(*map(part, documents))).root)
    record = answered.record
    assert (record.error_code, answered.finish_reason, answered.text) == (None, "guardrail_intervened", text)
    assert record.chunks == bool(text)


@pytest.mark.parametrize("action", ["NONE", None])
def test_a_guardrail_that_let_it_pass_changes_nothing(rig: Rig, wire: Wire, action: str | None) -> None:
    passed = {"amazon-bedrock-guardrailAction": action, "amazon-bedrock-trace": {}}
    script = answer(part(BEGIN), part(text_delta("x")), part({**REASON, **passed}), part({**STOP, **passed}))
    assert ask(rig, wire.serve(script).root).finish_reason == "end_turn"


CALLS = {
    "anthropic-messages": [
        {"type": "content_block_start", "content_block": {"type": "tool_use", "id": "c1", "name": "look"}},
        {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"at": "sea"}'}},
        STOP,
    ],
    "nova": [
        {"contentBlockStart": {"start": {"toolUse": {"toolUseId": "c1", "name": "look"}}}},
        {"contentBlockDelta": {"delta": {"toolUse": {"input": {"at": "sea"}}}}},
        {"messageStop": {"stopReason": "tool_use"}},
    ],
    "mistral-chat": [
        {"choices": [{"message": {"tool_calls": [{"function": {"name": "look", "arguments": {"at": "sea"}}}]}}]},
        {"choices": [{"message": {}, "stop_reason": "tool_calls"}]},
    ],
    "openai": [
        {"choices": [{"delta": {"tool_calls": [{"index": 1, "id": "c1", "function": {"name": "look"}}]}}]},
        {"choices": [{"delta": {"tool_calls": [{"index": 1, "function": {"arguments": '{"at": "sea"}'}}]}}]},
        {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_tool_calls_are_not_in_the_text(rig: Rig, wire: Wire, name: str) -> None:
    answered = ask(rig, wire.serve(answer(*map(part, CALLS[name]))).root, modelId=MODELS[name])
    assert (answered.record.error_code, answered.text) == (None, "")
    (made,) = answered.tool_calls
    assert made["function"] == {"name": "look", "arguments": '{"at": "sea"}'}
    assert answered.record.chunks == (2 if name == "openai" else 1)


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use", "ERROR"])
def test_a_finish_reason_that_is_a_failure(rig: Rig, wire: Wire, reason: str) -> None:
    last = {"choices": [{"delta": {"content": "x"}, "finish_reason": reason}]}
    record = ask(rig, wire.serve(answer(part(last))).root, modelId=MODELS["openai"]).record
    assert (record.error_code, record.finish_reason) == (reason, reason)


FORM = {
    "body": {"inputs": "{prompt}", "parameters": {"max_new_tokens": "{max_tokens}", "stop": ["</s>"]}},
    "text": "token.text",
    "reasoning": "token.thought",
    "finish_reason": "details.reason",
    "output_tokens": "details.generated",
}
IMPORTED = "arn:aws:bedrock:us-east-1:123456789012:imported-model/abcdef123456"


@pytest.mark.parametrize("in_a_file", [False, True])
def test_a_format_of_ones_own(make_rig: MakeRig, wire: Wire, tmp_path: Path, in_a_file: bool) -> None:
    (tmp_path / "form.json").write_text(json.dumps(FORM))
    given = {"llm_invoke_format": str(tmp_path / "form.json")} if in_a_file else {"attributes": {"invoke_format": FORM}}
    rig = make_rig(**given)
    events = [{"token": {"thought": "hm"}}, {"token": {"text": "Yes"}}, {"details": {"reason": "eos", "generated": 3}}]
    port = wire.serve(answer(*map(part, events)))
    answered = ask(rig, port.root, "Why?", modelId=IMPORTED)
    assert (answered.text, answered.reasoning, answered.finish_reason) == ("Yes", "hm", "eos")
    assert (answered.record.error_code, answered.record.output_tokens) == (None, 3)
    assert port.requests()[0].json() == {"inputs": "Why?", "parameters": {"max_new_tokens": 150, "stop": ["</s>"]}}
    other = ask(rig, wire.serve(answer(part({"other": 1}))).root, modelId=IMPORTED).record
    assert other.error_code == "malformed"


@pytest.mark.parametrize(
    "model", ["amazon.titan-text-express-v1", "cohere.command-text-v14", "us.cohere.command-r-plus-v1:0"]
)
def test_retired_models_have_no_format(model: str) -> None:
    with pytest.raises(ValueError, match="--llm-invoke-format"):
        family_of(model)


def test_a_model_that_says_nothing_needs_a_format(rig: Rig) -> None:
    record = ask(rig, "http://127.0.0.1:9", modelId=IMPORTED).record
    assert record.error_code == "ValueError"
    assert "--llm-invoke-format" in (record.error_message or "")


@pytest.mark.parametrize(
    ("form", "words"),
    [({"text": "a"}, "body"), ({"body": {}, "text": "a["}, "JMESPath"), ({"body": {}, "text": "a", "x": 1}, "x")],
)
def test_a_bad_format_is_refused_with_words(form: Document, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        custom_family(form)
