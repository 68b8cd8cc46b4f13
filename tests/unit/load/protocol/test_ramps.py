"""A rate that changes within a stage: arrivals follow the integral of the rate."""

from __future__ import annotations

import math
from itertools import islice, pairwise, takewhile
from typing import Any

import numpy as np
import pytest
from scipy import stats

from llm_users.distributions import ARRIVAL_GAPS, Distribution
from llm_users.load.protocol.arrivals import arrival_times_s, ramp_times_s
from llm_users.load.protocol.stage import StagePlan, arrival_times_of
from llm_users.record import RateRange, StageLoad

CONSTANT, POISSON, BURSTY = (Distribution.parse(text, ARRIVAL_GAPS) for text in ("constant", "poisson", "gamma:2"))
LENGTH_S = 600.0


def integral(rates: RateRange, at_s: float, length_s: float) -> float:
    """Return the expected number of arrivals until ``at_s``: the integral of the rate, by its definition."""
    inside = min(at_s, length_s)
    mean = (rates.start_per_s + rates.at(inside / length_s)) / 2
    return mean * inside + max(0.0, at_s - length_s) * rates.end_per_s


@pytest.mark.parametrize("ends", [(2.0, 20.0), (20.0, 2.0), (0.0, 20.0), (20.0, 0.0), (5.0, 5.0)])
def test_constant_arrivals_come_when_the_integral_of_the_rate_is_a_whole_number(ends: tuple[float, float]) -> None:
    rates = RateRange(*ends)
    times = list(islice(ramp_times_s(CONSTANT, rates, LENGTH_S, "1"), 3000))  # the integral is exactly 6,000 or 6,600
    assert [integral(rates, at_s, LENGTH_S) for at_s in times] == pytest.approx(range(1, 3001), rel=1e-9)
    inside = len(list(takewhile(lambda at_s: at_s <= LENGTH_S + 1e-6, ramp_times_s(CONSTANT, rates, LENGTH_S, "1"))))
    assert inside == round(rates.mean_per_s * LENGTH_S)


def test_after_the_change_the_rate_keeps_its_last_value() -> None:
    times = list(islice(ramp_times_s(CONSTANT, RateRange(1.0, 3.0), 10.0, "1"), 50))
    assert times[19] == pytest.approx(10.0)  # (1 + 3) / 2 * 10 arrivals
    assert [later - earlier for earlier, later in pairwise(times[19:])] == pytest.approx([1 / 3] * 30)
    assert list(ramp_times_s(CONSTANT, RateRange(4.0, 0.0), 10.0, "1"))[-1] == pytest.approx(10.0)


def rescaled_p(times: list[float], believed: RateRange, length_s: float, cv: float) -> float:
    """Return the p of a Kolmogorov-Smirnov test: are the arrivals, rescaled by the believed rate, the unit process?"""
    gaps = np.diff([0.0, *(integral(believed, at_s, length_s) for at_s in times)])
    return float(stats.kstest(gaps, stats.gamma(a=cv**-2, scale=cv**2).cdf).pvalue)


@pytest.mark.parametrize(("gap", "cv", "length_s"), [(POISSON, 1.0, 1200.0), (BURSTY, 2.0, 6000.0)])
def test_random_arrivals_are_a_process_in_rescaled_time(gap: Any, cv: float, length_s: float) -> None:
    rates, flat = RateRange(0.5, 3.5), RateRange(2.0, 2.0)
    runs = [
        list(takewhile(lambda at_s: at_s <= length_s, ramp_times_s(gap, rates, length_s, str(seed))))
        for seed in range(100)
    ]
    # False alarms: 5 % of the tests have a p below 0.05; by chance up to 13 of 100 tests (99.9 %).
    assert sum(rescaled_p(times, rates, length_s, cv) < 0.05 for times in runs) <= 13
    # Power: the same arrivals do not pass as arrivals at the constant mean rate.
    assert sum(rescaled_p(times, flat, length_s, cv) < 0.05 for times in runs) >= 90
    expected = rates.mean_per_s * length_s
    assert np.mean([len(times) for times in runs]) == pytest.approx(expected, abs=4 * cv * math.sqrt(expected / 100))


@pytest.mark.parametrize(("start", "before"), [(2.0, 2.0), (0.0, 5.0)])
def test_the_change_begins_after_the_warm_up(start: float, before: float) -> None:
    rates = RateRange(start, 10.0)
    plain = list(islice(ramp_times_s(CONSTANT, rates, 60.0, "1"), 100))
    counted = list(islice(ramp_times_s(CONSTANT, rates, 60.0, "1", warmup=4), 104))
    assert counted[:4] == pytest.approx([(n + 1) / before for n in range(4)])
    assert [at_s - counted[3] for at_s in counted[4:]] == pytest.approx(plain)
    timed = list(islice(ramp_times_s(CONSTANT, rates, 60.0, "1", warmup_s=20.0), 100 + int(20 * before)))
    assert timed[: int(20 * before)] == pytest.approx([(n + 1) / before for n in range(int(20 * before))])
    assert [at_s - 20.0 for at_s in timed[int(20 * before) :]] == pytest.approx(plain)


def test_a_stage_with_a_constant_rate_has_the_arrivals_of_before() -> None:
    plan = StagePlan(1, StageLoad(rate_per_s=4.0), measure_s=30.0)
    times = islice(arrival_times_of(plan, POISSON, 7, None), 50)
    assert list(times) == list(islice(arrival_times_s(POISSON, 4.0, "7:1:arrivals"), 50))
    ramped = StagePlan(
        1, StageLoad(rate_per_s=4.0, ramp=RateRange(2.0, 6.0)), measure_s=30.0, workers=2, warmup_requests=3
    )
    expected = ramp_times_s(POISSON, RateRange(2.0, 6.0), 30.0, "7:1:arrivals", warmup=6)
    assert list(islice(arrival_times_of(ramped, POISSON, 7, None), 50)) == list(islice(expected, 50))
