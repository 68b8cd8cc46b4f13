"""All figures of a report as data: what the page draws, what the image files draw, and the same in words."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_reports.charts.curve import CORRECTED, LATENCY_NAMES, Curve, Limit, curves, drawn_as, limits
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
    """The figures; lists named after groups are in the order of ``labels``."""

    labels: list[str]
    curves: list[Curve]
    distributions: list[Distribution]
    timelines: list[Timeline]
    inputs: list[Scatter]
    outputs: list[Scatter]
    models: list[LatencyModel]
    limits: list[Limit]

    @property
    def loads(self) -> list[StageLoad]:
        """Those of all points of the curves."""
        return [point.load for curve in self.curves for point in curve.points]

    @property
    def latencies(self) -> dict[str, str]:
        """The latencies of the curve by key, each with its name; what stands for an open loop's latency first."""
        is_open = any(load.is_open for load in self.loads)
        keys = [key for key in LATENCY_NAMES if is_open or key not in CORRECTED]
        first = drawn_as("e2e", is_open=is_open)
        return {key: LATENCY_NAMES[key] for key in sorted(keys, key=lambda key: key != first)}


def figures(
    runs: Sequence[Run],
    groups: Sequence[Group],
    stages: Sequence[StagePoint],
    objectives: Objectives | None = None,
) -> Figures:
    """The figures of some runs, their groups and the rates of these; objectives become lines on the curve."""
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


def as_json(made: Figures) -> str:
    """The figures as JSON that may stand inside a ``<script>`` element of a page, whatever the texts in it say."""
    payload = dataclasses.asdict(made)
    payload["latency_names"] = LATENCY_NAMES
    payload["load_axis"] = axis_name(made.loads)
    for curve, source in zip(payload["curves"], made.curves, strict=True):
        for point, its_source in zip(curve["points"], source.points, strict=True):
            point |= {
                "name": its_source.name,
                "load": its_source.load.level,
                "words": its_source.words,
                "hollow": its_source.hollow,
            }
    text = json.dumps(_finite(payload), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<>&\u2028\u2029":  # so neither </script> nor <!-- can be in it
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return value
