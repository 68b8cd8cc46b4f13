"""Run against run: per stage and figure the difference, the ratio, its interval, and whether it is more than noise.

The first run is what the others are compared with. Stages are matched by load (and model, when the runs share
their models). See ``resampling`` for the method; p-values are corrected over the whole table, by joint shuffles.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from pandas import DataFrame, Series

from llm_users.quantile import quantile
from llm_users.record import UNFINISHED
from reports.errors import InputError
from reports.grouping import (
    CORRECTED_LATENCY,
    CORRECTED_TTFT,
    LATENCY,
    NO_FAILURES,
    OUTPUT_THROUGHPUT,
    TPOT,
    TTFT,
    Group,
    Metric,
    groups,
)
from reports.intervals import UNKNOWN, Interval
from reports.resampling import (
    NO_CHANCE,
    Blocks,
    Chance,
    Floats,
    above,
    autocorrelation_time,
    cut,
    difference_interval,
    drawn_rates,
    drawn_spreads,
    jointly,
    memory,
    permutation,
    sums,
)
from reports.run import Run
from reports.sizing import stage_points
from reports.stage_load import Load, loads_in_words
from reports.start_order import at_once, in_order

LEVEL = 0.05
FEWEST_REQUESTS = 20
SYSTEM_THROUGHPUT, ERROR_RATIO = "output_throughput_token_per_s", "error_ratio"
NOISE, BETTER, WORSE, REGRESSION, REFUSED = "noise", "better", "worse", "REGRESSION", "refused"
_OF_REQUESTS: tuple[tuple[Metric, str, float], ...] = (
    (TTFT, "median", 0.5),
    (TTFT, "p95", 0.95),
    (TPOT, "median", 0.5),
    (TPOT, "p95", 0.95),
    (LATENCY, "median", 0.5),
    (LATENCY, "p95", 0.95),
    (OUTPUT_THROUGHPUT, "median", 0.5),
    (CORRECTED_TTFT, "median", 0.5),
    (CORRECTED_TTFT, "p95", 0.95),
    (CORRECTED_LATENCY, "median", 0.5),
    (CORRECTED_LATENCY, "p95", 0.95),
)
_MORE_IS_BETTER = {OUTPUT_THROUGHPUT.name, SYSTEM_THROUGHPUT}
_FEWEST_INDEPENDENT = 30  # below, one comparison in eight of two equal queues at 90 % of their limit was an alarm
_Key = tuple[str, Load, int]


@dataclass(frozen=True)
class Difference:
    """One figure of one stage in two runs. ``p`` is corrected for the number of differences in the table."""

    base: Group
    other: Group
    metric: str
    figure: str
    unit: str
    before: float
    after: float
    difference_interval: Interval
    ratio_interval: Interval
    chance: Chance = field(repr=False)
    blocks: int
    p: float = math.nan
    outcome: str = NOISE
    reason: str = ""

    @property
    def p_alone(self) -> float:
        """The p of this line, uncorrected."""
        return self.chance.p

    @property
    def difference(self) -> float:
        """After minus before."""
        return self.after - self.before

    @property
    def ratio(self) -> float:
        """After by before."""
        return self.after / self.before if self.before else math.nan

    @property
    def worsening(self) -> float:
        """By which share of the first run's figure the other one is worse; negative when better."""
        change = self.ratio - 1
        return -change if self.metric in _MORE_IS_BETTER else change


@dataclass(frozen=True)
class Comparison:
    """All differences, and all stages of all runs. Without a threshold nothing is a regression."""

    runs: tuple[Run, ...]
    differences: tuple[Difference, ...]
    threshold: float | None
    notes: tuple[str, ...]
    groups: tuple[Group, ...] = ()

    @property
    def regressions(self) -> tuple[Difference, ...]:
        """What is worse by more than the threshold and by more than noise."""
        return tuple(each for each in self.differences if each.outcome == REGRESSION)

    @property
    def refused(self) -> tuple[Difference, ...]:
        """What could not be compared."""
        return tuple(each for each in self.differences if each.outcome == REFUSED)

    @property
    def passed(self) -> bool:
        """Whether a pipeline with a threshold may go on."""
        return self.threshold is None or not (self.regressions or self.refused)

    def frame(self) -> DataFrame:
        """One line for each difference."""
        return DataFrame(
            [
                {
                    "base": each.base.run.name,
                    "run": each.other.run.name,
                    "model": each.other.model,
                    "concurrency": each.other.concurrency,
                    "rate_per_s": each.other.load.rate_per_s,
                    "metric": each.metric,
                    "figure": each.figure,
                    "unit": each.unit,
                    "before": each.before,
                    "after": each.after,
                    "difference": each.difference,
                    "difference_ci_low": each.difference_interval.low,
                    "difference_ci_high": each.difference_interval.high,
                    "ratio": each.ratio,
                    "ratio_ci_low": each.ratio_interval.low,
                    "ratio_ci_high": each.ratio_interval.high,
                    "p_alone": each.p_alone,
                    "p": each.p,
                    "outcome": each.outcome,
                }
                for each in self.differences
            ]
        )


def compare(runs: Sequence[Run], *, threshold: float | None = None, count_connect: bool = False) -> Comparison:
    """The first run against each of the others; raises ``InputError`` when there is nothing to compare."""
    if len(runs) < 2:
        raise InputError("compare needs two runs or more: the one to compare with first, then the others")
    made = [groups([run], count_connect=count_connect) for run in runs]
    differences: list[Difference] = []
    families: list[int] = []
    notes: list[str] = []
    for other in made[1:]:
        for base_group, other_group in _matched(made[0], other, notes):
            found = list(_differences(base_group, other_group))
            families += [families[-1] + 1 if families else 0] * len(found)
            differences += found
            notes.extend(_unlike(base_group, other_group))
    corrected = jointly([each.chance for each in differences], families)
    judged = [_judged(each, p, threshold) for each, p in zip(differences, corrected, strict=True)]
    everything = tuple(group for found in made for group in found)
    return Comparison(tuple(runs), tuple(judged), threshold, tuple(dict.fromkeys(notes)), everything)


def _matched(base: Sequence[Group], other: Sequence[Group], notes: list[str]) -> Iterator[tuple[Group, Group]]:
    by_model = {group.model for group in base} == {group.model for group in other}
    left, right = _keyed(base, by_model), _keyed(other, by_model)
    common = [key for key in left if key in right]
    if not common:
        raise InputError(
            f"{base[0].run.name} and {other[0].run.name} have no stage in common: "
            f"{_loads(base)} here and {_loads(other)} there. Run both with the same --llm-sweep or --llm-rate."
        )
    for groups_of, keys in ((base, left), (other, right)):
        alone = [keys[key] for key in keys if key not in common]
        if alone:
            notes.append(f"{groups_of[0].run.name} alone has {_loads(alone)}; it is left out.")
    for key in common:
        yield left[key], right[key]


def _keyed(found: Sequence[Group], by_model: bool) -> dict[_Key, Group]:
    keyed: dict[_Key, Group] = {}
    for group in found:
        model = group.model if by_model else ""
        again = sum(1 for key in keyed if key[:2] == (model, group.load))
        keyed[model, group.load, again] = group
    return keyed


def _loads(found: Sequence[Group]) -> str:
    return loads_in_words(group.load for group in found) or "an unknown load"


def _differences(base: Group, other: Group) -> Iterator[Difference]:
    rows = tuple(in_order(group.measured) for group in (base, other))
    counts = (len(rows[0]), len(rows[1]))
    if min(counts) < FEWEST_REQUESTS:
        reason = f"needs at least {FEWEST_REQUESTS} requests in both runs, there are {counts[0]} and {counts[1]}"
        yield _refused(base, other, reason)
        return
    blocks = cut(counts, at_once(base))
    for metric, figure, q in _OF_REQUESTS:
        samples = _pair(
            lambda group, frame, metric=metric: group.values(metric, frame).where(_ok(frame)), base, other, rows
        )
        if all(np.isfinite(each).any() for each in samples):
            yield _of_quantile(base, other, metric, figure, q, samples, blocks)
    yield _of_errors(base, other, rows, blocks)
    throughput = _of_throughput(base, other, rows, blocks)
    if throughput is not None:
        yield throughput


def _ok(rows: DataFrame) -> Series:
    return rows["error_code"].isin(["", "buffered"])


def _pair(
    values: Callable[..., object], base: Group, other: Group, rows: tuple[DataFrame, ...]
) -> tuple[Floats, Floats]:
    return cast(
        "tuple[Floats, Floats]",
        tuple(
            np.asarray(values(group, frame), dtype=np.float64) for group, frame in zip((base, other), rows, strict=True)
        ),
    )


def _of_quantile(
    base: Group, other: Group, metric: Metric, figure: str, q: float, samples: tuple[Floats, Floats], blocks: Blocks
) -> Difference:
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

    ordered = (np.sort(samples[0][known[0]]), np.sort(samples[1][known[1]]))
    figures = (of(ordered[0]), of(ordered[1]))
    drawn, widened = drawn_spreads(samples, blocks, of), memory(parts, wholes)
    return Difference(
        base, other, metric.name, figure, metric.unit, *figures,
        difference_interval(figures, drawn, blocks, widened=widened),
        difference_interval(figures, drawn, blocks, widened=widened, as_ratio=True),
        permutation(parts, wholes), min(blocks.numbers),
    )  # fmt: skip


def _of_errors(base: Group, other: Group, rows: tuple[DataFrame, ...], blocks: Blocks) -> Difference:
    ended = _pair(lambda _, frame: ~frame["error_code"].isin(UNFINISHED), base, other, rows)
    failed = _pair(lambda _, frame: ~frame["error_code"].isin(NO_FAILURES), base, other, rows)
    shares = [float(f.sum() / e.sum()) if e.sum() else math.nan for f, e in zip(failed, ended, strict=True)]
    parts = (sums(failed[0], blocks.first[0]), sums(failed[1], blocks.first[1]))
    wholes = (sums(ended[0], blocks.first[0]), sums(ended[1], blocks.first[1]))
    chance = permutation(parts, wholes)
    masked = tuple(np.where(e > 0, f, math.nan) for f, e in zip(failed, ended, strict=True))
    drawn = drawn_spreads(cast("tuple[Floats, Floats]", masked), blocks, _mean)
    interval = difference_interval((shares[0], shares[1]), drawn, blocks, widened=memory(parts, wholes))
    return Difference(
        base, other, ERROR_RATIO, "share", "", shares[0], shares[1], interval, UNKNOWN, chance, min(blocks.numbers)
    )


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan


def _of_throughput(base: Group, other: Group, rows: tuple[DataFrame, ...], blocks: Blocks) -> Difference | None:
    """The endpoint's tokens per second: tokens of each block by the time until the next one starts."""
    starts = _pair(lambda _, frame: frame["started_at"], base, other, rows)
    if any(np.isnan(each).any() or np.ptp(each) <= 0 for each in starts):
        return None
    tokens = _pair(
        lambda _, frame: frame["output_tokens"].astype("float64").where(_ok(frame)).fillna(0.0), base, other, rows
    )
    lasting = [_lasting(values, first) for values, first in zip(starts, blocks.first, strict=True)]
    parts = (sums(tokens[0], blocks.first[0]), sums(tokens[1], blocks.first[1]))
    wholes = (lasting[0], lasting[1])
    figures = [point.tokens_per_s for point in (*stage_points([base]), *stage_points([other]))]
    drawn, widened = drawn_rates(parts, wholes), memory(parts, wholes)
    pair = (figures[0], figures[1])
    return Difference(
        base, other, SYSTEM_THROUGHPUT, "system", "tokens/s", *pair,
        difference_interval(pair, drawn, blocks, widened=widened),
        difference_interval(pair, drawn, blocks, widened=widened, as_ratio=True),
        permutation(parts, wholes), min(blocks.numbers),
    )  # fmt: skip


def _lasting(starts: Floats, first: Sequence[int]) -> Floats:
    """How long each block took, from its first start to the next one's; the last by the pace inside it."""
    borders = starts[list(first)]
    count = len(starts) - first[-1]
    last = (starts[-1] - borders[-1]) * count / (count - 1) if count > 1 else (starts[-1] - starts[0]) / len(starts)
    return np.append(np.diff(borders), last)


def _refused(base: Group, other: Group, reason: str) -> Difference:
    return Difference(
        base, other, "all", "", "", math.nan, math.nan, UNKNOWN, UNKNOWN, NO_CHANCE, 0, outcome=REFUSED, reason=reason
    )


def _judged(each: Difference, p: float, threshold: float | None) -> Difference:
    if each.outcome == REFUSED:
        return each
    saturated = [group.run.name for group in (each.base, each.other) if group.health == "saturated"]
    if saturated:
        reason = f"the client of {' and '.join(saturated)} was saturated"
        return dataclasses.replace(each, p=p, outcome=REFUSED, reason=reason)
    outcome = NOISE
    if p < LEVEL:
        worse = each.difference < 0 if each.metric in _MORE_IS_BETTER else each.difference > 0
        outcome = WORSE if worse else BETTER
        # Of errors any increase beyond noise counts: a share of a share means nothing when the first is 0.
        too_much = threshold is not None and (each.metric == ERROR_RATIO or each.worsening > threshold)
        if worse and too_much:
            outcome = REGRESSION
    return dataclasses.replace(each, p=p, outcome=outcome)


def _unlike(base: Group, other: Group) -> Iterator[str]:
    """What makes two stages hard to compare."""
    level = base.load.at
    means: Mapping[str, list[float]] = {
        name: [float(group.ok[name].astype("float64").mean()) for group in (base, other)]
        for name in ("input_tokens", "output_tokens")
    }
    for name, (before, after) in means.items():
        if before > 0 and abs(after / before - 1) > LEVEL:
            yield (
                f"Mean {name.replace('_', ' ')}{level}: {before:.0f} in {base.run.name}, {after:.0f} in "
                f"{other.run.name}. Times of unlike requests differ for that alone."
            )
    for group in (base, other):
        if group.health in ("strained", "disturbed"):
            yield f"The client of {group.run.name} was {group.health}{level}."
        counts = group.counts
        if counts.throttled:
            yield (
                f"Of the {counts.failed} failed requests of {group.run.name}{level}, {counts.throttled} were throttled."
            )
    if base.load.is_open:
        yield from _long_memory(base, other)
    rounds = min(len(base.measured), len(other.measured)) / at_once(base)
    each = "request in flight" if base.load.is_open else "user"
    if rounds < 24:
        yield (
            f"Only {rounds:.0f} requests per {each}{level}: blocks of time are short against the memory of the "
            f"endpoint, and p is then too small. Measure at least 24 requests per {each}."
        )


def _long_memory(base: Group, other: Group) -> Iterator[str]:
    """A queue near its limit empties so rarely that a run sees little of what it can do."""
    for group in (base, other):
        took_s = in_order(group.ok)["corrected_end_to_end_latency_s"].to_numpy(np.float64, na_value=math.nan)
        independent = len(took_s) / autocorrelation_time(took_s)
        if independent < _FEWEST_INDEPENDENT:
            yield (
                f"The {len(took_s)} requests of {group.run.name}{group.load.at} are worth {independent:.0f} "
                "independent ones: a queue near its limit remembers long, and p is then too small. Run it longer, or "
                "at a lower rate."
            )
