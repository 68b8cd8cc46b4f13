"""OpenAI's responses and Anthropic's messages: the endpoint byte for byte, and the client held against its log."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import launch

from .wire import Answer, Client

Json = dict[str, Any]
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
BOTH = (RESPONSES, MESSAGES)
DELTAS = ("response.output_text.delta", "response.reasoning_text.delta", "response.function_call_arguments.delta",
          "content_block_delta")  # fmt: skip


def asked(path: str, tokens: int = 4, *, stream: bool = True, **more: Any) -> Json:
    prompt = "why is the sky blue"
    if path == RESPONSES:
        return {"model": "simulated", "input": prompt, "max_output_tokens": tokens, "stream": stream, **more}
    turns = [{"role": "user", "content": prompt}]
    return {"model": "simulated", "messages": turns, "max_tokens": tokens, "stream": stream, **more}


def ask(client: Client, path: str, body: Json, **headers: str) -> Answer:
    version = {"anthropic-version": "2023-06-01"} if path == MESSAGES else {}
    return client.ask("POST", path, body, {**version, **headers})


def documents(answer: Answer) -> list[Json]:
    """The data of the events; each event's name is its type."""
    found = []
    for text in answer.events:
        name, _, data = text.partition("\n")
        document = json.loads(data.removeprefix("data: "))
        assert name == f"event: {document['type']}"
        found.append(document)
    return found


def stamps(answer: Answer) -> list[int]:
    """Of the events with output; a signature is none."""
    return [
        stamp_ns
        for stamp_ns, document in zip(answer.stamps_ns, documents(answer), strict=True)
        if document["type"] in DELTAS and "signature" not in str(document["delta"])
    ]


def entries(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]


Connect = Callable[..., Client]


def test_responses_event_by_event(connect: Connect) -> None:
    answer = ask(connect("reasoning=1,tool=1,cached=2"), RESPONSES, asked(RESPONSES))
    said = documents(answer)
    assert [document["type"] for document in said] == [
        "response.created", "response.in_progress",
        "response.output_item.added", "response.reasoning_text.delta", "response.output_item.done",
        "response.output_item.added", "response.output_text.delta", "response.output_text.delta",
        "response.output_item.done",
        "response.output_item.added", "response.function_call_arguments.delta", "response.output_item.done",
        "response.completed",
    ]  # fmt: skip
    assert [document["sequence_number"] for document in said] == list(range(13))
    last = said[-1]["response"]
    assert last["id"] == said[0]["response"]["id"] == answer.headers["x-request-id"]
    assert last["id"].startswith("resp_0")
    assert last["usage"] == {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 2},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 9,
    }
    assert [item["type"] for item in last["output"]] == ["reasoning", "message", "function_call"]
    assert json.loads(said[10]["delta"])["text"]


def test_messages_event_by_event(connect: Connect) -> None:
    answer = ask(connect("reasoning=1,tool=1,cached=2"), MESSAGES, asked(MESSAGES))
    said = documents(answer)
    block = ["content_block_start", "content_block_delta"]
    assert [document["type"] for document in said] == [
        "message_start", *block, "content_block_delta", "content_block_stop", *block, "content_block_delta",
        "content_block_stop", *block, "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    deltas = [document["delta"]["type"] for document in said if document["type"] == "content_block_delta"]
    assert deltas == ["thinking_delta", "signature_delta", "text_delta", "text_delta", "input_json_delta"]
    message = said[0]["message"]
    assert message["id"] == answer.headers["request-id"]
    assert message["id"].startswith("msg_0")
    assert (message["usage"]["input_tokens"], message["usage"]["cache_read_input_tokens"]) == (3, 2)
    assert said[-2]["usage"] == {"output_tokens": 4}
    assert said[-2]["delta"]["stop_reason"] == "tool_use"


@pytest.mark.parametrize(
    ("path", "spec", "reason"),
    [
        (RESPONSES, "", ("response.incomplete", "max_output_tokens")),
        (RESPONSES, "finish=stop", ("response.completed", None)),
        (MESSAGES, "", ("message_stop", "max_tokens")),
        (MESSAGES, "finish=stop", ("message_stop", "end_turn")),
    ],
)
def test_how_an_answer_ends(connect: Connect, path: str, spec: str, reason: tuple[str, str | None]) -> None:
    *_, before, last = documents(ask(connect(spec), path, asked(path)))
    why = before["delta"]["stop_reason"] if path == MESSAGES else last["response"]["incomplete_details"]
    assert (last["type"], why["reason"] if isinstance(why, dict) else why) == reason


@pytest.mark.parametrize("path", BOTH)
def test_whole(connect: Connect, path: str) -> None:
    answer = ask(connect(), path, asked(path, stream=False))
    body = answer.json()
    parts = body["content"] if path == MESSAGES else body["output"][0]["content"]
    assert len(parts[0]["text"].split()) == body["usage"]["output_tokens"] == 4
    assert body["id"] == answer.headers["request-id" if path == MESSAGES else "x-request-id"]
    streamed = ask(connect("usage=off"), path, asked(path))
    assert "usage" not in streamed.body.decode()


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        (RESPONSES, {"model": "m"}, "input"),
        (MESSAGES, {"model": "m", "max_tokens": 3}, "messages"),
        (MESSAGES, {"model": "m", "messages": [{"role": "user", "content": "hi"}]}, "max_tokens"),
        (MESSAGES, asked(MESSAGES, 0), "max_tokens"),
        (RESPONSES, b"[1]", "JSON"),
        (RESPONSES, b'{"input": ' + b"[" * 5000, ""),
    ],
)
def test_a_bad_body_is_refused(connect: Connect, path: str, body: Any, words: str) -> None:
    answer = ask(connect(), path, body)
    assert answer.status == 400
    assert words in answer.json()["error"]["message"]
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert (answer.json().get("type") == "error") == (path == MESSAGES)


def test_messages_want_their_version(connect: Connect) -> None:
    answer = connect().ask("POST", MESSAGES, asked(MESSAGES))
    assert (answer.status, "anthropic-version" in answer.json()["error"]["message"]) == (400, True)


def test_the_key_may_come_as_either_api_has_it_and_is_never_shown(connect: Connect) -> None:
    client = connect("api_key=canary-key-1234")
    answers = [
        ask(client, MESSAGES, asked(MESSAGES), **{"x-api-key": "canary-key-1234"}),
        ask(client, MESSAGES, asked(MESSAGES), authorization="Bearer canary-key-1234"),
        ask(client, RESPONSES, asked(RESPONSES), authorization="Bearer canary-key-1234"),
        ask(client, MESSAGES, asked(MESSAGES), **{"x-api-key": "canary-other"}),
        ask(client, RESPONSES, asked(RESPONSES), **{"x-api-key": "canary-key-1234"}),
        ask(client, MESSAGES, asked(MESSAGES)),
    ]
    assert [answer.status for answer in answers] == [200, 200, 200, 401, 401, 401]
    assert not [answer for answer in answers if b"canary" in answer.body]
    assert answers[3].json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(("path", "kind"), [(RESPONSES, "server_error"), (MESSAGES, "overloaded_error")])
def test_injected_refusals(connect: Connect, path: str, kind: str) -> None:
    answer = ask(connect("error=529:1,retry_after=2s"), path, asked(path))
    assert (answer.status, answer.json()["error"]["type"], answer.headers["retry-after"]) == (529, kind, "2")


@pytest.mark.parametrize(
    ("path", "error", "code"),
    [
        (RESPONSES, "throttlingException", "rate_limit_exceeded"),
        (RESPONSES, "internalServerException", "server_error"),
        (MESSAGES, "throttlingException", "rate_limit_error"),
        (MESSAGES, "serviceUnavailableException", "overloaded_error"),
    ],
)
def test_an_error_inside_the_stream(connect: Connect, path: str, error: str, code: str) -> None:
    answer = ask(connect(f"stream_error={error}@2"), path, asked(path))
    last = documents(answer)[-1]
    assert len(stamps(answer)) == 2
    assert (last["type"], (last["response"] if path == RESPONSES else last)["error"].get("code")) in (
        ("response.failed", code), ("error", None),
    )  # fmt: skip
    assert path == RESPONSES or last["error"]["type"] == code


@pytest.mark.alone
@pytest.mark.parametrize("path", BOTH)
def test_log_schedule_and_arrival_agree(tmp_path: Path, path: str) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=80ms,itl=7ms", log=log) as sim, Client(sim.port) as client:
        ask(client, path, asked(path, 1))
        answer = ask(client, path, asked(path, 40))
        sim.stop()
    entry = entries(log)[1]
    assert entry["response_id"] == answer.headers["request-id" if path == MESSAGES else "x-request-id"]
    assert (entry["outcome"], entry["tokens"], entry["prompt_tokens"]) == ("completed", 40, 5)
    assert entry["ideal_first_ns"] == entry["received_ns"] + 80_000_000
    late_ns = [sent_ns - entry["ideal_first_ns"] - k * 7_000_000 for k, sent_ns in enumerate(entry["sent_ns"])]
    assert min(late_ns) >= 0
    assert statistics.median(late_ns) < 3e6
    flight_ns = [got - sent for got, sent in zip(stamps(answer), entry["sent_ns"], strict=True)]
    assert min(flight_ns) >= 0
    assert statistics.median(flight_ns) < 3e6


@pytest.mark.parametrize(("path", "how"), [(path, how) for path in BOTH for how in ("cut", "done")])
def test_a_stream_that_breaks_off(tmp_path: Path, path: str, how: str) -> None:
    log = tmp_path / "log.jsonl"
    spec = {"cut": "cut=2", "done": "done=off"}[how]
    with launch(f"ttft=1ms,itl=1ms,framing=close,{spec}", log=log) as sim, Client(sim.port) as client:
        answer = ask(client, path, asked(path))
        sim.stop()
    assert len(stamps(answer)) == {"cut": 2, "done": 4}[how]
    assert documents(answer)[-1]["type"] in DELTAS
    assert entries(log)[0]["outcome"] == {"cut": "cut", "done": "completed"}[how]
