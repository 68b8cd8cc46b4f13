"""A receiver for OTLP over HTTP with protobuf, in the process of the test, which keeps everything that it gets."""

from __future__ import annotations

import socket
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from gevent.monkey import get_original
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_socket = get_original("socket", "socket")
_start_thread = get_original("_thread", "start_new_thread")


@dataclass
class Span:
    """One span with its attributes as Python values."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    start_ns: int
    end_ns: int
    is_error: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]
    scope: str


@dataclass
class Point:
    """One data point of a histogram."""

    name: str
    unit: str
    attributes: dict[str, Any]
    count: int
    sum: float
    bounds: list[float]
    counts: list[int]
    temporality: int
    resource: dict[str, Any]


class Receiver:
    """The server. A context manager; ``url`` is the value of OTEL_EXPORTER_OTLP_ENDPOINT."""

    def __init__(self, *, status: int = 200, pause_s: float = 0.0) -> None:
        self._status = status
        self._pause_s = pause_s
        self._listener = _socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    def __enter__(self) -> Receiver:
        _start_thread(self._accept, ())
        return self

    def __exit__(self, *_error: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            _start_thread(self._serve, (connection,))

    def _serve(self, connection: Any) -> None:
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                try:
                    piece = connection.recv(65536)
                except ConnectionResetError:
                    return
                if not piece:
                    return
                data += piece
            head, _, data = data.partition(b"\r\n\r\n")
            request_line, *lines = head.decode().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            while len(data) < int(headers["content-length"]):
                data += connection.recv(65536)
            body, data = data[: int(headers["content-length"])], data[int(headers["content-length"]) :]
            get_original("time", "sleep")(self._pause_s)
            self.requests.append((request_line.split()[1], headers, body))
            connection.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self._status)

    @property
    def spans(self) -> list[Span]:
        """Return all spans that were received."""
        found = []
        for path, _headers, body in list(self.requests):
            if path != "/v1/traces":
                continue
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                scopes = resource.scope_spans
                for scope_name, span in ((scope.scope.name, span) for scope in scopes for span in scope.spans):
                    found.append(
                        Span(
                            span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.kind,
                            span.start_time_unix_nano, span.end_time_unix_nano, span.status.code == 2,
                            _values(span.attributes), _values(resource.resource.attributes),
                            scope_name,
                        )
                    )  # fmt: skip
        return found

    def points(self, name: str) -> list[Point]:
        """Return the last cumulative data point of each series of a histogram."""
        last: dict[tuple[Any, ...], Point] = {}
        for path, _headers, body in list(self.requests):
            if path != "/v1/metrics":
                continue
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                shared = _values(resource.resource.attributes)
                for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                    if metric.name != name:
                        continue
                    for point in metric.histogram.data_points:
                        attributes = _values(point.attributes)
                        last[tuple(sorted(attributes.items()))] = Point(
                            name, metric.unit, attributes, point.count, point.sum, list(point.explicit_bounds),
                            list(point.bucket_counts), metric.histogram.aggregation_temporality, shared,
                        )  # fmt: skip
        return list(last.values())


def by_stage(points: list[Point], **attributes: Any) -> dict[int, list[Point]]:
    """Return the points of each stage that have these attributes."""
    stages: defaultdict[int, list[Point]] = defaultdict(list)
    for point in points:
        if attributes.items() <= point.attributes.items():
            stages[point.attributes["locust_llm.stage"]].append(point)
    return stages


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None
