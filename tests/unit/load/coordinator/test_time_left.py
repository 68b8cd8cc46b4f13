"""Estimates of the remaining time, from plans whose real length is known."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from llm_users.load.coordinator.stages import StageSpec
from llm_users.load.coordinator.time_left import latency_s, later_s, stage_left_s
from llm_users.load.protocol.stage import StagePlan
from llm_users.record import StageLoad


def plan(*, requests: int | None = None, measure_s: float | None = None, users: int = 4) -> StagePlan:
    return StagePlan(1, StageLoad(users), requests=requests, measure_s=measure_s)


def test_the_limit_that_comes_first_ends_a_stage() -> None:
    assert stage_left_s(plan(requests=100), done=25, passed_s=10.0) == pytest.approx(30.0)
    assert stage_left_s(plan(measure_s=15.0), done=0, passed_s=10.0) == pytest.approx(5.0)
    assert stage_left_s(plan(requests=100, measure_s=15.0), done=25, passed_s=10.0) == pytest.approx(5.0)
    assert stage_left_s(plan(requests=100, measure_s=90.0), done=25, passed_s=10.0) == pytest.approx(30.0)
    assert stage_left_s(plan(measure_s=5.0), done=9, passed_s=10.0) == 0.0


def test_without_a_request_that_is_done_a_counted_stage_has_no_estimate() -> None:
    assert stage_left_s(plan(requests=100), done=0, passed_s=10.0) is None


def test_later_stages_take_requests_times_latency_by_users() -> None:
    # 4 users end 20 requests in 10 s, so one takes 2 s.
    latency = latency_s(plan(users=4), done=20, passed_s=10.0)
    assert latency == pytest.approx(2.0)
    assert later_s([StageSpec(StageLoad(8))], plan(requests=40), latency) == pytest.approx(10.0)
    assert later_s([], plan(requests=40), latency) == 0.0
    warmed = replace(plan(requests=40), warmup_requests=1, ramp_s=3.0)
    assert later_s([StageSpec(StageLoad(8))] * 2, warmed, latency) == pytest.approx(2 * (10.0 + 2.0 + 3.0))


def test_rates_and_times_need_no_latency() -> None:
    assert later_s([StageSpec(StageLoad(rate_per_s=10.0))], plan(requests=40), None) == pytest.approx(4.0)
    assert later_s([StageSpec(StageLoad(2))], plan(measure_s=30.0), None) == pytest.approx(30.0)


def test_counted_closed_stages_need_a_latency() -> None:
    assert later_s([StageSpec(StageLoad(2))], plan(requests=10), None) is None


@pytest.mark.parametrize("users", [1, 4, 8])
def test_the_estimate_counts_down_steadily_from_the_first_request(users: int) -> None:
    """150 answers of 8 s each, which end in waves: the length of the stage is known from the start."""
    wave_s, requests = 8.0, 150
    whole_s = -(-requests // users) * wave_s
    for passed_s in (8.1, 12.0, 15.9, 16.1, 23.9, 40.1, 47.9, 100.0):
        done = users * int(passed_s / wave_s)
        left_s = stage_left_s(plan(requests=requests, users=users), done, passed_s, cycle_s=wave_s)
        assert left_s == pytest.approx(whole_s - passed_s, abs=wave_s)


def test_pauses_that_no_row_has_slow_the_estimate_after_some_requests() -> None:
    """Each of 4 users waits 3 s after an answer of 1 s, so that a user sends a request each 4 s."""
    left_s = stage_left_s(plan(requests=400, users=4), done=100, passed_s=100.0, cycle_s=1.0)
    assert left_s == pytest.approx(300.0, rel=0.06)


def test_an_open_loop_takes_requests_by_rate() -> None:
    open_plan = StagePlan(1, StageLoad(rate_per_s=5.0), requests=100)
    assert stage_left_s(open_plan, done=1, passed_s=4.0, cycle_s=3.0) == pytest.approx(16.0)
