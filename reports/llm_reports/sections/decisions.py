"""The decisions of a report: correctness, goodput and highest load, costs, SLO gate, knee."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from llm_reports.content import Content
from llm_reports.metrics.costs import chosen_points, costs
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.goodput import LEAST_LEVELS, StagePoint, answer, highest, knee, sweeps
from llm_reports.metrics.load_search import search_of
from llm_reports.sections.numbers import NO_ANSWER, between, number, percent, shown
from llm_reports.sections.section import Grid, Section, wrapped
from llm_reports.sections.sizing import sizing_section
from llm_reports.sections.stage_tables import correctness_section
from llm_reports.slo.gate import Gate, Judgement
from llm_reports.stats.effective_size import LEAST_EFFECTIVE
from llm_users.prices import Prices
from llm_users.verdict import Verdict

_WORDS = {Verdict.PASSED: "passed", Verdict.FAILED: "FAILED", Verdict.UNDECIDED: "UNDECIDED"}
ESTIMATED = (
    "Rates are estimated from the ends of requests or from the total time of all requests: the files do not show how "
    "much of each answer arrived inside the measurement window."
)


def decision_sections(content: Content) -> list[Section]:
    """Return the sections on correctness, objectives, replicas, costs and the SLO gate that apply to the content."""
    sections = [correctness_section(content.groups)]
    if content.objectives is not None:
        sections.append(objectives_section(content.judged_points, content.objectives.text))
    if content.sizing is not None:
        sections.append(sizing_section(content.sizing))
    if content.prices is not None:
        sections.append(cost_section(content.judged_points, content.prices))
    if content.gate is not None:
        sections.append(gate_section(content.gate))
    return [section for section in sections if section is not None]


def answers(content: Content) -> list[str]:
    """Return for each sweep which load meets the objectives, as a sentence; nothing without objectives.

    A load search states its own result.
    """
    if content.objectives is None or any(search_of(run) is not None for run in content.runs):
        return []
    sweeps_by_name = named_sweeps(content.judged_points)
    return [f"{_of(name)}{answer(sweep, content.objectives.text)}." for name, sweep in sweeps_by_name]


def answer_section(content: Content) -> Section | None:
    """Return the answers as the first section of a text; ``None`` without an answer."""
    texts = answers(content)
    return Section("Result", [texts if len(texts) > 1 else wrapped(texts[0])]) if texts else None


def _of(name: str) -> str:
    """Return the name of a sweep as the beginning of a sentence."""
    return f"{name.removeprefix(' of ')}: " if name else ""


def objectives_section(points: Sequence[StagePoint], text: str) -> Section:
    """Return attainment and goodput of every stage, and the highest load that meets the objectives with reasons."""
    header = ["", "Attainment", "95 % interval", "Good requests/s", "All requests/s"]
    header += ["Good tokens/s", "All tokens/s", "Verdict"]
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
    notes = [ESTIMATED] if any(point.estimated for point in points) else []
    for name, sweep in named_sweeps(points):
        choice = highest(sweep)
        level = "none" if choice.point is None else choice.point.load.short
        notes.append(f"{choice.name}{name}: **{level}**. {_sentence(choice.reasoning)}")
    table = [Grid(header, rows, {0, 7})] if rows else ["No stage has measured requests."]
    return Section("Objectives", [f"`{text}`", *table, notes])


def knee_section(points: Sequence[StagePoint]) -> Section | None:
    """Return the knee of each curve, or why a curve of unfit stages has none; ``None`` when there is no curve."""
    notes = []
    for name, sweep in named_sweeps(points):
        choice = knee(sweep)
        if choice.point is not None:
            load = choice.point.load
            bold = f"**{load.words}**" if load.is_open else f"concurrency **{load.short}**"
            notes.append(f"{choice.name}{name}: {bold}. {_sentence(choice.reasoning)}")
        elif why := no_knee(sweep):
            notes.append(f"No knee{name}: {why}.")
    return Section("Knee", [notes]) if notes else None


def no_knee(sweep: Sequence[StagePoint]) -> str:
    """Return why a sweep with enough levels has no knee, if stages are unfit for it; "" otherwise."""
    if len(sweep) < LEAST_LEVELS or not any(point.unfit for point in sweep):
        return ""
    choice = knee(sweep)
    return choice.reasoning[0] if choice.point is None else ""


def named_sweeps(points: Sequence[StagePoint]) -> Iterator[tuple[str, Sequence[StagePoint]]]:
    """Yield the sweeps, each with the words that distinguish it from the others; "" for the only one."""
    all_sweeps = sweeps(points)
    for sweep in all_sweeps:
        group = sweep[0].group
        yield f" of {group.run.name} {group.model}".rstrip() if len(all_sweeps) > 1 else "", sweep


def gate_section(gate: Gate) -> Section:
    """Return the verdict of the SLO gate, its judgements, and the reasons for a verdict other than passed."""
    header = ["", "Objective", "Measured", "95 % interval", "Requests", "Effective", "Verdict"]
    rows = [
        [
            judgement.label,
            f"`{judgement.objective.text}`",
            shown(judgement.estimate, judgement.objective.kind.unit),
            judgement.every or between(judgement.interval, partial(shown, unit=judgement.objective.kind.unit)),
            str(judgement.n),
            "-" if math.isnan(judgement.effective) else f"{judgement.effective:.0f}",
            judgement.verdict,
        ]
        for judgement in gate.judgements
    ]
    parts: list[str | Grid | list[str]] = [f"Evaluated: {gate.scope}."]
    if rows:
        parts += [Grid(header, rows, {0, 1, 6}), [*_explained(gate.judgements)]]
    parts.append([f"{reason}." for reason in gate.reasons])
    parts.append([*_sent_twice(gate.judgements), *_failures_without_objective(gate.judgements)])
    return Section(f"Gate: {_WORDS[gate.verdict]}", parts)


def cost_section(points: Sequence[StagePoint], prices: Prices) -> Section:
    """Return the costs of every stage, and of the chosen operating points."""
    currency = f" ({prices.currency})" if prices.currency else ""
    header = ["", *(f"Per {unit}{currency}" for unit in ("1,000 requests", "million output tokens", "hour")), "Paid by"]
    stage_costs = costs(points, prices)
    rows = [
        [
            label or "all requests",
            number(1000 * cost.per_request),
            number(cost.per_million_output_tokens),
            number(cost.per_hour),
            cost.by,
        ]
        for label, cost in zip(labels([point.group for point in points]), stage_costs, strict=True)
    ]
    notes = []
    several = len(sweeps(points)) > 1
    for point, why in chosen_points(points, by_objectives=any(point.verdict for point in points)):
        of_model = f"{point.group.run.name} {point.group.model}: at" if several else "At"
        cost = stage_costs[list(points).index(point)]
        notes.append(
            f"{of_model} {point.load.words} ({why}): {number(1000 * cost.per_request)} per 1,000 requests, "
            f"{number(cost.per_million_output_tokens)} per million output tokens, {number(cost.per_hour)} per hour."
        )
    unpriced = sorted({cost.point.group.model or "-" for cost in stage_costs if cost.by == "no price"})
    if unpriced:
        notes.append(f"The price file does not contain a price for {', '.join(unpriced)}.")
    notes.append("Costs include only successful requests, at the rate of the stage.")
    return Section("Costs", [Grid(header, rows, {0, 4}), notes])


def _explained(judgements: Sequence[Judgement]) -> Iterator[str]:
    """Yield explanations of the columns of the gate's table that are not obvious."""
    known = [one for one in judgements if not math.isnan(one.effective)]
    by_few = any(one.verdict is not Verdict.UNDECIDED and one.effective < LEAST_EFFECTIVE for one in judgements)
    if any(round(one.effective) != one.n for one in known):
        yield (
            "Effective: the equivalent number of independent requests; concurrent requests wait for each other and are "
            "not independent."
        )
    if any(one.effective < LEAST_EFFECTIVE for one in known):
        yield (
            f"With fewer than {LEAST_EFFECTIVE} effective requests, the verdict is undecided"
            + (", unless all requests are far on one side of the limit." if by_few else ".")
        )
    if any(math.isinf(judgement.estimate) for judgement in judgements):
        yield (
            f"{NO_ANSWER.capitalize()}: a failed request counts as infinitely slow, and this percentile falls on a "
            "failed request."
        )


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
