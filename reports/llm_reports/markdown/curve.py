"""The latency/throughput curve in Markdown: a table with a bar per stage, for pull requests and terminals."""

from __future__ import annotations

import math

from llm_reports.charts.curve import SEEN_NOTE, UNFIT_NOTE, WORDS_PER_TOKEN, curves
from llm_reports.content import Content
from llm_reports.markdown.text import aligned, bullets
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.stage_load import SPOKEN, load_columns

_BAR = 16  # letters of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉"


def curve_section(content: Content) -> str:
    """One line per stage: what the system gives, what one user sees, and what it takes; "" for a single stage."""
    found = curves(content.groups, labels(content.groups), content.points)
    known = [point for curve in found for point in curve.points if math.isfinite(point.throughput_token_per_s)]
    if len(known) < 2:
        return ""
    most = max(point.throughput_token_per_s for point in known)
    several = len(found) > 1
    loads = load_columns((point.load for curve in found for point in curve.points), SPOKEN)
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
        for curve in found
        for point in curve.points
    ]
    notes = [f"A user's tokens/s are 1 / median TPOT; words are {WORDS_PER_TOKEN} per token, as for English."]
    if loads.rates:
        notes.append(SEEN_NOTE)
    if any(point.estimated for point in known):
        notes.append("Without a stages file the system's throughput is all output tokens by the time of all requests.")
    if any(point.unfit for point in known):
        notes.append(UNFIT_NOTE)
    first = int(several) + len(loads.header)
    left = {first + 1, *({0} if several else ())}
    return f"## Throughput and latency\n\n{aligned(header, rows, left)}\n\n{bullets(notes)}\n"


def bar(share: float) -> str:
    """A bar of a share of the longest one, in eighths of a letter."""
    if not math.isfinite(share):
        return ""
    eighths = round(max(0.0, min(1.0, share)) * _BAR * 8)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if math.isfinite(value) else "-"
