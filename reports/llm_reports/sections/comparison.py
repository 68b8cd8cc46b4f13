"""A comparison as a section and as the cases of a JUnit file. The verdict comes first, then the table and the notes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from llm_reports.compare.comparison import Comparison
from llm_reports.compare.difference import BETTER, LEVEL, UNCLEAR, WORSE, Difference
from llm_reports.metrics.stage_load import load_columns
from llm_reports.sections.numbers import number, percent
from llm_reports.sections.section import Grid, Section
from llm_reports.slo.junit import Case
from llm_reports.stats.intervals import Interval
from llm_users.verdict import Verdict

BLOCKS = (
    "p: the probability that time blocks, shuffled between both runs, differ as much by chance in any line of this "
    f"table (Westfall and Young). Better and worse mean p below {LEVEL:g} and a 95 % interval without 0. Intervals: "
    "block resampling, separately for each line; for shares: Newcombe."
)
_LISTED = 4  # number of lines that the verdict lists; the table contains all lines
_NARROW = 0.005  # interval width (a share) below which one decimal of a percentage is too coarse


def comparison_section(comparison: Comparison) -> Section:
    """Return the verdict, the table, and explanatory notes."""
    columns = load_columns(line.other.load for line in comparison.differences)
    several = len({line.other_names for line in comparison.differences}) > 1
    models = len({(line.other.model) for line in comparison.differences}) > 1
    header = [*(["Run"] if several else []), *(["Model"] if models else []), *columns.header, "Figure"]
    header += ["Before", "After", "Difference (95 %)", "Change (95 %)", "p", "Verdict"]
    texts = int(several) + int(models)
    figure = texts + len(columns.header)
    rows = [
        [
            *([line.other_names] if several else []),
            *([line.other.model or "-"] if models else []),
            *columns.cells(line.other.load),
            line.name,
            _value(line, line.before),
            _value(line, line.after),
            _difference(line),
            "-" if line.is_share else _change(line),
            _p(line),
            _verdict(line),
        ]
        for line in comparison.differences
    ]
    by_runs = any(line.by_runs for line in comparison.differences)
    names_by_reason: dict[tuple[str, str], list[str]] = {}
    for line in comparison.differences:
        if line.reason:
            names_by_reason.setdefault((line.other.load.at, line.reason), []).append(line.name)
    reasons = [
        f"{', '.join(names) if len(names) <= _LISTED else f'{len(names)} figures'}{at}: {reason}."
        for (at, reason), names in names_by_reason.items()
    ]
    notes = [*([] if by_runs else [BLOCKS]), *comparison.notes, *dict.fromkeys(reasons)]
    table = Grid(header, rows, {*range(texts), figure, figure + 6})
    return Section(comparison.title, [verdict(comparison), table, notes])


def verdict(comparison: Comparison) -> str:
    """Return the result in a few sentences."""
    lines = comparison.differences
    worse, better = ([line for line in lines if line.outcome == outcome] for outcome in (WORSE, BETTER))
    counts = f"{len(worse)} of {len(lines)} figures are significantly worse, {len(better)} significantly better."
    if not worse and not better:
        counts = f"None of the {len(lines)} figures differs significantly."
    if lines and all(line.outcome == Verdict.UNDECIDED for line in lines):
        reasons = "; ".join(dict.fromkeys(line.reason for line in lines))
        return f"**Undecided**: the runs cannot be compared: {reasons}."
    if comparison.threshold is None:
        return counts
    limit = f"{100 * comparison.threshold:g} %"
    failed, undecided = comparison.failed, comparison.undecided
    deciding = [line for line in lines if line.verdict and (line.verdict is not Verdict.FAILED or line.deciding)]
    parts = []
    if failed:
        parts.append(f"**Failed** (threshold {limit}): {_listed(failed)}.")
    if undecided and len(undecided) == len(deciding):
        parts.append(f"**Undecided**: all {len(deciding)} deciding figures are undecided.{_needed(undecided)}")
    elif undecided:
        parts.append(
            f"**Undecided**: {len(undecided)} of {len(deciding)} deciding figures may be worse by more than {limit}: "
            f"{_listed(undecided)}.{_needed(undecided)}"
        )
    if not parts:
        parts.append(f"**Passed**: none of the {len(deciding)} deciding figures is worse by more than {limit}.")
    return " ".join([*parts, counts])


def cases(comparison: Comparison) -> list[Case]:
    """Return one case per line; without a threshold, all cases pass."""
    all_cases = []
    for line in comparison.differences:
        reason = line.reason
        if line.comparable:
            change = f"{_value(line, line.before)} to {_value(line, line.after)}, {_change(line)}"
            reason = "; ".join(filter(None, [f"{change}, p {_p(line)}: {_verdict(line)}", line.reason]))
        place = f"{line.other_names}.{line.other.load.words}"
        all_cases.append(Case(place, line.name, line.verdict or Verdict.PASSED, reason))
    return all_cases


def _verdict(line: Difference) -> str:
    if not line.verdict or line.verdict == line.outcome:
        return line.outcome
    return line.verdict if line.outcome == UNCLEAR else f"{line.verdict}, {line.outcome}"


def _p(line: Difference) -> str:
    if math.isnan(line.p):
        return "-"
    return "below 0.0001" if line.p < 0.00005 else f"{line.p:.4f}"


def _value(line: Difference, value: float) -> str:
    if math.isnan(value):
        return "-"
    return percent(value) if line.is_share else f"{number(value)} {line.unit}".rstrip()


def _difference(line: Difference) -> str:
    """Format the difference with one unit per cell: ``+0.006 s (0.0046 to 0.0074 s)``, ``10.5 % (6.6 to 14.4 %)``."""
    interval = line.difference_interval
    if math.isnan(line.difference):
        return "-"
    if line.is_share:
        return _with_interval(percent(line.difference), interval, lambda value: f"{100 * value:.1f}", "%")
    text = f"{'+' if line.difference > 0 else ''}{number(line.difference)} {line.unit}".rstrip()
    return _with_interval(text, interval, number, line.unit)


def _change(line: Difference) -> str:
    """Format the ratio as a change in percent, like the threshold: ``+3.0 % (+2.4 to +3.6 %)``."""
    if line.is_share:
        return _difference(line)
    if math.isnan(line.ratio):
        return "-"
    interval = Interval(line.ratio_interval.low - 1, line.ratio_interval.high - 1)
    digits = 2 if interval.high - interval.low < _NARROW else 1

    def signed(value: float) -> str:
        return f"{100 * value:+.{digits if abs(value) < 1 else 0}f}"

    return _with_interval(f"{signed(line.ratio - 1)} %", interval, signed, "%")


def _with_interval(text: str, interval: Interval, show: Callable[[float], str], unit: str) -> str:
    if not interval.known:
        return text
    return f"{text} ({show(interval.low)} to {show(interval.high)} {unit}".rstrip() + ")"


def _listed(lines: Sequence[Difference]) -> str:
    changes = [f"{line.name}{line.other.load.at} ({_change(line).partition(' (')[0]})" for line in lines]
    more = len(changes) - _LISTED
    return ", ".join([*changes[:_LISTED], *([f"and {more} more"] if more > 0 else [])])


def _needed(lines: Sequence[Difference]) -> str:
    counts = [line.needed for line in lines]
    most = max((count for count in counts if count is not None), default=None)
    if most is None:
        return ""
    unit = "runs per side" if lines[0].by_runs else "requests per run and stage"
    which = "all of them" if None not in counts else "the figures that more requests can decide"
    return f" About {most:,} {unit} would decide {which}."
