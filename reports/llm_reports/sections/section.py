"""The sections of a report as data, and their Markdown text: aligned tables, wrapped lists, escaped cells.

A section has a title with paragraphs, tables and lists of notes; the page shows the same data. Texts are plain, with
two marks: ``**word**`` for emphasis and backticks for code.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

_WIDTH = 80


@dataclass(frozen=True)
class Grid:
    """A table of texts; the columns in ``left`` contain words, the others contain numbers."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Collection[int] = ()

    def moved(self, name: str, position: int) -> Grid:
        """Return the table with a column at another position; without this column, the table is unchanged."""
        if name not in self.header:
            return self
        order = [index for index, other in enumerate(self.header) if other != name]
        order.insert(position, list(self.header).index(name))
        left = {order.index(index) for index in self.left}
        return Grid([self.header[i] for i in order], [[row[i] for i in order] for row in self.rows], left)


@dataclass(frozen=True)
class Section:
    """A title and its parts in order: a string is a paragraph, a list of strings is a list of notes."""

    title: str
    parts: Sequence[str | Grid | list[str]]


def padded(cells: Sequence[str], widths: Sequence[int], left: Collection[int]) -> list[str]:
    """Return cells with the widths of their columns; the columns in ``left`` are aligned left, the others right."""
    pairs = enumerate(zip(cells, widths, strict=True))
    return [cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in pairs]


def plain(text: str) -> str:
    """Return text from files on one line, without control characters that a terminal would interpret."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def section_text(section: Section) -> str:
    """Return a section with its heading; empty lists of notes are omitted."""
    parts = [f"## {section.title}"]
    for part in section.parts:
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, Grid):
            parts.append(aligned(part.header, part.rows, part.left))
        elif part:
            parts.append(bullets(part))
    return "\n\n".join(parts) + "\n"


def wrapped(text: str, first: str = "", other: str = "") -> str:
    """Return a text on lines of at most 80 columns; ``first`` and ``other`` begin its first and its other lines."""
    return textwrap.fill(
        plain(text),
        _WIDTH,
        initial_indent=first,
        subsequent_indent=other,
        break_long_words=False,
        break_on_hyphens=False,
    )


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int]) -> str:
    """Return a table with aligned columns; the columns in ``left`` contain text and are left-aligned."""
    head = [escaped(name) for name in header]
    lines = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    rule = ["-" * width if i in left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(padded(line, widths, left))} |" for line in [head, rule, *lines])


def bullets(texts: Iterable[str]) -> str:
    """Return a Markdown list, wrapped for a terminal."""
    return "\n".join(wrapped(text, "- ", "  ") for text in texts)


def escaped(text: str) -> str:
    """Escape the text of a table cell. A cell that consists of code keeps its < and >."""
    is_code = len(text) > 2 and text[0] == text[-1] == "`" and "`" not in text[1:-1]
    cell = plain(text).replace("|", "\\|")
    return cell if is_code else cell.replace("<", "&lt;")
