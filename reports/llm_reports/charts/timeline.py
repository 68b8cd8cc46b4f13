"""Requests over time, by what became of them, and time to first token against the length of the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame, Series

from llm_reports.charts.downsampling import Floats, Places, evenly, short, thinned
from llm_reports.metrics.groups import INPUT_TOKENS, TTFT, Group
from llm_reports.metrics.latency_model import Line, paired, robust_line, tokens_and_latency
from llm_reports.metrics.outcomes import dropped, outcomes, succeeded
from llm_reports.run import Run
from llm_users.outcome import Outcome

UNMEASURED = "unmeasured"
KINDS: dict[str, str] = {
    Outcome.OK: "succeeded",
    UNMEASURED: "succeeded outside the measured phase",
    Outcome.THROTTLED: "throttled",
    Outcome.FAILED: "failed",
    Outcome.ABORTED: "aborted by the end of the stage or test",
    Outcome.CANCELLED: "cancelled by the client",
}
"""Kinds of points: outcomes, but a success counts as another kind outside of MEASURE, and dropped requests count as
failed."""
POINTS = 12_000  # of one figure: drawn in about 30 ms
_RARE = 3000  # outcomes other than success are all drawn up to this many of each


@dataclass(frozen=True)
class Points:
    """The requests of one kind: all of them counted, some or all drawn. A latency that is missing is ``None``."""

    key: str
    name: str
    count: int
    started_s: list[float | None]
    e2e: list[float | None]
    ttft: list[float | None]
    load: list[float | None]


@dataclass(frozen=True)
class Timeline:
    """One run: its requests by start, in seconds since the first of them, and where its stages lie."""

    run: str
    total: int
    shown: int
    outcomes: list[Points]
    stages: list[tuple[float, float, str]]
    load_unit: str
    dropped: int  # requests that were never started and so have no place


@dataclass(frozen=True)
class Scatter:
    """Points of one group and the robust line through all of them."""

    total: int
    x: list[float | None]
    y: list[float | None]
    line: Line


def timelines(runs: Sequence[Run]) -> list[Timeline]:
    """The timeline of every run whose rows say when requests started."""
    dated = [run for run in runs if run.requests["started_at"].notna().any()]
    return [_timeline(run, POINTS // len(dated)) for run in dated]


def input_scatters(groups: Sequence[Group]) -> list[Scatter]:
    """Time to first token against input tokens."""
    return [
        _scatter(*paired(group.values(INPUT_TOKENS, group.ok), group.values(TTFT, group.ok)), len(groups))
        for group in groups
    ]


def output_scatters(groups: Sequence[Group]) -> list[Scatter]:
    """Latency against output tokens: what the latency model is fitted to."""
    return [_scatter(*tokens_and_latency(group), len(groups)) for group in groups]


def kinds_of(rows: DataFrame) -> Series:
    """The kind of every row, as a key of ``KINDS``."""
    found = outcomes(rows).astype(object).replace(Outcome.DROPPED.value, Outcome.FAILED.value)
    return found.mask(succeeded(rows["error_code"]) & (rows["measured"] != 1), UNMEASURED)


def _timeline(run: Run, limit: int) -> Timeline:
    rows = run.requests[run.requests["started_at"].notna()]
    rows = rows.sort_values(["started_at", "request_id", "end_to_end_latency_s"], kind="stable")
    since_s = (rows["started_at"] - rows["started_at"].iloc[0]).to_numpy(dtype=np.float64)
    e2e, ttft, users, rate = (
        rows[name].to_numpy(dtype=np.float64, na_value=np.nan)
        for name in ("end_to_end_latency_s", "ttft_s", "concurrency", "rate_per_s")
    )
    is_open = bool(np.isfinite(rate).any())
    level = rate if is_open else users
    kinds = kinds_of(rows).to_numpy()
    drawn: dict[str, Places] = {}
    for key in reversed(KINDS):  # the rare ones first: what they leave is for the successful
        places = np.flatnonzero(kinds == key)
        left = max(limit // 4, limit - sum(map(len, drawn.values())))
        room = min(_RARE, left) if key not in (Outcome.OK, UNMEASURED) else left // (2 if key == UNMEASURED else 1)
        heights = np.where(np.isfinite(e2e[places]), e2e[places], 0.0)
        drawn[key] = places[thinned(since_s[places], heights, room)]
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
        outcomes=[each for each in drawn_points if each.count],
        stages=_stages(rows, level, since_s, is_open=is_open),
        load_unit="requests/s" if is_open else "parallel requests",
        dropped=int(dropped(run.requests["error_code"]).sum()),
    )


def _stages(rows: DataFrame, level: Floats, since_s: Floats, *, is_open: bool) -> list[tuple[float, float, str]]:
    """Where each stage lies, from the start of its first to the start of its last request."""
    starts = DataFrame({"stage": rows["stage"], "level": level, "at": since_s})
    spans = starts.dropna().groupby("stage").agg({"at": ["min", "max"], "level": "max"})
    return [
        (round(float(first), 3), round(float(last), 3), f"{value:g}/s" if is_open else f"{value:g}")
        for first, last, value in spans.itertuples(index=False)
    ]


def _scatter(x: Floats, y: Floats, sharers: int) -> Scatter:
    limit = max(200, POINTS // max(1, sharers))
    places = thinned(x, y, limit)
    if len(places) > 2 * limit:
        places = places[evenly(len(places), limit)]
    return Scatter(len(x), short(x[places]), short(y[places]), robust_line(x, y))
