"""Figures of a stage from two readings, against values that are known because the test chose the observations."""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st

from llm_users.record import ServerMetricRecord
from llm_users.server_metrics.exposition import HistogramValue, Reading
from llm_users.server_metrics.stage_window import StageWindow

BOUNDS = (0.01, 0.1, 0.5, 1.0, 5.0)


def histogram(values: list[float]) -> HistogramValue:
    counts = [0] * (len(BOUNDS) + 1)
    for value in values:
        counts[bisect_left(BOUNDS, value)] += 1
    buckets, total = {}, 0
    for bound, count in zip((*BOUNDS, math.inf), counts, strict=True):
        total += count
        buckets[bound] = float(total)
    return HistogramValue(buckets, math.fsum(values), float(len(values)))


def reading(values: dict[str, float], ttft_s: list[float]) -> Reading:
    return Reading("vllm", dict(values), {"ttft_s": histogram(ttft_s)})


def rows_of(window: StageWindow, after: Reading, ended_s: float) -> dict[str, ServerMetricRecord]:
    return {row.metric: row for row in window.records(after, ended_s, run_id="r", stage=2, server="http://s/metrics")}


@given(st.lists(st.floats(0, 10), max_size=30), st.lists(st.floats(0, 10), min_size=1, max_size=200))
def test_a_stage_has_the_observations_between_its_readings(before: list[float], within: list[float]) -> None:
    window = StageWindow(reading({"prompt_tokens": 100.0}, before), 10.0)
    row = rows_of(window, reading({"prompt_tokens": 150.0}, before + within), 14.0)["ttft_s"]
    assert row.increase == len(within)
    assert row.per_s == len(within) / 4
    assert row.mean is not None
    assert math.isclose(row.mean, statistics.fmean(within), rel_tol=1e-6, abs_tol=1e-6)
    for share, low, high in ((0.5, row.p50_low, row.p50_high), (0.9, row.p90_low, row.p90_high)):
        quantile = sorted(within)[math.ceil(share * len(within)) - 1]
        assert low is not None
        assert low <= quantile <= (math.inf if high is None else high)


def test_counters_gauges_and_ratios() -> None:
    before = reading({"prompt_tokens": 1000.0, "prefix_cache_queries": 50.0, "prefix_cache_hits": 10.0}, [])
    window = StageWindow(before, 100.0)
    for running in (1.0, 3.0, 8.0):
        window.add(Reading("vllm", {"requests_running": running, "prompt_tokens": 1200.0}))
    after = reading({"prompt_tokens": 1300.0, "prefix_cache_queries": 350.0, "prefix_cache_hits": 160.0}, [])
    rows = rows_of(window, after, 103.0)
    assert (rows["prompt_tokens"].increase, rows["prompt_tokens"].per_s) == (300.0, 100.0)
    running_row = rows["requests_running"]
    assert (running_row.mean, running_row.minimum, running_row.maximum, running_row.scrapes) == (4.0, 1.0, 8.0, 3)
    assert rows["prefix_cache_hit_rate"].mean == 150 / 300
    assert rows["ttft_s"].increase == 0
    assert rows["ttft_s"].mean is None
    assert "speculative_acceptance" not in rows


def test_a_published_share_goes_before_the_ratio() -> None:
    window = StageWindow(Reading("sglang", {"prefix_cache_queries": 0.0, "prefix_cache_hits": 0.0}), 0.0)
    window.add(Reading("sglang", {"prefix_cache_hit_rate": 0.25}))
    rows = rows_of(window, Reading("sglang", {"prefix_cache_queries": 4.0, "prefix_cache_hits": 4.0}), 1.0)
    assert rows["prefix_cache_hit_rate"].mean == 0.25


def test_a_restart_is_found_although_the_server_counts_more_at_the_end_than_before() -> None:
    between = StageWindow(reading({"prompt_tokens": 100.0}, [0.5]), 0.0)
    between.add(Reading("vllm", {"prompt_tokens": 20.0}))
    after = reading({"prompt_tokens": 400.0}, [0.5] * 4)
    assert between.restarted(after)
    by_start_time = StageWindow(Reading("vllm", {"prompt_tokens": 100.0}, started_s=1000.0), 0.0)
    assert by_start_time.restarted(Reading("vllm", {"prompt_tokens": 400.0}, started_s=2000.5))
    assert not by_start_time.restarted(Reading("vllm", {"prompt_tokens": 400.0}, started_s=1000.0))
    assert not by_start_time.restarted(Reading("vllm", {"prompt_tokens": 400.0}))


def test_after_a_restart_of_the_server_there_are_no_increases() -> None:
    window = StageWindow(reading({"prompt_tokens": 1000.0}, [0.1] * 5), 0.0)
    window.add(Reading("vllm", {"requests_running": 2.0}))
    after = reading({"prompt_tokens": 30.0}, [0.1])
    assert window.restarted(after)
    assert list(rows_of(window, after, 1.0)) == ["requests_running"]


def test_a_series_that_appears_in_the_stage_began_at_zero() -> None:
    window = StageWindow(Reading("vllm"), 0.0)
    rows = rows_of(window, reading({"prompt_tokens": 7.0}, [0.3]), 2.0)
    assert rows["prompt_tokens"].increase == 7
    assert rows["ttft_s"].mean == 0.3
