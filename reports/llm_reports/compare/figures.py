"""The lines of a comparison: the figures to compare, by time blocks for single runs and by runs for several runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import cast

import numpy as np
from pandas import DataFrame, Series

from llm_reports.compare.difference import ERROR_RATIO, SYSTEM_THROUGHPUT, Difference
from llm_reports.compare.estimates import (
    Pair,
    paired_estimate,
    quantile_estimate,
    rate_estimate,
    runs_estimate,
    share_estimate,
)
from llm_reports.compare.pairing import at_once, in_order, pairing
from llm_reports.metrics.goodput import stage_points
from llm_reports.metrics.groups import (
    CORRECTED_LATENCY,
    CORRECTED_TTFT,
    LATENCY,
    OUTPUT_THROUGHPUT,
    TPOT,
    TTFT,
    Group,
    Metric,
)
from llm_reports.metrics.outcomes import failed, succeeded, unfinished
from llm_reports.metrics.summary import ordered
from llm_reports.stats.block_resampling import Floats, autocorrelation_time
from llm_users.quantile import quantile
from llm_users.record import COL

FEWEST_REQUESTS = 20
# Below this number, one comparison in eight of two equal queues at 90 % of their limit gave a false alarm.
FEWEST_INDEPENDENT = 30
_MEDIAN, _P95 = ("median", 0.5), ("p95", 0.95)
_OF_REQUESTS: tuple[tuple[Metric, str, float], ...] = (
    *((metric, *figure) for metric in (TTFT, TPOT, LATENCY) for figure in (_MEDIAN, _P95)),
    (OUTPUT_THROUGHPUT, *_MEDIAN),
    *((metric, *figure) for metric in (CORRECTED_TTFT, CORRECTED_LATENCY) for figure in (_MEDIAN, _P95)),
)

_SYSTEM = (SYSTEM_THROUGHPUT, "system", "tokens/s", True)
"""The metric, figure and unit of the line of the whole system, of which more is better."""


def lines(bases: Sequence[Group], others: Sequence[Group], notes: list[str]) -> Iterator[Difference]:
    """Yield the lines of one stage and append remarks about them to ``notes``."""
    sides = (tuple(bases), tuple(others))
    few = [group for group in (*bases, *others) if len(group.measured) < FEWEST_REQUESTS]
    if few:
        counts = ", ".join(f"{len(group.measured)} in {group.run.name}" for group in few)
        needed = f"a comparison needs at least {FEWEST_REQUESTS} requests in every run{bases[0].load.at}"
        yield Difference(*sides, "all", "", "", reason=f"{needed}, but there are {counts}")
    elif not any(group.counts.ok for group in (*bases, *others)):
        yield Difference(*sides, "all", "", "", reason=f"no request succeeded in any run{bases[0].load.at}")
    elif len(bases) == len(others) == 1:
        yield from _of_blocks(bases[0], others[0], notes)
    else:
        yield from _of_runs(*sides)


def _of_blocks(base: Group, other: Group, notes: list[str]) -> Iterator[Difference]:
    """Yield the lines of two single runs. Time blocks are the statistical unit."""
    sides, users = ((base,), (other,)), at_once(base)
    pairs = pairing(base, other)
    notes.append(
        "Paired by prompt index: both runs sent prompts of the same lengths, so the lengths cancel. The change of "
        "a median is the mean change of the prompts (trimmed, in logarithms). Latencies include only prompts that "
        "succeeded in both runs."
        if pairs.rows
        else f"Not paired by prompt: {pairs.reason}."
    )
    unpaired = (in_order(base.measured), in_order(other.measured))
    rows = pairs.rows or unpaired
    unfit = _long_memory(base, other)
    for metric, figure, q in _OF_REQUESTS:
        samples = _pair(partial(_successful, metric), base, other, rows)
        known = [np.isfinite(values) for values in samples]
        if (known[0] & known[1]).any() if pairs.rows else all(is_known.any() for is_known in known):
            if pairs.rows and figure == "median":
                estimate = paired_estimate(samples, users)
            else:
                estimate = quantile_estimate(samples, q, users, paired=pairs.rows is not None)
            better = metric is OUTPUT_THROUGHPUT
            yield Difference(*sides, metric.name, figure, metric.unit, better, estimate, reason=unfit)
    # Requests without a partner also failed or succeeded, so the error ratio counts all requests.
    ended = _pair(lambda _, frame: ~unfinished(frame[COL.error_code]), base, other, unpaired)
    failures = _pair(lambda _, frame: failed(frame[COL.error_code]), base, other, unpaired)
    yield Difference(*sides, ERROR_RATIO, "share", "", estimate=share_estimate(failures, ended, users))
    rows = rows if pairs.complete else unpaired
    starts = _pair(lambda _, frame: frame[COL.started_at], base, other, rows)
    if not any(np.isnan(times).any() or np.ptp(times) <= 0 for times in starts):
        tokens = _pair(_tokens, base, other, rows)
        figures = (_tokens_per_s(base), _tokens_per_s(other))
        estimate = rate_estimate(figures, starts, tokens, users, paired=pairs.complete)
        yield Difference((base,), (other,), *_SYSTEM, estimate, reason=unfit)


def _of_runs(bases: tuple[Group, ...], others: tuple[Group, ...]) -> Iterator[Difference]:
    """Yield the lines of several runs per side. The run is the statistical unit."""

    def of(figure: Callable[[Group], float]) -> tuple[list[float], list[float]]:
        return [figure(group) for group in bases], [figure(group) for group in others]

    for metric, figure, q in _OF_REQUESTS:
        values = of(partial(_quantile, metric, q))
        if all(any(math.isfinite(value) for value in side) for side in values):
            better = metric is OUTPUT_THROUGHPUT
            yield Difference(bases, others, metric.name, figure, metric.unit, better, runs_estimate(*values))
    shares = of(lambda group: group.counts.failed / group.counts.ended if group.counts.ended else math.nan)
    ended = [sum(group.counts.ended for group in side) for side in (bases, others)]
    estimate = runs_estimate(*shares, counted=(ended[0], ended[1]))
    yield Difference(bases, others, ERROR_RATIO, "share", "", estimate=estimate)
    rates = of(_tokens_per_s)
    if all(math.isfinite(value) for side in rates for value in side):
        yield Difference(bases, others, *_SYSTEM, runs_estimate(*rates))


def _quantile(metric: Metric, q: float, group: Group) -> float:
    values = ordered(group.values(metric, group.ok))
    return quantile(values, q) if len(values) else math.nan


def _tokens_per_s(group: Group) -> float:
    return stage_points([group])[0].tokens_per_s


def _tokens(_: Group, rows: DataFrame) -> Series:
    return rows[COL.output_tokens].astype("float64").where(succeeded(rows[COL.error_code])).fillna(0.0)


def _successful(metric: Metric, group: Group, rows: DataFrame) -> Series:
    return group.values(metric, rows).where(succeeded(rows[COL.error_code]))


def _pair(
    values: Callable[[Group, DataFrame], Series], base: Group, other: Group, rows: tuple[DataFrame, DataFrame]
) -> Pair:
    first, second = (
        np.asarray(values(group, frame), dtype=np.float64) for group, frame in zip((base, other), rows, strict=True)
    )
    return cast("Floats", first), cast("Floats", second)


def _long_memory(base: Group, other: Group) -> str:
    """Return why the latencies of an open loop cannot decide a comparison; "" when they can.

    A queue near its limit has a long correlation time, so its requests contain few independent values.
    """
    if not base.load.is_open:
        return ""
    few = []
    for group in (base, other):
        took_s = group.values(CORRECTED_LATENCY, in_order(group.ok)).to_numpy()
        independent = len(took_s) / autocorrelation_time(took_s)
        if independent < FEWEST_INDEPENDENT:
            few.append(
                f"the {len(took_s)} requests of {group.run.name} are equivalent to {independent:.0f} independent ones"
            )
    if not few:
        return ""
    return (
        f"{' and '.join(few)}, and {FEWEST_INDEPENDENT} are needed: a queue near its limit has a long correlation "
        "time. Run longer, or at a lower rate"
    )
