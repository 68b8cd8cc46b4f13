"""The latency/throughput curve in Markdown: a table with one bar per stage, for pull requests and terminals."""

from __future__ import annotations

import math

from llm_reports.charts.curve import SEEN_NOTE, UNFIT_NOTE, WORDS_PER_TOKEN, curves
from llm_reports.content import Content
from llm_reports.markdown.text import aligned, bullets
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.stage_load import SPOKEN, load_columns

_BAR = 16  # characters of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉"


def curve_section(content: Content) -> str:
    """Return a table with throughput, speed per user and latencies, one line per stage; "" for a single stage."""
    all_curves = curves(content.groups, labels(content.groups), content.points)
    points = [point for curve in all_curves for point in curve.points if math.isfinite(point.throughput_token_per_s)]
    if len(points) < 2:
        return ""
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
            _number(point.throughput_token_per_s, 0),
            bar(point.throughput_token_per_s / most if most else 0.0),
            _number(point.per_user_token_per_s, 1),
            _number(point.words_per_minute, 0),
            _number(point.seen("e2e", "p50"), 2),
            _number(point.seen("ttft", "p50"), 3),
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
    first = int(several) + len(loads.header)
    left = {first + 1, *({0} if several else ())}
    return f"## Throughput and latency\n\n{aligned(header, rows, left)}\n\n{bullets(notes)}\n"


def bar(share: float) -> str:
    """Return a bar for a share of the longest one, in eighths of a character."""
    if not math.isfinite(share):
        return ""
    eighths = round(max(0.0, min(1.0, share)) * _BAR * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else "-"
