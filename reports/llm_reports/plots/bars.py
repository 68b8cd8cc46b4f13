"""A bar chart with one bar per endpoint, as in the published leaderboards of LLMPerf's results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llm_reports.charts.assets import colours
from llm_reports.markdown.text import plain
from llm_reports.plots.drawing import GRID, HEIGHT, INK, SOFT, WIDTH, Axis, Mark, Stroke, Words, scale_of, tick

_TOP, _BOTTOM, _RIGHT = 48, 56, 84
_LETTER = 7.0  # width in pixels of a letter of size 12
_LONGEST_NAME = 44
_MOST = 24  # maximum number of bars that are distinguishable on one sheet
_THICKEST = 26.0


@dataclass(frozen=True)
class Bar:
    """One endpoint: the length of its bar, the ends of the line over it (NaN: no line), and the label of the bar."""

    name: str
    value: float
    low: float
    high: float
    label: str


def bars(title: str, axis: str, all_bars: Sequence[Bar], note: str) -> list[Mark]:
    """Return the marks of a chart of horizontal bars, the first one on top; endpoints without a value are omitted."""
    known = [bar for bar in all_bars if math.isfinite(bar.value)]
    shown = known[:_MOST]
    names = [_cut(bar.name) for bar in shown]
    left = 24 + max((len(name) for name in names), default=0) * _LETTER
    marks: list[Mark] = [Words(24, 28, title, size=17, bold=True)]
    ends = [end for bar in shown for end in (bar.value, bar.high) if math.isfinite(end)]
    x = scale_of(Axis(axis, zero=True), ends, left, WIDTH - _RIGHT)
    floor = HEIGHT - _BOTTOM
    for position, value in x.ticks():
        marks.append(Stroke([(position, _TOP), (position, floor)], GRID, 1))
        marks.append(Words(position, floor + 18, tick(value), SOFT, anchor="middle"))
    marks.append(Words((left + WIDTH - _RIGHT) / 2, floor + 36, axis, SOFT, anchor="middle"))
    room = (floor - _TOP) / max(1, len(shown))
    for row, (bar, name) in enumerate(zip(shown, names, strict=True)):
        y = _TOP + room * (row + 0.5)
        start, end = x.at(0.0), x.at(bar.value)
        if start is None or end is None:
            continue
        marks.append(Stroke([(start, y), (end, y)], colours()["accent"], min(_THICKEST, room * 0.7)))
        low, high = x.at(bar.low), x.at(bar.high)
        right_end = end
        if low is not None and high is not None and math.isfinite(bar.high - bar.low):
            marks.append(Stroke([(low, y), (high, y)], INK, 1.5))
            right_end = max(end, high)
        marks.append(Words(left - 8, y + 4, name, anchor="end"))
        marks.append(Words(right_end + 8, y + 4, bar.label, bold=True))
    prefix = f"{len(shown)} of {len(known)} endpoints are drawn. " if len(shown) < len(known) else ""
    marks.append(Words(24, HEIGHT - 8, f"{prefix}{note}", SOFT, 11))
    return marks


def _cut(name: str) -> str:
    text = plain(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 3]}..."
