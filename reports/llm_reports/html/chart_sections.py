"""The sections of the page that show figures: each a chart, what it shows in words, and the same as a table."""

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

MOST_POINTS_IN_WORDS = 12
"""Of more points a caption names the highest throughput of each curve only."""
_NO_LINE = "No slope is told from 0; the table says why"


def curve_section(figures: Figures) -> Markup:
    """Throughput against latency, with a budget line and the best point within it."""
    budget = element(
        "label",
        joined(
            [
                "Latency budget (s)",
                Markup('<input type="number" id="curve-budget" min="0" step="any" inputmode="decimal">'),
            ]
        ),
    )
    # With objectives the curve opens on what the first of them speaks of, so that its line is seen.
    first = figures.limits[0] if figures.limits else None
    names = FIGURE_NAMES | {each.figure: figure_name(each.figure) for each in figures.limits}
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
    """What the system gives and what one user sees, as a table and two figures."""
    return section("speeds", "The system's throughput and one user's speed", speed_table(figures))


def speed_table(figures: Figures) -> Markup:
    """The system's throughput and one user's speed side by side."""
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
    said = (
        "A user's speed is 1 / median TPOT, the pace at which an answer streams. Words are counted as "
        f"{WORDS_PER_TOKEN} per token, the usual factor for English: other languages and code differ."
        f"{f' {SEEN_NOTE}' if loads.rates else ''}"
    )
    against = axis_name(figures.loads)
    against = against[0].lower() + against[1:]
    charts = joined(
        [
            figure("system-chart", f"Output tokens per second of the whole system, against {against}."),
            figure("user-chart", f"Tokens per second that one user sees, against {against}."),
        ]
    )
    return joined(
        [
            table("The system's throughput and one user's speed", header, rows, id_="speed"),
            element("p", said, class_="soft"),
            element("div", charts, class_="pair"),
        ]
    )


def distribution_section(figures: Figures) -> Markup:
    """How a latency is distributed in each stage."""
    names = {each.key: each.name for each in figures.distributions}
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
        figure("distribution-chart", f"{words}.", "Successful measured requests, all of them counted."),
    )


def timeline_section(figures: Figures) -> Markup:
    """Every request by its start and what became of it."""
    if not figures.timelines:
        return section(
            "timeline", "Requests over time", element("p", "The input does not say when requests were started.")
        )
    parts = []
    for each in figures.timelines:
        counted = ", ".join(f"{outcome.count:,} {outcome.name}" for outcome in each.outcomes)
        name = f"{each.run}: " if len(figures.timelines) > 1 else ""
        never = f" {each.dropped:,} more were dropped and never started." if each.dropped else ""
        parts.append(f"{name}{each.total:,} requests: {counted}.{never} {drawn(each.shown, each.total)}".strip())
    units = dict.fromkeys(each.load_unit for each in figures.timelines)
    runs = {str(i): each.run for i, each in enumerate(figures.timelines)}
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
            f"Shaded: the stages, with their {' or '.join(units)}. What has no latency stands on the floor.",
        ),
    )


def model_section(figures: Figures) -> Markup:
    """Latency taken apart into prefill and decode, with what the line does not explain."""
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
        "model",
        "Latency model",
        element(
            "p",
            Markup(
                "latency = TTFT + TPOT &times; tokens after the first, fitted to each stage: the constant is prefill "
                "and waiting, the slope is decoding. Outliers weigh little (Huber's fit). Explained: by how much the "
                "line makes the median deviation smaller. A large residual says that requests of one length took very "
                "different times."
            ),
            class_="soft",
        ),
        controls(choice("model-view", "View", {"latency": "latency", "residuals": "residuals"})),
        figure("model-chart", f"Latency against output tokens. {words or _NO_LINE}.", _of(figures.outputs)),
        table("The fitted lines", header, rows, id_="model-table"),
    )


def input_section(figures: Figures) -> Markup:
    """What a longer prompt costs."""
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
            each.total,
            number(each.line.constant, 3),
            number(each.line.slope * 1e6, 1),
            _interval(each.line.slope_interval, 1e6, 1),
            each.line.problem or "-",
        ]
        for label, each in zip(figures.labels, figures.inputs, strict=True)
    ]
    words = _many(figures) or "; ".join(
        f"{label}: {number(each.line.slope * 1e6, 1)} ms per 1,000 input tokens "
        f"({_interval(each.line.slope_interval, 1e6, 1)} ms)"
        for label, each in zip(figures.labels, figures.inputs, strict=True)
        if not each.line.problem
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
    """What a caption says instead of naming every stage, where there are very many; else ""."""
    if len(figures.labels) <= MOST_POINTS_IN_WORDS:
        return ""
    hidden = "; at first the highest load of each run is shown" if len(figures.curves) > 1 else ""
    return f"{len(figures.labels)} stages, whose figures are in the tables{hidden}"


def _interval(interval: Interval, scale: float, decimals: int = 2) -> str:
    """Both ends of a slope's interval; a dash when there is none."""
    if not interval.known:
        return "-"
    return f"{number(interval.low * scale, decimals)} to {number(interval.high * scale, decimals)}"


def _of(scatters: Sequence[Scatter]) -> str:
    return drawn(sum(len(each.x) for each in scatters), sum(each.total for each in scatters))


def _curves_in_words(figures: Figures) -> str:
    """What the curve shows when the page opens; report.js says the same of what is chosen later."""
    first = figures.limits[0] if figures.limits else None
    metric = first.metric if first else next(iter(figures.latencies))
    figure_key = first.figure if first else "p50"
    brief = sum(len(curve.points) for curve in figures.curves) > MOST_POINTS_IN_WORDS
    against = f"{figure_name(figure_key)} of the {_lower(LATENCY_NAMES[metric])}"
    said = (_curve_in_words(curve, metric, figure_key, brief=brief) for curve in figures.curves)
    return f"Output tokens/s of the whole system against the {against}. {' '.join(said)}"


def _curve_in_words(curve: Curve, metric: str, figure_key: str, *, brief: bool) -> str:
    points = [point for point in curve.points if math.isfinite(point.throughput_token_per_s)]
    if not points:
        return f"{curve.name}: no throughput is known."
    if brief:
        points = [max(points, key=lambda point: point.throughput_token_per_s)]
    said = "; ".join(
        f"{point.words}: {number(point.throughput_token_per_s)} tokens/s at "
        f"{number(point.latency_s[metric][figure_key], 2 if metric != 'tpot' else 4)} s"
        for point in points
    )
    return f"{curve.name}{', most' if brief else ''}: {said}."


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _curve_notes(figures: Figures) -> list[str]:
    points = [point for curve in figures.curves for point in curve.points]
    notes = [points_note(figures.loads)]
    if any(load.is_open for load in figures.loads):
        notes.append(
            "Latencies from the intended start count from the schedule of an open loop, with every wait in the client."
        )
    if figures.limits:
        lines = ", ".join(each.text for each in figures.limits)
        notes.append(f"Lines are the objectives ({lines}), each where its latency and figure are chosen.")
    if any(point.mark for point in points):
        notes.append("limit: the highest load that the search found; fails: the lowest tried load that does not meet.")
    if any(point.hollow for point in points):
        notes.append(
            "Hollow points: the client was not well, many requests failed, the stage was unsteady (its queue grew), or "
            "less load ran than was asked for."
        )
    if any(point.unfit for point in points):
        notes.append(UNFIT_NOTE)
    if any(point.estimated for point in points):
        notes.append("* All output tokens by the time from the first start to the last end: no stages file was there.")
    return notes


def _wide(figures: Figures) -> bool:
    """Whether the first distribution spans so much that a linear axis would hide most of it."""
    borders = [border for border in figures.distributions[0].log.borders if border]
    return bool(borders) and borders[-1] / borders[0] > 20
