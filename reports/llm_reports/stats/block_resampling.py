"""Is a difference more than noise? Permutation and bootstrap of blocks of time. Knows numbers only.

Requests of a closed loop are not independent: a busy second slows all that are in flight. Blocks of consecutive
requests, long against that memory, nearly are; so blocks, never single requests, are shuffled and drawn.
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
FEWEST_DRAWS = 100  # of very long runs, where each draw takes long
_BLOCKS = 24  # of the shorter run, when it is long enough for that
_FEWEST = 8
_MOST = 400  # of both runs together
_ROUNDS = 3  # requests of every user in a block: the memory of a closed loop is about one
_SEED = 20_231_221
_TURN = 997
_LEAST_MEMORY = 0.25
_LEAST_PART, _MOST_ALIKE = 0.25, 0.7  # bounds of an estimate from few blocks, which would otherwise explode
_WINDOW = 5
_WORK = 100_000_000  # values drawn for one interval
_ROUNDING = 1e-18  # squared deviations below this share of the squared values are rounding errors


@dataclass(frozen=True)
class Blocks:
    """How the requests of two runs, each in the order of their starts, are cut: the first index of each block."""

    first: tuple[tuple[int, ...], tuple[int, ...]]
    counts: tuple[int, int]
    length: int

    @property
    def numbers(self) -> tuple[int, int]:
        """How many blocks each run has."""
        return len(self.first[0]), len(self.first[1])


def cut(counts: tuple[int, int], concurrency: int) -> Blocks:
    """Blocks of one length for both runs: 24 of the shorter one, or fewer so that each holds 3 requests per user."""
    shorter = min(counts)
    length = max(1, math.ceil(shorter / _BLOCKS), min(_ROUNDS * max(concurrency, 1), shorter // _FEWEST))
    length = max(length, math.ceil(sum(counts) / _MOST))
    numbers = [max(1, count // length) for count in counts]
    first = [tuple(i * count // k for i in range(k)) for count, k in zip(counts, numbers, strict=True)]
    return Blocks((first[0], first[1]), counts, length)


def sums(values: Floats, first: Sequence[int]) -> Floats:
    """The sum of each block."""
    return cast("Floats", np.add.reduceat(values, np.array(first)))


@dataclass(frozen=True)
class Chance:
    """What chance alone does: the ``p`` of what was observed, and the p that every shuffle would have had instead."""

    p: float
    shuffles: Floats


NO_CHANCE = Chance(math.nan, np.empty(0))


def permutation(
    parts: tuple[Floats, Floats], wholes: tuple[Floats, Floats], *, paired: bool = False, hidden: float = 1.0
) -> Chance:
    """How often chance alone makes two ratios differ as much: of sums of ``parts`` by sums of ``wholes``, by block.

    Under the hypothesis that both runs are of one process, which block belongs to which run is arbitrary. ``paired``:
    block k of both runs holds the same prompts, so only the two blocks of a pair are exchanged. ``hidden``: the factor
    of the variance that the blocks cannot show, see ``hidden_from_p``.
    """
    if not all(each.sum() for each in wholes):
        return NO_CHANCE
    if not any(_varies(part, whole) for part, whole in zip(parts, wholes, strict=True)) and _same_ratio(parts, wholes):
        return Chance(1.0, np.ones(PERMUTATIONS))  # every shuffle looks like the runs: no errors in both, for example
    part, whole, first = np.concatenate(parts), np.concatenate(wholes), len(parts[0])
    orders = _swaps(first) if paired else _orders(len(part))
    by_chance = _distances(part[orders], whole[orders], first, paired)
    in_order = np.sort(by_chance)
    observed = _distances(part[np.newaxis], whole[np.newaxis], first, paired) / math.sqrt(hidden)
    return Chance(float(_p_values(observed, in_order)[0]), _p_values(by_chance, in_order))


def _varies(part: Floats, whole: Floats) -> bool:
    off = part - part.sum() / whole.sum() * whole
    return bool((off * off).sum() > _ROUNDING * (part * part).sum())


def _same_ratio(parts: tuple[Floats, Floats], wholes: tuple[Floats, Floats]) -> bool:
    first, second = (part.sum() / whole.sum() for part, whole in zip(parts, wholes, strict=True))
    return math.isclose(first, second, rel_tol=1e-9)


def _distances(part: Floats, whole: Floats, first: int, paired: bool) -> Floats:
    """How far apart the ratios of both runs are in each line of blocks, in standard errors of their difference.

    The error is that of the blocks within each run (of the differences of paired blocks) and their memory. A shuffle
    has no memory but is measured as if it had, so what the estimate adds by chance is in all of them alike. The larger
    a difference, the less a shuffle that mixes the runs can look like it: its blocks differ by the difference. Runs
    whose blocks do not vary at all are infinitely far apart when their ratios differ, and not apart when they agree.
    """
    sides = (slice(first), slice(first, None))
    with np.errstate(divide="ignore", invalid="ignore"):
        totals = [whole[:, own].sum(axis=1) for own in sides]
        ratios = [part[:, own].sum(axis=1) / total for own, total in zip(sides, totals, strict=True)]
        off = [
            (part[:, own] - ratio[:, np.newaxis] * whole[:, own]) / total[:, np.newaxis]
            for own, ratio, total in zip(sides, ratios, totals, strict=True)
        ]
        series = [off[1] - off[0]] if paired else off
        neighbours = sum((each[:, 1:] * each[:, :-1]).sum(axis=1) for each in series)
        alone = sum((each * each).sum(axis=1) for each in series)
        blocks = sum(each.shape[1] for each in series)
        scale = sum((part[:, own] ** 2).sum(axis=1) / total**2 for own, total in zip(sides, totals, strict=True))
        constant = alone <= _ROUNDING * scale
        together = neighbours / alone + len(series) / blocks
        apart = np.abs(ratios[0] - ratios[1])
        found = apart / np.sqrt(alone * np.maximum(_LEAST_MEMORY, 1 + 2 * together))
        largest = np.maximum(np.abs(ratios[0]), np.abs(ratios[1]))
        found = np.where(constant, np.where(apart > 1e-9 * largest, np.inf, 0.0), found)
    return cast("Floats", np.where(np.isnan(found), 0.0, found))


def permutation_p(parts: tuple[Floats, Floats], wholes: tuple[Floats, Floats], hidden: float = 1.0) -> float:
    """The p of ``permutation`` alone; NaN when there is nothing to shuffle."""
    return permutation(parts, wholes, hidden=hidden).p


def _p_values(observed: Floats, in_order: Floats) -> Floats:
    """How many of the values in order are as large as each observed one, as a share."""
    count = len(in_order)
    larger = count - np.searchsorted(in_order, observed * (1 + 1e-9), side="right")
    as_large = count - np.searchsorted(in_order, observed * (1 - 1e-9), side="left")
    # Scores are counts and tie often; half of the ties (mid-p) keeps the rate of false alarms at its level.
    return cast("Floats", (1 + (larger + as_large) / 2) / (1 + count))


def memory(parts: tuple[Floats, Floats], wholes: tuple[Floats, Floats], *, paired: bool = False) -> float:
    """By how much more the ratios vary than blocks would let them if neighbours were independent; 1 or more.

    (1 + r) / (1 - r), with r the correlation of neighbouring blocks within each run (of the differences of paired
    blocks), when it halves with each further block. An estimate of r from k blocks is (1 + 3 r) / k too low (Kendall).
    Measured with 64 users and 400 requests, a third of the variance with a memory of one request per user: the 95 %
    intervals cover 78 % with 1 + 2 r and 88 % with this factor; with 2,000 requests 92 %.
    """
    series = [part - part.sum() / whole.sum() * whole for part, whole in zip(parts, wholes, strict=True)]
    if paired:
        series = [series[1] - series[0]]
    together = sum(float((off[1:] * off[:-1]).sum()) for off in series)
    alone = sum(float((off * off).sum()) for off in series)
    if alone <= _ROUNDING * sum(float((part * part).sum()) for part in parts):
        return 1.0
    k = sum(len(off) for off in series) / len(series)
    r = min(max(0.0, (together / alone + 1 / k) / max(_LEAST_PART, 1 - 3 / k)), _MOST_ALIKE)
    return (1 + r) / (1 - r)


def hidden_from_p(counts: tuple[int, int], users: int) -> float:
    """The factor of the variance that blocks hide from p, because the run is short against its own memory.

    Measured where a third of the variance has a memory of one request per user: without it 30 % of equal pairs with 1.6
    requests per user are alarms at a level of 5 %, and 12 % with three to six.
    """
    per_request = max(users, 1) / min(counts)
    return 1 + 2.5 * per_request + (2.6 * per_request) ** 2


def hidden_from_intervals(counts: tuple[int, int], users: int) -> float:
    """The same for intervals, which covered 67, 85, 88 and 92 % with 1.6, 3, 6 and 12 requests per user."""
    return 1 + 3 * max(users, 1) / min(counts)


def autocorrelation_time(values: Floats) -> float:
    """How many requests in a row are worth one independent one; 1 or more.

    The integrated autocorrelation time of values in the order of their starts, 1 + 2 (r1 + r2 + ...), summed over a
    window of five times itself (Sokal).
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
    """1 for values above the q-quantile of both runs together, one half on it: quantiles differ when its shares do."""
    border = quantile(pooled, q)
    return np.where(values > border, 1.0, np.where(values == border, 0.5, 0.0))


def drawn_spreads(
    samples: tuple[Floats, Floats], blocks: Blocks, figure: Callable[[Floats], float], *, paired: bool = False
) -> tuple[Floats, Floats]:
    """The figure of each run over blocks drawn with replacement, many times; pairs of blocks are drawn together."""
    draws = max(FEWEST_DRAWS, min(DRAWS, _WORK // max(1, sum(blocks.counts))))
    first, second = (
        _drawn(values, starts, figure, draws, _SEED + (0 if paired else place))
        for place, (values, starts) in enumerate(zip(samples, blocks.first, strict=True))
    )
    return first, second


def drawn_rates(
    parts: tuple[Floats, Floats], wholes: tuple[Floats, Floats], *, paired: bool = False
) -> tuple[Floats, Floats]:
    """The same for a ratio of sums over blocks."""
    found = []
    for place, (part, whole) in enumerate(zip(parts, wholes, strict=True)):
        dice = np.random.default_rng(_SEED + (0 if paired else place))
        picked = dice.integers(0, len(part), (DRAWS, len(part)))
        found.append(part[picked].sum(axis=1) / whole[picked].sum(axis=1))
    return found[0], found[1]


def difference_interval(
    figures: tuple[float, float],
    drawn: tuple[Floats, Floats],
    blocks: Blocks,
    *,
    widened: float = 1.0,
    as_ratio: bool = False,
    paired: bool = False,
) -> Interval:
    """The interval of ``after - before``, or of ``after / before``, by how the figures vary over drawn blocks.

    ``widened``: the variance by this factor, see ``memory``. ``paired``: both figures of a draw are of the same blocks,
    and what both have in common, above all the lengths of the prompts, cancels.
    """
    usable = np.isfinite(drawn[0]) & np.isfinite(drawn[1])
    if as_ratio:
        usable &= (drawn[0] > 0) & (drawn[1] > 0)
    if min(blocks.numbers) < 2 or usable.sum() < len(usable) // 2 or (as_ratio and not all(f > 0 for f in figures)):
        return UNKNOWN
    first, second = (np.log(each[usable]) if as_ratio else each[usable] for each in drawn)
    numbers = blocks.numbers
    if paired:
        variance, freedom = float(np.var(second - first)) * numbers[0] / (numbers[0] - 1), numbers[0] - 1
    else:
        variance = sum(float(np.var(v)) * k / (k - 1) for v, k in zip((first, second), numbers, strict=True))
        freedom = sum(numbers) - 2
    reach = student_t(freedom) * math.sqrt(variance * widened)
    before, after = figures
    if as_ratio:
        return Interval(after / before * math.exp(-reach), after / before * math.exp(reach))
    return Interval(after - before - reach, after - before + reach)


def jointly(chances: Sequence[Chance], families: Sequence[int]) -> list[float]:
    """Each p corrected for all of them together (Westfall and Young): the share of shuffles with one as small.

    Lines of one stage move together, and so they do in its shuffles; a correction line by line (Holm's) finds less.
    ``families`` number the stages: shuffles of different ones are independent of each other.
    """
    corrected = [math.nan] * len(chances)
    known = sorted((place for place, each in enumerate(chances) if not math.isnan(each.p)), key=lambda i: chances[i].p)
    smallest: Floats | None = None
    for place in reversed(known):
        # All stages are shuffled by one list; turning it makes their shuffles independent.
        own = np.roll(chances[place].shuffles, _TURN * families[place])
        smallest = own if smallest is None else np.minimum(smallest, own)
        smaller, as_small = (smallest < chances[place].p).sum(), (smallest <= chances[place].p).sum()
        corrected[place] = float((1 + (smaller + as_small) / 2) / (1 + len(smallest)))  # half of the ties, as above
    reached = 0.0
    for place in known:
        corrected[place] = reached = max(reached, corrected[place], chances[place].p)
    return corrected


def _drawn(values: Floats, first: Sequence[int], figure: Callable[[Floats], float], draws: int, seed: int) -> Floats:
    """The figure of blocks drawn with replacement. Ordered values are repeated, so nothing is sorted again."""
    k = len(first)
    block = np.repeat(np.arange(k), np.diff([*first, len(values)]))
    known = ~np.isnan(values)
    order = np.argsort(values[known], kind="stable")
    in_order, block = values[known][order], block[known][order]
    dice = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        times = np.bincount(dice.integers(0, k, k), minlength=k)
        found.append(figure(np.repeat(in_order, times[block])))
    return np.array(found)


@lru_cache(maxsize=8)
def _orders(blocks: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The blocks in every shuffle: always the same ones, so results repeat."""
    return np.random.default_rng(_SEED).random((PERMUTATIONS, blocks)).argsort(axis=1)


@lru_cache(maxsize=8)
def _swaps(pairs: int) -> np.ndarray[Any, np.dtype[np.intp]]:
    """The places of the blocks of both runs when each pair of blocks is exchanged or not by a coin."""
    swapped = np.random.default_rng(_SEED).integers(0, 2, (PERMUTATIONS, pairs))
    place = np.arange(pairs)
    return cast(
        "np.ndarray[Any, np.dtype[np.intp]]",
        np.concatenate((place + pairs * swapped, place + pairs * (1 - swapped)), axis=1),
    )
