"""The metric ``gen_ai.client.operation.time_per_output_chunk``, made from the histogram of chunk gaps of each stage.

The API of OpenTelemetry only records single values, and the coordinator does not receive the gaps one by one. This
module creates the data point of a finished stage itself and sends it through an OTLP exporter. Each stage is one series
(``locust_llm.stage``) with the gaps of its measured, successful requests. A series does not change after its stage has
ended, so its cumulative value and its delta are equal.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from llm_users._version import __version__
from llm_users.otel import conventions
from llm_users.otel.conventions import TIME_PER_OUTPUT_CHUNK, Attributes
from llm_users.quantile import DurationHistogram
from llm_users.record import RequestRecord, StageRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import HistogramDataPoint, MetricsData
    from opentelemetry.sdk.resources import Resource


class ChunkTimes:
    """Sends the chunk gaps of finished stages. ``export`` takes data for one export and returns whether it succeeded.

    ``is_delta``: each stage is sent once, with delta temporality. Otherwise each export has all stages of the process,
    with cumulative temporality, so that a later export replaces one that was lost.
    """

    def __init__(self, export: Callable[[MetricsData], bool], resource: Resource, *, is_delta: bool) -> None:
        self._export = export
        self._resource = resource
        self._is_delta = is_delta
        self._run_id = ""
        self._operations: dict[int, dict[tuple[str, str, str | None], None]] = {}
        self._points: list[HistogramDataPoint] = []
        self._unsent = False

    def on_row(self, record: RequestRecord) -> None:
        """Note the model and the server of a measured row for the attributes of its stage."""
        if record.run_id != self._run_id:
            self._run_id = record.run_id
            self._operations.clear()
        if record.measured and record.ok:
            self._operations.setdefault(record.stage, {})[record.api, record.model, record.endpoint] = None

    def on_stage(self, stage: StageRecord, gap_counts: Mapping[int, int]) -> None:
        """Add the data point of a finished stage. ``gap_counts`` are the counts of a ``DurationHistogram``."""
        if not sum(gap_counts.values()):
            return
        attributes = {
            **self._shared_attributes(stage.stage),
            conventions.STAGE: stage.stage,
            conventions.MEASURED: True,
        }
        if self._is_delta:
            self._points.clear()
        self._points = [point for point in self._points if point.attributes != attributes]  # of an earlier run
        self._points.append(_point(attributes, stage.measure_started_at, gap_counts))
        self._unsent = True

    def flush(self) -> bool:
        """Send what has not been sent. Return False if the receiver did not accept it."""
        if self._unsent:
            self._unsent = not self._export(self._data())
        return not self._unsent

    def _shared_attributes(self, stage: int) -> Attributes:
        """Return the attributes that all operations of the stage have in common, because gaps are counted together."""
        operations = self._operations.get(stage, {})
        shared = [conventions.operation_attributes(*operation) for operation in operations]
        if not shared:
            return {}
        return {name: value for name, value in shared[0].items() if all(one.get(name) == value for one in shared)}

    def _data(self) -> MetricsData:
        from opentelemetry.sdk.metrics.export import (
            AggregationTemporality,
            Histogram,
            Metric,
            MetricsData,
            ResourceMetrics,
            ScopeMetrics,
        )
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope

        temporality = AggregationTemporality.DELTA if self._is_delta else AggregationTemporality.CUMULATIVE
        name, unit, description, _bounds = TIME_PER_OUTPUT_CHUNK
        metric = Metric(name, description, unit, Histogram(list(self._points), temporality))
        scope = InstrumentationScope(conventions.SCOPE, __version__, conventions.SCHEMA_URL)
        scopes = [ScopeMetrics(scope, [metric], conventions.SCHEMA_URL)]
        return MetricsData([ResourceMetrics(self._resource, scopes, self._resource.schema_url)])


def _point(attributes: Attributes, started_at: float | None, gap_counts: Mapping[int, int]) -> HistogramDataPoint:
    """Return the data point of a stage. A gap counts with the middle of its bucket, which is within 0.1 % of it."""
    from opentelemetry.sdk.metrics.export import HistogramDataPoint

    now_ns = time.time_ns()
    bounds = TIME_PER_OUTPUT_CHUNK.bounds
    counts = [0] * (len(bounds) + 1)
    total_s = 0.0
    for bucket, count in gap_counts.items():
        value_s = DurationHistogram.value_s(bucket)
        counts[bisect_left(bounds, value_s)] += count
        total_s += count * value_s
    present = [bucket for bucket, count in gap_counts.items() if count]
    return HistogramDataPoint(
        attributes=attributes,
        start_time_unix_nano=int(started_at * 1e9) if started_at is not None else now_ns,
        time_unix_nano=now_ns,
        count=sum(counts),
        sum=total_s,
        bucket_counts=counts,
        explicit_bounds=bounds,
        min=DurationHistogram.value_s(min(present)),
        max=DurationHistogram.value_s(max(present)),
    )
