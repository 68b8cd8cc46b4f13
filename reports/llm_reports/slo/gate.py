"""The verdict of a pipeline: objectives against stages, with three answers: passed, failed or undecided.

An objective is passed only if the bound of its interval keeps to the limit, and failed only if the other bound does
not. Everything between is undecided, and so is what the client itself may have caused, and what an unsteady stage
seems to meet.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pandas import DataFrame

from llm_reports.errors import InputError
from llm_reports.llmperf.results import duration_s
from llm_reports.markdown.numbers import lasting, shown
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.groups import Group
from llm_reports.slo.client_delay import delay_s, doubt, late
from llm_reports.slo.evidence import Evidence, evidence, least_requests, metric_of
from llm_reports.slo.objectives import ERRORS, Objective, Objectives
from llm_reports.stats.intervals import Interval
from llm_users.record import UNSTEADY
from llm_users.verdict import Verdict, worst

__all__ = [
    "ALL_STAGES", "BEST_STAGE", "Gate", "Judgement", "gate", "judge", "judge_all", "least_requests", "metric_of",
    "shown", "valid_stage",
]  # fmt: skip

ALL_STAGES, BEST_STAGE = "all", "best"
_SLOW = 3.0  # an effective size below it: the values change over the length of the whole stage


@dataclass(frozen=True)
class Judgement:
    """One objective in one stage."""

    label: str
    group: Group
    objective: Objective
    n: int
    estimate: float
    interval: Interval
    verdict: Verdict
    reason: str
    effective: float = math.nan
    """The effective sample size: how many independent requests the ``n`` are worth."""


@dataclass(frozen=True)
class Gate:
    """What was asked and what came out."""

    objectives: Objectives
    stage: str
    judgements: tuple[Judgement, ...]
    verdict: Verdict
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether a pipeline may go on."""
        return self.verdict is Verdict.PASSED

    def frame(self) -> DataFrame:
        """One line for each objective and stage."""
        return DataFrame(
            [
                {
                    "run": each.group.run.name,
                    "framework": each.group.framework,
                    "model": each.group.model,
                    "stage": each.group.stage,
                    "concurrency": each.group.concurrency,
                    "rate_per_s": each.group.load.rate_per_s,
                    "objective": each.objective.text,
                    "n": each.n,
                    "n_effective": each.effective,
                    "estimate": each.estimate,
                    "ci_low": each.interval.low,
                    "ci_high": each.interval.high,
                    "verdict": each.verdict,
                    "reason": each.reason,
                }
                for each in self.judgements
            ]
        )


def gate(groups: Sequence[Group], objectives: Objectives, stage: str = ALL_STAGES) -> Gate:
    """The verdict on every stage, on the best one of each run (the highest load that passes), or on stage N."""
    chosen = _chosen(groups, stage)
    judgements = judge_all(chosen, objectives)
    if stage == BEST_STAGE:
        verdict, reasons = _best(judgements)
    else:
        verdict = worst(each.verdict for each in judgements)
        reasons = tuple(
            dict.fromkeys(f"{each.label}: {each.reason}" for each in judgements if each.verdict is not Verdict.PASSED)
        )
    if not judgements:
        verdict, reasons = Verdict.UNDECIDED, ("there is no stage to judge: nothing was measured",)
    return Gate(objectives, stage, judgements, verdict, reasons)


def judge_all(groups: Sequence[Group], objectives: Objectives) -> tuple[Judgement, ...]:
    """Every objective in every group."""
    return tuple(
        dataclasses.replace(judge(group, objective), label=label or "all requests")
        for group, label in zip(groups, labels(groups), strict=True)
        for objective in objectives.all
    )


def judge(group: Group, objective: Objective) -> Judgement:
    """One objective in one group.

    What is not known of some requests (they were aborted, or arrived all at once) is taken at its worst before an
    objective is passed and at its best before it is failed. Failed requests count as infinitely slow. Requests that
    the client cancelled on purpose are not judged.
    """
    late_s = delay_s(group)
    found = evidence(group, objective, late_s)
    verdict, reason = _decided(objective, found)
    if verdict is Verdict.UNDECIDED and found.n:
        passed_without = late_s > 0 and _decided(objective, evidence(group, objective))[0] is Verdict.PASSED
        reason = late(group, objective, late_s) if passed_without else _advice(group, objective, found)
    doubts = doubt(group, objective, failed=verdict is Verdict.FAILED)
    if doubts and verdict is not Verdict.UNDECIDED:
        verdict, reason = Verdict.UNDECIDED, f"{doubts} (measured: {reason})"
    elif doubts:
        reason = f"{reason}. Also, {doubts}"
    if group.steadiness == UNSTEADY and verdict is not Verdict.FAILED:
        verdict, reason = _unsteady(objective, found)
    if objective.name == ERRORS and group.counts.throttled and found.n:
        reason += f" ({group.counts.throttled} of the {group.counts.failed} that failed were throttled)"
    return Judgement(
        "", group, objective, found.n, found.estimate, found.interval, verdict, reason, effective=found.effective
    )


def valid_stage(text: str) -> str:
    """``all``, ``best`` or the number of a stage; raises ``InputError`` for anything else."""
    wanted = text.strip().lower()
    if wanted in (ALL_STAGES, BEST_STAGE) or (wanted.isdecimal() and int(wanted) > 0):
        return wanted
    raise InputError(f"{text!r} is not a stage to judge; write all, best or the number of a stage, from 1")


def _chosen(groups: Sequence[Group], stage: str) -> Sequence[Group]:
    wanted = valid_stage(stage)
    if not wanted.isdecimal():
        return groups
    chosen = [group for group in groups if group.stage == int(wanted)]
    if groups and not chosen:
        known = ", ".join(sorted({str(group.stage) for group in groups if group.stage is not None}))
        raise InputError(f"there is no stage {wanted} to judge; there are {known or 'no numbered stages'}")
    return chosen


def _best(judgements: Sequence[Judgement]) -> tuple[Verdict, tuple[str, ...]]:
    runs = list(dict.fromkeys(each.group.run for each in judgements))
    verdicts: list[Verdict] = []
    reasons: list[str] = []
    for run in runs:
        stages: dict[Group, list[Judgement]] = {}
        for each in judgements:
            if each.group.run is run:
                stages.setdefault(each.group, []).append(each)
        of_stages = {worst(each.verdict for each in found) for found in stages.values()}
        if Verdict.PASSED in of_stages:
            verdicts.append(Verdict.PASSED)
            continue
        verdicts.append(Verdict.UNDECIDED if Verdict.UNDECIDED in of_stages else Verdict.FAILED)
        named = f"{run.name}: " if len(runs) > 1 else ""
        failed = [each for found in stages.values() for each in found if each.verdict is not Verdict.PASSED]
        reasons.append(f"{named}no stage meets all objectives")
        reasons.extend(f"{each.label}: {each.reason}" for each in failed)
    return worst(verdicts), tuple(dict.fromkeys(reasons))


def _decided(objective: Objective, found: Evidence) -> tuple[Verdict, str]:
    less, unit, n = objective.kind.less_is_better, objective.kind.unit, found.n
    failures = f" ({found.failed} of them failed)" if found.failed else ""
    if not n:
        return Verdict.UNDECIDED, f"no request has what {objective.text} is about"
    if found.failed and objective.q is None:
        return (
            Verdict.FAILED,
            f"{objective.text} does not hold: {found.failed} of {n} requests failed and have no value, so there is no "
            f"mean; write a percentile, such as {objective.name}_{'p95' if less else 'p5'}",
        )
    if math.isfinite(found.proof) and objective.holds(found.proof):
        bound = "at most" if less else "at least"
        measured = f"{shown(found.estimate, unit)}, {bound} {shown(found.proof, unit)} of {n} requests{failures}"
        return Verdict.PASSED, f"{objective.text} holds: {measured}"
    if found.far_from_limit:
        far = (
            "all {n} requests are at most a quarter of the limit"
            if less
            else "all {n} requests have four times the limit"
        )
        return Verdict.PASSED, f"{objective.text} holds: {shown(found.estimate, unit)}, {far.format(n=n)}"
    # An infinite disproof of latencies is one that is known: even the good end of the interval is a failed request.
    known = math.isfinite(found.disproof) or (found.disproof == math.inf and less)
    if known and objective.broken(found.disproof):
        bound = "at least" if less else "at most"
        measured = f"{shown(found.estimate, unit)}, {bound} {shown(found.disproof, unit)} of {n} requests{failures}"
        if math.isinf(found.disproof):
            measured = f"no answer, {found.failed} of {n} requests failed"
        return Verdict.FAILED, f"{objective.text} does not hold: {measured}"
    return Verdict.UNDECIDED, ""


def _unsteady(objective: Objective, found: Evidence) -> tuple[Verdict, str]:
    """A figure beyond its limit only gets worse with a longer stage; one within it may not stay there."""
    grew = "the stage was unsteady: its queue grew until the end"
    if found.n and not objective.is_share and objective.broken(found.estimate):
        measured = shown(found.estimate, objective.kind.unit)
        return (
            Verdict.FAILED,
            f"{objective.text} does not hold: {measured}, and {grew}, so a longer stage would be slower",
        )
    return Verdict.UNDECIDED, f"{grew}, so {objective.text} would depend on the length of the stage. Lower the load"


def _advice(group: Group, objective: Objective, found: Evidence) -> str:
    """How many requests would decide it."""
    least, n = least_requests(objective), found.n
    if n < least:
        return f"needs at least {least} requests to decide {objective.text}, there are {n}"
    if found.effective < least:
        worth = (
            f"needs at least {least} independent requests to decide {objective.text}; the {n} requests wait for each "
            f"other and are worth {found.effective:.0f}"
        )
        if found.effective < _SLOW:
            return f"{worth}, as where a queue grows through the whole stage: lower the load or run much longer"
        needed = math.ceil(least * n / found.effective)
        return f"{worth}: at least {_requests(group, needed, n)} are needed at this load"
    now = f"{shown(found.estimate, objective.kind.unit)} of {n} requests"
    straddles = f"{_ends(found.interval, objective)} contains the limit of {objective.text} ({now})"
    if found.unknown and (found.enough is None or found.enough <= n):
        return f"{found.unknown} requests without a value (aborted or buffered) could turn {objective.text}"
    if found.enough is None or found.enough <= n:
        return f"{straddles}: more requests are needed to decide"
    return f"{straddles}: about {_requests(group, found.enough, n)} would decide it if the figures stay as they are"


def _requests(group: Group, wanted: int, n: int) -> str:
    """A number of requests and how long they take at the rate of this stage."""
    lasted_s = duration_s(group)
    return f"{wanted} requests" + (f" ({lasting(lasted_s * wanted / n)})" if lasted_s > 0 else "")


def _ends(interval: Interval, objective: Objective) -> str:
    unit = objective.kind.unit
    ends = [shown(end, unit) if math.isfinite(end) else "?" for end in (interval.low, interval.high)]
    return f"the interval {ends[0]} to {ends[1]}"
