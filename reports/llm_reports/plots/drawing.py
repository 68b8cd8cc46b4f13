"""A plot as a list of strokes, dots and words on a sheet: axes, ticks, series, legend. Knows no file format.

The pages of a browser are drawn by ``charts/assets``; this is the same figure for pipelines that have no browser.
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
_BELOW = 56  # pixels below the lowest line of a plot, for the names of its axis and its note
_LEGEND_LINES = 3  # of a sheet of the usual height; more lines make it higher, so that the plot keeps its size
_SHAPES = ("circle", "square", "triangle", "diamond")
_LETTER = 0.58  # of the font size: the mean width of a letter of a sans serif


@dataclass(frozen=True)
class Stroke:
    """A broken line through points."""

    points: Sequence[tuple[float, float]]
    colour: str
    width: float = 2.0
    dash: tuple[float, ...] = ()


@dataclass(frozen=True)
class Dot:
    """A mark at a place."""

    x: float
    y: float
    shape: str
    colour: str
    size: float = 3.0
    hollow: bool = False


@dataclass(frozen=True)
class Words:
    """A text whose ``anchor`` (start, middle or end) is at a place; upright ones are turned to the left."""

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
    """What one direction shows."""

    label: str
    log: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Series:
    """Values with a name; ``kind`` is line, step, points or curve. A y that is ``None`` stands on the floor."""

    name: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    kind: str
    colour: str
    shape: str = ""
    labels: Sequence[str] = ()
    hollow: Sequence[bool] = ()
    quiet: bool = False
    place: int | None = None  # for shape and dash, where these do not follow the order of the series


@dataclass(frozen=True)
class Plot:
    """A figure: its file name, title, axes, series, and a line of small print."""

    name: str
    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    note: str = ""
    limits: Sequence[tuple[float, str]] = ()  # places in x with a name: a line from bottom to top


@dataclass(frozen=True)
class Scale:
    """From values to places on the sheet."""

    low: float
    high: float
    log: bool
    start: float
    end: float

    def at(self, value: float | None) -> float | None:
        """The place of a value; ``None`` when it has none."""
        if value is None or (self.log and value <= 0):
            return None
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        return self.start + ((math.log(value) if self.log else value) - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, float]]:
        """Places and values."""
        placed = [(self.at(value), value) for value in self._values()]
        return [(place, value) for place, value in placed if place is not None]

    def _values(self) -> list[float]:
        if not self.log:
            step = _nice((self.high - self.low) / 7)
            first, last = math.ceil(self.low / step), math.floor(self.high / step)
            return [float(f"{n * step:.10g}") for n in range(first, last + 1)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        digits = (1,) if math.log10(self.high / self.low) > 4 else (1, 2, 5)
        found = [digit * 10.0**power for power in powers for digit in digits]
        return [float(f"{value:.10g}") for value in found if self.low <= value <= self.high]


def drawing(plot: Plot) -> list[Mark]:
    """All marks of a plot, in the order in which they cover each other."""
    named = [(each, _place(each, k)) for k, each in enumerate(plot.series) if not each.quiet]
    legend = list(_legend(named)) if len(named) > 1 else []
    lines = int(max((mark.y for mark in legend if isinstance(mark, Words)), default=_TOP - _LEGEND_LINE) - _TOP) + 20
    top = _TOP + lines
    height = HEIGHT + max(0, lines - _LEGEND_LINES * _LEGEND_LINE)
    places = [at for at, _ in plot.limits]
    x = scale_of(plot.x, [*(value for each in plot.series for value in each.x), *places], _LEFT, WIDTH - _RIGHT)
    y = scale_of(plot.y, [value for each in plot.series for value in each.y], height - _BOTTOM, top)
    marks: list[Mark] = [Words(_LEFT, 28, plot.title, size=17, bold=True), *_axes(plot, x, y), *legend]
    for k, each in enumerate(plot.series):
        marks.extend(_drawn(each, _place(each, k), x, y))
    for row, (value, name) in enumerate(plot.limits):
        marks.extend(_limit(value, name, row, x, y))
    if plot.note:
        marks.append(Words(_LEFT, height - 8, plot.note, SOFT, 11))
    return marks


def height_of(marks: Sequence[Mark]) -> int:
    """The height of the sheet on which these marks fit: ``HEIGHT``, or more below a long legend."""
    ends = [
        max((y for _, y in mark.points), default=0.0) + _BELOW if isinstance(mark, Stroke) else mark.y + 8
        for mark in marks
    ]
    return max([HEIGHT, *(math.ceil(end) for end in ends if math.isfinite(end))])


def _place(series: Series, k: int) -> int:
    return k if series.place is None else series.place


def _axes(plot: Plot, x: Scale, y: Scale) -> Iterator[Mark]:
    for place, value in x.ticks():
        yield Stroke([(place, y.start), (place, y.end)], GRID, 1)
        yield Words(place, y.start + 18, tick(value), SOFT, anchor="middle")
    for place, value in y.ticks():
        yield Stroke([(x.start, place), (x.end, place)], GRID, 1)
        yield Words(x.start - 8, place + 4, tick(value), SOFT, anchor="end")
    yield Stroke([(x.start, y.end), (x.start, y.start), (x.end, y.start)], SOFT, 1)
    yield Words((x.start + x.end) / 2, y.start + 38, plot.x.label, SOFT, anchor="middle")
    yield Words(18, (y.start + y.end) / 2, plot.y.label, SOFT, anchor="middle", upright=True)


def _legend(named: Sequence[tuple[Series, int]]) -> Iterator[Mark]:
    x, y = float(_LEFT), float(_TOP)
    for each, k in named:
        wide = 42 + len(each.name) * 12 * _LETTER
        if x + wide > WIDTH - _RIGHT and x > _LEFT:
            x, y = float(_LEFT), y + _LEGEND_LINE
        if each.kind != "points":
            yield Stroke([(x, y - 4), (x + 22, y - 4)], each.colour, 2, _dash(k))
        if each.kind in ("points", "curve"):
            yield Dot(x + 11, y - 4, each.shape or _SHAPES[k % len(_SHAPES)], each.colour, 4)
        yield Words(x + 28, y, each.name)
        x += wide


def _drawn(series: Series, k: int, x: Scale, y: Scale) -> Iterator[Mark]:
    floor = y.start - 5
    places = [(x.at(a), floor if b is None and series.kind == "points" else y.at(b)) for a, b in _pairs(series)]
    known = [(a, b) for a, b in places if a is not None and b is not None]
    if series.kind == "step":
        stepped = [(known[0][0], y.start)] if known else []
        for i, (at, height) in enumerate(known):
            stepped += [(at, known[i - 1][1] if i else y.start), (at, height)]
        yield Stroke(stepped, series.colour, 2, _dash(k))
    elif series.kind != "points":
        yield Stroke(known, series.colour, 2, _dash(k))
    if series.kind in ("points", "curve"):
        shape = series.shape or _SHAPES[k % len(_SHAPES)]
        for i, (a, b) in enumerate(places):
            if a is not None and b is not None:
                hollow = bool(series.hollow) and series.hollow[i]
                yield Dot(a, b, shape, series.colour, 5 if series.kind == "curve" else 2.5, hollow)
    for i, label in enumerate(series.labels):
        a, b = places[i]
        if a is not None and b is not None:
            # Every other curve has its labels on the left, so that curves close to each other can be read.
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
    """The scale on which these values fit between two places of the sheet."""
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
    """The label of a tick: exact, with k and M for large numbers."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:.6g}M"
    return f"{value / 1e3:.6g}k" if abs(value) >= 1e4 else f"{value:.6g}"
