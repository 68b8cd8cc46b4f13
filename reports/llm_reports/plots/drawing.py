"""A plot as a list of strokes, dots and words on a sheet: axes, ticks, series, legend.

This module does not depend on a file format. ``charts/assets`` draws the figures in a browser; this module draws the
same figures for pipelines without a browser.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 960, 560
INK, SOFT, GRID, PAPER, LIMIT = "#1c2126", "#59636e", "#e7ebef", "#ffffff", "#8a5a00"
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 24, 52, 60
_LEGEND_LINE = 20
_DASHES: tuple[tuple[float, ...], ...] = ((), (7, 3), (2, 3), (9, 3, 2, 3), (14, 4), (5, 2, 1, 2, 1, 2))
_BELOW = 56  # pixels below the lowest line of a plot, for the axis label and the note
_LEGEND_LINES = 3  # legend lines on a sheet of standard height; more lines make the sheet taller, not the plot smaller
_SHAPES = ("circle", "square", "triangle", "diamond")
_LETTER = 0.58  # mean width of a sans-serif letter, as a share of the font size


@dataclass(frozen=True)
class Stroke:
    """A polyline through points."""

    points: Sequence[tuple[float, float]]
    colour: str
    width: float = 2.0
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Dot:
    """A mark at a position."""

    x: float
    y: float
    shape: str
    colour: str
    size: float = 3.0
    hollow: bool = False


@dataclass(frozen=True)
class Words:
    """A text whose ``anchor`` (start, middle or end) is at a position; ``upright`` rotates it to the left."""

    x: float
    y: float
    text: str
    colour: str = INK
    size: float = 12.0
    anchor: str = "start"
    bold: bool = False
    upright: bool = False


Mark = Stroke | Dot | Words


@dataclass(frozen=True)
class Axis:
    """The label and the scale type of one axis."""

    label: str
    log: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Series:
    """Values with a name; ``kind`` is line, step, points or curve. A y of ``None`` is drawn at the bottom."""

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    kind: str
    colour: str
    shape: str = ""
    labels: Sequence[str] = ()
    hollow: Sequence[bool] = ()
    quiet: bool = False
    place: int | None = None  # index for shape and dash, if they do not follow the order of the series


@dataclass(frozen=True)
class Plot:
    """A figure: its file name, title, axes, series, and a note below."""

    name: str
    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    note: str = ""
    limits: Sequence[tuple[float, str]] = ()  # x values with a name, drawn as vertical lines


@dataclass(frozen=True)
class Scale:
    """A mapping from values to positions on the sheet."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    def at(self, value: float | None) -> float | None:
        """Return the position of a value; ``None`` if it does not have a position."""
        if value is None or (self.log and value <= 0):
            return None
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        return self.start + ((math.log(value) if self.log else value) - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, float]]:
        """Return positions and values of the ticks."""
        placed = [(self.at(value), value) for value in self._values()]
        return [(position, value) for position, value in placed if position is not None]

    def _values(self) -> list[float]:
        if not self.log:
            step = _nice((self.high - self.low) / 7)
            first, last = math.ceil(self.low / step), math.floor(self.high / step)
            return [float(f"{n * step:.10g}") for n in range(first, last + 1)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        digits = (1,) if math.log10(self.high / self.low) > 4 else (1, 2, 5)
        candidates = [digit * 10.0**power for power in powers for digit in digits]
        return [float(f"{value:.10g}") for value in candidates if self.low <= value <= self.high]


def drawing(plot: Plot) -> list[Mark]:
    """Return all marks of a plot, in drawing order."""
    named = [(series, _style_index(series, k)) for k, series in enumerate(plot.series) if not series.quiet]
    legend = list(_legend(named)) if len(named) > 1 else []
    lines = int(max((mark.y for mark in legend if isinstance(mark, Words)), default=_TOP - _LEGEND_LINE) - _TOP) + 20
    top = _TOP + lines
    height = HEIGHT + max(0, lines - _LEGEND_LINES * _LEGEND_LINE)
    limits = [limit for limit, _ in plot.limits]
    x = scale_of(plot.x, [*(value for series in plot.series for value in series.x), *limits], _LEFT, WIDTH - _RIGHT)
    y = scale_of(plot.y, [value for series in plot.series for value in series.y], height - _BOTTOM, top)
    marks: list[Mark] = [Words(_LEFT, 28, plot.title, size=17, bold=True), *_axes(plot, x, y), *legend]
    for k, series in enumerate(plot.series):
        marks.extend(_drawn(series, _style_index(series, k), x, y))
    for row, (value, name) in enumerate(plot.limits):
        marks.extend(_limit(value, name, row, x, y))
    if plot.note:
        marks.append(Words(_LEFT, height - 8, plot.note, SOFT, 11))
    return marks


def height_of(marks: Sequence[Mark]) -> int:
    """Return the height of a sheet that fits these marks: ``HEIGHT``, or more with a long legend."""
    ends = [
        max((y for _, y in mark.points), default=0.0) + _BELOW if isinstance(mark, Stroke) else mark.y + 8
        for mark in marks
    ]
    return max([HEIGHT, *(math.ceil(end) for end in ends if math.isfinite(end))])


def _style_index(series: Series, k: int) -> int:
    return k if series.place is None else series.place


def _axes(plot: Plot, x: Scale, y: Scale) -> Iterator[Mark]:
    for position, value in x.ticks():
        yield Stroke([(position, y.start), (position, y.end)], GRID, 1)
        yield Words(position, y.start + 18, tick(value), SOFT, anchor="middle")
    for position, value in y.ticks():
        yield Stroke([(x.start, position), (x.end, position)], GRID, 1)
        yield Words(x.start - 8, position + 4, tick(value), SOFT, anchor="end")
    yield Stroke([(x.start, y.end), (x.start, y.start), (x.end, y.start)], SOFT, 1)
    yield Words((x.start + x.end) / 2, y.start + 38, plot.x.label, SOFT, anchor="middle")
    yield Words(18, (y.start + y.end) / 2, plot.y.label, SOFT, anchor="middle", upright=True)


def _legend(named: Sequence[tuple[Series, int]]) -> Iterator[Mark]:
    x, y = float(_LEFT), float(_TOP)
    for series, k in named:
        wide = 42 + len(series.name) * 12 * _LETTER
        if x + wide > WIDTH - _RIGHT and x > _LEFT:
            x, y = float(_LEFT), y + _LEGEND_LINE
        if series.kind != "points":
            yield Stroke([(x, y - 4), (x + 22, y - 4)], series.colour, 2, _dash(k))
        if series.kind in ("points", "curve"):
            yield Dot(x + 11, y - 4, series.shape or _SHAPES[k % len(_SHAPES)], series.colour, 4)
        yield Words(x + 28, y, series.name)
        x += wide


def _drawn(series: Series, k: int, x: Scale, y: Scale) -> Iterator[Mark]:
    floor = y.start - 5
    positions = [(x.at(a), floor if b is None and series.kind == "points" else y.at(b)) for a, b in _pairs(series)]
    known = [(a, b) for a, b in positions if a is not None and b is not None]
    if series.kind == "step":
        stepped = [(known[0][0], y.start)] if known else []
        for i, (at, height) in enumerate(known):
            stepped += [(at, known[i - 1][1] if i else y.start), (at, height)]
        yield Stroke(stepped, series.colour, 2, _dash(k))
    elif series.kind != "points":
        yield Stroke(known, series.colour, 2, _dash(k))
    if series.kind in ("points", "curve"):
        shape = series.shape or _SHAPES[k % len(_SHAPES)]
        for i, (a, b) in enumerate(positions):
            if a is not None and b is not None:
                hollow = bool(series.hollow) and series.hollow[i]
                yield Dot(a, b, shape, series.colour, 5 if series.kind == "curve" else 2.5, hollow)
    for i, label in enumerate(series.labels):
        a, b = positions[i]
        if a is not None and b is not None:
            # Every other curve has its labels on the left, so that labels of adjacent curves do not overlap.
            fits = a + 10 + len(label) * 12 * _LETTER < x.end and k % 2 == 0
            yield Words(a + 9 if fits else a - 9, b - 6, label, anchor="start" if fits else "end", bold=True)


def _limit(value: float, name: str, row: int, x: Scale, y: Scale) -> Iterator[Mark]:
    at = x.at(value)
    if at is None:
        return
    yield Stroke([(at, y.start), (at, y.end)], LIMIT, 1.5, (6, 4))
    fits = at + 6 + len(name) * 12 * _LETTER < x.end
    height = y.start - 10 - 16 * row
    yield Words(at + 6 if fits else at - 6, height, name, LIMIT, anchor="start" if fits else "end")


def _pairs(series: Series) -> Iterator[tuple[float | None, float | None]]:
    yield from zip(series.x, series.y, strict=True)


def scale_of(axis: Axis, values: Sequence[float | None], start: float, end: float) -> Scale:
    """Return the scale that fits these values between two positions on the sheet."""
    known = [value for value in values if value is not None and not (axis.log and value <= 0)]
    if not known:
        return Scale(0.1 if axis.log else 0.0, 1.0, axis.log, start, end)
    low, high = min(known), max(known)
    if axis.log:
        pad = max(1.05, (high / low) ** 0.05)
        return Scale(low / pad, high * pad, True, start, end)
    if axis.zero and low >= 0:
        low = 0.0
    pad = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Scale(low if low == 0 else low - pad, high + pad, False, start, end)


def _nice(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)


def _dash(k: int) -> tuple[float, ...]:
    return _DASHES[k % len(_DASHES)]


def tick(value: float) -> str:
    """Return the label of a tick: exact, with k and M for large numbers."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.6g}M"
    return f"{value / 1e3:.6g}k" if abs(value) >= 1e4 else f"{value:.6g}"
