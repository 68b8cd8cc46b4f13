"""The statistics of one series of values, as LLMPerf computes them: linear quantiles, n-1 deviation.

Sums are exact (``math.fsum``), so the order of the values never shows in a result.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from llm_users.quantile import DurationHistogram, quantile


@dataclass(frozen=True)
class Summary:
    """A series in figures. NaN stands for what it has none of: everything when it is empty, ``stddev`` below two."""

    n: int
    mean: float = math.nan
    median: float = math.nan
    stddev: float = math.nan
    min: float = math.nan
    max: float = math.nan
    p25: float = math.nan
    p75: float = math.nan
    p90: float = math.nan
    p95: float = math.nan
    p99: float = math.nan


def summarize(values: Iterable[float]) -> Summary:
    """The figures of the values that are there; NaN values are left out."""
    ordered = sorted(value for value in map(float, values) if not math.isnan(value))
    n = len(ordered)
    if n == 0:
        return Summary(0)
    mean = math.fsum(ordered) / n
    squares = math.fsum((value - mean) ** 2 for value in ordered)
    return Summary(
        n=n,
        mean=mean,
        median=quantile(ordered, 0.5),
        stddev=math.sqrt(squares / (n - 1)) if n > 1 else math.nan,
        min=ordered[0],
        max=ordered[-1],
        p25=quantile(ordered, 0.25),
        p75=quantile(ordered, 0.75),
        p90=quantile(ordered, 0.90),
        p95=quantile(ordered, 0.95),
        p99=quantile(ordered, 0.99),
    )


def summarize_histogram(histogram: DurationHistogram) -> Summary:
    """The figures of a histogram of durations: each within the 0.1 % to which its buckets know the values."""
    counted = [(histogram.value_s(bucket), count) for bucket, count in sorted(histogram.counts.items()) if count]
    n = sum(count for _, count in counted)
    if n == 0:
        return Summary(0)
    mean = math.fsum(value * count for value, count in counted) / n
    squares = math.fsum(count * (value - mean) ** 2 for value, count in counted)
    return Summary(
        n=n,
        mean=mean,
        median=histogram.quantile(0.5),
        stddev=math.sqrt(squares / (n - 1)) if n > 1 else math.nan,
        min=counted[0][0],
        max=counted[-1][0],
        p25=histogram.quantile(0.25),
        p75=histogram.quantile(0.75),
        p90=histogram.quantile(0.90),
        p95=histogram.quantile(0.95),
        p99=histogram.quantile(0.99),
    )
