"""Estimates for one figure in two runs: the difference, the ratio, their intervals and the null distribution.

This module works on numbers only. Values are in the order of the requests' starts; NaN is a value that does not count,
such as the latency of a failed request. ``paired``: position i of both runs is the same prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from llm_reports.stats.block_resampling import (
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
    sums,
)
from llm_reports.stats.intervals import UNKNOWN, Interval, normal, student_t, values_needed
from llm_users.quantile import quantile

Pair = tuple[Floats, Floats]


_TRIMMED = 0.1  # share of the paired changes that is trimmed at each end


@dataclass(frozen=True)
class Estimate:
    """A figure before and after. ``units`` is the number of time blocks, or runs, of the smaller side.

    ``change`` is the center of ``ratio_interval`` when that is not after / before: for paired runs, the mean change of
    the prompts.
    """

    before: float
    after: float
    difference_interval: Interval
    ratio_interval: Interval
    chance: Chance = field(repr=False)
    units: int
    paired: bool = False
    change: float = math.nan


def quantile_estimate(samples: Pair, q: float, users: int, *, paired: bool = False) -> Estimate:
    """Estimate the q-quantile. ``users`` is the number of requests in flight, which sets the length of the blocks.

    The intervals are unknown if one run has too few values to bound the quantile on both sides (72 for a P95).
    """
    if paired:
        samples = _known_in_both(samples)
    blocks = cut((len(samples[0]), len(samples[1])), users)
    pooled = np.concatenate(samples)
    pooled = np.sort(pooled[~np.isnan(pooled)])
    known = [~np.isnan(values) for values in samples]
    scores = [
        np.where(k, above(v, q, cast("Sequence[float]", pooled)), 0.0) for v, k in zip(samples, known, strict=True)
    ]
    parts = (sums(scores[0], blocks.first[0]), sums(scores[1], blocks.first[1]))
    wholes = (sums(known[0].astype(np.float64), blocks.first[0]), sums(known[1].astype(np.float64), blocks.first[1]))

    def of(values: Floats) -> float:
        return quantile(cast("Sequence[float]", values), q)

    figures = (of(np.sort(samples[0][known[0]])), of(np.sort(samples[1][known[1]])))
    chance = permutation(parts, wholes, paired=paired, hidden=hidden_from_p(blocks.counts, users))
    if figures[0] != figures[1] and _separated(samples):
        # Runs without overlap differ in all of their quantiles. The share above a P95 alone cannot show that: it counts
        # ten of 100 requests, and they may be in few blocks.
        apart = tuple(np.where(k, float(side), 0.0) for side, k in enumerate(known))
        sides = (sums(apart[0], blocks.first[0]), sums(apart[1], blocks.first[1]))
        chance = Chance(permutation(sides, wholes, paired=paired).p, chance.shuffles)
    if min(int(k.sum()) for k in known) < values_needed(q):
        return Estimate(*figures, UNKNOWN, UNKNOWN, chance, min(blocks.numbers), paired)
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
    count = sums(known.astype(np.float64), blocks.first[0])
    clipped = np.where(known, np.clip(changes, low, high), 0.0)
    part, none = sums(clipped, blocks.first[0]), np.zeros(len(count))
    off = part - part.sum() / count.sum() * count
    k = len(off)
    variance = float((off * off).sum()) * k / (k - 1) / (float(count.sum()) * (1 - 2 * _TRIMMED)) ** 2
    widened = memory((none, part), (count, count), paired=True) * hidden_from_intervals(blocks.counts, users)
    reach = student_t(k - 1) * math.sqrt(variance * widened)
    ratio = Interval(math.exp(change - reach), math.exp(change + reach))
    # The clipping limit is symmetric around no change, so that exchanging the runs only changes the sign.
    ordered_sizes = cast("Sequence[float]", np.sort(np.abs(changes[known])))
    border = quantile(ordered_sizes, 1 - _TRIMMED)
    signed = sums(np.where(known, np.clip(changes, -border, border), 0.0), blocks.first[0])
    before, after = (quantile(cast("Sequence[float]", np.sort(values[known])), 0.5) for values in samples)
    return Estimate(
        before,
        after,
        Interval(before * (ratio.low - 1), before * (ratio.high - 1)),
        ratio,
        permutation((none, signed), (count, count), paired=True, hidden=hidden_from_p(blocks.counts, users)),
        k,
        True,
        math.exp(change),
    )


def share_estimate(hits: Pair, counted: Pair, users: int) -> Estimate:
    """Estimate a share of requests: ``hits`` is 1 for a request with the property, ``counted`` is 1 if it counts.

    The interval of the difference is Newcombe's, from Wilson's intervals of both shares. The counts are divided by the
    ratio of the variance of the blocks to that of independent requests. The interval never has zero width.
    """
    blocks = cut((len(hits[0]), len(hits[1])), users)
    parts = (sums(hits[0], blocks.first[0]), sums(hits[1], blocks.first[1]))
    wholes = (sums(counted[0], blocks.first[0]), sums(counted[1], blocks.first[1]))
    shares = [float(h.sum() / c.sum()) if c.sum() else math.nan for h, c in zip(hits, counted, strict=True)]
    # A run without errors cannot show whether errors occur in bursts; the other run may show it.
    excess = max(_excess(part, whole) for part, whole in zip(parts, wholes, strict=True))
    effective = [float(whole.sum()) / excess for whole in wholes]
    interval = newcombe((shares[0], shares[1]), (effective[0], effective[1]))
    chance = permutation(parts, wholes, hidden=hidden_from_p(blocks.counts, users))
    return Estimate(shares[0], shares[1], interval, UNKNOWN, chance, min(blocks.numbers))


def rate_estimate(
    figures: tuple[float, float], starts: Pair, tokens: Pair, users: int, *, paired: bool = False
) -> Estimate:
    """Estimate the tokens per second of the system: tokens of each block divided by the time to the next block."""
    blocks = cut((len(tokens[0]), len(tokens[1])), users)
    parts = (sums(tokens[0], blocks.first[0]), sums(tokens[1], blocks.first[1]))
    wholes = (_lasting(starts[0], blocks.first[0]), _lasting(starts[1], blocks.first[1]))
    drawn = drawn_rates(parts, wholes, paired=paired)
    widened = memory(parts, wholes, paired=paired) * hidden_from_intervals(blocks.counts, users)
    chance = permutation(parts, wholes, paired=paired, hidden=hidden_from_p(blocks.counts, users))
    return _estimate(figures, drawn, blocks, widened, chance, paired)


def newcombe(shares: tuple[float, float], counts: tuple[float, float]) -> Interval:
    """Return Newcombe's interval (method 10) of the second share minus the first, from Wilson's intervals of both."""
    if not all(count > 0 for count in counts):
        return UNKNOWN
    first, second = (wilson(share, count) for share, count in zip(shares, counts, strict=True))
    difference = shares[1] - shares[0]
    return Interval(
        difference - math.hypot(shares[1] - second.low, first.high - shares[0]),
        difference + math.hypot(second.high - shares[1], shares[0] - first.low),
    )


def wilson(share: float, count: float) -> Interval:
    """Return Wilson's interval of a share of an effective number of requests, which may be fractional."""
    z = normal(0.95)
    squared = z * z
    middle, reach = share + squared / (2 * count), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return Interval(
        max(0.0, (middle - reach) / (1 + squared / count)), min(1.0, (middle + reach) / (1 + squared / count))
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
    return Estimate(
        *figures,
        difference_interval(figures, drawn, blocks, widened=widened, paired=paired),
        difference_interval(figures, drawn, blocks, widened=widened, as_ratio=True, paired=paired),
        chance,
        min(blocks.numbers),
        paired,
    )


def _separated(samples: Pair) -> bool:
    low, high = sorted(samples, key=lambda values: float(np.nanmin(values)))
    return bool(np.nanmax(low) < np.nanmin(high))


def _known_in_both(samples: Pair) -> Pair:
    """Return the values with NaN for prompts without a value in both runs, such as a prompt that failed in one run."""
    both = ~(np.isnan(samples[0]) | np.isnan(samples[1]))
    return np.where(both, samples[0], math.nan), np.where(both, samples[1], math.nan)


def _lasting(starts: Floats, first: Sequence[int]) -> Floats:
    """Return the duration of each block, from its first start to that of the next block.

    The duration of the last block follows from the pace of its starts.
    """
    starts = np.sort(starts)  # prompts that start together may be numbered in another order
    borders = starts[list(first)]
    count = len(starts) - first[-1]
    last = (starts[-1] - borders[-1]) * count / (count - 1) if count > 1 else (starts[-1] - starts[0]) / len(starts)
    return np.append(np.diff(borders), last)
