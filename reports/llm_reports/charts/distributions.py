"""Distributions of a latency, stage against stage: the cumulative curve and the histogram.

Both are of all requests. The cumulative curve is drawn through at most a few hundred of its own steps; the histogram
counts everything, in the same bins for all stages.
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

_STEPS_IN_ALL = 8000  # of all stages of one figure together; a curve of 400 steps is finer than a screen
_MOST_STEPS, _FEWEST_STEPS = 400, 40
_BINS = 48


@dataclass(frozen=True)
class Cumulative:
    """Share of the requests (y) that were done within x seconds: steps up at each x."""

    n: int
    x: list[float | None]
    y: list[float | None]


@dataclass(frozen=True)
class Histogram:
    """Shares of each stage's requests in bins with these borders; ``log`` when the bins grow geometrically."""

    log: bool
    borders: list[float | None]
    shares: list[list[float | None]]


@dataclass(frozen=True)
class Distribution:
    """One latency over all groups: ``cumulative`` and ``histogram.shares`` are in the order of the groups."""

    key: str
    name: str
    unit: str
    cumulative: list[Cumulative]
    linear: Histogram
    log: Histogram


def distributions(groups: Sequence[Group]) -> list[Distribution]:
    """The distribution of each latency that was measured at all."""
    made = []
    for key, metric in latencies_of(groups).items():
        values = [np.asarray(ordered(group.values(metric, group.ok))) for group in groups]
        if sum(map(len, values)):
            steps = min(_MOST_STEPS, max(_FEWEST_STEPS, _STEPS_IN_ALL // len(groups)))
            made.append(
                Distribution(
                    key=key,
                    name=LATENCY_NAMES[key],
                    unit=metric.unit,
                    cumulative=[_cumulative(each, steps) for each in values],
                    linear=_histogram(values, log=False),
                    log=_histogram(values, log=True),
                )
            )
    gaps = _gaps(groups)
    return [*made, gaps] if gaps else made


def _gaps(groups: Sequence[Group]) -> Distribution | None:
    """The gaps between the events of all answers, from the stages' histograms, named for what they are between."""
    found = gaps_of(groups)
    if not found:
        return None
    nothing = np.empty(0)
    values, counts = [nothing] * len(groups), [nothing] * len(groups)
    for each in found:
        buckets = sorted(bucket for bucket, count in each.histogram.counts.items() if count)
        values[each.place] = np.array([each.histogram.value_s(bucket) for bucket in buckets])
        counts[each.place] = np.array([each.histogram.counts[bucket] for bucket in buckets], dtype=np.float64)
    return Distribution(
        key="gap",
        name=f"{name_of(found).capitalize()} gap",
        unit="s",
        cumulative=[_counted(*each) for each in zip(values, counts, strict=True)],
        linear=_histogram(values, log=False, weights=counts),
        log=_histogram(values, log=True, weights=counts),
    )


def _counted(values: np.ndarray, counts: np.ndarray) -> Cumulative:
    """The cumulative curve of values that occur so often each."""
    n = int(counts.sum())
    shares = np.cumsum(counts) / max(1, n)
    # Steps that rise by less than a screen shows are left out, but for the first and the last.
    kept = np.unique(np.searchsorted(shares, np.linspace(0, 1, _MOST_STEPS), side="left").clip(max=len(shares) - 1))
    places = kept if n else np.arange(0)
    return Cumulative(n, short(values[places]), short(shares[places]))


def _cumulative(values: np.ndarray, steps: int) -> Cumulative:
    n = len(values)
    # Half of the steps evenly, the others in the upper tenth, which is where percentiles are read off.
    places = np.union1d(evenly(n, steps // 2), n - 1 - evenly(max(1, n // 10), steps // 2)) if n else np.arange(0)
    return Cumulative(n, short(values[places]), short((places + 1) / n if n else places))


def _histogram(values: Sequence[np.ndarray], *, log: bool, weights: Sequence[np.ndarray] | None = None) -> Histogram:
    together = np.concatenate([each[each > 0] if log else each for each in values])
    if not len(together):
        return Histogram(log, [], [[] for _ in values])
    low, high = float(together.min()), float(together.max())
    if low == high:
        low, high = (low / 1.1, high * 1.1) if log and low > 0 else (low - 0.05 * abs(low or 1), high + abs(high or 1))
    borders = np.geomspace(low, high, _BINS + 1) if log else np.linspace(low, high, _BINS + 1)
    borders[0], borders[-1] = math.nextafter(low, -math.inf), math.nextafter(high, math.inf)
    if weights is None:
        shares = [np.histogram(each, borders)[0] / max(1, len(each)) for each in values]
    else:
        shares = [
            np.histogram(each, borders, weights=own)[0] / max(1.0, float(own.sum()))
            for each, own in zip(values, weights, strict=True)
        ]
    return Histogram(log, short(borders, 7), [short(each) for each in shares])
