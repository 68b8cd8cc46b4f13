"""The decisions of a report in Markdown: goodput, highest load, knee, SLO gate, costs, intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from llm_reports.markdown.numbers import NO_ANSWER, shown
from llm_reports.markdown.text import aligned, bullets
from llm_reports.metrics.costs import chosen_points, costs
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.goodput import StagePoint, highest, knee, sweeps
from llm_reports.metrics.groups import CORRECTED_LATENCY, CORRECTED_TTFT, LATENCY, OUTPUT_THROUGHPUT, TPOT, TTFT, Group
from llm_reports.metrics.summary import ordered
from llm_reports.slo.gate import Gate, Judgement
from llm_reports.stats.effective_size import LEAST_EFFECTIVE
from llm_reports.stats.intervals import UNKNOWN, Interval, requests_for_stable, values_needed
from llm_users.prices import Prices
from llm_users.record import StageLoad
from llm_users.verdict import Verdict

_WORDS = {Verdict.PASSED: "passed", Verdict.FAILED: "FAILED", Verdict.UNDECIDED: "UNDECIDED"}
_INTERVAL_METRICS = (TTFT, TPOT, LATENCY, OUTPUT_THROUGHPUT)
_INTERVAL_FIGURES = {"median": "Median", "mean": "Mean", "p95": "P95", "p99": "P99"}
ESTIMATED = (
    "Rates are estimated from the ends of requests or from the total time of all requests: the files do not show how "
    "much of each answer arrived inside the measurement window."
)
INDEPENDENCE = (
    "Concurrent requests wait for each other, so they are not independent. Intervals account for this: they use the "
    f"number of equivalent independent requests, and they are unknown if this number is below {LEAST_EFFECTIVE}."
)


def objectives_section(points: Sequence[StagePoint], text: str) -> str:
    """Return attainment and goodput of every stage, and the highest load that meets the objectives with reasons."""
    header = ["", "Attainment", "95 % interval", "Good requests/s", "of", "Good tokens/s", "of", "Verdict"]
    rows = [
        [
            label or "all requests",
            percent(point.attainment),
            between(point.attainment_interval, percent),
            number(point.goodput_requests_per_s),
            number(point.requests_per_s),
            number(point.goodput_tokens_per_s),
            number(point.tokens_per_s),
            point.verdict or "",
        ]
        for label, point in zip(labels([point.group for point in points]), points, strict=True)
    ]
    parts = [f"## Objectives\n\n`{text}`", aligned(header, rows, left={0, 7})]
    lines = []
    if any(point.estimated for point in points):
        lines.append(ESTIMATED)
    for sweep in sweeps(points):
        choice = highest(sweep)
        named = f" of {sweep[0].group.run.name} {sweep[0].group.model}".rstrip() if len(sweeps(points)) > 1 else ""
        level = "none" if choice.point is None else choice.point.load.short
        lines.append(f"{choice.name}{named}: **{level}**. {_sentence(choice.reasoning)}")
    return "\n\n".join([*parts, *([bullets(lines)] if lines else [])]) + "\n"


def knee_section(points: Sequence[StagePoint]) -> str:
    """Return the knee of each curve; "" when there is no curve."""
    lines = []
    for sweep in sweeps(points):
        choice = knee(sweep)
        if choice.point is not None:
            named = f" of {sweep[0].group.run.name} {sweep[0].group.model}".rstrip() if len(sweeps(points)) > 1 else ""
            lines.append(f"{choice.name}{named}: {_bold(choice.point.load)}. {_sentence(choice.reasoning)}")
    return f"## Knee\n\n{bullets(lines)}\n" if lines else ""


def gate_text(gate: Gate) -> str:
    """Return the verdict of the SLO gate, its judgements, and the reasons for a verdict other than passed."""
    header = ["", "Objective", "Measured", "95 % interval", "Requests", "Effective", "Verdict"]
    rows = [
        [
            judgement.label,
            f"`{judgement.objective.text}`",
            shown(judgement.estimate, judgement.objective.kind.unit),
            between(judgement.interval, lambda value, unit=judgement.objective.kind.unit: shown(value, unit)),
            str(judgement.n),
            "-" if math.isnan(judgement.effective) else f"{judgement.effective:.0f}",
            judgement.verdict,
        ]
        for judgement in gate.judgements
    ]
    stage = {"all": "every stage", "best": "the best stage"}.get(gate.stage, f"stage {gate.stage}")
    parts = [f"## Gate: {_WORDS[gate.verdict]}", f"Evaluated: {stage}."]
    if rows:
        parts.append(aligned(header, rows, left={0, 1, 6}))
        parts.append(bullets([*_explained(gate.judgements)]))
    if gate.reasons:
        parts.append(bullets(f"{reason}." for reason in gate.reasons))
    remarks = [*_sent_twice(gate.judgements), *_failures_without_objective(gate.judgements)]
    if remarks:
        parts.append(bullets(remarks))
    return "\n\n".join(parts) + "\n"


def cost_section(points: Sequence[StagePoint], prices: Prices) -> str:
    """Return the costs of every stage, and of the chosen operating points."""
    currency = f" ({prices.currency})" if prices.currency else ""
    header = ["", *(f"Per {unit}{currency}" for unit in ("request", "million output tokens", "hour")), "Paid by"]
    stage_costs = costs(points, prices)
    rows = [
        [
            label or "all requests",
            number(cost.per_request),
            number(cost.per_million_output_tokens),
            number(cost.per_hour),
            cost.by,
        ]
        for label, cost in zip(labels([point.group for point in points]), stage_costs, strict=True)
    ]
    lines = []
    for point, why in chosen_points(points, by_objectives=any(point.verdict for point in points)):
        cost = stage_costs[list(points).index(point)]
        lines.append(
            f"At {point.load.words} ({why}): {number(cost.per_request)} per request, "
            f"{number(cost.per_million_output_tokens)} per million output tokens, {number(cost.per_hour)} per hour."
        )
    unpriced = sorted({cost.point.group.model or "-" for cost in stage_costs if cost.by == "no price"})
    if unpriced:
        lines.append(f"The price file does not contain a price for {', '.join(unpriced)}.")
    lines.append("Costs include only successful requests, at the rate of the stage.")
    return f"## Costs\n\n{aligned(header, rows, left={0, 4})}\n\n{bullets(lines)}\n"


def intervals_section(groups: Sequence[Group]) -> str:
    """Return 95 % intervals of the figures of every stage, and the number of requests for a stable P99."""
    header = ["", "", *_INTERVAL_FIGURES.values(), "Requests for a stable P99"]
    rows = []
    for group, label in zip(groups, labels(groups), strict=True):
        for metric in (*_INTERVAL_METRICS, *((CORRECTED_TTFT, CORRECTED_LATENCY) if group.load.is_open else ())):
            figures = group.summary(metric)
            if not figures.n:
                continue
            needed = requests_for_stable(ordered(group.values(metric, group.ok)), 0.99)
            if needed is not None:
                needed = math.ceil(needed * figures.n / figures.effective["p99"])
            cells = [
                f"{number(getattr(figures, name))} ({between(figures.intervals.get(name, UNKNOWN), number)})"
                for name in _INTERVAL_FIGURES
            ]
            rows.append([label or "all requests", metric.name, *cells, "-" if needed is None else str(needed)])
    if not rows:
        return ""
    notes = [
        f"? marks an end that the sample is too small to determine: an interval of a P99 requires "
        f"{values_needed(0.99)} independent requests, an interval of a P95 {values_needed(0.95)}. Stable: the interval "
        "is within 10 % of the P99, estimated from these requests.",
        "Percentiles: order statistics, exact binomial ranks. Means: Student's t. Shares: Wilson.",
        INDEPENDENCE,
    ]
    return f"## 95 % intervals\n\n{aligned(header, rows, left={0, 1})}\n\n{bullets(notes)}\n"


def number(value: float) -> str:
    """Format a number with three significant digits and without an exponent."""
    if not math.isfinite(value):
        return "?" if math.isinf(value) else "-"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def percent(value: float) -> str:
    """Format a share in percent."""
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def between(interval: Interval, text: object = number) -> str:
    """Format both ends of an interval; ? for an end that the sample does not determine."""
    if math.isnan(interval.low):
        return "-"
    if interval.low == math.inf:
        return NO_ANSWER
    show = text if callable(text) else number
    ends = [show(end) if math.isfinite(end) else "?" for end in (interval.low, interval.high)]
    return f"{ends[0]} to {ends[1]}"


def _explained(judgements: Sequence[Judgement]) -> Iterator[str]:
    """Yield explanations of the columns of the gate's table that are not obvious."""
    yield (
        "Effective: the equivalent number of independent requests; concurrent requests wait for each other and are "
        f"not independent. Below {LEAST_EFFECTIVE}, the verdict is undecided"
        + (", unless all requests are far on one side of the limit." if _decided_by_few(judgements) else ".")
    )
    if any(math.isinf(judgement.estimate) for judgement in judgements):
        yield (
            f"{NO_ANSWER.capitalize()}: a failed request counts as infinitely slow, and this percentile falls on a "
            "failed request."
        )


def _decided_by_few(judgements: Sequence[Judgement]) -> bool:
    return any(
        judgement.verdict is not Verdict.UNDECIDED and judgement.effective < LEAST_EFFECTIVE for judgement in judgements
    )


def _bold(load: StageLoad) -> str:
    return f"**{load.words}**" if load.is_open else f"concurrency **{load.short}**"


def _sentence(parts: Sequence[str]) -> str:
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _sent_twice(judgements: Sequence[Judgement]) -> Iterator[str]:
    """Yield the number of evaluated requests that were sent again, because a resend hides that a connection failed."""
    groups = [
        group for group in dict.fromkeys(judgement.group for judgement in judgements) if "reconnects" in group.measured
    ]
    resent = sum(int((group.measured["reconnects"] > 0).sum()) for group in groups)
    if resent:
        total = sum(group.counts.measured for group in groups)
        yield (
            f"{resent} of {total} requests were sent again on a new connection, because the server closed a reused "
            "connection before it answered; they do not count as failed, and their times begin with the second attempt."
        )


def _failures_without_objective(judgements: Sequence[Judgement]) -> Iterator[str]:
    if any(judgement.objective.name == "errors" for judgement in judgements):
        return
    groups = {judgement.group for judgement in judgements}
    failed = sum(group.counts.failed for group in groups)
    if not failed:
        return
    total = sum(group.counts.measured for group in groups)
    throttled = sum(group.counts.throttled for group in groups)
    among = f" ({throttled} of them throttled)" if throttled else ""
    yield (
        f"{failed} of {total} requests failed{among}, but the objectives do not limit errors; add an objective such "
        "as errors<0.01."
    )
