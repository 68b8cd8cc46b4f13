"""Formatting of figures in sentences: three digits and a unit, and approximate durations."""

from __future__ import annotations

import math

NO_ANSWER = "no answer"
"""The text for an infinite latency: a percentile that falls on a failed request."""


def shown(value: float, unit: str) -> str:
    """Format a figure for a sentence: three digits and its unit; a share in percent."""
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return NO_ANSWER if value > 0 else "?"
    return f"{value:.3g} {unit}" if unit else f"{100 * value:.3g} %"


def lasting(seconds: float) -> str:
    """Format an approximate duration: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.2g} h"
