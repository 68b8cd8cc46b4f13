"""``openmetrics.txt``: the lines of ``summary.csv`` in the OpenMetrics text format, for scrapers and push gateways."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from llm_reports.content import Content
from llm_reports.export.summary import Line, summary_lines
from llm_reports.metrics.groups import OPEN_LOOP_METRICS, REQUEST_METRICS
from llm_reports.metrics.summary import PERCENTILES
from llm_users.record import COL

FILE_NAME = "openmetrics.txt"
INTERVAL = "llm_interval"
_UNIT_WORDS = {"_s": "_seconds", "_per_s": "_per_second"}
_DISTRIBUTIONS = {metric.name for metric in (*REQUEST_METRICS, *OPEN_LOOP_METRICS)} | {"chunk_gap_s"}


def files(content: Content) -> dict[str, str]:
    """Return the files of this format: name and text."""
    lines = [line for line in summary_lines(content.groups) if line.figures.n]
    families: dict[str, list[Line]] = {}
    for line in lines:
        families.setdefault(line.metric, []).append(line)
    text = [row for metric, metric_lines in families.items() for row in _family(metric, metric_lines)]
    return {FILE_NAME: "\n".join([*text, *_intervals(lines), "# EOF"]) + "\n"}


def metric_name(metric: str) -> str:
    """Return the OpenMetrics name of a metric: ``ttft_s`` becomes ``llm_ttft_seconds``."""
    for suffix, word in sorted(_UNIT_WORDS.items(), key=lambda item: -len(item[0])):
        if metric.endswith(suffix):
            return f"llm_{metric.removesuffix(suffix)}{word}"
    return f"llm_{metric}"


def _family(metric: str, lines: Sequence[Line]) -> Iterator[str]:
    name, distribution = metric_name(metric), metric in _DISTRIBUTIONS
    yield f"# TYPE {name} {'summary' if distribution else 'gauge'}"
    if name.endswith("_seconds"):
        yield f"# UNIT {name} seconds"
    yield f"# HELP {name} {metric} in {lines[0].unit or 'no unit'}."
    for line in lines:
        labels, figures = _labels(line), line.figures
        if not distribution:
            yield f"{name}{_shown(labels)} {_number(figures.mean)}"
            continue
        for figure, q in PERCENTILES.items():
            value = getattr(figures, figure)
            if math.isfinite(value):
                yield f"{name}{_shown({**labels, 'quantile': f'{q:g}'})} {_number(value)}"
        yield f"{name}_count{_shown(labels)} {figures.n}"
        yield f"{name}_sum{_shown(labels)} {_number(figures.mean * figures.n)}"


def _intervals(lines: Sequence[Line]) -> Iterator[str]:
    yield f"# TYPE {INTERVAL} gauge"
    yield f"# HELP {INTERVAL} Ends of the 95 % interval of a figure, in the metric's unit."
    for line in lines:
        for figure, interval in line.figures.intervals.items():
            for end, value in (("low", interval.low), ("high", interval.high)):
                if math.isfinite(value):
                    labels = {**_labels(line), "metric": metric_name(line.metric), "figure": figure, "end": end}
                    yield f"{INTERVAL}{_shown(labels)} {_number(value)}"


def _labels(line: Line) -> dict[str, str]:
    stage = "" if line.stage is None else str(line.stage)
    users = "" if line.load.users is None else str(line.load.users)
    rate = "" if line.load.rate_per_s is None else f"{line.load.rate_per_s:g}"
    labels = {"run": line.run, COL.framework: line.framework, COL.model: line.model, COL.stage: stage}
    labels |= {COL.concurrency: users, COL.rate_per_s: rate}
    return {name: value for name, value in labels.items() if value}


def _shown(labels: Mapping[str, str]) -> str:
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "\r": " ", "\n": "\\n"})
    pairs = ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels.items())
    return f"{{{pairs}}}" if pairs else ""


def _number(value: float) -> str:
    return format(value, ".9g")
