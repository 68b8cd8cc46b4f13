"""The sections about failures: errors by class with examples, and the excluded rows with the reasons."""

from __future__ import annotations

from collections.abc import Sequence

from pandas import DataFrame, concat

from llm_reports.content import Content
from llm_reports.export.summary import COLUMNS, summary_lines
from llm_reports.html.elements import Markup, element, folded, joined, notes_list, section, table
from llm_reports.markdown.text import plain
from llm_reports.metrics.outcomes import succeeded
from llm_users.record import COL, cell

_EXAMPLES = 3
_LONGEST = 400  # characters of an example; a message may hold a whole response body
_MOST_CODES = 100


def errors_section(content: Content, labels: Sequence[str]) -> Markup:
    """Return the section with the errors by class, the most frequent first, with their stages and example messages."""
    rows = []
    total = 0
    for label, group in zip(labels, content.groups, strict=True):
        failed = group.measured[~succeeded(group.measured[COL.error_code])]
        total += len(group.measured)
        rows.append(failed.assign(_stage=label))
    frames = [frame for frame in rows if len(frame)]
    if not frames:
        return section("errors", "Errors", element("p", "No measured request failed."))
    failed = concat(frames)
    counts = sorted(failed[COL.error_code].value_counts().items(), key=lambda item: (-item[1], str(item[0])))
    lines = [_class(str(code), failed[failed[COL.error_code] == code], total) for code, _ in counts[:_MOST_CODES]]
    unlisted = f" {len(counts) - _MOST_CODES} rarer classes are not listed." if len(counts) > _MOST_CODES else ""
    all_counts = [group.counts for group in content.groups]
    cancelled_count = sum(tally.cancelled for tally in all_counts)
    cancelled = f", {cancelled_count:,} cancelled by the client (--llm-cancel)" if cancelled_count else ""
    words = (
        f"{len(failed):,} of {total:,} measured requests did not succeed, in {len(counts)} classes: "
        f"{sum(tally.throttled for tally in all_counts):,} throttled, "
        f"{sum(tally.failed_otherwise for tally in all_counts):,} failed otherwise, "
        f"{sum(tally.aborted for tally in all_counts):,} aborted by the end of the stage or the test{cancelled}."
        f"{unlisted}"
    )
    header = ("Class", "Requests", "Share (%)", "Where", "Examples")
    return section(
        "errors",
        "Errors",
        element("p", words),
        table("Measured requests that did not succeed", header, lines, texts=("Where", "Examples"), id_="errors-table"),
    )


def excluded_section(content: Content, labels: Sequence[str]) -> Markup:
    """Return the section with the numbers of counted and excluded rows and the reasons."""
    header = (
        "Stage",
        "Rows",
        "Measured",
        "Counted",
        "Throttled",
        "Failed otherwise",
        "Aborted",
        "Cancelled",
        "Outside the measured phase",
        "Of these",
    )
    lines = []
    for label, group in zip(labels, content.groups, strict=True):
        counts = group.counts
        phases = ", ".join(f"{count} in {phase or 'an unnamed phase'}" for phase, count in counts.unmeasured_phases)
        outside = counts.rows - counts.measured
        lines.append(
            [
                label,
                counts.rows,
                counts.measured,
                counts.ok,
                counts.throttled,
                counts.failed_otherwise,
                counts.aborted,
                counts.cancelled,
                outside,
                phases or "-",
            ]
        )
    notes = dict.fromkeys(note for content_table in content.tables for note in content_table.notes)
    return section(
        "excluded",
        "Counted and excluded requests",
        element(
            "p",
            "Figures include requests that started in the measured phase of a stage and succeeded. All other rows are "
            "still in the rows file.",
        ),
        table("Rows by outcome", header, lines, texts=("Of these",), id_="excluded-table"),
        notes_list(notes),
    )


def figures_section(content: Content) -> Markup:
    """Return the section with all cells of summary.csv."""
    rows = [[cell(value) for value in line.values()] for line in summary_lines(content.groups)]
    return section(
        "figures",
        "All figures",
        folded(
            "Every metric of every stage, as in summary.csv",
            table("The content of summary.csv", COLUMNS, rows, id_="summary"),
        ),
    )


def _class(code: str, rows: DataFrame, total: int) -> list[object]:
    stages = rows["_stage"].value_counts(sort=False)
    where = ", ".join(f"{stage}: {count}" for stage, count in stages.items())
    messages = rows[COL.error_message].map(lambda message: plain(str(message))).value_counts()
    examples = sorted(messages.items(), key=lambda item: (-item[1], str(item[0])))
    shown = [
        element(
            "li",
            joined(
                [
                    _cut(str(message) or "no message"),
                    element("span", f"({count} times)" if count > 1 else "", class_="soft"),
                ],
                " ",
            ),
        )
        for message, count in examples[:_EXAMPLES]
    ]
    if len(examples) > _EXAMPLES:
        shown.append(element("li", f"and {len(examples) - _EXAMPLES} other messages", class_="soft"))
    return [code, len(rows), f"{100 * len(rows) / total:.1f}", where, element("ul", joined(shown), class_="notes")]


def _cut(message: str) -> str:
    return message if len(message) <= _LONGEST else f"{message[:_LONGEST]} ... ({len(message):,} characters)"
