"""The running stage in the columns of the finished stages: figures from histograms over the rows so far."""

from __future__ import annotations

import math
from typing import Any

from llm_users.outcome import Outcome
from llm_users.quantile import DurationHistogram
from llm_users.record import COL, RequestRecord, StageLoad

FIGURES = {"median": 0.5, "p25": 0.25, "p75": 0.75, "p95": 0.95, "p99": 0.99}


class Series:
    """One metric: exact mean and extremes, and percentiles with the 0.1 % error of the histogram."""

    def __init__(self) -> None:
        self._histogram = DurationHistogram()
        self._sum = 0.0
        self._min, self._max = math.inf, -math.inf

    def add(self, value: float | None) -> None:
        if value is None or not math.isfinite(value):
            return
        self._histogram.add(value)
        self._sum += value
        self._min, self._max = min(self._min, value), max(self._max, value)

    def figures(self) -> dict[str, float | None]:
        """Return median, mean, min, max and percentiles. All are None without values."""
        n = self._histogram.total
        if not n:
            return dict.fromkeys((*FIGURES, "mean", "min", "max"))
        quantiles = self._histogram.quantiles(tuple(FIGURES.values()))
        within = (min(max(value, self._min), self._max) for value in quantiles)  # not beyond the true extremes
        return {
            **dict(zip(FIGURES, within, strict=True)),
            "mean": self._sum / n,
            "min": self._min,
            "max": self._max,
        }


class StageSeries:
    """The sums over the measured rows of one stage."""

    def __init__(self, stage: int, load: StageLoad) -> None:
        self.stage = stage
        self.load = load
        self.requests = self.ok = self.failed = self.throttled = self.aborted = self.cancelled = 0
        self._ttft, self._throughput, self._tpot, self._e2e = (Series() for _ in range(4))
        self._corrected_ttft, self._corrected_e2e = Series(), Series()

    def add(self, record: RequestRecord) -> None:
        """Add one measured row."""
        self.requests += 1
        outcome = record.outcome
        self.aborted += outcome is Outcome.ABORTED
        self.cancelled += outcome is Outcome.CANCELLED
        self.failed += outcome.is_failure
        self.throttled += outcome is Outcome.THROTTLED
        if outcome is not Outcome.OK:
            return
        self.ok += 1
        self._throughput.add(record.request_output_throughput_token_per_s)
        self._e2e.add(record.end_to_end_latency_s)
        self._corrected_e2e.add(record.corrected_end_to_end_latency_s)
        if not record.buffered:
            self._ttft.add(record.ttft_s)
            self._tpot.add(record.tpot_s)
            self._corrected_ttft.add(record.corrected_ttft_s)

    def row(self) -> dict[str, Any]:
        """Return the unfinished stage as the page shows it."""
        return {
            "stage": self.stage,
            "concurrency": self.load.users,
            COL.rate_per_s: self.load.rate_per_s,
            "finished": False,
            "exact": False,
            "health": None,
            "steadiness": None,
            "requests": self.requests,
            "ok": self.ok,
            "failed": self.failed,
            "throttled": self.throttled,
            "aborted": self.aborted,
            "cancelled": self.cancelled,
            "ttft": self._ttft.figures(),
            "throughput": self._throughput.figures(),
            "tpot": self._tpot.figures(),
            "e2e": self._e2e.figures(),
            "corrected_ttft": self._corrected_ttft.figures(),
            "corrected_e2e": self._corrected_e2e.figures(),
            COL.output_throughput_token_per_s: None,
            COL.request_throughput_per_s: None,
        }
