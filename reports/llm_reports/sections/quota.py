"""The section "For a quota request": what the form for a cloud quota asks for.

It has requests and tokens per minute, their lengths, and throttled requests.

Every request that was sent counts, also those of warm-ups, because the provider counts them, except those that the
provider refused as too many. A model without a successful request has no figures. A request counts at the time at
which it was sent. Tokens are those that the provider counted, if it did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_reports.metrics.outcomes import succeeded, throttled
from llm_reports.run import Run
from llm_reports.sections.section import Grid, Section
from llm_users.quantile import quantile
from llm_users.quota import (
    MINUTE_S,
    STEADY_STAGE,
    ServedBesideThrottled,
    ServedRate,
    output_burndown,
    recovers_after_hours,
    separate_quotas,
)
from llm_users.record import COL

if TYPE_CHECKING:  # this module does not load pandas
    from pandas import DataFrame

Bools = np.ndarray[Any, np.dtype[np.bool_]]

WINDOW_S = MINUTE_S

Window = tuple[float, Bools]
"""A stage's length in seconds, and which requests started in its measurement window."""


@dataclass(frozen=True, slots=True)
class PerMinute:
    """An amount per minute, and the lengths behind it. NaN means unknown.

    ``peak`` is the largest sum in any 60 seconds or the mean rate of the busiest stage, whichever is larger. ``steady``
    is the mean of the stage with the most requests per minute, in its measurement window; only stages of at least 60
    seconds count.
    """

    name: str
    peak: float
    steady: float
    mean: float = math.nan
    p95: float = math.nan


@dataclass(frozen=True, slots=True)
class BusiestStage:
    """The stage with the most requests per minute: its length in seconds and its rate."""

    length_s: float
    per_minute: float

    @property
    def is_extrapolated(self) -> bool:
        """Return whether the stage was shorter than a minute, so that its requests per minute were not observed."""
        return self.length_s < WINDOW_S


@dataclass(frozen=True, slots=True)
class Quota:
    """The amounts of one model in one run, empty if no request succeeded.

    ``sent_s`` is the time from the first request to the last. ``served`` is what the endpoint served beside throttled
    requests.
    """

    run: Run
    model: str
    amounts: tuple[PerMinute, ...]
    requests: int
    throttled: int
    sent_s: float
    busiest: BusiestStage | None = None
    served: ServedRate | None = None
    on_bedrock: bool = False
    recovers_after_hours: bool = False

    @property
    def is_extrapolated(self) -> bool:
        """Return whether the requests per minute at the peak were calculated from less than a minute."""
        if self.busiest is None:
            return self.sent_s < WINDOW_S
        return self.busiest.is_extrapolated and self.amounts[0].peak <= self.busiest.per_minute


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
    ok = succeeded(rows[COL.error_code]).to_numpy(bool)
    on_bedrock = bool((rows[COL.framework] == "bedrock").fillna(value=False).any())
    messages = rows[COL.error_message][refused].dropna().unique()
    is_long = any(recovers_after_hours(str(message)) for message in messages)
    if not ok.any():
        return Quota(run, model, (), len(rows), int(refused.sum()), 0.0, None, None, on_bedrock, is_long)
    sent = rows[~refused].sort_values(COL.started_at)
    times = sent[COL.started_at].to_numpy(dtype=np.float64)
    measured = (sent[COL.measured] == 1).fillna(value=False).to_numpy(bool)
    stages = sent[COL.stage].to_numpy(dtype=np.float64, na_value=math.nan)
    windows: list[Window] = [
        (float(window_s), measured & (stages == float(stage)))
        for stage, window_s in run.stages[[COL.stage, COL.measure_s]].dropna().itertuples(index=False)
        if window_s > 0
    ]
    windows = [window for window in windows if window[1].any()]
    busiest = max(windows, key=lambda window: window[1].sum() / window[0], default=None)
    long_windows = (window for window in windows if window[0] >= WINDOW_S)
    steady = max(long_windows, key=lambda window: window[1].sum() / window[0], default=None)
    amounts = []
    for name, values in _columns(sent, output_burndown(model) if on_bedrock else 1).items():
        known = values[~np.isnan(values)]
        if not len(known):
            continue
        sums = np.nan_to_num(values)
        lengths = sorted(known.tolist()) if name != "Requests" else []
        in_stages = [_per_minute(sums, window) for window in windows]
        in_window = peak_per_minute(times, sums) if times[-1] - times[0] >= WINDOW_S or not windows else math.nan
        amounts.append(
            PerMinute(
                name,
                float(np.nanmax([in_window, *in_stages])) if windows else in_window,
                _per_minute(sums, steady) if steady is not None else math.nan,
                float(np.mean(lengths)) if lengths else math.nan,
                quantile(lengths, 0.95),
            )
        )
    return Quota(
        run,
        model,
        tuple(amounts),
        len(rows),
        int(refused.sum()),
        float(times[-1] - times[0]),
        BusiestStage(busiest[0], _per_minute(np.ones(len(sent)), busiest)) if busiest is not None else None,
        _served(rows, ok, refused) if refused.any() else None,
        on_bedrock,
        is_long,
    )


def _columns(sent: DataFrame, burndown: int) -> dict[str, np.ndarray]:
    """Return the amounts of each request. ``burndown``: the tokens of quota that an output token uses."""
    given = _counted(sent, COL.input_tokens, COL.input_tokens_source)
    answered = _counted(sent, COL.output_tokens, COL.output_tokens_source)
    cap = _values(sent, COL.requested_output_tokens)
    columns = {
        "Requests": np.ones(len(sent)),
        "Input tokens": given,
        "Output tokens": answered,
        "Output tokens, maximum": cap,
        "Tokens, input + output cap": given + cap,
    }
    if burndown > 1:
        columns[f"Tokens, input + {burndown} x output"] = given + burndown * answered
    return columns


def _per_minute(values: np.ndarray, window: Window) -> float:
    return WINDOW_S * float(values[window[1]].sum()) / window[0]


def _served(rows: DataFrame, ok: Bools, refused: Bools) -> ServedRate | None:
    """Return what the endpoint served beside throttled requests."""
    served = ServedBesideThrottled()
    stages = np.nan_to_num(_values(rows, COL.stage)).astype(int).tolist()
    times = _values(rows, COL.started_at).tolist()
    for index in np.flatnonzero(refused):
        served.add_throttled(stages[index], times[index])
    durations = np.nan_to_num(_values(rows, COL.end_to_end_latency_s)).tolist()
    given = np.nan_to_num(_values(rows, COL.input_tokens)).astype(int).tolist()
    answered = np.nan_to_num(_values(rows, COL.output_tokens)).astype(int).tolist()
    for index in np.flatnonzero(ok):
        served.add_served(stages[index], times[index], durations[index], given[index], answered[index])
    return served.rate()


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
    table = [Grid(header, rows, left)] if rows else []
    return Section("For a quota request", [*table, _notes(found)])


def _notes(found: Sequence[Quota]) -> list[str]:
    notes = []
    answered = [quota for quota in found if quota.amounts]
    if answered:
        notes.append(
            "Peak: the largest sum in any 60 s, warm-ups included, or the mean rate of the busiest stage if that is "
            "more. Steady: the mean over the window of the stage with the most requests per minute. A request counts "
            "when it is sent. Mean and P95 are per request."
        )
    if failed := [quota for quota in found if not quota.amounts]:
        notes.append(_note(failed, found, "no request succeeded, so there are no figures for a quota"))
    for quota in answered:
        if not quota.is_extrapolated:
            continue
        if quota.busiest is None:
            text = f"requests were sent for less than {WINDOW_S:.0f} s, so the peak is extrapolated"
        else:
            text = (
                f"the busiest stage lasted {quota.busiest.length_s:.2g} s; at its rate: "
                f"{quota.busiest.per_minute:,.0f} requests per minute. The peak is extrapolated from it"
            )
        notes.append(_note([quota], found, f"{text}. For a steady figure, use {STEADY_STAGE}"))
    brief = [quota for quota in answered if all(math.isnan(amount.steady) for amount in quota.amounts)]
    if brief:
        notes.append(
            _note(
                brief,
                found,
                f"no stage was measured for {WINDOW_S:.0f} s, so there is no steady rate: give the "
                f"stages more time ({STEADY_STAGE})",
            )
        )
    if multiplied := [quota for quota in answered if quota.on_bedrock and output_burndown(quota.model) > 1]:
        notes.append(
            _note(
                multiplied,
                found,
                f"on bedrock-runtime, a request reserves its input and its output cap when it starts. When it ends, "
                f"each output token of this model counts as {output_burndown(multiplied[0].model)} tokens of the quota "
                "per minute. Ask for the larger of the two amounts; prices do not have this factor",
            )
        )
    return [*notes, *_throttling_notes(found)]


def _throttling_notes(found: Sequence[Quota]) -> list[str]:
    notes = []
    refused = [quota for quota in found if quota.throttled]
    for quota in refused:
        parts = [f"{quota.throttled} of {quota.requests} requests were throttled and are excluded"]
        if quota.amounts:
            parts[0] += ", so the figures are limited by the present quota and are less than the demand"
        if quota.recovers_after_hours:
            parts.append("The exceeded quota does not recover within a run: repeat the run when it is full again")
        elif quota.served is not None:
            parts.append(quota.served.text())
        notes.append(_note([quota], found, ". ".join(parts)))
    if refused:
        on_bedrock = [quota.model for quota in refused if quota.on_bedrock]
        elsewhere = f" {separate_quotas(on_bedrock)}." if on_bedrock else ""
        is_lower = (
            ""
            if all(quota.recovers_after_hours for quota in refused)
            else ("lower the load until no request is throttled, or ")
        )
        notes.append(
            f"Do not ask for figures of a throttled run: {is_lower}ask for more than these figures.{elsewhere}"
        )
    else:
        notes.append("No request was throttled.")
    return notes


def _note(some: Sequence[Quota], found: Sequence[Quota], text: str) -> str:
    """Return a note about some of the models. It begins with their names, unchanged, unless they are all."""
    if models := _models(some, found):
        return f"{models}{text}."
    return f"{text[0].upper()}{text[1:]}."


def _models(some: Sequence[Quota], found: Sequence[Quota]) -> str:
    """Return the names of the models as the beginning of a note; "" if they are all."""
    return "" if len(some) == len(found) == 1 else f"{', '.join(dict.fromkeys(quota.model or '-' for quota in some))}: "


def _whole(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else "-"
