"""The percentile function against numpy, the mergeable histogram against the percentile function."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_users.quantile import DurationHistogram, SortedRuns, in_runs, quantile


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=50), st.floats(0, 1))
def test_quantile_is_numpys_linear_interpolation(values: list[float], q: float) -> None:
    assert quantile(sorted(values), q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-6)


def test_quantile_of_nothing_is_nan() -> None:
    assert math.isnan(quantile([], 0.5))


@pytest.mark.parametrize("q", [0.0, 0.25, 0.5, 0.95, 0.99, 1.0])
def test_histogram_quantiles_are_within_a_tenth_of_a_percent(q: float) -> None:
    rng = random.Random(5)
    values = [rng.lognormvariate(-4, 1.5) for _ in range(20_000)]
    histogram = DurationHistogram()
    for value in values:
        histogram.add(value)
    assert histogram.quantile(q) == pytest.approx(quantile(sorted(values), q), rel=0.0011)


def test_merged_histograms_equal_one_over_everything() -> None:
    rng = random.Random(6)
    values = [rng.expovariate(100) for _ in range(5000)]
    whole, parts = DurationHistogram(), [DurationHistogram() for _ in range(4)]
    for place, value in enumerate(values):
        whole.add(value)
        parts[place % 4].add(value)
    merged = DurationHistogram()
    for part in parts:
        merged.merge(part.counts)
    assert merged.counts == whole.counts
    assert merged.total == whole.total == 5000


@given(st.floats(1e-8, 1e5))
def test_every_duration_lies_in_its_bucket(duration_s: float) -> None:
    low_s, high_s = DurationHistogram.bounds_s(DurationHistogram.bucket(duration_s))
    assert low_s * (1 - 1e-9) <= duration_s <= high_s * (1 + 1e-9)


def test_zero_and_negative_durations_read_as_zero() -> None:
    histogram = DurationHistogram()
    for value in (0.0, -1.0, 0.0):
        histogram.add(value)
    assert histogram.quantile(0.5) == 0.0


def test_durations_in_nanoseconds_count_like_those_in_seconds() -> None:
    rng = random.Random(7)
    values_ns = [0, -5, 1, *(int(rng.lognormvariate(16, 3)) for _ in range(5000))]
    one_by_one, together = DurationHistogram(), DurationHistogram()
    for value_ns in values_ns:
        one_by_one.add(value_ns / 1e9)
    together.add_ns(values_ns)
    assert together.total == one_by_one.total
    qs = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)
    assert together.quantiles(qs) == pytest.approx(one_by_one.quantiles(qs), rel=0.002)


def test_what_was_merged_can_be_taken_out_again() -> None:
    first, second = DurationHistogram(), DurationHistogram()
    first.add_ns((10_000, 20_000, 20_000))
    second.add_ns((20_000, 5))
    whole = DurationHistogram(first.counts)
    whole.merge(second.counts)
    whole.remove(first.counts)
    assert whole.counts == second.counts
    assert whole.total == 2


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=60), st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_histogram_quantiles_interpolate_as_the_percentile_function_does(values_ns: list[int], qs: list[float]) -> None:
    histogram = DurationHistogram()
    histogram.add_ns(values_ns)
    read = sorted(histogram.value_s(histogram.bucket(value_ns / 1e9)) for value_ns in values_ns)
    assert histogram.quantiles(qs) == pytest.approx([quantile(read, q) for q in qs], rel=0.0021)


@pytest.mark.parametrize("count", [1, 9_999, 10_000, 10_001, 35_000])
def test_order_statistics_of_sorted_runs_are_those_of_one_sort(count: int) -> None:
    rng = random.Random(count)
    values = [round(rng.expovariate(1e-7)) if rng.random() < 0.8 else rng.randrange(3) for _ in range(count)]
    runs, ordered = SortedRuns(values), sorted(values)
    assert len(runs) == count
    for rank in {0, 1 % count, count // 2, count - 1, -1}:
        assert runs[rank] == ordered[rank]
    assert [quantile(runs, q) for q in (0.0, 0.5, 0.95, 0.99, 1.0)] == [
        quantile(ordered, q) for q in (0.0, 0.5, 0.95, 0.99, 1.0)
    ]


@pytest.mark.parametrize("count", [0, 1, 9_999, 10_000, 10_001, 10_002, 20_001, 35_000])
def test_runs_with_an_overlap_contain_each_pair_of_neighbours_once(count: int) -> None:
    values = list(range(count))
    assert [pair for run in in_runs(values, overlap=1) for pair in pairwise(run)] == list(pairwise(values))
    assert [value for run in in_runs(values) for value in run] == values
