"""The section "For a quota request": what the form for a cloud quota asks for.

It has requests and tokens per minute, their lengths, and throttled requests.

Every request that was sent counts, also those of warm-ups, because the provider counts them, except those that the
provider refused as too many. A request counts at the time at which it was sent. Tokens are those that the provider
counted, if it did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_reports.metrics.outcomes import throttled
from llm_reports.run import Run
from llm_reports.sections.section import Grid, Section
from llm_users.quantile import quantile
from llm_users.record import COL

if TYPE_CHECKING:  # this module does not load pandas
    from pandas import DataFrame

Bools = np.ndarray[Any, np.dtype[np.bool_]]

WINDOW_S = 60.0
"""Quotas count requests and tokens per minute."""


@dataclass(frozen=True, slots=True)
class PerMinute:
    """An amount per minute, and the lengths behind it. NaN means unknown.

    ``peak`` is the largest sum in any 60 seconds, or if the run sent for less than 60 seconds, the mean rate of its
    busiest stage. ``steady`` is the mean of the stage with the most requests per minute, in its measurement window;
    only stages of at least 60 seconds count.
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
    refused = throttled(rows).to_numpy(bool)
    served = rows[~refused].sort_values(COL.started_at)
    times = served[COL.started_at].to_numpy(dtype=np.float64)
    measured = (served[COL.measured] == 1).fillna(value=False).to_numpy(bool)
    stages = served[COL.stage].to_numpy(dtype=np.float64, na_value=math.nan)
    lengths_s = {
        float(stage): float(window_s)
        for stage, window_s in run.stages[[COL.stage, COL.measure_s]].dropna().itertuples(index=False)
        if window_s > 0
    }

    def busiest(least_s: float) -> tuple[Bools, float] | None:
        """Return the requests of the stage with the most requests per second, and its length."""
        rates = {
            stage: (measured & (stages == stage)).sum() / length_s
            for stage, length_s in lengths_s.items()
            if length_s >= least_s
        }
        stage = max(rates, key=lambda stage: rates[stage], default=None)
        return None if stage is None else (measured & (stages == stage), lengths_s[stage])

    sent_s = float(times[-1] - times[0]) if len(times) else 0.0
    steady, fastest = busiest(WINDOW_S), busiest(0.0)
    columns = {
        "Requests": np.ones(len(served)),
        "Input tokens": _counted(served, COL.input_tokens, COL.input_tokens_source),
        "Output tokens": _counted(served, COL.output_tokens, COL.output_tokens_source),
        "Output tokens, maximum": _values(served, COL.requested_output_tokens),
    }
    amounts = []
    for name, values in columns.items():
        known = values[~np.isnan(values)]
        if not len(known):
            continue
        sums = np.nan_to_num(values)
        lengths = sorted(known.tolist()) if name != "Requests" else []
        if sent_s >= WINDOW_S or fastest is None:
            peak = peak_per_minute(times, sums)
        else:
            peak = WINDOW_S * float(sums[fastest[0]].sum()) / fastest[1]
        amounts.append(
            PerMinute(
                name,
                peak,
                WINDOW_S * float(sums[steady[0]].sum()) / steady[1] if steady is not None else math.nan,
                float(np.mean(lengths)) if lengths else math.nan,
                quantile(lengths, 0.95),
            )
        )
    return Quota(run, model, tuple(amounts), len(rows), int(refused.sum()), sent_s)


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


def _counted(rows: DataFrame, column: str, source: str) -> np.ndarray:
    """Return token counts. If the provider counted any, only its own counts: the tokenizer of the client differs."""
    values = _values(rows, column)
    by_provider = (rows[source] == "usage").fillna(value=False).to_numpy(bool)
    return np.where(by_provider, values, math.nan) if by_provider.any() else values


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
        "Peak: the largest sum in any 60 s, warm-ups included. Steady: the mean over the window of the stage with the "
        "most requests per minute. A request counts when it is sent. Mean and P95 are per request.",
    ]
    if short := [quota for quota in found if quota.is_extrapolated]:
        notes.append(
            f"{_models(short, found)}requests were sent for less than {WINDOW_S:.0f} s, so the peak is extrapolated "
            "from the busiest stage. Measure for some minutes before you ask for a quota."
        )
    if brief := [quota for quota in found if all(math.isnan(amount.steady) for amount in quota.amounts)]:
        notes.append(
            f"{_models(brief, found)}no stage was measured for {WINDOW_S:.0f} s, so there is no steady rate: give "
            "the stages more time."
        )
    if refused := [quota for quota in found if quota.throttled]:
        counts = (
            f"{_models([quota], found)}{quota.throttled} of {quota.requests} requests were throttled"
            for quota in refused
        )
        notes.append(
            "; ".join(counts)
            + ". They are excluded, so the figures show the present quota and not the demand: do not ask for them. "
            "Lower the load until no request is throttled, or ask for more than these figures. On Bedrock, another "
            "region and an inference profile (us.MODEL, global.MODEL) have quotas of their own."
        )
    else:
        notes.append("No request was throttled.")
    return [f"{note[0].upper()}{note[1:]}" for note in notes]


def _models(some: Sequence[Quota], found: Sequence[Quota]) -> str:
    """Return the names of the models as the beginning of a note; "" if they are all."""
    return "" if len(some) == len(found) == 1 else f"{', '.join(dict.fromkeys(quota.model or '-' for quota in some))}: "


def _whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "-"
