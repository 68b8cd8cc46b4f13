"""Significance of a difference: permutation and bootstrap of time blocks. This module works on numbers only.

Requests of a closed loop are not independent: a busy second slows all requests in flight. Blocks of consecutive
requests that are long compared with this correlation time are nearly independent, so this module shuffles and draws
blocks instead of single requests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np

from llm_reports.stats.intervals import UNKNOWN, Interval, student_t
from llm_users.quantile import quantile

Floats = np.ndarray[Any, np.dtype[np.float64]]

PERMUTATIONS = 9_999  # the smallest p is then 1 in 10,000
DRAWS = 500
FEWEST_DRAWS = 100  # for very long runs, where each draw takes long
_BLOCKS = 24  # blocks of the shorter run, if it is long enough
_FEWEST = 8
_MOST = 400  # blocks of both runs together
_ROUNDS = 3  # requests of every user in a block: the correlation time of a closed loop is about one
_SEED = 20_231_221
_TURN = 997
_LEAST_MEMORY = 0.25
_LEAST_PART, _MOST_ALIKE = 0.25, 0.7  # bounds for an estimate from few blocks, which would otherwise diverge
_WINDOW = 5
_WORK = 100_000_000  # number of values drawn for one interval
_ROUNDING = 1e-18  # squared deviations below this share of the squared values are rounding errors


@dataclass(frozen=True)
class Blocks:
    """The blocks of the requests of two runs, each in start order: the first index of each block."""

    first: tuple[tuple[int, ...], tuple[int, ...]]
    counts: tuple[int, int]
    length: int

    @property
    def numbers(self) -> tuple[int, int]:
        """The number of blocks of each run."""
        return len(self.first[0]), len(self.first[1])

    def sums(self, values: Sequence[np.ndarray[Any, Any]]) -> tuple[Floats, Floats]:
        """Return the sum of each block of both runs."""
        before, after = (np.add.reduceat(of_run, first, dtype=np.float64)
                         for of_run, first in zip(values, self.first, strict=True))  # fmt: skip
        return before, after


def cut(counts: tuple[int, int], concurrency: int) -> Blocks:
    """Return blocks of equal length for both runs.

    The shorter run has 24 blocks, or fewer so that each block contains 3 requests per user.
    """
    shorter = min(counts)
    length = max(1, math.ceil(shorter / _BLOCKS), min(_ROUNDS * max(concurrency, 1), shorter // _FEWEST))
    length = max(length, math.ceil(sum(counts) / _MOST))
    numbers = [max(1, count // length) for count in counts]
    first = [tuple(i * count // k for i in range(k)) for count, k in zip(counts, numbers, strict=True)]
    return Blocks((first[0], first[1]), counts, length)


@dataclass(frozen=True)
class Chance:
    """The result of a permutation test: the ``p`` of the observed difference, and the p of every shuffle."""

    p: float
    shuffles: Floats


NO_CHANCE = Chance(math.nan, np.empty(0))


def permutation(
    parts: tuple[Floats, Floats], wholes: tuple[Floats, Floats], *, paired: bool = False, hidden: float = 1.0
) -> Chance:
    """Test how often chance alone makes two ratios differ this much: sums of ``parts`` divided by sums of ``wholes``.

    ``parts`` and ``wholes`` have one value per block. Under the null hypothesis that both runs come from one process,
    the assignment of blocks to runs is arbitrary. ``paired``: block k of both runs contains the same prompts, so only
    the two blocks of a pair are exchanged. ``hidden``: the factor of the variance that the blocks cannot show, see
    ``hidden_from_p``.
    """
    if not all(whole.sum() for whole in wholes):
        return NO_CHANCE
    ratios = [part.sum() / whole.sum() for part, whole in zip(parts, wholes, strict=True)]
    off = [part - ratio * whole for part, ratio, whole in zip(parts, ratios, wholes, strict=True)]
    varies = any((o * o).sum() > _ROUNDING * (part * part).sum() for o, part in zip(off, parts, strict=True))
    if not varies and math.isclose(*ratios, rel_tol=1e-9):
        return Chance(1.0, np.ones(PERMUTATIONS))  # every shuffle equals the runs, for example without errors in both
    part, whole, first = np.concatenate(parts), np.concatenate(wholes), len(parts[0])
    orders = _swaps(first) if paired else _orders(len(part))
    by_chance = _distances(part[orders], whole[orders], first, paired)
    in_order = np.sort(by_chance)
    observed = _distances(part[np.newaxis], whole[np.newaxis], first, paired) / math.sqrt(hidden)
    return Chance(float(_p_values(observed, in_order)[0]), _p_values(by_chance, in_order))


def _distances(part: Floats, whole: Floats, first: int, paired: bool) -> Floats:
    """Return the distance of the ratios of both runs for each row of blocks, in standard errors of their difference.

    The error includes the variation of the blocks within each run (of the differences of paired blocks) and their
    correlation. A shuffle does not have correlation but is measured as if it had, so the random error of the estimate
    is the same in all shuffles. The larger a difference, the less a shuffle that mixes the runs can look like it,
    because its blocks differ by the difference. Runs whose blocks do not vary are infinitely far apart if their ratios
    differ, and have distance 0 if they agree.
    """
    sides = (slice(first), slice(first, None))
    with np.errstate(divide="ignore", invalid="ignore"):
        totals = [whole[:, side].sum(axis=1) for side in sides]
        ratios = [part[:, side].sum(axis=1) / total for side, total in zip(sides, totals, strict=True)]
        deviations = [
            (part[:, side] - ratio[:, np.newaxis] * whole[:, side]) / total[:, np.newaxis]
            for side, ratio, total in zip(sides, ratios, totals, strict=True)
        ]
        series = [deviations[1] - deviations[0]] if paired else deviations
        neighbours = sum((of_run[:, 1:] * of_run[:, :-1]).sum(axis=1) for of_run in series)
        variance = sum((of_run * of_run).sum(axis=1) for of_run in series)
        blocks = sum(of_run.shape[1] for of_run in series)
        scale = sum((part[:, side] ** 2).sum(axis=1) / total**2 for side, total in zip(sides, totals, strict=True))
        constant = variance <= _ROUNDING * scale
        correlation = neighbours / variance + len(series) / blocks
        difference = np.abs(ratios[0] - ratios[1])
        distance = difference / np.sqrt(variance * np.maximum(_LEAST_MEMORY, 1 + 2 * correlation))
        largest = np.maximum(np.abs(ratios[0]), np.abs(ratios[1]))
        distance = np.where(constant, np.where(difference > 1e-9 * largest, np.inf, 0.0), distance)
    return cast("Floats", np.where(np.isnan(distance), 0.0, distance))


def _p_values(observed: Floats, in_order: Floats) -> Floats:
    """Return the share of the ordered values that are as large as each observed value."""
    count = len(in_order)
    larger = count - np.searchsorted(in_order, observed * (1 + 1e-9), side="right")
    as_large = count - np.searchsorted(in_order, observed * (1 - 1e-9), side="left")
    # Scores are counts and often tie; counting half of the ties (mid-p) keeps the rate of false alarms at its level.
    return cast("Floats", (1 + (larger + as_large) / 2) / (1 + count))


def memory(parts: tuple[Floats, Floats], wholes: tuple[Floats, Floats], *, paired: bool = False) -> float:
    """Return the factor by which the variance exceeds that of independent neighbouring blocks; at least 1.

    The factor is (1 + r) / (1 - r), where r is the correlation of neighbouring blocks within each run (of the
    differences of paired blocks), if it halves with each further block. An estimate of r from k blocks is
    (1 + 3 r) / k too low (Kendall). Measured with 64 users and 400 requests, where a third of the variance has a
    correlation time of one request per user: the 95 % intervals cover 78 % with 1 + 2 r and 88 % with this factor; with
    2,000 requests 92 %.
    """
    series = [part - part.sum() / whole.sum() * whole for part, whole in zip(parts, wholes, strict=True)]
    if paired:
        series = [series[1] - series[0]]
    covariance = sum(float((off[1:] * off[:-1]).sum()) for off in series)
    variance = sum(float((off * off).sum()) for off in series)
    if variance <= _ROUNDING * sum(float((part * part).sum()) for part in parts):
        return 1.0
    k = sum(len(off) for off in series) / len(series)
    r = min(max(0.0, (covariance / variance + 1 / k) / max(_LEAST_PART, 1 - 3 / k)), _MOST_ALIKE)
    return (1 + r) / (1 - r)


def hidden_from_p(counts: tuple[int, int], users: int) -> float:
    """Return the factor of the variance that blocks hide from p, because the run is short for its correlation time.

    Measured where a third of the variance has a correlation time of one request per user: without this factor, 30 % of
    equal pairs with 1.6 requests per user are false alarms at a level of 5 %, and 12 % with three to six.
    """
    per_request = max(users, 1) / min(counts)
    return 1 + 2.5 * per_request + (2.6 * per_request) ** 2


def hidden_from_intervals(counts: tuple[int, int], users: int) -> float:
    """Return the factor of the variance that blocks hide from intervals.

    Without it, 95 % intervals covered 67, 85, 88 and 92 % with 1.6, 3, 6 and 12 requests per user.
    """
    return 1 + 3 * max(users, 1) / min(counts)


def autocorrelation_time(values: Floats) -> float:
    """Return the number of consecutive requests that is equivalent to one independent request; at least 1.

    This is the integrated autocorrelation time of values in start order, 1 + 2 (r1 + r2 + ...), summed over a window of
    five times this time (Sokal).
    """
    known = values[np.isfinite(values)]
    n = len(known)
    known = known - known.mean() if n else known
    if n < 2 or not known.any():
        return 1.0
    power = np.abs(np.fft.rfft(known, 2 * n)) ** 2
    alike = np.fft.irfft(power)[:n]
    time = 2 * np.cumsum(alike / alike[0]) - 1
    beyond = np.nonzero(np.arange(n) >= _WINDOW * time)[0]
    return max(1.0, float(time[beyond[0] if len(beyond) else -1]))


def above(values: Floats, q: float, pooled: Sequence[float]) -> Floats:
    """Return 1 for values above the q-quantile of both runs together, one half for values equal to it, else 0.

    Quantiles of two runs differ if these shares differ.
    """
    threshold = quantile(pooled, q)
    return np.where(values > threshold, 1.0, np.where(values == threshold, 0.5, 0.0))


def drawn_spreads(
    samples: tuple[Floats, Floats], blocks: Blocks, figure: Callable[[Floats], float], *, paired: bool = False
) -> tuple[Floats, Floats]:
    """Return the figure of each run over many draws of blocks with replacement; paired blocks are drawn together."""
    draws = max(FEWEST_DRAWS, min(DRAWS, _WORK // max(1, sum(blocks.counts))))
    spreads = []
    for side, (values, first) in enumerate(zip(samples, blocks.first, strict=True)):
        k = len(first)
        block = np.repeat(np.arange(k), np.diff([*first, len(values)]))
        known = ~np.isnan(values)
        order = np.argsort(values[known], kind="stable")
        in_order, block = values[known][order], block[known][order]
        generator = np.random.default_rng(_SEED + (0 if paired else side))
        figures = []
        for drawn in generator.integers(0, k, (draws, k)):
            times = np.bincount(drawn, minlength=k)
            # Ordered values are repeated, so that the draws do not need to be sorted.
            figures.append(figure(np.repeat(in_order, times[block])))
        spreads.append(np.array(figures))
    return spreads[0], spreads[1]


def drawn_rates(
    parts: tuple[Floats, Floats], wholes: tuple[Floats, Floats], *, paired: bool = False
) -> tuple[Floats, Floats]:
    """Return the ratio of sums of each run over many draws of blocks; paired blocks are drawn together."""
    rates = []
    for side, (part, whole) in enumerate(zip(parts, wholes, strict=True)):
        generator = np.random.default_rng(_SEED + (0 if paired else side))
        picked = generator.integers(0, len(part), (DRAWS, len(part)))
        rates.append(part[picked].sum(axis=1) / whole[picked].sum(axis=1))
    return rates[0], rates[1]


def difference_interval(
    figures: tuple[float, float],
    drawn: tuple[Floats, Floats],
    blocks: Blocks,
    *,
    widened: float = 1.0,
    as_ratio: bool = False,
    paired: bool = False,
) -> Interval:
    """Return the interval of ``after - before``, or of ``after / before``, from the variation over drawn blocks.

    ``widened``: a factor for the variance, see ``memory``. ``paired``: both figures of a draw are of the same blocks,
    so common effects cancel, mainly the lengths of the prompts.
    """
    usable = np.isfinite(drawn[0]) & np.isfinite(drawn[1])
    if as_ratio:
        usable &= (drawn[0] > 0) & (drawn[1] > 0)
    if min(blocks.numbers) < 2 or usable.sum() < len(usable) // 2 or (as_ratio and not all(f > 0 for f in figures)):
        return UNKNOWN
    first, second = (np.log(figures_drawn[usable]) if as_ratio else figures_drawn[usable] for figures_drawn in drawn)
    numbers = blocks.numbers
    if paired:
        variance, freedom = float(np.var(second - first)) * numbers[0] / (numbers[0] - 1), numbers[0] - 1
    else:
        variance = sum(float(np.var(v)) * k / (k - 1) for v, k in zip((first, second), numbers, strict=True))
        freedom = sum(numbers) - 2
    half_width = student_t(freedom) * math.sqrt(variance * widened)
    before, after = figures
    if as_ratio:
        return Interval(after / before * math.exp(-half_width), after / before * math.exp(half_width))
    return Interval(after - before - half_width, after - before + half_width)


def jointly(chances: Sequence[Chance], families: Sequence[int]) -> list[float]:
    """Return the p-values corrected for all lines together (Westfall and Young).

    A corrected p is the share of shuffles in which the smallest p is as small. Lines of one stage are correlated, also
    in their shuffles; a correction without this correlation (Holm's) detects fewer differences. ``families`` contains
    the number of the stage of each line: shuffles of different stages are independent of each other.
    """
    corrected = [math.nan] * len(chances)
    known = sorted((i for i, chance in enumerate(chances) if not math.isnan(chance.p)), key=lambda i: chances[i].p)
    smallest: Floats | None = None
    for index in reversed(known):
        # All stages use one list of shuffles; rotating it makes the shuffles of different stages independent.
        shuffles = np.roll(chances[index].shuffles, _TURN * families[index])
        smallest = shuffles if smallest is None else np.minimum(smallest, shuffles)
        smaller, as_small = (smallest < chances[index].p).sum(), (smallest <= chances[index].p).sum()
        corrected[index] = float((1 + (smaller + as_small) / 2) / (1 + len(smallest)))  # half of the ties, as above
    largest = 0.0
    for index in known:
        corrected[index] = largest = max(largest, corrected[index], chances[index].p)
    return corrected


@lru_cache(maxsize=8)
def _orders(blocks: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the order of the blocks in every shuffle; always the same, so that results are reproducible."""
    return np.random.default_rng(_SEED).random((PERMUTATIONS, blocks)).argsort(axis=1)


@lru_cache(maxsize=8)
def _swaps(pairs: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return the indices of the blocks of both runs when each pair of blocks is exchanged at random."""
    swapped = np.random.default_rng(_SEED).integers(0, 2, (PERMUTATIONS, pairs))
    index = np.arange(pairs)
    return np.concatenate((index + pairs * swapped, index + pairs * (1 - swapped)), axis=1)
