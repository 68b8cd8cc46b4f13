"""``report.md`` and the printed text: the tables as aligned Markdown, their notes, and a description of each run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from llm_reports.compare.comparison import Comparison
from llm_reports.content import Content
from llm_reports.markdown.table import to_markdown
from llm_reports.metrics.groups import loads_of
from llm_reports.metrics.outcomes import outcome_counts
from llm_reports.metrics.stage_load import loads_in_words
from llm_reports.run import Run
from llm_reports.sections.comparison import comparison_section, verdict
from llm_reports.sections.decisions import answer_section, decision_sections, gate_section, knee_section
from llm_reports.sections.load_search import search_sections
from llm_reports.sections.quota import quota_section
from llm_reports.sections.ramps import ramp_section
from llm_reports.sections.section import Section, bullets, escaped, section_text, wrapped
from llm_reports.sections.server_metrics import server_sections
from llm_reports.sections.server_times import server_times_section
from llm_reports.sections.stage_tables import curve_section, gaps_section, intervals_section
from llm_reports.sections.summary_table import summary_section, terminal_section
from llm_reports.slo.gate import Gate
from llm_users.outcome import Outcome
from llm_users.record import COL
from llm_users.run_files import REPORT_MD


def tables_and_notes(content: Content, *, for_terminal: bool = False) -> str:
    """Return the load search result or the load that meets the objectives, the summary, LLMPerf's tables with notes,
    the decisions, the servers' own metrics, and the warnings.

    ``for_terminal`` formats the summary for 80 columns instead of as a Markdown table.
    """
    summary = (terminal_section if for_terminal else summary_section)(content.summary)
    parts = [
        search_text(content.runs),
        _text([answer_section(content)]),
        section_text(summary),
        *(to_markdown(table, notes) for table, notes in content.tables_with_notes),
        decisions(content),
        _text(server_sections(content.server_stages)),
        f"## Warnings\n\n{bullets(content.warnings)}\n" if content.warnings else "",
    ]
    return "\n".join(filter(None, parts))


def all_notes(content: Content) -> str:
    """Return the notes of all tables and the warnings as one list, for formats without tables; "" when empty."""
    notes = dict.fromkeys([*content.notes, *content.warnings])
    return f"{bullets(notes)}\n" if notes else ""


def files(content: Content) -> dict[str, str]:
    """Return the files of this format: name and text."""
    runs = bullets(_described(run) for run in content.runs)
    groups = content.groups
    more = (
        ramp_section(groups),
        curve_section(content),
        knee_section(content.points),
        gaps_section(groups),
        intervals_section(groups),
        server_times_section(groups),
        quota_section(content.runs),
    )
    parts = [f"# LLM load test\n\n{runs}\n", tables_and_notes(content), _text(more)]
    return {REPORT_MD: "\n".join(filter(None, parts))}


def decisions(content: Content) -> str:
    """Return the sections on correctness, objectives, costs and the SLO gate; "" when none of them applies."""
    return _text(decision_sections(content))


def gate_text(gate: Gate) -> str:
    """Return the verdict of the SLO gate, its judgements, and the reasons for a verdict other than passed."""
    return section_text(gate_section(gate))


def search_text(runs: Iterable[Run]) -> str:
    """Return the results of the load searches among the runs; "" when there are none."""
    return _text(search_sections(runs))


def comparison_text(comparison: Comparison) -> str:
    """Return the verdict, the table, and explanatory notes."""
    section = comparison_section(comparison)
    return section_text(dataclasses.replace(section, parts=[wrapped(verdict(comparison)), *section.parts[1:]]))


def _text(sections: Iterable[Section | None]) -> str:
    return "\n".join(section_text(section) for section in sections if section is not None)


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
