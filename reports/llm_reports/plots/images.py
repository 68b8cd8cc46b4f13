"""The figures of the page as image files for pipelines, with the same data and colours (``--plots svg`` or ``png``)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_reports.charts.assets import colours
from llm_reports.charts.curve import LATENCY_NAMES, Curve, Limit, drawn_as
from llm_reports.charts.downsampling import Floats, drawn
from llm_reports.charts.figures import Figures, figures
from llm_reports.charts.timeline import Scatter
from llm_reports.content import Content, Questions, content_of
from llm_reports.llmperf.tables import Row, Table, rounded
from llm_reports.metrics.latency_model import Line
from llm_reports.metrics.stage_load import axis_name, points_note
from llm_reports.plots.drawing import (
    DASHES,
    INK,
    LIMIT,
    PAPER,
    SHAPES,
    Picture,
    from_zero,
    image_files,
    legend,
    logarithmic_x,
    logarithmic_y,
    sheet,
    style,
    svg,
)
from llm_reports.run import Run
from llm_reports.sections.section import plain
from llm_reports.slo.objectives import parse_objectives
from llm_users.record import COL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_OUTCOME_SHAPES = {
    "ok": "o", "unmeasured": "o", "throttled": "^", "failed": "x", "aborted": "D", "cancelled": "D",
}  # fmt: skip
_CURVES = (("e2e", "p50"), ("ttft", "p95"))
_LATENCIES_BY_LOAD = ("ttft", "tpot")
_WIDE = 8.0  # ratio of the largest to the smallest value above which an axis is logarithmic
_RAMP_STOPS = 6
_RUN_COLOURS = 8
_MOST_POINTS = 3000  # per file: a vector image with 12,000 points opens slowly
_MOST_BARS = 24  # maximum number of bars that are distinguishable on one sheet
_LONGEST_NAME = 44
BARS_NOTE = "Bars: medians. Lines: from the 25th to the 75th percentile of the requests."


class Svg(str):
    """An image as the text of an SVG file, which a notebook shows as an image."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


def pictures(runs: Sequence[Run], slo: str | None = None, *, count_connect: bool = False) -> dict[str, Svg]:
    """Return the figures of runs by name (``curve_e2e``, ``ttft``, ...), for a notebook; objectives become lines."""
    questions = Questions(parse_objectives(slo) if slo else None)
    content = content_of(runs, count_connect=count_connect, questions=questions)
    return {picture.name: Svg(svg(picture)) for picture in drawings(content)}


def files(content: Content, kind: str) -> dict[str, str | bytes]:
    """Return the files of ``--plots svg`` or ``--plots png``: name and content."""
    return {name: data for name, (_, data) in image_files(drawings(content), kind).items()}


def drawings(content: Content) -> list[Picture]:
    """Return the pictures of a report; pictures without data are omitted."""
    shown = figures(content.runs, content.groups, content.points, content.drawn_objectives)
    with style():
        return [
            *curves_of(shown),
            *latencies_by_load(shown),
            *distributions_of(shown),
            *_timelines(shown),
            *_scatters(shown),
        ]


def comparison_drawings(all_figures: Figures) -> list[Picture]:
    """Return the pictures of a comparison: the curves and the distributions of all runs."""
    with style():
        return [*curves_of(all_figures), *distributions_of(all_figures)]


def ramp(index: int, count: int) -> str:
    """Return the colour of one of several ordered series, interpolated between the colours that charts.css declares."""
    at = index / (count - 1) * (_RAMP_STOPS - 1) if count > 1 else 1.0
    low = min(_RAMP_STOPS - 2, int(at))
    stops = [colours()[f"ramp-{stop}"] for stop in (low, low + 1)]
    ends = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops]
    mixed = [round(a + (b - a) * (at - low)) for a, b in zip(*ends, strict=True)]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def run_colour(index: int) -> str:
    """Return the colour of one of several runs, from charts.css; colour-blind readers can distinguish them."""
    return colours()[f"run-{index % _RUN_COLOURS}"]


def looks_of(all_figures: Figures) -> list[tuple[str, int]]:
    """Return colour, and index for shape and dash, of every stage: by run if there are several, else by order."""
    if len(all_figures.curves) == 1:
        return [(ramp(k, len(all_figures.labels)), k) for k in range(len(all_figures.labels))]
    by_label = {
        point.label: (run_colour(k), index)
        for k, curve in enumerate(all_figures.curves)
        for index, point in enumerate(curve.points)
    }
    return [by_label.get(label, (run_colour(k), k)) for k, label in enumerate(all_figures.labels)]


def curves_of(all_figures: Figures) -> Iterator[Picture]:
    """Yield the curve over median latency, over the P95 of TTFT, and over the figures of the objectives, with lines."""
    is_open = any(load.is_open for load in all_figures.loads)
    usual = [(drawn_as(key, is_open=is_open), figure) for key, figure in _CURVES]
    shown: dict[tuple[str, str], list[Limit]] = {pair: [] for pair in usual}
    for limit in all_figures.limits:
        shown.setdefault((limit.metric, limit.figure), []).append(limit)
    for (key, figure), limits in shown.items():
        if all(math.isnan(point.latency_s[key][figure]) for curve in all_figures.curves for point in curve.points):
            continue
        picture = sheet(
            f"curve_{key}" if (key, figure) in usual else f"curve_{key}_{figure}",
            f"Throughput against {LATENCY_NAMES[key].lower()}",
            f"{LATENCY_NAMES[key]}, {'median' if figure == 'p50' else figure} (s)",
            "System, output tokens/s",
            points_note(all_figures.loads),
        )
        one = len(all_figures.curves) == 1
        lines = [
            (_curve(picture.axes, curve, k, (key, figure), colours()["accent"] if one else run_colour(k)), curve.name)
            for k, curve in enumerate(all_figures.curves)
        ]
        for row, limit in enumerate(limits):
            picture.axes.axvline(limit.limit_s, color=LIMIT, linewidth=1.2, linestyle=(0, (6, 4)))
            at, offset = (limit.limit_s, 0), (5, 8 + 12 * row)
            picture.axes.annotate(limit.text, at, offset, ("data", "axes fraction"), "offset points", color=LIMIT)
        from_zero(picture.axes, x=True)
        legend(picture, lines)
        yield picture


def latencies_by_load(all_figures: Figures) -> Iterator[Picture]:
    """Yield TTFT and TPOT against the load, if the stages have at least two known loads of one kind.

    Solid lines show the P95, dashed lines the median. The result of a load search is marked.
    """
    loads = [load for load in all_figures.loads if load.level is not None]
    if len({load.level for load in loads}) < 2 or len({load.is_open for load in loads}) > 1:
        return
    for key in _LATENCIES_BY_LOAD:
        series = [
            (curve, points)
            for curve in all_figures.curves
            if (points := [point for point in curve.points if math.isfinite(point.latency_s[key]["p95"])])
        ]
        if not series:
            continue
        name = LATENCY_NAMES[key]
        picture = sheet(f"load_{key}", f"{name} against the load", axis_name(loads), f"{name} (s)",
                        "Hollow: the stage cannot be relied on, for example because its queue grew.")  # fmt: skip
        axes, lines, heights = picture.axes, [], []
        for k, (curve, points) in enumerate(series):
            colour = colours()["accent"] if len(series) == 1 else run_colour(k)
            x = [float(point.load.level or 0) for point in points]
            prefix = f"{curve.name}, " if len(series) > 1 else ""
            for figure, dash in (("p95", "-"), ("p50", DASHES[1])):
                y = [point.latency_s[key][figure] for point in points]
                heights += y
                looks: dict[str, Any] = {"color": colour, "marker": SHAPES[k % len(SHAPES)], "markersize": 6}
                (line,) = axes.plot(x, y, linestyle=dash, **looks)
                hollow = [(a, b) for a, b, point in zip(x, y, points, strict=True) if point.hollow]
                axes.plot([a for a, _ in hollow], [b for _, b in hollow], linestyle="", markerfacecolor=PAPER, **looks)
                lines.append((line, f"{prefix}{'P95' if figure == 'p95' else 'median'}"))
            for at, mark in {(float(point.load.level or 0), point.mark) for point in points if point.mark}:
                axes.axvline(at, color=INK, linewidth=1, linestyle=DASHES[2])
                aside, anchor = (-4, "right") if mark == "limit" else (4, "left")
                axes.annotate(f"{mark}: {at:g}", (at, 1), (aside, -10), ("data", "axes fraction"), "offset points",
                              ha=anchor, weight="bold")  # fmt: skip
        for row, limit in enumerate(limit for limit in all_figures.limits if limit.metric == key):
            axes.axhline(limit.limit_s, color=LIMIT, linewidth=1.2, linestyle=(0, (6, 4)))
            axes.annotate(limit.text, (0, limit.limit_s), (4, 4 + 12 * row), ("axes fraction", "data"), "offset points",
                          color=LIMIT)  # fmt: skip
            heights.append(limit.limit_s)
        levels = [load.level for load in loads if load.level]
        if max(levels) > _WIDE * min(levels):
            logarithmic_x(axes)
        else:
            from_zero(axes, x=True)
        if max(heights) > _WIDE * min(heights) > 0:
            logarithmic_y(axes)
        else:
            from_zero(axes)
        legend(picture, lines)
        yield picture


def _curve(axes: Axes, curve: Curve, k: int, of: tuple[str, str], colour: str) -> Line2D:
    """Draw one curve: filled and hollow marks, and the name of each point beside it."""
    key, figure = of
    points = [
        (point.latency_s[key][figure], point.throughput_token_per_s, point)
        for point in curve.points
        if not math.isnan(point.latency_s[key][figure]) and not math.isnan(point.throughput_token_per_s)
    ]
    # Without clipping, the mark of a point at the end of an axis is complete.
    looks: dict[str, Any] = {"color": colour, "marker": SHAPES[k % len(SHAPES)], "markersize": 7, "clip_on": False}
    (line,) = axes.plot([x for x, *_ in points], [y for _, y, _ in points], linestyle=DASHES[k % len(DASHES)], **looks)
    hollow = [(x, y) for x, y, point in points if point.hollow]
    axes.plot([x for x, _ in hollow], [y for _, y in hollow], linestyle="", markerfacecolor=PAPER, **looks)
    # A load search tries many loads near its limit, whose labels would overlap.
    is_search = any(point.mark for _, _, point in points)
    for place, (x, y, point) in enumerate(points):
        if is_search and not point.mark and 0 < place < len(points) - 1:
            continue
        # Every other curve has its labels on the left, so that labels of adjacent curves do not overlap.
        aside, anchor = (7, "left") if k % 2 == 0 else (-7, "right")
        name = plain(point.name)
        axes.annotate(name, (x, y), (aside, 4), textcoords="offset points", ha=anchor, weight="bold")
    return line


def distributions_of(all_figures: Figures) -> Iterator[Picture]:
    """Yield the cumulative curves of each latency, one curve per stage."""
    looks = looks_of(all_figures)
    for distribution in all_figures.distributions:
        if all(x is None for cumulative in distribution.cumulative for x in cumulative.x):
            continue
        picture = sheet(
            distribution.key,
            f"{distribution.name}: share of the requests within this time",
            f"{distribution.name} ({distribution.unit})",
            "Share",
            "Successful measured requests.",
        )
        lines = []
        for label, cumulative, (colour, index) in zip(all_figures.labels, distribution.cumulative, looks, strict=True):
            x, y = _numbers(cumulative.x), _numbers(cumulative.y)
            if distribution.is_wide:
                x, y = x[x > 0], y[x > 0]
            steps = np.append(x[:1], x), np.append(np.zeros_like(x[:1]), y)  # begins at the bottom
            dash = DASHES[index % len(DASHES)]
            (line,) = picture.axes.plot(*steps, drawstyle="steps-post", color=colour, linestyle=dash)
            lines.append((line, label))
        if distribution.is_wide:
            logarithmic_x(picture.axes)
        from_zero(picture.axes)
        legend(picture, lines)
        yield picture


def _timelines(all_figures: Figures) -> Iterator[Picture]:
    for index, timeline in enumerate(all_figures.timelines):
        points_per_outcome = _MOST_POINTS if timeline.shown <= _MOST_POINTS else _MOST_POINTS // len(timeline.outcomes)
        steps = [-(-len(outcome.started_s) // points_per_outcome) for outcome in timeline.outcomes]
        shown = sum(len(outcome.started_s[::step]) for outcome, step in zip(timeline.outcomes, steps, strict=True))
        several = len(all_figures.timelines) > 1
        picture = sheet(
            f"timeline_{index + 1}" if several else "timeline",
            f"Requests over time{f', {timeline.run}' if several else ''}",
            "Start of the request, seconds since the first one",
            "End-to-end latency (s)",
            ""
            if shown >= timeline.total
            else f"{shown:,} of {timeline.total:,} requests are drawn; the counts include all.",
        )
        lines = []
        for outcome, step in zip(timeline.outcomes, steps, strict=True):
            x, y = outcome.started_s[::step], outcome.e2e[::step]
            line = _points(picture.axes, x, y, colours()[outcome.key], _OUTCOME_SHAPES[outcome.key])
            lines.append((line, f"{outcome.name} ({outcome.count:,})"))
        from_zero(picture.axes)
        legend(picture, lines)
        yield picture


def _points(axes: Axes, x: Sequence[float | None], y: Sequence[float | None], colour: str, shape: str) -> Line2D:
    """Draw points; a point without a height is at the bottom."""
    heights = np.nan_to_num(_numbers(y))
    looks: dict[str, Any] = {"linestyle": "", "marker": shape, "markersize": 3.5, "color": colour, "clip_on": False}
    (line,) = axes.plot(_numbers(x), heights, **looks)
    return line


def _numbers(values: Sequence[float | None]) -> Floats:
    """Return values as an array, in which NaN means that a value is missing."""
    return np.array(values, dtype=np.float64)


def _scatters(all_figures: Figures) -> Iterator[Picture]:
    fits = [Line(model.ttft_s - model.tpot_s, model.tpot_s, model.problem) for model in all_figures.models]
    texts = ("Latency against output tokens, with the fitted lines", "Output tokens", "End-to-end latency (s)")
    yield from _with_lines(all_figures, COL.model, texts, all_figures.outputs, fits)
    fits = [scatter.line for scatter in all_figures.inputs]
    texts = ("Time to first token against input tokens", "Input tokens", "Time to first token (s)")
    yield from _with_lines(all_figures, "input", texts, all_figures.inputs, fits)


def _with_lines(
    all_figures: Figures, name: str, texts: tuple[str, str, str], scatters: Sequence[Scatter], fits: Sequence[Line]
) -> Iterator[Picture]:
    """Yield the scatter plot with the fitted lines, if it has points. ``texts`` are the title and the axes."""
    limit = max(1, _MOST_POINTS // max(1, len(scatters)))
    steps = [max(1, -(-len(scatter.x) // limit)) for scatter in scatters]
    shown = sum(len(scatter.x[::step]) for scatter, step in zip(scatters, steps, strict=True))
    if not shown:
        return
    picture = sheet(name, *texts, drawn(shown, sum(scatter.total for scatter in scatters)))
    lines = []
    for label, scatter, step, fit, (colour, index) in zip(
        all_figures.labels, scatters, steps, fits, looks_of(all_figures), strict=True
    ):
        shape = SHAPES[index % len(SHAPES)]
        lines.append((_points(picture.axes, scatter.x[::step], scatter.y[::step], colour, shape), label))
        known = [x for x in scatter.x if x is not None]
        if known and not fit.problem:
            ends = [min(known), max(known)]
            heights = [fit.constant + fit.slope * x for x in ends]
            picture.axes.plot(ends, heights, color=colour, linestyle=DASHES[index % len(DASHES)])
    from_zero(picture.axes)
    legend(picture, lines)
    yield picture


def bar_chart(table: Table) -> Picture:
    """Return the picture of a leaderboard's table with one bar per endpoint, the first one on top.

    Endpoints without a value are omitted. As in the published leaderboards of LLMPerf's results, a bar is the median.
    """
    known = [row for row in table.rows if math.isfinite(row.figures.median)]
    shown = known[:_MOST_BARS]
    omitted = f"{len(shown)} of {len(known)} endpoints are drawn. " if len(shown) < len(known) else ""
    with style():
        picture = sheet(table.metric, table.title, table.title, "", f"{omitted}{BARS_NOTE}")
        axes = picture.axes
        axes.grid(visible=False, axis="y")
        axes.barh(range(len(shown)), [row.figures.median for row in shown], height=0.7, color=colours()["accent"])
        names = [plain(endpoint_name(table, row, with_load=True)) for row in shown]
        short = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 3]}..." for name in names]
        axes.set_yticks(range(len(shown)), short)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_ylim(max(len(shown), 4) - 0.5, -0.5)
        for position, row in enumerate(shown):
            median, low, high = row.figures.median, row.figures.p25, row.figures.p75
            if is_known := math.isfinite(high - low):
                axes.plot([low, high], [position, position], color=INK, linewidth=1.1)
            end = (max(median, high) if is_known else median, position)
            text = rounded(median, table.decimals)
            axes.annotate(text, end, (6, 0), textcoords="offset points", va="center", weight="bold")
        axes.set_xlim(left=0)
    return picture


def endpoint_name(table: Table, row: Row, *, with_load: bool = False) -> str:
    """Return the name of an endpoint; ``with_load`` adds the load if the rows of the table have different loads."""
    load = [f"({row.load.tag})"] if with_load and table.load_columns is not None else []
    return " ".join([row.framework or "-", row.model or "-", *table.apart_words(row), *load])
