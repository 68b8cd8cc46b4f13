"""The part of a report that decides, in Markdown: goodput, highest load, knee, gate, intervals."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from llm_reports.markdown.numbers import NO_ANSWER
from llm_reports.markdown.text import aligned, bullets
from llm_reports.metrics.costs import chosen_points, costs
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.goodput import StagePoint, highest, knee, sweeps
from llm_reports.metrics.groups import CORRECTED_LATENCY, CORRECTED_TTFT, LATENCY, OUTPUT_THROUGHPUT, TPOT, TTFT, Group
from llm_reports.metrics.summary import ordered
from llm_reports.slo.gate import Gate, Judgement, shown
from llm_reports.stats.effective_size import LEAST_EFFECTIVE
from llm_reports.stats.intervals import UNKNOWN, Interval, requests_for_stable, values_needed
from llm_users.prices import Prices
from llm_users.record import StageLoad
from llm_users.verdict import Verdict

_WORDS = {Verdict.PASSED: "passed", Verdict.FAILED: "FAILED", Verdict.UNDECIDED: "UNDECIDED"}
_INTERVAL_METRICS = (TTFT, TPOT, LATENCY, OUTPUT_THROUGHPUT)
_INTERVAL_FIGURES = {"median": "Median", "mean": "Mean", "p95": "P95", "p99": "P99"}
ESTIMATED = (
    "Rates are estimated from the ends of requests or from the time that all of them took: the files do not say how "
    "much of each answer arrived inside the measuring window."
)
INDEPENDENCE = (
    "Requests that run at the same time wait for each other. Intervals allow for it: they count as many values as the "
    f"requests are worth as independent ones, and there is no interval below {LEAST_EFFECTIVE} of these."
)


def objectives_section(points: Sequence[StagePoint], text: str) -> str:
    """Attainment and goodput of every stage, then the highest load that meets, with its reasons."""
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
    """The knee of each curve; "" when there is no curve."""
    lines = []
    for sweep in sweeps(points):
        choice = knee(sweep)
        if choice.point is not None:
            named = f" of {sweep[0].group.run.name} {sweep[0].group.model}".rstrip() if len(sweeps(points)) > 1 else ""
            lines.append(f"{choice.name}{named}: {_bold(choice.point.load)}. {_sentence(choice.reasoning)}")
    return f"## Knee\n\n{bullets(lines)}\n" if lines else ""


def gate_text(gate: Gate) -> str:
    """The verdict, what it rests on, and why it is not better."""
    header = ["", "Objective", "Measured", "95 % interval", "Requests", "Effective", "Verdict"]
    rows = [
        [
            each.label,
            f"`{each.objective.text}`",
            shown(each.estimate, each.objective.kind.unit),
            between(each.interval, lambda value, unit=each.objective.kind.unit: shown(value, unit)),
            str(each.n),
            "-" if math.isnan(each.effective) else f"{each.effective:.0f}",
            each.verdict,
        ]
        for each in gate.judgements
    ]
    stage = {"all": "every stage", "best": "the best stage"}.get(gate.stage, f"stage {gate.stage}")
    parts = [f"## Gate: {_WORDS[gate.verdict]}", f"Judged: {stage}."]
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
    """Costs of every stage, and of the point to run at."""
    currency = f" ({prices.currency})" if prices.currency else ""
    header = ["", *(f"Per {unit}{currency}" for unit in ("request", "million output tokens", "hour")), "Paid by"]
    found = costs(points, prices)
    rows = [
        [
            label or "all requests",
            number(cost.per_request),
            number(cost.per_million_output_tokens),
            number(cost.per_hour),
            cost.by,
        ]
        for label, cost in zip(labels([point.group for point in points]), found, strict=True)
    ]
    lines = []
    for point, why in chosen_points(points, by_objectives=any(point.verdict for point in points)):
        cost = found[list(points).index(point)]
        lines.append(
            f"At {point.load.words} ({why}): {number(cost.per_request)} per request, "
            f"{number(cost.per_million_output_tokens)} per million output tokens, {number(cost.per_hour)} per hour."
        )
    unpriced = sorted({cost.point.group.model or "-" for cost in found if cost.by == "no price"})
    if unpriced:
        lines.append(f"The price file has no price for {', '.join(unpriced)}.")
    lines.append("Only requests that succeeded are counted, at the rate at which this stage made them.")
    return f"## Costs\n\n{aligned(header, rows, left={0, 4})}\n\n{bullets(lines)}\n"


def intervals_section(groups: Sequence[Group]) -> str:
    """95 % intervals of the figures of every stage, and how many requests a stable P99 takes."""
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
        f"? is an end that the sample is too small for: a P99 needs {values_needed(0.99)} independent requests to be "
        f"bounded, a P95 {values_needed(0.95)}. Stable: the interval is within 10 % of the P99, judged by these "
        "requests.",
        "Percentiles: order statistics, exact binomial ranks. Means: Student's t. Shares: Wilson.",
        INDEPENDENCE,
    ]
    return f"## 95 % intervals\n\n{aligned(header, rows, left={0, 1})}\n\n{bullets(notes)}\n"


def number(value: float) -> str:
    """Three significant digits without an exponent."""
    if not math.isfinite(value):
        return "?" if math.isinf(value) else "-"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def percent(value: float) -> str:
    """A share in percent."""
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def between(interval: Interval, text: object = number) -> str:
    """Both ends; ? where the sample cannot give one."""
    if math.isnan(interval.low):
        return "-"
    if interval.low == math.inf:
        return NO_ANSWER
    show = text if callable(text) else number
    ends = [show(end) if math.isfinite(end) else "?" for end in (interval.low, interval.high)]
    return f"{ends[0]} to {ends[1]}"


def _explained(judgements: Sequence[Judgement]) -> Iterator[str]:
    """What the columns of the gate's table mean, where it is not obvious."""
    yield (
        "Effective: how many independent requests these are worth, since requests that run at the same time wait for "
        f"each other. Below {LEAST_EFFECTIVE} nothing is decided"
        + (", except where all requests are far on one side of the limit." if _decided_by_few(judgements) else ".")
    )
    if any(math.isinf(each.estimate) for each in judgements):
        yield f"{NO_ANSWER.capitalize()}: a failed request counts as infinitely slow, and this percentile is one."


def _decided_by_few(judgements: Sequence[Judgement]) -> bool:
    return any(each.verdict is not Verdict.UNDECIDED and each.effective < LEAST_EFFECTIVE for each in judgements)


def _bold(load: StageLoad) -> str:
    return f"**{load.words}**" if load.is_open else f"concurrency **{load.short}**"


def _sentence(parts: Sequence[str]) -> str:
    return ". ".join(part[0].upper() + part[1:] for part in parts) + "."


def _sent_twice(judgements: Sequence[Judgement]) -> Iterator[str]:
    """How many of the judged requests were sent again, which hides that a connection died under them."""
    groups = [group for group in dict.fromkeys(each.group for each in judgements) if "reconnects" in group.measured]
    resent = sum(int((group.measured["reconnects"] > 0).sum()) for group in groups)
    if resent:
        total = sum(group.counts.measured for group in groups)
        yield (
            f"{resent} of {total} requests were sent again on a new connection, because a kept connection died before "
            "an answer came; they do not count as failed, and their times begin with the second attempt."
        )


def _failures_without_objective(judgements: Sequence[Judgement]) -> Iterator[str]:
    if any(each.objective.name == "errors" for each in judgements):
        return
    groups = {each.group for each in judgements}
    failed = sum(group.counts.failed for group in groups)
    if not failed:
        return
    total = sum(group.counts.measured for group in groups)
    throttled = sum(group.counts.throttled for group in groups)
    among = f" ({throttled} of them throttled)" if throttled else ""
    yield f"{failed} of {total} requests failed{among} and no objective speaks of errors; add one such as errors<0.01."
