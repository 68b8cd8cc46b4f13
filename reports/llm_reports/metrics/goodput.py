"""Attainment and goodput per stage, the highest load that meets the objectives, and the knee of the curve.

A request *meets* the objectives if it succeeded and is within every limit (``Objectives.limits``). Attainment is the
share of the measured requests that meet the objectives, without aborted and cancelled ones. Throughput and goodput
count the output that arrived inside the MEASURE window (``window_rates``); goodput counts only requests that meet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame, Series

from llm_reports.metrics.groups import CORRECTED_LATENCY, LATENCY, Group, unstreamed
from llm_reports.metrics.window_rates import window_rows
from llm_reports.sections.numbers import shown
from llm_reports.slo.evidence import metric_of
from llm_reports.slo.gate import judge
from llm_reports.slo.objectives import ERRORS, Objectives, parse_objectives
from llm_reports.slo.stage_doubts import DISTURBED, client, failures, queue_grew, unfit
from llm_reports.stats.effective_size import effective_size, share_interval
from llm_reports.stats.intervals import Interval
from llm_users.number_words import listed
from llm_users.record import COL, StageLoad
from llm_users.verdict import Verdict, worst

_FLAT = 0.02  # a level whose power is within this share of the best power counts as equally good
LEAST_LEVELS = 3
"""The minimum number of levels of a curve with a knee."""
_NO_OBJECTIVES = Objectives("", ())


@dataclass(frozen=True)
class StagePoint:
    """One stage as a point of the curve. NaN means that the files do not contain the value, for example the times."""

    group: Group
    window_s: float
    requests_per_s: float
    tokens_per_s: float
    latency_mean_s: float
    met: int
    judged: int
    goodput_requests_per_s: float
    goodput_tokens_per_s: float
    verdict: Verdict | None  # on all objectives together; None without objectives
    reasons: tuple[str, ...]
    estimated: bool = False  # the rates do not come from the run's own window and shares
    effective: float = math.nan
    """The effective sample size of the attainment."""
    unfit: str = ""  # why the stage cannot be the best of a curve or its knee; "" when it can
    brief: str = ""  # why the verdict is undecided, in a few words; "" for another verdict

    @property
    def attainment(self) -> float:
        """The share of requests that met all limits."""
        return self.met / self.judged if self.judged else math.nan

    @property
    def attainment_interval(self) -> Interval:
        """Wilson's interval of the attainment; unknown below an effective sample size of 30."""
        return share_interval(self.met, self.judged, self.effective)

    @property
    def power(self) -> float:
        """Kleinrock's power of a system under load: throughput divided by latency."""
        return self.tokens_per_s / self.latency_mean_s if self.latency_mean_s > 0 else math.nan

    @property
    def load(self) -> StageLoad:
        """The users or the rate of the stage."""
        return self.group.load

    @property
    def concurrency(self) -> int:
        """The users of the stage; 0 when unknown, and in an open loop."""
        return self.group.concurrency or 0


@dataclass(frozen=True)
class Choice:
    """The selected point of the curve, or ``None``, and the reasons."""

    name: str
    point: StagePoint | None
    reasoning: tuple[str, ...]


def stage_points(groups: Iterable[Group], objectives: Objectives | str = _NO_OBJECTIVES) -> list[StagePoint]:
    """Return one point for each group that has measured requests."""
    wanted = parse_objectives(objectives) if isinstance(objectives, str) else objectives
    return [_point(group, wanted) for group in groups if len(group.measured)]


def points_frame(points: Sequence[StagePoint]) -> DataFrame:
    """Return the points as a DataFrame, for a notebook."""
    return DataFrame(
        [
            {
                **point.group.identity,
                **{name: getattr(point, name) for name in ("requests_per_s", "tokens_per_s", "latency_mean_s")},
                "attainment": point.attainment,
                "attainment_ci_low": point.attainment_interval.low,
                "attainment_ci_high": point.attainment_interval.high,
                "goodput_requests_per_s": point.goodput_requests_per_s,
                "goodput_tokens_per_s": point.goodput_tokens_per_s,
                "power": point.power,
                "verdict": point.verdict or "",
            }
            for point in points
        ]
    )


def sweeps(points: Iterable[StagePoint]) -> list[list[StagePoint]]:
    """Return the points of each run, framework, model and pair of lengths in the order of ascending load."""
    points_by_endpoint: dict[tuple[object, ...], list[StagePoint]] = {}
    for point in points:
        if point.load.is_known:
            group = point.group
            key = group.run, group.framework, group.model, point.load.lengths
            points_by_endpoint.setdefault(key, []).append(point)
    return [sorted(sweep, key=lambda point: point.load.order) for sweep in points_by_endpoint.values()]


def highest(sweep: Sequence[StagePoint]) -> Choice:
    """Return the highest concurrency or rate that meets all objectives, below the first level that fails them.

    An unfit stage (too many failures, unsteady, a saturated client) is not selected, regardless of its figures. Other
    programs that disturb the client only make it look slower, so objectives that are met despite them count as met, as
    in the SLO gate.
    """
    name = f"Highest {_kind(sweep)} that meets the objectives"
    passing = [point for point in sweep if point.verdict is Verdict.PASSED and not _why_unfit(point)]
    best, lines = None, []
    for point in sweep:
        if point.verdict is Verdict.FAILED:
            lines.append(f"{point.load.short} fails: {'; '.join(point.reasons)}")
            break
        if point in passing:
            best = point
        else:
            lines.append(f"{point.load.short} is undecided: {_why_unfit(point) or '; '.join(point.reasons)}")
    beyond = [point for point in passing if best is None or point.load.order > best.load.order]
    if beyond:
        lines.append(f"{_levels(beyond)} passes again above a level that does not pass: noise, or a cache")
    if best is None:
        return Choice(name, None, (f"none of {_levels(sweep)} passes", *lines))
    if best is sweep[-1]:
        lines.append("it is the highest measured level; the limit may be higher")
    return Choice(name, best, (f"{best.load.short} passes: {'; '.join(best.reasons)}", *lines))


def answer(sweep: Sequence[StagePoint], objectives: str) -> str:
    """Return the highest load that meets the objectives as a sentence, and the levels that are not known to meet them.

    For example: ``32 users meet ttft_p95<0.5; 64 users do not; 4 users: too few independent requests``.
    """
    best = highest(sweep).point
    failed = [point for point in sweep if point.verdict is Verdict.FAILED]
    limit = failed[0].load.order if failed else None
    parts = [f"No measured load is shown to meet `{objectives}`"]
    if best is not None:
        ends = " (the highest measured load)" if best is sweep[-1] else ""
        parts = [f"**{best.load.text}** meet{'s' if best.load.users == 1 else ''} `{objectives}`{ends}"]
    if failed:
        parts.append(f"{failed[0].load.text} do{'es' if failed[0].load.users == 1 else ''} not")
    undecided: dict[str, list[StagePoint]] = {}
    for point in sweep:
        why = point.brief if point.verdict is Verdict.UNDECIDED else _why_unfit(point)
        if why and point.verdict is not Verdict.FAILED and (limit is None or point.load.order < limit):
            undecided.setdefault(why, []).append(point)
    for why, points in undecided.items():
        *lower, last = points
        parts.append(f"{listed([*(point.load.level_text for point in lower), last.load.text])}: {why}")
    return "; ".join(parts)


def _why_unfit(point: StagePoint) -> str:
    """Return why the stage cannot be the highest load, regardless of its figures; "" when it can."""
    only_disturbed = point.group.health == DISTURBED and point.unfit == client(point.group)
    return "" if only_disturbed else point.unfit


def knee(sweep: Sequence[StagePoint]) -> Choice:
    """Return the level with the highest power, throughput divided by mean latency (Kleinrock).

    Below the knee, more load increases throughput proportionally more than latency; above it, the reverse is true.
    Among levels within 2 % of the highest power, the highest load is selected. The latency of an open loop counts from
    the intended start. Unfit levels are excluded: their throughput or latency reflects only part of the requests, the
    client, or a growing queue.
    """
    name = "Knee of the curve"
    usable = [point for point in sweep if math.isfinite(point.power) and not point.unfit]
    excluded = [f"{point.load.short} is excluded: {point.unfit}" for point in sweep if point.unfit]
    # An unsteady or failing level cannot be the knee, but it shows that the curve bends below it.
    shown_levels = {point.load for point in sweep if math.isfinite(point.power) and not client(point.group)}
    if sweep and all(point.unfit and point.unfit == client(point.group) for point in sweep):
        states = listed(sorted({point.group.health for point in sweep}))
        return Choice(name, None, (f"the client was {states} in all stages", *excluded))
    if not usable or len(shown_levels) < LEAST_LEVELS:
        needed = f"a curve requires three levels of {_kind(sweep)} with an unsaturated client, not all of them unfit"
        return Choice(name, None, (needed, *excluded))
    top = max(point.power for point in usable)
    chosen = [point for point in usable if point.power >= top * (1 - _FLAT)][-1]
    powers = ", ".join(f"{p.load.short}: {p.tokens_per_s:.4g}/{p.latency_mean_s:.3g} = {p.power:.4g}" for p in usable)
    lines = [f"{chosen.load.short} has the highest power, tokens/s divided by mean latency in s ({powers})"]
    index = usable.index(chosen)
    if index + 1 < len(usable):
        after = usable[index + 1]
        lines.append(
            f"from {chosen.load.short} to {after.load.short} throughput changes by "
            f"{_change(after.tokens_per_s, chosen.tokens_per_s)}, latency by "
            f"{_change(after.latency_mean_s, chosen.latency_mean_s)}"
        )
    elif chosen is sweep[-1]:
        lines.append("it is the highest measured level: the curve does not bend yet, so measure higher levels")
    elif any(failures(point.group) or queue_grew(point.group) for point in sweep[sweep.index(chosen) + 1 :]):
        lines.append("it is the highest steady level: the curve bends between it and the next one")
    else:
        lines.append(
            "it is the highest level with an unsaturated client: the curve does not bend yet, so measure higher levels"
        )
    if index == 0:
        lines.append("it is the lowest measured level: the endpoint may have been saturated at every level")
    return Choice(name, chosen, (*lines, *excluded))


def _point(group: Group, objectives: Objectives) -> StagePoint:
    judgements = [judge(group, objective) for objective in objectives.all]
    verdict = worst(judgement.verdict for judgement in judgements) if judgements else None
    reasons = tuple(dict.fromkeys(judgement.reason for judgement in judgements if judgement.verdict == verdict))
    briefs = list(dict.fromkeys(judgement.brief for judgement in judgements if judgement.brief))
    undeclared = "" if any(objective.name == ERRORS for objective in objectives.all) else failures(group)
    if (why := undeclared or queue_grew(group)) and verdict:
        verdict, reasons = Verdict.FAILED, (*(reasons if verdict is Verdict.FAILED else ()), why)
    meeting = met_by(group, group.ok, objectives)
    # In start order; a failed request does not meet the limits.
    met = meeting.reindex(group.measured.index, fill_value=False).to_numpy(bool)[group.ended_order]
    window = window_rows(group)
    good = met_by(group, window.rows, objectives)
    return StagePoint(
        group=group,
        window_s=window.window_s,
        requests_per_s=window.requests_per_s(),
        tokens_per_s=window.tokens_per_s(),
        latency_mean_s=group.summary(CORRECTED_LATENCY if group.load.is_open else LATENCY).mean,
        met=int(meeting.sum()),
        judged=group.counts.ended,
        goodput_requests_per_s=window.requests_per_s(good),
        goodput_tokens_per_s=window.tokens_per_s(good),
        verdict=verdict,
        reasons=reasons,
        estimated=window.estimated,
        effective=effective_size(met.astype(np.float64)),
        unfit=unfit(group, objectives),
        brief=listed(briefs) if verdict is Verdict.UNDECIDED and briefs else "",
    )


def met_by(group: Group, rows: DataFrame, objectives: Objectives) -> Series:
    """Return which successful requests are within every limit.

    A missing time per token, as for an answer of one token, is within the limit; a missing time to first token is not,
    except that an answer without a stream has no limits of this kind.
    If wrong answers are an objective, a request with a wrong answer is not within the limits.
    """
    meeting = Series(True, index=rows.index)
    for objective in objectives.all:
        if objective.is_share and objective.name != ERRORS:
            meeting &= ~(rows[objective.kind.column] == 0).fillna(value=False).astype(bool)
    for name, objective in objectives.limits.items():
        values = group.values(metric_of(objective), rows)
        kept = values <= objective.limit if objective.kind.less_is_better else values >= objective.limit
        if not objective.inclusive:
            kept &= values != objective.limit
        if objective.kind.needs_stream:
            kept |= unstreamed(rows)
        meeting &= kept | values.isna() if name == "tpot" else kept
    return meeting


def _change(after: float, before: float) -> str:
    return f"{100 * (after / before - 1):+.0f} %" if before else shown(after, "")


def _kind(sweep: Sequence[StagePoint]) -> str:
    """Return the kind of load of the sweep."""
    return "rate" if any(point.load.is_open for point in sweep) else COL.concurrency


def _levels(points: Iterable[StagePoint]) -> str:
    return ", ".join(point.load.short for point in points)
