"""Bedrock's tokens leave when they should, and the log says when they left, whatever ends the stream."""

from __future__ import annotations

import base64
import json
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import launch

from .families import BLOCKS, CLAUDE_3, FAMILIES
from .wire import CHAT, Answer, Client, body, request_bytes

Json = dict[str, Any]
CONVERSE = f"/model/{CLAUDE_3}/converse-stream"
INVOKE = f"/model/{CLAUDE_3}/invoke-with-response-stream"


def asked(path: str, tokens: int) -> Json:
    if path == CONVERSE:
        return {**BLOCKS, "inferenceConfig": {"maxTokens": tokens}}
    return {**FAMILIES["anthropic-messages"].body, "max_tokens": tokens}


def names(answer: Answer) -> list[str]:
    """Of the events, or of what is in their chunks."""
    found = []
    for message in answer.events:
        kind = message.headers.get(":event-type") or message.headers[":exception-type"]
        if kind == "chunk":
            kind = json.loads(base64.b64decode(json.loads(message.payload)["bytes"]))["type"]
        found.append(kind)
    return found


def token_stamps(answer: Answer) -> list[int]:
    return [
        stamp_ns
        for stamp_ns, name in zip(answer.stamps_ns, names(answer), strict=True)
        if name in ("contentBlockDelta", "content_block_delta")
    ]


def entries(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def asking(connect: Callable[..., Client]) -> Callable[..., Answer]:
    return lambda path, spec="", tokens=4: connect(spec).ask("POST", path, asked(path, tokens))


@pytest.mark.alone
@pytest.mark.parametrize("path", [CONVERSE, INVOKE])
def test_log_schedule_and_arrival_agree(tmp_path: Path, path: str) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=80ms,itl=7ms", log=log) as sim, Client(sim.port) as client:
        client.ask("POST", path, asked(path, 1))
        answer = client.ask("POST", path, asked(path, 40))
        totals = sim.stop()
    entry = entries(log)[1]
    assert entry["response_id"] == answer.headers["x-amzn-requestid"]
    assert (entry["outcome"], entry["tokens"], entry["prompt_tokens"]) == ("completed", 40, 5)
    assert entry["ideal_first_ns"] == entry["received_ns"] + 80_000_000
    late_ns = [sent_ns - entry["ideal_first_ns"] - k * 7_000_000 for k, sent_ns in enumerate(entry["sent_ns"])]
    assert min(late_ns) >= 0
    assert statistics.median(late_ns) < 3e6
    flight_ns = [got - sent for got, sent in zip(token_stamps(answer), entry["sent_ns"], strict=True)]
    assert min(flight_ns) >= 0
    assert statistics.median(flight_ns) < 3e6
    # What the endpoint says of itself is the truth, to the millisecond.
    message = json.loads(answer.events[-1].payload)
    if path == CONVERSE:
        said_ms = message["metrics"]["latencyMs"]
    else:
        metrics = json.loads(base64.b64decode(message["bytes"]))["amazon-bedrock-invocationMetrics"]
        said_ms = metrics["invocationLatency"]
        assert metrics["firstByteLatency"] == pytest.approx((entry["first_ns"] - entry["received_ns"]) / 1e6, abs=20)
    assert said_ms == pytest.approx((entry["last_ns"] - entry["received_ns"]) / 1e6, abs=20)
    assert (totals["completed"], totals["tokens"], totals["broken"]) == (2, 41, 0)


@pytest.mark.alone
@pytest.mark.parametrize("path", [CONVERSE, INVOKE])
def test_the_start_leaves_before_the_first_token(asking: Callable[..., Answer], path: str) -> None:
    answer = asking(path, "ttft=60ms")
    assert names(answer)[0] in ("messageStart", "message_start")
    assert token_stamps(answer)[0] - answer.stamps_ns[0] > 40e6
    answer = asking(path, "ttft=60ms,role=with-first")
    assert token_stamps(answer)[0] - answer.stamps_ns[0] < 10e6


@pytest.mark.alone
def test_tokens_per_chunk_reasoning_and_whole_answers_keep_the_pace(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=20ms,itl=5ms,tokens_per_chunk=4,reasoning=6", log=log) as sim, Client(sim.port) as client:
        client.ask("POST", CONVERSE, asked(CONVERSE, 17))
        client.ask("POST", CONVERSE.removesuffix("-stream"), asked(CONVERSE, 17))
    stream, whole = entries(log)
    assert len(stream["sent_ns"]) == 5  # 4 + 2 of thought, 4 + 4 + 3 of text
    assert (stream["last_ns"] - stream["first_ns"]) / 1e9 == pytest.approx(14 * 0.005, abs=0.01)
    assert (whole["tokens"], len(whole["sent_ns"])) == (17, 1)
    assert (whole["last_ns"] - whole["received_ns"]) / 1e9 == pytest.approx(0.02 + 14 * 0.005, abs=0.02)


def test_what_breaks_off_is_logged_as_it_was(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    spec = "ttft=5ms,itl=1ms,tokens=9,stream_error="
    with launch(spec + "throttlingException@3", log=log) as sim, Client(sim.port) as client:
        for path in (CONVERSE, INVOKE):  # the connection lives on
            answer = client.ask("POST", path, asked(path, 9))
            assert (names(answer)[-1], len(token_stamps(answer))) == ("throttlingException", 3)
            assert answer.events[-1].headers[":message-type"] == "exception"
        assert len(token_stamps(client.ask("POST", CONVERSE, asked(CONVERSE, 2)))) == 2  # ended before
        totals = sim.stop()
    assert [(e["outcome"], e["tokens"], len(e["sent_ns"])) for e in entries(log)] == [
        ("error", 3, 3), ("error", 3, 3), ("completed", 2, 2)
    ]  # fmt: skip
    assert (totals["requests"], totals["completed"], totals["broken"], totals["errors"]) == (3, 1, 2, 0)


def test_an_exception_in_place_of_the_first_token(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=40ms,stream_error=modelStreamErrorException@0", log=log) as sim, Client(sim.port) as client:
        answer = client.ask("POST", CONVERSE, asked(CONVERSE, 9))
        assert names(answer) == ["messageStart", "modelStreamErrorException"]
        assert answer.stamps_ns[1] - answer.stamps_ns[0] > 20e6
        payload = json.loads(answer.events[-1].payload)
        assert payload["originalStatusCode"] == 500
        assert payload.keys() == {"message", "originalStatusCode", "originalMessage"}
        answer = client.chat(max_tokens=4)
        assert answer.events[-1]["error"]["type"] == "modelStreamErrorException"
    assert [(e["outcome"], e["tokens"], e["sent_ns"]) for e in entries(log)] == [("error", 0, [])] * 2


def test_cut_on_both_apis(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=5ms,itl=1ms,cut=3", log=log) as sim:
        for path, question, mark, count in (
            (CONVERSE, asked(CONVERSE, 9), b"contentBlockDelta", 3),
            (CHAT, body(max_tokens=9), b'"finish_reason":null', 4),  # the role's event is one of them
        ):
            with Client(sim.port) as client:
                client.send("POST", path, question)
                received = b""
                while data := client.sock.recv(65536):
                    received += data
                assert not received.endswith(b"0\r\n\r\n")
                assert b"messageStop" not in received
                assert b"[DONE]" not in received
                assert received.count(mark) == count
        totals = sim.stop()
    assert [(e["outcome"], e["tokens"]) for e in entries(log)] == [("cut", 3)] * 2
    assert (totals["broken"], totals["aborted"]) == (2, 0)


def test_faults_by_chance_repeat_with_the_seed(tmp_path: Path) -> None:
    runs = []
    for seed in (3, 3, 4):
        log = tmp_path / f"{len(runs)}.jsonl"
        spec = f"ttft=0,itl=0,stream_error=throttlingException@1:0.3,bedrock_error=throttling:0.3,seed={seed}"
        with launch(spec, log=log) as sim, Client(sim.port) as client:
            for _ in range(60):
                client.ask("POST", CONVERSE, asked(CONVERSE, 2))
        runs.append([(entry["status"], entry["outcome"]) for entry in entries(log)])
    assert runs[0] == runs[1] != runs[2]
    assert 8 <= runs[0].count((429, "error")) <= 30
    assert 4 <= runs[0].count((200, "error")) <= 26


@pytest.mark.parametrize("spec", ["framing=close", "hangup=on"])
def test_endings_of_the_connection(connect: Callable[..., Client], spec: str) -> None:
    client = connect(spec)
    answer = client.ask("POST", CONVERSE, asked(CONVERSE, 3))
    assert names(answer)[-1] == "metadata"
    assert ("transfer-encoding" in answer.headers) == (spec == "hangup=on")
    assert client.at_end()


def test_comments_do_not_disturb(asking: Callable[..., Answer]) -> None:
    assert names(asking(CONVERSE, "comments=5ms,ttft=40ms"))[-1] == "metadata"


def test_padding_hides_the_length_of_a_token(asking: Callable[..., Answer]) -> None:
    for path in (CONVERSE, INVOKE):
        paddings = [json.loads(message.payload)["p"] for message in asking(path, tokens=40).events]
        assert len(set(map(len, paddings))) > 10


def test_usage_of_openai_says_what_was_cached(connect: Callable[..., Client]) -> None:
    usage = connect("cached=3").chat(stream=False).json()["usage"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 3}


@pytest.mark.alone
@pytest.mark.parametrize("path", [CONVERSE, INVOKE])
def test_many_streams_at_once(path: str) -> None:
    with launch("ttft=100ms,itl=20ms") as sim:
        clients = [Client(sim.port) for _ in range(200)]
        for client in clients:
            client.sock.sendall(request_bytes("POST", path, asked(path, 10)))
        assert all(len(token_stamps(client.read())) == 10 for client in clients)
        for client in clients:
            client.sock.close()
        totals = sim.stop()
    assert (totals["completed"], totals["tokens"], totals["peak_active"]) == (200, 2000, 200)
    assert totals["late_p99_us"] < 20_000
    assert totals["cpu_us_per_token"] < 120  # a whole request for each ten tokens is in it


@pytest.mark.alone
def test_the_gaps_are_even(asking: Callable[..., Answer]) -> None:
    stamps_ns = token_stamps(asking(INVOKE, "itl=10ms", 20))
    assert statistics.median(b - a for a, b in pairwise(stamps_ns)) == pytest.approx(10e6, rel=0.2)
