"""The files of a leaderboard: its tables, a page with a bar chart of each, and the charts as images."""

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
    """Names and contents; ``plots`` is svg or png for image files besides, which the Markdown then shows."""
    images = {f"plot_{each.metric}.{plots}": _image(each, plots) for each in tables} if plots else {}
    shown = dict(zip([each.title for each in tables], images, strict=False))
    parts = []
    for each in tables:
        name = shown.get(each.title)
        parts.append(f"{to_markdown(each)}\n![{each.title}]({name})\n" if name else to_markdown(each))
    return {MD_NAME: "\n".join(parts), PAGE_NAME: leaderboard_page(tables), **images}


def chart(each: Table) -> list[Mark]:
    """The bar chart of one table, in its order."""
    found = [
        Bar(
            _name(each, row, [f"({row.load.tag})"] if each.load_columns is not None else []),
            row.figures.median,
            row.figures.p25,
            row.figures.p75,
            rounded(row.figures.median, each.decimals),
        )
        for row in each.rows
    ]
    return bars(each.title, each.title, found, _NOTE)


def leaderboard_page(tables: Sequence[Table]) -> str:
    """The page as text: it needs neither network nor script."""
    body = joined([element("h1", _TITLE), *(_section(place, each) for place, each in enumerate(tables))])
    return document(_TITLE, body)


def _section(place: int, each: Table) -> Markup:
    # As an image, so that the picture's own names (title, desc) do not meet those of the other one.
    data = base64.b64encode(svg(chart(each), each.title, _NOTE).encode()).decode("ascii")
    picture = Markup(f'<img src="data:image/svg+xml;base64,{data}" alt="{escaped(_in_words(each))}" class="picture">')
    return section(
        f"leaderboard-{place + 1}",
        each.title,
        element("p", each.subtitle, class_="soft") if each.subtitle else "",
        picture,
        table(each.title, each.header, each.cells, titled=True),
        notes_list(each.notes),
    )


def _in_words(each: Table) -> str:
    named = (f"{_name(each, row)}: {rounded(row.figures.median, each.decimals)}" for row in each.rows)
    return f"{each.title}, medians. {'; '.join(named)}"


def _name(each: Table, row: Row, more: Sequence[str] = ()) -> str:
    return " ".join([row.framework or "-", row.model or "-", *each.apart_words(row), *more])


def _image(each: Table, kind: str | None) -> str | bytes:
    return png(chart(each)) if kind == "png" else svg(chart(each), each.title, _NOTE)
