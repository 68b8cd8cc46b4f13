"""The samples of a run for the charts: sliding windows over live metrics, and the history of samples.

A sample is taken once per second. The history is limited: it keeps fewer samples of the older past.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from llm_users.quantile import DurationHistogram
from llm_users.record import COL
from llm_users.web.server_lines import COLUMNS as SERVER_COLUMNS

WINDOW_TICKS = 10
"""Percentiles cover the last ten seconds: long enough for a p95 at a few requests per second."""

RATE_TICKS = 3
"""Rates are means over three seconds, because the reports of several workers do not arrive at the same time."""

MOST_SAMPLES = 1800
"""Samples of half an hour. When the history is full, its older half keeps every second sample. About 300 kB as JSON."""

SERIES = (
    "t",
    "ttft_p50", "ttft_p95", "ttft_p99",
    "gap_p50", "gap_p95", "gap_p99",
    "tpot_p50", "tpot_p95", "tpot_p99",
    "tokens_per_s", "requests_per_s", "in_flight", "users", COL.rate_per_s, "errors_per_s", "throttled_per_s",
    "lag_p99", "cpu_max", "cpu_mean", "stage", *SERVER_COLUMNS,
)  # fmt: skip


class SlidingHistogram:
    """Durations of the last ticks. Adding and removing cost time per bucket, not per duration."""

    def __init__(self, ticks: int = WINDOW_TICKS) -> None:
        self._whole = DurationHistogram()
        self._parts: deque[Mapping[int, int]] = deque()
        self._ticks = ticks
        self._new = DurationHistogram()

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add counts that arrived since the last tick."""
        self._new.merge(counts)

    def tick(self) -> None:
        """End the present second."""
        part, self._new = self._new.counts, DurationHistogram()
        self._whole.merge(part)
        self._parts.append(part)
        if len(self._parts) > self._ticks:
            self._whole.remove(self._parts.popleft())

    def quantiles(self, qs: Sequence[float]) -> list[float | None]:
        """Return quantiles in seconds, or None values if nothing arrived in the window."""
        return [None if math.isnan(value) else value for value in self._whole.quantiles(qs)]


class Rate:
    """The rate of a counter per second."""

    def __init__(self, ticks: int = RATE_TICKS) -> None:
        self._parts: deque[tuple[float, float]] = deque(maxlen=ticks)
        self._new = 0.0

    def add(self, amount: float) -> None:
        self._new += amount

    def tick(self, passed_s: float) -> None:
        """End the present tick, which lasted ``passed_s`` seconds."""
        self._parts.append((self._new, passed_s))
        self._new = 0.0

    @property
    def per_s(self) -> float:
        """Return the mean rate of the last ticks."""
        passed_s = sum(part_s for _, part_s in self._parts)
        return sum(amount for amount, _ in self._parts) / passed_s if passed_s else 0.0


class History:
    """Numbered samples. Numbers grow until the process ends, so a page cannot confuse old samples with new ones."""

    def __init__(self) -> None:
        self.seq = 0
        self._since = 0  # samples up to this number are deleted
        self._numbers: list[int] = []
        self._samples: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, sample: Mapping[str, float | None]) -> None:
        """Add the next sample. Missing values and values that are not finite become None."""
        if len(self._samples) >= MOST_SAMPLES:
            half = len(self._samples) // 2
            self._numbers[:half] = self._numbers[:half:2]
            self._samples[:half] = self._samples[:half:2]
        self.seq += 1
        self._numbers.append(self.seq)
        self._samples.append(tuple(_short(sample.get(name)) for name in SERIES))

    def forget(self) -> None:
        """Delete all samples. Pages must delete theirs too."""
        self.seq += 1
        self._since = self.seq
        self._numbers, self._samples = [], []

    def after(self, seq: int | None) -> tuple[bool, dict[str, list[Any]]]:
        """Return (whether these are all samples, the samples after a number as columns)."""
        is_held = seq is not None and self._since <= seq <= self.seq and (not self._numbers or seq >= self._numbers[0])
        index = bisect_right(self._numbers, seq) if is_held and seq is not None else 0
        columns = zip(*self._samples[index:], strict=True) if index < len(self._samples) else ((),) * len(SERIES)
        return not is_held, {name: list(values) for name, values in zip(SERIES, columns, strict=True)}


def _short(value: float | None) -> float | None:
    """Round to five digits, which is more than a chart shows. A value that is not finite becomes None."""
    if value is None or isinstance(value, int):
        return value
    return float(f"{value:.5g}") if math.isfinite(value) else None
