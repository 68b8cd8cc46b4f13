"""Quantiles: the project's only percentile function, and a histogram of durations that can be merged.

Linear interpolation between order statistics (Hyndman and Fan's type 7), as pandas, numpy and LLMPerf use.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence


def quantile(ordered: Sequence[float], q: float) -> float:
    """The q-quantile (0 <= q <= 1) of values that are already in ascending order; NaN when there are none."""
    n = len(ordered)
    if n == 0:
        return math.nan
    position = (n - 1) * q
    low = math.floor(position)
    low_value = float(ordered[low])
    if low + 1 >= n:
        return low_value
    return low_value + (float(ordered[low + 1]) - low_value) * (position - low)


class DurationHistogram:
    """Counts of durations (seconds) in geometric buckets 0.2 % wide, so any quantile is within 0.1 % of the truth.

    Adding histograms adds their counts: quantiles over many processes are as good as over one. Durations under one
    nanosecond share a bucket of their own that reads as 0 s.
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

    def merge(self, counts: Mapping[int, int]) -> None:
        """Add the counts of another histogram."""
        for bucket, count in counts.items():
            self.counts[bucket] += count
            self.total += count

    @classmethod
    def bucket(cls, duration_s: float) -> int:
        """The bucket of a duration: floor(log(d / 1 ns) / log(1.002)), or -1 below 1 ns."""
        if duration_s < cls._SMALLEST_S:
            return cls._ZERO_BUCKET
        return int(math.log(duration_s / cls._SMALLEST_S) * cls._SCALE)

    @classmethod
    def bounds_s(cls, bucket: int) -> tuple[float, float]:
        """Lower and upper bound of a bucket, in seconds."""
        if bucket == cls._ZERO_BUCKET:
            return 0.0, cls._SMALLEST_S
        return cls._SMALLEST_S * cls.GROWTH**bucket, cls._SMALLEST_S * cls.GROWTH ** (bucket + 1)

    @classmethod
    def value_s(cls, bucket: int) -> float:
        """What a bucket reads as: its geometric middle, in seconds."""
        if bucket == cls._ZERO_BUCKET:
            return 0.0
        low, high = cls.bounds_s(bucket)
        return math.sqrt(low * high)

    def quantile(self, q: float) -> float:
        """The q-quantile in seconds, by linear interpolation between order statistics; NaN when empty."""
        if self.total == 0:
            return math.nan
        position = (self.total - 1) * q
        low = math.floor(position)
        low_value, high_value = self._order_statistics(low)
        return low_value + (high_value - low_value) * (position - low)

    def _order_statistics(self, rank: int) -> tuple[float, float]:
        """The values of rank ``rank`` and ``rank + 1`` (from 0) in ascending order."""
        seen = 0
        buckets = sorted(bucket for bucket, count in self.counts.items() if count)
        for place, bucket in enumerate(buckets):
            seen += self.counts[bucket]
            if rank < seen:
                value = self.value_s(bucket)
                if rank + 1 < seen or place + 1 == len(buckets):
                    return value, value
                return value, self.value_s(buckets[place + 1])
        value = self.value_s(buckets[-1])
        return value, value
