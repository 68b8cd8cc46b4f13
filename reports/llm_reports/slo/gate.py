"""The SLO gate for pipelines: it compares objectives with stages; the verdict is passed, failed or undecided.

An objective is passed only if the bad end of its interval is within the limit, and failed only if the good end is not.
Otherwise it is undecided. It is also undecided if the client may have caused the result, unless the figure exceeds its
limit by more than the client's own delay, or if the stage was unsteady and the figure is within the limit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from pandas import DataFrame

from llm_reports.errors import InputError
from llm_reports.llmperf.results import duration_s
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.groups import Group, unstreamed
from llm_reports.metrics.outcomes import dropped
from llm_reports.metrics.steadiness import UNKNOWN
from llm_reports.sections.numbers import between, shown, shown_apart
from llm_reports.slo.evidence import (
    Evidence,
    evidence,
    failures_disprove,
    least_requests,
    length_in_latencies,
    measured_s,
)
from llm_reports.slo.objectives import ERRORS, Objective, Objectives
from llm_reports.slo.stage_doubts import at_most, brief_doubt, delay_s, doubt, late, stricter
from llm_reports.stats.intervals import Interval
from llm_users.number_words import lasting
from llm_users.record import COL, UNSTEADY
from llm_users.verdict import Verdict, worst

TOO_SHORT = "too short to show whether its queue grows"
_LEAST_ANSWERS = 8
"""The steadiness of a shorter open loop, in mean latencies, is unknown (``metrics.steadiness``)."""
ALL_STAGES, BEST_STAGE = "all", "best"
_SLOW = 3.0  # an effective size below this value means that the values change over the length of the whole stage

_ESTIMABLE = 10.0
"""Below this effective size, the dependence is too uncertain for an estimate of the number of requests: with 4 to 13,
the advice of equal stages differed by a factor of three."""


@dataclass(frozen=True)
class Judgement:
    """The verdict on one objective in one stage."""

    label: str
    group: Group
    objective: Objective
    n: int
    estimate: float
    interval: Interval
    verdict: Verdict
    reason: str
    effective: float = math.nan
    """The effective sample size: the number of independent requests that is equivalent to ``n``."""
    every: str = ""
    """How far all requests are from the limit, if the objective passed by this and not by its interval."""
    brief: str = ""
    """Why the verdict is undecided, in a few words for a list of stages; "" for another verdict."""

    @property
    def explanation(self) -> str:
        """The reason; with the errors of the requests if failed requests are why the objective has not passed."""
        return f"{self.reason}. Errors: {self.failures}" if self.failures else self.reason

    @property
    def failures(self) -> str:
        """The errors of the requests in words, if failed requests are why the objective has not passed; "" otherwise.

        This is the case if no request succeeded, if a percentile falls on a failed request, or for a limit on errors.
        """
        decisive = not len(self.group.ok) or math.isinf(self.estimate) or self.objective.name == ERRORS
        return self.group.failure_reasons if decisive and self.verdict is not Verdict.PASSED else ""


@dataclass(frozen=True)
class Gate:
    """The objectives, the stages to evaluate, and the verdict."""

    objectives: Objectives
    stage: str
    judgements: tuple[Judgement, ...]
    verdict: Verdict
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the verdict is passed, so that a pipeline can continue."""
        return self.verdict is Verdict.PASSED

    @property
    def scope(self) -> str:
        """The evaluated stages in words: ``every stage``, ``the best stage`` or ``stage 2``."""
        return {ALL_STAGES: "every stage", BEST_STAGE: "the best stage"}.get(self.stage, f"stage {self.stage}")

    def frame(self) -> DataFrame:
        """Return a DataFrame with one row per objective and stage."""
        return DataFrame(
            [
                {
                    **judgement.group.identity,
                    "objective": judgement.objective.text,
                    "n": judgement.n,
                    "n_effective": judgement.effective,
                    "estimate": judgement.estimate,
                    "ci_low": judgement.interval.low,
                    "ci_high": judgement.interval.high,
                    "verdict": judgement.verdict,
                    "reason": judgement.reason,
                }
                for judgement in self.judgements
            ]
        )


def gate(groups: Sequence[Group], objectives: Objectives, stage: str = ALL_STAGES) -> Gate:
    """Return the verdict on every stage, on the best stage of each run (the highest load that passes), or on stage N.

    Raises ``InputError`` when ``stage`` is not valid or does not exist, and for an objective on TTFT or TPOT when no
    request asked for a stream.
    """
    wanted = valid_stage(stage)
    chosen = [group for group in groups if group.stage == int(wanted)] if wanted.isdecimal() else groups
    if groups and not chosen:
        known = ", ".join(sorted({str(group.stage) for group in groups if group.stage is not None}))
        raise InputError(f"stage {wanted} does not exist; available stages: {known or 'none with a number'}")
    for objective in objectives.all:
        if objective.kind.needs_stream and is_unstreamed(chosen):
            raise InputError(objective.without_stream)
    judgements = judge_all(chosen, objectives)
    if not judgements:
        verdict, reasons = Verdict.UNDECIDED, ["the run does not contain stages with measured requests"]
    elif stage == BEST_STAGE:
        verdict, reasons = _best(judgements)
    else:
        verdict, reasons = worst(judgement.verdict for judgement in judgements), _not_passed(judgements)
    return Gate(objectives, stage, judgements, verdict, tuple(dict.fromkeys(reasons)))


def is_unstreamed(groups: Sequence[Group]) -> bool:
    """Return whether the groups have measured requests that were sent, none of which asked for a stream."""
    sent = [group.measured[~dropped(group.measured[COL.error_code])] for group in groups]
    return any(len(rows) for rows in sent) and all(unstreamed(rows).all() for rows in sent)


def judge_all(groups: Sequence[Group], objectives: Objectives) -> tuple[Judgement, ...]:
    """Return the judgements on every objective in every group."""
    return tuple(
        dataclasses.replace(judge(group, objective), label=label or "all requests")
        for group, label in zip(groups, labels(groups), strict=True)
        for objective in objectives.all
    )


def judge(group: Group, objective: Objective) -> Judgement:
    """Return the judgement on one objective in one group.

    Unknown values of requests (because they were aborted, or their answer arrived all at once) count at their worst
    before an objective passes, and at their best before it fails. Failed requests count as infinitely slow. Requests
    that the client cancelled on purpose do not count.
    """
    late_s = delay_s(group)
    result = evidence(group, objective, late_s)
    verdict, reason = _decided(group, objective, result)
    brief = "no request has a value"
    if verdict is Verdict.UNDECIDED and result.n:
        passed_without = late_s > 0 and _decided(group, objective, evidence(group, objective))[0] is Verdict.PASSED
        reason = late(group, objective, late_s) if passed_without else _advice(group, objective, result)
        brief = f"the client was {group.health}" if passed_without else _shortage(objective, result)
    has_failed = verdict is Verdict.FAILED
    by_failures = has_failed and failures_disprove(group, objective)
    doubts = "" if by_failures else doubt(group, objective, failed=has_failed)
    if doubts and has_failed and _fails_without_delay(group, objective):
        reason += f" ({at_most(group, objective.kind.column)})"
    elif doubts and verdict is not Verdict.UNDECIDED:
        verdict, reason = Verdict.UNDECIDED, f"{doubts} (measured: {reason})"
        brief = brief_doubt(group, failed=has_failed)
    elif doubts:
        reason = f"{reason}. Also, {doubts}"
    if group.steadiness == UNSTEADY and verdict is not Verdict.FAILED:
        verdict, reason = _unsteady(objective, result)
        brief = "the queue grew"
    elif group.load.is_open and group.steadiness == UNKNOWN and verdict is Verdict.PASSED:
        verdict, reason = Verdict.UNDECIDED, f"{_too_short(group)} (measured: {reason})"
        brief = "the stage is too short"
    if objective.name == ERRORS and group.counts.throttled and result.n:
        reason += f" ({group.counts.throttled} of the {group.counts.failed} failed requests were throttled)"
    every = ""
    if verdict is Verdict.PASSED and result.far_from_limit and not _proved(objective, result):
        every = _every(objective, result)
    return Judgement(
        "",
        group,
        objective,
        result.n,
        result.estimate,
        result.interval,
        verdict,
        reason,
        effective=result.effective,
        every=every,
        brief=brief if verdict is Verdict.UNDECIDED else "",
    )


def valid_stage(text: str) -> str:
    """Return ``all``, ``best`` or the number of a stage; raises ``InputError`` for any other text."""
    wanted = text.strip().lower()
    if wanted in (ALL_STAGES, BEST_STAGE) or (wanted.isdecimal() and int(wanted) > 0):
        return wanted
    raise InputError(f"{text!r} is not a valid stage; write all, best or the number of a stage, from 1")


def _best(judgements: Sequence[Judgement]) -> tuple[Verdict, list[str]]:
    runs = list(dict.fromkeys(judgement.group.run for judgement in judgements))
    verdicts: list[Verdict] = []
    reasons: list[str] = []
    for run in runs:
        of_run = [judgement for judgement in judgements if judgement.group.run is run]
        verdicts_by_stage: dict[Group, list[Verdict]] = {}
        for judgement in of_run:
            verdicts_by_stage.setdefault(judgement.group, []).append(judgement.verdict)
        of_stages = {worst(of_stage) for of_stage in verdicts_by_stage.values()}
        verdicts.append(next(v for v in (Verdict.PASSED, Verdict.UNDECIDED, Verdict.FAILED) if v in of_stages))
        if verdicts[-1] is not Verdict.PASSED:
            reasons.append(f"{f'{run.name}: ' if len(runs) > 1 else ''}no stage meets all objectives")
            reasons += _not_passed(of_run)
    return worst(verdicts), reasons


def _not_passed(judgements: Iterable[Judgement]) -> list[str]:
    """Return the reason of every objective that has not passed, and after those of a stage its errors, once."""
    open_ones = [one for one in judgements if one.verdict is not Verdict.PASSED]
    reasons: list[str] = []
    for group in dict.fromkeys(one.group for one in open_ones):
        of_stage = [one for one in open_ones if one.group is group]
        reasons += [f"{one.label}: {one.reason}" for one in of_stage]
        reasons += [f"{one.label}: errors: {one.failures}" for one in of_stage if one.failures][:1]
    return reasons


def _decided(group: Group, objective: Objective, result: Evidence) -> tuple[Verdict, str]:
    less, unit, n = objective.kind.less_is_better, objective.kind.unit, result.n
    if not n and is_unstreamed([group]) and objective.kind.needs_stream:
        return Verdict.UNDECIDED, objective.without_stream
    if not n:
        missing = "has a value" if len(group.measured) else "was measured"
        return Verdict.UNDECIDED, f"no request {missing} for {objective.text}"
    if result.failed and objective.q is None:
        measured = f"{result.failed} of {n} requests failed and have no value, so the mean is undefined"
        percentile = f"{objective.name}_{'p95' if less else 'p5'}"
        return Verdict.FAILED, f"{objective.text} does not hold: {measured}; use a percentile, such as {percentile}"
    if _proved(objective, result):
        measured = _with_bound(objective, result, result.proof, "up to" if less else "down to")
        return Verdict.PASSED, f"{objective.text} holds: {measured}"
    if result.far_from_limit:
        measured = f"measured {shown(result.estimate, unit)}, {_every(objective, result)} ({n} requests)"
        return Verdict.PASSED, f"{objective.text} holds: {measured}"
    # An infinite disproof of a latency is known: even the good end of the interval is a failed request.
    known = math.isfinite(result.disproof) or (result.disproof == math.inf and less)
    if known and objective.broken(result.disproof):
        measured = _with_bound(objective, result, result.disproof, "from" if less else "to at most")
        if math.isinf(result.disproof):
            measured = f"no answer, {result.failed} of {n} requests failed"
        return Verdict.FAILED, f"{objective.text} does not hold: {measured}"
    return Verdict.UNDECIDED, ""


def _proved(objective: Objective, result: Evidence) -> bool:
    """Return whether the bad end of the interval is within the limit."""
    return math.isfinite(result.proof) and objective.holds(result.proof)


def _too_short(group: Group) -> str:
    """Return why the steadiness of the stage is unknown."""
    lasted_s, latencies = measured_s(group), length_in_latencies(group)
    if latencies < _LEAST_ANSWERS:
        answers_s = _LEAST_ANSWERS * lasted_s / latencies
        return (
            f"the stage ({lasted_s:.0f} s) is shorter than {_LEAST_ANSWERS} answers ({math.ceil(answers_s)} s), "
            f"{TOO_SHORT}"
        )
    return f"the stage is {TOO_SHORT}: run it much longer than an answer takes"


def _every(objective: Objective, result: Evidence) -> str:
    """Return how far all values are from the limit, in words."""
    side = "at most" if objective.kind.less_is_better else "at least"
    times = result.worst / objective.limit
    if objective.kind.less_is_better and times <= 0.25:
        share = "a quarter of the limit"
    elif objective.kind.less_is_better:
        share = f"{math.ceil(100 * times - 1e-9)} % of the limit"
    else:
        share = f"{math.floor(10 * times + 1e-9) / 10:g} times the limit"
    return f"every request is {side} {share}"


def _with_bound(objective: Objective, result: Evidence, bound: float, direction: str) -> str:
    """Return the figure and the end of its interval that decides, with enough digits to differ from the limit."""
    estimate, end = (shown_apart(value, objective.kind.unit, objective.limit) for value in (result.estimate, bound))
    failures = f", {result.failed} of them failed" if result.failed else ""
    return f"measured {estimate}, 95 % interval {direction} {end} ({result.n} requests{failures})"


def _fails_without_delay(group: Group, objective: Objective) -> bool:
    """Return whether an objective also fails if every request is faster by the delay of the client."""
    harder = stricter(group, objective)
    return harder is not None and _decided(group, harder, evidence(group, harder))[0] is Verdict.FAILED


def _unsteady(objective: Objective, result: Evidence) -> tuple[Verdict, str]:
    """Return the verdict for an unsteady stage.

    A figure that exceeds its limit gets worse in a longer stage; a figure within its limit may exceed it later.
    """
    grew = "the stage was unsteady: its queue grew until the end"
    if result.n and not objective.is_share and objective.broken(result.estimate):
        measured = f"{shown(result.estimate, objective.kind.unit)}, and {grew}, so a longer stage would be slower"
        return Verdict.FAILED, f"{objective.text} does not hold: {measured}"
    return Verdict.UNDECIDED, f"{grew}, so {objective.text} would depend on the length of the stage. Lower the load"


def _shortage(objective: Objective, result: Evidence) -> str:
    """Return what is missing for a verdict, in a few words; ``_advice`` has the numbers."""
    least = least_requests(objective)
    if result.n < least:
        return "too few requests"
    if result.effective < least:
        return "too few independent requests"
    if result.unknown and (result.enough is None or result.enough <= result.n):
        return "requests without a value"
    return "the interval contains the limit"


def _advice(group: Group, objective: Objective, result: Evidence) -> str:
    """Return the number of requests that would decide the objective, as advice in words."""
    least, n = least_requests(objective), result.n
    if n < least:
        return f"{objective.text} needs at least {least} requests for a verdict, but there are {n}"
    if result.effective < least:
        shortage = (
            f"{objective.text} needs at least {least} independent requests for a verdict; the {n} requests wait for "
            f"each other and are equivalent to {result.effective:.0f}"
        )
        if result.effective < _SLOW:
            if not group.load.is_open:
                return (
                    f"{shortage}, because the times of all users change together, as they do when users of answers of "
                    "equal length run in step: run much longer, or vary the lengths of the answers"
                )
            return (
                f"{shortage}, because many requests were slow together, in few periods of the stage: lower the load or "
                "run much longer"
            )
        if result.effective < _ESTIMABLE:
            return (
                f"{shortage}. This stage cannot show how many are needed: run at least three times as long, or lower "
                "the load"
            )
        fewest, most = (_two_digits(factor * least * n / result.effective) for factor in (1, 2))
        return f"{shortage}: about {fewest} to {_requests(group, most, n)} are needed at this load"
    unit = objective.kind.unit
    ends = between(result.interval, partial(shown, unit=unit))
    now = f"{shown(result.estimate, unit)} of {n} requests"
    straddles = f"the interval ({ends}) contains the limit of {objective.text} ({now})"
    if result.unknown and (result.enough is None or result.enough <= n):
        return f"{result.unknown} requests without a value (aborted or buffered) could change {objective.text}"
    if result.enough is None or result.enough <= n:
        return f"{straddles}: more requests are needed to decide"
    return f"{straddles}: about {_requests(group, result.enough, n)} would decide it if the figures do not change"


def _two_digits(number: float) -> int:
    """Return the number rounded up to two digits."""
    unit: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit


def _requests(group: Group, wanted: int, n: int) -> str:
    """Return a number of requests in words, with the time that they take at the rate of this stage."""
    lasted_s = duration_s(group)
    return f"{wanted} requests" + (f" ({lasting(lasted_s * wanted / n)})" if lasted_s > 0 else "")
