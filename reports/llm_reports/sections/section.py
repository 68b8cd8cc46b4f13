"""The sections of a report as data: a title with paragraphs, tables and lists of notes. Markdown and HTML show them.

Texts are plain, with two marks: ``**word**`` for emphasis and backticks for code.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


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
