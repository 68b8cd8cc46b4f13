"""The files of a comparison: its text, a page with the curves of all runs overlaid, and the same figures as images."""

from __future__ import annotations

from llm_reports.charts.figures import Figures, figures
from llm_reports.compare.comparison import Comparison
from llm_reports.html.rendering import render_page
from llm_reports.markdown.report import comparison_text
from llm_reports.metrics.goodput import stage_points
from llm_reports.plots.drawing import image_files
from llm_reports.plots.images import comparison_drawings
from llm_reports.sections.comparison import comparison_section

MD_NAME, PAGE_NAME = "comparison.md", "comparison.html"


def comparison_files(comparison: Comparison, plots: str | None = None) -> dict[str, str | bytes]:
    """Return names and contents. ``plots`` is svg or png to add image files, which the Markdown then shows."""
    all_figures = figures(comparison.runs, comparison.groups, stage_points(comparison.groups))
    images = image_files(comparison_drawings(all_figures), plots) if plots else {}
    shown = [f"![{title}]({name})" for name, (title, _) in images.items()]
    more = shown or [f"The curves of all runs overlaid, and their distributions: [{PAGE_NAME}]({PAGE_NAME})"]
    text = "\n\n".join([comparison_text(comparison).rstrip("\n"), "## Figures", *more])
    return {
        MD_NAME: f"{text}\n",
        PAGE_NAME: comparison_page(comparison, all_figures),
        **{name: data for name, (_, data) in images.items()},
    }


def comparison_page(comparison: Comparison, all_figures: Figures) -> str:
    """Return the page as text, with the figures of all runs together."""
    return render_page(
        "comparison.html.j2",
        comparison.title,
        all_figures,
        comparison=comparison_section(comparison),
    )
