"""The statistics of one series of values, as LLMPerf computes them: linear quantiles, n-1 deviation.

Sums are exact (``math.fsum``), so results do not depend on the order of the values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from llm_reports.stats.effective_size import Sample
from llm_reports.stats.intervals import Interval
from llm_users.quantile import DurationHistogram, quantile

PERCENTILES = {"median": 0.5, "p25": 0.25, "p75": 0.75, "p90": 0.90, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Summary:
    """The figures of a series. NaN marks figures that do not exist: all for an empty series, ``stddev`` below two.

    ``intervals`` contains the 95 % interval of the mean and of each percentile, by the name of the figure.
    ``effective`` contains the effective sample sizes of the intervals. Both are empty if the series is not a sample.
    """

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
    intervals: Mapping[str, Interval] = field(default_factory=dict, repr=False)
    effective: Mapping[str, float] = field(default_factory=dict, repr=False)


def ordered(values: Iterable[float]) -> Sequence[float]:
    """Return the values that are not missing, in ascending order: a numpy array that is typed as a sequence."""
    return cast("Sequence[float]", np.sort(_known(values)))


def _known(values: Iterable[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    of_series = getattr(values, "to_numpy", None)  # this module does not load pandas
    given = [*map(float, values)] if of_series is None else of_series(np.float64, na_value=math.nan)
    array = np.array(given, dtype=np.float64)
    return array[~np.isnan(array)]


def figures(values: Iterable[float]) -> Summary:
    """Return the figures of the values in any order, without intervals; NaN values are ignored."""
    array = np.sort(_known(values))
    n = len(array)
    if n == 0:
        return Summary(0)
    mean = math.fsum(array.tolist()) / n
    percentiles: dict[str, Any] = {name: quantile(cast("Sequence[float]", array), q) for name, q in PERCENTILES.items()}
    return Summary(
        n=n,
        mean=mean,
        stddev=math.sqrt(math.fsum(((array - mean) ** 2).tolist()) / (n - 1)) if n > 1 else math.nan,
        min=float(array[0]),
        max=float(array[-1]),
        **percentiles,
    )


def summarize(values: Iterable[float]) -> Summary:
    """Return the figures of the values with their intervals; NaN values are ignored.

    The intervals require the values in the order in which their requests started, because they account for the
    dependence of consecutive requests. The other figures do not depend on the order.
    """
    known = _known(values)
    summary = figures(known)
    if not summary.n:
        return summary
    sample = Sample(known, np.sort(known))
    sizes = {"mean": sample.dependence.size(), **{name: sample.size_about(q) for name, q in PERCENTILES.items()}}
    intervals = {name: sample.quantile_interval(q, sizes[name]) for name, q in PERCENTILES.items()}
    return replace(
        summary,
        intervals={"mean": sample.mean_interval(summary.mean, summary.stddev), **intervals},
        effective=sizes,
    )


def summarize_histogram(histogram: DurationHistogram) -> Summary:
    """Return the figures of a histogram of durations, which are accurate to the 0.1 % resolution of its buckets."""
    counted = [(histogram.value_s(bucket), count) for bucket, count in sorted(histogram.counts.items()) if count]
    n = sum(count for _, count in counted)
    if n == 0:
        return Summary(0)
    mean = math.fsum(value * count for value, count in counted) / n
    squares = math.fsum(count * (value - mean) ** 2 for value, count in counted)
    stddev = math.sqrt(squares / (n - 1)) if n > 1 else math.nan
    percentiles: dict[str, Any] = dict(zip(PERCENTILES, histogram.quantiles([*PERCENTILES.values()]), strict=True))
    return Summary(n, mean, stddev=stddev, min=counted[0][0], max=counted[-1][0], **percentiles)
