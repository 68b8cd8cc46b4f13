"""Quantiles: the project's only percentile function, and a histogram of durations that can be merged.

Linear interpolation between order statistics (Hyndman and Fan's type 7), as pandas, numpy and LLMPerf use.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Protocol, TypeVar

_RUN = 10_000
"""The number of values that one call of a built-in function processes at once. It takes less than 2 ms, in which no
other thread can run."""

T = TypeVar("T")


class Ordered(Protocol):
    """Values in ascending order."""

    def __len__(self) -> int: ...

    def __getitem__(self, rank: int, /) -> float: ...


def quantile(ordered: Ordered, q: float) -> float:
    """Return the q-quantile (0 <= q <= 1) of values in ascending order, or NaN if there are none.

    Values can be infinite, for example the latency of a request that never got its answer.
    """
    n = len(ordered)
    if n == 0:
        return math.nan
    position = (n - 1) * q
    low = math.floor(position)
    low_value = float(ordered[low])
    if low + 1 >= n or position == low:
        return low_value
    high_value = float(ordered[low + 1])
    if high_value == low_value:  # also for two infinite values, whose difference is NaN
        return low_value
    return low_value + (high_value - low_value) * (position - low)


def in_runs(values: list[T], overlap: int = 0) -> Iterable[list[T]]:
    """Return the values in runs of 10,000. Each run begins with the last ``overlap`` values of the run before it."""
    if len(values) <= _RUN + overlap:
        return (values,)
    return (values[start : start + _RUN + overlap] for start in range(0, len(values) - overlap, _RUN))


class SortedRuns:
    """Whole numbers as if they were sorted, without a sort of all of them, which would block other threads."""

    def __init__(self, values: list[int]) -> None:
        self._runs = [sorted(run) for run in in_runs(values)]
        self._count = len(values)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rank: int) -> int:
        """Return the value at a rank from 0, found by bisection of its value; -1 is the highest rank."""
        if len(self._runs) == 1:
            return self._runs[0][rank]
        if rank < 0:
            rank += self._count
        low, high = min(run[0] for run in self._runs), max(run[-1] for run in self._runs)
        while low < high:
            middle = (low + high) // 2
            if sum(bisect_right(run, middle) for run in self._runs) > rank:
                high = middle
            else:
                low = middle + 1
        return low


def counts_of(durations_ns: Iterable[int]) -> Mapping[int, int]:
    """Return the counts of a ``DurationHistogram`` of these durations. The function can run in any thread."""
    histogram = DurationHistogram()
    histogram.add_ns(durations_ns)
    return histogram.counts


class DurationHistogram:
    """Counts of durations (seconds) in geometric buckets 0.2 % wide. Every quantile has an error of at most 0.1 %.

    Adding histograms adds their counts, so quantiles over many processes are as accurate as over one. Durations under
    one nanosecond share a separate bucket that reads as 0 s.
    """

    GROWTH = 1.002
    _SCALE = 1.0 / math.log(GROWTH)
    _ZERO_BUCKET = -1
    _SMALLEST_S = 1e-9

    __slots__ = ("counts", "total")

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: defaultdict[int, int] = defaultdict(int, counts or {})
        self.total = sum(self.counts.values())

    def add(self, duration_s: float) -> None:
        """Count one duration."""
        self.counts[self.bucket(duration_s)] += 1
        self.total += 1

    def add_ns(self, durations_ns: Iterable[int]) -> None:
        """Count many durations in whole nanoseconds, three times as fast as one call of ``add`` per duration."""
        counts, log, scale, zero, added = self.counts, math.log, self._SCALE, self._ZERO_BUCKET, 0
        for duration_ns in durations_ns:
            counts[int(log(duration_ns) * scale) if duration_ns > 0 else zero] += 1
            added += 1
        self.total += added

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add the counts of another histogram."""
        for bucket, count in counts.items():
            self.counts[bucket] += count
            self.total += count

    @classmethod
    def bucket(cls, duration_s: float) -> int:
        """Return the bucket of a duration: floor(log(d / 1 ns) / log(1.002)), or -1 below 1 ns."""
        if duration_s < cls._SMALLEST_S:
            return cls._ZERO_BUCKET
        return int(math.log(duration_s / cls._SMALLEST_S) * cls._SCALE)

    @classmethod
    def bounds_s(cls, bucket: int) -> tuple[float, float]:
        """Return the lower and upper bound of a bucket, in seconds."""
        if bucket == cls._ZERO_BUCKET:
            return 0.0, cls._SMALLEST_S
        return cls._SMALLEST_S * cls.GROWTH**bucket, cls._SMALLEST_S * cls.GROWTH ** (bucket + 1)

    @classmethod
    def value_s(cls, bucket: int) -> float:
        """Return the value that stands for a bucket: its geometric middle, in seconds."""
        if bucket == cls._ZERO_BUCKET:
            return 0.0
        low, high = cls.bounds_s(bucket)
        return math.sqrt(low * high)

    def remove(self, counts: Mapping[int, int]) -> None:
        """Subtract counts that were merged before, and delete buckets that become empty."""
        for bucket, count in counts.items():
            self.total -= count
            left = self.counts[bucket] - count
            if left:
                self.counts[bucket] = left
            else:
                del self.counts[bucket]

    def quantile(self, q: float) -> float:
        """Return the q-quantile in seconds, by linear interpolation between order statistics, or NaN if empty."""
        return self.quantiles((q,))[0]

    def quantiles(self, qs: Sequence[float]) -> list[float]:
        """Return several quantiles in seconds, with one sort of the buckets, or NaN values if it is empty."""
        if self.total == 0:
            return [math.nan] * len(qs)
        buckets = sorted(bucket for bucket, count in self.counts.items() if count)
        ends = list(accumulate(self.counts[bucket] for bucket in buckets))  # rank after the last value of each bucket
        values = []
        for q in qs:
            position = (self.total - 1) * q
            rank = math.floor(position)
            index = min(bisect_right(ends, rank), len(buckets) - 1)
            low_s = self.value_s(buckets[index])
            is_last_of_bucket = rank + 1 >= ends[index] and index + 1 < len(buckets)
            high_s = self.value_s(buckets[index + 1]) if is_last_of_bucket else low_s
            values.append(low_s + (high_s - low_s) * (position - rank))
        return values
