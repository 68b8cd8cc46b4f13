"""One line of the truth table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TruthLine:
    """A figure, its right answer, the product's answer, and whether the difference is within the tolerance.

    All texts are short enough for a table of 120 columns. ``right`` says where the right answer comes from when that
    is not obvious from ``figure``.
    """

    figure: str
    right: str
    ours: str
    tolerance: str
    passed: bool


def within(figure: str, right: float, ours: float, relative: float, unit: str = "") -> TruthLine:
    """The line of a number that must be within a relative tolerance of the right one."""
    passed = abs(ours - right) <= relative * abs(right)
    suffix = f" {unit}" if unit else ""
    return TruthLine(figure, f"{right:.4g}{suffix}", f"{ours:.4g}{suffix}", f"{100 * relative:g} %", passed)


def at_most(figure: str, limit: float, ours: float, right: str = "") -> TruthLine:
    """The line of a rate, such as false alarms, that must not exceed a limit. Both are shares of 1."""
    return TruthLine(figure, right or "small", f"{100 * ours:.1f} %", f"<= {100 * limit:g} %", ours <= limit)


def at_least(figure: str, limit: float, ours: float, right: str = "") -> TruthLine:
    """The line of a rate, such as coverage or power, that must reach a limit. Both are shares of 1."""
    return TruthLine(figure, right or "large", f"{100 * ours:.1f} %", f">= {100 * limit:g} %", ours >= limit)
