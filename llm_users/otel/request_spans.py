"""One span for each request of a worker, with the times of its row.

``begin`` chooses the ids and asks the sampler, so that the request can carry them in its ``traceparent`` header. The
span itself is created from the row when it is exported, in a thread: a request costs the event loop a few microseconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from llm_users._version import __version__
from llm_users.otel import conventions
from llm_users.otel.conventions import duration_of, operation_attributes, span_attributes, span_name
from llm_users.record import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.util.types import Attributes

_NS = 1_000_000_000
_SAMPLED, _NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
_OK, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
_SCOPE = InstrumentationScope(conventions.SCOPE, __version__, conventions.SCHEMA_URL)


class FinishedSpan(NamedTuple):
    """A sampled span whose request is over: its ids, its parent, the sampler's attributes, and the row."""

    context: SpanContext
    parent: SpanContext | None
    attributes: Attributes
    record: RequestRecord


class RequestSpan:
    """The span of a request in flight. ``trace_headers`` are the headers that pass its ids to the server."""

    __slots__ = ("_attributes", "_context", "_keep", "_parent", "trace_headers")

    def __init__(
        self,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Attributes,
        keep: Callable[[FinishedSpan], None],
    ) -> None:
        self._context = context
        self._parent = parent
        self._attributes = attributes
        self._keep = keep
        flags = int(context.trace_flags)
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}"
        self.trace_headers: tuple[tuple[str, str], ...] = (("traceparent", traceparent),)
        if context.trace_state:
            self.trace_headers += (("tracestate", context.trace_state.to_header()),)

    def end(self, record: RequestRecord) -> None:
        """Keep the span for export if it is sampled and the request was sent, or tried to connect."""
        if self._context.trace_flags.sampled and record.started_at is not None:
            self._keep(FinishedSpan(self._context, self._parent, self._attributes, record))


class RequestSpans:
    """Begins the spans of the requests of a process. ``keep`` takes sampled spans when their requests are over."""

    def __init__(self, sampler: Sampler, keep: Callable[[FinishedSpan], None]) -> None:
        self._sampler = sampler
        self._keep = keep

    def begin(self, record: RequestRecord) -> RequestSpan:
        """Begin the span of a request. A current span of the locustfile becomes its parent."""
        parent = trace.get_current_span().get_span_context()
        random = os.urandom(24)  # not Python's generator, which a locustfile can seed equally on all workers
        span_id = int.from_bytes(random[:8], "big") or 1
        has_parent = parent.is_valid
        trace_id = parent.trace_id if has_parent else int.from_bytes(random[8:], "big") or 1
        attributes = operation_attributes(record.api, record.model, record.endpoint)
        result = self._sampler.should_sample(
            otel_context.get_current() if has_parent else None,
            trace_id,
            span_name(attributes),
            SpanKind.CLIENT,
            attributes,
        )
        flags = _SAMPLED if result.decision is Decision.RECORD_AND_SAMPLE else _NOT_SAMPLED
        context = SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags, trace_state=result.trace_state)
        return RequestSpan(context, parent if has_parent else None, result.attributes, self._keep)


def readable_spans(finished: Sequence[FinishedSpan], resource: Resource) -> list[ReadableSpan]:
    """Return the spans in the form that exporters take. The times come from the rows."""
    return [_readable(span, resource) for span in finished]


def _readable(span: FinishedSpan, resource: Resource) -> ReadableSpan:
    record = span.record
    operation = operation_attributes(record.api, record.model, record.endpoint)
    attributes: dict[str, object] = {**(span.attributes or {}), **operation, **span_attributes(record)}
    if record.finish_reason:
        attributes["gen_ai.response.finish_reasons"] = (record.finish_reason,)
    start_ns = round((record.started_at or 0.0) * _NS)
    return ReadableSpan(
        name=span_name(operation),
        context=span.context,
        parent=span.parent,
        resource=resource,
        attributes=attributes,  # type: ignore[arg-type]
        kind=SpanKind.CLIENT,
        status=_OK if record.ok else _ERROR,
        start_time=start_ns,
        end_time=start_ns + round((duration_of(record) or 0.0) * _NS),
        instrumentation_scope=_SCOPE,
    )
