"""The section for a quota request, on rows whose rates per minute are known by construction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llm_reports
from llm_reports.sections.quota import PerMinute, Quota, peak_per_minute, quota_section, quotas
from llm_reports.sections.section import section_text
from llm_users.record import RequestRecord, StageRecord
from tests.unit.reports.rows_on_disk import record

Write = Callable[..., Path]


def row(at_s: float, **values: Any) -> RequestRecord:
    tokens: dict[str, Any] = {"input_tokens": 1000, "output_tokens": 200, "requested_output_tokens": 500}
    return record(0, started_at=at_s, **(tokens | values))


def quota_of(write_run: Write, rows: list[RequestRecord], **stage: Any) -> Quota:
    prefix = write_run(rows, stages=[StageRecord(stage=1, concurrency=1, **stage)] if stage else ())
    (quota,) = quotas([llm_reports.load(prefix)])
    return quota


def text_of(run: llm_reports.Run) -> str:
    section = quota_section([run])
    return " ".join(section_text(section).split()) if section else ""


def amounts(quota: Quota) -> dict[str, PerMinute]:
    return {amount.name: amount for amount in quota.amounts}


def test_a_uniform_rate_is_both_the_peak_and_the_steady_rate(write_run: Write) -> None:
    # 2 requests/s for 5 minutes.
    found = amounts(quota_of(write_run, [row(1000 + 0.5 * i) for i in range(600)], measure_s=300.0))
    assert (found["Requests"].peak, found["Requests"].steady) == (120, 120)
    assert (found["Input tokens"].peak, found["Input tokens"].steady) == (120_000, 120_000)
    assert (found["Output tokens"].peak, found["Output tokens"].steady) == (24_000, 24_000)
    assert (found["Output tokens, maximum"].peak, found["Output tokens, maximum"].steady) == (60_000, 60_000)
    assert (found["Output tokens"].mean, found["Output tokens"].p95) == (200, 200)


def test_a_burst_is_the_peak_of_the_requests_and_not_of_the_tokens(write_run: Write) -> None:
    # One request per second for 5 minutes, and 40 short ones at one moment. Long prompts come in another minute.
    rows = [row(1000 + i, input_tokens=5000 if 200 <= i < 230 else 1000) for i in range(300)]
    rows += [row(1060.25, input_tokens=10) for _ in range(40)]
    found = amounts(quota_of(write_run, rows, measure_s=300.0))
    assert found["Requests"].peak == 60 + 40
    assert found["Input tokens"].peak == 30 * 5000 + 30 * 1000
    assert found["Requests"].steady == 340 / 5


def test_the_window_is_half_open() -> None:
    times = np.array([0.0, 59.999, 60.0, 60.001, 200.0])
    assert peak_per_minute(times, np.ones(5)) == 3  # those from 59.999 s on; 0 s and 60 s are not in one minute
    assert peak_per_minute(np.array([0.0, 60.0, 120.0]), np.array([1.0, 2.0, 3.0])) == 3


def test_a_short_run_is_extrapolated_and_says_so(write_run: Write) -> None:
    # 4 requests/s for 10.25 s.
    quota = quota_of(write_run, [row(1000 + 0.25 * i) for i in range(41)], measure_s=10.25)
    assert quota.is_extrapolated
    assert amounts(quota)["Requests"].peak == pytest.approx(240)
    assert amounts(quota)["Output tokens"].peak == pytest.approx(48_000)
    text = section_text(section) if (section := quota_section([quota.run])) else ""
    assert "The busiest stage lasted 10 s; at its rate: 240 requests per minute." in " ".join(text.split())
    assert "--llm-stage-time 180s" in text
    assert "no stage was measured for 60 s, so there is no steady rate" in " ".join(text.split()).lower()
    # Without a stages file: 41 requests span 40 intervals.
    assert peak_per_minute(np.arange(41) * 0.25, np.ones(41)) == pytest.approx(240)


def test_what_was_not_sent_does_not_count_and_throttles_are_named(write_run: Write) -> None:
    rows = [row(1000 + i) for i in range(120)]
    rows += [row(1000 + i, error_code="429", http_status=429, output_tokens=None) for i in range(30)]
    rows += [row(1000 + i, error_code="overflow", end_to_end_latency_s=None) for i in range(50)]
    quota = quota_of(write_run, rows, measure_s=120.0)
    assert (quota.requests, quota.throttled) == (150, 30)
    found = amounts(quota)
    assert found["Requests"].peak == 60
    assert found["Output tokens"].peak == 60 * 200  # a throttled request has no output
    text = section_text(section) if (section := quota_section([quota.run])) else ""
    assert "30 of 150 requests were throttled and are excluded" in " ".join(text.split())
    assert "| model" in text.lower()


def test_the_peak_is_at_least_the_rate_of_the_busiest_stage(write_run: Write) -> None:
    # Three stages of 10 s with 1, 5 and 20 requests/s and pauses of 30 s: any 60 s contain at most 50 + 200 requests.
    rows, stages = [], []
    for number, rate in enumerate((1, 5, 20), 1):
        rows += [row(1000 + 40 * number + i / rate, stage=number, stage_end=number) for i in range(10 * rate)]
        stages.append(StageRecord(stage=number, concurrency=1, measure_s=10.0))
    run = llm_reports.load(write_run(rows, stages=stages))
    (quota,) = quotas([run])
    found = amounts(quota)
    assert found["Requests"].peak == pytest.approx(20 * 60)
    assert found["Input tokens"].peak == pytest.approx(20 * 60 * 1000)
    assert found["Tokens, input + output cap"].peak == pytest.approx(20 * 60 * (1000 + 500))
    assert found["Tokens, input + output cap"].mean == 1500
    assert np.isnan(found["Requests"].steady)
    assert "the busiest stage lasted 10 s; at its rate: 1,200 requests per minute" in text_of(run).lower()


def test_a_run_without_success_has_no_figures(write_run: Write) -> None:
    rows = [row(1000 + i / 10, error_code="403", http_status=403, output_tokens=None) for i in range(1000)]
    run = llm_reports.load(write_run(rows, stages=[StageRecord(stage=1, concurrency=1, measure_s=100.0)]))
    text = text_of(run)
    assert "No request succeeded, so there are no figures" in text
    assert "| Requests" not in text


def test_a_daily_quota_has_no_advice_about_the_load(write_run: Write) -> None:
    rows = [row(1000 + i) for i in range(10)]
    rows += [row(1010, error_code="429", http_status=429, error_message="Too many tokens per day, please wait.")]
    run = llm_reports.load(write_run(rows, stages=[StageRecord(stage=1, concurrency=1, measure_s=10.0)]))
    assert "The exceeded quota does not recover within a run" in text_of(run)
    assert "lower the load" not in text_of(run)


def test_a_peak_that_was_observed_is_not_called_extrapolated(write_run: Write) -> None:
    # 100 requests before the measurement in 50 s, then a stage of 20 s with one request per second.
    rows = [row(1000 + i / 2, measured=0, phase="warmup") for i in range(100)] + [row(1050 + i) for i in range(20)]
    quota = quota_of(write_run, rows, measure_s=20.0)
    assert amounts(quota)["Requests"].peak == 110
    assert not quota.is_extrapolated
    assert "extrapolated" not in text_of(quota.run)


def test_a_short_run_without_stages_says_that_its_peak_is_extrapolated(write_run: Write) -> None:
    quota = quota_of(write_run, [row(1000 + 0.25 * i) for i in range(41)])
    assert amounts(quota)["Requests"].peak == pytest.approx(240)
    assert "Requests were sent for less than 60 s, so the peak is extrapolated." in text_of(quota.run)


def test_a_note_keeps_the_case_of_a_model(write_run: Write) -> None:
    rows = [row(1000 + i, model=model) for i in range(10) for model in ("anthropic.claude-instant-v1", "b")]
    run = llm_reports.load(write_run(rows, stages=[StageRecord(stage=1, concurrency=1, measure_s=10.0)]))
    assert "anthropic.claude-instant-v1: the busiest stage" in text_of(run)
    assert "Anthropic" not in text_of(run)


@pytest.mark.parametrize(
    ("model", "burndown"),
    [
        ("us.anthropic.claude-sonnet-4-20250514-v1:0", 5),
        ("anthropic.claude-haiku-4-5", 5),
        ("anthropic.claude-3-7-sonnet-20250219-v1:0", 5),
        ("us.anthropic.claude-3-5-haiku-20241022-v1:0", 1),
        ("anthropic.claude-3-haiku-20240307-v1:0", 1),
        ("us.amazon.nova-lite-v1:0", 1),
    ],
)
def test_output_of_newer_claude_models_counts_five_times(write_run: Write, model: str, burndown: int) -> None:
    rows = [row(1000 + i, model=model, framework="bedrock") for i in range(120)]
    run = llm_reports.load(write_run(rows, stages=[StageRecord(stage=1, concurrency=1, measure_s=120.0)]))
    found = amounts(quotas([run])[0])
    if burndown == 1:
        assert not any(" x output" in name for name in found)
        return
    assert found["Tokens, input + 5 x output"].peak == 60 * (1000 + 5 * 200)
    assert "each output token of this model counts as 5 tokens" in text_of(run)


def test_the_quota_found_is_what_the_endpoint_served_after_the_first_throttled_request(write_run: Write) -> None:
    """A full bucket of 60,000 tokens serves a burst of 50 requests of 1,200; then one request is served per 1.2 s."""
    rows = [row(1000 + i / 10) for i in range(50)]
    rows += [row(1005 + 1.2 * i) for i in range(100)]
    rows += [row(1005 + i / 5, error_code="429", http_status=429, output_tokens=None) for i in range(600)]
    quota = quota_of(write_run, rows, measure_s=125.0)
    assert quota.served is not None
    assert quota.served.is_quota
    assert quota.served.tokens == pytest.approx(60_000, rel=0.02)
    assert "The quota found: between" in text_of(quota.run)


def test_a_short_throttled_run_has_no_quota(write_run: Write) -> None:
    rows = [row(1000 + i / 10) for i in range(50)]
    rows += [row(1005 + i / 5, error_code="429", http_status=429, output_tokens=None) for i in range(100)]
    quota = quota_of(write_run, rows, measure_s=25.0)
    assert quota.served is not None
    assert not quota.served.is_quota
    assert "including the burst at the start" in text_of(quota.run)
    assert "not the quota. To find the quota, measure at least 3 minutes" in text_of(quota.run)


def test_lengths_are_those_that_the_provider_counted(write_run: Write) -> None:
    rows = [row(1000 + i) for i in range(100)]
    rows += [row(1100 + i, input_tokens=9000, input_tokens_source="tokenizer") for i in range(20)]
    rows = [dataclasses.replace(each, input_tokens_source=each.input_tokens_source or "usage") for each in rows]
    found = amounts(quota_of(write_run, rows, measure_s=120.0))
    assert (found["Input tokens"].mean, found["Input tokens"].p95) == (1000, 1000)
    assert found["Input tokens"].peak == 60_000
