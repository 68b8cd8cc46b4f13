"""Effective sample size: the number of independent requests that is equivalent to a series of dependent requests.

Concurrent requests wait for each other, so their latencies are correlated, and an interval that counts them as
independent is too narrow (at 90 % load of a queue, it covers the true value in 12 % of runs, not in 95 %). The
effective size is N / integrated autocorrelation time, of the values in the order in which the requests started.

    values --(start order)--> indicator "over the limit" --> autocorrelation time --> N / time
                              (for a mean: the values)

An estimate of the autocorrelation time from few independent values is uncertain, and usually too short. Therefore the
bias is removed, and the upper end of a one-sided 95 % interval of the time is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np

from llm_reports.stats.intervals import (
    UNKNOWN,
    Interval,
    mean_interval,
    quantile_interval,
    ratio_interval,
    shifted_reach,
    values_needed,
)

Floats = np.ndarray[Any, np.dtype[np.float64]]

LEAST_EFFECTIVE = 30
"""Below this effective size, intervals are unknown and verdicts are undecided (MEASUREMENT: section 4)."""

CAUTION, OF_PROOFS, OF_MEAN_PROOFS, OF_DISPROOFS = 1.645, 2.0, 4.0, 0.0
"""Standard errors by which the autocorrelation time is increased above its estimate: one-sided 95 % for intervals.

To prove a limit, the value is larger: with 1.645, 5.8 % of runs passed a limit that was the true P95 of an M/M/1 queue
(load 0.9, 20,000 requests), and 6.5 % passed the true mean (load 0.8, 2,000 requests). It is largest for means, which
depend on the rare largest values. It is 0 for a disproof: in a run with an unusually long queue, the estimate of the
autocorrelation time is too high, not too low.
"""

_MOST_BATCHES = 16_384  # longer series are averaged in batches first: 3 ms instead of 150 ms for a million values
_LONGER, _FEWEST_BATCHES = 4, 60
"""The batch length is multiplied by four while at least 60 batches remain. In short batches, the differences between
single requests hide a slow change, such as a temporary queue, and the sum over lags would end before it is visible."""
_WINDOW = 5  # autocorrelations are summed up to this number of autocorrelation times (Sokal)
_LEAST_LEFT = 0.2  # minimum share of a sum of autocorrelations after its bias; below, the estimate is meaningless
_LEAST_SIGNIFICANT = 2.0
"""In standard errors of the time of independent values. A smaller excess over 1 counts as chance: otherwise one in
four runs of 100 independent requests would lose the 72 values that the interval of a P95 needs (with this limit: 6 %).
"""
_FEWEST_RARE = 20
"""Values on each side of a threshold that are needed to estimate the dependence of values beyond it. With fewer, the
threshold is moved towards the median."""
_SKEW_BATCHES = 30
_ALWAYS_LEFT = float(values_needed(0.95))


@dataclass(frozen=True, slots=True)
class Dependence:
    """The dependence of n values: their autocorrelation time and its relative standard error."""

    n: int
    time: float = 1.0
    error: float = 0.0

    def size(self, caution: float = CAUTION) -> float:
        """Return the effective size, between 1 and n; 0 without values."""
        return max(1.0, self.n / (1 + (self.time - 1) * (1 + caution * self.error))) if self.n else 0.0


def effective_size(values: Floats, caution: float = CAUTION) -> float:
    """Return the effective size of values (finite, in start order): between 1 and N; N when they are all equal."""
    return dependence(values).size(caution)


def dependence(values: Floats) -> Dependence:
    """Return the dependence of values (finite, in start order); independent when all are equal, or fewer than 30."""
    n = len(values)
    if n < LEAST_EFFECTIVE or values.min() == values.max():
        return Dependence(n)
    deviations = values - values.mean()
    squares = deviations * deviations
    variance = float(squares.mean())
    if not variance > 0:
        return Dependence(n)
    kurtosis = float(np.mean(squares * squares)) / variance**2
    length, strongest = math.ceil(n / _MOST_BATCHES), Dependence(n)
    while True:
        batches = deviations if length == 1 else deviations[: n // length * length].reshape(-1, length).mean(axis=1)
        result = _by_batches(batches, n, length, variance, kurtosis)
        strongest = result if result.time > strongest.time else strongest
        length *= _LONGER
        if n // length < _FEWEST_BATCHES:
            return strongest


def _by_batches(batches: Floats, n: int, length: int, variance: float, kurtosis: float) -> Dependence:
    """Return the dependence estimated from the means of batches; independent when it is not significant."""
    if batches.min() == batches.max():
        return Dependence(n)
    count, between = len(batches), _autocorrelation_time(batches)
    # n x the variance of the mean, from batches: length x their variance x their own autocorrelation time.
    time = length * float(np.mean(batches * batches)) / variance * between
    if time <= 1 + _LEAST_SIGNIFICANT * math.sqrt(2 * (2 * _WINDOW + 1) / count):
        return Dependence(n)
    # Relative variance of the estimate: 2 (2 W + 1) / n for a window W = 5 times (Sokal), plus the contribution of rare
    # large values by their excess kurtosis. The factor 2.5 is that of clusters of geometric size, such as the peaks of
    # a queue.
    error = math.sqrt((2 + 4 * _WINDOW * between) / count + 2.5 * time * max(0.0, kurtosis - 3) / n)
    return Dependence(n, time, error)


def _autocorrelation_time(values: Floats) -> float:
    """Return the integrated autocorrelation time of a series with mean 0; n / 2 when the series is too short.

    Autocovariances around an estimated mean are too low by the variance of that mean, which is time / n of the
    variance, in each of the 2 W + 1 terms of the sum. Therefore the sum is divided by 1 - (2 W + 1) / n.
    """
    n = len(values)
    size = 1 << (2 * n - 1).bit_length()
    covariances = np.fft.irfft(np.abs(np.fft.rfft(values, size)) ** 2)[: n // 2 + 1]
    lags = np.arange(len(covariances))
    sums = 2 * np.cumsum(covariances / covariances[0] * n / (n - lags)) - 1
    beyond = np.nonzero(lags >= _WINDOW * sums)[0]
    remaining = 1 - (2 * int(beyond[0]) + 1) / n if len(beyond) else 0.0
    return max(0.0, float(sums[beyond[0]]) / remaining) if remaining > _LEAST_LEFT else n / 2


@dataclass(frozen=True, eq=False)
class Sample:
    """Values of requests in start order, without NaN. Infinite values are allowed for quantiles."""

    values: Floats
    ordered: Floats
    """The same values in ascending order."""

    @classmethod
    def of(cls, values: Floats) -> Sample:
        """Return the sample of these values."""
        return cls(values, np.sort(values))

    def size_about(self, q: float, *, proof: bool = False) -> float:
        """Return the effective size for the q-quantile: the smaller of that of the indicator and that of the values.

        A run with low load has few values beyond its quantile, which may look independent although the values are not.
        ``proof``: return the size for the proof of a limit.
        """
        if not proof:
            return min(self.dependence_about(q).size(), self.dependence.size(0.0))
        size = min(self.dependence_about(q).size(OF_PROOFS), self.dependence.size(OF_PROOFS / 2))
        return min(size, max(self._hidden, _ALWAYS_LEFT))

    def dependence_about(self, q: float) -> Dependence:
        """Return the dependence of the indicator of values above the q-quantile.

        Near the ends of the distribution, where fewer than 20 values are beyond the quantile, use the indicator of the
        outermost quantile with 20 values beyond it.
        """
        n = len(self.values)
        if n < LEAST_EFFECTIVE:
            return Dependence(n)
        margin = min(0.5, _FEWEST_RARE / n)
        share = min(max(q, margin), 1 - margin)
        level = self.ordered[min(n - 1, math.floor(share * n))]
        above, from_there = self.values > level, self.values >= level
        wanted = n * (1 - share)
        # Many values may be equal to the level: use the indicator that is closer to the wanted share.
        closer = above if abs(int(above.sum()) - wanted) < abs(int(from_there.sum()) - wanted) else from_there
        return dependence(closer.astype(np.float64))

    def quantile_interval(self, q: float, size: float | None = None) -> Interval:
        """Return the 95 % interval of the q-quantile; unknown below an effective size of 30."""
        size = self.size_about(q) if size is None else size
        return quantile_interval(cast("Any", self.ordered), q, size=size) if size >= LEAST_EFFECTIVE else UNKNOWN

    @cached_property
    def dependence(self) -> Dependence:
        """The dependence of the values themselves; infinite values count as the largest finite value."""
        finite = np.isfinite(self.values)
        if finite.all():
            return dependence(self.values)
        return dependence(np.minimum(self.values, self.values[finite].max() if finite.any() else 0.0))

    @property
    def mean_size_for_proof(self) -> float:
        """The effective size for the proof of a limit of the mean."""
        return min(self.dependence.size(OF_MEAN_PROOFS), self._hidden)

    @property
    def _hidden(self) -> float:
        """The effective size at the largest dependence that this number of values may hide.

        A proof assumes this dependence, unless it would leave fewer values than a P95 needs. Without it, 8 % of runs of
        400 requests passed a limit that was the true mean of the simulated endpoint at half its capacity, and 6 %
        passed the true P99.
        """
        return len(self.values) / (1 + _LEAST_SIGNIFICANT * math.sqrt(2 * (2 * _WINDOW + 1) / len(self.values)))

    def mean_interval(self, mean: float, stddev: float, size: float | None = None) -> Interval:
        """Return the t-interval of the mean, longer on the side of the longer tail; unknown below effective size 30."""
        size = self.dependence.size() if size is None else size
        if size < LEAST_EFFECTIVE or not math.isfinite(stddev):
            return UNKNOWN
        return shifted_reach(mean_interval(mean, stddev, size), mean, size, self._skewness(size))

    def _skewness(self, size: float) -> float:
        """Return the skewness of the mean: from the values, or from batches of values if these show more."""
        n = len(self.values)
        length = max(1, n // _SKEW_BATCHES)
        batches = self.values[: n // length * length].reshape(-1, length).mean(axis=1)
        candidates = (_skewness(self.values) / math.sqrt(size), _skewness(batches) / math.sqrt(len(batches)))
        return max(candidates, key=abs)


def _skewness(values: Floats) -> float:
    off = values - values.mean()
    variance = float(np.mean(off * off))
    return float(np.mean(off**3)) / variance**1.5 if variance > 0 else 0.0


def share_interval(hits: int, n: int, size: float, *, unknown: int = 0) -> Interval:
    """Return Wilson's interval of the share of hits among n requests with this effective size; unknown below size 30.

    ``unknown`` requests are added as hits, for the worst case.
    """
    if size < LEAST_EFFECTIVE:
        return UNKNOWN
    return ratio_interval((hits + unknown) * size / n, (n + unknown) * size / n)
