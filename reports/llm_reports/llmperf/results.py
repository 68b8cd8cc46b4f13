"""The responses, the summary and the conditions of a group of requests, with LLMPerf's names, order and definitions.

The names are LLMPerf's format and are defined only in this module. The conditions are lengths, sampling parameters and
metadata.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_reports.llmperf.connecting import CONNECT_KEY, connecting
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
from llm_reports.metrics.stage_group import StageGroup
from llm_reports.metrics.summary import Summary, summarize
from llm_users.distributions import LENGTHS, Distribution, DistributionError, Normal
from llm_users.outcome import Outcome, outcome_of
from llm_users.record import COL

if TYPE_CHECKING:  # this module does not load pandas
    from pandas import Series

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
TOKENIZER_KEY = "tokenizer"
SOURCES = (COL.input_tokens_source, COL.output_tokens_source)
"""The columns that say what counted the tokens. A written summary has them as keys; LLMPerf's own does not."""
UNKNOWN_SOURCE = "unknown"
FIGURES = ("mean", "min", "max", "stddev")
_SAMPLING = "additional_sampling_params"
_LENGTHS = ("mean_input_tokens", "stddev_input_tokens", "mean_output_tokens", "stddev_output_tokens")
_OTHER_LENGTHS = ("llm_length_mix", "llm_trace")
_OTHER_PROMPTS = ("llm_prompt", "llm_prompts", "llm_conversations")


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
        tokens_in, tokens_out = value.pop("number_input_tokens"), value.pop("number_output_tokens")
        entries.append(
            {
                COL.error_code: None if ok else _code(code),
                "error_msg": message,
                **value,
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
        without_content=group.facts.without_content,
        ttft=group.summary(TTFT),
        started=len(group.measured),
        completed=len(group.ok),
        output_tokens=float(group.ok[COL.output_tokens].astype("float64").sum()),
        error_codes=dict(sorted(counted.items(), key=lambda item: (-item[1], str(item[0])))),
        duration_s=duration_s(group),
    )


def rate_of(group: Group) -> dict[str, float]:
    """Return the rate of an open-loop stage for a summary. LLMPerf does not have it; the reader uses the same name."""
    return {} if group.load.rate_per_s is None else {RATE: group.load.rate_per_s}


def origin_of(group: Group) -> dict[str, str]:
    """Return what LLMPerf's summaries do not state, because it is always the same there: connecting, and the counters.

    The reader uses the same names. A summary without them is LLMPerf's own.
    """
    origin = {CONNECT_KEY: connecting(group).value}
    for name in SOURCES:
        sources = sorted({str(source) for source in group.ok[name].unique() if source})
        if sources or not group.run.foreign:
            origin[name] = " and ".join(sources) or UNKNOWN_SOURCE
    stated = group.run.manifest.get(TOKENIZER_KEY)
    tokenizer = stated.get("name") if isinstance(stated, dict) else stated
    return {**origin, TOKENIZER_KEY: str(tokenizer)} if tokenizer else origin


def api_of(group: Group) -> str:
    """Return LLMPerf's name of the API: the first word of this project's name, such as openai for openai-chat."""
    return ", ".join(sorted({str(api).partition("-")[0] for api in group.measured[COL.api] if api}))


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


@dataclass(frozen=True)
class Conditions:
    """The conditions of a group. ``lengths`` has LLMPerf's four keys in its order; the other mappings are flat."""

    lengths: Mapping[str, int | None]
    sampling: Mapping[str, Any]
    metadata: Mapping[str, Any]


def conditions_of(group: Group) -> Conditions:
    """Return the conditions from the manifest and the rows; for a foreign file, its summary replaces the manifest."""
    manifest = group.run.manifest
    lengths = {**_actual_lengths(group), **stated_lengths(group)}
    if group.run.foreign:
        sampling = {name: value for name, value in manifest.items() if name.startswith(_SAMPLING)}
        other = {name: value for name, value in manifest.items() if not name.startswith("results_")}
        return Conditions(lengths, sampling, other)
    try:
        parameters = json.loads(group.run.options.get("llm_extra_body") or "{}")
    except (TypeError, ValueError):
        parameters = {}
    metadata = manifest.get("metadata")
    return Conditions(
        lengths,
        sampling=_flat({_SAMPLING: parameters if isinstance(parameters, dict) else {}}),
        metadata=_flat(metadata) if isinstance(metadata, dict) else {},
    )


def stated_lengths(group: StageGroup) -> dict[str, int]:
    """Return those of LLMPerf's four lengths that its summary or the options of a run state.

    Options count only if the requests followed them: a mix, a trace, a dataset or a locustfile can set other lengths.
    """
    if group.run.foreign:
        manifest = group.run.manifest
        return {name: manifest[name] for name in _LENGTHS if type(manifest.get(name)) is int}
    if group.load.lengths is not None:
        means = zip(("input", "output"), group.load.lengths, strict=True)
        return {
            name: value
            for kind, tokens in means
            for name, value in ((f"mean_{kind}_tokens", tokens), (f"stddev_{kind}_tokens", 0))
        }
    options = group.run.options
    if any(options.get(name) for name in _OTHER_LENGTHS):
        return {}
    own_prompts = any(options.get(name) for name in _OTHER_PROMPTS) or not group.facts.knows_prompts
    stated: dict[str, int] = {}
    for kind, followed in (("input", not own_prompts), ("output", group.facts.limits_output)):
        try:
            lengths = Distribution.parse(str(options.get(f"llm_{kind}_tokens")), LENGTHS)
        except DistributionError:
            continue
        if followed and isinstance(lengths, Normal):  # LLMPerf does not have other distributions
            stated |= {f"mean_{kind}_tokens": round(lengths.mean), f"stddev_{kind}_tokens": round(lengths.sd)}
    return stated


def _actual_lengths(group: Group) -> dict[str, int | None]:
    """Return the lengths of the actual requests, in whole tokens.

    They include all stages; with lengths per stage, the file names would not be in the order of the stages.
    """
    rows = group.run.requests
    ok = rows[(rows[COL.measured] == 1) & succeeded(rows[COL.error_code]) & (rows[COL.model] == group.model)]
    lengths: dict[str, int | None] = {}
    for kind in ("input", "output"):
        figures = summarize(ok[f"{kind}_tokens"].astype("float64"))
        lengths[f"mean_{kind}_tokens"] = round(figures.mean) if figures.n else None
        lengths[f"stddev_{kind}_tokens"] = round(figures.stddev) if figures.n > 1 else None
    return lengths


def _flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Flatten nested objects, with keys joined by ``_``; an empty object is dropped, as in LLMPerf."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        name = f"{above}_{key}" if above else str(key)
        flat.update(_flat(value, name) if isinstance(value, dict) else {name: value})
    return flat
