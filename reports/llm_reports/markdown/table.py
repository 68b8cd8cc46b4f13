"""A table with its heading and its notes as Markdown. This module does not load pandas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_reports.llmperf.tables import Table
from llm_reports.metrics.distinctions import TEXT_COLUMNS
from llm_reports.sections.section import aligned, bullets

if TYPE_CHECKING:
    from llm_reports.metrics.open_loop import RateTable

_NAME_COLUMNS = ("Framework", "Model", *TEXT_COLUMNS)


def to_markdown(table: Table | RateTable, notes: Sequence[str] | None = None) -> str:
    """Return a table with its heading, aligned columns, and its notes, or the given ones, as a list below."""
    left = {index for index, name in enumerate(table.header) if name in _NAME_COLUMNS}
    parts = [f"## {table.title}"]
    if table.subtitle:
        parts.append(table.subtitle)
    parts.append(aligned(table.header, table.cells, left))
    if notes := table.notes if notes is None else notes:
        parts.append(bullets(notes))
    return "\n\n".join(parts) + "\n"
