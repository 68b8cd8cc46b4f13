"""The first sections of the page: the verdict, the highest load, and the summary of every stage.

A verdict has a word, a sign and a colour, so that readers do not depend on the colour.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from llm_reports.content import Content
from llm_reports.html.elements import Markup, element, escaped, joined, listed, section, table
from llm_reports.markdown.summary_table import TITLE, summary_cells, summary_header, summary_notes
from llm_reports.metrics.goodput import highest, knee, sweeps
from llm_reports.metrics.load_search import search_of
from llm_users.record import UNSTEADY
from llm_users.verdict import Verdict

_SIGNS = {Verdict.PASSED: "✓", Verdict.FAILED: "✗", Verdict.UNDECIDED: "?"}
_NOT_WELL = ("saturated", "disturbed", "strained")
_MOST_REASONS = 3


def verdict_of(word: str) -> Verdict | None:
    """Return the verdict in a table cell, with or without parentheses; ``None`` for any other word."""
    return next((verdict for verdict in Verdict if verdict == word.strip("()")), None)


def verdict_mark(word: str) -> Markup:
    """Return a verdict as a coloured word with its sign; other words unchanged."""
    kind = verdict_of(word)
    if kind is None:
        return Markup(escaped(word))
    sign = element("span", _SIGNS[kind], aria_hidden="true", class_="sign")
    return element("span", joined([sign, word], " "), class_=f"verdict {kind}")


def health_mark(state: str) -> Markup:
    """Return client health, and the mark of an unsteady stage, as coloured words."""
    words = state.split(", ")
    marks = (element("span", word, class_=f"word {word}") if word != "-" else Markup("-") for word in words)
    return joined(marks, ", ")


def answer_section(content: Content) -> Markup:
    """Return the section with the verdict, the highest load, and warnings about stages limited by the client."""
    parts = [*_verdict(content), *_loads(content), *_reservations(content)]
    no_result = "To get a verdict, set objectives with --slo. A knee requires three load levels."
    return section("answer", "Result", *(parts or [element("p", no_result, class_="soft")]))


def summary_section(content: Content) -> Markup:
    """Return the section with the summary of every stage."""
    lines = content.summary
    if not lines:
        return section("stages", TITLE, element("p", "No request was measured."))
    header = summary_header(lines)
    rows = [[*row[:-1], health_mark(row[-1])] for row in summary_cells(lines)]
    # The client column is next to the names and the load, so that the mark of a stage is visible without scrolling.
    first = header.index("Requests ok")
    order = [*range(first), len(header) - 1, *range(first, len(header) - 1)]
    summary_table = table(
        TITLE, [header[i] for i in order], [[row[i] for i in order] for row in rows], id_="summary-table", titled=True
    )
    return section("stages", TITLE, summary_table, listed(summary_notes(lines)))


def _verdict(content: Content) -> list[Markup]:
    gate = content.gate
    if gate is None:
        return []
    kind = gate.verdict
    head = joined([element("span", _SIGNS[kind], aria_hidden="true", class_="sign"), kind.capitalize()], " ")
    parts: list[object] = [element("p", head, class_="word"), element("p", element("code", gate.objectives.text))]
    parts.append(listed(gate.reasons[:_MOST_REASONS]))
    if len(gate.reasons) > _MOST_REASONS:
        parts.append(element("p", f"{len(gate.reasons) - _MOST_REASONS} more reasons are listed below.", class_="soft"))
    return [element("div", joined(parts), class_=f"card {kind}", role="status")]


def _loads(content: Content) -> Iterable[Markup]:
    """Yield the highest load: from the load search, else by the objectives, else the knee of the curve."""
    searches = [(run.name, search) for run in content.runs if (search := search_of(run)) is not None]
    for name, search in searches:
        named = f"{name}: " if len(content.runs) > 1 else ""
        yield element("p", f"{named}{_plain(search.conclusion)}", class_="load")
    if searches:
        return
    all_sweeps = sweeps(content.points)
    for sweep in all_sweeps:
        choice = highest(sweep) if content.objectives is not None else knee(sweep)
        if choice.point is None and content.objectives is None:
            continue
        group = sweep[0].group
        named = f" of {group.run.name} {group.model}".rstrip() if len(all_sweeps) > 1 else ""
        load = "none" if choice.point is None else choice.point.load.words
        yield element("p", joined([f"{choice.name}{named}:", element("strong", load)], " "), class_="load")


def _reservations(content: Content) -> Iterable[Markup]:
    """Yield warnings about stages whose figures do not show the endpoint."""
    lines = content.summary
    for word, text in (
        *((health, f"The client was {health}") for health in _NOT_WELL),
        (UNSTEADY, "The queue grew through the window (unsteady)"),
    ):
        names = [
            f"{line.group.run.name} {line.group.load.words}" if len(content.runs) > 1 else line.group.load.words
            for line in lines
            if line.health == word or (word == UNSTEADY and line.unsteady)
        ]
        if names:
            sign = element("span", "!", aria_hidden="true", class_="sign")
            yield element("p", joined([sign, f"{text}: {', '.join(names)}."], " "), class_="reservation")


def _plain(text: str) -> str:
    return re.sub(r"\*\*|`", "", text)
