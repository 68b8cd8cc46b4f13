"""Conversion of the report's Markdown to HTML, so that the page uses the same text as report.md.

Supports only the Markdown that ``markdown.text`` writes: headings, aligned tables, lists, paragraphs, ``**`` and
backticks.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from llm_reports.html.elements import Markup, element, joined, notes_list, table
from llm_reports.html.overview import verdict_mark

_CELL = re.compile(r"(?<!\\)\|")
_STRONG = re.compile(r"\*\*(.+?)\*\*")
_VERDICT = "Verdict"  # the column of report.md's tables that contains passed, failed or undecided
_MOST_ITEMS = 8  # longer lists are folded
_CODE = re.compile(r"`([^`]+)`")


def as_html(text: str, *, headings: bool = True, most_items: int = _MOST_ITEMS) -> Markup:
    """Return the blocks of a text as HTML, in order; lists of more than ``most_items`` are folded."""
    title = ""
    elements = []
    for block in _blocks(text):
        if block.startswith("#"):
            title = _plain(block.lstrip("# "))
            if headings:
                elements.append(element("h3", _inline(block.lstrip("# "))))
        elif block.startswith("|"):
            elements.append(_table(title, block))
        elif block.startswith("- "):
            items = re.split(r"\n(?=- )", block)
            elements.append(notes_list((_inline(" ".join(item[2:].split())) for item in items), most_items))
        else:
            elements.append(element("p", _inline(" ".join(block.split()))))
    return joined(elements)


def _blocks(text: str) -> Iterator[str]:
    yield from (block.strip("\n") for block in re.split(r"\n\s*\n", text) if block.strip())


def _table(title: str, block: str) -> Markup:
    lines = [[cell.strip() for cell in _CELL.split(line.strip()[1:-1])] for line in block.splitlines()]
    header, _, *rows = lines
    names = [_CODE.sub(r"\1", _plain(name)) for name in header]
    cells: list[list[Markup]] = [[_inline(cell) for cell in row] for row in rows]
    if _VERDICT in names:
        # The verdict column is next to the row's name, where a narrow window and paper show it.
        position = names.index(_VERDICT)
        order = (
            [0, position, *(i for i in range(1, len(names)) if i != position)] if position else list(range(len(names)))
        )
        names = [names[i] for i in order]
        for row, row_cells in zip(rows, cells, strict=True):
            row_cells[position] = verdict_mark(_plain(row[position]))
        cells = [[row_cells[i] for i in order] for row_cells in cells]
    return table(title, names, cells, titled=True)


def _inline(text: str) -> Markup:
    safe = html.escape(_plain(text))
    return Markup(_STRONG.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", safe)))


def _plain(text: str) -> str:
    """Undo the escaping of ``markdown.text.escaped``."""
    return text.replace("\\|", "|").replace("&lt;", "<")
