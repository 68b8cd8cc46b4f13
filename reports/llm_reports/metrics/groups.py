"""Groups: the requests behind one row of a table, which is one stage of one run and one model.

This module defines which requests count (MEASUREMENT: measured, successful, neither aborted nor cancelled) and the
metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_reports.metrics.outcomes import (
    buffered,
    dropped,
    failed,
    failure_reasons,
    outcome_counts,
    succeeded,
    throttled,
    unfinished,
)
from llm_reports.metrics.stage_group import Counts, Facts
from llm_reports.metrics.steadiness import steadiness_by_stage
from llm_reports.metrics.summary import Summary, summarize
from llm_reports.run import LOAD_SEARCH_KEY, Run
from llm_reports.stats.count_difference import count_difference
from llm_users.outcome import Outcome
from llm_users.record import COL, REQUEST_COLUMNS, Shortfall, StageLoad, load_of, shortfall_of

if TYPE_CHECKING:  # this module does not load pandas
    from pandas import DataFrame, Series

_UNITS = {column.name: column.unit for column in REQUEST_COLUMNS}
_Key = tuple[int, int, float, str, str]
Places = np.ndarray[Any, np.dtype[np.intp]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
_LOAD = [COL.concurrency, COL.rate_per_s]
_KEY = [COL.stage, *_LOAD, COL.framework, COL.model]
_UNKNOWN = -1
HEALTH_KEY = "client_health"  # key of the verdict on the client in a written LLMPerf summary
NOT_WELL = ("strained", "disturbed", "saturated")
"""Verdicts on a client whose own delay may be in the figures, in ascending severity."""


@dataclass(frozen=True)
class Metric:
    """A metric with one value per request: its name, its unit, and its computation from the rows.

    ``values(rows, connect_s)`` returns one value per row; ``connect_s`` is added to times that start at t0.
    """

    name: str
    unit: str
    values: Callable[[DataFrame, Series], Series]


@dataclass(frozen=True, eq=False)
class Group:
    """One stage of one run, for one framework and model: the rows that count, and the outcomes of all rows.

    ``stage`` is ``None`` when the file does not contain it. ``measured`` contains the measured requests with any
    outcome, ``ok`` the successful ones (including ``buffered`` ones: their answer is complete, only their times to
    first token are unknown).
    """

    run: Run
    stage: int | None
    load: StageLoad
    framework: str
    model: str
    counts: Counts
    measured: DataFrame
    ok: DataFrame
    health: str
    count_connect: bool
    steadiness: str = ""
    """``steady``, ``unsteady`` (its queue grew through the window), or "" when unknown."""
    shortfall: Shortfall | None = None
    """By how much the load was below the requested load; ``None`` when it was not, or when unknown."""

    @property
    def concurrency(self) -> int | None:
        """The users of a closed loop; ``None`` in an open loop, and when unknown."""
        return self.load.users

    @property
    def identity(self) -> dict[str, object]:
        """The columns that identify the group in a DataFrame: run, framework, model, stage and load."""
        names = {"run": self.run.name, COL.framework: self.framework, COL.model: self.model, COL.stage: self.stage}
        load: dict[str, object] = {COL.concurrency: self.concurrency, COL.rate_per_s: self.load.rate_per_s}
        if self.load.lengths is not None:
            load |= {COL.stage_input_tokens: self.load.lengths[0], COL.stage_output_tokens: self.load.lengths[1]}
        return {**names, **load}

    def stage_figure(self, column: str) -> float:
        """Return a figure of the whole stage, from the stages file; NaN if it is missing."""
        from pandas import isna

        value = self._stage_line.get(column)
        return math.nan if value is None or isna(value) else float(value)

    @cached_property
    def _stage_line(self) -> Mapping[Any, Any]:
        if self.stage is None:
            return {}
        lines = self.run.stages[(self.run.stages[COL.stage] == self.stage).to_numpy(bool, na_value=False)]
        return lines.iloc[0].to_dict() if len(lines) else {}

    @cached_property
    def facts(self) -> Facts:
        """The counts and names for notes and labels."""
        measured, ok = self.measured, self.ok
        # Only two columns: this avoids a copy of all columns of a million rows.
        events = measured[[COL.chunks, COL.output_tokens]].dropna()
        events = events[events[COL.chunks] > 0]
        bursts = ok[ok[COL.burst_chunks] > 0]
        return Facts(
            busy_s=float(measured[COL.end_to_end_latency_s].sum()),
            held=int(held(measured).sum()),
            event_tokens=float(events[COL.output_tokens].sum()),
            events=float(events[COL.chunks].sum()),
            apis=_texts(measured, COL.api),
            endpoints=_texts(measured, COL.endpoint),
            knows_prompts=bool(measured[COL.prompt_index].notna().any()),
            limits_output=bool(measured[COL.requested_output_tokens].notna().any()),
            buffered=int(buffered(ok[COL.error_code]).sum()),
            unstreamed=int(unstreamed(ok).sum()),
            without_content=int((self.values(LLMPERF_TTFT, ok) == 0).sum()),
            bursts=len(bursts),
            burst_gaps=float((bursts[COL.chunks] - 1).sum()),
            burst_zero_gaps=float(bursts[COL.coalesced].sum()),
            user_stamps=int((ok[COL.stamp_source] == "user").sum()),
            local_token_counts=int((ok[COL.output_tokens_source] == "tokenizer").sum()),
            cached_tokens=float(ok[COL.cached_tokens].astype("float64").sum()),
            input_tokens=float(ok[COL.input_tokens].astype("float64").sum()),
            without_connect=int(ok[COL.connect_s].isna().sum()),
            connected=int((ok[COL.connect_s] > 0).sum()),
            reused=int((ok[COL.connect_s] == 0).sum()),
            failure_reasons="" if len(ok) else self.failure_reasons,
            count_difference=self._count_difference(),
        )

    @cached_property
    def failure_reasons(self) -> str:
        """The errors of the measured requests in words; without measured requests, of all requests of the stage."""
        if len(self.measured):
            return failure_reasons(self.measured)
        rows = self.run.requests
        return failure_reasons(rows if self.stage is None else rows[(rows[COL.stage] == self.stage).to_numpy(bool)])

    def _count_difference(self) -> str:
        ok, columns = self.ok, (COL.output_tokens_usage, COL.output_tokens_counted, COL.reasoning_tokens)
        if not ok[COL.output_tokens_counted].notna().any():
            return ""
        return count_difference(*(ok[name].to_numpy(np.float64, na_value=math.nan) for name in columns))

    def summary(self, metric: Metric) -> Summary:
        """Return the figures of a metric over the requests that count."""
        if metric not in self._summaries:
            self._summaries[metric] = summarize(self.in_start_order(metric))
        return self._summaries[metric]

    def in_start_order(self, metric: Metric) -> Floats:
        """Return the values of a metric over the requests that count, in start order; NaN for missing values."""
        values = self.values(metric, self.ok).to_numpy(np.float64, na_value=math.nan)
        return values[self._ok_order]

    @cached_property
    def ended_order(self) -> Places:
        """The indices in ``measured`` of the requests that the client did not end itself, in start order."""
        order = start_order(self.measured)
        ended = (~unfinished(self.measured[COL.error_code])).to_numpy(bool)
        return order[ended[order]]

    @cached_property
    def failures(self) -> Floats:
        """For each request of ``ended_order``: 1 if it failed, else 0."""
        return failed(self.measured[COL.error_code]).to_numpy(bool)[self.ended_order].astype(np.float64)

    @cached_property
    def _ok_order(self) -> Places:
        return start_order(self.ok)

    @cached_property
    def _summaries(self) -> dict[Metric, Summary]:
        return {}

    def values(self, metric: Metric, rows: DataFrame) -> Series:
        """Return a metric of rows of this group, one value per row."""
        return metric.values(rows, rows[COL.connect_s].fillna(0.0) * (1.0 if self.count_connect else 0.0))


def groups(runs: Iterable[Run], *, count_connect: bool = False) -> list[Group]:
    """Return the groups of the runs, in the order of the runs, then by stage, load, framework and model.

    The groups of a load search are ordered by load, then by stage.
    """
    return [group for run in runs for group in _groups_of(run, count_connect)]


def loads_of(run: Run) -> set[StageLoad]:
    """Return the loads of the rows of a run."""
    ranges = _ranges(run.stages)
    different = run.requests[[COL.stage, *_LOAD]].drop_duplicates()
    columns = (different[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in (COL.stage, *_LOAD))
    return {
        load_of(float(users), float(rate_per_s), *ranges.get(stage, ()))
        for stage, users, rate_per_s in zip(*columns, strict=True)
    }


def start_times(rows: DataFrame) -> Floats:
    """Return when the requests started (unix s); NaN when unknown.

    A dropped request did not start. Its time is interpolated from the position of its prompt among the others.
    """
    started_at = rows[COL.started_at].to_numpy(np.float64, na_value=math.nan)
    not_started = dropped(rows[COL.error_code]).to_numpy(bool)
    if not not_started.any():
        return started_at
    prompts = rows[COL.prompt_index].to_numpy(np.float64, na_value=math.nan)
    known = np.flatnonzero(~np.isnan(started_at) & ~np.isnan(prompts))
    if not len(known):
        return started_at
    known = known[np.argsort(prompts[known], kind="stable")]
    interpolated = np.interp(np.nan_to_num(prompts), prompts[known], started_at[known])
    return np.where(not_started, interpolated, started_at)


def start_order(rows: DataFrame) -> Places:
    """Return the indices of the rows in the order of their starts; without start times, in the order of the file."""
    return np.argsort(start_times(rows), kind="stable")


def held(rows: DataFrame) -> Series:
    """Return which rows waited because of ``--llm-max-in-flight`` and were then sent."""
    return (rows[COL.held_s] > 0).fillna(value=False).astype(bool) & ~dropped(rows[COL.error_code])


def unstreamed(rows: DataFrame) -> Series:
    """Return which requests did not ask for a stream. Files without this column have only streamed requests."""
    return (rows[COL.streamed] == 0).fillna(value=False).astype(bool)


def _column(name: str) -> Metric:
    return Metric(name, _UNITS[name], lambda rows, _: rows[name].astype("float64"))


def _streamed(name: str, *, from_t0: bool = False) -> Metric:
    """Return the metric of a column that is unknown for a buffered answer, whose tokens arrived all at once."""

    def values(rows: DataFrame, connect_s: Series) -> Series:
        return (rows[name] + (connect_s if from_t0 else 0.0)).where(~buffered(rows[COL.error_code]))

    return Metric(name, _UNITS[name], values)


def _llmperf_ttft(rows: DataFrame, connect_s: Series) -> Series:
    return rows.get("llmperf_ttft_s", rows[COL.ttft_s]).where(~buffered(rows[COL.error_code])) + connect_s


def _latency(rows: DataFrame, connect_s: Series) -> Series:
    return rows[COL.end_to_end_latency_s] + connect_s


def _throughput(rows: DataFrame, connect_s: Series) -> Series:
    duration_s = _latency(rows, connect_s)
    return rows[COL.output_tokens].astype("float64") / duration_s.where(duration_s > 0)


def _llmperf_inter_token_latency(rows: DataFrame, connect_s: Series) -> Series:
    tokens = rows[COL.output_tokens].astype("float64")
    by_tokens = (rows[COL.last_token_s] + connect_s) / tokens.where(tokens > 0)
    return rows.get("llmperf_inter_token_latency_s", by_tokens)


TTFT = _streamed(COL.ttft_s, from_t0=True)
TPOT = _streamed(COL.tpot_s)
OUTPUT_THROUGHPUT = Metric(
    COL.request_output_throughput_token_per_s, _UNITS[COL.request_output_throughput_token_per_s], _throughput
)
LATENCY = Metric(COL.end_to_end_latency_s, _UNITS[COL.end_to_end_latency_s], _latency)
LLMPERF_INTER_TOKEN_LATENCY = Metric("llmperf_inter_token_latency_s", "s/token", _llmperf_inter_token_latency)
LLMPERF_TTFT = Metric("llmperf_ttft_s", _UNITS[COL.ttft_s], _llmperf_ttft)
"""TTFT as LLMPerf counts it: 0 for an answer without content. Without such answers, it equals TTFT."""
CORRECTED_TTFT = _streamed(COL.corrected_ttft_s)
CORRECTED_LATENCY = _column(COL.corrected_end_to_end_latency_s)
INPUT_TOKENS = _column(COL.input_tokens)
OUTPUT_TOKENS = _column(COL.output_tokens)
REQUEST_METRICS = (
    TTFT,
    _streamed(COL.ttfat_s, from_t0=True),
    TPOT,
    LATENCY,
    _column(COL.queue_s),
    _column(COL.connect_s),
    OUTPUT_THROUGHPUT,
    LLMPERF_INTER_TOKEN_LATENCY,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
)
OPEN_LOOP_METRICS = (CORRECTED_TTFT, CORRECTED_LATENCY, _column(COL.held_s))
"""Metrics of open loops only. The intended start comes from a schedule; it is before connecting and any wait."""


def metrics_of(group: Group) -> tuple[Metric, ...]:
    """Return the metrics that each request of a group has."""
    return (*REQUEST_METRICS, *OPEN_LOOP_METRICS) if group.load.is_open else REQUEST_METRICS


def _groups_of(run: Run, count_connect: bool) -> list[Group]:
    keys = run.requests[_KEY].copy()
    for column in (COL.stage, COL.concurrency):
        keys[column] = keys[column].fillna(_UNKNOWN).astype("int64")
    keys[COL.rate_per_s] = keys[COL.rate_per_s].fillna(_UNKNOWN)
    # Without a sweep, requests of the ramp are sent before the final number of users is known, so the other rows of a
    # stage get the users of its measured rows.
    counts = (run.requests[COL.measured] == 1).fillna(value=False).to_numpy(bool)
    loads = keys.loc[counts, [COL.stage, COL.concurrency]].drop_duplicates()
    loads = loads[~loads[COL.stage].duplicated(keep=False)]
    of_stage = dict(zip(loads[COL.stage], loads[COL.concurrency], strict=True))
    rest = keys.loc[~counts]
    if len(rest) and of_stage:
        keys.loc[~counts, COL.concurrency] = rest[COL.stage].map(of_stage).fillna(rest[COL.concurrency]).astype("int64")
    # Keep only the indices of the rows: copies of all rows would need as much memory as the file.
    indices_by_key = {
        _key(key): np.asarray(indices, dtype=np.intp) for key, indices in keys.groupby(_KEY, sort=False).indices.items()
    }
    # Stages without requests, so that the tables show gaps in a sweep.
    with_rows = {key[0] for key in indices_by_key}
    names = sorted({key[-2:] for key in indices_by_key}) or [("", "")]
    for stage, *load in run.stages[[COL.stage, *_LOAD]].fillna(_UNKNOWN).itertuples(index=False):
        if int(stage) not in with_rows:
            indices_by_key |= {_key((stage, *load, *name)): np.empty(0, dtype=np.intp) for name in names}
    known = run.stages[run.stages[COL.stage].notna() & run.stages[COL.health].notna()]
    health = {int(stage): str(text) for stage, text in zip(known[COL.stage], known[COL.health], strict=True)}
    steady = steadiness_by_stage(run)
    shortfalls = _shortfalls(run.stages)
    ranges = _ranges(run.stages)
    result = []
    # A load search tries loads in any order; its tables and curves are in the order of the loads.
    by_load = LOAD_SEARCH_KEY in run.manifest
    for key in sorted(indices_by_key, key=lambda key: (*key[1:3], *key) if by_load else key):
        stage, concurrency, rate_per_s, framework, model = key
        indices = indices_by_key[key]
        # The rows of a stage are usually contiguous; then they are not copied.
        contiguous = len(indices) and indices[-1] - indices[0] == len(indices) - 1
        rows = run.requests.iloc[indices[0] : indices[-1] + 1] if contiguous else run.requests.take(indices)
        measured = _where(rows, rows[COL.measured] == 1)
        result.append(
            Group(
                run=run,
                stage=None if stage == _UNKNOWN else stage,
                load=load_of(None if concurrency == _UNKNOWN else concurrency, rate_per_s, *ranges.get(stage, ())),
                framework=framework,
                model=model,
                counts=_counts(rows, measured),
                measured=measured,
                ok=_where(measured, succeeded(measured[COL.error_code])),
                health=health.get(stage) or str(run.manifest.get(HEALTH_KEY) or ""),
                count_connect=count_connect,
                steadiness=steady.get(stage, ""),
                shortfall=shortfalls.get(stage),
            )
        )
    return result


def _ranges(stages: DataFrame) -> dict[int, tuple[tuple[float, float], tuple[float, float]]]:
    """Return by stage the rates at its start and its end, and the lengths of its requests; NaN where it has none."""
    known = stages[stages[COL.stage].notna()]
    columns = [COL.rate_start_per_s, COL.rate_end_per_s, COL.stage_input_tokens, COL.stage_output_tokens]
    values = known[columns].to_numpy(dtype=np.float64, na_value=np.nan).tolist()
    return {int(stage): ((a, b), (c, d)) for stage, (a, b, c, d) in zip(known[COL.stage], values, strict=True)}


def _shortfalls(stages: DataFrame) -> dict[int, Shortfall]:
    """Return the shortfall by stage, for stages whose load was below the requested load."""
    from pandas import isna

    columns = (
        COL.concurrency_asked,
        COL.concurrency,
        COL.users_actual,
        COL.load_actual,
        COL.users_ended,
        COL.window_widened,
        COL.requests_measured,
    )
    known = stages[stages[COL.stage].notna()]
    shortfalls = {}
    for stage, *values in known[[COL.stage, *columns]].itertuples(index=False):
        *loads, ended, widened, requests = (None if isna(value) else float(value) for value in values)
        short = shortfall_of(*loads, users_ended=ended, widened=bool(widened), requests=requests)
        if short is not None:
            shortfalls[int(stage)] = short
    return shortfalls


def _where(rows: DataFrame, wanted: Series) -> DataFrame:
    """Return the wanted rows; the same object, not a copy, if all rows are wanted."""
    return rows if bool(wanted.all()) else rows[wanted.fillna(value=False).astype(bool)]


def _key(values: Any) -> _Key:
    stage, concurrency, rate_per_s, framework, model = values
    return int(stage), int(concurrency), float(rate_per_s), str(framework), str(model)


def _counts(rows: DataFrame, measured: DataFrame) -> Counts:
    codes, rejected = measured[COL.error_code], throttled(measured)
    outcome_count = outcome_counts(measured)
    return Counts(
        rows=len(rows),
        measured=len(measured),
        ok=outcome_count[Outcome.OK],
        failed=sum(count for outcome, count in outcome_count.items() if outcome.is_failure),
        throttled=outcome_count[Outcome.THROTTLED],
        dropped=outcome_count[Outcome.DROPPED],
        aborted=outcome_count[Outcome.ABORTED],
        cancelled=outcome_count[Outcome.CANCELLED],
        errors=_frequencies(codes[failed(codes) & ~rejected]),
        throttles=_frequencies(codes[rejected]),
        unmeasured_phases=_frequencies(rows[COL.phase][rows[COL.measured] != 1]),
    )


def _frequencies(texts: Series) -> tuple[tuple[str, int], ...]:
    counted = ((str(text), int(count)) for text, count in texts.value_counts().items())
    return tuple(sorted(counted, key=lambda item: (-item[1], item[0])))


def _texts(rows: DataFrame, column: str) -> frozenset[str]:
    return frozenset(str(text) for text in rows[column].unique() if text)
