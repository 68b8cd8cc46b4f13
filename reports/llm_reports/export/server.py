"""``server.csv``, ``server.json`` and ``server.parquet``: the servers' own metrics of every stage, one line per metric.

The lines have the columns of PREFIX_llm_server.csv. The times that the client measured too have its count, its mean,
and the difference of the means. With several servers, these are in lines of their own, whose server is ``all``.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence

from pandas import DataFrame

from llm_reports.content import Content
from llm_reports.metrics.groups import Group
from llm_reports.server_metrics.stages import ServerStage, TimeComparison, server_stages
from llm_users.record import COL, SERVER_METRIC_COLUMNS, cell
from llm_users.server_metric import HISTOGRAM

CSV_NAME = "server.csv"
JSON_NAME = "server.json"
ALL_SERVERS = "all"
_OF_CLIENT = ("client_count", "client_mean", "difference")
_OF_RECORD = tuple(column.name for column in SERVER_METRIC_COLUMNS if column.name not in (COL.run_id, COL.stage))
COLUMNS = ("run", COL.stage, COL.concurrency, COL.rate_per_s, *_OF_RECORD, *_OF_CLIENT)


def files(content: Content) -> dict[str, str]:
    """Return the file in CSV format: name and text; empty without metrics of a server."""
    lines = list(server_lines(content.server_stages))
    if not lines:
        return {}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([cell(value) for value in line] for line in lines)
    return {CSV_NAME: text.getvalue()}


def json_files(content: Content) -> dict[str, str]:
    """Return the lines as a JSON file: a list of objects without their empty values; empty without metrics."""
    lines = [dict(zip(COLUMNS, line, strict=True)) for line in server_lines(content.server_stages)]
    known = [{name: value for name, value in line.items() if value is not None} for line in lines]
    return {JSON_NAME: json.dumps(known, indent=1) + "\n"} if known else {}


def server_metrics_frame(groups: Sequence[Group]) -> DataFrame:
    """Return the content of ``server.csv`` as a DataFrame, unrounded: nullable integers, figures as floats."""
    frame = DataFrame(list(server_lines(server_stages(groups))), columns=list(COLUMNS))
    words = {column.name for column in SERVER_METRIC_COLUMNS if column.type is str}
    whole = dict.fromkeys((COL.stage, COL.concurrency, "scrapes"), "Int64")
    real = {name: "float64" for name in COLUMNS if name not in {"run", *words, *whole}}
    return frame.astype({**whole, **real})


def server_lines(stages: Sequence[ServerStage]) -> Iterator[list[object]]:
    """Yield the lines in the order of ``COLUMNS``; ``None`` where there is no value."""
    for stage in stages:
        compared = {comparison.metric: comparison for comparison in stage.comparisons}
        single = len(stage.by_server) == 1
        for metrics in stage.by_server.values():
            for name, record in metrics.items():
                own = [getattr(record, column) for column in _OF_RECORD]
                yield [*_stage_values(stage), *own, *_client_values(compared.get(name) if single else None)]
        for name, comparison in () if single else compared.items():
            yield [*_stage_values(stage), *_combined(name, comparison), *_client_values(comparison)]


def _stage_values(stage: ServerStage) -> list[object]:
    return [stage.run.name, stage.stage, stage.load.users, stage.load.rate_per_s]


def _client_values(comparison: TimeComparison | None) -> list[object]:
    if comparison is None:
        return [None] * len(_OF_CLIENT)
    difference = comparison.difference_s
    return [comparison.client.n, comparison.client.mean, None if math.isnan(difference) else difference]


def _combined(name: str, comparison: TimeComparison) -> list[object]:
    """Return the values of a record for all servers together."""
    times = comparison.server
    values: dict[str, object] = {"server": ALL_SERVERS, "metric": name, "kind": HISTOGRAM}
    values |= {"mean": times.mean, "increase": times.n}
    for quantile, bounds in times.bounds.items():
        values[f"{quantile}_low"] = bounds.low
        values[f"{quantile}_high"] = None if math.isinf(bounds.high) else bounds.high
    return [values.get(column) for column in _OF_RECORD]
