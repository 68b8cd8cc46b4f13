"""A bar for each endpoint, as in the leaderboards that LLMPerf's results were published in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from llm_reports.charts.assets import colours
from llm_reports.markdown.text import plain
from llm_reports.plots.drawing import GRID, HEIGHT, INK, SOFT, WIDTH, Axis, Mark, Stroke, Words, scale_of, tick

_TOP, _BOTTOM, _RIGHT = 48, 56, 84
_LETTER = 7.0  # pixels of a letter of 12
_LONGEST_NAME = 44
_MOST = 24  # bars that can be told apart on one sheet
_THICKEST = 26.0


@dataclass(frozen=True)
class Bar:
    """One endpoint: the height of its bar, the ends of the line over it (NaN: none), and the bar's label."""

    name: str
    value: float
    low: float
    high: float
    label: str


def bars(title: str, axis: str, found: Sequence[Bar], note: str) -> list[Mark]:
    """The marks of a chart of horizontal bars, the first one on top; endpoints without a value are left out."""
    known = [each for each in found if math.isfinite(each.value)]
    shown = known[:_MOST]
    names = [_cut(each.name) for each in shown]
    left = 24 + max((len(name) for name in names), default=0) * _LETTER
    marks: list[Mark] = [Words(24, 28, title, size=17, bold=True)]
    ends = [end for each in shown for end in (each.value, each.high) if math.isfinite(end)]
    x = scale_of(Axis(axis, zero=True), ends, left, WIDTH - _RIGHT)
    floor = HEIGHT - _BOTTOM
    for place, value in x.ticks():
        marks.append(Stroke([(place, _TOP), (place, floor)], GRID, 1))
        marks.append(Words(place, floor + 18, tick(value), SOFT, anchor="middle"))
    marks.append(Words((left + WIDTH - _RIGHT) / 2, floor + 36, axis, SOFT, anchor="middle"))
    room = (floor - _TOP) / max(1, len(shown))
    for row, (each, name) in enumerate(zip(shown, names, strict=True)):
        y = _TOP + room * (row + 0.5)
        start, end = x.at(0.0), x.at(each.value)
        if start is None or end is None:
            continue
        marks.append(Stroke([(start, y), (end, y)], colours()["accent"], min(_THICKEST, room * 0.7)))
        low, high = x.at(each.low), x.at(each.high)
        reach = end
        if low is not None and high is not None and math.isfinite(each.high - each.low):
            marks.append(Stroke([(low, y), (high, y)], INK, 1.5))
            reach = max(end, high)
        marks.append(Words(left - 8, y + 4, name, anchor="end"))
        marks.append(Words(reach + 8, y + 4, each.label, bold=True))
    said = f"{len(shown)} of {len(known)} endpoints are drawn. " if len(shown) < len(known) else ""
    marks.append(Words(24, HEIGHT - 8, f"{said}{note}", SOFT, 11))
    return marks


def _cut(name: str) -> str:
    text = plain(name)
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 3]}..."
