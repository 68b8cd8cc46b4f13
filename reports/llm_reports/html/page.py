"""``report.html``: the complete report in one file that works without a network.

The tables are plain HTML and work without scripts; a script draws the figures.
"""

from __future__ import annotations

from llm_reports.charts.figures import figures
from llm_reports.content import Content
from llm_reports.html.chart_sections import (
    curve_section,
    distribution_section,
    input_section,
    model_section,
    speed_section,
    timeline_section,
)
from llm_reports.html.client_health import configuration, verdict
from llm_reports.html.document import document, top
from llm_reports.html.elements import Markup, element, joined, notes_list, section, table
from llm_reports.html.errors import errors_section, excluded_section, figures_section
from llm_reports.html.from_markdown import as_html
from llm_reports.html.overview import answer_section, summary_section
from llm_reports.llmperf.tables import Table
from llm_reports.markdown.decisions import intervals_section, knee_section
from llm_reports.markdown.inter_token import gaps_cells
from llm_reports.markdown.load_search import limit_section
from llm_reports.markdown.report import decisions
from llm_reports.metrics.inter_token import gaps_of, name_of, note_of
from llm_reports.metrics.load_search import search_of
from llm_reports.slo.objectives import Objectives
from llm_users.record import COL
from llm_users.run_files import REPORT_HTML

_OF_LLMPERF = 2  # number of LLMPerf tables, which come first; the open-loop tables follow
_PARTS = {
    "answer": "Result",
    "curve": "Throughput and latency",
    "stages": "Summary",
    "speeds": "Speed",
    COL.health: "Client health",
    "decisions": "Decisions",
    "tables": "Tables",
    "distribution": "Distributions",
    "timeline": "Over time",
    COL.model: "Latency model",
    "input": "Input length",
    "errors": "Errors",
    "excluded": "Exclusions",
    "configuration": "Run",
    "gaps": "Gaps",
    "intervals": "Intervals",
    "figures": "All figures",
}


def files(content: Content) -> dict[str, str]:
    """Return the files of this format: name and text."""
    return {REPORT_HTML: page(content)}


def page(content: Content) -> str:
    """Return the page as text."""
    page_figures = figures(content.runs, content.groups, content.points, content.objectives or _searched(content))
    title = f"LLM load test: {', '.join(run.name for run in content.runs[:3])}"
    body = joined(
        [
            top(f"LLM load test: {_models(content)}", _PARTS),
            answer_section(content),
            curve_section(page_figures),
            summary_section(content),
            speed_section(page_figures),
            verdict(content, page_figures.labels),
            _decisions(content),
            _tables(content),
            distribution_section(page_figures),
            timeline_section(page_figures),
            model_section(page_figures),
            input_section(page_figures),
            errors_section(content, page_figures.labels),
            excluded_section(content, page_figures.labels),
            configuration(content),
            gaps_table(content),
            section("intervals", "95 % intervals", as_html(intervals_section(content.groups), headings=False)),
            figures_section(content),
        ]
    )
    return document(title, body, page_figures)


def _models(content: Content) -> str:
    models = sorted({group.model for group in content.groups if group.model})
    return (", ".join(models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")) or "-"


def _searched(content: Content) -> Objectives | None:
    """Return the objectives of the load searches among the runs, if they all have the same objectives."""
    objectives = {search.objectives for run in content.runs if (search := search_of(run)) is not None}
    return objectives.pop() if len(objectives) == 1 else None


def _decisions(content: Content) -> Markup:
    parts = [limit_section(content.runs), decisions(content), knee_section(content.points)]
    text = "\n".join(filter(None, parts))
    hint = "Objectives (--slo) and prices (--prices) are not set. A knee requires three load levels."
    return section("decisions", "Decisions", as_html(text) if text else element("p", hint, class_="soft"))


def _tables(content: Content) -> Markup:
    parts: list[object] = []
    shown_notes: set[str] = set()
    for index, data in enumerate(content.tables):
        fresh = [note for note in data.notes if note not in shown_notes]
        shown_notes.update(fresh)
        parts += [
            element("h3", data.title),
            element("p", data.subtitle, class_="soft") if isinstance(data, Table) and data.subtitle else "",
            table(
                data.title,
                data.header,
                data.cells,
                id_=f"llmperf-{index + 1}" if index < _OF_LLMPERF else f"open-loop-{index + 1 - _OF_LLMPERF}",
                titled=True,
            ),
            notes_list([*fresh, *(("See the notes above.",) if len(fresh) < len(data.notes) else ())]),
        ]
    return section("tables", "LLMPerf's tables", *parts)


def gaps_table(content: Content) -> Markup:
    """Return the section with the gaps between tokens, or between events where events are not tokens."""
    header, lines = gaps_cells(content.groups)
    if not lines:
        return section(
            "gaps", "Gaps", element("p", "The input does not contain gaps; only runs with a gaps file have them.")
        )
    gaps = gaps_of(content.groups)
    title = f"{name_of(gaps).capitalize()} gaps"
    return section("gaps", title, table(title, header, lines, id_="gaps-table"), element("p", note_of(gaps)))
