"""Sliding windows over live metrics: percentiles and rates of the last seconds, over any number of workers."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

from llm_users.quantile import DurationHistogram

WINDOW_TICKS = 10
"""Percentiles cover the last ten seconds: long enough for a p95 at a few requests per second."""

RATE_TICKS = 3
"""Rates are means over three seconds, because the reports of several workers do not arrive at the same time."""


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
