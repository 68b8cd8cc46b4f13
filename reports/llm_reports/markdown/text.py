"""Markdown text: sections, aligned tables, wrapped lists, escaping of text from files. It does not depend on runs."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence

from llm_reports.sections.section import Grid, Section, padded, plain

_WIDTH = 80


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
