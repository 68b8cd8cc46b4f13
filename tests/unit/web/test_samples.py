"""The samples of the live view: sliding windows over the last ticks, and a bounded history that pages read in parts."""

from __future__ import annotations

import random
from itertools import chain

import pytest

from llm_users.quantile import DurationHistogram, quantile
from llm_users.web.samples import MOST_SAMPLES, History, Rate, SlidingHistogram


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


def test_the_history_of_eight_hours_is_bounded_and_goes_back_to_the_beginning() -> None:
    history = History()
    sizes = set()
    for second in range(8 * 3600):
        history.add({"t": float(second), "users": 4, "ttft_p50": float("nan")})
        sizes.add(len(history))
    assert max(sizes) == MOST_SAMPLES
    reset, samples = history.after(None)
    assert reset
    assert samples["t"][0] == 0
    assert samples["t"] == sorted(set(samples["t"]))
    assert samples["t"][-600:] == [float(second) for second in range(8 * 3600 - 600, 8 * 3600)]
    assert set(samples["ttft_p50"]) == {None}
    assert {len(values) for values in samples.values()} == {len(history)}


def test_a_page_gets_what_it_does_not_know() -> None:
    history = History()
    for second in range(5):
        history.add({"t": float(second)})
    assert history.after(history.seq) == (False, {name: [] for name in history.after(None)[1]})
    assert history.after(history.seq - 2)[1]["t"] == [3.0, 4.0]
    assert history.after(history.seq + 1)[0]
    old = history.seq
    history.forget()
    assert history.after(old)[0]
    history.add({"t": 0.0})
    assert history.after(old) == history.after(None)
