"""The files of a comparison: its text, a page of its own with the curves of all runs overlaid, and these as images."""

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
_MOST_NOTES = 4  # more are folded, so that the curves are near the table
_PARTS = {
    "comparison": "Comparison",
    "curve": "Throughput and latency",
    "distribution": "Distributions",
    "timeline": "Over time",
}


def comparison_files(comparison: Comparison, plots: str | None = None) -> dict[str, str | bytes]:
    """Names and contents; ``plots`` is svg or png for image files besides, which the Markdown then shows."""
    made = overlaid(comparison)
    images = image_files(with_data([*curves_of(made), *distributions_of(made)]), plots) if plots else {}
    shown = [f"![{title}]({name})" for name, (title, _) in images.items()]
    more = shown or [f"The curves of all runs overlaid, and their distributions: [{PAGE_NAME}]({PAGE_NAME})"]
    text = "\n\n".join([comparison_text(comparison).rstrip("\n"), "## Figures", *more])
    return {
        MD_NAME: f"{text}\n",
        PAGE_NAME: comparison_page(comparison, made),
        **{name: data for name, (_, data) in images.items()},
    }


def overlaid(comparison: Comparison) -> Figures:
    """The figures of all runs together: a curve for each of them."""
    return figures(comparison.runs, comparison.groups, stage_points(comparison.groups))


def comparison_page(comparison: Comparison, made: Figures | None = None) -> str:
    """The page as text; ``made`` are its figures when they are there already."""
    made = made or overlaid(comparison)
    text = comparison_text(comparison).partition("\n")[2]  # without its heading, which is the page's title
    body = joined(
        [
            top(comparison.title, _PARTS),
            section("comparison", "Comparison", as_html(text, headings=False, most_items=_MOST_NOTES)),
            curve_section(made),
            speed_section(made),
            distribution_section(made),
            timeline_section(made),
        ]
    )
    return document(comparison.title, body, made)
