"""All figures of a report as data, for the page, the image files and the captions."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_reports.charts.curve import (
    CORRECTED,
    FIGURE_NAMES,
    LATENCY_NAMES,
    Curve,
    Limit,
    Point,
    curves,
    drawn_as,
    figure_name,
    limits,
)
from llm_reports.charts.distributions import Distribution, distributions
from llm_reports.charts.timeline import Scatter, Timeline, input_scatters, output_scatters, timelines
from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.goodput import StagePoint
from llm_reports.metrics.groups import Group
from llm_reports.metrics.latency_model import LatencyModel, latency_models
from llm_reports.metrics.stage_load import axis_name
from llm_reports.run import Run
from llm_reports.slo.objectives import Objectives
from llm_users.record import StageLoad


@dataclass(frozen=True)
class Figures:
    """The figures of a report; lists with one item per group are in the order of ``labels``."""

    labels: list[str]
    curves: list[Curve]
    distributions: list[Distribution]
    timelines: list[Timeline]
    inputs: list[Scatter]
    outputs: list[Scatter]
    models: list[LatencyModel]
    limits: list[Limit]

    @property
    def points(self) -> list[Point]:
        """The points of all curves."""
        return [point for curve in self.curves for point in curve.points]

    @property
    def loads(self) -> list[StageLoad]:
        """The loads of all points of the curves."""
        return [point.load for point in self.points]

    @property
    def figure_names(self) -> dict[str, str]:
        """The names of the figures of a latency that the curve can show; those of the objectives are included."""
        return FIGURE_NAMES | {limit.figure: figure_name(limit.figure) for limit in self.limits}

    @property
    def latencies(self) -> dict[str, str]:
        """The names of the curve's latencies by key; with an open loop, its corrected latency is first."""
        is_open = any(load.is_open for load in self.loads)
        keys = [key for key in LATENCY_NAMES if is_open or key not in CORRECTED]
        first = drawn_as("e2e", is_open=is_open)
        return {key: LATENCY_NAMES[key] for key in sorted(keys, key=lambda key: key != first)}


def figures(
    runs: Sequence[Run], groups: Sequence[Group], stages: Sequence[StagePoint], objectives: Objectives | None = None
) -> Figures:
    """Return the figures of runs, their groups and the rates of the groups; objectives become lines on the curve."""
    names = [label or "all requests" for label in labels(groups)]
    lines = limits(objectives)
    return Figures(
        labels=names,
        curves=curves(groups, names, stages, lines),
        distributions=distributions(groups),
        timelines=timelines(runs),
        inputs=input_scatters(groups),
        outputs=output_scatters(groups),
        models=latency_models(groups),
        limits=lines,
    )


def as_json(figures: Figures) -> str:
    """Return the figures as JSON that is safe inside a ``<script>`` element, regardless of the texts in it."""
    payload = dataclasses.asdict(figures)
    payload["latency_names"] = LATENCY_NAMES
    payload["load_axis"] = axis_name(figures.loads)
    for curve, source in zip(payload["curves"], figures.curves, strict=True):
        for point, source_point in zip(curve["points"], source.points, strict=True):
            point |= {name: getattr(source_point, name) for name in ("name", "words", "hollow")}
            point["load"] = source_point.load.level
    text = json.dumps(_finite(payload), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":  # so that the text cannot contain </script> or <!--
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
