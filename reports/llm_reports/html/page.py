"""``report.html``: the whole report in one file that needs no network.

The tables are plain HTML and work by themselves; the script draws the figures.
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
from llm_users.run_files import REPORT_HTML

_OF_LLMPERF = 2  # the tables that are its own come first; those of an open loop follow
_PARTS = {
    "answer": "Result",
    "curve": "Throughput and latency",
    "stages": "Summary",
    "speeds": "Speed",
    "health": "Client health",
    "decisions": "Decisions",
    "tables": "Tables",
    "distribution": "Distributions",
    "timeline": "Over time",
    "model": "Latency model",
    "input": "Input length",
    "errors": "Errors",
    "excluded": "Exclusions",
    "configuration": "Run",
    "gaps": "Gaps",
    "intervals": "Intervals",
    "figures": "All figures",
}


def files(content: Content) -> dict[str, str]:
    """The files of this format: name and text."""
    return {REPORT_HTML: page(content)}


def page(content: Content) -> str:
    """The page as text."""
    made = figures(content.runs, content.groups, content.points, content.objectives or _searched(content))
    title = f"LLM load test: {', '.join(run.name for run in content.runs[:3])}"
    body = joined(
        [
            top(f"LLM load test: {_models(content)}", _PARTS),
            answer_section(content),
            curve_section(made),
            summary_section(content),
            speed_section(made),
            verdict(content, made.labels),
            _decisions(content),
            _tables(content),
            distribution_section(made),
            timeline_section(made),
            model_section(made),
            input_section(made),
            errors_section(content, made.labels),
            excluded_section(content, made.labels),
            configuration(content),
            gaps_table(content),
            section("intervals", "95 % intervals", as_html(intervals_section(content.groups), headings=False)),
            figures_section(content),
        ]
    )
    return document(title, body, made)


def _models(content: Content) -> str:
    models = sorted({group.model for group in content.groups if group.model})
    return (", ".join(models[:4]) + (f" and {len(models) - 4} more" if len(models) > 4 else "")) or "-"


def _searched(content: Content) -> Objectives | None:
    """The objectives of a search, when the runs are one."""
    found = {search.objectives for run in content.runs if (search := search_of(run)) is not None}
    return found.pop() if len(found) == 1 else None


def _decisions(content: Content) -> Markup:
    parts = [limit_section(content.runs), decisions(content), knee_section(content.points)]
    said = "\n".join(filter(None, parts))
    nothing = "Nothing was asked (--slo and --prices ask), and a knee takes three levels of load."
    return section("decisions", "Decisions", as_html(said) if said else element("p", nothing, class_="soft"))


def _tables(content: Content) -> Markup:
    parts: list[object] = []
    said: set[str] = set()
    for place, each in enumerate(content.tables):
        fresh = [note for note in each.notes if note not in said]
        said.update(fresh)
        parts += [
            element("h3", each.title),
            element("p", each.subtitle, class_="soft") if isinstance(each, Table) and each.subtitle else "",
            table(
                each.title,
                each.header,
                each.cells,
                id_=f"llmperf-{place + 1}" if place < _OF_LLMPERF else f"open-loop-{place + 1 - _OF_LLMPERF}",
                titled=True,
            ),
            notes_list([*fresh, *(("See the notes above.",) if len(fresh) < len(each.notes) else ())]),
        ]
    return section("tables", "LLMPerf's tables", *parts)


def gaps_table(content: Content) -> Markup:
    """The gaps between tokens, or between events where these are not tokens."""
    header, lines = gaps_cells(content.groups)
    if not lines:
        return section("gaps", "Gaps", element("p", "The input has no gaps: they stand in a run's own gaps file."))
    found = gaps_of(content.groups)
    title = f"{name_of(found).capitalize()} gaps"
    return section("gaps", title, table(title, header, lines, id_="gaps-table"), element("p", note_of(found)))
