"""Metrics of a server as a run writes them, made from known times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from llm_users.record import SERVER_METRIC_COLUMNS, ServerMetricRecord
from tests.unit.reports.rows_on_disk import write_csv

URL = "http://127.0.0.1:8000/metrics"
BUCKETS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0)
"""The buckets of vLLM's time to first token."""


def metric(name: str, kind: str, **values: Any) -> ServerMetricRecord:
    defaults: dict[str, Any] = {"run_id": "run-1", "stage": 1, "server": URL, "engine": "vllm", "scrapes": 2}
    return ServerMetricRecord(metric=name, kind=kind, **{**defaults, **values})


def histogram(name: str, values_s: Sequence[float], **more: Any) -> ServerMetricRecord:
    """The record of a histogram with these observations."""
    ordered = sorted(values_s)
    bounds: dict[str, Any] = {}
    for quantile, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        value = ordered[math.ceil(share * len(ordered)) - 1]
        bounds[f"{quantile}_low"] = max((bound for bound in BUCKETS_S if bound < value), default=0.0)
        bounds[f"{quantile}_high"] = min((bound for bound in BUCKETS_S if bound >= value), default=None)
    mean = math.fsum(ordered) / len(ordered)
    return metric(name, "histogram", mean=mean, increase=float(len(ordered)), **bounds, **more)


def write_server(path: Path, records: Iterable[ServerMetricRecord], *, without: Sequence[str] = ()) -> Path:
    names = [column.name for column in SERVER_METRIC_COLUMNS if column.name not in without]
    return write_csv(path, names, [[getattr(record, name) for name in names] for record in records])
