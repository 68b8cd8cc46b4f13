"""What a server's metrics did over one stage: the differences of two readings, and the gauges between them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping

from llm_users.record import ServerMetricRecord
from llm_users.server_metric import COUNTER, GAUGE, HISTOGRAM, METRICS, RATIOS
from llm_users.server_metrics.exposition import HistogramValue, Reading

_QUANTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99}


class StageWindow:
    """Collects the readings of one server over one stage.

    ``before`` is the last reading before the first request of the stage. ``began_s`` is the time at which users may
    start, on the clock of ``records``: the server was idle between that reading and this time, so rates count from
    ``began_s``.
    """

    def __init__(self, before: Reading, began_s: float) -> None:
        self._before = before
        self._began_s = began_s
        self._gauges: defaultdict[str, list[float]] = defaultdict(list)
        self._last = before
        self._went_back = False

    def add(self, reading: Reading) -> None:
        """Add a reading between the first and the last request."""
        for name, value in reading.values.items():
            if METRICS[name].kind == GAUGE:
                self._gauges[name].append(value)
        self._went_back = self._went_back or _goes_back(self._last, reading)
        self._last = reading

    def begins_at(self, began_s: float) -> None:
        """Note that the first request began later than the users were allowed to start."""
        self._began_s = max(self._began_s, began_s)

    def restarted(self, after: Reading) -> bool:
        """Return whether the server was restarted, or another server answered: its process has another start time, or a
        counter went backwards from one reading to the next."""
        times_s = (self._before.started_s, after.started_s)
        return (
            self._went_back
            or (None not in times_s and times_s[0] != times_s[1])
            or any(_goes_back(earlier, after) for earlier in (self._before, self._last))
        )

    def records(
        self, after: Reading, ended_s: float, *, run_id: str, stage: int, server: str
    ) -> list[ServerMetricRecord]:
        """Return the rows of the stage. ``after`` is the reading after the last request, at the time ``ended_s``.

        After a restart of the server the rows have only gauges.
        """
        span_s = max(0.0, ended_s - self._began_s)
        rows = {
            name: ServerMetricRecord(run_id, stage, server, after.engine, name, METRICS[name].kind, 2, span_s)
            for name in METRICS
        }
        filled = {name for name in METRICS if self._fill_gauge(rows[name], name)}
        if not self.restarted(after):
            filled |= {name for name in METRICS if _fill_increase(rows[name], self._before, after)}
            for name, pairs in RATIOS.items():
                if name not in filled and any(_fill_ratio(rows, name, pair) for pair in pairs):
                    filled.add(name)
        return [row for name, row in rows.items() if name in filled]

    def _fill_gauge(self, row: ServerMetricRecord, name: str) -> bool:
        values = self._gauges.get(name)
        if not values:
            return False
        row.scrapes = len(values)
        row.mean, row.minimum, row.maximum = math.fsum(values) / len(values), min(values), max(values)
        return True


def _goes_back(earlier: Reading, later: Reading) -> bool:
    names = [name for name in earlier.values.keys() & later.values.keys() if METRICS[name].kind == COUNTER]
    return any(later.values[name] < earlier.values[name] for name in names) or any(
        later.histograms[name].count < earlier.histograms[name].count
        for name in earlier.histograms.keys() & later.histograms.keys()
    )


def _fill_ratio(rows: Mapping[str, ServerMetricRecord], name: str, parts: tuple[str, str]) -> bool:
    part, whole = (rows[metric].increase for metric in parts)
    if part is None or not whole:
        return False
    rows[name].mean = part / whole
    return True


def _fill_increase(row: ServerMetricRecord, before: Reading, after: Reading) -> bool:
    """Fill the row of a counter or a histogram. A series that appears within the stage began at 0."""
    if row.kind == COUNTER and row.metric in after.values:
        row.increase = after.values[row.metric] - before.values.get(row.metric, 0.0)
    elif row.kind == HISTOGRAM and row.metric in after.histograms:
        _fill_histogram(row, before.histograms.get(row.metric, HistogramValue()), after.histograms[row.metric])
    else:
        return False
    if row.span_s and row.increase is not None:
        row.per_s = row.increase / row.span_s
    return True


def _fill_histogram(row: ServerMetricRecord, before: HistogramValue, after: HistogramValue) -> None:
    row.increase = after.count - before.count
    if not row.increase:
        return
    row.mean = (after.total - before.total) / row.increase
    counts = {bound: after.buckets[bound] - before.buckets.get(bound, 0.0) for bound in sorted(after.buckets)}
    for quantile, share in _QUANTILES.items():
        low, high = next(_bounds(counts, math.ceil(share * row.increase)), (None, None))
        setattr(row, f"{quantile}_low", low)
        setattr(row, f"{quantile}_high", high)


def _bounds(counts: Mapping[float, float], rank: int) -> Iterator[tuple[float, float | None]]:
    """Yield the bounds of the bucket with the observation of this rank. The last bucket has no upper bound."""
    low = 0.0
    for bound, count in counts.items():
        if count >= rank:
            yield low, bound if math.isfinite(bound) else None
        low = bound
