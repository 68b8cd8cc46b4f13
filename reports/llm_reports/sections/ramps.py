"""The stages whose rate changes: requests and latencies against the rate, in slices of equal time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from llm_reports.metrics.distinctions import labels
from llm_reports.metrics.groups import CORRECTED_LATENCY, CORRECTED_TTFT, Group
from llm_reports.metrics.outcomes import failed, succeeded
from llm_reports.metrics.summary import ordered
from llm_reports.sections.numbers import number
from llm_reports.sections.section import Grid, Section
from llm_reports.sections.stage_tables import bar
from llm_users.quantile import quantile
from llm_users.record import COL

_MOST_SLICES = 10
_REQUESTS_PER_SLICE = 10
"""A slice has at least this many requests on average, so that its median means something."""


def ramp_section(groups: Sequence[Group]) -> Section | None:
    """Return one line per slice of every stage whose rate changes; ``None`` without such a stage."""
    ramped = [group for group in groups if group.load.ramp is not None]
    header = [
        "", "Rate (requests/s)", "Requests", "Failed", "TTFT median (s)", "", "TTFT P95 (s)", "E2E median (s)",
        "E2E P95 (s)",
    ]  # fmt: skip
    names = [label or group.load.words for group, label in zip(ramped, labels(ramped), strict=True)]
    rows = [row for group, name in zip(ramped, names, strict=True) for row in _rows(group, name)]
    if not rows:
        return None
    notes = [
        "Each line is a part of the stage with the same length. A request belongs to the part in which the schedule "
        "intends to start it; its times count from there."
    ]
    return Section("Rate within the stage", [Grid(header, rows, {0, 1, 5}), notes])


def _rows(group: Group, name: str) -> list[list[str]]:
    ramp, rows = group.load.ramp, group.measured
    length_s = group.stage_figure(COL.measure_s)
    started_at, queue_s = (
        rows[column].to_numpy(dtype=np.float64, na_value=np.nan) for column in (COL.started_at, COL.queue_s)
    )
    intended = started_at - np.nan_to_num(queue_s)
    count = min(_MOST_SLICES, len(rows) // _REQUESTS_PER_SLICE)
    begin = group.stage_figure(COL.measure_started_at)
    if ramp is None or not count or not length_s > 0 or math.isnan(begin):
        return []
    slices = np.clip(np.floor((intended - begin) / length_s * count), 0, count - 1)
    lines: list[tuple[int, list[str], list[float]]] = []
    for index in range(count):
        own = rows[slices == index]
        ok = own[succeeded(own[COL.error_code]).to_numpy(bool)]
        times = [ordered(group.values(metric, ok)) for metric in (CORRECTED_TTFT, CORRECTED_LATENCY)]
        figures = [quantile(values, q) for values in times for q in (0.5, 0.95)]
        rates = f"{number(ramp.at(index / count))} to {number(ramp.at((index + 1) / count))}"
        lines.append((len(own), [rates, str(int(failed(own[COL.error_code]).sum()))], figures))
    most = max((figures[0] for _, _, figures in lines if math.isfinite(figures[0])), default=0.0)
    return [
        [
            name, rates, str(requests), failures, number(figures[0]), bar(figures[0] / most if most else 0.0),
            *map(number, figures[1:]),
        ]
        for requests, (rates, failures), figures in lines
    ]  # fmt: skip
