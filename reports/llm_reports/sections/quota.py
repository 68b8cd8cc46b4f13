"""The section "For a quota request": what the form for a cloud quota asks for.

It has requests and tokens per minute, their lengths, and throttled requests.

Every request that was sent counts, also those of warm-ups, because the provider counts them. A request counts at the
time at which it was sent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llm_reports.metrics.outcomes import throttled
from llm_reports.run import Run
from llm_reports.sections.section import Grid, Section
from llm_users.quantile import quantile
from llm_users.record import COL

if TYPE_CHECKING:  # this module does not load pandas
    from pandas import DataFrame

WINDOW_S = 60.0
"""Quotas count requests and tokens per minute."""


@dataclass(frozen=True, slots=True)
class PerMinute:
    """An amount per minute, and the lengths behind it. NaN means unknown.

    ``peak`` is the largest sum in any 60 seconds; for a run that sent for a shorter time, the mean rate or ``steady``.
    ``steady`` is the mean of the stage with the most requests per minute, in its measurement window.
    """

    name: str
    peak: float
    steady: float
    mean: float = math.nan
    p95: float = math.nan


@dataclass(frozen=True, slots=True)
class Quota:
    """The amounts of one model in one run. ``sent_s`` is the time from the first request to the last."""

    run: Run
    model: str
    amounts: tuple[PerMinute, ...]
    requests: int
    throttled: int
    sent_s: float

    @property
    def is_extrapolated(self) -> bool:
        """Return whether the run sent for less than a minute, so that no minute was observed."""
        return self.sent_s < WINDOW_S


def quotas(runs: Sequence[Run]) -> list[Quota]:
    """Return the amounts of every model of every run, in the order of the runs and of the names."""
    found = []
    for run in runs:
        rows = run.requests
        sent = rows[COL.started_at].notna() & rows[COL.end_to_end_latency_s].notna()  # the latter is empty if not sent
        rows = rows[sent.to_numpy(bool)]
        for model, own in rows.groupby(COL.model, sort=True):
            if len(own) > 1:
                found.append(_quota(run, str(model), own))
    return found


def _quota(run: Run, model: str, rows: DataFrame) -> Quota:
    rows = rows.sort_values(COL.started_at)
    times = rows[COL.started_at].to_numpy(dtype=np.float64)
    measured = (rows[COL.measured] == 1).fillna(value=False).to_numpy(bool)
    stages = rows[COL.stage].to_numpy(dtype=np.float64, na_value=math.nan)
    lengths_s = {
        float(stage): float(window_s)
        for stage, window_s in run.stages[[COL.stage, COL.measure_s]].dropna().itertuples(index=False)
        if window_s > 0
    }
    busiest = max(lengths_s, key=lambda stage: (measured & (stages == stage)).sum() / lengths_s[stage], default=None)
    window = measured & (stages == busiest)
    columns = {
        "Requests": np.ones(len(rows)),
        "Input tokens": _values(rows, COL.input_tokens),
        "Output tokens": _values(rows, COL.output_tokens),
        "Output tokens, maximum": _values(rows, COL.requested_output_tokens),
    }
    amounts = []
    for name, values in columns.items():
        known = values[~np.isnan(values)]
        if not len(known):
            continue
        sums = np.nan_to_num(values)
        lengths = sorted(known.tolist()) if name != "Requests" else []
        peak = peak_per_minute(times, sums)
        steady = WINDOW_S * float(sums[window].sum()) / lengths_s[busiest] if busiest is not None else math.nan
        if times[-1] - times[0] < WINDOW_S and steady > peak:
            peak = steady  # the mean rate of a short run contains the pauses between its stages
        amounts.append(
            PerMinute(
                name,
                peak,
                steady,
                float(np.mean(lengths)) if lengths else math.nan,
                quantile(lengths, 0.95),
            )
        )
    return Quota(run, model, tuple(amounts), len(rows), int(throttled(rows).sum()), float(times[-1] - times[0]))


def peak_per_minute(times: np.ndarray, values: np.ndarray) -> float:
    """Return the largest sum of values in any 60 s; ``times`` are sorted, in seconds.

    A shorter time is extrapolated: n values span n - 1 intervals, so the last one is not counted.
    """
    span_s = float(times[-1] - times[0])
    if span_s < WINDOW_S:
        share = (len(values) - 1) / len(values)
        return float(values.sum()) * share * WINDOW_S / span_s if span_s > 0 else math.nan
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.searchsorted(times, times + WINDOW_S, side="left")
    return float((sums[ends] - sums[: len(times)]).max())


def _values(rows: DataFrame, column: str) -> np.ndarray:
    return rows[column].to_numpy(dtype=np.float64, na_value=math.nan)


def quota_section(runs: Sequence[Run]) -> Section | None:
    """Return requests and tokens per minute of every model; ``None`` without requests."""
    found = quotas(runs)
    if not found:
        return None
    several_runs = len({quota.run for quota in found}) > 1
    names = ["Run", "Model"] if several_runs else ["Model"]
    header = [*names, "Amount", "Peak per minute", "Steady per minute", "Mean", "P95"]
    rows = [
        [
            *([quota.run.name] if several_runs else []), quota.model or "-", amount.name, _whole(amount.peak),
            _whole(amount.steady), _whole(amount.mean), _whole(amount.p95),
        ]
        for quota in found
        for amount in quota.amounts
    ]  # fmt: skip
    left = set(range(len(names) + 1))
    return Section("For a quota request", [Grid(header, rows, left), _notes(found)])


def _notes(found: Sequence[Quota]) -> list[str]:
    notes = [
        "Peak: the largest sum in any 60 s, over all requests that were sent, warm-ups included. Steady: the mean over "
        "the window of the stage with the most requests per minute. A request counts when it is sent. Mean and P95 are "
        "per request.",
    ]
    if short := [quota for quota in found if quota.is_extrapolated]:
        least = min(quota.sent_s for quota in short)
        notes.append(
            f"Requests were sent for less than {WINDOW_S:.0f} s ({least:.3g} s), so the peak is extrapolated from the "
            "mean rate. Measure for some minutes before you ask for a quota."
        )
    notes.append(
        "Throttled: "
        + "; ".join(
            f"{quota.throttled} of {quota.requests} requests{f' ({quota.model})' if len(found) > 1 else ''}"
            for quota in found
        )
        + ". With throttled requests, the peak shows the present quota, not the demand."
        if any(quota.throttled for quota in found)
        else "No request was throttled."
    )
    return notes


def _whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "-"
