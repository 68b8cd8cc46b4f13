"""The files of a comparison: its text, a page with the curves of all runs overlaid, and the same figures as images."""

from __future__ import annotations

from llm_reports.charts.figures import Figures, figures
from llm_reports.compare.comparison import Comparison
from llm_reports.html.chart_sections import curve_section, distribution_section, speed_section, timeline_section
from llm_reports.html.document import document, top
from llm_reports.html.elements import joined, section
from llm_reports.html.from_markdown import as_html
from llm_reports.markdown.comparison import comparison_text
from llm_reports.metrics.goodput import stage_points
from llm_reports.plots.images import curves_of, distributions_of, image_files, with_data

MD_NAME, PAGE_NAME = "comparison.md", "comparison.html"
_MOST_NOTES = 4  # additional notes are folded, so that the curves stay near the table
_PARTS = {
    "comparison": "Comparison",
    "curve": "Throughput and latency",
    "distribution": "Distributions",
    "timeline": "Over time",
}


def comparison_files(comparison: Comparison, plots: str | None = None) -> dict[str, str | bytes]:
    """Return names and contents. ``plots`` is svg or png to add image files, which the Markdown then shows."""
    all_figures = overlaid(comparison)
    images = image_files(with_data([*curves_of(all_figures), *distributions_of(all_figures)]), plots) if plots else {}
    shown = [f"![{title}]({name})" for name, (title, _) in images.items()]
    more = shown or [f"The curves of all runs overlaid, and their distributions: [{PAGE_NAME}]({PAGE_NAME})"]
    text = "\n\n".join([comparison_text(comparison).rstrip("\n"), "## Figures", *more])
    return {
        MD_NAME: f"{text}\n",
        PAGE_NAME: comparison_page(comparison, all_figures),
        **{name: data for name, (_, data) in images.items()},
    }


def overlaid(comparison: Comparison) -> Figures:
    """Return the figures of all runs together, with one curve per run."""
    return figures(comparison.runs, comparison.groups, stage_points(comparison.groups))


def comparison_page(comparison: Comparison, all_figures: Figures | None = None) -> str:
    """Return the page as text; ``all_figures`` contains its figures if they already exist."""
    all_figures = all_figures or overlaid(comparison)
    text = comparison_text(comparison).partition("\n")[2]  # without its heading, which is the page's title
    body = joined(
        [
            top(comparison.title, _PARTS),
            section("comparison", "Comparison", as_html(text, headings=False, most_items=_MOST_NOTES)),
            curve_section(all_figures),
            speed_section(all_figures),
            distribution_section(all_figures),
            timeline_section(all_figures),
        ]
    )
    return document(comparison.title, body, all_figures)
