"""The report's own Markdown as HTML, so that what report.md decides is said in the page in the same words.

Knows what ``markdown.text`` writes and no more: headings, aligned tables, lists, paragraphs, ``**`` and backticks.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from llm_reports.html.elements import Markup, element, joined, notes_list, table
from llm_reports.html.overview import verdict_mark

_CELL = re.compile(r"(?<!\\)\|")
_STRONG = re.compile(r"\*\*(.+?)\*\*")
_VERDICT = "Verdict"  # the column of report.md's tables that says passed, failed or undecided
_MOST_ITEMS = 8  # of a list that is not folded
_CODE = re.compile(r"`([^`]+)`")


def as_html(text: str, *, headings: bool = True, most_items: int = _MOST_ITEMS) -> Markup:
    """The blocks of a text, one after the other; lists of more than ``most_items`` are folded."""
    title = ""
    made = []
    for block in _blocks(text):
        if block.startswith("#"):
            title = _plain(block.lstrip("# "))
            if headings:
                made.append(element("h3", _inline(block.lstrip("# "))))
        elif block.startswith("|"):
            made.append(_table(title, block))
        elif block.startswith("- "):
            items = re.split(r"\n(?=- )", block)
            made.append(notes_list((_inline(" ".join(item[2:].split())) for item in items), most_items))
        else:
            made.append(element("p", _inline(" ".join(block.split()))))
    return joined(made)


def _blocks(text: str) -> Iterator[str]:
    yield from (block.strip("\n") for block in re.split(r"\n\s*\n", text) if block.strip())


def _table(title: str, block: str) -> Markup:
    lines = [[cell.strip() for cell in _CELL.split(line.strip()[1:-1])] for line in block.splitlines()]
    header, _, *rows = lines
    names = [_CODE.sub(r"\1", _plain(name)) for name in header]
    cells: list[list[Markup]] = [[_inline(cell) for cell in row] for row in rows]
    if _VERDICT in names:
        # The verdict stands right after the row's name, where a narrow window and paper show it.
        at = names.index(_VERDICT)
        order = [0, at, *(i for i in range(1, len(names)) if i != at)] if at else list(range(len(names)))
        names = [names[i] for i in order]
        for row, made in zip(rows, cells, strict=True):
            made[at] = verdict_mark(_plain(row[at]))
        cells = [[made[i] for i in order] for made in cells]
    return table(title, names, cells, titled=True)


def _inline(text: str) -> Markup:
    safe = html.escape(_plain(text))
    return Markup(_STRONG.sub(r"<strong>\1</strong>", _CODE.sub(r"<code>\1</code>", safe)))


def _plain(text: str) -> str:
    """The text before ``markdown.text.escaped`` made it fit for Markdown."""
    return text.replace("\\|", "|").replace("&lt;", "<")
