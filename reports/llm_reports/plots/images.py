"""The figures of the page as files for pipelines: ``--plots svg`` or ``--plots png``. Same data, same colours."""

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

_SHAPES = {
    "ok": "circle", "unmeasured": "circle", "throttled": "triangle", "failed": "cross", "aborted": "diamond",
    "cancelled": "diamond",
}  # fmt: skip
_CURVES = (("e2e", "p50"), ("ttft", "p95"))
_RAMP_STOPS = 6
_RUN_COLOURS = 8
_MOST_POINTS = 3000  # of one file: a vector image of 12,000 points opens slowly


def svg_files(content: Content) -> dict[str, str | bytes]:
    """The files of ``--plots svg``: name and text."""
    return {name: data for name, (_, data) in image_files(plots(content), "svg").items()}


def png_files(content: Content) -> dict[str, str | bytes]:
    """The files of ``--plots png``: name and bytes."""
    return {name: data for name, (_, data) in image_files(plots(content), "png").items()}


def image_files(found: Iterable[Plot], kind: str) -> dict[str, tuple[str, str | bytes]]:
    """Plots as files, svg or png: of each name the title and the content."""
    return {
        f"plot_{each.name}.{kind}": (
            each.title,
            png(drawing(each)) if kind == "png" else svg(drawing(each), each.title, each.note),
        )
        for each in found
    }


class Svg(str):
    """A picture as the text of an SVG file, which a notebook shows as a picture."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


def pictures(runs: Sequence[Run], slo: str | None = None, *, count_connect: bool = False) -> dict[str, Svg]:
    """The figures of some runs by name (``curve_e2e``, ``ttft``, ...), for a notebook; objectives become lines."""
    questions = Questions(parse_objectives(slo) if slo else None)
    content = content_of(runs, count_connect=count_connect, questions=questions)
    return {each.name: Svg(svg(drawing(each), each.title, each.note)) for each in plots(content)}


def plots(content: Content) -> list[Plot]:
    """The plots of a report; what has no data is left out."""
    made = figures(content.runs, content.groups, content.points, content.objectives)
    return with_data([*curves_of(made), *distributions_of(made), *_timelines(made), *_scatters(made)])


def with_data(found: Iterable[Plot]) -> list[Plot]:
    """The plots that have anything to show."""
    return [each for each in found if any(value is not None for series in each.series for value in series.x)]


def ramp(place: int, count: int) -> str:
    """The colour of one of several series in order, between the colours that charts.css declares."""
    at = place / (count - 1) * (_RAMP_STOPS - 1) if count > 1 else 1.0
    low = min(_RAMP_STOPS - 2, int(at))
    stops = [colours()[f"ramp-{stop}"] for stop in (low, low + 1)]
    ends = [[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops]
    mixed = [round(a + (b - a) * (at - low)) for a, b in zip(*ends, strict=True)]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def run_colour(place: int) -> str:
    """The colour of one of several runs, in any order: those of charts.css, which colour-blind readers can tell."""
    return colours()[f"run-{place % _RUN_COLOURS}"]


def looks_of(made: Figures) -> list[tuple[str, int]]:
    """Colour, and place for shape and dash, of every stage: by its run where there are several, else by its order."""
    if len(made.curves) == 1:
        return [(ramp(k, len(made.labels)), k) for k in range(len(made.labels))]
    found = {
        point.label: (run_colour(k), place)
        for k, curve in enumerate(made.curves)
        for place, point in enumerate(curve.points)
    }
    return [found.get(label, (run_colour(k), k)) for k, label in enumerate(made.labels)]


def curves_of(made: Figures) -> Iterator[Plot]:
    """The curve over median latency, over the P95 of TTFT, and over what objectives speak of, with their lines."""
    one = len(made.curves) == 1
    is_open = any(load.is_open for load in made.loads)
    usual = [(drawn_as(key, is_open=is_open), figure) for key, figure in _CURVES]
    shown: dict[tuple[str, str], list[Limit]] = {each: [] for each in usual}
    for limit in made.limits:
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
            for k, curve in enumerate(made.curves)
        ]
        label = f"{LATENCY_NAMES[key]}, {'median' if figure == 'p50' else figure} (s)"
        yield Plot(
            f"curve_{key}" if (key, figure) in usual else f"curve_{key}_{figure}",
            f"Throughput against {LATENCY_NAMES[key].lower()}",
            Axis(label, zero=True),
            Axis("System, output tokens/s", zero=True),
            series,
            points_note(made.loads),
            [(each.limit_s, each.text) for each in limits],
        )


def distributions_of(made: Figures) -> Iterator[Plot]:
    """The cumulative curve of each latency, stage by stage."""
    looks = looks_of(made)
    for each in made.distributions:
        borders = [border for border in each.log.borders if border]
        series = [
            Series(made.labels[k], one.x, one.y, "step", looks[k][0], place=looks[k][1])
            for k, one in enumerate(each.cumulative)
        ]
        wide = bool(borders) and borders[-1] / borders[0] > 20
        yield Plot(
            each.key,
            f"{each.name}: share of the requests within this time",
            Axis(f"{each.name} ({each.unit})", log=wide),
            Axis("Share", zero=True),
            series,
            "Successful measured requests.",
        )


def _timelines(made: Figures) -> Iterator[Plot]:
    for place, each in enumerate(made.timelines):
        left = _MOST_POINTS if each.shown <= _MOST_POINTS else _MOST_POINTS // len(each.outcomes)
        series = []
        for outcome in each.outcomes:
            step = -(-len(outcome.started_s) // left)
            name = f"{outcome.name} ({outcome.count:,})"
            shape, colour = _SHAPES[outcome.key], colours()[outcome.key]
            series.append(Series(name, outcome.started_s[::step], outcome.e2e[::step], "points", colour, shape))
        shown = sum(len(one.x) for one in series)
        several = len(made.timelines) > 1
        yield Plot(
            f"timeline_{place + 1}" if several else "timeline",
            f"Requests over time{f', {each.run}' if several else ''}",
            Axis("Start of the request, seconds since the first one"),
            Axis("End-to-end latency (s)", zero=True),
            series,
            "" if shown >= each.total else f"{shown:,} of {each.total:,} requests are drawn; the counts are of all.",
        )


def _scatters(made: Figures) -> Iterator[Plot]:
    lines = [Line(model.ttft_s - model.tpot_s, model.tpot_s, model.problem) for model in made.models]
    yield _with_lines(
        made,
        "model",
        "Latency against output tokens, with the fitted lines",
        ("Output tokens", "End-to-end latency (s)"),
        made.outputs,
        lines,
    )
    axes = ("Input tokens", "Time to first token (s)")
    inputs = [each.line for each in made.inputs]
    yield _with_lines(made, "input", "Time to first token against input tokens", axes, made.inputs, inputs)


def _with_lines(
    made: Figures, name: str, title: str, axes: tuple[str, str], scatters: Sequence[Scatter], lines: Sequence[Line]
) -> Plot:
    limit = max(1, _MOST_POINTS // max(1, len(scatters)))
    looks = looks_of(made)
    points, fits = [], []
    for k, (each, line) in enumerate(zip(scatters, lines, strict=True)):
        step = max(1, -(-len(each.x) // limit))
        colour, place = looks[k]
        points.append(Series(made.labels[k], each.x[::step], each.y[::step], "points", colour, place=place))
        known = [x for x in each.x if x is not None]
        if known and not line.problem:
            ends = [min(known), max(known)]
            heights = [line.constant + line.slope * x for x in ends]
            fits.append(Series(made.labels[k], ends, heights, "line", colour, quiet=True, place=place))
    note = drawn(sum(len(one.x) for one in points), sum(each.total for each in scatters))
    return Plot(name, title, Axis(axes[0]), Axis(axes[1], zero=True), [*points, *fits], note)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
