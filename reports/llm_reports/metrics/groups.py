"""Groups: the requests that one row of a table stands for, that is one stage of one run and one model.

Decides which requests count (MEASUREMENT: measured, no error, neither aborted nor cancelled) and what each metric is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pandas import DataFrame, Series, isna

from llm_reports.metrics.outcomes import buffered, dropped, failed, outcome_counts, succeeded, throttled, unfinished
from llm_reports.metrics.steadiness import steadiness_by_stage
from llm_reports.metrics.summary import Summary, summarize
from llm_reports.run import Run
from llm_users.outcome import Outcome
from llm_users.record import REQUEST_COLUMNS, Shortfall, StageLoad, load_of, shortfall_of

_UNITS = {column.name: column.unit for column in REQUEST_COLUMNS}
_Key = tuple[int, int, float, str, str]
Places = np.ndarray[Any, np.dtype[np.intp]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
_LOAD = ["concurrency", "rate_per_s"]
_KEY = ["stage", *_LOAD, "framework", "model"]
_UNKNOWN = -1
HEALTH_KEY = "client_health"  # under which a written LLMPerf summary carries the verdict on the client
NOT_WELL = ("strained", "disturbed", "saturated")
"""Verdicts on a client whose own delay may be in the figures, from the mildest to the gravest."""


@dataclass(frozen=True)
class Metric:
    """Something measured once per request: its name, its unit, and how it follows from the rows.

    ``values(rows, connect_s)`` gives one value per row; ``connect_s`` is what to add to times that start at t0.
    """

    name: str
    unit: str
    values: Callable[[DataFrame, Series], Series]


@dataclass(frozen=True)
class Counts:
    """What became of the requests of a group.

    ``failed`` has the throttled and the dropped ones among them, as in the stages file.
    """

    rows: int
    measured: int
    ok: int
    failed: int
    throttled: int
    dropped: int
    aborted: int
    cancelled: int
    errors: tuple[tuple[str, int], ...]  # code and count, most frequent first: failed, and not throttled
    throttles: tuple[tuple[str, int], ...]
    unmeasured_phases: tuple[tuple[str, int], ...]

    @property
    def ended(self) -> int:
        """Measured, and not ended by the client: aborted and cancelled requests neither succeeded nor failed."""
        return self.measured - self.aborted - self.cancelled

    @property
    def failed_otherwise(self) -> int:
        """Failed, and not because the endpoint would not take more."""
        return self.failed - self.throttled


@dataclass(frozen=True, eq=False)
class Group:
    """One stage of one run, for one framework and model: the rows that count, and what became of the others.

    ``stage`` is ``None`` when the file does not say. ``measured`` holds the measured requests whatever became of them,
    ``ok`` those that succeeded (``buffered`` ones among them: their answer is complete, only their times to first token
    are unknown).
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
    """``steady``, ``unsteady`` (its queue grew through the window), or "" when the files do not say."""
    shortfall: Shortfall | None = None
    """By how much less load ran than was asked for; ``None`` when it ran, or the files do not say."""

    @property
    def concurrency(self) -> int | None:
        """The users of a closed loop; ``None`` in an open one, and when the file does not say."""
        return self.load.users

    def summary(self, metric: Metric) -> Summary:
        """The figures of a metric over the requests that count."""
        if metric not in self._summaries:
            self._summaries[metric] = summarize(self.in_start_order(metric))
        return self._summaries[metric]

    def in_start_order(self, metric: Metric) -> Floats:
        """The values of a metric over the requests that count, in start order; NaN where a request has none."""
        values = self.values(metric, self.ok).to_numpy(np.float64, na_value=math.nan)
        return values[self._ok_order]

    @cached_property
    def ended_order(self) -> Places:
        """Places in ``measured`` of the requests that the client did not end itself, by their starts."""
        order = start_order(self.measured)
        ended = (~unfinished(self.measured["error_code"])).to_numpy(bool)
        return order[ended[order]]

    @cached_property
    def failures(self) -> Floats:
        """For each request of ``ended_order``: 1 when it failed, else 0."""
        return failed(self.measured["error_code"]).to_numpy(bool)[self.ended_order].astype(np.float64)

    @cached_property
    def _ok_order(self) -> Places:
        return start_order(self.ok)

    @cached_property
    def _summaries(self) -> dict[Metric, Summary]:
        return {}

    def values(self, metric: Metric, rows: DataFrame) -> Series:
        """A metric of rows of this group, one value per row."""
        return metric.values(rows, rows["connect_s"].fillna(0.0) * (1.0 if self.count_connect else 0.0))


def groups(runs: Iterable[Run], *, count_connect: bool = False) -> list[Group]:
    """The groups of the runs: in the order of the runs, then by stage, load, framework and model."""
    return [group for run in runs for group in _groups_of(run, count_connect)]


def loads_of(run: Run) -> set[StageLoad]:
    """The loads of its rows."""
    different = run.requests[_LOAD].drop_duplicates()
    columns = (different[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in _LOAD)
    return {load_of(float(users), float(rate_per_s)) for users, rate_per_s in zip(*columns, strict=True)}


def start_times(rows: DataFrame) -> Floats:
    """When the requests started (unix s); NaN where a file does not say.

    A request that was dropped never started. It gets the place that its prompt has among those of the others.
    """
    started_at = rows["started_at"].to_numpy(np.float64, na_value=math.nan)
    never = dropped(rows["error_code"]).to_numpy(bool)
    if not never.any():
        return started_at
    prompts = rows["prompt_index"].to_numpy(np.float64, na_value=math.nan)
    known = np.flatnonzero(~np.isnan(started_at) & ~np.isnan(prompts))
    if not len(known):
        return started_at
    known = known[np.argsort(prompts[known], kind="stable")]
    guessed = np.interp(np.nan_to_num(prompts), prompts[known], started_at[known])
    return np.where(never, guessed, started_at)


def start_order(rows: DataFrame) -> Places:
    """The places of the rows in the order of their starts; the order of the file where it does not say."""
    return np.argsort(start_times(rows), kind="stable")


def held(rows: DataFrame) -> Series:
    """Which rows waited for a place among ``--llm-max-in-flight``, and then were sent."""
    return (rows["held_s"] > 0).fillna(value=False).astype(bool) & ~dropped(rows["error_code"])


def _column(name: str) -> Metric:
    return Metric(name, _UNITS[name], lambda rows, _: rows[name].astype("float64"))


def _until_first_token(name: str) -> Metric:
    # A buffered answer arrived all at once, so its first arrival says nothing about the first token.
    return Metric(name, _UNITS[name], lambda rows, connect_s: (rows[name] + connect_s).where(_streamed(rows)))


def _streamed(rows: DataFrame) -> Series:
    return ~buffered(rows["error_code"])


def _throughput(rows: DataFrame, connect_s: Series) -> Series:
    duration_s = rows["end_to_end_latency_s"] + connect_s
    return rows["output_tokens"].astype("float64") / duration_s.where(duration_s > 0)


def _llmperf_inter_token_latency(rows: DataFrame, connect_s: Series) -> Series:
    if "llmperf_inter_token_latency_s" in rows:
        return rows["llmperf_inter_token_latency_s"]
    tokens = rows["output_tokens"].astype("float64")
    return (rows["last_token_s"] + connect_s) / tokens.where(tokens > 0)


def _llmperf_ttft(rows: DataFrame) -> Series:
    return rows["llmperf_ttft_s"] if "llmperf_ttft_s" in rows else rows["ttft_s"]


TTFT = _until_first_token("ttft_s")
TPOT = Metric("tpot_s", _UNITS["tpot_s"], lambda rows, _: rows["tpot_s"].where(_streamed(rows)))
OUTPUT_THROUGHPUT = Metric(
    "request_output_throughput_token_per_s", _UNITS["request_output_throughput_token_per_s"], _throughput
)
LATENCY = Metric(
    "end_to_end_latency_s",
    _UNITS["end_to_end_latency_s"],
    lambda rows, connect_s: rows["end_to_end_latency_s"] + connect_s,
)
LLMPERF_INTER_TOKEN_LATENCY = Metric("llmperf_inter_token_latency_s", "s/token", _llmperf_inter_token_latency)
LLMPERF_TTFT = Metric(
    "llmperf_ttft_s", _UNITS["ttft_s"], lambda rows, connect_s: _llmperf_ttft(rows).where(_streamed(rows)) + connect_s
)
"""TTFT as LLMPerf counts it: 0 for an answer in which no content came. It is TTFT wherever there is none of these."""
CORRECTED_TTFT = Metric(
    "corrected_ttft_s", _UNITS["corrected_ttft_s"], lambda rows, _: rows["corrected_ttft_s"].where(_streamed(rows))
)
CORRECTED_LATENCY = _column("corrected_end_to_end_latency_s")
INPUT_TOKENS = _column("input_tokens")
OUTPUT_TOKENS = _column("output_tokens")
REQUEST_METRICS = (
    TTFT,
    _until_first_token("ttfat_s"),
    TPOT,
    LATENCY,
    _column("queue_s"),
    _column("connect_s"),
    OUTPUT_THROUGHPUT,
    LLMPERF_INTER_TOKEN_LATENCY,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
)
OPEN_LOOP_METRICS = (CORRECTED_TTFT, CORRECTED_LATENCY, _column("held_s"))
"""What only an open loop has: its intended starts are those of a schedule, before connecting and any wait."""


def metrics_of(group: Group) -> tuple[Metric, ...]:
    """What is measured of each request of a group."""
    return (*REQUEST_METRICS, *OPEN_LOOP_METRICS) if group.load.is_open else REQUEST_METRICS


def _groups_of(run: Run, count_connect: bool) -> list[Group]:
    keys = run.requests[_KEY].copy()
    for column in ("stage", "concurrency"):
        keys[column] = keys[column].fillna(_UNKNOWN).astype("int64")
    keys["rate_per_s"] = keys["rate_per_s"].fillna(_UNKNOWN)
    _adopt_measured_load(keys, run.requests["measured"])
    # Only where the rows are: copies of all of them at once would take as much memory as the file again.
    found = {
        _key(key): np.asarray(places, dtype=np.intp) for key, places in keys.groupby(_KEY, sort=False).indices.items()
    }
    _add_stages_without_rows(run, found)
    health = _text_by_stage(run.stages, "health")
    steady = steadiness_by_stage(run)
    shortfalls = _shortfalls(run.stages)
    made = []
    for key in sorted(found):
        stage, concurrency, rate_per_s, framework, model = key
        rows = _at(run.requests, found[key])
        measured = _where(rows, rows["measured"] == 1)
        made.append(
            Group(
                run=run,
                stage=None if stage == _UNKNOWN else stage,
                load=load_of(None if concurrency == _UNKNOWN else concurrency, rate_per_s),
                framework=framework,
                model=model,
                counts=_counts(rows, measured),
                measured=measured,
                ok=_where(measured, succeeded(measured["error_code"])),
                health=health.get(stage) or str(run.manifest.get(HEALTH_KEY) or ""),
                count_connect=count_connect,
                steadiness=steady.get(stage, ""),
                shortfall=shortfalls.get(stage),
            )
        )
    return made


def _adopt_measured_load(keys: DataFrame, measured: Series) -> None:
    """Give the other rows of a stage the users of its measured ones.

    Without a sweep, requests of the ramp are sent before it is known how many users come.
    """
    counts = (measured == 1).fillna(value=False).to_numpy(bool)
    loads = keys.loc[counts, ["stage", "concurrency"]].drop_duplicates()
    loads = loads[~loads["stage"].duplicated(keep=False)]
    of_stage = dict(zip(loads["stage"], loads["concurrency"], strict=True))
    rest = keys.loc[~counts]
    if len(rest) and of_stage:
        keys.loc[~counts, "concurrency"] = rest["stage"].map(of_stage).fillna(rest["concurrency"]).astype("int64")


def _shortfalls(stages: DataFrame) -> dict[int, Shortfall]:
    """By stage, where less load ran than was asked for."""
    columns = ("concurrency_asked", "concurrency", "users_actual", "load_actual", "users_ended", "window_widened")
    found = {}
    for _, line in stages[stages["stage"].notna()].iterrows():
        asked, users, users_actual, load_actual, ended, widened = (_number(line.get(name)) for name in columns)
        short = shortfall_of(asked, users, users_actual, load_actual, users_ended=ended, widened=bool(widened))
        if short is not None:
            found[int(line["stage"])] = short
    return found


def _number(value: Any) -> float | None:
    return None if value is None or isna(value) else float(value)


def _at(rows: DataFrame, places: Places) -> DataFrame:
    """The rows at these ascending places; no copy when they stand together, as those of a stage mostly do."""
    if len(places) and places[-1] - places[0] == len(places) - 1:
        return rows.iloc[places[0] : places[-1] + 1]
    return rows.take(places)


def _where(rows: DataFrame, wanted: Series) -> DataFrame:
    """The wanted rows; the same object, not a copy, when these are all."""
    return rows if bool(wanted.all()) else rows[wanted.fillna(value=False).astype(bool)]


def _key(values: Any) -> _Key:
    stage, concurrency, rate_per_s, framework, model = values
    return int(stage), int(concurrency), float(rate_per_s), str(framework), str(model)


def _add_stages_without_rows(run: Run, found: dict[_Key, Places]) -> None:
    """A stage in which nothing was sent keeps its row in the tables: a gap in a sweep must be seen."""
    with_rows = {key[0] for key in found}
    names = sorted({key[-2:] for key in found}) or [("", "")]
    declared = run.stages[["stage", *_LOAD]].fillna(_UNKNOWN)
    for stage, *load in declared.itertuples(index=False):
        if int(stage) not in with_rows:
            for name in names:
                found[_key((stage, *load, *name))] = np.empty(0, dtype=np.intp)


def _text_by_stage(stages: DataFrame, column: str) -> Mapping[int, str]:
    """A column of the stages file by stage; empty when an older file does not have it."""
    if column not in stages:
        return {}
    known = stages[stages["stage"].notna() & stages[column].notna()]
    return {int(stage): str(text) for stage, text in zip(known["stage"], known[column], strict=True)}


def _counts(rows: DataFrame, measured: DataFrame) -> Counts:
    codes, rejected = measured["error_code"], throttled(measured)
    of = outcome_counts(measured)
    return Counts(
        rows=len(rows),
        measured=len(measured),
        ok=of[Outcome.OK],
        failed=sum(count for outcome, count in of.items() if outcome.is_failure),
        throttled=of[Outcome.THROTTLED],
        dropped=of[Outcome.DROPPED],
        aborted=of[Outcome.ABORTED],
        cancelled=of[Outcome.CANCELLED],
        errors=_frequencies(codes[failed(codes) & ~rejected]),
        throttles=_frequencies(codes[rejected]),
        unmeasured_phases=_frequencies(rows["phase"][rows["measured"] != 1]),
    )


def _frequencies(texts: Series) -> tuple[tuple[str, int], ...]:
    counted = ((str(text), int(count)) for text, count in texts.value_counts().items())
    return tuple(sorted(counted, key=lambda item: (-item[1], item[0])))
