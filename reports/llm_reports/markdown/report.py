"""``report.md`` and the printed text: the tables as aligned Markdown, their notes, and a description of each run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from llm_reports.content import Content
from llm_reports.llmperf.tables import Table
from llm_reports.markdown.correctness import correctness_section
from llm_reports.markdown.curve import curve_section
from llm_reports.markdown.decisions import cost_section, gate_text, intervals_section, knee_section, objectives_section
from llm_reports.markdown.inter_token import gaps_section
from llm_reports.markdown.load_search import limit_section
from llm_reports.markdown.summary_table import summary_markdown, summary_text
from llm_reports.markdown.text import aligned, bullets, escaped, plain
from llm_reports.metrics.distinctions import TEXT_COLUMNS
from llm_reports.metrics.groups import loads_of
from llm_reports.metrics.open_loop import RateTable
from llm_reports.metrics.outcomes import outcome_counts
from llm_reports.metrics.stage_load import loads_in_words
from llm_reports.run import Run
from llm_users.outcome import Outcome
from llm_users.record import COL
from llm_users.run_files import REPORT_MD

__all__ = ["all_notes", "bullets", "decisions", "files", "plain", "tables_and_notes", "to_markdown"]

_NAME_COLUMNS = ("Framework", "Model", *TEXT_COLUMNS)


def to_markdown(table: Table | RateTable) -> str:
    """Return a table with its heading, aligned columns, and its notes as a list below."""
    left = {index for index, name in enumerate(table.header) if name in _NAME_COLUMNS}
    parts = [f"## {table.title}"]
    if isinstance(table, Table) and table.subtitle:
        parts.append(table.subtitle)
    parts.append(aligned(table.header, table.cells, left))
    if table.notes:
        parts.append(bullets(table.notes))
    return "\n\n".join(parts) + "\n"


def tables_and_notes(content: Content, *, for_terminal: bool = False) -> str:
    """Return the load search result, the summary, LLMPerf's tables with notes, the decisions, and the warnings.

    ``for_terminal`` formats the summary for 80 columns instead of as a Markdown table.
    """
    parts = [search_text] if (search_text := limit_section(content.runs)) else []
    parts.append((summary_text if for_terminal else summary_markdown)(content.summary))
    parts += [to_markdown(table) for table in _with_notes_once(content.tables)]
    if decided := decisions(content):
        parts.append(decided)
    if content.warnings:
        parts.append(f"## Warnings\n\n{bullets(content.warnings)}\n")
    return "\n".join(parts)


def all_notes(content: Content) -> str:
    """Return the notes of all tables and the warnings as one list, for formats without tables; "" when empty."""
    notes = dict.fromkeys([*(note for table in content.tables for note in table.notes), *content.warnings])
    return f"{bullets(notes)}\n" if notes else ""


def files(content: Content) -> dict[str, str]:
    """Return the files of this format: name and text."""
    runs = bullets(_described(run) for run in content.runs)
    parts = [f"# LLM load test\n\n{runs}\n", tables_and_notes(content)]
    groups = content.groups
    more = (curve_section(content), knee_section(content.points), gaps_section(groups), intervals_section(groups))
    return {REPORT_MD: "\n".join([*parts, *filter(None, more)])}


def decisions(content: Content) -> str:
    """Return the sections on correctness, objectives, costs and the SLO gate; "" when none of them applies."""
    parts = [correct] if (correct := correctness_section(content.groups)) else []
    if content.objectives is not None:
        parts.append(objectives_section(content.points, content.objectives.text))
    if content.prices is not None:
        parts.append(cost_section(content.points, content.prices))
    if content.gate is not None:
        parts.append(gate_text(content.gate))
    return "\n".join(parts)


def _with_notes_once(tables: Iterable[Table | RateTable]) -> Iterator[Table | RateTable]:
    """Yield the tables, with notes of an earlier table replaced by a reference to the notes above."""
    shown_notes: set[str] = set()
    for table in tables:
        fresh = [note for note in table.notes if note not in shown_notes]
        repeated = () if len(fresh) == len(table.notes) else ("See the notes above.",)
        shown_notes.update(fresh)
        yield dataclasses.replace(table, notes=(*fresh, *repeated))


def _described(run: Run) -> str:
    rows = run.requests
    counts = outcome_counts(rows[[COL.error_code, COL.http_status]][rows[COL.measured] == 1])
    parts = [f"**{escaped(run.name)}**"]
    for column, label in ((COL.framework, COL.framework), (COL.model, COL.model), (COL.api, "API")):
        names = sorted({escaped(str(name)) for name in rows[column].unique() if name})
        if names:
            parts.append(f"{label} {', '.join(names)}")
    if loads := loads_in_words(loads_of(run)):
        parts.append(loads)
    others = {
        "throttled": counts[Outcome.THROTTLED],
        "failed": counts[Outcome.FAILED] + counts[Outcome.DROPPED],
        "aborted": counts[Outcome.ABORTED],
        "cancelled": counts[Outcome.CANCELLED],
    }
    counted = [f"{count} {word}" for word, count in others.items() if count]
    parts.append(
        ", ".join([f"{sum(counts.values())} measured requests, {counts[Outcome.OK]} of them successful", *counted])
    )
    if run.started is not None:
        parts.append(f"started {run.started:%Y-%m-%d %H:%M:%S} UTC")
    return "; ".join(parts) + "."
