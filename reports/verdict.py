"""The verdict of a pipeline: objectives against stages, with three answers: met, missed, or not decidable.

An objective is met only if the bound of its interval keeps to the limit, and missed only if the other bound does not.
Everything between, and everything measured by a client that was itself the limit, is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame

from llm_users.quantile import quantile
from reports.correctness import mismatches
from reports.errors import InputError
from reports.grouping import OPEN_LOOP_METRICS, OUTPUT_THROUGHPUT, REQUEST_METRICS, Group, Metric
from reports.intervals import (
    UNKNOWN,
    Interval,
    mean_interval,
    quantile_interval,
    ratio_interval,
    requests_needed_below,
    requests_to_tell,
    values_needed,
)
from reports.notes import labels
from reports.objectives import ERRORS, Objective, Objectives
from reports.statistics import ordered

MET, MISSED, REFUSED = "met", "missed", "refused"
ALL_STAGES, BEST_STAGE = "all", "best"
_METRICS = {metric.name: metric for metric in (*REQUEST_METRICS, *OPEN_LOOP_METRICS)}
_NEEDS_STREAMING = {"ttft", "ttfat", "tpot", "corrected_ttft"}


@dataclass(frozen=True)
class Judgement:
    """One objective in one stage."""

    label: str
    group: Group
    objective: Objective
    n: int
    estimate: float
    interval: Interval
    outcome: str
    reason: str


@dataclass(frozen=True)
class Gate:
    """What was asked and what came out. ``outcome`` is met, missed or refused; only met passes."""

    objectives: Objectives
    stage: str
    judgements: tuple[Judgement, ...]
    outcome: str
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether a pipeline may go on."""
        return self.outcome == MET

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
                    "estimate": each.estimate,
                    "ci_low": each.interval.low,
                    "ci_high": each.interval.high,
                    "outcome": each.outcome,
                    "reason": each.reason,
                }
                for each in self.judgements
            ]
        )


def gate(groups: Sequence[Group], objectives: Objectives, stage: str = ALL_STAGES) -> Gate:
    """The verdict on every stage, on the best one of each run (the highest load that meets), or on stage N."""
    chosen = _chosen(groups, stage)
    judgements = judge_all(chosen, objectives)
    if stage == BEST_STAGE:
        outcome, reasons = _best(judgements)
    else:
        outcome = worst(each.outcome for each in judgements)
        reasons = tuple(dict.fromkeys(f"{each.label}: {each.reason}" for each in judgements if each.outcome != MET))
    if not judgements:
        outcome, reasons = REFUSED, ("there is no stage to judge: nothing was measured",)
    return Gate(objectives, stage, judgements, outcome, reasons)


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
    objective is met and at its best before it is missed. Requests that the client cancelled on purpose are not judged.
    """
    if objective.name == ERRORS:
        n, estimate, best, worst_case = _errors(group)
    elif objective.is_share:
        share = mismatches(group, objective.kind.column)
        n, estimate, best, worst_case = share.checked, share.ratio, share.interval, share.worst_interval
    else:
        n, estimate, best, worst_case = _latencies(group, objective)
    outcome, reason = _decided(objective, n, estimate, best, worst_case)
    if group.health == "saturated":
        outcome = REFUSED
        reason = "the client was saturated: it measured itself. Add workers or lower the load"
    elif outcome == REFUSED and n:
        reason = _advice(group, objective, n, estimate, best)
    if objective.name == ERRORS and group.counts.throttled and n:
        reason += f" ({group.counts.throttled} of the {group.counts.failed} that failed were throttled)"
    return Judgement("", group, objective, n, estimate, best, outcome, reason)


def worst(outcomes: Iterable[str]) -> str:
    """Missed if one is missed, else refused if one is refused."""
    found = set(outcomes)
    return next((outcome for outcome in (MISSED, REFUSED) if outcome in found), MET)


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


def _best(judgements: Sequence[Judgement]) -> tuple[str, tuple[str, ...]]:
    runs = list(dict.fromkeys(each.group.run for each in judgements))
    outcomes, reasons = [], []
    for run in runs:
        stages: dict[Group, list[Judgement]] = {}
        for each in judgements:
            if each.group.run is run:
                stages.setdefault(each.group, []).append(each)
        verdicts = {group: worst(each.outcome for each in found) for group, found in stages.items()}
        if MET in verdicts.values():
            outcomes.append(MET)
            continue
        outcomes.append(REFUSED if REFUSED in verdicts.values() else MISSED)
        named = f"{run.name}: " if len(runs) > 1 else ""
        failed = [each for found in stages.values() for each in found if each.outcome != MET]
        reasons.append(f"{named}no stage meets all objectives")
        reasons.extend(f"{each.label}: {each.reason}" for each in failed)
    return worst(outcomes), tuple(dict.fromkeys(reasons))


def _errors(group: Group) -> tuple[int, float, Interval, Interval]:
    counts = group.counts
    n = counts.ended
    if not n:
        return 0, math.nan, UNKNOWN, UNKNOWN
    return (
        n,
        counts.failed / n,
        ratio_interval(counts.failed, n),
        ratio_interval(counts.failed + counts.aborted, n + counts.aborted),
    )


def _latencies(group: Group, objective: Objective) -> tuple[int, float, Interval, Interval]:
    metric = metric_of(objective)
    values = ordered(group.values(metric, group.ok))
    n, unknown = len(values), _unknown(group, objective)
    if not n:
        return 0, math.nan, UNKNOWN, UNKNOWN
    if objective.q is None:
        figures = group.summary(metric)
        interval = figures.intervals["mean"]
        return n, figures.mean, interval, interval if not unknown else UNKNOWN
    bad = math.inf if objective.kind.less_is_better else -math.inf
    padded = np.sort(np.append(values, [bad] * unknown)) if unknown else values
    padded_ends = quantile_interval(padded.tolist() if unknown else values, objective.q)  # type: ignore[union-attr]
    return n, quantile(values, objective.q), quantile_interval(values, objective.q), padded_ends


def metric_of(objective: Objective) -> Metric:
    """What an objective is measured by."""
    return OUTPUT_THROUGHPUT if objective.name == "throughput" else _METRICS[objective.kind.column]


def _unknown(group: Group, objective: Objective) -> int:
    """Requests of which nobody knows on which side of the limit they would have been."""
    if objective.is_share and objective.name != ERRORS:
        return mismatches(group, objective.kind.column).unknown
    buffered = int((group.ok["error_code"] == "buffered").sum()) if objective.name in _NEEDS_STREAMING else 0
    return group.counts.aborted + buffered


def _decided(objective: Objective, n: int, estimate: float, best: Interval, worst_case: Interval) -> tuple[str, str]:
    less = objective.kind.less_is_better
    proof, disproof = (worst_case.high, best.low) if less else (worst_case.low, best.high)
    unit = objective.kind.unit
    if not n:
        return REFUSED, f"no request has what {objective.text} is about"
    if math.isfinite(proof) and objective.holds(proof):
        bound = "at most" if less else "at least"
        return MET, f"{objective.text} holds: {shown(estimate, unit)}, {bound} {shown(proof, unit)} of {n} requests"
    if math.isfinite(disproof) and objective.broken(disproof):
        bound = "at least" if less else "at most"
        return (
            MISSED,
            f"{objective.text} does not: {shown(estimate, unit)}, {bound} {shown(disproof, unit)} of {n} requests",
        )
    return REFUSED, ""


def _advice(group: Group, objective: Objective, n: int, estimate: float, interval: Interval) -> str:
    """How many requests would decide it."""
    least = least_requests(objective)
    if n < least:
        return f"needs at least {least} requests to decide {objective.text}, there are {n}"
    now = f"{shown(estimate, objective.kind.unit)} of {n} requests"
    straddles = f"{_ends(interval, objective)} holds the limit of {objective.text} ({now})"
    more = _enough(group, objective, estimate)
    if _unknown(group, objective) and (more is None or more <= n):
        return (
            f"{_unknown(group, objective)} requests without a value (aborted or buffered) could turn {objective.text}"
        )
    if more is None or more <= n:
        return f"{straddles}: more requests are needed to decide"
    return f"{straddles}: about {more} requests would decide it if the figures stay as they are"


def least_requests(objective: Objective) -> int:
    """The smallest sample that can meet an objective at all."""
    if objective.is_share:
        return requests_needed_below(objective.limit)
    return 2 if objective.q is None else values_needed(objective.q)


def _enough(group: Group, objective: Objective, estimate: float) -> int | None:
    if objective.is_share:
        return requests_to_tell(estimate, objective.limit)
    values = np.asarray(ordered(group.values(metric_of(objective), group.ok)))
    if objective.q is None:
        interval = mean_interval(estimate, float(values.std(ddof=1)), len(values)) if len(values) > 1 else UNKNOWN
        reach, distance = interval.high - estimate, abs(objective.limit - estimate)
        return math.ceil(len(values) * (reach / distance) ** 2) + 1 if distance and math.isfinite(reach) else None
    share = float((values < objective.limit).mean())
    return requests_to_tell(share, objective.q)


def _ends(interval: Interval, objective: Objective) -> str:
    unit = objective.kind.unit
    low = shown(interval.low, unit) if math.isfinite(interval.low) else "?"
    high = shown(interval.high, unit) if math.isfinite(interval.high) else "?"
    return f"the interval {low} to {high}"


def shown(value: float, unit: str) -> str:
    """A figure for a sentence: three digits and its unit; a share in percent."""
    if math.isnan(value):
        return "-"
    return f"{value:.3g} {unit}" if unit else f"{100 * value:.3g} %"
