"""``report.html``: the complete report in one file that works without a network.

This module prepares the values that ``templates/report.html.j2`` shows in addition to the content of the report. The
tables are plain HTML and work without scripts; a script draws the figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pandas import DataFrame, concat, isna

from llm_reports.charts.figures import figures
from llm_reports.content import Content
from llm_reports.export.summary import COLUMNS, summary_lines
from llm_reports.html.rendering import render_page
from llm_reports.metrics.goodput import knee
from llm_reports.metrics.groups import NOT_WELL, loads_of
from llm_reports.metrics.load_search import search_of
from llm_reports.metrics.outcomes import succeeded
from llm_reports.metrics.stage_load import loads_in_words
from llm_reports.run import Run
from llm_reports.sections.decisions import answers, decision_sections, knee_section, named_sweeps, no_knee
from llm_reports.sections.load_search import search_sections
from llm_reports.sections.numbers import with_decimals
from llm_reports.sections.quota import quota_section
from llm_reports.sections.ramps import ramp_section
from llm_reports.sections.section import Grid, Section, plain
from llm_reports.sections.server_metrics import server_sections
from llm_reports.sections.server_times import server_times_section
from llm_reports.sections.stage_tables import gaps_section, intervals_section
from llm_reports.sections.summary_table import FIRST_FIGURE, summary_section
from llm_users.record import COL, UNSTEADY, cell
from llm_users.run_files import REPORT_HTML

_CLIENT = (
    (COL.client_cpu_share_max, "CPU of the busiest process (%)", 100, 0),
    ("others_cpu_share", "CPU of other programs (%)", 100, 0),
    ("steal_share", "CPU of other guests (%)", 100, 0),
    (COL.lag_p99_s, "Lag p99 (ms)", 1000, 2),
    ("lag_own_p99_s", "Own part of the lag p99 (ms)", 1000, 2),
    (COL.queue_p99_s, "Queue p99 (ms)", 1000, 2),
    (COL.forced_start_share, "Forced starts (%)", 100, 1),
    (COL.coalesced_share, "Coalesced chunks (%)", 100, 2),
    (COL.first_coalesced_share, "Coalesced first chunks (%)", 100, 2),
)
_OPTIONS = {
    "llm_sweep", "llm_rate", "llm_arrivals", "llm_max_in_flight", "llm_overflow", "llm_requests", "llm_stage_time",
    "llm_warmup", "llm_input_tokens", "llm_output_tokens", "llm_seed",
}  # fmt: skip
"""The options that shape the load."""
_EXAMPLES = 3
_LONGEST = 400  # characters of an example; a message may hold a whole response body
_MOST_CODES = 100


def files(content: Content) -> dict[str, str]:
    """Return the files of this format: name and text."""
    return {REPORT_HTML: page(content)}


def page(content: Content) -> str:
    """Return the page as text."""
    page_figures = figures(content.runs, content.groups, content.points, content.drawn_objectives)
    labels, bend = page_figures.labels, knee_section(content.points)
    models = sorted({group.model for group in content.groups if group.model})
    more = f" and {len(models) - 4} more" if len(models) > 4 else ""
    all_lines = [[cell(value) for value in line.values()] for line in summary_lines(content.groups)]
    return render_page(
        "report.html.j2",
        f"LLM load test: {', '.join(run.name for run in content.runs[:3])}",
        page_figures,
        heading=f"LLM load test: {', '.join(models[:4]) + more or '-'}",
        content=content,
        loads=list(_loads(content)),
        reservations=list(_reservations(content)),
        summary=_summary(content),
        client=_client(content, labels),
        decisions=[
            *search_sections(content.runs),
            *decision_sections(content),
            *(section for section in (ramp_section(content.groups), bend) if section),
        ],
        errors=_errors(content, labels),
        excluded=_excluded(content, labels),
        runs=[_described(run) for run in content.runs],
        gaps=gaps_section(content.groups),
        intervals=intervals_section(content.groups),
        quota=quota_section(content.runs),
        servers=server_sections(content.server_stages),
        server_times=server_times_section(content.groups),
        all_figures=Grid(COLUMNS, all_lines),
    )


def _loads(content: Content) -> Iterator[str]:
    """Yield the highest load: from the load search, else by the objectives, else the knee of the curve."""
    searches = [(run.name, search) for run in content.runs if (search := search_of(run)) is not None]
    for name, search in searches:
        yield f"{name}: {search.conclusion}" if len(content.runs) > 1 else search.conclusion
    if searches:
        return
    if content.objectives is not None:
        yield from answers(content)
        return
    for name, sweep in named_sweeps(content.points):
        choice = knee(sweep)
        if choice.point is not None:
            yield f"{choice.name}{name}: **{choice.point.load.words}**"
        elif why := no_knee(sweep):
            yield f"No knee{name}: {why}."


def _reservations(content: Content) -> Iterator[str]:
    """Yield warnings about stages whose figures do not show the endpoint."""
    reasons = {health: f"The client was {health}" for health in ("saturated", "disturbed", "strained")}
    reasons[UNSTEADY] = "The queue grew through the window (unsteady)"
    for word, text in reasons.items():
        names = [
            f"{line.group.run.name} {line.group.load.words}" if len(content.runs) > 1 else line.group.load.words
            for line in content.summary
            if line.group.health == word or (word == UNSTEADY and line.unsteady)
        ]
        if names:
            yield f"{text}: {', '.join(names)}."


def _summary(content: Content) -> Section:
    """Return the summary with the client next to the names and the load, where it is visible without scrolling."""
    section = summary_section(content.summary)
    first, *notes = section.parts
    if not isinstance(first, Grid):
        return section
    return Section(section.title, [first.moved("Client", list(first.header).index(FIRST_FIGURE)), *notes])


def _client(content: Content, labels: Sequence[str]) -> dict[str, object]:
    """Return the worst verdict on the client over all stages and the figures that it is based on."""
    healths = {group.health for group in content.groups}
    worst = next((health for health in (*reversed(NOT_WELL), "ok") if health in healths), "")
    if worst == "ok" and "" in healths:
        worst = ""
    marked = [label for label, group in zip(labels, content.groups, strict=True) if group.health == worst]
    header = ("Stage", "Client", *(name for _, name, *_ in _CLIENT), "Stamps")
    rows = []
    for group, label in zip(content.groups, labels, strict=True):
        stages = group.run.stages
        for _, stage in stages[stages[COL.stage] == group.stage].iterrows() if group.stage is not None else ():
            figures_of_stage = [
                "-" if isna(stage[key]) else with_decimals(float(stage[key]) * scale, places)
                for key, _, scale, places in _CLIENT
            ]
            rows.append([label, group.health, *figures_of_stage, stage[COL.stamp_source] or "-"])
    return {"worst": worst, "marked": marked if worst in NOT_WELL else [], "grid": Grid(header, rows)}


def _errors(content: Content, labels: Sequence[str]) -> dict[str, object]:
    """Return the errors by class, the most frequent first, with their stages and example messages."""
    frames = []
    total = 0
    for label, group in zip(labels, content.groups, strict=True):
        failed = group.measured[~succeeded(group.measured[COL.error_code])]
        total += len(group.measured)
        if len(failed):
            frames.append(failed.assign(_stage=label))
    if not frames:
        return {"text": "No measured request failed.", "rows": []}
    failed = concat(frames)
    counts = sorted(failed[COL.error_code].value_counts().items(), key=lambda item: (-item[1], str(item[0])))
    rows = [_error_class(str(code), failed[failed[COL.error_code] == code], total) for code, _ in counts[:_MOST_CODES]]
    unlisted = f" {len(counts) - _MOST_CODES} rarer classes are not listed." if len(counts) > _MOST_CODES else ""
    all_counts = [group.counts for group in content.groups]
    cancelled_count = sum(tally.cancelled for tally in all_counts)
    cancelled = f", {cancelled_count:,} cancelled by the client (--llm-cancel)" if cancelled_count else ""
    text = (
        f"{len(failed):,} of {total:,} measured requests did not succeed, in {len(counts)} classes: "
        f"{sum(tally.throttled for tally in all_counts):,} throttled, "
        f"{sum(tally.failed_otherwise for tally in all_counts):,} failed otherwise, "
        f"{sum(tally.aborted for tally in all_counts):,} aborted by the end of the stage or the test{cancelled}."
        f"{unlisted}"
    )
    return {"text": text, "rows": rows}


def _error_class(code: str, rows: DataFrame, total: int) -> list[object]:
    stages = rows["_stage"].value_counts(sort=False)
    where = ", ".join(f"{stage}: {count}" for stage, count in stages.items())
    messages = rows[COL.error_message].map(lambda message: plain(str(message))).value_counts()
    examples = sorted(messages.items(), key=lambda item: (-item[1], str(item[0])))
    shown = []
    for text, count in examples[:_EXAMPLES]:
        message = str(text) or "no message"
        cut = f"{message[:_LONGEST]} ... ({len(message):,} characters)"
        shown.append((message if len(message) <= _LONGEST else cut, count))
    more = max(0, len(examples) - _EXAMPLES)
    return [code, len(rows), f"{100 * len(rows) / total:.1f}", where, {"shown": shown, "more": more}]


def _excluded(content: Content, labels: Sequence[str]) -> list[list[str]]:
    """Return the numbers of counted and excluded rows of every stage and the reasons."""
    rows = []
    for label, group in zip(labels, content.groups, strict=True):
        counts = group.counts
        phases = ", ".join(f"{count} in {phase or 'an unnamed phase'}" for phase, count in counts.unmeasured_phases)
        counted = (counts.measured, counts.ok, counts.throttled, counts.failed_otherwise)
        numbers = (counts.rows, *counted, counts.aborted, counts.cancelled, counts.rows - counts.measured)
        rows.append([label, *map(str, numbers), phases or "-"])
    return rows


def _described(run: Run) -> dict[str, object]:
    """Return the name, the manifest, and facts about a run: its rows, and the options that shape the load."""
    rows, manifest = run.requests, run.manifest
    names = {
        called: ", ".join(sorted({str(name) for name in rows[column] if name}))
        for column, called in ((COL.framework, COL.framework), (COL.model, COL.model), (COL.api, "API"))
    }
    shown = {
        name.removeprefix("llm_").replace("_", " "): value
        for name, value in run.options.items()
        if name in _OPTIONS and value not in (None, "", [])
    }
    tokenizer: Any = manifest.get("tokenizer")
    facts = {
        **names,
        "load": loads_in_words(loads_of(run)),
        "requests": f"{len(rows):,}, {run.measured:,} of them measured",
        "started": f"{run.started:%Y-%m-%d %H:%M:%S} UTC" if run.started is not None else "",
        COL.endpoint: manifest.get("host"),
        **shown,
        "clock": manifest.get("clock"),
        "tokenizer": tokenizer.get("name") if isinstance(tokenizer, dict) else tokenizer,
        "simulated": "yes: the endpoint was this project's simulator" if manifest.get("simulator") else "",
    }
    text = json.dumps(manifest, indent=2, ensure_ascii=False, default=str) if manifest else ""
    return {"name": run.name, "facts": facts, "manifest": text.splitlines()}
