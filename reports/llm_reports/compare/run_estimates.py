"""Estimates for several runs per side. The run is the unit, so the interval includes the variation between runs.

The method is Student's t on the runs' figures, or on their logarithms where the figure has a ratio scale, with equal
variance on both sides. It makes no assumption about the requests within a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import numpy as np

from llm_reports.compare.estimates import Estimate, newcombe
from llm_reports.stats.block_resampling import Chance
from llm_reports.stats.intervals import UNKNOWN, Interval, student_t, t_outside

NO_SHUFFLES = np.empty(0)


def runs_estimate(
    before: Sequence[float], after: Sequence[float], *, counted: tuple[int, int] | None = None
) -> Estimate:
    """Return the estimate from one figure per run. Both sides together need at least three runs.

    ``counted``: the figures are shares, and these are the numbers of requests of all runs of each side. The interval of
    a share is never narrower than Newcombe's over all requests, which is also valid when no run has an error.
    """
    units = min(len(before), len(after))
    values = [*before, *after]
    if not all(math.isfinite(value) for value in values):
        known = [fmean(v for v in side if math.isfinite(v)) if any(map(math.isfinite, side)) else math.nan
                 for side in (before, after)]  # fmt: skip
        return Estimate(known[0], known[1], UNKNOWN, UNKNOWN, Chance(math.nan, NO_SHUFFLES), units)
    if counted is not None or min(values) <= 0:
        difference, reach, p = _t(before, after)
        interval = Interval(difference - reach, difference + reach)
        if counted is not None:
            by_counts = newcombe((fmean(before), fmean(after)), (float(counted[0]), float(counted[1])))
            interval = Interval(min(interval.low, by_counts.low), max(interval.high, by_counts.high))
        return Estimate(fmean(before), fmean(after), interval, UNKNOWN, Chance(p, NO_SHUFFLES), units)
    logs = [[math.log(value) for value in side] for side in (before, after)]
    change, reach, p = _t(logs[0], logs[1])
    ratio = Interval(math.exp(change - reach), math.exp(change + reach))
    middle = math.exp(fmean(logs[0]))
    difference_interval = Interval(middle * (ratio.low - 1), middle * (ratio.high - 1))
    return Estimate(middle, math.exp(fmean(logs[1])), difference_interval, ratio, Chance(p, NO_SHUFFLES), units)


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
