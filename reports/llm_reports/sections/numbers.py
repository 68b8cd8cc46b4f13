"""Formatting of figures in sentences and tables: three digits and a unit, shares, intervals, approximate durations."""

from __future__ import annotations

import math
from collections.abc import Callable

from llm_reports.stats.intervals import Interval

NO_ANSWER = "no answer"
"""The text for an infinite latency: a percentile that falls on a failed request."""


def shown(value: float, unit: str) -> str:
    """Format a figure for a sentence: three digits and its unit; a share in percent."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return NO_ANSWER if value > 0 else "?"
    return f"{value:.3g} {unit}" if unit else f"{100 * value:.3g} %"


def shown_apart(value: float, unit: str, other: float) -> str:
    """Format a figure like ``shown``, with as many digits (at most six) as make it differ from another figure."""
    if not math.isfinite(value) or not math.isfinite(other) or value == other:
        return shown(value, unit)
    scale, suffix = (1.0, unit) if unit else (100.0, "%")
    texts = ((f"{scale * value:.{digits}g}", f"{scale * other:.{digits}g}") for digits in range(3, 7))
    text = next((mine for mine, its in texts if mine != its), f"{scale * value:.6g}")
    return f"{text} {suffix}"


def number(value: float) -> str:
    """Format a number with three significant digits and without an exponent."""
    if not math.isfinite(value):
        return "?" if math.isinf(value) else "-"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def with_decimals(value: float, decimals: int = 0) -> str:
    """Format a number with the given number of decimals and with separators of thousands; a dash if not finite."""
    return f"{value:,.{decimals}f}" if math.isfinite(value) else "-"


def percent(value: float) -> str:
    """Format a share in percent."""
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def between(interval: Interval, text: Callable[[float], str] = number) -> str:
    """Format both ends of an interval, or ``at least`` or ``at most`` the only end that the sample determines."""
    if math.isnan(interval.low):
        return "-"
    if interval.low == math.inf:
        return NO_ANSWER
    low, high = interval.low, interval.high
    if math.isfinite(low) and math.isfinite(high):
        return f"{text(low)} to {text(high)}"
    if math.isfinite(low):
        return f"at least {text(low)}"
    return f"at most {text(high)}" if math.isfinite(high) else "-"
