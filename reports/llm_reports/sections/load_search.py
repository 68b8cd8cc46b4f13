"""The load search as a section and as CSV: its result and a table of all load levels that it tried."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable

from llm_reports.metrics.load_search import Search, search_of
from llm_reports.run import Run
from llm_reports.sections.section import Grid, Section
from llm_reports.slo.gate import Judgement
from llm_users.number_words import counted
from llm_users.record import COL, cell
from llm_users.verdict import Verdict

_COLUMNS = (
    "level", "unit", "stages", "requests", "failed", "objective", "n", "value", "ci_low", "ci_high", "outcome",
    "passed", "decided", COL.output_throughput_token_per_s,
)  # fmt: skip


def search_sections(runs: Iterable[Run]) -> list[Section]:
    """Return the sections of the load searches among the runs."""
    searches = [(run.name, search) for run in runs if (search := search_of(run)) is not None]
    return [_section(search, name if len(searches) > 1 else "") for name, search in searches]


def find_csv(search: Search) -> str:
    """Return the CSV text with one line per level and objective."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for level in search.levels:
        verdict, decided = search.counted[level.level]
        for judgement in level.judgements:
            ends = [end if math.isfinite(end) else None for end in (judgement.interval.low, judgement.interval.high)]
            value = judgement.estimate if math.isfinite(judgement.estimate) else None
            tokens = level.tokens_per_s if math.isfinite(level.tokens_per_s) else None
            line = [
                level.level, search.unit, " ".join(map(str, level.stages)), level.requests, level.failed,
                judgement.objective.text, judgement.n, value, *ends, judgement.verdict,
                int(verdict is Verdict.PASSED), int(decided), tokens,
            ]  # fmt: skip
            writer.writerow([cell(value) for value in line])
    return text.getvalue()


def _section(search: Search, name: str) -> Section:
    texts = [objective.text for objective in search.objectives.all]
    header = [search.unit.capitalize(), "Stages", "Requests", *(f"`{text}`" for text in texts), "Verdict", "Tokens/s"]
    by_text = [{judgement.objective.text: judgement for judgement in level.judgements} for level in search.levels]
    rows = [
        [
            f"{level.level:g}" + (" *" if level.level == search.found else ""),
            " ".join(map(str, level.stages)),
            str(level.requests),
            *(_figure(judgements.get(text)) for text in texts),
            search.word(level),
            f"{level.tokens_per_s:.0f}" if math.isfinite(level.tokens_per_s) else "-",
        ]
        for level, judgements in zip(search.levels, by_text, strict=True)
    ]
    notes = [
        *search.reservations,
        "Objective columns: the figure and its 95 % interval over all stages of a level. `at least` and `at most` name "
        "the only end of the interval that the requests determine. Without an interval, there are too few independent "
        "requests.",
        "`*`: the result, the highest load whose verdict is passed and that is below the lowest failing load.",
    ]
    if any(not decided for _, decided in search.counted.values()):
        notes.append(
            "Undecided: the interval contains the limit, the level has too few independent requests, its stages are "
            "too short to show a growing queue, or the client was the limit. The words in parentheses say whether the "
            "figures alone are within the limits."
        )
    notes.extend(
        f"{_load(level.level, search.unit)}: {level.reason}"
        for level in search.levels
        if level.fails_too_often or level.unsteady
    )
    title = f"The highest load{f' of {name}' if name else ''}"
    return Section(title, [search.conclusion, Grid(header, rows, {1, 3 + len(texts)}), notes])


def _figure(judgement: Judgement | None) -> str:
    if judgement is None or math.isnan(judgement.estimate):
        return "-"
    low, high = judgement.interval.low, judgement.interval.high
    value = f"{judgement.estimate:.3g}"
    if math.isfinite(low) and math.isfinite(high):
        return f"{value} ({low:.3g}-{high:.3g})"
    if math.isfinite(low):
        return f"{value} (at least {low:.3g})"
    return f"{value} (at most {high:.3g})" if math.isfinite(high) else value


def _load(level: float, unit: str) -> str:
    return counted(level, "user") if unit == "users" else f"{level:g} {unit}"
