"""What an endpoint is good for: attainment and goodput per stage, the highest load that meets, the knee.

A request *meets* when it succeeded and kept to every limit (``Objectives.limits``). Attainment is the share of the
measured requests that meet, aborted and cancelled ones aside. Throughput and goodput count what arrived inside the
MEASURE window (``window_rates``), goodput only of requests that meet.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame, Series

from llm_reports.metrics.groups import CORRECTED_LATENCY, LATENCY, Group
from llm_reports.metrics.window_rates import window_rows
from llm_reports.slo.client_delay import DISTURBED
from llm_reports.slo.gate import judge, metric_of, shown
from llm_reports.slo.objectives import ERRORS, Objectives, parse_objectives
from llm_reports.slo.unfit_stages import client, failures, queue_grew, unfit
from llm_reports.stats.effective_size import effective_size, share_interval
from llm_reports.stats.intervals import Interval
from llm_users.record import StageLoad
from llm_users.verdict import Verdict, worst

_FLAT = 0.02  # a level whose power is within this share of the best one's is as good
_NO_OBJECTIVES = Objectives("", ())


@dataclass(frozen=True)
class StagePoint:
    """One stage as a point of the curve. NaN where the files do not say, as without times."""

    group: Group
    window_s: float
    requests_per_s: float
    tokens_per_s: float
    latency_mean_s: float
    met: int
    judged: int
    goodput_requests_per_s: float
    goodput_tokens_per_s: float
    verdict: Verdict | None  # on the objectives together; None without any
    reasons: tuple[str, ...]
    estimated: bool = False  # the rates do not come from the run's own window and shares
    effective: float = math.nan
    """The effective sample size of the attainment."""
    unfit: str = ""  # why the stage cannot be the best of a curve, such as its knee; "" when it can

    @property
    def attainment(self) -> float:
        """The share of requests that met all limits."""
        return self.met / self.judged if self.judged else math.nan

    @property
    def attainment_interval(self) -> Interval:
        """Its Wilson interval; unknown below an effective sample size of 30."""
        return share_interval(self.met, self.judged, self.effective)

    @property
    def power(self) -> float:
        """Kleinrock's power of a system under load: throughput by latency."""
        return self.tokens_per_s / self.latency_mean_s if self.latency_mean_s > 0 else math.nan

    @property
    def load(self) -> StageLoad:
        """The stage's users or its rate."""
        return self.group.load

    @property
    def concurrency(self) -> int:
        """The stage's users; 0 when unknown, and in an open loop."""
        return self.group.concurrency or 0


@dataclass(frozen=True)
class Choice:
    """A point of the curve, or none, and why."""

    name: str
    point: StagePoint | None
    reasoning: tuple[str, ...]


def stage_points(groups: Iterable[Group], objectives: Objectives | str = _NO_OBJECTIVES) -> list[StagePoint]:
    """A point for each group that has requests."""
    wanted = parse_objectives(objectives) if isinstance(objectives, str) else objectives
    return [_point(group, wanted) for group in groups if len(group.measured)]


def points_frame(points: Sequence[StagePoint]) -> DataFrame:
    """The points as a table for a notebook."""
    return DataFrame(
        [
            {
                "run": point.group.run.name,
                "framework": point.group.framework,
                "model": point.group.model,
                "stage": point.group.stage,
                "concurrency": point.group.concurrency,
                "rate_per_s": point.group.load.rate_per_s,
                "requests_per_s": point.requests_per_s,
                "tokens_per_s": point.tokens_per_s,
                "latency_mean_s": point.latency_mean_s,
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
    """The points of each endpoint in ascending load: one run, framework and model at a time."""
    found: dict[tuple[object, str, str], list[StagePoint]] = {}
    for point in points:
        if point.load.is_known:
            found.setdefault((point.group.run, point.group.framework, point.group.model), []).append(point)
    return [sorted(sweep, key=lambda point: point.load.order) for sweep in found.values()]


def highest(sweep: Sequence[StagePoint]) -> Choice:
    """The highest concurrency, or rate, that meets all objectives, with every lower one not missing them.

    A stage that is unfit (too many failures, unsteady, a saturated client) is not taken, whatever its figures. Other
    programs that disturb the client only make it look slower, so what is met in spite of them is met, as in the gate.
    """
    name = f"Highest {_kind(sweep)} that meets the objectives"
    best, lines = None, []
    for point in sweep:
        if point.verdict is Verdict.FAILED:
            lines.append(f"{point.load.short} does not meet them: {'; '.join(point.reasons)}")
            break
        if point.verdict is Verdict.PASSED and not _why_unfit(point):
            best = point
        else:
            lines.append(f"{point.load.short} is not decided: {_why_unfit(point) or '; '.join(point.reasons)}")
    beyond = [
        p for p in sweep
        if p.verdict is Verdict.PASSED and not _why_unfit(p) and (best is None or p.load.order > best.load.order)
    ]  # fmt: skip
    if beyond:
        lines.append(f"{_levels(beyond)} would meet them again, above a level that does not: noise, or a cache")
    if best is None:
        return Choice(name, None, (f"none of {_levels(sweep)} is shown to meet them", *lines))
    if best is sweep[-1]:
        lines.append("it is the highest that was measured; the limit may lie above")
    return Choice(name, best, (f"{best.load.short} meets them: {'; '.join(best.reasons)}", *lines))


def _why_unfit(point: StagePoint) -> str:
    """Why the stage cannot be the highest, whatever its figures; "" when it can."""
    only_disturbed = point.group.health == DISTURBED and point.unfit == client(point.group)
    return "" if only_disturbed else point.unfit


def knee(sweep: Sequence[StagePoint]) -> Choice:
    """The level of the highest power, throughput by mean latency (Kleinrock): from there latency grows faster.

    Below the knee more load brings more throughput than it costs in latency, in proportion; above it the reverse.
    Among levels within 2 % of the highest power the highest load is taken. The latency of an open loop is the one from
    the intended start. Unfit levels are left out: their throughput or latency is that of a part of the requests, of the
    client, or of a queue that grows.
    """
    name = "Knee of the curve"
    usable = [point for point in sweep if math.isfinite(point.power) and not point.unfit]
    left_out = [f"{point.load.short} is left out: {point.unfit}" for point in sweep if point.unfit]
    # An unsteady or failing level cannot be the knee, but it shows that the curve has bent before it.
    shown_levels = {point.load for point in sweep if math.isfinite(point.power) and not client(point.group)}
    if not usable or len(shown_levels) < 3:
        needed = f"a curve needs three levels of {_kind(sweep)} with an unsaturated client, not all of them unfit"
        return Choice(name, None, (needed, *left_out))
    top = max(point.power for point in usable)
    chosen = [point for point in usable if point.power >= top * (1 - _FLAT)][-1]
    powers = ", ".join(f"{p.load.short}: {p.tokens_per_s:.4g}/{p.latency_mean_s:.3g} = {p.power:.4g}" for p in usable)
    lines = [f"{chosen.load.short} has the highest power, tokens/s by mean latency in s ({powers})"]
    place = usable.index(chosen)
    if place + 1 < len(usable):
        after = usable[place + 1]
        lines.append(
            f"from {chosen.load.short} to {after.load.short} throughput changes by "
            f"{_change(after.tokens_per_s, chosen.tokens_per_s)}, latency by "
            f"{_change(after.latency_mean_s, chosen.latency_mean_s)}"
        )
    elif chosen is sweep[-1]:
        lines.append("it is the highest that was measured: the curve has not bent yet, measure higher levels")
    elif any(failures(point.group) or queue_grew(point.group) for point in sweep[sweep.index(chosen) + 1 :]):
        lines.append("it is the highest steady level: the curve bends between it and the next one")
    else:
        lines.append("it is the highest with an unsaturated client: the curve has not bent yet, measure higher levels")
    if place == 0:
        lines.append("it is the lowest that was measured: the endpoint may have been full from the start")
    return Choice(name, chosen, (*lines, *left_out))


def _point(group: Group, objectives: Objectives) -> StagePoint:
    judgements = [judge(group, objective) for objective in objectives.all]
    verdict = worst(each.verdict for each in judgements) if judgements else None
    reasons = tuple(dict.fromkeys(each.reason for each in judgements if each.verdict == verdict))
    undeclared = "" if any(each.name == ERRORS for each in objectives.all) else failures(group)
    if (why := undeclared or queue_grew(group)) and verdict:
        verdict, reasons = Verdict.FAILED, (*(reasons if verdict is Verdict.FAILED else ()), why)
    meeting = met_by(group, group.ok, objectives)
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
        effective=_attainment_size(group, meeting),
        unfit=unfit(group, objectives),
    )


def _attainment_size(group: Group, meeting: Series) -> float:
    """The effective sample size of the attainment: of meeting the limits, in start order; a failure does not."""
    met = meeting.reindex(group.measured.index, fill_value=False).to_numpy(bool)[group.ended_order]
    return effective_size(met.astype(np.float64))


def met_by(group: Group, rows: DataFrame, objectives: Objectives) -> Series:
    """Which successful requests keep to every limit.

    A time per token that an answer of one token does not have is no offence; a first token at an unknown time is. Where
    wrong answers are an objective, a wrong answer keeps to nothing.
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
        meeting &= kept | values.isna() if name == "tpot" else kept
    return meeting


def _change(after: float, before: float) -> str:
    return f"{100 * (after / before - 1):+.0f} %" if before else shown(after, "")


def _kind(sweep: Sequence[StagePoint]) -> str:
    """What the sweep is over."""
    return "rate" if any(point.load.is_open for point in sweep) else "concurrency"


def _levels(points: Iterable[StagePoint]) -> str:
    return ", ".join(point.load.short for point in points)
