"""What a comparison decides: which lines decide, whether each is passed, failed or undecided, and what would decide it.

A line that decides is *passed* when the whole 95 % interval of the worsening is within the threshold, *failed* when
the whole interval is beyond it and p is below 0.05, else *undecided*. Errors fail with any increase that is more than
chance. Other lines only fail, and only when they are surely worse.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from llm_reports.compare.difference import (
    BETTER,
    ERROR_RATIO,
    SYSTEM_THROUGHPUT,
    UNCLEAR,
    WORSE,
    Difference,
)
from llm_reports.errors import InputError
from llm_reports.stats.intervals import student_t, values_needed
from llm_users.record import UNSTEADY
from llm_users.verdict import Verdict

LEVEL = 0.05
_MOST_NEEDED = 1_000_000  # requests; beyond, the difference is as good as the threshold
_MOST_RUNS = 100
_FAR = 10.0  # ten times worse; beyond, an interval says nothing but that it is wide


def decides(on: str | None, lines: Sequence[Difference]) -> list[bool]:
    """Which lines decide, by ``--on``: names of lines, of metrics (all their figures), or of figures.

    Without it: medians, the share of errors, and the system's throughput in closed loops; that of an open loop follows
    from its schedule. A stage that cannot be compared is always to be decided. Raises ``InputError`` for a name that no
    line of the table has.
    """
    if on is None:
        return [
            line.estimate is None
            or line.figure == "median"
            or line.is_share
            or (line.metric == SYSTEM_THROUGHPUT and not line.base.load.is_open)
            for line in lines
        ]
    names = list(dict.fromkeys(line.name for line in lines if line.estimate))
    chosen: set[str] = set()
    for wanted in (" ".join(part.split()) for part in on.split(",")):
        matching = {name for name in names if wanted and wanted in (name, *name.split())}
        if names and not matching:
            raise InputError(
                f"--on: no line of the table is called {wanted!r}. The lines are: {', '.join(names)}. A metric such as "
                f"{names[0].split()[0]} stands for all of its lines, a figure such as median for that of all metrics."
            )
        chosen |= matching
    return [line.estimate is None or line.name in chosen for line in lines]


def judged(line: Difference, p: float, threshold: float | None, deciding: bool) -> Difference:
    """The line with its corrected p, its outcome and its verdict."""
    line = dataclasses.replace(line, deciding=deciding)
    unfit = _unfit(line)
    if unfit:
        verdict = Verdict.UNDECIDED if threshold is not None and deciding else None
        return dataclasses.replace(line, p=p, outcome=Verdict.UNDECIDED, verdict=verdict, reason=unfit)
    line = dataclasses.replace(line, p=p, outcome=_outcome(line, p))
    if threshold is None:
        return line
    verdict = _verdict(line, threshold, deciding)
    if verdict is not Verdict.UNDECIDED:
        return dataclasses.replace(line, verdict=verdict)
    needed = _needed(line, threshold)
    return dataclasses.replace(line, verdict=verdict, needed=needed, reason=_undecided(line, threshold, needed))


def despite_failures(lines: Sequence[Difference]) -> list[Difference]:
    """The lines, none of them "better" in a stage where surely more requests failed: quick failures are no progress."""
    failing = {(line.bases, line.others) for line in lines if line.metric == ERROR_RATIO and line.outcome == WORSE}
    return [
        dataclasses.replace(
            line,
            outcome=UNCLEAR,
            reason=line.reason or "more requests failed, so those that succeeded cannot show an improvement",
        )
        if line.outcome == BETTER and (line.bases, line.others) in failing
        else line
        for line in lines
    ]


def _unfit(line: Difference) -> str:
    if line.estimate is None or line.reason:
        return line.reason
    if line.metric == ERROR_RATIO:  # a late client does not make requests fail
        return ""
    saturated = [group.run.name for group in (*line.bases, *line.others) if group.health == "saturated"]
    return f"the client of {' and '.join(saturated)} was saturated" if saturated else ""


def _outcome(line: Difference, p: float) -> str:
    interval = line.worsening_interval
    if not p < LEVEL or (interval.known and interval.low <= 0 <= interval.high):
        return UNCLEAR
    return WORSE if line.worsening > 0 else BETTER


def _verdict(line: Difference, threshold: float, deciding: bool) -> Verdict | None:
    interval = line.worsening_interval
    if line.outcome == WORSE and (interval.low > threshold or (line.is_share and deciding)):
        return Verdict.FAILED
    if not deciding:
        return None
    within = _rose_from_nothing(line) or (interval.known and interval.high <= threshold)
    return Verdict.PASSED if within and not _unsteady(line) else Verdict.UNDECIDED


def _rose_from_nothing(line: Difference) -> bool:
    """Nothing before and surely something after, as where every request failed before: better by no finite share."""
    return line.outcome == BETTER and line.more_is_better and line.before == 0 and line.difference_interval.low > 0


def _undecided(line: Difference, threshold: float, needed: int | None) -> str:
    interval = line.worsening_interval
    unsteady = _unsteady(line)
    if unsteady:
        return f"{unsteady}, so it does not measure the server"
    if not interval.known:
        if line.by_runs:
            return "a figure of one of the runs is unknown"
        q = {"median": 0.5, "p95": 0.95}.get(line.figure)
        least = f" ({values_needed(q)} for a {line.figure})" if q else ""
        return f"too few successful requests for an interval{least}"
    unit = "runs per side" if line.by_runs else "requests per run"
    advice = (
        f"about {needed:,} {unit} would decide it"
        if needed is not None
        else "the difference is so close to the threshold that more of them would not decide it"
    )
    worst = f"{100 * interval.high:.1f} %" if interval.high < _FAR else f"more than {100 * _FAR:,.0f} %"
    return f"it may be worse by {worst}, the threshold is {100 * threshold:g} %; {advice}"


def _needed(line: Difference, threshold: float) -> int | None:
    """How many requests per run, or runs per side, would decide a line whose figures stay where they are."""
    interval, worsening = line.worsening_interval, line.worsening
    if not interval.known or math.isnan(worsening):
        return None
    if line.ratio_interval.known:  # reaches are equal on both sides, and shrink with the requests, in logarithms
        reach = math.log(line.ratio_interval.high / line.ratio_interval.low) / 2
        limit = -math.log(max(1 - threshold, 1e-9)) if line.more_is_better else math.log(1 + threshold)
        gap = abs(limit - (-1 if line.more_is_better else 1) * math.log(line.ratio))
    elif worsening > threshold:  # errors fail with any increase that is more than chance
        reach, gap = worsening - interval.low, worsening if line.is_share else worsening - threshold
    else:
        reach, gap = interval.high - worsening, threshold - worsening
    if line.by_runs:
        return _runs_needed(line, reach, gap)
    times = (reach / gap) ** 2 if gap > 0 else math.inf
    needed = min(len(line.base.measured), len(line.other.measured)) * max(times, 1.0)
    return None if needed > _MOST_NEEDED else _rounded_up(needed)


def _runs_needed(line: Difference, reach: float, gap: float) -> int | None:
    before, after = len(line.bases), len(line.others)
    spread = reach / student_t(before + after - 2) / math.sqrt(1 / before + 1 / after)
    for runs in range(max(2, min(before, after)), _MOST_RUNS + 1):
        if student_t(2 * runs - 2) * spread * math.sqrt(2 / runs) < gap:
            return runs
    return None


def _unsteady(line: Difference) -> str:
    names = [group.run.name for group in (*line.bases, *line.others) if group.steadiness == UNSTEADY]
    return f"the queue of {' and '.join(names)} grew through the stage" if names else ""


def _rounded_up(count: float) -> int:
    """Two significant digits, never fewer."""
    digits = max(0, math.floor(math.log10(count)) - 1)
    step = int(10**digits)
    return math.ceil(count / step - 1e-9) * step
