"""The responses and the summary of a group of requests, with LLMPerf's names, order and definitions.

The names are LLMPerf's format and are defined only in this module.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pandas import Series

from llm_reports.metrics.groups import (
    INPUT_TOKENS,
    LATENCY,
    LLMPERF_INTER_TOKEN_LATENCY,
    LLMPERF_TTFT,
    OUTPUT_THROUGHPUT,
    OUTPUT_TOKENS,
    TTFT,
    Group,
)
from llm_reports.metrics.outcomes import succeeded
from llm_reports.metrics.summary import Summary
from llm_users.outcome import Outcome, outcome_of
from llm_users.record import COL

METRICS = {
    "inter_token_latency_s": LLMPERF_INTER_TOKEN_LATENCY,
    COL.ttft_s: LLMPERF_TTFT,
    COL.end_to_end_latency_s: LATENCY,
    COL.request_output_throughput_token_per_s: OUTPUT_THROUGHPUT,
    "number_input_tokens": INPUT_TOKENS,
    "number_output_tokens": OUTPUT_TOKENS,
}
QUANTILES = {"p25": "p25", "p50": "median", "p75": "p75", "p90": "p90", "p95": "p95", "p99": "p99"}
RATE = COL.rate_per_s
FIGURES = ("mean", "min", "max", "stddev")


@dataclass(frozen=True)
class Results:
    """LLMPerf's summary. ``duration_s`` is from the first start to the last end, NaN when the rows do not have times.

    LLMPerf counts answers without content with a TTFT of 0. ``without_content`` is the number of these answers;
    ``ttft`` has the figures without them.
    """

    figures: Mapping[str, Summary]
    without_content: int
    ttft: Summary
    started: int
    completed: int
    output_tokens: float
    error_codes: Mapping[int | str, int]
    duration_s: float

    @property
    def errors(self) -> int:
        """The number of requests that failed or were aborted."""
        return self.started - self.completed

    @property
    def throughput_token_per_s(self) -> float:
        """All output tokens divided by the whole duration, including the time in which the last requests finish."""
        return self.output_tokens / self.duration_s if self.duration_s > 0 else math.nan

    @property
    def completed_per_min(self) -> float:
        """Successful requests per minute of the whole duration."""
        return self.completed / self.duration_s * 60 if self.duration_s > 0 else math.nan


def responses(group: Group) -> list[dict[str, Any]]:
    """Return the measured requests in the order of their starts, including failed ones.

    A missing value of a failed request is 0, as in LLMPerf. A missing value of a successful request is ``None``, for
    example the time to first token of a buffered answer.
    """
    rows = group.measured.sort_values([COL.started_at, COL.request_id], kind="stable")
    columns = {name: list(_values(group.values(metric, rows))) for name, metric in METRICS.items()}
    entries = []
    for i, (code, message) in enumerate(zip(rows[COL.error_code], rows[COL.error_message], strict=True)):
        ok = outcome_of(code) is Outcome.OK
        value = {name: 0 if values[i] is None and not ok else values[i] for name, values in columns.items()}
        tokens_in, tokens_out = value["number_input_tokens"], value["number_output_tokens"]
        entries.append(
            {
                COL.error_code: None if ok else _code(code),
                "error_msg": message,
                "inter_token_latency_s": value["inter_token_latency_s"],
                COL.ttft_s: value[COL.ttft_s],
                COL.end_to_end_latency_s: value[COL.end_to_end_latency_s],
                COL.request_output_throughput_token_per_s: value[COL.request_output_throughput_token_per_s],
                "number_total_tokens": None if tokens_in is None or tokens_out is None else tokens_in + tokens_out,
                "number_output_tokens": tokens_out,
                "number_input_tokens": tokens_in,
            }
        )
    return entries


def results(group: Group) -> Results:
    """Return the summary of a group."""
    codes = group.measured[COL.error_code]
    counted = Counter(_code(code) for code in codes[~succeeded(codes)])
    return Results(
        figures={name: group.summary(metric) for name, metric in METRICS.items()},
        without_content=without_content(group),
        ttft=group.summary(TTFT),
        started=len(group.measured),
        completed=len(group.ok),
        output_tokens=float(group.ok[COL.output_tokens].astype("float64").sum()),
        error_codes=dict(sorted(counted.items(), key=lambda item: (-item[1], str(item[0])))),
        duration_s=duration_s(group),
    )


def without_content(group: Group) -> int:
    """Return the number of successful answers of an LLMPerf file with a TTFT of 0, which means without content."""
    return int((group.values(LLMPERF_TTFT, group.ok) == 0).sum())


def rate_of(group: Group) -> dict[str, float]:
    """Return the rate of an open-loop stage for a summary. LLMPerf does not have it; the reader uses the same name."""
    return {} if group.load.rate_per_s is None else {RATE: group.load.rate_per_s}


def is_count(metric: str, figure: str, value: float) -> bool:
    """Return whether LLMPerf shows a figure as a whole number: the minimum and maximum of token counts."""
    return figure in ("min", "max") and metric.startswith("number_") and value.is_integer()


def ended_at(group: Group) -> float:
    """Return when the last measured request ended, in unix seconds; NaN when the rows do not contain it."""
    rows = group.measured
    took_s = rows[COL.end_to_end_latency_s].fillna(rows[COL.last_token_s]).fillna(rows[COL.connect_s]).fillna(0.0)
    return float((rows[COL.started_at] + took_s).max())


def duration_s(group: Group) -> float:
    """Return the seconds from the first start to the last end of the measured requests; NaN when unknown."""
    by_rows = ended_at(group) - float(group.measured[COL.started_at].min())
    if not math.isnan(by_rows):
        return by_rows
    # A foreign file does not have times; its summary contains the duration as a rate.
    completed = group.run.manifest.get("results_num_completed_requests")
    per_min = group.run.manifest.get("results_num_completed_requests_per_min")
    if isinstance(completed, int) and isinstance(per_min, int | float) and per_min > 0:
        return completed / per_min * 60
    return math.nan


def _values(series: Series) -> Iterator[float | int | None]:
    counts = series.name in (INPUT_TOKENS.name, OUTPUT_TOKENS.name)
    for value in map(float, series):
        if math.isnan(value):
            yield None
        else:
            yield int(value) if counts and value.is_integer() else value


def _code(text: str) -> int | str:
    """Return an error code as in LLMPerf's files: HTTP statuses and LLMPerf's -1 as numbers, other codes as text."""
    return int(text) if re.fullmatch(r"-?[1-9][0-9]{0,8}", text) else text
