"""Intervals against scipy on fixed cases, and by simulation against their exact coverage."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from scipy import stats

from llm_reports.metrics.summary import summarize
from llm_reports.stats.intervals import (
    mean_interval,
    order_ranks,
    quantile_interval,
    ratio_interval,
    requests_for_stable,
    requests_needed_below,
    requests_to_tell,
    student_t,
    values_needed,
)
from llm_users.quantile import quantile


def coverage(n: int, q: float, ranks: tuple[int, int]) -> float:
    """The exact probability that the q-quantile of a continuous distribution lies between these ranks."""
    below = stats.binom(n, q)
    return float(below.cdf(min(ranks[1] - 1, n)) - below.cdf(max(ranks[0], 0) - 1))


SIZES = (1, 5, 6, 71, 72, 100, 367, 368, 1000, 12345, 1_000_000)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("q", [0.25, 0.5, 0.9, 0.95, 0.99, 0.999])
def test_ranks_are_the_binomial_law_s(n: int, q: float) -> None:
    low, high = order_ranks(n, q)
    below = stats.binom(n, q)
    # The largest l with P(B < l) <= 2.5 %, the smallest u with P(B >= u) <= 2.5 %.
    assert below.cdf(low - 1) <= 0.025 < below.cdf(low)
    assert below.sf(high - 1) <= 0.025 + 1e-12
    assert below.sf(high - 2) > 0.025 - 1e-12


@pytest.mark.parametrize("freedom", [1, 2, 3, 7, 30, 149, 100_000])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_student_t(freedom: int, level: float) -> None:
    assert student_t(freedom, level) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-7)


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 381), (1, 1), (3, 150), (75, 150), (149, 150), (10, 100_000)])
def test_wilson(hits: int, n: int) -> None:
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    found = ratio_interval(hits, n)
    assert (found.low, found.high) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high))


def test_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(3).normal(2.0, size=20)
    values = np.concatenate([values, 4 - values])  # without skewness, for which the interval is made longer
    expected = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    found = summarize(values).intervals["mean"]
    assert (found.low, found.high) == pytest.approx(tuple(map(float, expected)))
    assert not mean_interval(1.0, math.nan, 1).known


def test_figures_against_scipy_and_numpy() -> None:
    values = np.random.default_rng(4).lognormal(size=321)
    found = summarize(values)
    assert found.stddev == pytest.approx(stats.tstd(values))
    for name, q in (("median", 0.5), ("p25", 0.25), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)):
        assert getattr(found, name) == pytest.approx(float(np.quantile(values, q)))
    bound = stats.quantile_test(values, p=0.95).confidence_interval(0.95)
    ours = found.intervals["p95"]
    assert (ours.low, ours.high) == (bound.low, bound.high)


@pytest.mark.parametrize(("n", "q"), [(30, 0.5), (100, 0.9), (100, 0.95), (150, 0.95), (400, 0.99), (100, 0.99)])
def test_simulated_coverage_is_the_exact_one(n: int, q: float) -> None:
    samples = np.sort(np.random.default_rng(n).exponential(size=(20_000, n)), axis=1)
    truth = -math.log(1 - q)
    intervals = (quantile_interval(sample, q) for sample in samples)
    covered = sum(interval.low <= truth <= interval.high for interval in intervals)
    assert 100 * covered / len(samples) == pytest.approx(100 * coverage(n, q, order_ranks(n, q)), abs=1.5)


@pytest.mark.parametrize(("n", "share"), [(100, 0.05), (400, 0.01), (150, 0.5)])
def test_simulated_coverage_of_a_ratio_is_the_exact_one(n: int, share: float) -> None:
    inside = [k for k in range(n + 1) if ratio_interval(k, n).low <= share <= ratio_interval(k, n).high]
    exact = math.fsum(stats.binom.pmf(inside, n, share))
    hits = np.random.default_rng(n).binomial(n, share, size=20_000)
    assert 100 * np.isin(hits, inside).mean() == pytest.approx(100 * exact, abs=1.5)


@pytest.mark.parametrize("n", [5, 30, 400])
def test_simulated_coverage_of_a_mean_is_the_stated_one(n: int) -> None:
    samples = np.random.default_rng(n).normal(3.0, 0.5, size=(20_000, n))
    means, deviations = samples.mean(axis=1), samples.std(axis=1, ddof=1)
    intervals = (mean_interval(mean, sd, n) for mean, sd in zip(means, deviations, strict=True))
    covered = sum(interval.low <= 3.0 <= interval.high for interval in intervals)
    assert 100 * covered / len(samples) == pytest.approx(95, abs=1.5)


def test_how_many_requests_are_needed() -> None:
    assert (values_needed(0.99), values_needed(0.95), values_needed(0.5)) == (368, 72, 6)
    assert requests_needed_below(0.01) == 381
    for limit in (0.001, 0.01, 0.02, 0.05, 0.3):
        n = requests_needed_below(limit)
        assert ratio_interval(0, n).high < limit <= ratio_interval(0, n - 1).high
    for q in (0.01, 0.25, 0.9, 0.95, 0.99, 0.999):
        n = values_needed(q)
        assert quantile_interval(range(n), q).known
        assert not quantile_interval(range(n - 1), q).known
    told = requests_to_tell(0.005, 0.01)
    assert told is not None
    assert ratio_interval(round(told * 0.005), told).high == pytest.approx(0.01, rel=0.05)
    assert requests_to_tell(0.01, 0.01) is None


def test_the_suggested_number_makes_a_p99_stable() -> None:
    dice = random.Random(2)
    pilot = sorted(dice.lognormvariate(0, 0.6) for _ in range(20_000))
    needed = requests_for_stable(pilot, 0.99)
    assert needed is not None
    widths = []
    for _ in range(20):
        sample = sorted(dice.lognormvariate(0, 0.6) for _ in range(needed))
        interval = quantile_interval(sample, 0.99)
        widths.append((interval.high - interval.low) / 2 / quantile(sample, 0.99))
    assert sum(widths) / len(widths) == pytest.approx(0.10, abs=0.025)
