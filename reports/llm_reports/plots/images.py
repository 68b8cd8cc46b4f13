"""The figures of the page as image files for pipelines, with the same data and colours (``--plots svg`` or ``png``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from llm_reports.charts.assets import colours
from llm_reports.charts.curve import LATENCY_NAMES, Limit, drawn_as
from llm_reports.charts.downsampling import drawn
from llm_reports.charts.figures import Figures, figures
from llm_reports.charts.timeline import Scatter
from llm_reports.content import Content, Questions, content_of
from llm_reports.metrics.latency_model import Line
from llm_reports.metrics.stage_load import points_note
from llm_reports.plots.drawing import Axis, Plot, Series, drawing
from llm_reports.plots.png import png
from llm_reports.plots.svg import svg
from llm_reports.run import Run
from llm_reports.slo.objectives import parse_objectives
from llm_users.record import COL

_SHAPES = {
    "ok": "circle", "unmeasured": "circle", "throttled": "triangle", "failed": "cross", "aborted": "diamond",
    "cancelled": "diamond",
}  # fmt: skip
_CURVES = (("e2e", "p50"), ("ttft", "p95"))
_RAMP_STOPS = 6
_RUN_COLOURS = 8
_MOST_POINTS = 3000  # per file: a vector image with 12,000 points opens slowly


def svg_files(content: Content) -> dict[str, str | bytes]:
    """Return the files of ``--plots svg``: name and text."""
    return {name: data for name, (_, data) in image_files(plots(content), "svg").items()}


def png_files(content: Content) -> dict[str, str | bytes]:
    """Return the files of ``--plots png``: name and bytes."""
    return {name: data for name, (_, data) in image_files(plots(content), "png").items()}


def image_files(all_plots: Iterable[Plot], kind: str) -> dict[str, tuple[str, str | bytes]]:
    """Return plots as svg or png files: title and content by file name."""
    return {
        f"plot_{plot.name}.{kind}": (
            plot.title,
            png(drawing(plot)) if kind == "png" else svg(drawing(plot), plot.title, plot.note),
        )
        for plot in all_plots
    }


class Svg(str):
    """An image as the text of an SVG file, which a notebook shows as an image."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


def pictures(runs: Sequence[Run], slo: str | None = None, *, count_connect: bool = False) -> dict[str, Svg]:
    """Return the figures of runs by name (``curve_e2e``, ``ttft``, ...), for a notebook; objectives become lines."""
    questions = Questions(parse_objectives(slo) if slo else None)
    content = content_of(runs, count_connect=count_connect, questions=questions)
    return {plot.name: Svg(svg(drawing(plot), plot.title, plot.note)) for plot in plots(content)}


def plots(content: Content) -> list[Plot]:
    """Return the plots of a report; plots without data are omitted."""
    report_figures = figures(content.runs, content.groups, content.points, content.objectives)
    return with_data(
        [
            *curves_of(report_figures),
            *distributions_of(report_figures),
            *_timelines(report_figures),
            *_scatters(report_figures),
        ]
    )


def with_data(all_plots: Iterable[Plot]) -> list[Plot]:
    """Return the plots that contain data."""
    return [plot for plot in all_plots if any(value is not None for series in plot.series for value in series.x)]


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


def curves_of(all_figures: Figures) -> Iterator[Plot]:
    """Yield the curve over median latency, over the P95 of TTFT, and over the figures of the objectives, with lines."""
    one = len(all_figures.curves) == 1
    is_open = any(load.is_open for load in all_figures.loads)
    usual = [(drawn_as(key, is_open=is_open), figure) for key, figure in _CURVES]
    shown: dict[tuple[str, str], list[Limit]] = {pair: [] for pair in usual}
    for limit in all_figures.limits:
        shown.setdefault((limit.metric, limit.figure), []).append(limit)
    for (key, figure), limits in shown.items():
        series = [
            Series(
                curve.name,
                [_known(point.latency_s[key][figure]) for point in curve.points],
                [_known(point.throughput_token_per_s) for point in curve.points],
                "curve",
                colours()["accent"] if one else run_colour(k),
                labels=[point.name for point in curve.points],
                hollow=[point.hollow for point in curve.points],
            )
            for k, curve in enumerate(all_figures.curves)
        ]
        label = f"{LATENCY_NAMES[key]}, {'median' if figure == 'p50' else figure} (s)"
        yield Plot(
            f"curve_{key}" if (key, figure) in usual else f"curve_{key}_{figure}",
            f"Throughput against {LATENCY_NAMES[key].lower()}",
            Axis(label, zero=True),
            Axis("System, output tokens/s", zero=True),
            series,
            points_note(all_figures.loads),
            [(limit.limit_s, limit.text) for limit in limits],
        )


def distributions_of(all_figures: Figures) -> Iterator[Plot]:
    """Yield the cumulative curves of each latency, one curve per stage."""
    looks = looks_of(all_figures)
    for distribution in all_figures.distributions:
        borders = [border for border in distribution.log.borders if border]
        series = [
            Series(all_figures.labels[k], cumulative.x, cumulative.y, "step", looks[k][0], place=looks[k][1])
            for k, cumulative in enumerate(distribution.cumulative)
        ]
        wide = bool(borders) and borders[-1] / borders[0] > 20
        yield Plot(
            distribution.key,
            f"{distribution.name}: share of the requests within this time",
            Axis(f"{distribution.name} ({distribution.unit})", log=wide),
            Axis("Share", zero=True),
            series,
            "Successful measured requests.",
        )


def _timelines(all_figures: Figures) -> Iterator[Plot]:
    for index, timeline in enumerate(all_figures.timelines):
        points_per_outcome = _MOST_POINTS if timeline.shown <= _MOST_POINTS else _MOST_POINTS // len(timeline.outcomes)
        series = []
        for outcome in timeline.outcomes:
            step = -(-len(outcome.started_s) // points_per_outcome)
            name = f"{outcome.name} ({outcome.count:,})"
            shape, colour = _SHAPES[outcome.key], colours()[outcome.key]
            series.append(Series(name, outcome.started_s[::step], outcome.e2e[::step], "points", colour, shape))
        shown = sum(len(points.x) for points in series)
        several = len(all_figures.timelines) > 1
        yield Plot(
            f"timeline_{index + 1}" if several else "timeline",
            f"Requests over time{f', {timeline.run}' if several else ''}",
            Axis("Start of the request, seconds since the first one"),
            Axis("End-to-end latency (s)", zero=True),
            series,
            ""
            if shown >= timeline.total
            else f"{shown:,} of {timeline.total:,} requests are drawn; the counts include all.",
        )


def _scatters(all_figures: Figures) -> Iterator[Plot]:
    lines = [Line(model.ttft_s - model.tpot_s, model.tpot_s, model.problem) for model in all_figures.models]
    yield _with_lines(
        all_figures,
        COL.model,
        "Latency against output tokens, with the fitted lines",
        ("Output tokens", "End-to-end latency (s)"),
        all_figures.outputs,
        lines,
    )
    axes = ("Input tokens", "Time to first token (s)")
    inputs = [scatter.line for scatter in all_figures.inputs]
    yield _with_lines(
        all_figures, "input", "Time to first token against input tokens", axes, all_figures.inputs, inputs
    )


def _with_lines(
    all_figures: Figures,
    name: str,
    title: str,
    axes: tuple[str, str],
    scatters: Sequence[Scatter],
    lines: Sequence[Line],
) -> Plot:
    limit = max(1, _MOST_POINTS // max(1, len(scatters)))
    looks = looks_of(all_figures)
    points, fits = [], []
    for k, (scatter, line) in enumerate(zip(scatters, lines, strict=True)):
        step = max(1, -(-len(scatter.x) // limit))
        colour, style_index = looks[k]
        points.append(
            Series(all_figures.labels[k], scatter.x[::step], scatter.y[::step], "points", colour, place=style_index)
        )
        known = [x for x in scatter.x if x is not None]
        if known and not line.problem:
            ends = [min(known), max(known)]
            heights = [line.constant + line.slope * x for x in ends]
            fits.append(Series(all_figures.labels[k], ends, heights, "line", colour, quiet=True, place=style_index))
    note = drawn(sum(len(series.x) for series in points), sum(scatter.total for scatter in scatters))
    return Plot(name, title, Axis(axes[0]), Axis(axes[1], zero=True), [*points, *fits], note)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
