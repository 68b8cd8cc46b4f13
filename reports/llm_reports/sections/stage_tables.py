"""Tables with one line per stage: throughput and latency with bars, gaps, 95 % intervals, and wrong answers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llm_reports.charts.curve import SEEN_NOTE, UNFIT_NOTE, WORDS_PER_TOKEN, curves
from llm_reports.content import Content
from llm_reports.metrics.correctness import MATCH, STRICT_MATCH, Share, mismatches
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.groups import CORRECTED_LATENCY, CORRECTED_TTFT, LATENCY, OUTPUT_THROUGHPUT, TPOT, TTFT, Group
from llm_reports.metrics.inter_token import gaps_of, name_of, note_of
from llm_reports.metrics.stage_load import SPOKEN, load_columns
from llm_reports.metrics.summary import ordered
from llm_reports.sections.numbers import between, number
from llm_reports.sections.section import Grid, Section, plain
from llm_reports.stats.effective_size import LEAST_EFFECTIVE
from llm_reports.stats.intervals import UNKNOWN, requests_for_stable, values_needed
from llm_users.record import COL

_BAR = 16  # characters of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉"
_GAP_FIGURES = {"median": "median", "p90": "P90", "p95": "P95", "p99": "P99", "max": "max"}
_INTERVAL_METRICS = (TTFT, TPOT, LATENCY, OUTPUT_THROUGHPUT)
_INTERVAL_FIGURES = {"median": "Median", "mean": "Mean", "p95": "P95", "p99": "P99"}
INDEPENDENCE = (
    "Concurrent requests wait for each other, so they are not independent. Intervals account for this: they use the "
    f"number of equivalent independent requests, and they are unknown if this number is below {LEAST_EFFECTIVE}."
)
_EXAMPLES = 3
_EXAMPLE_CHARACTERS = 60


def curve_section(content: Content) -> Section | None:
    """Return throughput, speed per user and latencies with one bar per stage; ``None`` for a single stage."""
    all_curves = curves(content.groups, labels(content.groups), content.points)
    points = [point for curve in all_curves for point in curve.points if math.isfinite(point.throughput_token_per_s)]
    if len(points) < 2:
        return None
    most = max(point.throughput_token_per_s for point in points)
    several = len(all_curves) > 1
    loads = load_columns((point.load for curve in all_curves for point in curve.points), SPOKEN)
    header = [
        *(["Curve"] if several else []), *loads.header, "System, tokens/s", "", "User, tokens/s", "Words/min",
        "E2E median (s)", "TTFT median (s)",
    ]  # fmt: skip
    rows = [
        [
            *([curve.name] if several else []),
            *loads.marked(point.load, point.name),
            _decimals(point.throughput_token_per_s, 0),
            bar(point.throughput_token_per_s / most if most else 0.0),
            _decimals(point.per_user_token_per_s, 1),
            _decimals(point.words_per_minute, 0),
            _decimals(point.seen("e2e", "p50"), 2),
            _decimals(point.seen("ttft", "p50"), 3),
        ]
        for curve in all_curves
        for point in curve.points
    ]
    notes = [f"Tokens/s per user are 1 / median TPOT; words are {WORDS_PER_TOKEN} per token, as for English."]
    if loads.rates:
        notes.append(SEEN_NOTE)
    if any(point.estimated for point in points):
        notes.append(
            "Without a stages file, the system throughput is all output tokens divided by the time of all requests."
        )
    if any(point.unfit for point in points):
        notes.append(UNFIT_NOTE)
    bars = int(several) + len(loads.header) + 1
    return Section("Throughput and latency", [Grid(header, rows, {bars, *({0} if several else ())}), notes])


def bar(share: float) -> str:
    """Return a bar for a share of the longest one, in eighths of a character."""
    if not math.isfinite(share):
        return ""
    eighths = round(max(0.0, min(1.0, share)) * _BAR * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _decimals(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else "-"


def gaps_section(groups: Sequence[Group]) -> Section | None:
    """Return the gaps between tokens, or between events where events are not tokens; ``None`` without gaps."""
    gaps = gaps_of(groups)
    if not gaps:
        return None
    name = name_of(gaps).capitalize()
    header = ["", "Tokens per event", "Gaps", *(f"{name} {figure} (ms)" for figure in _GAP_FIGURES.values())]
    names = [label or "all requests" for label in labels(groups)]
    rows = [
        [
            " and ".join(names[place] for place in stage_gaps.places),
            _decimals(stage_gaps.tokens_per_event, 2),
            str(stage_gaps.figures.n),
            *(f"{getattr(stage_gaps.figures, figure) * 1000:.2f}" for figure in _GAP_FIGURES),
        ]
        for stage_gaps in gaps
    ]
    return Section(f"{name} gaps", [Grid(header, rows, {0}), [note_of(gaps)]])


def intervals_section(groups: Sequence[Group]) -> Section | None:
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
                f"{number(getattr(figures, name))} ({between(figures.intervals.get(name, UNKNOWN))})"
                for name in _INTERVAL_FIGURES
            ]
            rows.append([label or "all requests", metric.name, *cells, "-" if needed is None else str(needed)])
    if not rows:
        return None
    notes = [
        f"At least, at most: the sample is too small to determine the other end. An interval of a P99 requires "
        f"{values_needed(0.99)} independent requests, an interval of a P95 {values_needed(0.95)}. Stable: the interval "
        "is within 10 % of the P99, estimated from these requests.",
        "Percentiles: order statistics, exact binomial ranks. Means: Student's t. Shares: Wilson.",
        INDEPENDENCE,
    ]
    return Section("95 % intervals", [Grid(header, rows, {0, 1}), notes])


def correctness_section(groups: Sequence[Group]) -> Section | None:
    """Return the wrong answers of every stage by both rules, and examples; ``None`` without checked answers."""
    checked_groups = [
        (label or "all requests", group)
        for label, group in zip(labels(groups), groups, strict=True)
        if mismatches(group).checked
    ]
    if not checked_groups:
        return None
    header = ["", "Checked", "Wrong", "Share", "95 % interval", "Strictly wrong", "Share", "95 % interval"]
    rows = []
    for label, group in checked_groups:
        loose, strict = mismatches(group), mismatches(group, STRICT_MATCH)
        strictly = [str(strict.wrong), *_shares(strict)] if strict.checked else ["-"] * 3
        rows.append([label, str(loose.checked), str(loose.wrong), *_shares(loose), *strictly])
    notes = [
        "An answer is wrong if it does not contain the expected number in digits (LLMPerf's rule), and strictly wrong "
        "if it is not exactly this number. Shares are of the checked answers; failed requests do not have an answer."
    ]
    parts: list[str | Grid | list[str]] = [Grid(header, rows, {0}), notes]
    examples = []  # of each stage, the earliest by start time
    for label, group in checked_groups:
        wrong = group.ok[(group.ok[MATCH] == 0).fillna(value=False).astype(bool)]
        wrong = wrong.sort_values([COL.started_at, COL.request_id])[: max(1, _EXAMPLES // len(checked_groups))]
        for expected, answer in zip(wrong[COL.expected_answer], wrong[COL.answer_excerpt], strict=True):
            examples.append([label, _quoted(str(expected)), _quoted(str(answer))])
    if examples:
        parts.append(Grid(["Wrong answers", "Expected", "Answered"], examples, {0, 1, 2}))
    return Section("Correctness", parts)


def _quoted(text: str) -> str:
    """Return a server's text as code, so that Markdown does not render it as a link or an image."""
    text = plain(text).replace("`", "'")
    return f"`{text[:_EXAMPLE_CHARACTERS]}`" if text else "-"


def _shares(share: Share) -> list[str]:
    ends = share.interval
    between_ends = f"{100 * ends.low:.1f} % to {100 * ends.high:.1f} %" if ends.known else "-"
    return [f"{100 * share.ratio:.1f} %", between_ends]
