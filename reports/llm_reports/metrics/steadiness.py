"""Detection of unsteady stages, whose queue grows through the MEASURE window, so that figures depend on its length.

An open loop is unsteady if more requests are in flight at the end of the window than the randomness of arrivals and
services explains, and latency grew with them. A closed loop cannot have more requests in flight than users, so only a
trend of its latency shows a growing queue. The trend uses means of blocks that span several latencies, to account for
the dependence of requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_reports.stats.intervals import student_t
from llm_users.record import COL, RAMPED, STEADINESS_REQUESTS, STEADY, UNSTEADY

if TYPE_CHECKING:
    from pandas import DataFrame

    from llm_reports.run import Run

UNKNOWN = ""

_GROWTH_SDS = 1.1
"""Growth of the requests in flight above which a queue grows, in standard deviations of the difference of two counts.

At capacity, the queue is a random walk with this deviation. Below capacity, the queue returns: an M/M/1 queue at load
0.8 reaches this growth in 400 requests in less than 1 % of all windows (0.8 ** 31). At 1.2 times the capacity, the
growth is about 2.4 deviations after 400 requests and 5.4 after 2,000. tests/system/truth/steadiness.py measures both.
"""

_LATENCY_GROWTH = 1.2
"""Minimum ratio of the mean latencies of the last and the first third of the requests of an unsteady stage."""

_UNFILLED_GROWTH = 1.5
"""The minimum ratio if the window ends before its first requests end, so requests in flight do not show a growth."""

_FILLED = 0.9  # share of the first third of the requests that must have ended before requests in flight are compared

_LEAST_LATENCIES = 8.0
"""Minimum window of an open loop, in mean latencies, whose queue can be called steady. In a shorter window, a queue at
1.1 times the capacity grows by less than its randomness: a load search with windows of 4 latencies confirmed such rates
in 25 % of its runs, with windows of 10 latencies in none (tests/system/truth/search.py)."""

_BLOCK_LATENCIES = 2.0  # minimum block length in mean latencies, so that blocks depend little on each other
_BLOCKS = (7, 20)  # fewest and most blocks; the first is excluded, because all users may have started at once
_TREND_LEVEL = 0.98  # two-sided, so 1 % of steady closed loops are called unsteady by chance

Values = np.ndarray[Any, np.dtype[np.float64]]
Flags = np.ndarray[Any, np.dtype[Any]]

_NEEDED = (
    COL.started_at, COL.queue_s, COL.connect_s, COL.end_to_end_latency_s, COL.error_code, COL.measured,
    COL.rate_per_s, COL.turn,
)  # fmt: skip


def steadiness(starts: Values, ends: Values, measured: Flags, *, is_open: bool) -> str:
    """Return the steadiness of one stage, from its requests: ``steady``, ``unsteady`` or "" (unknown).

    ``starts``: intended start of each request in seconds of any clock, including warm-up; ``ends``: its end (infinite
    if it did not end); ``measured``: 1 for the requests of the MEASURE window. Shape of each: (requests,). Requests
    without a start (NaN) are ignored.
    """
    known = np.isfinite(starts) & ~np.isnan(ends)
    starts, ends, counted = starts[known], np.maximum(starts, ends)[known], measured[known] > 0
    if int(counted.sum()) < STEADINESS_REQUESTS:
        return UNKNOWN
    order = np.argsort(starts[counted], kind="stable")
    own_starts, own_ends = starts[counted][order], ends[counted][order]
    if is_open:
        return _open_loop(np.sort(starts), np.sort(ends), own_starts, own_ends)
    return _closed_loop(own_starts, own_ends)


def stage_steadiness(rows: DataFrame, *, is_open: bool) -> str:
    """Return the steadiness of one stage from its rows with warm-up; unknown for closed loops of conversations."""
    # Imported here because it loads pandas: a run calls ``steadiness`` after each stage, in its event loop.
    from llm_reports.metrics.outcomes import aborted, succeeded

    codes, measured = rows[COL.error_code], (rows[COL.measured] == 1).to_numpy(dtype=bool, na_value=False)
    started_at, queue_s, connect_s, latency_s = (
        rows[name].to_numpy(dtype=np.float64, na_value=np.nan)
        for name in (COL.started_at, COL.queue_s, COL.connect_s, COL.end_to_end_latency_s)
    )
    without_latency = np.where(aborted(codes).to_numpy(), np.inf, np.nan_to_num(connect_s))
    ends = started_at + np.where(np.isnan(latency_s), without_latency, latency_s)
    if is_open:
        return steadiness(started_at - np.nan_to_num(queue_s), ends, measured, is_open=True)
    if (rows[COL.turn].to_numpy(dtype=np.float64, na_value=np.nan) > 1).any():
        return UNKNOWN
    return steadiness(started_at, ends, measured & succeeded(codes).to_numpy(), is_open=False)


def steadiness_by_stage(run: Run) -> Mapping[int, str]:
    """Return the steadiness of each stage of a run, from its stages file or else from its rows.

    Stage -1 means that the rows file does not contain the stage.
    """
    stages = run.stages[run.stages[COL.stage].notna()]
    states = {int(stage): str(state) for stage, state in zip(stages[COL.stage], stages[COL.steadiness], strict=True)}
    if run.foreign:
        return states
    stage_of = run.requests[COL.stage].fillna(-1).astype("int64")
    unknown = ~stage_of.isin([stage for stage, state in states.items() if state in (STEADY, UNSTEADY, RAMPED)])
    if unknown.any():
        rows = run.requests[list(_NEEDED)][unknown]
        for stage, stage_rows in rows.groupby(stage_of[unknown], sort=False):
            is_open = bool((stage_rows[COL.rate_per_s] > 0).any())
            states[int(stage)] = stage_steadiness(stage_rows, is_open=is_open)
    return states


def _open_loop(starts: Values, ends: Values, own_starts: Values, own_ends: Values) -> str:
    """Return the steadiness of an open loop.

    ``starts`` and ``ends`` are of all requests, each sorted; ``own_starts`` and ``own_ends`` are of the measured
    requests, in the order of their starts.
    """
    latencies, third = own_ends - own_starts, len(own_starts) // 3
    first, last = _mean(latencies[:third]), _mean(latencies[-third:])
    over = float(own_starts[-1])
    # Until nine of ten of the first requests have ended, the requests in flight grow at any load.
    filled = float(own_starts[0]) + float(np.quantile(latencies[: max(1, third)], _FILLED, method="higher"))
    if not filled < over:
        return UNSTEADY if last > _UNFILLED_GROWTH * first else UNKNOWN
    before, after = _in_flight(starts, ends, filled), _in_flight(starts, ends, over)
    gaps = np.diff(own_starts[own_starts >= filled])
    if len(gaps) < STEADINESS_REQUESTS / 2:
        return UNKNOWN
    mean_gap = float(gaps.mean())
    arrivals = float(gaps.var()) / mean_gap**2 if mean_gap > 0 else 1.0
    deviation = math.sqrt(len(gaps) * (1.0 + arrivals))
    grew = after - before > _GROWTH_SDS * deviation and last > _LATENCY_GROWTH * first
    if grew:
        return UNSTEADY
    return STEADY if over - float(own_starts[0]) >= _LEAST_LATENCIES * _mean(latencies) else UNKNOWN


def _in_flight(starts: Values, ends: Values, moment: float) -> int:
    started = int(np.searchsorted(starts, moment, side="right"))
    return started - int(np.searchsorted(ends, moment, side="right"))


def _closed_loop(starts: Values, ends: Values) -> str:
    latencies = ends - starts
    usable = np.isfinite(latencies)
    starts, latencies = starts[usable], latencies[usable]
    if len(latencies) < STEADINESS_REQUESTS:
        return UNKNOWN
    span = float(starts[-1] - starts[0])
    mean = float(latencies.mean())
    fewest, most = _BLOCKS
    blocks = min(most, int(span / (_BLOCK_LATENCIES * mean)) if mean > 0 else most, len(latencies) // 5)
    if blocks < fewest:
        return UNKNOWN
    means = np.array([part.mean() for part in np.array_split(latencies, blocks)])[1:]
    count = len(means)
    position = np.arange(count) - (count - 1) / 2
    slope = float(position @ means) / float(position @ position)
    residuals = means - means.mean() - slope * position
    error = math.sqrt(float(residuals @ residuals) / (count - 2) / float(position @ position)) * _inflation(residuals)
    growth = slope * (count - 1)
    first, last = float(means.mean()) - growth / 2, float(means.mean()) + growth / 2
    grew = slope > student_t(count - 2, _TREND_LEVEL) * error and last > _LATENCY_GROWTH * max(first, 0.0)
    return UNSTEADY if grew else STEADY


def _inflation(residuals: Values) -> float:
    """Return by how much the correlation of consecutive blocks (first order) increases the error of a slope."""
    total = float(residuals @ residuals)
    if total <= 0:
        return 1.0
    correlation = float(residuals[1:] @ residuals[:-1]) / total
    bias = (1 + 3 * max(correlation, 0.0)) / len(residuals)  # of detrending
    correlation = min(0.9, max(0.0, correlation + bias))
    return math.sqrt((1 + correlation) / (1 - correlation))


def _mean(values: Values) -> float:
    """Return the mean, without infinite values if there are finite ones."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else math.inf
