"""``report.md`` and what is printed: the tables as aligned Markdown, their notes, and a short word on each run."""

from __future__ import annotations

import contextlib
import dataclasses
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from reports.llmperf_tables import Table
from reports.run import Run

if TYPE_CHECKING:
    from reports.report import Content

FILE_NAME = "report.md"
_WIDTH = 80
_NAME_COLUMNS = ("Framework", "Model")


def markdown(table: Table) -> str:
    """A table under its heading, columns padded just enough to stand in line, and its notes as a list below."""
    header = [_escaped(name) for name in table.header]
    lines = [[_escaped(cell) for cell in row] for row in table.cells]
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    left = [name in _NAME_COLUMNS for name in table.header]
    rule = ["-" * width if is_left else "-" * (width - 1) + ":" for width, is_left in zip(widths, left, strict=True)]
    rows = [_line(header, widths, left), _line(rule, widths, left), *(_line(line, widths, left) for line in lines)]
    parts = [f"## {table.title}", "\n".join(rows)]
    if table.notes:
        parts.append(bullets(table.notes))
    return "\n\n".join(parts) + "\n"


def tables_and_notes(content: Content) -> str:
    """What goes to stdout: the two tables, their notes, then what loading had to say."""
    parts = [markdown(table) for table in _saying_notes_once(content.tables)]
    if content.warnings:
        parts.append(f"## Warnings\n\n{bullets(content.warnings)}\n")
    return "\n".join(parts)


def all_notes(content: Content) -> str:
    """The notes of all tables and the warnings as one list, for formats without tables; "" when there are none."""
    notes = dict.fromkeys([*(note for table in content.tables for note in table.notes), *content.warnings])
    return f"{bullets(notes)}\n" if notes else ""


def files(content: Content) -> dict[str, str]:
    """The files of this format: name and text."""
    runs = bullets(_described(run) for run in content.runs)
    return {FILE_NAME: f"# LLM load test\n\n{runs}\n\n{tables_and_notes(content)}"}


def bullets(texts: Iterable[str]) -> str:
    """A Markdown list, wrapped for a terminal."""
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
    """Text from files on one line, without control characters that a terminal would obey."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _saying_notes_once(tables: Iterable[Table]) -> Iterator[Table]:
    """The tables, without the notes that stand under an earlier one but with a word that they hold here too."""
    said: set[str] = set()
    for table in tables:
        fresh = [note for note in table.notes if note not in said]
        repeated = () if len(fresh) == len(table.notes) else ("See the notes above.",)
        said.update(fresh)
        yield dataclasses.replace(table, notes=(*fresh, *repeated))


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = [
        cell.ljust(width) if is_left else cell.rjust(width)
        for cell, width, is_left in zip(cells, widths, left, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def _escaped(text: str) -> str:
    return plain(text).replace("|", "\\|").replace("<", "&lt;")


def _described(run: Run) -> str:
    rows = run.requests
    measured = rows[rows["measured"] == 1]
    succeeded = int(measured["error_code"].isin(["", "buffered"]).sum())
    parts = [f"**{_escaped(run.name)}**"]
    for column, called in (("framework", "framework"), ("model", "model"), ("api", "API")):
        names = sorted({_escaped(str(name)) for name in rows[column] if name})
        if names:
            parts.append(f"{called} {', '.join(names)}")
    levels = sorted({int(level) for level in rows["concurrency"].dropna()})
    if levels:
        parts.append(f"concurrency {', '.join(map(str, levels))}")
    parts.append(f"{len(measured)} measured requests, {succeeded} of them successful")
    started = rows["started_at"].dropna()
    with contextlib.suppress(ValueError, OverflowError, OSError):  # no rows, or a stamp that is no time of this world
        parts.append(f"started {datetime.fromtimestamp(float(started.min()), UTC):%Y-%m-%d %H:%M:%S} UTC")
    return "; ".join(parts) + "."
