"""One line of a comparison, and its verdict: which lines decide, and whether each is passed, failed or undecided.

A deciding line is *passed* when the whole 95 % interval of the worsening is within the threshold, *failed* when the
whole interval is beyond it and p is below 0.05, and *undecided* otherwise. The error ratio fails with any significant
increase. A line whose worsening the delay of a late client can explain is undecided. Lines that do not decide can only
fail, and only when they are significantly worse by more than the threshold.

With a threshold, a significant difference whose whole interval is within it is called neither better nor worse.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from llm_reports.compare.estimates import NO_ESTIMATE, Estimate
from llm_reports.errors import InputError
from llm_reports.metrics.groups import Group
from llm_reports.slo.stage_doubts import CLIENT_WAS_THE_LIMIT, SATURATED, at_most, delay_of
from llm_reports.stats.intervals import UNKNOWN, Interval, student_t, values_needed
from llm_users.record import COL, UNSTEADY
from llm_users.verdict import Verdict

ERROR_RATIO, SYSTEM_THROUGHPUT = "error_ratio", COL.output_throughput_token_per_s
UNCLEAR, BETTER, WORSE = "no clear difference", "better", "worse"
IRRELEVANT = "no relevant difference"
"""The outcome of a significant difference whose whole interval is within the threshold, in both directions."""
LEVEL = 0.05
_MOST_NEEDED = 1_000_000  # requests; if more are needed, the difference practically equals the threshold
_MOST_RUNS = 100
_FAR = 10.0  # ten times worse; beyond that, an interval only shows that it is wide


@dataclass(frozen=True)
class Difference:
    """One line of a comparison. ``p`` is corrected for the number of lines in the table.

    ``outcome`` states which side is better if the difference is significant and, with a threshold, relevant.
    ``verdict`` is the result for the threshold, ``None`` if the line does not decide and did not fail. A line with
    ``NO_ESTIMATE`` represents a stage that cannot be compared; ``reason`` states why. ``needed`` is the approximate
    number of requests per run (or runs per side) that would decide an undecided line, ``None`` when more of them would
    not help.
    """

    bases: tuple[Group, ...]
    others: tuple[Group, ...]
    metric: str
    figure: str
    unit: str
    more_is_better: bool = False
    estimate: Estimate = NO_ESTIMATE
    p: float = math.nan
    outcome: str = UNCLEAR
    verdict: Verdict | None = None
    reason: str = ""
    needed: int | None = None
    deciding: bool = False

    @property
    def name(self) -> str:
        """The name of the line in the table."""
        return f"{self.metric} {self.figure}".strip()

    @property
    def base(self) -> Group:
        """The first group of the first side."""
        return self.bases[0]

    @property
    def other(self) -> Group:
        """The first group of the other side."""
        return self.others[0]

    @property
    def base_names(self) -> str:
        """The runs of the first side."""
        return ", ".join(group.run.name for group in self.bases)

    @property
    def other_names(self) -> str:
        """The runs of the other side."""
        return ", ".join(group.run.name for group in self.others)

    @property
    def is_share(self) -> bool:
        """Whether the figure is a share, whose difference is in percentage points."""
        return self.metric == ERROR_RATIO

    @property
    def by_runs(self) -> bool:
        """Whether the statistical unit is the run rather than the time block."""
        return len(self.bases) + len(self.others) > 2

    @property
    def before(self) -> float:
        """The first side's figure."""
        return self.estimate.before

    @property
    def after(self) -> float:
        """The other side's figure."""
        return self.estimate.after

    @property
    def difference(self) -> float:
        """After minus before; for paired prompts, the first side's figure times their mean relative change."""
        change = self.estimate.change
        return self.after - self.before if math.isnan(change) else self.before * (change - 1)

    @property
    def ratio(self) -> float:
        """After divided by before; for paired prompts, their mean change."""
        if not math.isnan(self.estimate.change):
            return self.estimate.change
        return self.after / self.before if self.before else math.nan

    @property
    def difference_interval(self) -> Interval:
        """The 95 % interval of the difference."""
        return self.estimate.difference_interval

    @property
    def ratio_interval(self) -> Interval:
        """The 95 % interval of the ratio."""
        return self.estimate.ratio_interval

    @property
    def comparable(self) -> bool:
        """Whether the line has figures; otherwise it represents a stage that cannot be compared."""
        return self.estimate is not NO_ESTIMATE

    @property
    def worsening(self) -> float:
        """The worsening as a share of the first side's figure; for shares, the difference. Negative means better."""
        change = self.difference if self.is_share else self.ratio - 1
        return -change if self.more_is_better else change

    @property
    def worsening_interval(self) -> Interval:
        """The 95 % interval of ``worsening``."""
        difference = self.difference_interval
        if self.is_share:
            change = difference
        elif self.ratio_interval.known:
            change = Interval(self.ratio_interval.low - 1, self.ratio_interval.high - 1)
        elif difference.known and self.before > 0:  # the ratio may be 0, for example without any tokens after
            change = Interval(difference.low / self.before, difference.high / self.before)
        else:
            return UNKNOWN
        return Interval(-change.high, -change.low) if self.more_is_better else change


def decides(on: str | None, lines: Sequence[Difference]) -> list[bool]:
    """Return for each line whether it decides, by ``--on``: names of lines, of metrics (all figures), or of figures.

    Without ``on``, the medians, the error ratio, and the system throughput of closed loops decide; the throughput of an
    open loop follows from its schedule. The line of a stage that cannot be compared always decides. Raises
    ``InputError`` for a name that does not match any line of the table.
    """
    if on is None:
        return [
            not line.comparable
            or line.figure == "median"
            or line.is_share
            or (line.metric == SYSTEM_THROUGHPUT and not line.base.load.is_open)
            for line in lines
        ]
    names = list(dict.fromkeys(line.name for line in lines if line.comparable))
    chosen: set[str] = set()
    for wanted in (" ".join(part.split()) for part in on.split(",")):
        matching = {name for name in names if wanted and wanted in (name, *name.split())}
        if names and not matching:
            raise InputError(
                f"--on: {wanted!r} does not match any line of the table. The lines are: {', '.join(names)}. A metric "
                f"such as {names[0].split()[0]} selects all of its lines, a figure such as median selects that figure "
                "of all metrics."
            )
        chosen |= matching
    return [not line.comparable or line.name in chosen for line in lines]


def judged(line: Difference, p: float, threshold: float | None, deciding: bool) -> Difference:
    """Return the line with its corrected p, its outcome and its verdict."""
    line = replace(line, p=p, deciding=deciding)
    reason = line.reason
    if line.comparable and not reason and line.metric != ERROR_RATIO:  # a late client makes no request fail
        saturated = [group.run.name for group in (*line.bases, *line.others) if group.health == SATURATED]
        if saturated and not _worse_without_delay(line, p, threshold):
            reason = f"the client of {' and '.join(saturated)} was saturated"
    if not line.comparable or reason:
        verdict = Verdict.UNDECIDED if threshold is not None and deciding else None
        return replace(line, outcome=Verdict.UNDECIDED, verdict=verdict, reason=reason)
    interval = line.worsening_interval
    if p < LEVEL and not (interval.known and interval.low <= 0 <= interval.high):
        line = replace(line, outcome=WORSE if line.worsening > 0 else BETTER)
    if threshold is None:
        return line
    if line.outcome in (WORSE, BETTER) and _is_irrelevant(line, threshold):
        line = replace(line, outcome=IRRELEVANT)
    verdict = _verdict(line, threshold)
    late = [group for group in line.others if group.health in CLIENT_WAS_THE_LIMIT]
    if verdict is Verdict.FAILED and late and not line.is_share:
        if not _worse_without_delay(line, p, threshold):
            names = " and ".join(group.run.name for group in late)
            cause = f"the client of {names} was {late[0].health}, and its delay can explain the difference"
            return replace(line, verdict=Verdict.UNDECIDED if deciding else None, reason=cause)
        return replace(
            line, verdict=verdict, reason=at_most(max(late, key=partial(delay_of, column=line.metric)), line.metric)
        )
    if verdict is not Verdict.UNDECIDED:
        return replace(line, verdict=verdict)
    needed = _needed(line, threshold)
    return replace(line, verdict=verdict, needed=needed, reason=_undecided(line, threshold, needed))


def despite_failures(lines: Sequence[Difference]) -> list[Difference]:
    """Return the lines; change "better" to unclear in stages where significantly more requests failed.

    A run whose slow requests fail can look faster without being faster.
    """
    failing = {(line.bases, line.others) for line in lines if line.metric == ERROR_RATIO and line.outcome == WORSE}
    reason = "more requests failed, so the successful ones cannot show an improvement"
    return [
        replace(line, outcome=UNCLEAR, reason=line.reason or reason)
        if line.outcome == BETTER and (line.bases, line.others) in failing
        else line
        for line in lines
    ]


def _verdict(line: Difference, threshold: float) -> Verdict | None:
    interval = line.worsening_interval
    if line.outcome == WORSE and (interval.low > threshold or (line.is_share and line.deciding)):
        return Verdict.FAILED
    if not line.deciding:
        return None
    # If a figure was 0 before, as when every request failed, the relative improvement is not finite.
    rose_from_nothing = line.outcome == BETTER and line.more_is_better and line.before == 0
    within = interval.known and interval.high <= threshold
    within |= rose_from_nothing and line.difference_interval.low > 0
    return Verdict.PASSED if within and not _unsteady(line) else Verdict.UNDECIDED


def _worse_without_delay(line: Difference, p: float, threshold: float | None) -> bool:
    """Return whether the line is worse by more than the threshold without the delay of the other side's clients.

    The delay of the first side's clients only makes the difference look smaller.
    """
    interval = line.worsening_interval
    if threshold is None or not p < LEVEL or not interval.known or not line.before > 0:
        return False
    delay = max(delay_of(group, line.metric) for group in line.others)
    share = delay if line.more_is_better else delay / line.before
    return interval.low - share > threshold


def _is_irrelevant(line: Difference, threshold: float) -> bool:
    """Return whether the whole interval is within the threshold in both directions; any increase of errors matters."""
    interval = line.worsening_interval
    return not line.is_share and interval.known and -threshold <= interval.low and interval.high <= threshold


def _undecided(line: Difference, threshold: float, needed: int | None) -> str:
    interval = line.worsening_interval
    unsteady = _unsteady(line)
    if unsteady:
        return f"{unsteady}, so the figure does not measure the server"
    if not interval.known:
        if line.by_runs:
            return "the figure is unknown in at least one run"
        q = {"median": 0.5, "p95": 0.95}.get(line.figure)
        least = f" ({values_needed(q)} for a {line.figure})" if q else ""
        return f"too few successful requests for an interval{least}"
    unit = "runs per side" if line.by_runs else "requests per run"
    advice = (
        f"about {needed:,} {unit} would decide it"
        if needed is not None
        else f"the difference is so close to the threshold that more {unit} would not decide it"
    )
    worst = f"{100 * interval.high:.1f} %" if interval.high < _FAR else f"more than {100 * _FAR:,.0f} %"
    return f"it may be worse by {worst}, the threshold is {100 * threshold:g} %; {advice}"


def _needed(line: Difference, threshold: float) -> int | None:
    """Return how many requests per run, or runs per side, decide a line if its figures do not change."""
    interval, worsening = line.worsening_interval, line.worsening
    if not interval.known or math.isnan(worsening):
        return None
    if line.ratio_interval.known:  # on the log scale, the interval is symmetric and shrinks with more requests
        reach = math.log(line.ratio_interval.high / line.ratio_interval.low) / 2
        limit = -math.log(max(1 - threshold, 1e-9)) if line.more_is_better else math.log(1 + threshold)
        gap = abs(limit - (-1 if line.more_is_better else 1) * math.log(line.ratio))
    elif worsening > threshold:  # the error ratio fails with any significant increase
        reach, gap = worsening - interval.low, worsening if line.is_share else worsening - threshold
    else:
        reach, gap = interval.high - worsening, threshold - worsening
    if line.by_runs:
        before, after = len(line.bases), len(line.others)
        spread = reach / student_t(before + after - 2) / math.sqrt(1 / before + 1 / after)
        tried = range(max(2, min(before, after)), _MOST_RUNS + 1)
        return next((runs for runs in tried if student_t(2 * runs - 2) * spread * math.sqrt(2 / runs) < gap), None)
    times = (reach / gap) ** 2 if gap > 0 else math.inf
    needed = min(len(line.base.measured), len(line.other.measured)) * max(times, 1.0)
    if needed > _MOST_NEEDED:
        return None
    step = int(10 ** max(0, math.floor(math.log10(needed)) - 1))
    return math.ceil(needed / step - 1e-9) * step  # two significant digits


def _unsteady(line: Difference) -> str:
    names = [group.run.name for group in (*line.bases, *line.others) if group.steadiness == UNSTEADY]
    return f"the queue of {' and '.join(names)} grew through the stage" if names else ""
