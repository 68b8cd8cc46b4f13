"""Comparisons of runs whose right answer is known: false alarms, power, coverage, pairing, runs, thresholds.

Latencies are of a closed loop: a share of their variance has a memory of one request per user, as when requests slow
each other at the endpoint. The second run of a pair is slower by a known factor, on the same random numbers at every
factor, so power at different factors can be compared without sampling noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from pandas import DataFrame, Series
from scipy import signal, stats

from llm_reports.compare.comparison import compare_runs
from llm_reports.compare.difference import LEVEL, WORSE
from llm_reports.compare.estimates import Estimate, paired_estimate, quantile_estimate, runs_estimate, share_estimate
from llm_reports.input.rows import empty_stages, typed_frame
from llm_reports.run import Run
from llm_reports.stats import block_resampling
from llm_reports.stats.intervals import Interval
from llm_users.record import REQUEST_COLUMNS
from llm_users.verdict import Verdict
from tests.system.truth.line import TruthLine, at_least, at_most

Floats = np.ndarray[Any, np.dtype[np.float64]]
FACTORS = (1.0, 1.01, 1.05, 1.1, 1.2, 1.5, 2.0, 5.0)
_COVERED = 1.1  # the factor at which coverage is counted
SHARED = 0.3  # of the variance, with a memory of one request per user
TAILS: dict[str, Callable[[Floats], Floats]] = {
    "2 % spread": lambda z: np.exp(0.02 * z),
    "lognormal 0.5": lambda z: np.exp(0.5 * z),
    "lognormal 1.0": lambda z: np.exp(1.0 * z),
    "Pareto 1.5": lambda z: stats.norm.sf(z) ** (-1 / 1.5),
}


@contextmanager
def quick_resampling() -> Iterator[None]:
    """Resample less in this context: 1 in 1,000 is fine enough a p for a rate, and 200 draws for a width."""
    before = block_resampling.PERMUTATIONS, block_resampling.DRAWS, block_resampling.FEWEST_DRAWS
    block_resampling.PERMUTATIONS, block_resampling.DRAWS, block_resampling.FEWEST_DRAWS = 999, 200, 2
    block_resampling._orders.cache_clear()
    block_resampling._swaps.cache_clear()
    try:
        yield
    finally:
        block_resampling.PERMUTATIONS, block_resampling.DRAWS, block_resampling.FEWEST_DRAWS = before
        block_resampling._orders.cache_clear()
        block_resampling._swaps.cache_clear()


def latencies(dice: np.random.Generator, n: int, users: int, tail: str) -> Floats:
    """Latencies of one run in the order of their starts."""
    return TAILS[tail](normals(dice, n, users, SHARED))


def normals(dice: np.random.Generator, n: int, users: int, shared: float) -> Floats:
    """Standard normal values, of whose variance the share ``shared`` has a memory of one request per user."""
    rho = math.exp(-1 / users)
    common = signal.lfilter([math.sqrt(1 - rho**2)], [1, -rho], dice.standard_normal(n + 10 * users))[-n:]
    return math.sqrt(1 - shared) * dice.standard_normal(n) + math.sqrt(shared) * common


def lines(full: bool) -> Iterator[TruthLine]:
    """The lines of this area."""
    with quick_resampling():
        yield from _separated()
        yield from _alarms_and_power(full)
        yield from _shares(full)
        yield from _pairs(full)
        yield from _runs(full)
        yield from _thresholds(full)


def _separated() -> Iterator[TruthLine]:
    """Runs without overlap have the smallest p that so many shuffles can give, the larger the difference."""
    smallest = 1 / (1 + block_resampling.PERMUTATIONS)
    dice = np.random.default_rng(1)
    fast, slow = latencies(dice, 200, 4, "2 % spread"), latencies(dice, 200, 4, "2 % spread")
    for factor in (1.2, 2.0, 5.0):
        for q in (0.5, 0.95):
            p = quantile_estimate((fast, factor * slow), q, 4).chance.p
            figure = f"p of quantile {q:g}, 2 % spread, {factor:g} times slower"
            yield TruthLine(figure, f"{smallest:.4f}", f"{p:.4f}", "exact", math.isclose(p, smallest, rel_tol=0.01))
    ones = np.ones(200)
    p = share_estimate((0 * ones, ones), (ones, ones), 4).chance.p
    yield TruthLine(
        "p of 0 % against 100 % errors", f"{smallest:.4f}", f"{p:.4f}", "exact", math.isclose(p, smallest, rel_tol=0.01)
    )


def _alarms_and_power(full: bool) -> Iterator[TruthLine]:
    settings = [(1, 100), (8, 400), (64, 400)] if full else [(8, 400)]
    tails = list(TAILS) if full else ["2 % spread", "lognormal 1.0"]
    pairs = 100 if full else 40
    factors = FACTORS if full else (1.0, 1.1, 2.0, 5.0)
    for tail in tails:
        for users, n in settings:
            for q in (0.5, 0.95):
                name = f"{tail}, {users} users, {n} requests, {'median' if q == 0.5 else 'P95'}"
                power, covered = [], 0
                for factor in factors:
                    dice = np.random.default_rng(3)
                    block_resampling.DRAWS = (
                        200 if factor == _COVERED else 2
                    )  # p needs no draws, and they take most time
                    estimates = [_pair_of(dice, n, users, tail, factor, q) for _ in range(pairs)]
                    power.append(sum(each.chance.p < LEVEL for each in estimates) / pairs)
                    if factor == _COVERED:
                        covered = sum(holds(each.ratio_interval, factor) for each in estimates)
                block_resampling.DRAWS = 200
                falls = max(before - after for before, after in pairwise(power))
                # Three standard deviations of so many pairs are above the stated rate.
                yield at_most(f"false alarms: {name}", LEVEL + 3 * deviation(LEVEL, pairs), power[0], "5 %")
                yield at_most(f"power falls from factor to factor: {name}", 0.03, falls, "never")
                if q == 0.5 or n >= 50 * users >= 400:  # few requests per user have few blocks with a P95 in them
                    yield at_least(f"power at 5 times slower: {name}", 0.9, power[-1], "100 %")
                yield at_least(f"coverage: {name}", 0.95 - 3 * deviation(0.93, pairs) - 0.02, covered / pairs, "95 %")


def _pair_of(dice: np.random.Generator, n: int, users: int, tail: str, factor: float, q: float) -> Estimate:
    fast, slow = latencies(dice, n, users, tail), latencies(dice, n, users, tail)
    return quantile_estimate((fast, factor * slow), q, users)


def _shares(full: bool) -> Iterator[TruthLine]:
    """Errors: alone and in bursts of ten, which make 400 requests worth far fewer."""
    pairs = 2000 if full else 300
    for name, burst in (("alone", 1), ("in bursts of 10", 10)):
        for before, after in ((0.0, 0.0), (0.02, 0.02), (0.05, 0.25)):
            dice, covered, narrow = np.random.default_rng(4), 0, 0
            for _ in range(pairs):
                hits = [np.repeat(dice.random(400 // burst) < share, burst).astype(float) for share in (before, after)]
                interval = share_estimate((hits[0], hits[1]), (np.ones(400), np.ones(400)), 8).difference_interval
                covered += holds(interval, after - before)
                narrow += interval.high <= interval.low
            figure = f"coverage: errors {100 * before:g} and {100 * after:g} %, {name}"
            yield at_least(figure, 0.92 - 2 * deviation(0.95, pairs), covered / pairs, "95 %")
            yield at_most(
                f"zero-width intervals: errors {100 * before:g} and {100 * after:g} %, {name}", 0.0, narrow / pairs
            )


def _pairs(full: bool) -> Iterator[TruthLine]:
    """Latencies that the lengths of the prompts dominate, 2 % noise beside them; both runs have the same lengths."""
    repeats = 300 if full else 40
    n, users = 400, 8
    widths: dict[bool, list[float]] = {True: [], False: []}
    covered = {True: 0, False: 0}
    found, alarms = {True: 0, False: 0}, 0
    dice = np.random.default_rng(6)
    for _ in range(repeats):
        lengths = np.exp(0.5 * dice.standard_normal(n))
        noise = [latencies(dice, n, users, "2 % spread") for _ in range(2)]
        same = (lengths * noise[0], lengths * noise[1])
        alarms += paired_estimate(same, users).chance.p < LEVEL
        slower = (same[0], 1.05 * same[1])
        for paired, estimate in (
            (True, paired_estimate(slower, users)),
            (False, quantile_estimate(slower, 0.5, users)),
        ):
            interval = estimate.ratio_interval
            covered[paired] += holds(interval, 1.05)
            widths[paired].append(math.log(interval.high / interval.low))
            found[paired] += estimate.chance.p < LEVEL
    factor = float(np.mean(widths[False]) / np.mean(widths[True]))
    yield TruthLine("paired intervals of a median are narrower by", "8 to 15", f"{factor:.1f}", ">= 8", factor >= 8)
    yield at_least("coverage: paired median", 0.95 - 3 * deviation(0.95, repeats), covered[True] / repeats, "95 %")
    yield at_most("false alarms: paired median", LEVEL + 3 * deviation(LEVEL, repeats), alarms / repeats, "5 %")
    yield at_least("power: paired median, 5 % slower", 0.95, found[True] / repeats, "100 %")
    yield at_most("power without pairing, the same runs", 0.5, found[False] / repeats, "small")


def _runs(full: bool) -> Iterator[TruthLine]:
    """Figures of runs that differ by 5 % from run to run, which no single run shows."""
    repeats = 4000 if full else 600
    for runs in (2, 3, 5):
        dice = np.random.default_rng(8)
        covered = alarms = 0
        for _ in range(repeats):
            before, after = (np.exp(0.05 * dice.standard_normal(runs)) for _ in range(2))
            covered += holds(runs_estimate(before, 1.2 * after).ratio_interval, 1.2)
            alarms += runs_estimate(before, after).chance.p < LEVEL
        name = f"{runs} runs per side, 5 % from run to run"
        yield at_least(f"coverage: {name}", 0.95 - 3 * deviation(0.95, repeats), covered / repeats, "95 %")
        yield at_most(f"false alarms: {name}", LEVEL + 3 * deviation(LEVEL, repeats), alarms / repeats, "5 %")


def _thresholds(full: bool) -> Iterator[TruthLine]:
    """Whole comparisons with a threshold of 5 %: what fails, what passes, what must not pass."""
    repeats = 40 if full else 5
    cases = (
        (30, 1.2, 0.08, Verdict.PASSED, 0.0, "30 requests, 20 % slower, 8 % spread: passed"),
        (30, 1.0, 0.3, Verdict.PASSED, 0.0, "30 requests, equal, 30 % spread: passed"),
        (30, 1.0, 0.3, Verdict.FAILED, 0.0, "30 requests, equal, 30 % spread: failed"),
        (400, 1.05, 0.08, Verdict.PASSED, 0.05, "400 requests, on the threshold, 8 % spread: passed"),
        (400, 1.05, 0.08, Verdict.FAILED, 0.05, "400 requests, on the threshold, 8 % spread: failed"),
    )
    sure = (
        (400, 1.0, 0.08, Verdict.PASSED, "400 requests, equal, 8 % spread: passed"),
        (400, 1.2, 0.08, Verdict.FAILED, "400 requests, 20 % slower, 8 % spread: failed"),
        (30, 1.0, 0.3, Verdict.UNDECIDED, "30 requests, equal, 30 % spread: undecided"),
    )
    for n, factor, spread, verdict, most, name in cases:
        yield at_most(name, most + 2 * deviation(most, repeats), _share(n, factor, spread, verdict, repeats), "never")
    for n, factor, spread, verdict, name in sure:
        yield at_least(name, 0.85, _share(n, factor, spread, verdict, repeats), "always")


def _share(n: int, factor: float, spread: float, verdict: str, repeats: int) -> float:
    return sum(_verdict(n, factor, spread, seed) == verdict for seed in range(repeats)) / repeats


def _verdict(n: int, factor: float, spread: float, seed: int) -> str:
    dice = np.random.default_rng(seed)
    runs = [run_of(dice, n, scale, spread, name) for name, scale in (("before", 1.0), ("after", factor))]
    comparison = compare_runs(runs, threshold=0.05, on="end_to_end_latency_s median")
    if comparison.failed:
        assert all(line.outcome == WORSE for line in comparison.failed)
        return Verdict.FAILED
    return Verdict.UNDECIDED if comparison.undecided else Verdict.PASSED


def run_of(dice: np.random.Generator, n: int, scale: float, spread: float, name: str) -> Run:
    """A run of four users: lognormal latencies of this spread around ``scale`` seconds, TTFT a tenth of each."""
    took_s = scale * np.exp(spread * dice.standard_normal(n))
    starts = 1.7e9 + np.concatenate(([0.0], np.cumsum(took_s)[:-1])) / 4
    values: dict[str, Series] = {
        "request_id": Series([f"r{i:06d}" for i in range(n)]),
        "measured": Series([1] * n),
        "stage": Series([1] * n),
        "concurrency": Series([4] * n),
        "started_at": Series(starts),
        "ttft_s": Series(took_s / 10),
        "end_to_end_latency_s": Series(took_s),
        "tpot_s": Series(took_s * 0.9 / 49),
        "output_tokens": Series([50] * n),
        "input_tokens": Series([550] * n),
        "connect_s": Series([0.0] * n),
        "error_code": Series([""] * n),
    }
    frame: DataFrame = typed_frame(values, REQUEST_COLUMNS)
    return Run(name, Path(name), frame, empty_stages())


def holds(interval: Interval, value: float) -> bool:
    """Whether the interval contains the value."""
    return interval.low <= value <= interval.high


def deviation(share: float, n: int) -> float:
    """The standard deviation of a share of ``n`` independent repetitions."""
    return math.sqrt(share * (1 - share) / n)
