"""The files of a leaderboard: its tables, a page with a bar chart per table, and the charts as images."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from llm_reports.html.document import document
from llm_reports.html.elements import Markup, element, escaped, joined, notes_list, section, table
from llm_reports.llmperf.tables import Row, Table, rounded
from llm_reports.markdown.report import to_markdown
from llm_reports.plots.bars import Bar, bars
from llm_reports.plots.drawing import Mark
from llm_reports.plots.png import png
from llm_reports.plots.svg import svg

MD_NAME, PAGE_NAME = "leaderboard.md", "leaderboard.html"
_TITLE = "LLM leaderboard"
_NOTE = "Bars: medians. Lines: from the 25th to the 75th percentile of the requests."


def leaderboard_files(tables: Sequence[Table], plots: str | None = None) -> dict[str, str | bytes]:
    """Return names and contents. ``plots`` is svg or png to add image files, which the Markdown then shows."""
    images = {f"plot_{data.metric}.{plots}": _image(data, plots) for data in tables} if plots else {}
    shown = dict(zip([data.title for data in tables], images, strict=False))
    parts = []
    for data in tables:
        name = shown.get(data.title)
        parts.append(f"{to_markdown(data)}\n![{data.title}]({name})\n" if name else to_markdown(data))
    return {MD_NAME: "\n".join(parts), PAGE_NAME: leaderboard_page(tables), **images}


def chart(data: Table) -> list[Mark]:
    """Return the bar chart of one table, in the order of its rows."""
    table_bars = [
        Bar(
            _name(data, row, [f"({row.load.tag})"] if data.load_columns is not None else []),
            row.figures.median,
            row.figures.p25,
            row.figures.p75,
            rounded(row.figures.median, data.decimals),
        )
        for row in data.rows
    ]
    return bars(data.title, data.title, table_bars, _NOTE)


def leaderboard_page(tables: Sequence[Table]) -> str:
    """Return the page as text. It works without a network and without scripts."""
    body = joined([element("h1", _TITLE), *(_section(index, data) for index, data in enumerate(tables))])
    return document(_TITLE, body)


def _section(index: int, data: Table) -> Markup:
    # The chart is an image, so that its ids (title, desc) do not collide with those of the other chart.
    encoded = base64.b64encode(svg(chart(data), data.title, _NOTE).encode()).decode("ascii")
    alt = escaped(_in_words(data))
    picture = Markup(f'<img src="data:image/svg+xml;base64,{encoded}" alt="{alt}" class="picture">')
    return section(
        f"leaderboard-{index + 1}",
        data.title,
        element("p", data.subtitle, class_="soft") if data.subtitle else "",
        picture,
        table(data.title, data.header, data.cells, titled=True),
        notes_list(data.notes),
    )


def _in_words(data: Table) -> str:
    named = (f"{_name(data, row)}: {rounded(row.figures.median, data.decimals)}" for row in data.rows)
    return f"{data.title}, medians. {'; '.join(named)}"


def _name(data: Table, row: Row, more: Sequence[str] = ()) -> str:
    return " ".join([row.framework or "-", row.model or "-", *data.apart_words(row), *more])


def _image(data: Table, kind: str | None) -> str | bytes:
    return png(chart(data)) if kind == "png" else svg(chart(data), data.title, _NOTE)
