"""Exporters and resource as OpenTelemetry's environment variables describe them, with the same rules as Locust."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

import locust

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import SpanExporter

logger = logging.getLogger(__name__)

_HTTP = ("http/protobuf", "http")


def make_resource(locustfile: str | None, profile: str | None) -> Resource:
    """Return the resource of this process, with the attributes of Locust's own resource."""
    from opentelemetry.sdk.resources import Resource

    return Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME", "locust"),
            "service.version": locust.__version__,
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
            "filename": locustfile or "",
            "profile": profile or "",
        }
    )


def make_span_exporters() -> list[SpanExporter]:
    """Return the exporters for ``OTEL_TRACES_EXPORTER``: ``otlp`` (default) and ``console``. Locust logs what is wrong
    with other values."""
    exporters: list[SpanExporter] = []
    for name in _exporter_names("TRACES"):
        if name == "console":
            from opentelemetry.sdk.trace.export import ConsoleSpanExporter

            exporters.append(ConsoleSpanExporter())
        elif name == "otlp":
            try:
                exporters.append(_otlp_span_exporter(protocol_of("TRACES")))
            except ImportError as error:
                logger.warning("OpenTelemetry: no spans are sent: %s", error)
    return exporters


def make_metric_exporter() -> MetricExporter | None:
    """Return an OTLP/HTTP exporter for metrics; None if the environment names another protocol or exporter."""
    if is_disabled() or "otlp" not in _exporter_names("METRICS") or protocol_of("METRICS") not in _HTTP:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    except ImportError:
        return None
    return OTLPMetricExporter()


def prefers_delta(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment asks for delta temporality of metrics."""
    name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    return environment.get(name, "").strip().lower() in ("delta", "lowmemory")


def is_disabled(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether ``OTEL_SDK_DISABLED`` switches the SDK off."""
    return environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def protocol_of(signal: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the OTLP protocol of a signal (``TRACES``, ``METRICS``) as Locust reads it."""
    general = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    return environment.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", general).strip().lower()


def receiver(environment: Mapping[str, str] = os.environ) -> str:
    """Return the endpoint of the receiver as the environment names it, for messages."""
    return environment.get("OTEL_EXPORTER_OTLP_ENDPOINT") or next(
        (
            environment[name]
            for name in ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
            if environment.get(name)
        ),
        "http://localhost:4318" if protocol_of("TRACES", environment) in _HTTP else "http://localhost:4317",
    )


def _exporter_names(signal: str) -> list[str]:
    if is_disabled():
        return []
    names = os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp").split(",")
    return [name.strip().lower() for name in names if name.strip()]


def _otlp_span_exporter(protocol: str) -> SpanExporter:
    """Return the OTLP exporter for a protocol. Raises ImportError if there is none."""
    if protocol in _HTTP:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter

        return HttpExporter()
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

        return GrpcExporter()
    raise ImportError(f"the OTLP protocol {protocol!r} is not known; use http/protobuf or grpc")
