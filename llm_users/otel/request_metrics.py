"""GenAI metrics from the rows of a run, recorded on the coordinator as they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_users._version import __version__
from llm_users.otel import conventions
from llm_users.otel.conventions import INPUT, OUTPUT, TOKEN_TYPE, Attributes
from llm_users.record import RequestRecord

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, MeterProvider

_Key = tuple[str, str, str | None, int, int, str | None]


class RequestMetrics:
    """The histograms of duration, time to first chunk and tokens. ``on_row`` records one row in them."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter(conventions.SCOPE, __version__, conventions.SCHEMA_URL)

        def create(histogram: conventions.Histogram) -> Histogram:
            return meter.create_histogram(
                histogram.name,
                histogram.unit,
                histogram.description,
                explicit_bucket_boundaries_advisory=list(histogram.bounds),
            )

        self._duration = create(conventions.DURATION)
        self._time_to_first_chunk = create(conventions.TIME_TO_FIRST_CHUNK)
        self._token_usage = create(conventions.TOKEN_USAGE)
        self._attributes: dict[_Key, tuple[Attributes, Attributes, Attributes]] = {}

    def on_row(self, record: RequestRecord) -> None:
        """Record a row. A request that was not sent has no duration. One without an answer has used no tokens."""
        attributes, of_input, of_output = self._attributes_of(record)
        duration_s = conventions.duration_of(record)
        if duration_s is not None:
            self._duration.record(duration_s, attributes)
        if record.ttft_s is not None:
            self._time_to_first_chunk.record(record.ttft_s, attributes)
        if record.ok or record.chunks:  # otherwise the server has not used the tokens of the prompt
            if record.input_tokens is not None:
                self._token_usage.record(record.input_tokens, of_input)
            if record.output_tokens is not None:
                self._token_usage.record(record.output_tokens, of_output)

    def _attributes_of(self, record: RequestRecord) -> tuple[Attributes, Attributes, Attributes]:
        """Return the attributes of a row: as they are, for its input tokens, and for its output tokens."""
        error_type = conventions.error_type_of(record)
        key = record.api, record.model, record.endpoint, record.stage, record.measured, error_type
        known = self._attributes.get(key)
        if known is None:
            attributes = {
                **conventions.operation_attributes(record.api, record.model, record.endpoint),
                conventions.STAGE: record.stage,
                conventions.MEASURED: bool(record.measured),
            }
            if error_type is not None:
                attributes[conventions.ERROR_TYPE] = error_type
            known = attributes, {**attributes, TOKEN_TYPE: INPUT}, {**attributes, TOKEN_TYPE: OUTPUT}
            self._attributes[key] = known
        return known
