"""``summary.csv`` and ``summary.json``: every metric of every stage of every run in tidy format, one line per metric.

After the figures come the ends of their 95 % intervals, ``mean_ci_low``, ``mean_ci_high`` and so on; an end that the
sample does not determine is empty. The last column is the rate of an open-loop stage, whose concurrency is empty.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pandas import DataFrame

from llm_reports.content import Content
from llm_reports.metrics.correctness import ratio_lines
from llm_reports.metrics.groups import Group, groups, held, metrics_of
from llm_reports.metrics.inter_token import gaps_of
from llm_reports.metrics.summary import PERCENTILES, Summary
from llm_reports.run import Run, named_apart
from llm_reports.stats.effective_size import effective_size, share_interval
from llm_reports.stats.intervals import UNKNOWN
from llm_users.record import COL, STAGE_COLUMNS, StageLoad, cell
from llm_users.run_files import SUMMARY_CSV

JSON_NAME = "summary.json"
GAP_METRIC = "chunk_gap_s"
ERROR_RATIO = "error_ratio"
_FIGURES = tuple(field.name for field in dataclasses.fields(Summary) if field.name not in ("intervals", "effective"))
_WITH_INTERVAL = ("mean", *PERCENTILES)
_ENDS = tuple(f"{figure}_ci_{end}" for figure in _WITH_INTERVAL for end in ("low", "high"))
_REAL = (*(name for name in _FIGURES if name != "n"), *_ENDS, COL.rate_per_s)
_LENGTHS = (COL.stage_input_tokens, COL.stage_output_tokens)
COLUMNS = (
    "run", COL.framework, COL.model, COL.stage, COL.concurrency, "metric", "unit", *_FIGURES, *_ENDS, COL.rate_per_s,
    *_LENGTHS,
)  # fmt: skip

# Figures with exactly one value per stage: all measured columns of PREFIX_llm_stages.csv except the key, the clock time
# and the counts. The counts come from the rows.
_STAGE_FIGURES = tuple(
    column for column in STAGE_COLUMNS if column.type is float and column.name != COL.measure_started_at
)


@dataclass(frozen=True)
class Line:
    """One line of the file. Figures and counts of a whole stage are in ``mean``, with n = 1 and no other value."""

    run: str
    framework: str
    model: str
    stage: int | None
    load: StageLoad
    metric: str
    unit: str
    figures: Summary

    def values(self) -> list[object]:
        """Return the values in the order of ``COLUMNS``; ``None`` where there is no value."""
        names = [self.run, self.framework, self.model, self.stage, self.load.users, self.metric, self.unit]
        figures = [getattr(self.figures, name) for name in _FIGURES]
        intervals = [self.figures.intervals.get(name, UNKNOWN) for name in _WITH_INTERVAL]
        ends = [end for interval in intervals for end in (interval.low, interval.high)]
        known = [figure if math.isfinite(figure) else None for figure in (*figures, *ends)]
        return [*names, *known, self.load.rate_per_s, *(self.load.lengths or (None, None))]


def summary(runs: Iterable[Run], *, count_connect: bool = False) -> DataFrame:
    """Return the content of ``summary.csv`` as a DataFrame, unrounded."""
    return summary_frame(groups(named_apart(list(runs)), count_connect=count_connect))


def summary_frame(all_groups: Sequence[Group]) -> DataFrame:
    """Return the content of ``summary.csv`` for existing groups: nullable integers, figures as floats."""
    frame = DataFrame([line.values() for line in summary_lines(all_groups)], columns=list(COLUMNS))
    return frame.astype(
        {**dict.fromkeys((COL.stage, COL.concurrency, *_LENGTHS), "Int64"), **dict.fromkeys(_REAL, "float64")}
    )


def files(content: Content) -> dict[str, str]:
    """Return the files of this format: name and text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in summary_lines(content.groups):
        writer.writerow([cell(value) for value in line.values()])
    return {SUMMARY_CSV: text.getvalue()}


def json_files(content: Content) -> dict[str, str]:
    """Return the lines as a JSON file: a list of objects without their empty values."""
    lines = [dict(zip(COLUMNS, line.values(), strict=True)) for line in summary_lines(content.groups)]
    known = [{name: value for name, value in line.items() if value is not None} for line in lines]
    return {JSON_NAME: json.dumps(known, indent=1) + "\n"}


def summary_lines(all_groups: Sequence[Group]) -> Iterator[Line]:
    """Yield the lines: each group's request metrics and counts, then the figures of its stage as a whole."""
    for group in all_groups:
        for metric in metrics_of(group):
            yield _line(group, metric.name, metric.unit, group.summary(metric))
        counts = group.counts
        for name in (COL.measured, "ok", "failed", "throttled", "aborted", "cancelled"):
            yield _line(group, f"requests_{name}", "count", _single(getattr(counts, name)))
        if group.load.is_open:
            yield _line(group, "requests_held", "count", _single(int(held(group.measured).sum())))
            yield _line(group, "requests_dropped", "count", _single(group.counts.dropped))
        yield _line(group, ERROR_RATIO, "share", error_ratio(group))
        for name, figures in ratio_lines(group):
            yield _line(group, name, "share", figures)
    stages: dict[tuple[Run, int], list[Group]] = {}
    for group in all_groups:
        if group.stage is not None:
            stages.setdefault((group.run, group.stage), []).append(group)
    for (run, stage), sharers in stages.items():
        # Models that share a stage share its throughput, so these lines occur once and without a model.
        owner = sharers[0] if len(sharers) == 1 else dataclasses.replace(sharers[0], framework="", model="")
        for gaps in gaps_of(sharers):
            yield _line(sharers[gaps.place] if len(gaps.places) == 1 else owner, GAP_METRIC, "s", gaps.figures)
        of_stage = run.stages[run.stages[COL.stage] == stage]
        for column in _STAGE_FIGURES:
            for value in of_stage[column.name].dropna():
                yield _line(owner, column.name, column.unit, _single(float(value)))


def error_ratio(group: Group) -> Summary:
    """Return the share of failed requests with Wilson's interval, in ``mean``.

    Requests that the client ended itself do not count.
    """
    ended = group.counts.ended
    if not ended:
        return Summary(0)
    failed, size = group.counts.failed, effective_size(group.failures)
    interval = share_interval(failed, ended, size)
    return Summary(n=ended, mean=failed / ended, intervals={"mean": interval}, effective={"mean": size})


def _line(group: Group, metric: str, unit: str, figures: Summary) -> Line:
    return Line(group.run.name, group.framework, group.model, group.stage, group.load, metric, unit, figures)


def _single(value: float) -> Summary:
    return Summary(n=1, mean=value)
