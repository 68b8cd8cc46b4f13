"""The captions that describe the charts of a page, and the rows of the tables next to them.

The templates have the titles, the columns and the notes. A caption is also the description for screen readers.
"""

from __future__ import annotations

import math

from llm_reports.charts.curve import LATENCY_NAMES, Curve, figure_name
from llm_reports.charts.downsampling import drawn
from llm_reports.charts.figures import Figures
from llm_reports.metrics.stage_load import SPOKEN, axis_name, load_columns
from llm_reports.sections.numbers import with_decimals
from llm_reports.stats.intervals import Interval

MOST_POINTS_IN_WORDS = 12
"""With more points, a caption only states the highest throughput of each curve."""
_NO_LINE = "No slope differs significantly from 0; the table states why"


def curve_words(figures: Figures, metric: str, figure_key: str) -> str:
    """Return the caption of the curve when the page opens; report.js updates it for later selections."""
    brief = len(figures.points) > MOST_POINTS_IN_WORDS
    sentences = (_curve_in_words(curve, metric, figure_key, brief=brief) for curve in figures.curves)
    against = f"{figure_name(figure_key)} of the {lower_first(LATENCY_NAMES[metric])}"
    return f"Output tokens/s of the whole system against the {against}. {' '.join(sentences)}"


def _curve_in_words(curve: Curve, metric: str, figure_key: str, *, brief: bool) -> str:
    points = [point for point in curve.points if math.isfinite(point.throughput_token_per_s)]
    if not points:
        return f"{curve.name}: the throughput is unknown."
    if brief:
        points = [max(points, key=lambda point: point.throughput_token_per_s)]
    values = "; ".join(
        f"{point.words}: {with_decimals(point.throughput_token_per_s)} tokens/s at "
        f"{with_decimals(point.latency_s[metric][figure_key], 2 if metric != 'tpot' else 4)} s"
        for point in points
    )
    return f"{curve.name}{', highest throughput' if brief else ''}: {values}."


def load_words(figures: Figures, metric: str, figure_key: str) -> str:
    """Return the caption of the latency against the load when the page opens; report.js updates it."""
    lines = [limit.text for limit in figures.limits if (limit.metric, limit.figure) == (metric, figure_key)]
    name = lower_first(LATENCY_NAMES[metric])
    against = lower_first(axis_name(figures.loads))
    drawn_lines = f" The line is the objective {', '.join(lines)}." if lines else ""
    return f"The {figure_name(figure_key)} of the {name}, selected above, against {against}.{drawn_lines}"


def speed_rows(figures: Figures) -> list[list[str]]:
    """Return the system throughput and the speed for one user side by side."""
    loads = load_columns(figures.loads, SPOKEN)
    return [
        [
            *((curve.name,) if len(figures.curves) > 1 else ()),
            *loads.marked(point.load, point.load.level_text.removesuffix("/s")),
            point.health or "-",
            with_decimals(point.throughput_token_per_s, 1) + (" *" if point.estimated else ""),
            with_decimals(point.total_token_per_s, 1),
            with_decimals(point.requests_per_s, 2),
            with_decimals(point.per_user_token_per_s, 1),
            with_decimals(point.words_per_minute),
            with_decimals(point.seen("e2e", "p50"), 3),
            with_decimals(point.seen("ttft", "p50"), 3),
            with_decimals(point.latency_s["tpot"]["p50"] * 1000, 2),
        ]
        for curve in figures.curves
        for point in curve.points
    ]


def distribution_words(figures: Figures) -> str:
    """Return the caption of the first distribution."""
    points = {point.label: point for point in figures.points}
    first = figures.distributions[0]
    words = _many(figures) or "; ".join(
        f"{label}: median {with_decimals(points[label].latency_s[first.key]['p50'], 3)} s, "
        f"99th percentile {with_decimals(points[label].latency_s[first.key]['p99'], 3)} s"
        for label in figures.labels
        if label in points
    )
    return f"{first.name}: {words}."


def timeline_words(figures: Figures) -> str:
    """Return the caption of the requests over time: the outcomes of every run."""
    parts = []
    for timeline in figures.timelines:
        counted = ", ".join(f"{outcome.count:,} {outcome.name}" for outcome in timeline.outcomes)
        name = f"{timeline.run}: " if len(figures.timelines) > 1 else ""
        dropped = f" {timeline.dropped:,} more were dropped and did not start." if timeline.dropped else ""
        shown = drawn(timeline.shown, timeline.total)
        parts.append(f"{name}{timeline.total:,} requests: {counted}.{dropped} {shown}".strip())
    return " ".join(parts)


def model_words(figures: Figures) -> str:
    """Return the caption of the latency model, which splits latency into prefill and decode."""
    words = _many(figures) or "; ".join(
        f"{label}: {with_decimals(model.ttft_s, 3)} s + {with_decimals(model.tpot_s * 1000, 2)} ms per token "
        f"({_interval(model.tpot_interval, 1000)} ms)"
        for label, model in zip(figures.labels, figures.models, strict=True)
        if not model.problem
    )
    return f"Latency against output tokens. {words or _NO_LINE}."


def model_rows(figures: Figures) -> list[list[str]]:
    """Return the fitted lines of the latency model with their residuals, and a remark if a stage has one."""
    remark = any(model.problem for model in figures.models)
    return [
        [
            label,
            str(model.n),
            with_decimals(model.ttft_s, 3),
            with_decimals(model.tpot_s * 1000, 2),
            _interval(model.tpot_interval, 1000),
            with_decimals(model.residual_p50_s * 1000, 1),
            with_decimals(model.residual_p95_s * 1000, 1),
            with_decimals(model.explained * 100),
            *((model.problem or "-",) if remark else ()),
        ]
        for label, model in zip(figures.labels, figures.models, strict=True)
    ]


def input_words(figures: Figures) -> str:
    """Return the caption of time to first token against the length of the prompt."""
    words = _many(figures) or "; ".join(
        f"{label}: {with_decimals(scatter.line.slope * 1e6, 1)} ms per 1,000 input tokens "
        f"({_interval(scatter.line.slope_interval, 1e6, 1)} ms)"
        for label, scatter in zip(figures.labels, figures.inputs, strict=True)
        if not scatter.line.problem
    )
    return f"Time to first token against input tokens. {words or _NO_LINE}."


def input_rows(figures: Figures) -> list[list[str]]:
    """Return the fitted lines of time to first token against the length of the prompt."""
    return [
        [
            label,
            str(scatter.total),
            with_decimals(scatter.line.constant, 3),
            with_decimals(scatter.line.slope * 1e6, 1),
            _interval(scatter.line.slope_interval, 1e6, 1),
            scatter.line.problem or "-",
        ]
        for label, scatter in zip(figures.labels, figures.inputs, strict=True)
    ]


def lower_first(text: str) -> str:
    """Return a text with a lower-case first letter, for use inside a sentence."""
    return text[0].lower() + text[1:]


def _many(figures: Figures) -> str:
    """Return the caption text that replaces the list of stages when there are too many; otherwise ""."""
    if len(figures.labels) <= MOST_POINTS_IN_WORDS:
        return ""
    hidden = "; initially, the chart shows the highest load of each run" if len(figures.curves) > 1 else ""
    return f"{len(figures.labels)} stages; the tables contain their figures{hidden}"


def _interval(interval: Interval, scale: float, decimals: int = 2) -> str:
    """Return both ends of the interval of a slope; a dash when it is unknown."""
    if not interval.known:
        return "-"
    return f"{with_decimals(interval.low * scale, decimals)} to {with_decimals(interval.high * scale, decimals)}"
