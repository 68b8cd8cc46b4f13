"""A comparison in Markdown, and as the cases of a JUnit file."""

from __future__ import annotations

import math

from reports.comparison import ERROR_RATIO, LEVEL, NOISE, REFUSED, REGRESSION, WORSE, Comparison, Difference
from reports.junit import Case
from reports.md_text import aligned, bullets
from reports.stage_load import LoadColumns, load_columns
from reports.verdict import MET, MISSED, shown
from reports.verdict import REFUSED as NOT_DECIDED
from reports.verdict_md import between, number

METHOD = (
    "p: how often blocks of time, shuffled between both runs, differ as much by chance in any line of this table "
    f"(Westfall and Young). Below {LEVEL:g} it is more than noise. Intervals: 95 %, by drawing blocks, each line on "
    "its own."
)
ONE_RUN = (
    "Both sides are single runs: what changes from run to run (another machine, another hour) is not in the noise. "
    "Alternate runs of both before trusting a small difference."
)


def comparison_text(comparison: Comparison) -> str:
    """The table, what it means, and the verdict."""
    base, *others = comparison.runs
    title = f"## {base.name} against {', '.join(run.name for run in others)}"
    columns = load_columns(each.other.load for each in comparison.differences)
    several, models = len(others) > 1, len({(each.other.model) for each in comparison.differences}) > 1
    header = [
        *(["Run"] if several else []),
        *(["Model"] if models else []),
        *columns.header,
        "Figure",
        "Before",
        "After",
        "Difference (95 %)",
        "Ratio (95 %)",
        "p",
        "Verdict",
    ]
    names = int(several) + int(models)
    figure = names + len(columns.header)
    rows = [_cells(each, several, models, columns) for each in comparison.differences]
    table = aligned(header, rows, left={*range(names), figure, figure + 6})
    notes = [METHOD, ONE_RUN, *comparison.notes, *dict.fromkeys(_reasons(comparison))]
    return f"{title}\n\n{table}\n\n{bullets(notes)}\n\n{verdict(comparison)}\n"


def verdict(comparison: Comparison) -> str:
    """One line: what came out."""
    real = [each for each in comparison.differences if each.outcome not in (NOISE, REFUSED)]
    worse = [each for each in real if each.outcome in (WORSE, REGRESSION)]
    found = f"{len(real)} of {len(comparison.differences)} differences are more than noise, {len(worse)} for the worse."
    if comparison.threshold is None:
        return found
    limit = f"{100 * comparison.threshold:g} %"
    if comparison.regressions:
        named = ", ".join(_named(each) for each in comparison.regressions)
        return f"{found} **Regression** by more than {limit}: {named}."
    if comparison.refused:
        return f"{found} **Refused**: {'; '.join(dict.fromkeys(each.reason for each in comparison.refused))}."
    hidden = [
        each for each in comparison.differences if each.outcome == NOISE and _may_hide(each, comparison.threshold)
    ]
    unsure = f" {len(hidden)} intervals reach beyond it, so more requests could show one." if hidden else ""
    return f"{found} No regression by more than {limit}.{unsure}"


def cases(comparison: Comparison) -> list[Case]:
    """A case for each difference; without a threshold none fails."""
    outcomes = {REGRESSION: MISSED, REFUSED: NOT_DECIDED} if comparison.threshold is not None else {}
    return [
        Case(
            f"{each.other.run.name}.{each.other.load.words}",
            f"{each.metric} {each.figure}".strip(),
            outcomes.get(each.outcome, MET),
            each.reason or f"{_shown(each, each.before)} to {_shown(each, each.after)}, p {each.p:.4f}: {each.outcome}",
        )
        for each in comparison.differences
    ]


def _cells(each: Difference, several: bool, models: bool, columns: LoadColumns) -> list[str]:
    return [
        *([each.other.run.name] if several else []),
        *([each.other.model or "-"] if models else []),
        *columns.cells(each.other.load),
        f"{each.metric} {each.figure}".strip(),
        _shown(each, each.before),
        _shown(each, each.after),
        _with_interval(_shown(each, each.difference, "+"), between(each.difference_interval, number)),
        _with_interval(number(each.ratio), between(each.ratio_interval, number)),
        "-" if math.isnan(each.p) else f"{each.p:.4f}",
        each.outcome,
    ]


def _shown(each: Difference, value: float, sign: str = "") -> str:
    if each.metric == ERROR_RATIO:
        return shown(value, "")
    text = number(value)
    return f"+{text}" if sign and value > 0 else text


def _with_interval(figure: str, interval: str) -> str:
    return figure if interval == "-" else f"{figure} ({interval})"


def _named(each: Difference) -> str:
    change = shown(each.difference, "") if each.metric == ERROR_RATIO else f"{100 * (each.ratio - 1):+.1f} %"
    return f"{each.metric} {each.figure}{each.other.load.at} ({change})".replace("  ", " ")


def _reasons(comparison: Comparison) -> list[str]:
    return [f"Refused: {each.reason}." for each in comparison.refused]


def _may_hide(each: Difference, threshold: float) -> bool:
    interval = each.ratio_interval
    if not math.isnan(each.worsening) and each.metric != ERROR_RATIO:
        return interval.high > 1 + threshold if not _more_is_better(each) else interval.low < 1 - threshold
    return False


def _more_is_better(each: Difference) -> bool:
    return "throughput" in each.metric
