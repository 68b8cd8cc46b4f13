"""The sections of the page that show figures. A section has a chart, a caption that describes it, and a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from llm_reports.charts.curve import (
    FIGURE_NAMES,
    LATENCY_NAMES,
    SEEN_NOTE,
    UNFIT_NOTE,
    WORDS_PER_TOKEN,
    Curve,
    figure_name,
)
from llm_reports.charts.downsampling import drawn
from llm_reports.charts.figures import Figures
from llm_reports.charts.timeline import Scatter
from llm_reports.html.elements import (
    Markup,
    check,
    choice,
    controls,
    element,
    figure,
    folded,
    joined,
    number,
    section,
    table,
)
from llm_reports.metrics.stage_load import SPOKEN, axis_name, load_columns, points_note
from llm_reports.stats.intervals import Interval
from llm_users.record import COL

MOST_POINTS_IN_WORDS = 12
"""With more points, a caption only states the highest throughput of each curve."""
_NO_LINE = "No slope differs significantly from 0; the table states why"


def curve_section(figures: Figures) -> Markup:
    """Return the section with throughput against latency, a budget line, and the best point within the budget."""
    budget = element(
        "label",
        joined(
            [
                "Latency budget (s)",
                Markup('<input type="number" id="curve-budget" min="0" step="any" inputmode="decimal">'),
            ]
        ),
    )
    # With objectives, the curve initially shows the latency and figure of the first one, so that its line is visible.
    first = figures.limits[0] if figures.limits else None
    names = FIGURE_NAMES | {limit.figure: figure_name(limit.figure) for limit in figures.limits}
    return section(
        "curve",
        "Throughput and latency",
        controls(
            choice("curve-latency", "Latency", figures.latencies, chosen=first.metric if first else ""),
            choice("curve-figure", "Figure", names, chosen=first.figure if first else ""),
            budget,
            check("curve-log", "logarithmic"),
        ),
        element("output", "", id="curve-best", for_="curve-budget curve-latency curve-figure"),
        figure("curve-chart", _curves_in_words(figures), *_curve_notes(figures), words_id="curve-words"),
    )


def speed_section(figures: Figures) -> Markup:
    """Return the section with the system throughput and the speed for one user, as a table and two figures."""
    return section("speeds", "System throughput and speed per user", speed_table(figures))


def speed_table(figures: Figures) -> Markup:
    """Return the table and two figures with the system throughput and the speed for one user side by side."""
    several = len(figures.curves) > 1
    loads = load_columns(figures.loads, SPOKEN)
    header = (
        *(("Curve",) if several else ()),
        *loads.header,
        "Client",
        "System, output tokens/s",
        "System, input + output tokens/s",
        "Requests/s",
        "User, tokens/s",
        "User, words/min",
        "E2E median (s)",
        "TTFT median (s)",
        "TPOT median (ms)",
    )
    rows = [
        [
            *((curve.name,) if several else ()),
            *loads.marked(point.load, f"{point.load.level:g}" if point.load.level is not None else "?"),
            point.health or "-",
            number(point.throughput_token_per_s, 1) + (" *" if point.estimated else ""),
            number(point.total_token_per_s, 1),
            number(point.requests_per_s, 2),
            number(point.per_user_token_per_s, 1),
            number(point.words_per_minute),
            number(point.seen("e2e", "p50"), 3),
            number(point.seen("ttft", "p50"), 3),
            number(point.latency_s["tpot"]["p50"] * 1000, 2),
        ]
        for curve in figures.curves
        for point in curve.points
    ]
    note = (
        "The speed per user is 1 / median TPOT, the rate at which an answer streams. Words are counted as "
        f"{WORDS_PER_TOKEN} per token, the usual factor for English; other languages and code differ."
        f"{f' {SEEN_NOTE}' if loads.rates else ''}"
    )
    against = axis_name(figures.loads)
    against = against[0].lower() + against[1:]
    charts = joined(
        [
            figure("system-chart", f"Output tokens per second of the whole system, against {against}."),
            figure("user-chart", f"Tokens per second that one user receives, against {against}."),
        ]
    )
    return joined(
        [
            table("System throughput and speed per user", header, rows, id_="speed"),
            element("p", note, class_="soft"),
            element("div", charts, class_="pair"),
        ]
    )


def distribution_section(figures: Figures) -> Markup:
    """Return the section with the distribution of a latency in each stage."""
    names = {distribution.key: distribution.name for distribution in figures.distributions}
    if not names:
        return section("distribution", "Distributions", element("p", "No latency was measured."))
    points = {curve_point.label: curve_point for curve in figures.curves for curve_point in curve.points}
    first = figures.distributions[0]
    words = (
        f"{first.name}: {_many(figures)}"
        if _many(figures)
        else f"{first.name}: "
        + "; ".join(
            f"{label}: median {number(points[label].latency_s[first.key]['p50'], 3)} s, "
            f"99th percentile {number(points[label].latency_s[first.key]['p99'], 3)} s"
            for label in figures.labels
            if label in points
        )
    )
    return section(
        "distribution",
        "Distributions",
        controls(
            choice("distribution-latency", "Latency", names),
            choice("distribution-view", "View", {"cumulative": "cumulative (ECDF)", "histogram": "histogram"}),
            check("distribution-log", "logarithmic", checked=_wide(figures)),
        ),
        figure("distribution-chart", f"{words}.", "Includes all successful measured requests."),
    )


def timeline_section(figures: Figures) -> Markup:
    """Return the section with every request by its start and its outcome."""
    if not figures.timelines:
        return section(
            "timeline", "Requests over time", element("p", "The input does not contain the start times of requests.")
        )
    parts = []
    for timeline in figures.timelines:
        counted = ", ".join(f"{outcome.count:,} {outcome.name}" for outcome in timeline.outcomes)
        name = f"{timeline.run}: " if len(figures.timelines) > 1 else ""
        dropped = f" {timeline.dropped:,} more were dropped and did not start." if timeline.dropped else ""
        parts.append(
            f"{name}{timeline.total:,} requests: {counted}.{dropped} {drawn(timeline.shown, timeline.total)}".strip()
        )
    units = dict.fromkeys(timeline.load_unit for timeline in figures.timelines)
    runs = {str(i): timeline.run for i, timeline in enumerate(figures.timelines)}
    return section(
        "timeline",
        "Requests over time",
        controls(
            *((choice("timeline-run", "Run", runs),) if len(runs) > 1 else ()),
            choice("timeline-latency", "Latency", {key: LATENCY_NAMES[key] for key in ("e2e", "ttft")}),
            check("timeline-log", "logarithmic"),
        ),
        figure(
            "timeline-chart",
            " ".join(parts),
            f"Shaded: the stages, with their {' or '.join(units)}. Requests without a latency are at the bottom.",
        ),
    )


def model_section(figures: Figures) -> Markup:
    """Return the section that splits latency into prefill and decode, with the residuals of the fit."""
    remark = ("Remark",) if any(model.problem for model in figures.models) else ()
    header = (
        "Stage",
        "Requests",
        "TTFT fitted (s)",
        "TPOT fitted (ms)",
        "TPOT, 95 % interval (ms)",
        "Residual, median (ms)",
        "Residual, p95 (ms)",
        "Explained (%)",
        *remark,
    )
    rows = [
        [
            label,
            model.n,
            number(model.ttft_s, 3),
            number(model.tpot_s * 1000, 2),
            _interval(model.tpot_interval, 1000),
            number(model.residual_p50_s * 1000, 1),
            number(model.residual_p95_s * 1000, 1),
            number(model.explained * 100),
            *((model.problem or "-",) if remark else ()),
        ]
        for label, model in zip(figures.labels, figures.models, strict=True)
    ]
    fitted = [(label, m) for label, m in zip(figures.labels, figures.models, strict=True) if not m.problem]
    words = _many(figures) or "; ".join(
        f"{label}: {number(model.ttft_s, 3)} s + {number(model.tpot_s * 1000, 2)} ms per token "
        f"({_interval(model.tpot_interval, 1000)} ms)"
        for label, model in fitted
    )
    return section(
        COL.model,
        "Latency model",
        element(
            "p",
            Markup(
                "latency = TTFT + TPOT &times; tokens after the first, fitted to each stage: the constant is prefill "
                "and waiting, the slope is decoding. Outliers have little weight (Huber's fit). Explained: the share "
                "by which the line reduces the median deviation. A large residual means that requests of the same "
                "length took very different times."
            ),
            class_="soft",
        ),
        controls(choice("model-view", "View", {"latency": "latency", "residuals": "residuals"})),
        figure("model-chart", f"Latency against output tokens. {words or _NO_LINE}.", _of(figures.outputs)),
        table("The fitted lines", header, rows, id_="model-table"),
    )


def input_section(figures: Figures) -> Markup:
    """Return the section with time to first token against the length of the prompt."""
    header = (
        "Stage",
        "Requests",
        "Constant (s)",
        "Per 1,000 input tokens (ms)",
        "Per 1,000, 95 % interval (ms)",
        "Remark",
    )
    rows = [
        [
            label,
            scatter.total,
            number(scatter.line.constant, 3),
            number(scatter.line.slope * 1e6, 1),
            _interval(scatter.line.slope_interval, 1e6, 1),
            scatter.line.problem or "-",
        ]
        for label, scatter in zip(figures.labels, figures.inputs, strict=True)
    ]
    words = _many(figures) or "; ".join(
        f"{label}: {number(scatter.line.slope * 1e6, 1)} ms per 1,000 input tokens "
        f"({_interval(scatter.line.slope_interval, 1e6, 1)} ms)"
        for label, scatter in zip(figures.labels, figures.inputs, strict=True)
        if not scatter.line.problem
    )
    return section(
        "input",
        "Time to first token and input length",
        controls(check("input-log", "logarithmic")),
        figure(
            "input-chart",
            f"Time to first token against input tokens. {words or _NO_LINE}.",
            _of(figures.inputs),
        ),
        folded("The fitted lines", table("Robust lines through all points", header, rows)),
    )


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
    return f"{number(interval.low * scale, decimals)} to {number(interval.high * scale, decimals)}"


def _of(scatters: Sequence[Scatter]) -> str:
    return drawn(sum(len(scatter.x) for scatter in scatters), sum(scatter.total for scatter in scatters))


def _curves_in_words(figures: Figures) -> str:
    """Return the caption of the curve when the page opens; report.js updates it for later selections."""
    first = figures.limits[0] if figures.limits else None
    metric = first.metric if first else next(iter(figures.latencies))
    figure_key = first.figure if first else "p50"
    brief = sum(len(curve.points) for curve in figures.curves) > MOST_POINTS_IN_WORDS
    against = f"{figure_name(figure_key)} of the {_lower(LATENCY_NAMES[metric])}"
    sentences = (_curve_in_words(curve, metric, figure_key, brief=brief) for curve in figures.curves)
    return f"Output tokens/s of the whole system against the {against}. {' '.join(sentences)}"


def _curve_in_words(curve: Curve, metric: str, figure_key: str, *, brief: bool) -> str:
    points = [point for point in curve.points if math.isfinite(point.throughput_token_per_s)]
    if not points:
        return f"{curve.name}: the throughput is unknown."
    if brief:
        points = [max(points, key=lambda point: point.throughput_token_per_s)]
    values = "; ".join(
        f"{point.words}: {number(point.throughput_token_per_s)} tokens/s at "
        f"{number(point.latency_s[metric][figure_key], 2 if metric != 'tpot' else 4)} s"
        for point in points
    )
    return f"{curve.name}{', highest throughput' if brief else ''}: {values}."


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _curve_notes(figures: Figures) -> list[str]:
    points = [point for curve in figures.curves for point in curve.points]
    notes = [points_note(figures.loads)]
    if any(load.is_open for load in figures.loads):
        notes.append(
            "Latencies from the intended start count from the scheduled time in an open loop and include all waiting "
            "in the client."
        )
    if figures.limits:
        lines = ", ".join(limit.text for limit in figures.limits)
        notes.append(f"Lines are the objectives ({lines}), shown when their latency and figure are selected.")
    if any(point.mark for point in points):
        notes.append(
            "limit: the highest load that the search found; fails: the lowest tried load that fails the objectives."
        )
    if any(point.hollow for point in points):
        notes.append(
            "Hollow points: the client was not healthy, many requests failed, the stage was unsteady (its queue grew), "
            "or the load was below the requested load."
        )
    if any(point.unfit for point in points):
        notes.append(UNFIT_NOTE)
    if any(point.estimated for point in points):
        notes.append(
            "* All output tokens divided by the time from the first start to the last end, because the stages "
            "file is missing."
        )
    return notes


def _wide(figures: Figures) -> bool:
    """Return whether the first distribution spans more than a linear axis can show well."""
    borders = [border for border in figures.distributions[0].log.borders if border]
    return bool(borders) and borders[-1] / borders[0] > 20
