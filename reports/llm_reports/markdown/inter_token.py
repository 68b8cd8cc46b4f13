"""The gaps between the events of answers as a table, and that table in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llm_reports.markdown.text import aligned, bullets
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.groups import Group
from llm_reports.metrics.inter_token import gaps_of, name_of, note_of

_FIGURES = {"median": "median", "p90": "P90", "p95": "P95", "p99": "P99", "max": "max"}


def gaps_cells(groups: Sequence[Group]) -> tuple[list[str], list[list[str]]]:
    """Return header and lines of a table of the gaps, in milliseconds; the lines are empty when there are no gaps."""
    gaps = gaps_of(groups)
    name = name_of(gaps).capitalize()
    header = ["", "Tokens per event", "Gaps", *(f"{name} {figure} (ms)" for figure in _FIGURES.values())]
    names = [label or "all requests" for label in labels(groups)]
    lines = [
        [
            names[stage_gaps.place],
            "-" if math.isnan(stage_gaps.tokens_per_event) else f"{stage_gaps.tokens_per_event:.2f}",
            str(stage_gaps.figures.n),
            *(f"{getattr(stage_gaps.figures, figure) * 1000:.2f}" for figure in _FIGURES),
        ]
        for stage_gaps in gaps
    ]
    return header, lines


def gaps_section(groups: Sequence[Group]) -> str:
    """Return the table in Markdown; "" when the run has no gaps."""
    header, lines = gaps_cells(groups)
    if not lines:
        return ""
    gaps = gaps_of(groups)
    title = f"{name_of(gaps).capitalize()} gaps"
    return f"## {title}\n\n{aligned(header, lines, left={0})}\n\n{bullets([note_of(gaps)])}\n"
