"""Markdown text: aligned tables, wrapped lists, escaping of text from files. This module does not depend on runs."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence

_WIDTH = 80


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int]) -> str:
    """Return a table with aligned columns; the columns in ``left`` contain text and are left-aligned."""
    head = [escaped(name) for name in header]
    lines = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    rule = ["-" * width if i in left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join(_line(line, widths, left) for line in [head, rule, *lines])


def bullets(texts: Iterable[str]) -> str:
    """Return a Markdown list, wrapped for a terminal."""
    return "\n".join(
        textwrap.fill(
            plain(text),
            _WIDTH,
            initial_indent="- ",
            subsequent_indent="  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for text in texts
    )


def plain(text: str) -> str:
    """Return text from files on one line, without control characters that a terminal would interpret."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def escaped(text: str) -> str:
    """Escape the text of a table cell. A cell that consists of code keeps its < and >."""
    if len(text) > 2 and text[0] == text[-1] == "`" and "`" not in text[1:-1]:
        return plain(text).replace("|", "\\|")
    return plain(text).replace("|", "\\|").replace("<", "&lt;")


def _line(cells: Sequence[str], widths: Sequence[int], left: Collection[int]) -> str:
    padded = [
        cell.ljust(width) if i in left else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
