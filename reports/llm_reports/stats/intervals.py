"""Confidence intervals for percentiles, means and ratios, and the number of requests that they need.

Percentiles: order statistics, ranks from the exact binomial distribution, without an assumption on the distribution of
the values. Means: Student's t. Ratios: Wilson. The functions take the number of *independent* values; for requests,
which depend on each other, this is the effective sample size (``llm_reports.stats.effective_size``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

from llm_users.quantile import quantile

LEVEL = 0.95
_TAIL_SDS = 12  # the binomial mass beyond this number of standard deviations from the mean is below 1e-30
_STABLE_WITHIN = 0.10


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided, equal-tailed interval.

    An end that the sample does not determine is infinite; both ends are NaN when the interval is unknown.
    """

    low: float = math.nan
    high: float = math.nan

    @property
    def known(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)


UNKNOWN = Interval()


@lru_cache(maxsize=4096)
def order_ranks(n: int, q: float, level: float = LEVEL) -> tuple[int, int]:
    """Return ranks (from 1) of the order statistics between which the q-quantile lies with at least this probability.

    Ranks 0 and n + 1 mean that the sample is too small to bound the quantile on that side.
    """
    tail = (1 - level) / 2
    # With B values at or below the quantile, B binomial(n, q): the l-th smallest is above it when B < l.
    low = _largest_rank(n, q, tail)
    high = n + 1 - _largest_rank(n, 1 - q, tail)
    return low, high


def quantile_interval(
    ordered: Sequence[float], q: float, level: float = LEVEL, *, size: float | None = None
) -> Interval:
    """Return the interval of the q-quantile of values in ascending order, with effective sample size ``size``."""
    n = len(ordered)
    if n == 0:
        return UNKNOWN
    low, high = effective_ranks(n, q, n if size is None else size, level)
    return Interval(
        float(ordered[low - 1]) if low >= 1 else -math.inf, float(ordered[high - 1]) if high <= n else math.inf
    )


def effective_ranks(n: int, q: float, size: float, level: float = LEVEL) -> tuple[int, int]:
    """Return the ``order_ranks`` of n values with effective sample size ``size``.

    The ranks for ``size`` independent values are mapped to the same positions in the distribution (rank k of m values
    is, on average, at k / (m + 1)) and rounded outwards. They equal ``order_ranks`` when ``size`` is n.
    """
    independent = max(1, min(n, math.floor(size + 1e-9)))
    low, high = order_ranks(independent, q, level)
    scale = (n + 1) / (independent + 1)
    return math.floor(low * scale + 1e-9), n + 1 if high > independent else math.ceil(high * scale - 1e-9)


def mean_interval(mean: float, stddev: float, n: float, level: float = LEVEL) -> Interval:
    """Return the t-interval of a mean of n independent values."""
    if n < 2 or math.isnan(stddev):
        return UNKNOWN
    reach = student_t(math.floor(n + 1e-9) - 1, level) * stddev / math.sqrt(n)
    return Interval(mean - reach, mean + reach)


def shifted_reach(interval: Interval, mean: float, n: float, skewness: float, level: float = LEVEL) -> Interval:
    """Return the t-interval of a mean, extended on the side of the longer tail.

    ``skewness`` is that of the mean, 1 / sqrt(n) times that of independent values. The extension is the first term of
    the Cornish-Fisher expansion (Johnson 1978), skewness / 6 (2 t^2 + 1) standard errors. It never shortens the
    interval. Without it, the upper end for a log-normal sample (sigma 1) is too low in 10 % of samples of 30, not
    2.5 %.
    """
    if not interval.known:
        return interval
    t = student_t(math.floor(n + 1e-9) - 1, level)
    more = skewness / 6 * (2 * t * t + 1) * (interval.high - mean) / t
    return Interval(interval.low + min(more, 0.0), interval.high + max(more, 0.0))


def ratio_interval(hits: float, n: float, level: float = LEVEL) -> Interval:
    """Return Wilson's interval of a ratio of counts of independent values."""
    if n == 0:
        return UNKNOWN
    z = normal(level)
    share, squared = hits / n, z * z
    middle = share + squared / (2 * n)
    reach = z * math.sqrt(share * (1 - share) / n + squared / (4 * n * n))
    low, high = (middle - reach) / (1 + squared / n), (middle + reach) / (1 + squared / n)
    return Interval(0.0 if hits == 0 else low, 1.0 if hits == n else high)


def values_needed(q: float, level: float = LEVEL) -> int:
    """Return the smallest number of values for an interval of the q-quantile with both ends: 368 for P99 at 95 %."""
    tail = (1 - level) / 2
    return max(1, math.ceil(math.log(tail) / math.log(max(q, 1 - q)) - 1e-9))


def requests_needed_below(limit: float, level: float = LEVEL) -> int:
    """Return the smallest sample without hits whose Wilson interval ends below the limit: 381 for 0.01 at 95 %."""
    squared = normal(level) ** 2
    return math.floor(squared * (1 - limit) / limit + 1e-9) + 1


def requests_to_tell(share: float, limit: float, level: float = LEVEL) -> int | None:
    """Return how many requests distinguish a constant ratio from a limit; ``None`` when the ratio equals the limit."""
    if share == limit:
        return None
    # Wilson's interval ends at the limit p where n (share - p)^2 = z^2 p (1 - p).
    return math.floor(normal(level) ** 2 * limit * (1 - limit) / (share - limit) ** 2 + 1e-9) + 1


def requests_for_stable(ordered: Sequence[float], q: float, within: float = _STABLE_WITHIN) -> int | None:
    """Return how many values bring the q-quantile's interval to within this share of the quantile; an estimate.

    The interval covers q +- z sqrt(q (1 - q) / n) of the distribution, so n follows from the part of the distribution
    within the wanted distance. ``None`` when the values do not determine it.
    """
    n = len(ordered)
    middle = quantile(ordered, q)
    if n < 2 or not math.isfinite(middle) or middle <= 0:
        return None
    reach = within * middle
    fits, too_far = 0.0, min(q, 1 - q)
    for _ in range(30):
        tried = (fits + too_far) / 2
        span = quantile(ordered, min(1.0, q + tried)) - quantile(ordered, max(0.0, q - tried))
        fits, too_far = (tried, too_far) if span <= 2 * reach else (fits, tried)
    if fits <= 0 or fits < 0.5 / n:
        return None
    return max(values_needed(q), math.ceil(normal(LEVEL) ** 2 * q * (1 - q) / fits**2))


@lru_cache(maxsize=64)
def normal(level: float) -> float:
    """Return the distance in standard deviations that contains this share of a normal distribution: 1.96 for 95 %."""
    return NormalDist().inv_cdf((1 + level) / 2)


@lru_cache(maxsize=4096)
def student_t(freedom: int, level: float = LEVEL) -> float:
    """Return the distance that contains this share of Student's t distribution with these degrees of freedom."""
    low, high = 0.0, 2.0
    outside = 1 - level
    while t_outside(high, freedom) > outside:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_outside(middle, freedom) > outside else (low, middle)
    return (low + high) / 2


def t_outside(t: float, freedom: int) -> float:
    """Return P(|T| > t), by the incomplete beta function I_x(freedom / 2, 1 / 2) at x = freedom / (freedom + t^2)."""
    a, b = freedom / 2, 0.5
    x = freedom / (freedom + t * t)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) \
        if 0 < x < 1 else 0.0  # fmt: skip
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function (Lentz's method, Abramowitz and Stegun 26.5.8)."""
    tiny = 1e-300
    c, d = 1.0, 1 / ((1 - (a + b) * x / (a + 1)) or tiny)
    value = d
    for m in range(1, 2000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / ((1 + step * d) or tiny)
            c = (1 + step / c) or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def _largest_rank(n: int, q: float, tail: float) -> int:
    """Return the largest l with P(B < l) <= tail for B binomial(n, q); 0 when there is none."""
    mass = 0.0
    start = max(0, math.floor(n * q - _TAIL_SDS * math.sqrt(n * q * (1 - q)) - 30))
    for k in range(start, n + 1):
        mass += _pmf(n, q, k)
        if mass > tail:
            return k
    return n


def _pmf(n: int, q: float, k: int) -> float:
    if not 0 < q < 1:
        return float(k == (n if q >= 1 else 0))
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(ways + k * math.log(q) + (n - k) * math.log1p(-q))
