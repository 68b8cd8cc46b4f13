"""Requests over time by outcome, and scatter plots of time to first token and latency against token counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame

from llm_reports.charts.downsampling import Floats, Places, evenly, short, thinned
from llm_reports.metrics.groups import INPUT_TOKENS, TTFT, Group
from llm_reports.metrics.latency_model import Line, paired, robust_line, tokens_and_latency
from llm_reports.metrics.outcomes import dropped, outcomes, succeeded
from llm_reports.run import Run
from llm_users.outcome import Outcome
from llm_users.record import COL

UNMEASURED = "unmeasured"
KINDS: dict[str, str] = {
    Outcome.OK: "succeeded",
    UNMEASURED: "succeeded outside the measured phase",
    Outcome.THROTTLED: "throttled",
    Outcome.FAILED: "failed",
    Outcome.ABORTED: "aborted by the end of the stage or test",
    Outcome.CANCELLED: "cancelled by the client",
}
"""Kinds of points: the outcomes, with two differences. A success outside of MEASURE is a separate kind, and dropped
requests count as failed."""
POINTS = 12_000  # per figure: drawn in about 30 ms
_RARE = 3000  # up to this many requests of each outcome other than success are all drawn


@dataclass(frozen=True)
class Points:
    """The requests of one kind: all are counted, some or all are drawn. A missing latency is ``None``."""

    key: str
    name: str
    count: int
    started_s: list[float | None]
    e2e: list[float | None]
    ttft: list[float | None]
    load: list[float | None]


@dataclass(frozen=True)
class Timeline:
    """One run: its requests by start, in seconds since the first start, and the time spans of its stages."""

    run: str
    total: int
    shown: int
    outcomes: list[Points]
    stages: list[tuple[float, float, str]]
    load_unit: str
    dropped: int  # requests that did not start and therefore do not have a position


@dataclass(frozen=True)
class Scatter:
    """The drawn points of one group and the robust line through all of its points."""

    total: int
    x: list[float | None]
    y: list[float | None]
    line: Line


def timelines(runs: Sequence[Run]) -> list[Timeline]:
    """Return the timeline of every run whose rows contain start times."""
    dated = [run for run in runs if run.requests[COL.started_at].notna().any()]
    return [_timeline(run, POINTS // len(dated)) for run in dated]


def input_scatters(groups: Sequence[Group]) -> list[Scatter]:
    """Return a scatter plot of time to first token against input tokens for each group."""
    return [
        _scatter(*paired(group.values(INPUT_TOKENS, group.ok), group.values(TTFT, group.ok)), len(groups))
        for group in groups
    ]


def output_scatters(groups: Sequence[Group]) -> list[Scatter]:
    """Return a scatter plot of latency against output tokens for each group, the data of the latency model."""
    return [_scatter(*tokens_and_latency(group), len(groups)) for group in groups]


def _timeline(run: Run, limit: int) -> Timeline:
    rows = run.requests[run.requests[COL.started_at].notna()]
    rows = rows.sort_values([COL.started_at, COL.request_id, COL.end_to_end_latency_s], kind="stable")
    since_s = (rows[COL.started_at] - rows[COL.started_at].iloc[0]).to_numpy(dtype=np.float64)
    e2e, ttft, users, rate = (
        rows[name].to_numpy(dtype=np.float64, na_value=np.nan)
        for name in (COL.end_to_end_latency_s, COL.ttft_s, COL.concurrency, COL.rate_per_s)
    )
    is_open = bool(np.isfinite(rate).any())
    level = rate if is_open else users
    unmeasured = succeeded(rows[COL.error_code]) & (rows[COL.measured] != 1)
    of_rows = outcomes(rows).astype(object).replace(Outcome.DROPPED.value, Outcome.FAILED.value)
    kinds = of_rows.mask(unmeasured, UNMEASURED).to_numpy()
    drawn: dict[str, Places] = {}
    for key in reversed(KINDS):  # rare outcomes first; successful requests get the remaining points
        indices = np.flatnonzero(kinds == key)
        remaining = max(limit // 4, limit - sum(map(len, drawn.values())))
        most = {Outcome.OK: remaining, UNMEASURED: remaining // 2}.get(key, min(_RARE, remaining))
        heights = np.where(np.isfinite(e2e[indices]), e2e[indices], 0.0)
        drawn[key] = indices[thinned(since_s[indices], heights, most)]
    drawn_points = [
        Points(
            key=str(key),
            name=name,
            count=int((kinds == key).sum()),
            started_s=[round(float(value), 3) for value in since_s[drawn[key]]],
            e2e=short(e2e[drawn[key]]),
            ttft=short(ttft[drawn[key]]),
            load=short(level[drawn[key]]),
        )
        for key, name in KINDS.items()
    ]
    shown = sum(map(len, drawn.values()))
    return Timeline(
        run=run.name,
        total=len(rows),
        shown=shown,
        outcomes=[points for points in drawn_points if points.count],
        stages=_stages(rows, level, since_s, is_open=is_open),
        load_unit="requests/s" if is_open else "parallel requests",
        dropped=int(dropped(run.requests[COL.error_code]).sum()),
    )


def _stages(rows: DataFrame, level: Floats, since_s: Floats, *, is_open: bool) -> list[tuple[float, float, str]]:
    """Return the span of each stage, from the start of its first request to the start of its last, and its load."""
    starts = DataFrame({COL.stage: rows[COL.stage], "level": level, "at": since_s})
    spans = starts.dropna().groupby(COL.stage).agg({"at": ["min", "max"], "level": "max"})
    return [
        (round(float(first), 3), round(float(last), 3), f"{value:g}/s" if is_open else f"{value:g}")
        for first, last, value in spans.itertuples(index=False)
    ]


def _scatter(x: Floats, y: Floats, group_count: int) -> Scatter:
    limit = max(200, POINTS // max(1, group_count))
    indices = thinned(x, y, limit)
    if len(indices) > 2 * limit:
        indices = indices[evenly(len(indices), limit)]
    return Scatter(len(x), short(x[indices]), short(y[indices]), robust_line(x, y))
