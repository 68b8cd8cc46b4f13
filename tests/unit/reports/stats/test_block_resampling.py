"""Comparing two runs of one process: how often it cries wolf, with requests that remember each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import signal, stats

from llm_reports.stats import block_resampling
from llm_reports.stats.block_resampling import (
    NO_CHANCE,
    above,
    autocorrelation_time,
    cut,
    difference_interval,
    drawn_spreads,
    jointly,
    memory,
    permutation,
)
from llm_users.quantile import quantile
from tests.unit.reports.queue_alarms import alarms, one_queue, p_of

Floats = np.ndarray[Any, np.dtype[np.float64]]


@pytest.fixture(autouse=True)
def fewer_permutations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_resampling, "PERMUTATIONS", 499)
    block_resampling._orders.cache_clear()


def one_run(dice: np.random.Generator, n: int, users: int, shared: float) -> Floats:
    """Latencies of a closed loop: lognormal, a share of their variance with a memory of one request per user."""
    rho = math.exp(-1 / users)
    steps = dice.standard_normal(n + 200)
    common = signal.lfilter([math.sqrt(1 - rho**2)], [1, -rho], steps)[200:]
    spread = 0.5 * (math.sqrt(1 - shared) * dice.standard_normal(n) + math.sqrt(shared) * common)
    return np.asarray(np.exp(-1.5 + spread), dtype=np.float64)


@pytest.mark.parametrize("q", [0.5, 0.95])
@pytest.mark.parametrize(("counts", "users"), [((400, 400), 8), ((1000, 700), 16)])
def test_false_alarms_come_at_their_rate(counts: tuple[int, int], users: int, q: float) -> None:
    dice = np.random.default_rng(11)
    alarms = sum(
        p_of((one_run(dice, counts[0], users, 0.36), one_run(dice, counts[1], users, 0.36)), users, q) < 0.05
        for _ in range(1500)
    )
    assert 100 * alarms / 1500 == pytest.approx(5, abs=1.5)


def test_a_difference_is_found() -> None:
    dice = np.random.default_rng(12)
    found = sum(p_of((one_run(dice, 400, 8, 0.1), 1.4 * one_run(dice, 400, 8, 0.1)), 8, 0.5) < 0.05 for _ in range(100))
    assert found > 90


def test_intervals_of_the_ratio_cover_it() -> None:
    dice = np.random.default_rng(13)
    covered = 0
    for _ in range(150):
        samples = one_run(dice, 400, 8, 0.36), 1.3 * one_run(dice, 400, 8, 0.36)
        blocks = cut((400, 400), 8)

        def median(values: Floats) -> float:
            return quantile(values, 0.5)  # type: ignore[arg-type]

        pooled = np.sort(np.concatenate((samples[0], samples[1] / 1.3)))
        parts = blocks.sums([above(v, 0.5, pooled) for v in (samples[0], samples[1] / 1.3)])  # type: ignore[arg-type]
        ones = blocks.sums([np.ones(400)] * 2)
        figures = (median(np.sort(samples[0])), median(np.sort(samples[1])))
        drawn = drawn_spreads(samples, blocks, median)
        interval = difference_interval(figures, drawn, blocks, widened=memory(parts, ones), as_ratio=True)
        covered += interval.low <= 1.3 <= interval.high
    assert covered >= 133  # of 150; 142.5 are expected, and 133 or fewer of those come once in 2,000 times


def test_permutation_agrees_with_scipy() -> None:
    dice = np.random.default_rng(6)
    first, second = dice.normal(size=14), dice.normal(0.9, size=12)

    def difference(x: Floats, y: Floats) -> float:
        return float(x.mean() - y.mean())

    expected = stats.permutation_test((first, second), difference, n_resamples=9999, rng=1).pvalue
    ones = np.ones(14), np.ones(12)
    widened = memory((first, second), ones)
    if widened == 1.0:
        assert permutation((first, second), ones).p == pytest.approx(float(expected), abs=0.02)
    else:
        assert permutation((first, second), ones).p >= float(expected) - 0.02


def test_blocks_are_of_one_length_and_hold_everything() -> None:
    for counts, users in (((20, 20), 1), ((100, 5000), 16), ((1_000_000, 999_999), 64), ((150, 150), 5)):
        blocks = cut(counts, users)
        for count, first in zip(counts, blocks.first, strict=True):
            lengths = np.diff([*first, count])
            assert lengths.sum() == count
            assert lengths.min() >= 1
            assert lengths.max() <= max(2 * blocks.length, 2)
        assert sum(blocks.numbers) <= 400


def test_lines_that_move_together_are_not_corrected_twice() -> None:
    dice = np.random.default_rng(21)
    one = [np.asarray(dice.normal(size=24)) for _ in range(2)]
    ones = np.ones(24), np.ones(24)
    alone = permutation((one[0] + 0.6, one[1]), ones)
    assert jointly([alone], [0])[0] == pytest.approx(alone.p, abs=5e-3)
    assert jointly([alone] * 9, [0] * 9) == pytest.approx([alone.p] * 9, abs=5e-3)
    apart = jointly([alone] * 9, list(range(9)))
    assert apart == pytest.approx([1 - (1 - alone.p) ** 9] * 9, rel=0.2)  # nine independent lines
    assert math.isnan(jointly([alone, NO_CHANCE], [0, 0])[1])


def test_false_alarms_of_a_whole_table_come_at_their_rate() -> None:
    dice = np.random.default_rng(22)
    ones = np.ones(24), np.ones(24)
    alarms = 0
    for _ in range(1500):
        common = [np.asarray(dice.normal(size=24)) for _ in range(2)]
        lines = [
            permutation((common[0] + dice.normal(size=24), common[1] + dice.normal(size=24)), ones) for _ in range(4)
        ]
        alarms += min(jointly(lines, [0] * 4)) < 0.05
    assert 100 * alarms / 1500 == pytest.approx(5, abs=1.5)


@pytest.mark.parametrize("q", [0.5, 0.95])
@pytest.mark.parametrize("load", [0.5, 0.8])
def test_false_alarms_of_an_open_loop_are_no_more_than_stated(load: float, q: float) -> None:
    assert 100 * alarms(load, q, pairs=600) / 600 < 7


def test_how_long_requests_are_autocorrelation_time() -> None:
    dice = np.random.default_rng(7)
    assert autocorrelation_time(dice.normal(size=4000)) == pytest.approx(1, abs=0.15)
    alike = signal.lfilter([1], [1, -0.9], dice.normal(size=40_000))
    assert autocorrelation_time(alike) == pytest.approx(19, rel=0.15)  # (1 + 0.9) / (1 - 0.9)
    assert autocorrelation_time(np.array([math.nan, *([1.0] * 9)])) == autocorrelation_time(np.array([])) == 1
    # A queue at 95 % of its limit: what a run of 400 requests sees of it is little.
    assert [400 / autocorrelation_time(one_queue(dice, 400, load)[0]) > 30 for load in (0.5, 0.95)] == [True, False]
