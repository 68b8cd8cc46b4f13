"""Sliding windows of the live view: percentiles and rates of the last ticks only."""

from __future__ import annotations

import random
from itertools import chain

import pytest

from llm_users.quantile import DurationHistogram, quantile
from llm_users.web.windows import Rate, SlidingHistogram


def test_a_sliding_window_knows_the_last_ticks_only() -> None:
    window = SlidingHistogram(ticks=3)
    rng = random.Random(4)
    seconds = [[rng.lognormvariate(-3, 1) for _ in range(300)] for _ in range(9)]
    for place, values in enumerate(seconds):
        for part in (values[:100], values[100:]):  # as from two processes
            counts = DurationHistogram()
            for value in part:
                counts.add(value)
            window.merge(counts.counts)
        window.tick()
        known = sorted(chain.from_iterable(seconds[max(0, place - 2) : place + 1]))
        want = [quantile(known, q) for q in (0.5, 0.95, 0.99)]
        assert window.quantiles((0.5, 0.95, 0.99)) == pytest.approx(want, rel=0.0025)
    for _ in range(3):
        window.tick()
    assert window.quantiles((0.5,)) == [None]


def test_a_rate_is_the_mean_of_its_ticks() -> None:
    rate = Rate(ticks=2)
    assert rate.per_s == 0.0
    for amount in (100, 10, 20):
        rate.add(amount)
        rate.tick(0.5)
    assert rate.per_s == 30.0
