"""Whole runs with --otel against a receiver: metrics and spans equal the rows, in one process and over workers."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import socket
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import llm_reports
from llm_users.quantile import quantile
from llm_users.simulator.launch import launch
from tests.otlp_receiver import Point, Receiver
from tests.ports import free_port, master_ports
from tests.project import ROOT
from tests.system.locust_runs import Finished, Locust
from tests.wire_server import Wire, send

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
            answered = [row for row in of_group if not row["error_code"] or row["chunks"] != "0"]
            expected = values(answered if name == TOKENS else of_group, column)
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


def test_a_master_and_two_workers_send_everything(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    ports = master_ports()
    with launch("ttft=20ms,itl=2ms", log=log) as simulator, Receiver() as receiver:
        env = environment_of(receiver)
        shared = ("--host", simulator.url, "--otel", *ports)
        master = locust.start(
            *shared, "--master", "--expect-workers", "2", "--llm-sweep", "4", "--llm-requests", "30", env=env
        )
        workers = [
            locust.start(*shared, "--worker", prefix=f"worker{number}", csv=False, headless=False, env=env)
            for number in range(2)
        ]
        done = master.finish()
        for worker in workers:
            assert worker.finish().code == 0
        assert done.code == 0, done.err
        rows = done.rows()
        check_metrics(receiver, rows)
        check_spans(receiver, rows, log)
        check_gaps(receiver, done)
    assert len({span.resource["process.pid"] for span in receiver.spans}) == 2


def test_failures_have_their_error_type(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=10ms,itl=2ms,error=429:0.3,cut=3:0.2", log=log) as simulator, Receiver() as receiver:
        done = locust.run(
            "--host", simulator.url, "--otel", "--llm-sweep", "3", "--llm-requests", "40", env=environment_of(receiver)
        )
        rows = done.rows()
    check_metrics(receiver, rows)
    kinds = {row["error_code"] for row in rows}
    assert {"", "429"} < kinds
    spans = {span.attributes["locust_llm.request_id"]: span for span in receiver.spans}
    for row in rows:
        span = spans[row["request_id"]]
        assert span.attributes.get("error.type", "") == row["error_code"]
        assert span.is_error == bool(row["error_code"])
    sent = {entry["traceparent"].split("-")[1] for entry in map(json.loads, log.read_text().splitlines())}
    assert sent == {span.trace_id for span in receiver.spans}


def test_a_refused_connection_has_a_span_and_a_duration(locust: Locust) -> None:
    with Receiver() as receiver:
        done = locust.run(
            "--host", f"http://127.0.0.1:{free_port()}/v1", "--llm-model", "m", "--otel", "--llm-sweep", "1",
            "--llm-requests", "3", env=environment_of(receiver),
        )  # fmt: skip
    rows = done.rows()
    assert rows
    assert {row["error_code"] for row in rows} == {"connect"}
    assert len(receiver.spans) == len(rows)
    assert {span.attributes["error.type"] for span in receiver.spans} == {"connect"}
    assert sum(point.count for point in receiver.points(DURATION)) == len(rows)
    assert not receiver.points(FIRST_CHUNK)
    assert not receiver.points(TOKENS)


def test_the_sampler_decides_about_spans_and_the_flag(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=10ms,itl=1ms", log=log) as simulator, Receiver() as receiver:
        env = environment_of(receiver, OTEL_TRACES_SAMPLER="parentbased_traceidratio", OTEL_TRACES_SAMPLER_ARG="0.5")
        done = locust.run("--host", simulator.url, "--otel", "--llm-sweep", "4", "--llm-requests", "100", env=env)
    headers = [entry["traceparent"] for entry in map(json.loads, log.read_text().splitlines())]
    sampled = {header.split("-")[1] for header in headers if header.endswith("-01")}
    assert len(headers) == len(done.rows())
    assert 20 < len(sampled) < 85
    assert sampled == {span.trace_id for span in receiver.spans}
    assert all(int(trace_id, 16) & (2**64 - 1) < 2**63 for trace_id in sampled)
    assert sum(point.count for point in receiver.points(DURATION)) == len(headers)


def test_the_sdks_own_path_passes_the_trace_once(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=10ms,itl=1ms", log=log) as simulator, Receiver() as receiver:
        done = locust.run(
            "--host", simulator.url, "--otel", "--llm-transport", "sdk", "--llm-sweep", "2", "--llm-requests", "10",
            env=environment_of(receiver),
        )  # fmt: skip
        check_spans(receiver, done.rows(), log)


@pytest.mark.parametrize("transport", ["fast", "sdk"])
def test_requests_of_boto3_have_one_span(locust: Locust, tmp_path: Path, transport: str) -> None:
    log = tmp_path / "log.jsonl"
    model = "anthropic.claude-3-haiku-20240307-v1:0"
    with launch("ttft=10ms,itl=1ms", log=log) as simulator, Receiver() as receiver:
        done = locust.run(
            "--host", simulator.url.removesuffix("/v1"), "--otel", "--llm-transport", transport, "--llm-model", model,
            "--llm-sweep", "2", "--llm-requests", "10", locustfile=str(ROOT / "locustfiles" / "bedrock.py"),
            env=environment_of(receiver, AWS_ACCESS_KEY_ID="AKIDEXAMPLE", AWS_SECRET_ACCESS_KEY="x" * 40,
                               AWS_REGION="us-east-1"),
        )  # fmt: skip
    assert done.code == 0, done.err
    assert len(receiver.spans) == len(done.rows())
    assert {span.scope for span in receiver.spans} == {"llm_users"}
    assert {span.attributes["gen_ai.provider.name"] for span in receiver.spans} == {"aws.bedrock"}
    headers = {entry["traceparent"] for entry in map(json.loads, log.read_text().splitlines())}
    assert headers == {f"00-{span.trace_id}-{span.span_id}-01" for span in receiver.spans}


def test_buckets_bracket_the_percentiles_of_the_summary(locust: Locust) -> None:
    with launch("ttft=30ms,itl=3ms,jitter=0.5") as simulator, Receiver() as receiver:
        done = locust.run(
            "--host", simulator.url, "--otel", "--llm-sweep", "4", "--llm-requests", "100", "--llm-report",
            env=environment_of(receiver),
        )  # fmt: skip
    groups = llm_reports.groups([llm_reports.load(str(done.prefix))])
    for name, column in ((DURATION, "end_to_end_latency_s"), (FIRST_CHUNK, "ttft_s")):
        (point,) = [point for point in receiver.points(name) if point.attributes["locust_llm.measured"]]
        ordered = sorted(float(value) for value in groups[0].ok[column])
        assert point.count == len(ordered)
        for share in (0.5, 0.95, 0.99):
            value = quantile(ordered, share)
            below = sum(count for count, bound in zip(point.counts, point.bounds, strict=False) if bound < value)
            up_to = sum(
                count for count, bound in zip(point.counts, [0.0, *point.bounds], strict=True) if bound <= value
            )
            assert below <= share * point.count + 1
            assert up_to >= share * (point.count - 1)


def test_no_text_and_no_secret_leaves_the_process(locust: Locust) -> None:
    secret, prompt = "Bearer%20hush-4711-hush", "the walrus and the carpenter"
    with launch("ttft=10ms,itl=1ms,error=400:0.2") as simulator, Receiver() as receiver:
        env = environment_of(
            receiver, OTEL_EXPORTER_OTLP_HEADERS=f"authorization={secret}", OPENAI_API_KEY="sk-abcdefghijklmnop"
        )
        done = locust.run(
            "--host", simulator.url, "--otel", "--llm-sweep", "2", "--llm-requests", "10", "--llm-prompt", prompt,
            "--loglevel", "DEBUG", env=env,
        )  # fmt: skip
    assert receiver.requests
    assert {headers["authorization"] for _path, headers, _body in receiver.requests} == {"Bearer hush-4711-hush"}
    bodies = b"".join(body for _path, _headers, body in receiver.requests)
    for text in ("hush-4711", "walrus", "sk-abcdefghijklmnop"):
        assert text not in done.out + done.err
        assert text.encode() not in bodies


@pytest.mark.parametrize("kind", ["refused", "silent"])
def test_a_receiver_that_does_not_answer_is_noted_and_costs_seconds(locust: Locust, kind: str) -> None:
    with socket.socket() as silent, launch("ttft=20ms,itl=2ms") as simulator:
        silent.bind(("127.0.0.1", 0))
        if kind == "silent":
            silent.listen(64)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started_s = time.monotonic()
        done = locust.run(
            "--host", simulator.url, "--otel", "--llm-sweep", "4", "--llm-requests", "50",
            env={"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_METRIC_EXPORT_INTERVAL": "1000"},
        )  # fmt: skip
        took_s = time.monotonic() - started_s
    assert done.code == 0, done.err
    assert took_s < 25
    notes = [note for note in done.manifest["notes"] if "OpenTelemetry" in note]
    what = "spans and possibly metrics"
    assert notes == [f"OpenTelemetry: the receiver at {url} did not accept all data: {what} are missing there"]
    assert "Traceback" not in done.err
    assert done.err.count("opentelemetry.exporter") == 0
    ttfts = [float(row["ttft_s"]) for row in done.rows()]
    assert statistics.median(ttfts) == pytest.approx(0.02, abs=0.01)


def test_a_missing_package_is_named(locust: Locust, tmp_path: Path) -> None:
    (tmp_path / "hidden" / "opentelemetry").mkdir(parents=True)
    (tmp_path / "hidden" / "opentelemetry" / "__init__.py").touch()
    done = locust.run(
        "--llm-simulator", "ttft=10ms", "--otel", "--llm-sweep", "1", "--llm-requests", "3",
        env={"PYTHONPATH": str(tmp_path / "hidden")},
    )  # fmt: skip
    assert done.code == 0, done.err
    assert done.err.count("pip install '.[otel]'") == 1


OWN_PROVIDER = """
from opentelemetry import metrics
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from locust import task
from llm_users import OpenAIUser

metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))


class Chat(OpenAIUser):
    @task
    def ask_once(self):
        self.chat()
"""


def test_the_provider_of_a_locustfile_gets_metrics_without_the_option(locust: Locust, tmp_path: Path) -> None:
    locustfile, log = tmp_path / "own_provider.py", tmp_path / "log.jsonl"
    locustfile.write_text(OWN_PROVIDER)
    with launch("ttft=10ms,itl=1ms", log=log) as simulator, Receiver() as receiver:
        done = locust.run(
            "--host", simulator.url, "--llm-sweep", "2", "--llm-requests", "10", locustfile=str(locustfile),
            env=environment_of(receiver),
        )  # fmt: skip
    assert done.code == 0, done.err
    check_metrics(receiver, done.rows())
    assert not receiver.spans
    assert not receiver.points(PER_CHUNK)
    assert done.err.count("time_per_output_chunk is not sent") == 1
    assert {entry["traceparent"] for entry in map(json.loads, log.read_text().splitlines())} == {""}


@pytest.mark.parametrize("locustfile", ["bedrock.py", "bedrock_openai.py"])
def test_calls_for_credentials_carry_no_trace(locust: Locust, locustfile: str) -> None:
    answer = json.dumps(
        {
            "AccessKeyId": "AKIDEXAMPLE",
            "SecretAccessKey": "x" * 40,
            "Token": "t" * 40,
            "Expiration": "2099-01-01T00:00:00Z",
        }
    ).encode()
    reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)
    with Wire() as wire, launch("ttft=10ms,itl=1ms") as simulator, Receiver() as receiver:
        port = wire.serve([send(reply)])
        locust.run(
            "--host", simulator.url.removesuffix("/v1"), "--otel", "--llm-model", "openai.gpt-oss-20b-1:0",
            "--llm-sweep", "1", "--llm-requests", "3", locustfile=str(ROOT / "locustfiles" / locustfile),
            env=environment_of(
                receiver, AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{port.root}/credentials", AWS_REGION="us-east-1",
                AWS_SHARED_CREDENTIALS_FILE="/dev/null", AWS_CONFIG_FILE="/dev/null",
            ),
        )  # fmt: skip
        calls = port.requests()
    assert calls
    assert not [call.headers for call in calls if "traceparent" in call.headers]
    assert {span.scope for span in receiver.spans} == {"llm_users"}


def test_a_switched_off_exporter_of_spans_sends_no_header(locust: Locust, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with launch("ttft=10ms,itl=1ms", log=log) as simulator, Receiver() as receiver:
        env = environment_of(
            receiver, OTEL_TRACES_EXPORTER="none", OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE="delta"
        )
        done = locust.run("--host", simulator.url, "--otel", "--llm-sweep", "1,2", "--llm-requests", "5", env=env)
    assert {entry["traceparent"] for entry in map(json.loads, log.read_text().splitlines())} == {""}
    points = receiver.points(PER_CHUNK)
    assert len(points) == 2
    assert {point.temporality for point in points} == {1}
    assert sum(point.count for point in points) == sum(int(line["count"]) for line in done.rows("gaps"))
    assert [path for path, _headers, _body in receiver.requests].count("/v1/traces") == 0


def test_the_manifest_has_the_notes_of_all_processes(locust: Locust) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with launch("ttft=10ms,itl=1ms") as simulator:
        done = locust.run(
            "--host", simulator.url, "--otel", "--llm-sweep", "2", "--llm-requests", "10", "--processes", "2",
            *master_ports(), env={"OTEL_EXPORTER_OTLP_ENDPOINT": url},
        )  # fmt: skip
    assert done.code == 0, done.err
    notes = [note for note in done.manifest["notes"] if "OpenTelemetry" in note]
    assert notes == [
        f"OpenTelemetry: the receiver at {url} did not accept all data: {what} are missing there"
        for what in ("spans", "metrics")
    ]


def test_a_slow_receiver_delays_the_end_of_a_run_by_six_seconds_at_most(locust: Locust) -> None:
    with SlowReceiver(3.0) as slow, launch("ttft=10ms,itl=1ms") as simulator:
        running = locust.start(
            "--host", simulator.url, "--otel", "--llm-sweep", "2", "--llm-requests", "20",
            env={"OTEL_EXPORTER_OTLP_ENDPOINT": slow.url},
        )  # fmt: skip
        running.await_rows(22)
        ended_s = time.monotonic()
        done = running.finish()
        took_s = time.monotonic() - ended_s
    assert done.code == 0, done.err
    assert took_s < 8.5  # without the limit for all exports together it takes 11 s


class SlowReceiver:
    """An OTLP receiver that accepts everything after a delay."""

    def __init__(self, delay_s: float) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                time.sleep(delay_s)
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.send_header("content-length", "0")
                    self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> SlowReceiver:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()


def test_grpc_omits_the_chunk_times_with_a_line(locust: Locust) -> None:
    with launch("ttft=10ms,itl=1ms") as simulator:
        done = locust.run(
            "--host", simulator.url, "--otel", "--llm-sweep", "1", "--llm-requests", "5",
            env={
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
            },
        )  # fmt: skip
    assert done.code == 0, done.err
    assert done.err.count("time_per_output_chunk is not sent") == 1
    assert [note for note in done.manifest["notes"] if note.startswith("OpenTelemetry")]


PARENT = """
from locust import task
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from llm_users import OpenAIUser


class Chat(OpenAIUser):
    @task
    def ask_once(self):
        parent = NonRecordingSpan(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))
        with trace.use_span(parent):
            self.chat()
"""


def test_a_current_span_of_the_task_is_the_parent(locust: Locust, tmp_path: Path) -> None:
    locustfile = tmp_path / "parent.py"
    locustfile.write_text(PARENT)
    with launch("ttft=10ms,itl=1ms") as simulator, Receiver() as receiver:
        locust.run(
            "--host", simulator.url, "--otel", "--llm-sweep", "2", "--llm-requests", "5", locustfile=str(locustfile),
            env=environment_of(receiver),
        )  # fmt: skip
    assert receiver.spans
    assert {(span.trace_id, span.parent_id) for span in receiver.spans} == {(f"{0xABC:032x}", f"{0xDEF:016x}")}
