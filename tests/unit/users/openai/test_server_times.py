"""The server's own times of an answer: scripted, from a real llama.cpp, and as the simulator measured them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llm_users.record import RequestRecord
from llm_users.simulator.launch import launch
from llm_users.simulator.log import Entry
from tests.stream_bytes import DONE, delta, event, framed, reply, stream, usage
from tests.unit.users.rig import Rig
from tests.wire_server import Wire, send

LLAMA_STREAM = Path(__file__).with_name("llama_cpp.sse")
"""A stream of llama.cpp's server as received, without HTTP."""

A, B = delta(content="a "), delta(content="b ")
COUNTS = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
TIMINGS = {"cache_n": 3, "prompt_n": 4, "prompt_ms": 125.0, "predicted_n": 2, "predicted_ms": 250.0}
PHASES = {"queue_time": 0.5, "prompt_time": 0.25, "completion_time": 1.0}
GROQ = {**PHASES, "total_time": 1.25}  # without the queue
CEREBRAS = {**PHASES, "total_time": 2.0, "created": 1723733419}  # with more than the sum


def last(**fields: Any) -> bytes:
    return event({"id": "chat-1", "choices": [], **fields})


def finish(**fields: Any) -> bytes:
    return event({"id": "chat-1", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], **fields})


def times(record: RequestRecord) -> tuple[float | None, float | None]:
    return record.server_ttft_s, record.server_latency_s


def test_a_real_answer_of_llama_cpp_fills_the_server_s_columns(rig: Rig, wire: Wire) -> None:
    events = [text + b"\n\n" for text in LLAMA_STREAM.read_bytes().split(b"\n\n") if text]
    record = rig.ask(wire.serve(stream(events)).url).record
    assert record.server_ttft_s == pytest.approx(3.042779)
    assert record.server_latency_s == pytest.approx(3.042779 + 10.142786)
    assert (record.cached_tokens, record.output_tokens, record.error_code) == (24, 40, None)


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ([delta("stop"), last(usage=COUNTS, timings=TIMINGS)], (0.125, 0.375)),
        ([finish(timings=TIMINGS)], (0.125, 0.375)),
        ([finish(timings={**TIMINGS, "prompt_ms": 1.0}), last(usage=COUNTS, timings=TIMINGS)], (0.125, 0.375)),
        ([finish(x_groq={"id": "req_1", "usage": {**COUNTS, **GROQ}})], (0.75, 1.75)),
        ([delta("stop"), last(usage={**COUNTS, **GROQ}, x_groq={"id": "req_1"})], (0.75, 1.75)),
        ([finish(usage=COUNTS, time_info=CEREBRAS)], (0.75, 2.0)),
        ([finish(usage=COUNTS, time_info={**CEREBRAS, "queue_time": None})], (0.25, 2.0)),
        ([delta("stop"), usage(2)], (None, None)),
    ],
    ids=[
        "llama.cpp", "llama.cpp without usage", "llama.cpp twice", "Groq's x_groq", "Groq's usage", "Cerebras",
        "no queue", "no times",
    ],
)  # fmt: skip
def test_times_of_each_server(
    rig: Rig, wire: Wire, end: list[bytes], expected: tuple[float | None, float | None]
) -> None:
    record = rig.ask(wire.serve(stream([A, B, *end, DONE])).url).record
    assert times(record) == (pytest.approx(expected[0]), pytest.approx(expected[1])) if expected[0] else (None, None)
    assert record.error_code is None


def test_cached_tokens_of_timings_fill_only_a_missing_count(rig: Rig, wire: Wire) -> None:
    details = {**COUNTS, "prompt_tokens_details": {"cached_tokens": 5}}
    without = rig.ask(wire.serve(stream([A, B, finish(timings=TIMINGS), DONE])).url).record
    counted = rig.ask(wire.serve(stream([A, B, finish(), last(usage=details, timings=TIMINGS), DONE])).url).record
    assert (without.cached_tokens, counted.cached_tokens) == (3, 5)


def test_times_with_every_chunk_are_those_of_the_last_one(rig: Rig, wire: Wire) -> None:
    """llama.cpp's ``timings_per_token``. All chunks in one write take the fast path for plain texts."""
    choices = [{"index": 0, "delta": {"content": "w "}, "finish_reason": None}]
    parts = [
        event({"id": "chat-1", "choices": choices, "timings": {**TIMINGS, "predicted_ms": float(index)}})
        for index in range(20)
    ]
    writes = [b"".join(parts), finish(timings=TIMINGS), DONE]
    record = rig.ask(wire.serve([send(data) for data in framed(writes)]).url).record
    assert (times(record), record.chunks) == ((pytest.approx(0.125), pytest.approx(0.375)), 20)


@pytest.mark.parametrize(
    "fields",
    [
        {"timings": "fast"},
        {"timings": {**TIMINGS, "prompt_ms": None}},
        {"timings": {**TIMINGS, "prompt_ms": -1}},
        {"timings": {**TIMINGS, "predicted_ms": 1e300}},
        {"timings": {**TIMINGS, "predicted_ms": True}},
        {"time_info": [1, 2]},
        {"time_info": {"total_time": 1.0}},
        {"usage": {**COUNTS, **GROQ, "prompt_time": "soon"}},
    ],
)
def test_values_that_are_not_times_are_ignored(rig: Rig, wire: Wire, fields: dict[str, Any]) -> None:
    record = rig.ask(wire.serve(stream([A, B, finish(**fields), DONE])).url).record
    assert (times(record), record.error_code) == ((None, None), None)


TGI = (
    "x-compute-type: cpu\r\nx-total-time: 812\r\nx-validation-time: 1\r\nx-queue-time: 11\r\nx-inference-time: 800\r\n"
    "x-time-per-token: 40\r\n"
)


@pytest.mark.parametrize(
    ("headers", "latency_s"),
    [
        (TGI, 0.812),
        ("x-total-time: 0.8\r\n", None),  # of a proxy: without TGI's other headers, the unit is unknown
        (TGI.replace("812", "soon"), None),
        (TGI.replace("812", "inf"), None),
    ],
)
def test_headers_of_tgi_have_the_latency_of_a_whole_answer(
    rig: Rig, wire: Wire, headers: str, latency_s: float | None
) -> None:
    body = {
        "id": "1",
        "choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}],
        "usage": COUNTS,
    }
    record = rig.ask(wire.serve(reply("200 OK", json.dumps(body).encode(), more=headers)).url, stream=False).record
    assert times(record) == (None, None if latency_s is None else pytest.approx(latency_s))


@pytest.mark.alone
@pytest.mark.parametrize("server", ["llamacpp", "groq", "cerebras"])
@pytest.mark.parametrize("streams", [True, False], ids=["stream", "whole"])
def test_the_simulator_s_own_times_agree_with_its_log_and_the_client(
    rig: Rig, tmp_path: Path, server: str, streams: bool
) -> None:
    log = tmp_path / "log.jsonl"
    with launch(f"ttft=60ms,itl=5ms,server_times={server}", log=log, max_seconds=30) as simulator:
        records = [rig.ask(simulator.url, max_tokens=20, stream=streams).record for _ in range(5)]
    logged = [msgspec.json.decode(line, type=Entry) for line in log.read_bytes().splitlines()]
    entries = {entry.response_id: entry for entry in logged}
    off_log, off_client, off_first = [], [], []
    for record in records:
        entry = entries[record.response_id or ""]
        assert record.server_latency_s is not None
        assert record.server_ttft_s is not None
        assert record.end_to_end_latency_s is not None
        assert entry.last_ns is not None
        off_log.append(abs((entry.last_ns - entry.received_ns) / 1e9 - record.server_latency_s))
        off_client.append(record.end_to_end_latency_s - record.server_latency_s)
        off_first.append(abs((record.ttft_s or 0.060) - record.server_ttft_s))
    assert min(off_log) < 0.001
    assert 0 <= min(off_client) < 0.002
    assert min(off_first) < 0.002
