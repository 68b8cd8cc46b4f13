"""A comparison as a section and as the cases of a JUnit file. The verdict comes first, then the table and the notes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from llm_reports.compare.comparison import Comparison
from llm_reports.compare.difference import BETTER, IRRELEVANT, LEVEL, UNCLEAR, WORSE, Difference
from llm_reports.metrics.stage_load import load_columns
from llm_reports.sections.numbers import number, percent, shown
from llm_reports.sections.section import Grid, Section
from llm_reports.slo.junit import Case
from llm_reports.stats.intervals import Interval
from llm_users.verdict import Verdict

BLOCKS = (
    "p: the probability that time blocks, shuffled between both runs, differ as much by chance in any line of this "
    f"table (Westfall and Young). Better and worse mean p below {LEVEL:g} and a 95 % interval without 0. Intervals: "
    "block resampling, separately for each line; for shares: Newcombe."
)
LIMITS = (
    "Limit: the largest worsening of a figure. A deciding figure passes if the whole interval of the change is within "
    "it. Each figure fails if the whole interval is beyond it and p is below 0.05. A "
    f'significant difference whose whole interval is within the threshold is called "{IRRELEVANT}".'
)
_LISTED = 4  # number of lines that the verdict lists; the table contains all lines
_NARROW = 0.01  # a share; one decimal of a percentage is too coarse for changes below it
_SMALL_SHARE = 0.1  # differences of shares below it have two decimals of a percentage
_SMALL_S = 0.1  # differences below it are in ms


def comparison_section(comparison: Comparison) -> Section:
    """Return the verdict, the table, and explanatory notes."""
    columns = load_columns(line.other.load for line in comparison.differences)
    several = len({line.other_names for line in comparison.differences}) > 1
    models = len({(line.other.model) for line in comparison.differences}) > 1
    header = [*(["Run"] if several else []), *(["Model"] if models else []), *columns.header, "Figure"]
    threshold = comparison.threshold
    header += ["Before", "After", "Difference (95 %)", "Change (95 %)"]
    header += [*(["Limit"] if threshold is not None else []), "p", "Verdict"]
    texts = int(several) + int(models)
    figure = texts + len(columns.header)
    rows = [
        [
            *([line.other_names] if several else []),
            *([line.other.model or "-"] if models else []),
            *columns.cells(line.other.load),
            f"{line.name} (paired)" if line.estimate.paired else line.name,
            *_values(line),
            _difference(line),
            "-" if line.is_share else _change(line),
            *([_limit(line, threshold)] if threshold is not None else []),
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
    limits = [] if threshold is None else [LIMITS]
    notes = [*([] if by_runs else [BLOCKS]), *limits, *comparison.notes, *dict.fromkeys(reasons)]
    table = Grid(header, rows, {*range(texts), figure, len(header) - 1})
    return Section(comparison.title, [verdict(comparison), table, notes])


def verdict(comparison: Comparison) -> str:
    """Return the result in a few sentences."""
    lines = comparison.differences
    worse, better = ([line for line in lines if line.outcome == outcome] for outcome in (WORSE, BETTER))
    are = "is" if len(worse) == 1 else "are"
    counts = f"{len(worse)} of {len(lines)} figures {are} significantly worse, {len(better)} significantly better."
    if not worse and not better:
        counts = f"None of the {len(lines)} figures differs significantly."
    if lines and all(line.outcome == Verdict.UNDECIDED for line in lines):
        reasons = "; ".join(dict.fromkeys(line.reason for line in lines))
        return f"**Undecided**: the runs cannot be compared: {reasons}."
    if comparison.threshold is None:
        return counts
    limit = f"{100 * comparison.threshold:g} %"
    irrelevant = [line for line in lines if line.outcome == IRRELEVANT]
    if irrelevant and not worse and not better:
        differ = "differs" if len(irrelevant) == 1 else "differ"
        counts = f"{len(irrelevant)} of {len(lines)} figures {differ} significantly, but by less than {limit}."
    elif irrelevant:
        counts += f" Differences of less than {limit}, which are not relevant: {len(irrelevant)}."
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
        passed = f"**Passed**: none of the {len(deciding)} deciding figures is worse by more than {limit}."
        parts.append(passed + _largest(deciding))
    return " ".join([*parts, counts])


def cases(comparison: Comparison) -> list[Case]:
    """Return one case per line; without a threshold, all cases pass."""
    all_cases = []
    for line in comparison.differences:
        reason = line.reason
        if line.comparable:
            limit = f", limit {_limit(line, comparison.threshold)}" if line.deciding and comparison.threshold else ""
            reason = f"{_before_and_after(line)}{limit}, p {_p(line)}: {_verdict(line)}"
            reason = "; ".join(filter(None, [reason, line.reason]))
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


def _limit(line: Difference, threshold: float) -> str:
    """Format the largest worsening that passes, with the sign of the column of changes."""
    if not line.comparable:
        return "-"
    if line.is_share:
        return "no significant increase" if line.deciding else f"+{100 * threshold:g} points"
    return f"{'-' if line.more_is_better else '+'}{100 * threshold:g} %"


def _before_and_after(line: Difference) -> str:
    """Format the figures that decide: both values, and the change (for shares the difference) with its interval."""
    before, after = _values(line)
    return f"{before} before, {after} after, {_change(line)}"


def _largest(lines: Sequence[Difference]) -> str:
    """Return the deciding figure that comes closest to the limit, as a sentence; "" when none has an interval."""
    known = [line for line in lines if not line.is_share and line.worsening_interval.known]
    if not known:
        return ""
    line = max(known, key=lambda one: one.worsening_interval.high)
    return f" Closest to it: {line.name}{line.other.load.at}: {_before_and_after(line)}."


def _values(line: Difference) -> tuple[str, str]:
    """Format both values, with as many digits (three or four) as the difference between them needs."""
    if line.is_share:
        return _share(line.before), _share(line.after)
    apart = abs(line.after - line.before)
    digits = 3 if apart == 0 or apart >= 0.01 * abs(line.before) else 4
    texts = []
    for value in (line.before, line.after):
        if not math.isfinite(value) or abs(value) >= 1000:
            text = number(value)
        else:
            decimals = digits - 1 - math.floor(math.log10(abs(value))) if value else 0
            text = f"{value:.{max(0, decimals)}f}"
        texts.append("-" if math.isnan(value) else f"{text} {line.unit}".rstrip())
    return texts[0], texts[1]


def _share(value: float) -> str:
    """Format a share with three digits, like the gate."""
    return shown(value, "") if value else percent(value)


def _difference(line: Difference) -> str:
    """Format the difference with one unit per cell: ``+0.006 s (0.0046 to 0.0074 s)``, ``10.5 % (6.6 to 14.4 %)``."""
    interval = line.difference_interval
    if math.isnan(line.difference):
        return "-"
    if line.is_share:
        ends = (line.difference, interval.low, interval.high) if interval.known else (line.difference,)
        places = 2 if max(map(abs, ends)) < _SMALL_SHARE else 1

        def points(value: float) -> str:
            return f"{round(100 * value, places) + 0.0:.{places}f}"  # not -0.0

        return _with_interval(f"{points(line.difference)} %", interval, points, "%")
    ends = (line.difference, interval.low, interval.high) if interval.known else (line.difference,)
    scale, unit, decimals = _scaled(max(abs(end) for end in ends), line.unit)

    def scaled(value: float) -> str:
        return f"{round(scale * value, decimals) + 0.0:.{decimals}f}"

    text = f"{'+' if line.difference > 0 else ''}{scaled(line.difference)} {unit}".rstrip()
    return _with_interval(text, interval, scaled, unit)


def _scaled(largest: float, unit: str) -> tuple[float, str, int]:
    """Return a factor, the unit and the decimals that show a value of this size with three digits."""
    scale = 1.0
    if unit.startswith("s") and 0 < largest < _SMALL_S:
        scale, prefix = (1e3, "m") if largest >= _SMALL_S / 1000 else (1e6, "µ")
        unit = prefix + unit
    largest *= scale
    return scale, unit, max(0, 2 - math.floor(math.log10(largest))) if 0 < largest < math.inf else 0


def _change(line: Difference) -> str:
    """Format the ratio as a change in percent, like the threshold: ``+3.0 % (+2.4 to +3.6 %)``."""
    if line.is_share:
        return _difference(line)
    if math.isnan(line.ratio):
        return "-"
    interval = Interval(line.ratio_interval.low - 1, line.ratio_interval.high - 1)
    largest = max(map(abs, (interval.low, interval.high))) if interval.known else abs(line.ratio - 1)
    digits = 3 if largest < _NARROW / 10 else 2 if largest < _NARROW else 1

    def signed(value: float) -> str:
        return f"{100 * value:+.{digits if abs(value) < 1 else 0}f}"

    return _with_interval(f"{signed(line.ratio - 1)} %", interval, signed, "%")


def _with_interval(text: str, interval: Interval, show: Callable[[float], str], unit: str) -> str:
    if not interval.known:
        return text
    return f"{text} ({show(interval.low)} to {show(interval.high)} {unit}".rstrip() + ")"


def _listed(lines: Sequence[Difference]) -> str:
    changes = [f"{line.name}{line.other.load.at}: {_before_and_after(line)}" for line in lines]
    more = len(changes) - _LISTED
    return "; ".join([*changes[:_LISTED], *([f"and {more} more"] if more > 0 else [])])


def _needed(lines: Sequence[Difference]) -> str:
    counts = [line.needed for line in lines]
    most = max((count for count in counts if count is not None), default=None)
    if most is None:
        return ""
    unit = "runs per side" if lines[0].by_runs else "requests per run and stage"
    which = "all of them" if None not in counts else "the figures that more requests can decide"
    return f" About {most:,} {unit} would decide {which}."
