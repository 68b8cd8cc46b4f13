"""Errors in the shapes that servers really send, with status 200: each is a failure in the server's words.

The shapes are those of provider documentation and public bug reports; the server is named with each.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_reports.slo.gate import judge_all
from llm_users.record import REQUEST_COLUMNS, RequestRecord
from tests.stream_bytes import CHUNKED, DONE, chat_events, chunk, delta, event, head, reply, stream, usage
from tests.unit.reports.rows_on_disk import write_csv
from tests.unit.users.rig import Rig, at
from tests.wire_server import HOLD, Script, Wire, send

PRETTY = json.dumps({"error": {"message": "the worker died", "code": 500}}, indent=2).encode()
PAGE = b"<html>\n<head><title>504 Gateway Time-out</title></head>\n<body>nginx</body>\n</html>\n"


def choice(**fields: Any) -> bytes:
    return event({"id": "chat-1", "choices": [{"index": 0, "delta": {}, "finish_reason": None, **fields}]})


# What comes after some text, the row's code, and the server's words.
IN_STREAM: dict[str, tuple[bytes, str, str]] = {
    "error field (llama.cpp)": (b'error: {"code": 400, "message": "prompt too long"}\n\n', "400", "prompt too long"),
    "error field, text": (b"error: out of memory\n\n", "error", "out of memory"),
    "error field after data": (delta(content="")[:-1] + b'error: {"message": "late"}\n\n', "error", "late"),
    "text and error_code (FastChat)": (event({"text": "the worker is gone", "error_code": 50001}), "50001", "is gone"),
    "error in the choice (OpenRouter)": (
        choice(error={"code": 502, "message": "the provider is down"}, finish_reason="error"),
        "502",
        "provider is down",
    ),
    "error in the choice, no reason": (choice(error={"message": "lost"}), "error", "lost"),
    "error in the choice, no delta": (choice(delta=None, error={"message": "gone"}), "error", "gone"),
    "reason with words (SGLang)": (choice(finish_reason={"type": "abort", "message": "too long"}), "abort", "too long"),
    "bare line (Ollama)": (b'{"error":{"message":"the runner died","type":"api_error"}}\n', "api_error", "runner died"),
    "bare line, string": (b'{"error": "an unknown error"}\n', "error", "an unknown error"),
    "bare lines, indented": (PRETTY + b"\n", "500", "the worker died"),
    "page of a gateway (nginx)": (PAGE, "malformed", "504 Gateway Time-out"),
    "code and message (DashScope)": (
        event({"code": "Throttling", "message": "slow", "request_id": "r"}),
        "Throttling",
        "slow",
    ),
    "code and msg (Zhipu)": (
        event({"code": 1301, "msg": "unsafe content", "success": False}),
        "1301",
        "unsafe content",
    ),
    "error_msg (Qianfan)": (event({"error_code": 336003, "error_msg": "too long"}), "336003", "too long"),
    "base_resp (MiniMax)": (
        event({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "no balance"}}),
        "1008",
        "no balance",
    ),
    "errors (Cloudflare)": (
        event({"success": False, "errors": [{"code": 3040, "message": "no capacity"}, {"message": "later"}]}),
        "3040",
        "no capacity; later",
    ),
    "message alone (API Gateway)": (event({"message": "Internal server error", "requestId": "r"}), "error", "Internal"),
    "message and type": (
        event({"message": "bad", "type": "BadRequestError", "param": None, "code": None}),
        "BadRequestError",
        "bad",
    ),
    "error is true": (event({"error": True, "message": "the words"}), "error", "the words"),
    "details (FMS)": (event({"code": 422, "details": "too many logprobs"}, name="error"), "422", "too many logprobs"),
    "error and message (LM Studio)": (
        event({"error": {"message": "Compute error."}, "message": "Compute error."}),
        "error",
        "Compute error.",
    ),
    "an error named as ours": (
        event({"error": {"message": "by the server", "code": "cancelled"}}),
        "server_cancelled",
        "by the server",
    ),
    "an error named as our dropped requests": (
        event({"error": {"message": "by the server", "code": "overflow"}}),
        "server_overflow",
        "by the server",
    ),
}


def after_text(*parts: bytes) -> Script:
    return stream([delta(role="assistant", content=""), delta(content="a"), *parts])


@pytest.mark.parametrize("ending", [[], [DONE]], ids=["end", "done"])
@pytest.mark.parametrize("name", IN_STREAM)
def test_an_error_after_text_is_the_servers(rig: Rig, wire: Wire, name: str, ending: list[bytes]) -> None:
    part, code, words = IN_STREAM[name]
    answer = rig.ask(wire.serve(after_text(part, *ending)).url)
    record = answer.record
    assert (record.error_code, answer.text, record.chunks, record.http_status) == (code, "a", 1, 200)
    assert words in (record.error_message or "")
    assert record.outcome.is_failure
    assert record.ttft_s is not None


@pytest.mark.parametrize(
    "reason",
    ["error", "ERROR", "abort", "malformed_model_output", "malformed_tool_use", "insufficient_system_resource"],
)
def test_a_finish_reason_that_is_a_failure(rig: Rig, wire: Wire, reason: str) -> None:
    record = rig.ask(wire.serve(after_text(delta(reason), usage(1), DONE)).url).record
    assert (record.error_code, record.finish_reason) == (reason, reason)
    assert reason in (record.error_message or "")
    assert (record.output_tokens, record.output_tokens_source) == (1, "usage")  # what follows is still read
    whole = {"choices": [{"message": {"content": "a"}, "finish_reason": reason}]}
    assert rig.ask(wire.serve(reply("200 OK", whole)).url).record.error_code == reason


# What comes in the place of an answer.
DOCUMENTS: dict[str, tuple[Any, str, str]] = {
    "error": ({"error": {"code": 400, "message": "prompt too long"}}, "400", "prompt too long"),
    "indented": (PRETTY, "500", "the worker died"),
    "code and msg": ({"code": 1301, "msg": "unsafe content", "success": False}, "1301", "unsafe content"),
    "error_msg": ({"error_code": 336003, "error_msg": "the max input length is 20000"}, "336003", "max input length"),
    "errors": (
        {"result": None, "success": False, "errors": [{"code": 7003, "message": "no route"}]},
        "7003",
        "no route",
    ),
    "errors by field (ASP.NET)": (
        {"title": "One or more errors", "status": 400, "errors": {"n": ["odd"]}},
        "error",
        "odd",
    ),
    "message": ({"message": "no Route matched with those values"}, "error", "no Route matched"),
    "message and more": ({"message": "not ready", "progress": 0.5}, "error", "not ready"),
    "status": ({"status": "error", "message": "no model"}, "error", "no model"),
    "base_resp": ({"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, "1004", "login fail"),
    "detail": ({"detail": [{"loc": ["body", "n"], "msg": "too big"}]}, "error", "body.n: too big"),
    "choices null": ({"choices": None, "error_code": 3, "error_msg": "no"}, "3", "no"),
    "error in the choice": ({"choices": [{"error": {"code": 502, "message": "down"}, "message": None}]}, "502", "down"),
    "page": (b"<!DOCTYPE html><html><title>Log in</title></html>", "malformed", "a page of HTML; check that the base"),
    "XML": (b'<?xml version="1.0"?><Error><Message>no bucket</Message></Error>', "malformed", "no bucket"),
    "text": (b"upstream connect error", "truncated", "upstream connect error"),
    "list": ([{"candidates": []}], "truncated", "candidates"),
    "another JSON": ({"models": ["a"]}, "truncated", "check that the base URL is the URL of the API"),
    "cut": (b'{"choices": [{"mess', "truncated", "truncated or invalid JSON"),
    "lines": (b'{"a": 1}\n{"a": 2}\n', "malformed", "JSON lines"),
    "lines with an error": (b'{"error": "model not found"}\n{"done": true}\n', "error", "model not found"),
    "lines (Ollama)": (
        b'{"model": "x", "message": {"role": "assistant", "content": "a"}, "done": false}\r\n'
        b'{"model": "x", "message": {"role": "assistant", "content": ""}, "done": true}\r\n',
        "malformed",
        "base URL",
    ),
}
KINDS = ("text/event-stream", "application/json", "application/x-ndjson", "text/html; charset=utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_comes_in_the_place_of_an_answer(rig: Rig, wire: Wire, name: str) -> None:
    body, code, words = DOCUMENTS[name]
    port = wire.serve(*(reply("200 OK", body, kind=kind) for kind in KINDS))
    for _kind in KINDS:
        record = rig.ask(port.url).record
        assert (record.error_code, record.http_status, record.chunks) == (code, 200, 0)
        assert words in (record.error_message or "")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_does_not_depend_on_how_the_bytes_are_split(rig: Rig, wire: Wire, name: str) -> None:
    body, code, _words = DOCUMENTS[name]
    data = b"\r\n  " + (body if isinstance(body, bytes) else json.dumps(body).encode())
    pieces = [chunk(data[start : start + 3]) for start in range(0, len(data), 3)]
    script = [send(head(CHUNKED)), *map(send, pieces), send(b"0\r\n\r\n")]
    assert rig.ask(wire.serve(script).url).record.error_code == code


def test_lines_of_json_are_refused_before_they_end(rig: Rig, wire: Wire) -> None:
    port = wire.serve([send(head(CHUNKED) + chunk(b'{"a": 1}\n') + chunk(b'{"a": 2}\n')), HOLD])
    assert rig.ask(port.url).record.error_code == "malformed"
    assert port.left_by_client()


def test_a_body_that_is_too_long_is_given_up(rig: Rig, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_users.transport.sse.MAX_EVENT_BYTES", 1 << 20)
    body = b'{"x": "' + b"y" * (2 << 20)
    record = rig.ask(wire.serve(reply("200 OK", body)).url).record
    assert record.error_code == "malformed"
    assert "not a stream is longer" in (record.error_message or "")


def test_a_secret_in_a_document_is_not_shown(rig: Rig, wire: Wire) -> None:
    for body in (
        {"message": "key sk-secret-0123456789 is wrong"},
        {"x": "sk-secret-0123456789"},
        b"<p>sk-secret-0123456789",
    ):
        record = rig.ask(wire.serve(reply("200 OK", body)).url).record
        assert record.error_code
        assert "sk-secret" not in (record.error_message or "")


# Answers that are not failures.

NO_FAILURES: dict[str, list[bytes]] = {
    "code 0 beside choices (Spark)": [
        event({"code": 0, "message": "Success", "choices": [{"index": 0, "delta": {"content": "a"}}]}),
        delta("stop"),
        event({"code": 0, "message": "Success", "sid": "s", "usage": {"prompt_tokens": 7, "completion_tokens": 1}}),
    ],
    "code 200": [event({"code": 200, "msg": "ok", "success": True}), delta(content="a"), delta("stop")],
    "error_code 0 (FastChat)": [event({"text": "", "error_code": 0}), delta(content="a"), delta("stop")],
    "base_resp 0 (MiniMax)": [
        event(
            {"choices": [{"index": 0, "delta": {"content": "a"}}], "base_resp": {"status_code": 0, "status_msg": ""}}
        ),
        delta("stop"),
        event({"choices": [], "base_resp": {"status_code": 0, "status_msg": "success"}}),
    ],
    "empty errors": [
        event({"choices": [{"index": 0, "delta": {"content": "a"}}], "error": {"code": 0, "message": ""}}),
        event({"choices": [], "errors": [], "error": False, "error_code": None}),
        delta("stop"),
    ],
    "progress": [event({"message": "model is loading", "progress": 0.5}), delta(content="a"), delta("stop")],
    "typed ping": [event({"type": "ping", "message": "still here"}), delta(content="a"), delta("stop")],
    "lines without a field name": [b"nonsense\n", delta(content="a"), b"{nonsense}\n\n[1]\n\n<b>\n", delta("stop")],
    "bare chunks": [delta(content="a"), b'{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n'],
}


@pytest.mark.parametrize("name", NO_FAILURES)
def test_what_went_well_is_no_failure(rig: Rig, wire: Wire, name: str) -> None:
    answer = rig.ask(wire.serve(stream([*NO_FAILURES[name], DONE])).url)
    assert (answer.record.error_code, answer.text, answer.record.chunks) == (None, "a", 1)


def test_a_document_with_a_code_of_success_is_an_answer(rig: Rig, wire: Wire) -> None:
    body = {"code": 0, "msg": "success", "choices": [{"message": {"content": "a"}, "finish_reason": "stop"}]}
    answer = rig.ask(wire.serve(reply("200 OK", body)).url)
    assert (answer.text, answer.record.ok) == ("a", True)


# Other APIs share the rules.


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "no route"}, "no route"),
        ({"code": 7, "msg": "odd"}, "odd"),
        (b'error: {"message": "in a field"}\n\n', "in a field"),
        (b'{"error": {"message": "bare"}}\n', "bare"),
        (b"<html>log in</html>", "HTML"),
    ],
)
def test_messages_and_responses_have_the_same_rules(rig: Rig, claude: Rig, wire: Wire, body: Any, words: str) -> None:
    port = wire.serve(reply("200 OK", body, kind="text/event-stream"))
    for record in (
        rig.call(at(port.url, lambda user: user.respond("hi"))).record,
        claude.call(at(port.url, lambda user: user.message("hi"))).record,
    ):
        assert record.outcome.is_failure
        assert words in (record.error_message or "")


def test_the_error_of_a_status_may_be_a_list(rig: Rig, wire: Wire) -> None:
    said = [{"error": {"code": 400, "message": "API key not valid", "status": "INVALID_ARGUMENT"}}]  # Google
    record = rig.ask(wire.serve(reply("400 Bad Request", said)).url).record
    assert (record.error_code, record.error_message) == ("400", "API key not valid")


# The gate.


def test_the_gate_fails_on_each_shape(rig: Rig, wire: Wire, tmp_path: Path) -> None:
    scripts = {name: after_text(part, DONE) for name, (part, _, _) in IN_STREAM.items()}
    scripts |= {name: reply("200 OK", body, kind="text/event-stream") for name, (body, _, _) in DOCUMENTS.items()}
    scripts["finish reason"] = after_text(delta("error"), DONE)
    scripts["good"] = stream(chat_events("a"))
    rows: list[RequestRecord] = []
    for name, script in scripts.items():
        record = rig.ask(wire.serve(script).url).record
        row = dataclasses.replace(record, model=name, measured=1, phase="measure", concurrency=1)
        for copy in range(40):  # below 30 requests nothing is decided
            started_s = 1_700_000_000.0 + copy * 10
            rows.append(dataclasses.replace(row, request_id=f"{name}-{copy}", started_at=started_s))
    path = write_csv(
        tmp_path / "x_llm_requests.csv", [column.name for column in REQUEST_COLUMNS], [row.row() for row in rows]
    )
    judged = judge_all(llm_reports.groups([llm_reports.load(path)]), llm_reports.parse_objectives("errors<0.01"))
    outcomes = {judgement.group.model: judgement.verdict for judgement in judged}
    assert outcomes == dict.fromkeys(scripts, "failed") | {"good": outcomes["good"]}
    assert outcomes["good"] != "failed"
