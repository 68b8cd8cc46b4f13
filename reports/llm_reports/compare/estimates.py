"""Estimates for one figure before and after: the difference, the ratio, their intervals and the null distribution.

This module works on numbers only. For two runs, the time block is the statistical unit. Values are in the order of the
requests' starts; NaN is a value that does not count, such as the latency of a failed request. ``paired``: position i of
both runs is the same prompt.

For several runs per side, the run is the unit, so the interval includes the variation between runs. The method is
Student's t on the runs' figures, or on their logarithms where the figure has a ratio scale, with equal variance on both
sides. It makes no assumption about the requests within a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import cast

import numpy as np

from llm_reports.stats.block_resampling import (
    NO_CHANCE,
    Blocks,
    Chance,
    Floats,
    above,
    cut,
    difference_interval,
    drawn_rates,
    drawn_spreads,
    hidden_from_intervals,
    hidden_from_p,
    memory,
    permutation,
)
from llm_reports.stats.intervals import UNKNOWN, Interval, ratio_interval, student_t, t_outside, values_needed
from llm_users.quantile import quantile

Pair = tuple[Floats, Floats]


_NO_SHUFFLES = np.empty(0)
_TRIMMED = 0.1  # share of the paired changes that is trimmed at each end


@dataclass(frozen=True)
class Estimate:
    """A figure before and after.

    ``change`` is the center of ``ratio_interval`` when that is not after / before: for paired runs, the mean change of
    the prompts.
    """

    before: float
    after: float
    difference_interval: Interval
    ratio_interval: Interval
    chance: Chance = field(repr=False)
    paired: bool = False
    change: float = math.nan


NO_ESTIMATE = Estimate(math.nan, math.nan, UNKNOWN, UNKNOWN, NO_CHANCE)
"""The estimate for a stage that cannot be compared."""


def quantile_estimate(samples: Pair, q: float, users: int, *, paired: bool = False) -> Estimate:
    """Estimate the q-quantile. ``users`` is the number of requests in flight, which sets the length of the blocks.

    The intervals are unknown if one run has too few values to bound the quantile on both sides (72 for a P95).
    """
    known = (~np.isnan(samples[0]), ~np.isnan(samples[1]))
    if paired:  # a prompt counts if it has a value in both runs, so not if it failed in one of them
        known = (known[0] & known[1], known[0] & known[1])
        samples = (np.where(known[0], samples[0], math.nan), np.where(known[1], samples[1], math.nan))
    blocks = cut((len(samples[0]), len(samples[1])), users)
    in_order = (np.sort(samples[0][known[0]]), np.sort(samples[1][known[1]]))
    pooled = cast("Sequence[float]", np.sort(np.concatenate(in_order)))
    parts = blocks.sums([np.where(k, above(v, q, pooled), 0.0) for v, k in zip(samples, known, strict=True)])
    wholes = blocks.sums(known)

    def of(values: Floats) -> float:
        return quantile(cast("Sequence[float]", values), q)

    figures = (of(in_order[0]), of(in_order[1]))
    chance = permutation(parts, wholes, paired=paired, hidden=hidden_from_p(blocks.counts, users))
    low, high = sorted(in_order, key=lambda values: float(values[0]))
    if figures[0] != figures[1] and low[-1] < high[0]:
        # Runs without overlap differ in all of their quantiles. The share above a P95 alone cannot show that: it counts
        # ten of 100 requests, and they may be in few blocks.
        sides = blocks.sums([np.where(k, float(side), 0.0) for side, k in enumerate(known)])
        chance = Chance(permutation(sides, wholes, paired=paired).p, chance.shuffles)
    if min(int(k.sum()) for k in known) < values_needed(q):
        return Estimate(*figures, UNKNOWN, UNKNOWN, chance, paired)
    drawn = drawn_spreads(samples, blocks, of, paired=paired)
    widened = memory(parts, wholes, paired=paired) * hidden_from_intervals(blocks.counts, users)
    return _estimate(figures, drawn, blocks, widened, chance, paired)


def paired_estimate(samples: Pair, users: int) -> Estimate:
    """Estimate the change of the median of paired runs as the mean of log(after / before) over all prompts.

    A tenth of the changes is trimmed at each end, so that single stalls do not count. The interval is Student's t with
    the variance of blocks of consecutive prompts (Yuen's variance of a trimmed mean). p comes from exchanging the runs
    in each block. Prompt lengths cancel for every prompt; in the medians of both runs they cancel only on average.
    """
    known = np.isfinite(samples[0]) & np.isfinite(samples[1]) & (samples[0] > 0) & (samples[1] > 0)
    changes = np.zeros(len(known))
    changes[known] = np.log(samples[1][known] / samples[0][known])
    ordered = cast("Sequence[float]", np.sort(changes[known]))
    low, high = quantile(ordered, _TRIMMED), quantile(ordered, 1 - _TRIMMED)
    kept = known & (changes >= low) & (changes <= high)
    change = float(changes[kept].mean())
    blocks = cut((len(known), len(known)), users)
    count, part = blocks.sums((known, np.where(known, np.clip(changes, low, high), 0.0)))
    none = np.zeros(len(count))
    off = part - part.sum() / count.sum() * count
    k = len(off)
    variance = float((off * off).sum()) * k / (k - 1) / (float(count.sum()) * (1 - 2 * _TRIMMED)) ** 2
    widened = memory((none, part), (count, count), paired=True) * hidden_from_intervals(blocks.counts, users)
    reach = student_t(k - 1) * math.sqrt(variance * widened)
    ratio = Interval(math.exp(change - reach), math.exp(change + reach))
    # The clipping limit is symmetric around no change, so that exchanging the runs only changes the sign.
    ordered_sizes = cast("Sequence[float]", np.sort(np.abs(changes[known])))
    border = quantile(ordered_sizes, 1 - _TRIMMED)
    signed, _ = blocks.sums((np.where(known, np.clip(changes, -border, border), 0.0), known))
    before, after = (quantile(cast("Sequence[float]", np.sort(values[known])), 0.5) for values in samples)
    return Estimate(
        before,
        after,
        Interval(before * (ratio.low - 1), before * (ratio.high - 1)),
        ratio,
        permutation((none, signed), (count, count), paired=True, hidden=hidden_from_p(blocks.counts, users)),
        True,
        math.exp(change),
    )


def share_estimate(hits: Pair, counted: Pair, users: int) -> Estimate:
    """Estimate a share of requests: ``hits`` is 1 for a request with the property, ``counted`` is 1 if it counts.

    The interval of the difference is Newcombe's, from Wilson's intervals of both shares. The counts are divided by the
    ratio of the variance of the blocks to that of independent requests. The interval never has zero width.
    """
    blocks = cut((len(hits[0]), len(hits[1])), users)
    parts, wholes = blocks.sums(hits), blocks.sums(counted)
    shares = [float(h.sum() / c.sum()) if c.sum() else math.nan for h, c in zip(hits, counted, strict=True)]
    # A run without errors cannot show whether errors occur in bursts; the other run may show it.
    excess = max(_excess(part, whole) for part, whole in zip(parts, wholes, strict=True))
    effective = [float(whole.sum()) / excess for whole in wholes]
    interval = newcombe((shares[0], shares[1]), (effective[0], effective[1]))
    chance = permutation(parts, wholes, hidden=hidden_from_p(blocks.counts, users))
    return Estimate(shares[0], shares[1], interval, UNKNOWN, chance)


def rate_estimate(
    figures: tuple[float, float], starts: Pair, tokens: Pair, users: int, *, paired: bool = False
) -> Estimate:
    """Estimate the tokens per second of the system: tokens of each block divided by the time to the next block.

    Blocks begin and end within requests, so the interval is 1 to 3 times as wide as the spread of equal pairs (eight
    users, 400 requests). The time that requests occupy their users instead of the time to the next block is too narrow
    where lengths vary: with 50 % spread of the lengths, such intervals covered 74 %.
    """
    blocks = cut((len(tokens[0]), len(tokens[1])), users)
    parts = blocks.sums(tokens)
    wholes = (_lasting(starts[0], blocks.first[0]), _lasting(starts[1], blocks.first[1]))
    drawn = drawn_rates(parts, wholes, paired=paired)
    widened = memory(parts, wholes, paired=paired) * hidden_from_intervals(blocks.counts, users)
    chance = permutation(parts, wholes, paired=paired, hidden=hidden_from_p(blocks.counts, users))
    return _estimate(figures, drawn, blocks, widened, chance, paired)


def newcombe(shares: tuple[float, float], counts: tuple[float, float]) -> Interval:
    """Return Newcombe's interval (method 10) of the second share minus the first, from Wilson's intervals of both."""
    if not all(count > 0 for count in counts):
        return UNKNOWN
    first, second = (ratio_interval(share * count, count) for share, count in zip(shares, counts, strict=True))
    difference = shares[1] - shares[0]
    return Interval(
        difference - math.hypot(shares[1] - second.low, first.high - shares[0]),
        difference + math.hypot(second.high - shares[1], shares[0] - first.low),
    )


def _excess(part: Floats, whole: Floats) -> float:
    """Return the variance of the blocks divided by that of independent requests; at least 1."""
    count = float(whole.sum())
    share = float(part.sum()) / count if count else 0.0
    blocks = len(part)
    if not 0 < share < 1 or blocks < 2:
        return 1.0
    off = part - share * whole
    own = float((off * off).sum()) * blocks / (blocks - 1)
    return max(1.0, own * memory((part, part), (whole, whole)) / (count * share * (1 - share)))


def _estimate(
    figures: tuple[float, float], drawn: Pair, blocks: Blocks, widened: float, chance: Chance, paired: bool
) -> Estimate:
    ratio = difference_interval(figures, drawn, blocks, widened=widened, as_ratio=True, paired=paired)
    if ratio.known:  # one method for both, so that both intervals of a line agree
        difference = Interval(figures[0] * (ratio.low - 1), figures[0] * (ratio.high - 1))
    else:
        difference = difference_interval(figures, drawn, blocks, widened=widened, paired=paired)
    return Estimate(*figures, difference, ratio, chance, paired)


def _lasting(starts: Floats, first: Sequence[int]) -> Floats:
    """Return the duration of each block, from its first start to that of the next block.

    The duration of the last block follows from the pace of its starts.
    """
    starts = np.sort(starts)  # prompts that start together may be numbered in another order
    borders = starts[list(first)]
    count = len(starts) - first[-1]
    last = (starts[-1] - borders[-1]) * count / (count - 1) if count > 1 else (starts[-1] - starts[0]) / len(starts)
    return np.append(np.diff(borders), last)


def runs_estimate(
    before: Sequence[float], after: Sequence[float], *, counted: tuple[int, int] | None = None
) -> Estimate:
    """Return the estimate from one figure per run. Both sides together need at least three runs.

    ``counted``: the figures are shares, and these are the numbers of requests of all runs of each side. The interval of
    a share is never narrower than Newcombe's over all requests, which is also valid when no run has an error.
    """
    values = [*before, *after]
    if not all(math.isfinite(value) for value in values):
        known = [fmean(v for v in side if math.isfinite(v)) if any(map(math.isfinite, side)) else math.nan
                 for side in (before, after)]  # fmt: skip
        return Estimate(known[0], known[1], UNKNOWN, UNKNOWN, NO_CHANCE)
    if counted is not None or min(values) <= 0:
        difference, reach, p = _t(before, after)
        interval = Interval(difference - reach, difference + reach)
        if counted is not None:
            by_counts = newcombe((fmean(before), fmean(after)), (float(counted[0]), float(counted[1])))
            interval = Interval(min(interval.low, by_counts.low), max(interval.high, by_counts.high))
        return Estimate(fmean(before), fmean(after), interval, UNKNOWN, Chance(p, _NO_SHUFFLES))
    logs = [[math.log(value) for value in side] for side in (before, after)]
    change, reach, p = _t(logs[0], logs[1])
    ratio = Interval(math.exp(change - reach), math.exp(change + reach))
    middle = math.exp(fmean(logs[0]))
    difference_interval = Interval(middle * (ratio.low - 1), middle * (ratio.high - 1))
    return Estimate(middle, math.exp(fmean(logs[1])), difference_interval, ratio, Chance(p, _NO_SHUFFLES))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return the p-values with Holm's correction, which is valid for any dependence; NaN stays NaN."""
    known = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    corrected = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        corrected[index] = largest = min(1.0, max(largest, p * (len(known) - rank)))
    return corrected


def _t(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """Return the difference of the means, the half-width of its interval, and the p of Student's test."""
    freedom = len(before) + len(after) - 2
    difference = fmean(after) - fmean(before)
    squares = sum((value - fmean(side)) ** 2 for side in (before, after) for value in side)
    error = math.sqrt(squares / freedom * (1 / len(before) + 1 / len(after)))
    if error <= 1e-12 * max(abs(difference), 1e-300):
        return difference, 0.0, 1.0 if difference == 0 else 0.0
    return difference, student_t(freedom) * error, t_outside(abs(difference) / error, freedom)
