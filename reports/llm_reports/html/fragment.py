"""A section for a page of another program, such as Locust's report: the tables and the curve, without a script."""

from __future__ import annotations

from pathlib import Path

from llm_reports.content import Content, Questions, content_of
from llm_reports.html.elements import Markup, element, joined, listed, table
from llm_reports.html.from_markdown import as_html
from llm_reports.input.loader import load
from llm_reports.llmperf.tables import Table
from llm_reports.markdown.report import decisions
from llm_reports.markdown.summary_table import TITLE as SUMMARY
from llm_reports.markdown.summary_table import summary_cells, summary_header
from llm_reports.plots.drawing import drawing
from llm_reports.plots.images import plots
from llm_reports.plots.svg import svg
from llm_reports.slo.objectives import parse_objectives

MARK = "llm-section"
"""The id of the section's element; it shows whether a page already contains the section."""

_FIRST = "curve_"
_STYLE = """
#llm-section{box-sizing:border-box;max-width:1200px;margin:24px auto;padding:16px 24px;border-radius:4px;
background:#fff;color:#1b1f24;font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
#llm-section h2{margin:.2em 0 .6em;font-size:1.5em}#llm-section h3{margin:1.2em 0 .4em;font-size:1.15em}
#llm-section .scroll{overflow-x:auto}#llm-section table{border-collapse:collapse;width:100%}
#llm-section th,#llm-section td{padding:4px 10px;border-bottom:1px solid #d8dee4;text-align:left;white-space:nowrap}
#llm-section .number{text-align:right;font-variant-numeric:tabular-nums}
#llm-section .llm-sr{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
#llm-section svg{display:block;max-width:100%;height:auto;margin:8px 0}
#llm-section .notes,#llm-section .soft{color:#57606a;font-size:.93em}
"""


def fragment_of(prefix: str | Path, *, slo: str | None = None, stage: str = "all") -> str:
    """Return the section about one run; raises ``InputError`` when its rows cannot be read."""
    objectives = parse_objectives(slo) if slo else None
    return fragment(content_of([load(prefix)], questions=Questions(objectives, stage)))


def fragment(content: Content) -> str:
    """Return the section with its own style; all texts in it are escaped."""
    parts: list[object] = [element("h2", "LLM load test")]
    if content.summary:
        cells = summary_cells(content.summary)
        parts.append(table(SUMMARY, summary_header(content.summary), cells, titled=True))
    if decisions_text := decisions(content):
        parts.append(as_html(decisions_text))
    notes: dict[str, None] = {}
    for data in content.tables:
        subtitle = element("p", data.subtitle, class_="soft") if isinstance(data, Table) and data.subtitle else ""
        parts += [element("h3", data.title), subtitle, table(data.title, data.header, data.cells, titled=True)]
        notes.update(dict.fromkeys(data.notes))
    parts.append(listed([*notes, *content.warnings]))
    for plot in plots(content):
        if plot.name.startswith(_FIRST):
            parts.append(Markup(svg(drawing(plot), plot.title, plot.note, ids=f"llm-{plot.name}-")))
    style = Markup(f"<style>{_STYLE}</style>")
    return str(joined([style, element("section", joined(parts), id=MARK, aria_label="LLM load test")])) + "\n"
