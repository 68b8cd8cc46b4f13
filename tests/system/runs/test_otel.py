"""Whole runs with --otel against a receiver: metrics and spans equal the rows, in one process and over workers."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from llm_users.simulator.launch import launch
from tests.otlp_receiver import Point, Receiver
from tests.ports import master_ports
from tests.system.locust_runs import Finished, Locust

DURATION = "gen_ai.client.operation.duration"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
PER_CHUNK = "gen_ai.client.operation.time_per_output_chunk"
TOKENS = "gen_ai.client.token.usage"
SECONDS = [0.01 * 2**power for power in range(14)]


def environment_of(receiver: Receiver, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_METRIC_EXPORT_INTERVAL": "1000", **more}


def values(rows: list[dict[str, str]], column: str) -> list[float]:
    return [float(row[column]) for row in rows if row[column]]


def check_totals(points: list[Point], expected: list[float]) -> None:
    """The counts, sums and buckets of series together equal those of the values."""
    assert sum(point.count for point in points) == len(expected)
    assert math.fsum(point.sum for point in points) == pytest.approx(math.fsum(expected), rel=1e-9)
    bounds = [-math.inf, *points[0].bounds, math.inf]
    for index, (low, high) in enumerate(itertools.pairwise(bounds)):
        assert sum(point.counts[index] for point in points) == sum(low < value <= high for value in expected)


def check_metrics(receiver: Receiver, rows: list[dict[str, str]]) -> None:
    for name, column, more in (
        (DURATION, "end_to_end_latency_s", {}),
        (FIRST_CHUNK, "ttft_s", {}),
        (TOKENS, "input_tokens", {"gen_ai.token.type": "input"}),
        (TOKENS, "output_tokens", {"gen_ai.token.type": "output"}),
    ):
        points = receiver.points(name)
        assert points, name
        if name != TOKENS:
            assert points[0].bounds == pytest.approx(SECONDS)
            assert points[0].unit == "s"
        else:
            assert points[0].bounds == [4**power for power in range(14)]
            assert points[0].unit == "{token}"
        groups = {(row["stage"], row["measured"], row["error_code"]) for row in rows}
        for stage, measured, error in groups:
            of_group = [
                row for row in rows if (row["stage"], row["measured"], row["error_code"]) == (stage, measured, error)
            ]
            wanted: dict[str, Any] = {"locust_llm.stage": int(stage), "locust_llm.measured": measured == "1", **more}
            chosen = [
                point
                for point in points
                if wanted.items() <= point.attributes.items() and point.attributes.get("error.type", "") == error
            ]
            expected = values(of_group, column)
            if expected:
                check_totals(chosen, expected)


def check_spans(receiver: Receiver, rows: list[dict[str, str]], log: Path) -> None:
    spans = {span.attributes["locust_llm.request_id"]: span for span in receiver.spans}
    assert len(spans) == len(receiver.spans) == len(rows)
    assert set(spans) == {row["request_id"] for row in rows}
    headers = {entry["response_id"]: entry["traceparent"] for entry in map(json.loads, log.read_text().splitlines())}
    for row in rows:
        span = spans[row["request_id"]]
        assert span.start_ns / 1e9 == pytest.approx(float(row["started_at"]), abs=0.001)
        length_s = float(row["end_to_end_latency_s"])
        assert (span.end_ns - span.start_ns) / 1e9 == pytest.approx(length_s, abs=0.001)
        assert span.kind == 3
        assert span.name == f"chat {row['model']}"
        assert span.attributes["gen_ai.usage.output_tokens"] == int(row["output_tokens"])
        assert span.attributes["gen_ai.usage.input_tokens"] == int(row["input_tokens"])
        assert span.attributes["gen_ai.response.finish_reasons"] == [row["finish_reason"]]
        assert headers[row["response_id"]] == f"00-{span.trace_id}-{span.span_id}-01"
    assert len({span.trace_id for span in spans.values()}) == len(rows)


def check_gaps(receiver: Receiver, done: Finished) -> None:
    gaps: dict[int, int] = {}
    for line in done.rows("gaps"):
        gaps[int(line["stage"])] = gaps.get(int(line["stage"]), 0) + int(line["count"])
    points = {point.attributes["locust_llm.stage"]: point for point in receiver.points(PER_CHUNK)}
    assert {stage: point.count for stage, point in points.items()} == gaps
    for stage, point in points.items():
        of_stage = [line for line in done.rows("gaps") if int(line["stage"]) == stage]
        exact_s = sum(int(line["count"]) * (float(line["lower_s"]) + float(line["upper_s"])) / 2 for line in of_stage)
        assert point.sum == pytest.approx(exact_s, rel=0.002)
        assert point.attributes["gen_ai.request.model"] == "simulated"


@pytest.mark.parametrize("processes", [0, 2])
def test_metrics_and_spans_equal_the_rows(locust: Locust, tmp_path: Path, processes: int) -> None:
    log = tmp_path / "log.jsonl"
    workers = ["--processes", str(processes), *master_ports()] if processes else []
    with launch("ttft=30ms,itl=3ms", log=log) as simulator, Receiver() as receiver:
        done = locust.run(
            "--host", simulator.url, "--otel", "--llm-sweep", "2,4", "--llm-requests", "20", *workers,
            env=environment_of(receiver),
        )  # fmt: skip
        assert done.code == 0, done.err
        rows = done.rows()
        check_metrics(receiver, rows)
        check_spans(receiver, rows, log)
        check_gaps(receiver, done)
    assert "OpenTelemetry: the receiver" not in done.err
    assert len({span.resource["process.pid"] for span in receiver.spans}) == max(processes, 1)


def test_without_otel_requests_have_no_trace_header(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=10ms,itl=1ms", log=log) as simulator, Receiver() as receiver:
        done = locust.run(
            "--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "5", env=environment_of(receiver)
        )
    assert done.code == 0, done.err
    assert {entry["traceparent"] for entry in map(json.loads, log.read_text().splitlines())} == {""}
    assert not receiver.requests
