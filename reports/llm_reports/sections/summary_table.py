"""The summary: one line per stage with the most important figures. Console, Markdown and HTML share its lines.

``summary_lines`` computes the figures. ``terminal_section`` lays them out for a terminal of 80 columns: two lines per
stage, the median above the P95. Markdown and HTML show ``summary_section``, one wide row per stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from llm_reports.llmperf.tables import NOTHING, rounded
from llm_reports.metrics.distinctions import RUN, TEXT_COLUMNS, distinctions, words_of
from llm_reports.metrics.groups import LATENCY, TPOT, TTFT
from llm_reports.metrics.inter_token import INTER_EVENT, gaps_of
from llm_reports.metrics.stage_group import StageGroup
from llm_reports.metrics.stage_load import load_columns
from llm_reports.metrics.summary import Summary
from llm_reports.sections.section import Grid, Section, padded, plain
from llm_users.record import UNSTEADY

TITLE = "Summary"
NO_REQUEST = "No request was measured."
FIRST_FIGURE = "Requests ok"
"""The first column of the wide table that contains a figure."""
WIDTH = 80
_LATENCIES = (("TTFT", "s", 1), ("TPOT", "ms", 1000), ("Gap", "ms", 1000), ("E2E", "s", 1))
"""Name, unit and factor from seconds, in the order of ``SummaryLine.latencies``."""
_NAMES = (RUN, "Framework", "Model")


class Rates(Protocol):
    """The system throughput of a group in the measured window."""

    @property
    def group(self) -> StageGroup: ...
    @property
    def requests_per_s(self) -> float: ...
    @property
    def tokens_per_s(self) -> float: ...


@dataclass(frozen=True)
class SummaryLine:
    """One stage of one run and model. NaN means unknown.

    ``requests_per_s`` and ``tokens_per_s`` are the system throughput in the measured window. ``latencies`` are TTFT,
    TPOT, gap and E2E in seconds.
    """

    group: StageGroup
    requests_per_s: float
    tokens_per_s: float
    latencies: tuple[Summary, Summary, Summary, Summary]
    gap_is_of_events: bool

    @property
    def names(self) -> tuple[str, str, str]:
        """Run, framework and model."""
        return self.group.run.name, self.group.framework or NOTHING, self.group.model or NOTHING

    @property
    def unsteady(self) -> bool:
        """Whether the queue grew through the window, so that the figures depend on the window's length."""
        return self.group.steadiness == UNSTEADY

    @property
    def state(self) -> str:
        """Client health, with the mark of an unsteady stage: ``ok, unsteady``."""
        return ", ".join([self.group.health or NOTHING, *([UNSTEADY] if self.unsteady else [])])


def summary_lines(groups: Sequence[StageGroup], points: Iterable[Rates]) -> list[SummaryLine]:
    """Return the lines of all groups; ``points`` contain the rates of the groups with measured requests."""
    rates = {id(point.group): point for point in points}
    gaps = {index: stage_gaps for stage_gaps in gaps_of(groups) for index in stage_gaps.places}
    lines = []
    for index, group in enumerate(groups):
        rate, gap = rates.get(id(group)), gaps.get(index)
        figures = gap.figures if gap else Summary(0)
        lines.append(
            SummaryLine(
                group=group,
                requests_per_s=rate.requests_per_s if rate else math.nan,
                tokens_per_s=rate.tokens_per_s if rate else math.nan,
                latencies=(group.summary(TTFT), group.summary(TPOT), figures, group.summary(LATENCY)),
                gap_is_of_events=gap is not None and gap.kind == INTER_EVENT,
            )
        )
    return lines


def summary_section(lines: Sequence[SummaryLine]) -> Section:
    """Return the summary as a section with one wide row per stage; the first columns name it, the last is the client.

    Each column has its unit.
    """
    if not lines:
        return Section(TITLE, [NO_REQUEST])
    columns, names, _ = _names(lines)
    loads = load_columns((line.group.load for line in lines), ("Users", "Rate (requests/s)"))
    header = [
        *columns,
        *loads.header,
        FIRST_FIGURE,
        "Requests failed",
        "Requests/s",
        "System, output tokens/s",
        *(f"{name} {figure} ({unit})" for name, unit, _ in _LATENCIES for figure in ("median", "P95")),
        "Client",
    ]
    rows = [
        [
            *own,
            *loads.cells(line.group.load),
            str(line.group.counts.ok),
            str(line.group.counts.failed),
            rounded(line.requests_per_s),
            rounded(line.tokens_per_s),
            *(cell for pair in zip(_latencies(line, "median"), _latencies(line, "p95"), strict=True) for cell in pair),
            line.state,
        ]
        for own, line in zip(names, lines, strict=True)
    ]
    left = {index for index, name in enumerate(header) if name in (*_NAMES, *TEXT_COLUMNS)} | {len(header) - 1}
    return Section(TITLE, [Grid(header, rows, left), summary_notes(lines)])


def summary_notes(lines: Sequence[SummaryLine]) -> list[str]:
    """Return the notes that a reader needs to interpret the figures."""
    notes = []
    if unfinished := sum(line.group.counts.aborted + line.group.counts.cancelled for line in lines):
        notes.append(f"{unfinished} aborted or cancelled requests count neither as ok nor as failed.")
    if unstreamed := sum(line.group.facts.unstreamed for line in lines):
        answers = sum(line.group.counts.ok for line in lines)
        if unstreamed == answers:
            notes.append("The answers were not streamed, so there are no TTFT, TPOT and gaps.")
        else:
            notes.append(f"{unstreamed} of {answers} answers were not streamed; TTFT, TPOT and gaps are of the others.")
    if any(line.unsteady for line in lines):
        notes.append("unsteady: the queue grew through the window, so the figures depend on the length of the stage.")
    short = [f"{line.group.load.words} ({line.group.shortfall.short})" for line in lines if line.group.shortfall]
    if short:
        notes.append(f"The load was below the requested load: {', '.join(short)}.")
    if shares := list(_model_shares(lines)):
        notes.append(f"Models share the load of a stage: {'; '.join(shares)}.")
    if any(line.gap_is_of_events for line in lines):
        notes.append("Gaps are between events; in this run, an event is not a single token.")
    if any(line.group.load.is_open for line in lines):
        notes.append("TTFT and E2E count from sending; tables below also count from the intended start.")
    return notes


def _model_shares(lines: Sequence[SummaryLine]) -> Iterator[str]:
    """Yield how the models of a stage share its users or its rate, for each stage with several models."""
    stages: dict[tuple[int, int | None], list[SummaryLine]] = {}
    for line in lines:
        stages.setdefault((id(line.group.run), line.group.stage), []).append(line)
    several_runs = len({run for run, _ in stages}) > 1
    for (_, stage), sharers in stages.items():
        load = sharers[0].group.load
        if stage is None or any(line.group.load != load for line in sharers):
            continue
        by_framework = len({line.group.model for line in sharers}) < len(sharers)
        parts = {
            " ".join(line.names[1 if by_framework else 2 :]): float(line.group.counts.measured)
            if load.is_open
            else line.group.facts.busy_s
            for line in sharers
        }
        if text := load.share_text(parts):
            yield f"{sharers[0].group.run.name}: {text}" if several_runs else text


def terminal_section(lines: Sequence[SummaryLine]) -> Section:
    """Return the summary for a terminal: two lines per stage, within 80 columns for all usual figures."""
    if not lines:
        return Section(TITLE, [NO_REQUEST])
    units = [unit for _, unit, _ in _LATENCIES]
    names = [name for name, _, _ in _LATENCIES]
    upper = ["", "", *_REQUESTS, "system", *names, ""]
    lower = [_load_name(lines), "", "ok", "fail", "per s", "tokens/s", *units, "client"]
    rows: list[list[str] | str] = []
    *_, titles = _names(lines)
    title = ""
    for line, own_title in zip(lines, map(plain, titles), strict=True):
        lengths = line.group.load.lengths
        line_title = ", ".join(filter(None, [own_title, f"{lengths.text} tokens (ISL/OSL)" if lengths else ""]))
        if line_title != title:
            rows.append(line_title)
            title = line_title
        counts = [str(line.group.counts.ok), str(line.group.counts.failed)]
        rates = [rounded(line.requests_per_s), rounded(line.tokens_per_s)]
        load = line.group.load.level_text if line.group.load.is_known else NOTHING
        load = load.removesuffix("/s") if _load_name(lines) == "rate/s" else load
        rows.append([load, "median", *counts, *rates, *_latencies(line, "median"), plain(line.group.health) or NOTHING])
        rows.append(["", "P95", "", "", "", "", *_latencies(line, "p95"), UNSTEADY if line.unsteady else ""])
    return Section(TITLE, ["\n".join(_laid_out(upper, lower, rows)), summary_notes(lines)])


_REQUESTS = ("requests", "", "")
"""The upper header that spans the columns ok, fail and per s."""
_SPAN = slice(2, 5)
_LEFT = {1, 10}  # text columns, aligned left


def _laid_out(upper: list[str], lower: list[str], rows: Sequence[list[str] | str]) -> list[str]:
    cells = [row for row in rows if isinstance(row, list)]
    widths = [max(len(row[i]) for row in [lower, *cells]) for i in range(len(lower))]
    for i, word in enumerate(upper):
        widths[i] = max(widths[i], 0 if i == _SPAN.start else len(word))
    between = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    spanned = sum(widths[_SPAN]) + len(between) * (_SPAN.stop - _SPAN.start - 1)
    first = between.join(
        [
            *(word.rjust(width) for word, width in zip(upper[: _SPAN.start], widths, strict=False)),
            upper[_SPAN.start].center(spanned),
            *(word.rjust(width) for word, width in zip(upper[_SPAN.stop :], widths[_SPAN.stop :], strict=True)),
        ]
    )
    lines = (row if isinstance(row, str) else between.join(padded(row, widths, _LEFT)) for row in [lower, *rows])
    return [first.rstrip(), *(line.rstrip() for line in lines)]


def _latencies(line: SummaryLine, figure: str) -> list[str]:
    return [
        rounded(getattr(summary, figure) * scale)
        for summary, (_, _, scale) in zip(line.latencies, _LATENCIES, strict=True)
    ]


def _names(lines: Sequence[SummaryLine]) -> tuple[list[str], list[list[str]], list[str]]:
    """Return what distinguishes the lines in addition to the load: as columns, as their cells, and as titles.

    This is the run, framework and model where they differ, and other differences of lines with one model and load.
    """
    differing = [i for i in range(len(_NAMES)) if len({line.names[i] for line in lines}) > 1]
    names = [[line.names[i] for i in differing] for line in lines]
    columns = [column for column in distinctions([line.group for line in lines]) if column.name != RUN]
    return (
        [*(_NAMES[i] for i in differing), *(column.name for column in columns)],
        [[*own, *(column.cells[index] for column in columns)] for index, own in enumerate(names)],
        [", ".join(filter(None, [" ".join(own), *words_of(columns, index)])) for index, own in enumerate(names)],
    )


def _load_name(lines: Sequence[SummaryLine]) -> str:
    kinds = {line.group.load.is_open for line in lines if line.group.load.is_known}
    return "load" if len(kinds) > 1 else "rate/s" if kinds == {True} else "users"
