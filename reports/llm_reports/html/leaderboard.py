"""The files of a leaderboard: its tables, a page with a bar chart per table, and the charts as images."""

from __future__ import annotations

from collections.abc import Sequence

from llm_reports.html.rendering import data_uri, render_page
from llm_reports.llmperf.tables import Table, rounded
from llm_reports.markdown.report import to_markdown
from llm_reports.plots.drawing import can_draw, image_files
from llm_reports.plots.images import bar_chart, endpoint_name

MD_NAME, PAGE_NAME = "leaderboard.md", "leaderboard.html"
_TITLE = "LLM leaderboard"


def leaderboard_files(tables: Sequence[Table], plots: str | None = None) -> dict[str, str | bytes]:
    """Return names and contents. ``plots`` is svg or png to add image files, which the Markdown then shows."""
    images = image_files(map(bar_chart, tables), plots) if plots else {}
    names = [f"\n![{data.title}]({name})\n" for data, name in zip(tables, images, strict=False)] or [""] * len(tables)
    text = "\n".join(to_markdown(data) + name for data, name in zip(tables, names, strict=True))
    return {
        MD_NAME: text,
        PAGE_NAME: leaderboard_page(tables),
        **{name: data for name, (_, data) in images.items()},
    }


def leaderboard_page(tables: Sequence[Table]) -> str:
    """Return the page as text. It works without a network and without scripts; it has charts if matplotlib is there."""
    entries = [
        {"table": data, "image": data_uri(bar_chart(data)) if can_draw() else "", "words": _in_words(data)}
        for data in tables
    ]
    return render_page("leaderboard.html.j2", _TITLE, entries=entries, pictures=can_draw())


def _in_words(data: Table) -> str:
    named = (f"{endpoint_name(data, row)}: {rounded(row.figures.median, data.decimals)}" for row in data.rows)
    return f"{data.title}, medians. {'; '.join(named)}"
