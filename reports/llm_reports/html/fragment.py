"""A section for a page of another program, such as Locust's report: the tables and the curve, without a script."""

from __future__ import annotations

from pathlib import Path

from llm_reports.charts.figures import figures
from llm_reports.content import Content, Questions, content_of
from llm_reports.html.rendering import data_uri, render
from llm_reports.input.loader import load
from llm_reports.plots.drawing import can_draw, style
from llm_reports.plots.images import curves_of
from llm_reports.sections.decisions import decision_sections
from llm_reports.sections.summary_table import summary_section
from llm_reports.slo.objectives import parse_objectives


def fragment_of(prefix: str | Path, *, slo: str | None = None, stage: str = "all") -> str:
    """Return the section about one run; raises ``InputError`` when its rows cannot be read."""
    objectives = parse_objectives(slo) if slo else None
    return fragment(content_of([load(prefix)], questions=Questions(objectives, stage)))


def fragment(content: Content) -> str:
    """Return the section with its own style; its element has the id ``llm-section``. All texts in it are escaped."""
    images = []
    if can_draw():
        with style():
            pictures = list(curves_of(figures(content.runs, content.groups, content.points, content.objectives)))
        images = [(data_uri(picture), f"{picture.title}. {picture.note}") for picture in pictures]
    return render(
        "fragment.html.j2",
        content=content,
        summary=summary_section(content.summary),
        decisions=decision_sections(content),
        images=images,
        pictures=can_draw(),
    ).lstrip()
