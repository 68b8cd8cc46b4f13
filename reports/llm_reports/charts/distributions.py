"""Distributions of a latency by stage: the cumulative curve and the histogram.

Both include all requests. The cumulative curve is drawn through at most a few hundred of its steps. The histogram
counts all values, with the same bins for all stages.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llm_reports.charts.curve import LATENCY_NAMES, latencies_of
from llm_reports.charts.downsampling import evenly, short
from llm_reports.metrics.groups import Group
from llm_reports.metrics.inter_token import gaps_of, name_of
from llm_reports.metrics.summary import ordered

_STEPS_IN_ALL = 8000  # total over all stages of one figure; a curve of 400 steps is finer than a screen
_MOST_STEPS, _FEWEST_STEPS = 400, 40
_BINS = 48


@dataclass(frozen=True)
class Cumulative:
    """Share of the requests (y) that completed within x seconds; the curve steps up at each x."""

    n: int
    x: list[float | None]
    y: list[float | None]


@dataclass(frozen=True)
class Histogram:
    """Shares of each stage's requests in bins with these borders; ``log``: the bin widths grow geometrically."""

    log: bool
    borders: list[float | None]
    shares: list[list[float | None]]


@dataclass(frozen=True)
class Distribution:
    """One latency of all groups; ``cumulative`` and the ``shares`` of the histograms are in the order of the groups."""

    key: str
    name: str
    unit: str
    cumulative: list[Cumulative]
    linear: Histogram
    log: Histogram

    @property
    def is_wide(self) -> bool:
        """Whether the values span more than a linear axis can show well."""
        borders = [border for border in self.log.borders if border]
        return bool(borders) and borders[-1] / borders[0] > 20


def distributions(groups: Sequence[Group]) -> list[Distribution]:
    """Return the distribution of each latency that has at least one measured value."""
    result = []
    for key, metric in latencies_of(groups).items():
        values = [np.asarray(ordered(group.values(metric, group.ok))) for group in groups]
        if sum(map(len, values)):
            steps = min(_MOST_STEPS, max(_FEWEST_STEPS, _STEPS_IN_ALL // len(groups)))
            result.append(
                Distribution(
                    key=key,
                    name=LATENCY_NAMES[key],
                    unit=metric.unit,
                    cumulative=[_cumulative(group_values, steps) for group_values in values],
                    linear=_histogram(values, log=False),
                    log=_histogram(values, log=True),
                )
            )
    gaps = _gaps(groups)
    return [*result, gaps] if gaps else result


def _gaps(groups: Sequence[Group]) -> Distribution | None:
    """Return the distribution of the gaps between the events of all answers, from the histograms of the stages."""
    stage_gaps = gaps_of(groups)
    if not stage_gaps:
        return None
    empty = np.empty(0)
    values, counts = [empty] * len(groups), [empty] * len(groups)
    for gaps in stage_gaps:
        buckets = sorted(bucket for bucket, count in gaps.histogram.counts.items() if count)
        values[gaps.place] = np.array([gaps.histogram.value_s(bucket) for bucket in buckets])
        counts[gaps.place] = np.array([gaps.histogram.counts[bucket] for bucket in buckets], dtype=np.float64)
    return Distribution(
        key="gap",
        name=f"{name_of(stage_gaps).capitalize()} gap",
        unit="s",
        cumulative=[_weighted_cumulative(*pair) for pair in zip(values, counts, strict=True)],
        linear=_histogram(values, log=False, weights=counts),
        log=_histogram(values, log=True, weights=counts),
    )


def _weighted_cumulative(values: np.ndarray, counts: np.ndarray) -> Cumulative:
    """Return the cumulative curve of values with the number of times that each occurs."""
    n = int(counts.sum())
    shares = np.cumsum(counts) / max(1, n)
    # Steps that rise by less than a screen can show are omitted, except for the first and the last.
    kept = np.unique(np.searchsorted(shares, np.linspace(0, 1, _MOST_STEPS), side="left").clip(max=len(shares) - 1))
    indices = kept if n else np.arange(0)
    return Cumulative(n, short(values[indices]), short(shares[indices]))


def _cumulative(values: np.ndarray, steps: int) -> Cumulative:
    n = len(values)
    # Half of the steps are evenly spaced; the others are in the upper tenth, where readers look for percentiles.
    indices = np.union1d(evenly(n, steps // 2), n - 1 - evenly(max(1, n // 10), steps // 2)) if n else np.arange(0)
    return Cumulative(n, short(values[indices]), short((indices + 1) / n if n else indices))


def _histogram(values: Sequence[np.ndarray], *, log: bool, weights: Sequence[np.ndarray] | None = None) -> Histogram:
    pooled = np.concatenate([group_values[group_values > 0] if log else group_values for group_values in values])
    if not len(pooled):
        return Histogram(log, [], [[] for _ in values])
    low, high = float(pooled.min()), float(pooled.max())
    if low == high:
        low, high = (low / 1.1, high * 1.1) if log and low > 0 else (low - 0.05 * abs(low or 1), high + abs(high or 1))
    borders = np.geomspace(low, high, _BINS + 1) if log else np.linspace(low, high, _BINS + 1)
    borders[0], borders[-1] = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
    if weights is None:
        shares = [np.histogram(group_values, borders)[0] / max(1, len(group_values)) for group_values in values]
    else:
        shares = [
            np.histogram(group_values, borders, weights=group_weights)[0] / max(1.0, float(group_weights.sum()))
            for group_values, group_weights in zip(values, weights, strict=True)
        ]
    return Histogram(log, short(borders, 7), [short(group_values) for group_values in shares])
