"""The files of ``llm-report compare`` and ``llm-report leaderboard``: text, a page, and the figures as images."""

from __future__ import annotations

from collections.abc import Sequence

from llm_reports.charts.figures import figures
from llm_reports.compare.comparison import Comparison
from llm_reports.html.rendering import data_uri, render_page
from llm_reports.llmperf.tables import Table, rounded, with_new_notes
from llm_reports.markdown.report import comparison_text
from llm_reports.markdown.table import to_markdown
from llm_reports.metrics.goodput import stage_points
from llm_reports.plots.drawing import can_draw, image_files
from llm_reports.plots.images import bar_chart, comparison_drawings, endpoint_name
from llm_reports.sections.comparison import comparison_section


def comparison_files(comparison: Comparison, plots: str | None = None) -> dict[str, str | bytes]:
    """Return names and contents; the page overlays the curves of all runs.

    ``plots`` is svg or png to add image files, which the Markdown then shows.
    """
    all_figures = figures(comparison.runs, comparison.groups, stage_points(comparison.groups))
    images = image_files(comparison_drawings(all_figures), plots) if plots else {}
    shown = [f"![{title}]({name})" for name, (title, _) in images.items()]
    more = shown or ["The curves of all runs overlaid, and their distributions: [comparison.html](comparison.html)"]
    text = "\n\n".join([comparison_text(comparison).rstrip("\n"), "## Figures", *more])
    section = comparison_section(comparison)
    return {
        "comparison.md": f"{text}\n",
        "comparison.html": render_page("comparison.html.j2", comparison.title, all_figures, comparison=section),
        **{name: data for name, (_, data) in images.items()},
    }


def leaderboard_files(tables: Sequence[Table], plots: str | None = None) -> dict[str, str | bytes]:
    """Return names and contents; the page has a bar chart per table if matplotlib is there, and it has no scripts.

    ``plots`` is svg or png to add image files, which the Markdown then shows.
    """
    images = image_files(map(bar_chart, tables), plots) if plots else {}
    names = [f"\n![{data.title}]({name})\n" for data, name in zip(tables, images, strict=False)] or [""] * len(tables)
    entries = []
    noted = with_new_notes(tables)
    for data, notes in noted:
        named = (f"{endpoint_name(data, row)}: {rounded(row.figures.median, data.decimals)}" for row in data.rows)
        words = f"{data.title}, medians. {'; '.join(named)}"
        entries.append(
            {"table": data, "notes": notes, "image": data_uri(bar_chart(data)) if can_draw() else "", "words": words}
        )
    return {
        "leaderboard.md": "\n".join(to_markdown(*one) + name for one, name in zip(noted, names, strict=True)),
        "leaderboard.html": render_page("leaderboard.html.j2", "LLM leaderboard", entries=entries, pictures=can_draw()),
        **{name: data for name, (_, data) in images.items()},
    }
