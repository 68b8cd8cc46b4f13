"""Connects a run with OpenTelemetry: metrics on the coordinator, spans on workers, and their last export.

Locust configures its own providers for ``--otel`` before it forks the workers of ``--processes``. The spans of requests
have their own exporter, which is created after the fork. OpenTelemetry is imported only if it is used.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gevent
from locust.runners import WorkerRunner

from llm_users.load.coordinator.coordinator import Coordinator
from llm_users.load.protocol.stage import StageTotals
from llm_users.load.worker.context import OpenSpan
from llm_users.quantile import DurationHistogram
from llm_users.record import RequestRecord, StageRecord
from llm_users.secrets import redact, redact_start

if TYPE_CHECKING:
    from llm_users.otel.chunk_times import ChunkTimes
    from llm_users.otel.request_spans import FinishedSpan, RequestSpans
    from llm_users.otel.span_sender import SpanSender

logger = logging.getLogger(__name__)

FLUSH_S = 5.0
"""Maximum time for the last exports of a process at the end of a run, all together."""

_AFTER_FAILURE_S = 0.5
"""The time for one of them if the receiver has not answered before, or if no time is left."""

_PROTOCOLS = tuple(f"OTEL_EXPORTER_OTLP_{signal}PROTOCOL" for signal in ("", "TRACES_", "METRICS_", "LOGS_"))

_EXPORTER_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.common.http",
)


def is_requested(parsed: Any) -> bool:
    """Return whether ``--otel`` is given."""
    return bool(getattr(parsed, "otel", False))


def prepare(parsed: Any) -> None:
    """Prepare ``--otel`` before Locust configures its providers: choose the protocol, and defer the handlers of forks.

    The protocol is ``http/protobuf`` if the environment names none. The default of Locust is gRPC.
    """
    if not is_requested(parsed):
        return
    if not any(os.environ.get(name) for name in _PROTOCOLS):
        os.environ[_PROTOCOLS[0]] = "http/protobuf"
    _fork_handlers.install()


class _ForkHandlers:
    """The functions that OpenTelemetry calls in a forked process. They start threads.

    Locust patches threads, so their start runs the event loop. In the child of ``subprocess.Popen``, which gevent forks
    before it starts the program, this can run other greenlets of the parent and never return. Therefore the functions
    run when a forked worker is set up, and not in other children.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._waiting: list[Callable[[], object]] = []

    def install(self) -> None:
        """Take the handlers that OpenTelemetry registers from now on. Further calls have no effect."""
        if self._pid:
            return
        self._pid = os.getpid()
        register = os.register_at_fork

        def register_at_fork(**functions: Any) -> None:
            in_child = functions.get("after_in_child")
            if in_child is not None and str(in_child.__module__).startswith("opentelemetry."):
                self._waiting.append(functions.pop("after_in_child"))
            if functions:
                register(**functions)

        os.register_at_fork = register_at_fork

    def run(self) -> None:
        """Run the handlers once if this process was forked."""
        if self._pid and self._pid != os.getpid():
            self._pid = os.getpid()
            waiting, self._waiting = self._waiting, []
            for handler in waiting:
                handler()


_fork_handlers = _ForkHandlers()


def after_fork() -> None:
    """Run OpenTelemetry's handlers in a worker that ``--processes`` has forked."""
    _fork_handlers.run()


def is_installed() -> bool:
    """Return whether the SDK of OpenTelemetry is installed."""
    try:
        return importlib.util.find_spec("opentelemetry.sdk.trace") is not None
    except ImportError:
        return False


def check_installed(environment: Any) -> None:
    """Log how to install OpenTelemetry if ``--otel`` is given without it. Locust has logged an error of its own."""
    if is_requested(environment.parsed_options) and not is_installed():
        logger.error(
            "--otel has no effect: OpenTelemetry is not installed. In a clone of the repository, "
            "run: pip install '.[otel]'"
        )


class _ExportFailures(logging.Filter):
    """Counts the failed exports of this process, and replaces their log lines, several for each export, by one line."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.is_noted = False
        self.has_tracing = False
        """Whether this process sends spans and metrics."""
        self._is_troubled = False
        self._left_s = FLUSH_S

    def install(self) -> None:
        for name in _EXPORTER_LOGGERS:
            logging.getLogger(name).addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.WARNING:
            return True
        self.count += record.levelno >= logging.ERROR  # a warning is followed by another attempt
        if not self._is_troubled:
            self._is_troubled = True
            logger.warning(
                "OpenTelemetry: %s (further failures are only counted)", redact_start(record.getMessage(), 200)
            )
        return False

    def recovered(self) -> None:
        """Note that the receiver has accepted data."""
        self._is_troubled = False

    def begin_last_exports(self) -> None:
        """Allow ``FLUSH_S`` for the exports at the end of a run."""
        self._left_s = FLUSH_S

    @contextlib.contextmanager
    def last_export(self) -> Iterator[float]:
        """Measure one of the last exports. Gives the time that it may take."""
        began_s = time.monotonic()
        try:
            yield _AFTER_FAILURE_S if self._is_troubled else max(_AFTER_FAILURE_S, self._left_s)
        finally:
            self._left_s -= time.monotonic() - began_s

    def note(self, what: str) -> str:
        """Return the note about data that could not be exported."""
        from llm_users.otel.exporters import receiver

        self._is_troubled = self.is_noted = True
        address = redact(receiver())
        grpc = (
            "; port 4317 is usually for gRPC (OTEL_EXPORTER_OTLP_PROTOCOL=grpc)"
            if address.rstrip("/").endswith(":4317") and os.environ.get(_PROTOCOLS[0]) != "grpc"
            else ""
        )
        return f"OpenTelemetry: the receiver at {address} did not accept all data: {what} are missing there{grpc}"


_failures = _ExportFailures()


class WorkerTracing:
    """The spans of one process that sends requests. See ``load.worker.context.Tracing``.

    ``is_alone``: another process, the coordinator, sends the metrics. Otherwise both share one note and ``FLUSH_S``.
    """

    def __init__(self, spans: RequestSpans, sender: SpanSender, *, is_alone: bool) -> None:
        self._spans = spans
        self._sender = sender
        self._is_alone = is_alone
        self._noted = 0

    def begin(self, record: RequestRecord) -> OpenSpan:
        return self._spans.begin(record)

    def end_run(self, note: Callable[[str], None]) -> None:
        """Send the spans of the run within ``FLUSH_S``. Note if some were lost."""
        _failures.begin_last_exports()
        with _failures.last_export() as limit_s:
            is_sent = self._sender.flush(limit_s)
        lost = self._sender.lost + (0 if is_sent else self._sender.unsent)
        if lost > self._noted:
            note(_failures.note("spans" if self._is_alone else "spans and possibly metrics"))
            self._noted = lost


def start_tracing(environment: Any) -> WorkerTracing | None:
    """Create the exporters for the spans of this process; None without ``--otel``, without the SDK or an exporter."""
    parsed = environment.parsed_options
    if not is_requested(parsed) or not is_installed():
        return None
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExportResult

    from llm_users.otel.exporters import make_resource, make_span_exporters
    from llm_users.otel.instrumentation import exclude_botocore, without_instrumentation
    from llm_users.otel.request_spans import RequestSpans, readable_spans
    from llm_users.otel.span_sender import SpanSender

    exclude_botocore()
    exporters = make_span_exporters()
    if not exporters:
        return None
    _failures.install()
    resource = make_resource(getattr(parsed, "locustfile", None), getattr(parsed, "profile", None))

    def export(finished: Sequence[FinishedSpan]) -> bool:
        try:
            spans = readable_spans(finished, resource)
            with without_instrumentation():
                results = [exporter.export(spans) for exporter in exporters]
        except Exception as error:  # otherwise gevent prints a traceback for each batch
            logger.warning("OpenTelemetry: spans cannot be exported: %s", redact_start(str(error), 200))
            return False
        if is_accepted := all(result is SpanExportResult.SUCCESS for result in results):
            _failures.recovered()
        return is_accepted

    sender = SpanSender(export)
    sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler  # of OTEL_TRACES_SAMPLER
    is_alone = isinstance(environment.runner, WorkerRunner)
    _failures.has_tracing = not is_alone
    return WorkerTracing(RequestSpans(sampler, sender.add), sender, is_alone=is_alone)


class RunMetrics:
    """The metrics of the runs of a coordinator. ``start_metrics`` creates it."""

    def __init__(self, provider: Any, chunk_times: ChunkTimes | None) -> None:
        from llm_users.otel.request_metrics import RequestMetrics

        self._provider = provider
        self._requests = RequestMetrics(provider)
        self._chunk_times = chunk_times
        self._sending: gevent.Greenlet[[], bool] | None = None

    def on_row(self, record: RequestRecord) -> None:
        """Record a row of a request."""
        self._requests.on_row(record)
        if self._chunk_times is not None:
            self._chunk_times.on_row(record)

    def on_stage(self, stage: StageRecord, totals: Sequence[StageTotals]) -> None:
        """Record the chunk gaps of a finished stage, and send them without waiting for the receiver."""
        if self._chunk_times is None:
            return
        gaps = DurationHistogram()
        for part in totals:
            for counts in part.gap_counts.values():
                gaps.merge(counts)
        self._chunk_times.on_stage(stage, gaps.counts)
        if self._sending is None or self._sending.ready():
            self._sending = gevent.spawn(self._chunk_times.flush)

    def end_run(self, note: Callable[[str], None]) -> None:
        """Send the metrics of the run within ``FLUSH_S``. Note if the receiver did not accept them."""
        before = _failures.count
        if not _failures.has_tracing:  # otherwise the export of the spans was the first
            _failures.begin_last_exports()
        flushing = gevent.spawn(self._flush)
        with _failures.last_export() as limit_s:
            flushing.join(limit_s)
        is_sent = flushing.ready() and flushing.value and _failures.count == before
        if not is_sent and not _failures.is_noted:
            note(_failures.note("metrics"))
        _failures.is_noted = False  # another run of this process has its own note
        flushing.kill(block=False)

    def _flush(self) -> bool:
        if self._sending is not None:
            self._sending.join()
        is_sent = self._chunk_times is None or self._chunk_times.flush()
        return bool(self._provider.force_flush(int(FLUSH_S * 1000))) and is_sent


def start_metrics(environment: Any, coordinator: Coordinator) -> RunMetrics | None:
    """Record the rows of all later runs in the program's ``MeterProvider``, which ``--otel`` or a locustfile has set.

    Return None if there is none, without importing OpenTelemetry.
    """
    sdk = sys.modules.get("opentelemetry.sdk.metrics")
    if sdk is None:
        return None
    from opentelemetry import metrics

    provider = metrics.get_meter_provider()
    if not isinstance(provider, sdk.MeterProvider):
        return None
    _failures.install()
    exporter = None
    if is_requested(environment.parsed_options):
        from llm_users.otel.exporters import make_metric_exporter

        exporter = make_metric_exporter()
    if exporter is None:
        logger.info(
            "OpenTelemetry: gen_ai.client.operation.time_per_output_chunk is not sent, because it requires --otel with "
            "the exporter otlp and the protocol http/protobuf"
        )
    run_metrics = RunMetrics(provider, _chunk_times(environment, exporter) if exporter is not None else None)
    coordinator.watch_rows(run_metrics.on_row, live=False)
    coordinator.watch_stages(run_metrics.on_stage)
    return run_metrics


def _chunk_times(environment: Any, exporter: Any) -> ChunkTimes:
    from opentelemetry.sdk.metrics.export import MetricExportResult

    from llm_users.otel.chunk_times import ChunkTimes
    from llm_users.otel.exporters import make_resource, prefers_delta
    from llm_users.otel.instrumentation import without_instrumentation

    def export(data: Any) -> bool:
        with without_instrumentation():
            is_accepted = exporter.export(data) is MetricExportResult.SUCCESS
        if is_accepted:
            _failures.recovered()
        return is_accepted

    parsed = environment.parsed_options
    resource = make_resource(getattr(parsed, "locustfile", None), getattr(parsed, "profile", None))
    return ChunkTimes(export, resource, is_delta=prefers_delta())


def close_providers() -> None:
    """Send what the providers that Locust has configured still have, within ``FLUSH_S``.

    Otherwise they would do it at the exit of the interpreter, and wait for a receiver that does not answer for up to a
    minute. They are not shut down: the threads of a provider that was forked would end with a traceback.
    """
    if "opentelemetry.sdk" not in sys.modules:
        return
    from opentelemetry import _logs, metrics, trace

    for name in (None, "locust"):
        for handler in [one for one in logging.getLogger(name).handlers if one.name == "opentelemetry"]:
            logging.getLogger(name).removeHandler(handler)
    providers: list[Any] = [trace.get_tracer_provider(), metrics.get_meter_provider(), _logs.get_logger_provider()]
    flushing = []
    for provider in providers:
        if hasattr(provider, "force_flush") and hasattr(provider, "shutdown"):
            atexit.unregister(provider.shutdown)
            flushing.append(gevent.spawn(provider.force_flush))
    with _failures.last_export() as limit_s:
        gevent.joinall(flushing, timeout=limit_s)
    gevent.killall(flushing, block=False)
