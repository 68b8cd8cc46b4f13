"""The summary and LLMPerf's two tables at the end of a run, without pandas, whose import takes longer than the tables.

The text is the one that ``llm-report PREFIX`` prints: this module computes only what the rows contain, and the modules
that the report uses too compute the figures and lay out the text. It declines runs that need more than the two tables
(open loops, checked answers, answers that the client counted too) and files that are incomplete or need a warning;
``llm_reports.report`` handles these.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from llm_reports.llmperf.tables import tables_of, with_new_notes
from llm_reports.markdown.table import to_markdown
from llm_reports.metrics.groups import LATENCY, LLMPERF_TTFT, OUTPUT_THROUGHPUT, TPOT, TTFT
from llm_reports.metrics.stage_group import Counts, Facts
from llm_reports.metrics.summary import Summary, figures
from llm_reports.sections.section import bullets, section_text
from llm_reports.sections.summary_table import summary_lines, terminal_section
from llm_reports.stats.input_length import input_length_warning
from llm_users.outcome import BUFFERED, Outcome, outcome_of
from llm_users.quantile import DurationHistogram
from llm_users.record import COL, Shortfall, StageLoad, load_of, shortfall_of, unguarded
from llm_users.run_files import GAPS_CSV, MANIFEST_JSON, REQUESTS_CSV, STAGES_CSV, path_of

_LONGEST_S = 1e6
_TEXTS = {
    COL.framework, COL.model, COL.phase, COL.error_code, COL.api, COL.endpoint, COL.stamp_source,
    COL.output_tokens_source, COL.input_tokens_source, COL.run_id,
}  # fmt: skip
_NUMBERS = {
    COL.stage, COL.concurrency, COL.rate_per_s, COL.measured, COL.http_status, COL.window_share, COL.window_tokens,
    COL.output_tokens, COL.input_tokens, COL.cached_tokens, COL.chunks, COL.coalesced, COL.burst_chunks, COL.held_s,
    COL.connect_s, COL.ttft_s, COL.tpot_s, COL.end_to_end_latency_s, COL.prompt_index, COL.requested_output_tokens,
    COL.answer_match, COL.streamed, COL.output_tokens_counted,
}  # fmt: skip
_ONLY_IN_THE_REPORT = (COL.answer_match, COL.output_tokens_counted)
_Key = tuple[int, int, str, str]
"""Stage, users, framework and model."""
_Row = dict[str, Any]


class _Declined(Exception):
    """The run needs the complete report."""


def end_text(prefix: str) -> str | None:
    """Return the summary and the two tables of a run, or None if the run needs the complete report."""
    try:
        groups, rates, warning = _groups(Path(prefix))
    except (_Declined, OSError, ValueError, KeyError, csv.Error):
        return None
    if not all(group.counts.ok for group in groups):
        return None  # the complete report gives the reasons of the failures
    summary = section_text(terminal_section(summary_lines(groups, rates)))
    tables = [to_markdown(*noted) for noted in with_new_notes(tables_of(groups))]
    return "\n".join([summary, *tables, *([f"## Warnings\n\n{bullets([warning])}\n"] if warning else [])])


@dataclass(frozen=True, eq=False)
class _Run:
    name: str
    manifest: Mapping[str, Any]
    gaps: Mapping[int, Mapping[str, DurationHistogram]]
    foreign: bool = False
    started: datetime | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        options = self.manifest.get("options")
        return options if isinstance(options, dict) else {}


@dataclass(eq=False)
class _Group:
    """The rows of one stage, framework and model, added one by one."""

    run: _Run
    stage: int
    load: StageLoad
    framework: str
    model: str
    health: str
    steadiness: str
    shortfall: Shortfall | None
    count_connect: bool = False
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    throttles: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)  # of the rows that are not measured
    seen: defaultdict[str, Any] = field(default_factory=lambda: defaultdict(int))
    """The fields of ``Facts`` that are counts or sums."""
    apis: set[str] = field(default_factory=set)
    endpoints: set[str] = field(default_factory=set)
    values: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """The values of the successful requests, by the name of the metric."""
    summaries: dict[str, Summary] = field(default_factory=dict)

    def add(self, row: _Row, outcome: Outcome) -> None:
        """Add a measured row."""
        code, seen = row[COL.error_code], self.seen
        self.outcomes[outcome] += 1
        if outcome is Outcome.THROTTLED:
            self.throttles[code] += 1
        elif outcome.is_failure:
            self.errors[code] += 1
        self.apis.add(row[COL.api])
        self.endpoints.add(row[COL.endpoint])
        tokens, chunks = row[COL.output_tokens], row[COL.chunks]
        if not math.isnan(row[COL.end_to_end_latency_s]):
            seen["busy_s"] += row[COL.end_to_end_latency_s]
        seen["held"] += row[COL.held_s] > 0 and outcome is not Outcome.DROPPED
        seen["prompts"] += not math.isnan(row[COL.prompt_index])
        seen["caps"] += not math.isnan(row[COL.requested_output_tokens])
        if chunks > 0 and not math.isnan(tokens):
            seen["event_tokens"] += tokens
            seen["events"] += chunks
        if outcome is Outcome.OK:
            self._add_answer(row, buffered=code == BUFFERED)

    def _add_answer(self, row: _Row, *, buffered: bool) -> None:
        seen, values = self.seen, self.values
        ttft_s, latency_s = row[COL.ttft_s], row[COL.end_to_end_latency_s]
        if ttft_s == 0 or latency_s == 0 or (not buffered and ttft_s > latency_s):
            raise _Declined
        seen["buffered"] += buffered
        seen["unstreamed"] += row[COL.streamed] == 0
        if row[COL.burst_chunks] > 0:
            seen["bursts"] += 1
            seen["burst_gaps"] += row[COL.chunks] - 1
            seen["burst_zero_gaps"] += row[COL.coalesced]
        seen["user_stamps"] += row[COL.stamp_source] == "user"
        seen["local_token_counts"] += row[COL.output_tokens_source] == "tokenizer"
        seen["without_connect"] += math.isnan(row[COL.connect_s])
        for column in (COL.cached_tokens, COL.input_tokens):
            if not math.isnan(row[column]):
                seen[column] += row[column]
        if not buffered and row[COL.streamed] != 0:
            values[TTFT.name].append(ttft_s)
            values[TPOT.name].append(row[COL.tpot_s])
        values[LATENCY.name].append(latency_s)
        values[OUTPUT_THROUGHPUT.name].append(row[COL.output_tokens] / latency_s)

    @cached_property
    def counts(self) -> Counts:
        """The outcomes of the rows."""
        outcomes = self.outcomes
        return Counts(
            rows=outcomes.total() + self.phases.total(),
            measured=outcomes.total(),
            ok=outcomes[Outcome.OK],
            failed=sum(count for outcome, count in outcomes.items() if outcome.is_failure),
            throttled=outcomes[Outcome.THROTTLED],
            dropped=outcomes[Outcome.DROPPED],
            aborted=outcomes[Outcome.ABORTED],
            cancelled=outcomes[Outcome.CANCELLED],
            errors=_frequencies(self.errors),
            throttles=_frequencies(self.throttles),
            unmeasured_phases=_frequencies(self.phases),
        )

    @cached_property
    def facts(self) -> Facts:
        """The counts and names for notes and labels."""
        seen = self.seen
        return Facts(
            busy_s=seen["busy_s"],
            held=seen["held"],
            event_tokens=seen["event_tokens"],
            events=seen["events"],
            apis=frozenset(filter(None, self.apis)),
            endpoints=frozenset(filter(None, self.endpoints)),
            knows_prompts=bool(seen["prompts"]),
            limits_output=bool(seen["caps"]),
            buffered=seen["buffered"],
            unstreamed=seen["unstreamed"],
            without_content=0,
            bursts=seen["bursts"],
            burst_gaps=seen["burst_gaps"],
            burst_zero_gaps=seen["burst_zero_gaps"],
            user_stamps=seen["user_stamps"],
            local_token_counts=seen["local_token_counts"],
            cached_tokens=seen[COL.cached_tokens],
            input_tokens=seen[COL.input_tokens],
            without_connect=seen["without_connect"],
        )

    def summary(self, metric: Any) -> Summary:
        """Return the figures of a metric, without intervals, which the two tables do not contain."""
        name = TTFT.name if metric is LLMPERF_TTFT else metric.name
        if name not in self.summaries:
            self.summaries[name] = figures(self.values[name])
        return self.summaries[name]


class _Rates(NamedTuple):
    group: _Group
    requests_per_s: float
    tokens_per_s: float


@dataclass
class _Window:
    """The output of the successful rows of a stage and model inside the window, whatever their phase."""

    shares: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)

    def add(self, row: _Row) -> None:
        share, tokens = row[COL.window_share], row[COL.window_tokens]
        if math.isnan(share):
            raise _Declined  # the report estimates it
        self.shares.append(share)
        tokens = share * row[COL.output_tokens] if math.isnan(tokens) else tokens
        self.tokens.append(0.0 if math.isnan(tokens) else tokens)


def _groups(prefix: Path) -> tuple[list[_Group], list[_Rates], str]:
    """Return the groups in the order of the report, the rates of those with measured requests, and the warning."""
    manifest = json.loads(path_of(prefix, MANIFEST_JSON).read_text(encoding="utf-8"))
    stages = {int(line[COL.stage]): line for line in _lines(path_of(prefix, STAGES_CSV))}
    if manifest.get("rows_elsewhere") or any(_number(line[COL.rate_per_s]) > 0 for line in stages.values()):
        raise _Declined
    reading = _Reading(_Run(prefix.name, manifest, _gaps(path_of(prefix, GAPS_CSV))), stages)
    for row in _rows(path_of(prefix, REQUESTS_CSV)):
        reading.add(row)
    return reading.result()


class _Reading:
    """The groups of a run while its rows are read."""

    def __init__(self, run: _Run, stages: Mapping[int, Mapping[str, str]]) -> None:
        self._run = run
        self._stages = stages
        self._groups: dict[_Key, _Group] = {}
        self._windows: defaultdict[tuple[int, str, str], _Window] = defaultdict(_Window)
        self._unmeasured: Counter[tuple[_Key, str]] = Counter()  # by key and phase
        self._endpoints: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # by framework and model
        self._run_ids: set[str] = set()
        self._rows = 0
        self._inputs: list[float] = []  # input tokens of measured successful rows by the server's usage

    def add(self, row: _Row) -> None:
        """Add one row."""
        self._rows += 1
        manifest = self._run.manifest
        framework, model = (row[name] or manifest.get(name) or "" for name in (COL.framework, COL.model))
        key = int(row[COL.stage]), int(row[COL.concurrency]), framework, model
        self._run_ids.add(row[COL.run_id])
        self._endpoints[framework, model].add(row[COL.endpoint])
        outcome = outcome_of(row[COL.error_code], row[COL.http_status])
        if outcome is Outcome.OK:
            self._windows[key[0], framework, model].add(row)
        if row[COL.measured] == 1:
            self._group(key).add(row, outcome)
            counts = outcome is Outcome.OK and row[COL.input_tokens_source] == "usage"
            if counts and not math.isnan(row[COL.input_tokens]):
                self._inputs.append(row[COL.input_tokens])
        else:
            self._unmeasured[key, row[COL.phase]] += 1

    def result(self) -> tuple[list[_Group], list[_Rates], str]:
        """Return the groups, the rates and the warning after the last row."""
        self._check()
        # The other rows of a stage get the users of its measured rows, which run after the ramp.
        users_of = {stage: users for stage, users, *_ in self._groups}
        for ((stage, users, framework, model), phase), count in self._unmeasured.items():
            self._group((stage, users_of.get(stage, users), framework, model)).phases[phase] += count
        # Stages without requests, so that the tables show gaps in a sweep.
        for stage in self._stages.keys() - {stage for stage, *_ in self._groups}:
            for framework, model in sorted(self._endpoints) or [("", "")]:
                self._group((stage, int(self._stages[stage][COL.concurrency]), framework, model))
        groups = [self._groups[key] for key in sorted(self._groups)]
        mean = math.fsum(self._inputs) / len(self._inputs) if self._inputs else math.nan
        warning = input_length_warning(self._run.name, self._run.manifest, mean)
        return groups, [self._rates(group) for group in groups if group.counts.measured], warning

    def _check(self) -> None:
        """Decline files of which the report says more than the two tables."""
        sent, received = (self._run.manifest["counts"][name].values() for name in ("sent", "received"))
        complete = None not in sent and sum(sent) == sum(received) == self._rows
        several_endpoints = any(len(urls - {""}) > 1 for urls in self._endpoints.values())
        loads = {(stage, users) for stage, users, *_ in self._groups}
        several_loads = len(loads) > len({stage for stage, _ in loads})
        measured: Counter[int] = Counter()
        for group in self._groups.values():
            measured[group.stage] += group.outcomes.total()
        counted = all(int(line[COL.requests_measured]) == measured[stage] for stage, line in self._stages.items())
        if len(self._run_ids) > 1 or several_endpoints or several_loads or not (complete and counted):
            raise _Declined

    def _group(self, key: _Key) -> _Group:
        if key not in self._groups:
            self._groups[key] = _group(self._run, key, self._stages.get(key[0], {}))
        return self._groups[key]

    def _rates(self, group: _Group) -> _Rates:
        window_s = float(self._stages[group.stage][COL.measure_s])
        window = self._windows[group.stage, group.framework, group.model]
        if not window_s > 0:
            raise _Declined
        return _Rates(group, math.fsum(window.shares) / window_s, math.fsum(window.tokens) / window_s)


def _group(run: _Run, key: _Key, line: Mapping[str, str]) -> _Group:
    """Return a group without rows; ``line`` is the row of its stage."""
    stage, users, framework, model = key
    columns = (
        COL.concurrency_asked,
        COL.concurrency,
        COL.users_actual,
        COL.load_actual,
        COL.users_ended,
        COL.window_widened,
        COL.requests_measured,
    )
    *loads, ended, widened, requests = (float(line[name]) if line.get(name) else None for name in columns)
    return _Group(
        run=run,
        stage=stage,
        load=load_of(
            users,
            None,
            lengths=[float(line.get(name) or math.nan) for name in (COL.stage_input_tokens, COL.stage_output_tokens)],
        ),
        framework=framework,
        model=model,
        health=line.get(COL.health, ""),
        steadiness=line.get(COL.steadiness, ""),
        shortfall=shortfall_of(*loads, users_ended=ended, widened=bool(widened), requests=requests),
    )


def _rows(path: Path) -> Iterator[_Row]:
    """Yield the columns that the tables need. Decline runs with values that the report would remove or show."""
    numbers, texts = sorted(_NUMBERS), sorted(_TEXTS)
    for line in _lines(path):
        row: _Row = {name: _number(line[name]) for name in numbers}
        row.update((name, unguarded(line[name])) for name in texts)
        if row[COL.rate_per_s] > 0 or not all(math.isnan(row[name]) for name in _ONLY_IN_THE_REPORT):
            raise _Declined
        if (
            any(value < 0 for value in row.values() if type(value) is float)
            or row[COL.end_to_end_latency_s] > _LONGEST_S
        ):
            raise _Declined
        yield row


def _lines(path: Path) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise _Declined  # a named pipe would block
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            if None in line.values():
                raise _Declined  # the line is cut
            yield line


def _gaps(path: Path) -> dict[int, dict[str, DurationHistogram]]:
    histograms: defaultdict[int, defaultdict[str, DurationHistogram]] = defaultdict(
        lambda: defaultdict(DurationHistogram)
    )
    for line in _lines(path):
        of_stage = histograms[int(line[COL.stage])]
        of_stage[unguarded(line[COL.model])].merge({int(line["bucket"]): int(line["count"])})
    return {stage: dict(of_stage) for stage, of_stage in histograms.items()}


def _number(text: str) -> float:
    return float(text) if text else math.nan


def _frequencies(counts: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
