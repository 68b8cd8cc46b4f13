"""The words and tables next to the charts of a page: captions that describe a chart, and the figures that it shows."""

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
from llm_reports.metrics.stage_load import SPOKEN, axis_name, load_columns, points_note
from llm_reports.sections.numbers import with_decimals
from llm_reports.sections.section import Grid
from llm_reports.stats.intervals import Interval

MOST_POINTS_IN_WORDS = 12
"""With more points, a caption only states the highest throughput of each curve."""
_NO_LINE = "No slope differs significantly from 0; the table states why"


class ChartWords:
    """The words of all charts of one page. The templates read them, so that a page computes only what it shows."""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures
        self.load_axis = _lower(axis_name(figures.loads))
        # With objectives, the curve initially shows the latency and figure of the first one.
        first = figures.limits[0] if figures.limits else None
        self.first_metric = first.metric if first else ""
        self.first_figure = first.figure if first else ""
        self.figure_names = FIGURE_NAMES | {limit.figure: figure_name(limit.figure) for limit in figures.limits}

    @property
    def curves(self) -> str:
        """The caption of the curve when the page opens; report.js updates it for later selections."""
        metric = self.first_metric or next(iter(self.figures.latencies))
        figure_key = self.first_figure or "p50"
        brief = sum(len(curve.points) for curve in self.figures.curves) > MOST_POINTS_IN_WORDS
        against = f"{figure_name(figure_key)} of the {_lower(LATENCY_NAMES[metric])}"
        sentences = (_curve_in_words(curve, metric, figure_key, brief=brief) for curve in self.figures.curves)
        return f"Output tokens/s of the whole system against the {against}. {' '.join(sentences)}"

    @property
    def curve_notes(self) -> list[str]:
        """The explanations of what the curve shows."""
        loads, limits = self.figures.loads, self.figures.limits
        points = [point for curve in self.figures.curves for point in curve.points]
        lines = ", ".join(limit.text for limit in limits)
        notes = (
            (True, points_note(loads)),
            (
                any(load.is_open for load in loads),
                "Latencies from the intended start count from the scheduled time in an open loop and include all "
                "waiting in the client.",
            ),
            (
                bool(limits),
                f"Lines are the objectives ({lines}), shown when their latency and figure are selected.",
            ),
            (
                any(point.mark for point in points),
                "limit: the highest load that the search found; fails: the lowest tried load that fails the "
                "objectives.",
            ),
            (
                any(point.hollow for point in points),
                "Hollow points: the client was not healthy, many requests failed, the stage was unsteady (its queue "
                "grew), or the load was below the requested load.",
            ),
            (any(point.unfit for point in points), UNFIT_NOTE),
            (
                any(point.estimated for point in points),
                "* All output tokens divided by the time from the first start to the last end, because the stages "
                "file is missing.",
            ),
        )
        return [text for applies, text in notes if applies]

    @property
    def speed_table(self) -> Grid:
        """The system throughput and the speed for one user side by side."""
        several = len(self.figures.curves) > 1
        loads = load_columns(self.figures.loads, SPOKEN)
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
                with_decimals(point.throughput_token_per_s, 1) + (" *" if point.estimated else ""),
                with_decimals(point.total_token_per_s, 1),
                with_decimals(point.requests_per_s, 2),
                with_decimals(point.per_user_token_per_s, 1),
                with_decimals(point.words_per_minute),
                with_decimals(point.seen("e2e", "p50"), 3),
                with_decimals(point.seen("ttft", "p50"), 3),
                with_decimals(point.latency_s["tpot"]["p50"] * 1000, 2),
            ]
            for curve in self.figures.curves
            for point in curve.points
        ]
        return Grid(header, rows)

    @property
    def speed_note(self) -> str:
        """The explanation of the speed for one user."""
        is_open = any(load.is_open for load in self.figures.loads)
        return (
            "The speed per user is 1 / median TPOT, the rate at which an answer streams. Words are counted as "
            f"{WORDS_PER_TOKEN} per token, the usual factor for English; other languages and code differ."
            f"{f' {SEEN_NOTE}' if is_open else ''}"
        )

    @property
    def distribution_names(self) -> dict[str, str]:
        """The names of the latencies that have a distribution."""
        return {distribution.key: distribution.name for distribution in self.figures.distributions}

    @property
    def distribution(self) -> str:
        """The caption of the first distribution."""
        points = {point.label: point for curve in self.figures.curves for point in curve.points}
        first = self.figures.distributions[0]
        words = self._many or "; ".join(
            f"{label}: median {with_decimals(points[label].latency_s[first.key]['p50'], 3)} s, "
            f"99th percentile {with_decimals(points[label].latency_s[first.key]['p99'], 3)} s"
            for label in self.figures.labels
            if label in points
        )
        return f"{first.name}: {words}."

    @property
    def distribution_is_wide(self) -> bool:
        """Whether the first distribution spans more than a linear axis can show well."""
        borders = [border for border in self.figures.distributions[0].log.borders if border]
        return bool(borders) and borders[-1] / borders[0] > 20

    @property
    def timeline(self) -> str:
        """The caption of the requests over time: the outcomes of every run."""
        parts = []
        for timeline in self.figures.timelines:
            counted = ", ".join(f"{outcome.count:,} {outcome.name}" for outcome in timeline.outcomes)
            name = f"{timeline.run}: " if len(self.figures.timelines) > 1 else ""
            dropped = f" {timeline.dropped:,} more were dropped and did not start." if timeline.dropped else ""
            shown = drawn(timeline.shown, timeline.total)
            parts.append(f"{name}{timeline.total:,} requests: {counted}.{dropped} {shown}".strip())
        return " ".join(parts)

    @property
    def timeline_units(self) -> str:
        """The units of the loads of the stages in the timelines."""
        return " or ".join(dict.fromkeys(timeline.load_unit for timeline in self.figures.timelines))

    @property
    def timeline_runs(self) -> dict[str, str]:
        """The runs that have a timeline, by the value of their selection."""
        return {str(index): timeline.run for index, timeline in enumerate(self.figures.timelines)}

    @property
    def timeline_latencies(self) -> dict[str, str]:
        """The latencies that the timeline can show."""
        return {key: LATENCY_NAMES[key] for key in ("e2e", "ttft")}

    @property
    def model(self) -> str:
        """The caption of the latency model, which splits latency into prefill and decode."""
        words = self._many or "; ".join(
            f"{label}: {with_decimals(model.ttft_s, 3)} s + {with_decimals(model.tpot_s * 1000, 2)} ms per token "
            f"({_interval(model.tpot_interval, 1000)} ms)"
            for label, model in zip(self.figures.labels, self.figures.models, strict=True)
            if not model.problem
        )
        return f"Latency against output tokens. {words or _NO_LINE}."

    @property
    def model_table(self) -> Grid:
        """The fitted lines of the latency model with their residuals."""
        remark = ("Remark",) if any(model.problem for model in self.figures.models) else ()
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
                str(model.n),
                with_decimals(model.ttft_s, 3),
                with_decimals(model.tpot_s * 1000, 2),
                _interval(model.tpot_interval, 1000),
                with_decimals(model.residual_p50_s * 1000, 1),
                with_decimals(model.residual_p95_s * 1000, 1),
                with_decimals(model.explained * 100),
                *((model.problem or "-",) if remark else ()),
            ]
            for label, model in zip(self.figures.labels, self.figures.models, strict=True)
        ]
        return Grid(header, rows)

    @property
    def outputs_drawn(self) -> str:
        """The remark on omitted points of the latency model."""
        return _drawn(self.figures.outputs)

    @property
    def input(self) -> str:
        """The caption of time to first token against the length of the prompt."""
        words = self._many or "; ".join(
            f"{label}: {with_decimals(scatter.line.slope * 1e6, 1)} ms per 1,000 input tokens "
            f"({_interval(scatter.line.slope_interval, 1e6, 1)} ms)"
            for label, scatter in zip(self.figures.labels, self.figures.inputs, strict=True)
            if not scatter.line.problem
        )
        return f"Time to first token against input tokens. {words or _NO_LINE}."

    @property
    def input_table(self) -> Grid:
        """The fitted lines of time to first token against the length of the prompt."""
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
                str(scatter.total),
                with_decimals(scatter.line.constant, 3),
                with_decimals(scatter.line.slope * 1e6, 1),
                _interval(scatter.line.slope_interval, 1e6, 1),
                scatter.line.problem or "-",
            ]
            for label, scatter in zip(self.figures.labels, self.figures.inputs, strict=True)
        ]
        return Grid(header, rows)

    @property
    def inputs_drawn(self) -> str:
        """The remark on omitted points of time to first token against the length of the prompt."""
        return _drawn(self.figures.inputs)

    @property
    def _many(self) -> str:
        """The caption text that replaces the list of stages when there are too many; otherwise ""."""
        if len(self.figures.labels) <= MOST_POINTS_IN_WORDS:
            return ""
        several = len(self.figures.curves) > 1
        hidden = "; initially, the chart shows the highest load of each run" if several else ""
        return f"{len(self.figures.labels)} stages; the tables contain their figures{hidden}"


def _interval(interval: Interval, scale: float, decimals: int = 2) -> str:
    """Return both ends of the interval of a slope; a dash when it is unknown."""
    if not interval.known:
        return "-"
    return f"{with_decimals(interval.low * scale, decimals)} to {with_decimals(interval.high * scale, decimals)}"


def _drawn(scatters: Sequence[Scatter]) -> str:
    return drawn(sum(len(scatter.x) for scatter in scatters), sum(scatter.total for scatter in scatters))


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


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]
