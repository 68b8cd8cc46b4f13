"""Prints the CPU time of ``--otel`` per request: on the event loop, in the thread that exports, on the coordinator."""

from __future__ import annotations

import time
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from llm_users.otel.request_metrics import RequestMetrics
from llm_users.otel.request_spans import FinishedSpan, RequestSpans, readable_spans
from llm_users.record import RequestRecord
from llm_users.transport.exchange import with_trace_headers

_BATCH = 256
RECORD = RequestRecord(
    request_id="run-0-1", run_id="run", api="openai-chat", model="model", endpoint="http://127.0.0.1:8000/v1", stage=1,
    measured=1, phase="measure", started_at=1.7e9, end_to_end_latency_s=1.0, ttft_s=0.1, input_tokens=500,
    output_tokens=100, chunks=100, finish_reason="stop", response_id="chatcmpl-1", http_status=200,
)  # fmt: skip
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\n"
    + b"".join(b"X-Header-%d: %s\r\n" % (number, b"a" * 30) for number in range(12))
    + b"Content-Length: 2500\r\n\r\n"
    + b"x" * 2500
)


def cpu_us(work: Callable[[], object], times: int) -> float:
    """Return the CPU time of one call in microseconds, the best of five series."""
    series = []
    for _ in range(5):
        started_s = time.thread_time()
        for _ in range(times):
            work()
        series.append((time.thread_time() - started_s) / times * 1e6)
    return min(series)


def main() -> None:
    kept: list[FinishedSpan] = []
    spans = RequestSpans(TracerProvider(shutdown_on_exit=False).sampler, kept.append)

    def one_span() -> None:
        span = spans.begin(RECORD)
        with_trace_headers(REQUEST, span.trace_headers)
        span.end(RECORD)
        if len(kept) > 1000:
            kept.clear()

    print(f"event loop:  {cpu_us(one_span, 20_000):6.1f} us per request")
    kept.clear()
    for _ in range(_BATCH):
        spans.begin(RECORD).end(RECORD)
    resource = Resource.create({})
    encoding_us = cpu_us(lambda: encode_spans(readable_spans(kept, resource)).SerializeToString(), 20) / _BATCH
    print(f"thread:      {encoding_us:6.1f} us per request")
    metrics = RequestMetrics(MeterProvider([InMemoryMetricReader()]))
    print(f"coordinator: {cpu_us(lambda: metrics.on_row(RECORD), 20_000):6.1f} us per row")


if __name__ == "__main__":
    main()
