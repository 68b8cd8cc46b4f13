"""The metrics of the servers themselves as sections: load, tokens and GPUs by stage, and times beside the client's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from llm_reports.sections.numbers import number, with_decimals
from llm_reports.sections.section import Grid, Section, plain
from llm_reports.server_metrics.stages import QUANTILES, ServerStage, TimeComparison, share_of
from llm_users.record import ServerMetricRecord
from llm_users.server_metric import E2E, ITL, TPOT, TTFT

TITLE = "The server's own metrics"
COMPARISON_TITLE = "Client beside server"
_Metrics = Mapping[str, ServerMetricRecord]
_Column = tuple[str, Callable[[_Metrics], str]]
_NAMES = {TTFT: "TTFT", TPOT: "TPOT", ITL: "ITL", E2E: "E2E"}
_PER_TOKEN = (TPOT, ITL)
_LONGEST_SERVER = 24
_ACCEPTED = "Accepted %"
_NOTHING = "-"
_CLOCKS_S = 0.001
"""A negative difference up to this size can come from the resolution of the clocks and the order of their stamps."""


def server_sections(stages: Sequence[ServerStage]) -> list[Section]:
    """Return the sections on the servers' own metrics; empty without such metrics."""
    if not stages:
        return []
    names = _stage_names(stages)
    sections = [_own_metrics(stages, names)]
    if any(stage.comparisons for stage in stages):
        sections.append(_client_beside_server(stages, names))
    elif notes := list(_token_notes(stages, names)):
        sections.append(Section(COMPARISON_TITLE, [notes]))
    return sections


def _own_metrics(stages: Sequence[ServerStage], names: Sequence[str]) -> Section:
    several = len({server for stage in stages for server in stage.by_server}) > 1
    lines = [
        ([name, *([_server_name(server)] if several else [])], metrics)
        for name, stage in zip(names, stages, strict=True)
        for server, metrics in stage.by_server.items()
    ]
    first = [_load_header(stages), *(["Server"] if several else [])]
    grids = [grid for columns in _TABLES if (grid := _grid(first, columns, lines)) is not None]
    header = {name for grid in grids for name in grid.header}
    notes = [
        "The servers count all requests that they receive in a stage, with those of the warm-up. Means of requests, "
        "KV cache and GPUs are means of one sample per second; tokens/s are means over the whole stage."
    ]
    if _ACCEPTED in header:
        notes.append("Accepted: the share of the tokens proposed by speculative decoding that the model accepted.")
    return Section(TITLE, [*grids, notes])


def _grid(first: Sequence[str], columns: Sequence[_Column], lines: Sequence[tuple[list[str], _Metrics]]) -> Grid | None:
    """Return a table with the columns that have values; ``None`` without such columns."""
    cells = [[text(metrics) for _, text in columns] for _, metrics in lines]
    shown = [index for index in range(len(columns)) if any(row[index] != _NOTHING for row in cells)]
    if not shown:
        return None
    rows = [
        [*name, *(row[index] for index in shown)]
        for (name, _), row in zip(lines, cells, strict=True)
        if any(row[index] != _NOTHING for index in shown)
    ]
    return Grid([*first, *(columns[index][0] for index in shown)], rows, set(range(len(first))))


def _figure(metric: str, attribute: str, text: Callable[[float], str] = number) -> Callable[[_Metrics], str]:
    def cell(metrics: _Metrics) -> str:
        value = getattr(metrics[metric], attribute) if metric in metrics else None
        return _NOTHING if value is None else text(value)

    return cell


def _percent(value: float) -> str:
    return with_decimals(100 * value, 1)


def _whole(value: float) -> str:
    return with_decimals(value)


def _gigabytes(value: float) -> str:
    return number(value / 1e9)


_TABLES: tuple[tuple[_Column, ...], ...] = (
    (
        ("Running", _figure("requests_running", "mean")),
        ("max", _figure("requests_running", "maximum", _whole)),
        ("Waiting", _figure("requests_waiting", "mean")),
        ("max", _figure("requests_waiting", "maximum", _whole)),
        ("KV cache %", _figure("kv_cache_usage", "mean", _percent)),
        ("max", _figure("kv_cache_usage", "maximum", _percent)),
        ("Preemptions", _figure("preemptions", "increase", _whole)),
    ),
    (
        ("Prompt tokens/s", _figure("prompt_tokens", "per_s")),
        ("Output tokens/s", _figure("generation_tokens", "per_s")),
        ("Prefix hits %", lambda metrics: _percent(share_of(metrics, "prefix_cache_hit_rate"))),
        (_ACCEPTED, lambda metrics: _percent(share_of(metrics, "speculative_acceptance"))),
    ),
    (
        ("Queue, mean (s)", _figure("queue_time_s", "mean")),
        ("Prefill, mean (s)", _figure("prefill_time_s", "mean")),
        ("Decode, mean (s)", _figure("decode_time_s", "mean")),
    ),
    (
        ("GPU %", _figure("gpu_utilization", "mean", _percent)),
        ("max", _figure("gpu_utilization", "maximum", _percent)),
        ("Memory (GB)", _figure("gpu_memory_bytes", "mean", _gigabytes)),
        ("max", _figure("gpu_memory_bytes", "maximum", _gigabytes)),
        ("Power (W)", _figure("gpu_power_w", "mean")),
        ("max", _figure("gpu_power_w", "maximum")),
    ),
)


def _client_beside_server(stages: Sequence[ServerStage], names: Sequence[str]) -> Section:
    pairs = [(name, compared) for name, stage in zip(names, stages, strict=True) for compared in stage.comparisons]
    load = _load_header(stages)
    means = Grid(
        [load, "Time", "Count", "Client (ms)", "Server (ms)", "Difference (ms)"],
        [
            [
                name, _NAMES[compared.metric], _whole(compared.client.n), _mean(compared, compared.client.mean),
                _mean(compared, compared.server.mean), _difference(compared),
            ]
            for name, compared in pairs
        ],
        {0, 1},
    )  # fmt: skip
    quantiles = Grid(
        [load, "Time", *(name.upper() for name in QUANTILES)],
        [
            [name, _unit_name(compared.metric), *(_beside(compared, quantile) for quantile in QUANTILES)]
            for name, compared in pairs
            if compared.server.bounds and compared.client.quantiles
        ],
        {0, 1},
    )
    notes = [
        "Means of all requests that the server counts, with those of the warm-up and outside the measured window, so "
        "they differ from those of other tables. TTFT includes answers that were cut off after their first token. The "
        "difference is the time before the server's clock starts: network and queueing.",
        "The server's clock starts when it has read the request, and both sides stamp with a delay of their own: a "
        "difference below 0.1 ms has no meaning.",
    ]
    parts: list[str | Grid | list[str]] = [means]
    if quantiles.rows:
        parts.append(quantiles)
        notes.append(
            "Percentiles: the client's value, and in brackets the bounds of the server's bucket. Here a percentile is "
            "the smallest value that at least this share of the requests does not exceed."
        )
    return Section(COMPARISON_TITLE, [*parts, [*notes, *_doubts(stages, names), *_token_notes(stages, names)]])


def _doubts(stages: Sequence[ServerStage], names: Sequence[str]) -> Iterator[str]:
    """Yield a note for each reason to doubt a difference."""
    for name, stage in zip(names, stages, strict=True):
        where = _where(stage, name)
        if stage.overlaps:
            yield (
                f"{where}: the number of users changed while requests were in flight, so the server's figures include "
                "some requests of the stage before or after. Its times are not comparable with the client's."
            )
            continue
        if stage.used_by_others:
            yield (
                f"{where}: the server counted {stage.seen:,} requests, but the client sent only {stage.sent:,}. Others "
                "used the server, so its times are not comparable with the client's."
            )
            continue
        for compared in stage.comparisons:
            time, counts = _NAMES[compared.metric], (compared.server.n, compared.client.n)
            if counts[0] != counts[1]:
                consequence = (
                    "The difference is approximate." if compared.same_requests else "The means are not comparable."
                )
                yield (
                    f"{where}: {time} has {counts[0]:,.0f} values on the server and {counts[1]:,.0f} on the client. "
                    f"{consequence}"
                )
            if compared.difference_s < -_CLOCKS_S:
                yield (
                    f"{where}: the server's {time} is longer than the client's by "
                    f"{-1000 * compared.difference_s:.1f} ms: the server counts time that no client can see, or its "
                    "clock is wrong."
                )
            if compared.outside:
                listed = ", ".join(quantile.upper() for quantile in compared.outside)
                yield (
                    f"{where}: {listed} of the client's {time} is outside the server's bounds by more than the mean "
                    "difference: some requests waited much longer before the server than the mean."
                )


def _token_notes(stages: Sequence[ServerStage], names: Sequence[str]) -> Iterator[str]:
    for name, stage in zip(names, stages, strict=True):
        for counts in () if stage.used_by_others or stage.overlaps else stage.token_counts:
            if counts.differ:
                yield (
                    f"{_where(stage, name)}: the server counted {counts.server:,.0f} {counts.kind} tokens, the client "
                    f"{counts.low:,.0f} ({100 * (counts.server / counts.low - 1):+.1f} %)."
                )


def _where(stage: ServerStage, name: str) -> str:
    return f"{_load_header([stage])} {plain(name).replace('<', '&lt;')}"


def _mean(compared: TimeComparison, value_s: float) -> str:
    return with_decimals(1000 * value_s, 2 if compared.metric in _PER_TOKEN else 1)


def _difference(compared: TimeComparison) -> str:
    if math.isnan(compared.difference_s):
        return _NOTHING
    return f"{1000 * compared.difference_s:+z.{2 if compared.metric in _PER_TOKEN else 1}f}"


def _unit_name(metric: str) -> str:
    return f"{_NAMES[metric]} ({'ms' if metric in _PER_TOKEN else 's'})"


def _beside(compared: TimeComparison, quantile: str) -> str:
    """Return a quantile of the client and the server's bounds: ``0.31 (0.25-0.5)``."""
    scale = 1000 if compared.metric in _PER_TOKEN else 1
    own, bounds = compared.client.quantiles.get(quantile, math.nan), compared.server.bounds.get(quantile)
    if bounds is None:
        return number(own * scale)
    low, high = f"{bounds.low * scale:g}", f"{bounds.high * scale:g}"
    return f"{number(own * scale)} ({f'above {low}' if math.isinf(bounds.high) else f'{low}-{high}'})"


def _load_header(stages: Sequence[ServerStage]) -> str:
    kinds = {stage.load.is_open for stage in stages if stage.load.is_known}
    return "Load" if len(kinds) != 1 else "Rate" if kinds == {True} else "Users"


def _stage_names(stages: Sequence[ServerStage]) -> list[str]:
    """Return the load of each stage, with its run if there are several, and with its number if two are alike."""
    several = len({id(stage.run) for stage in stages}) > 1
    names = [f"{stage.run.name} {stage.load.short}" if several else stage.load.short for stage in stages]
    return [
        name if names.count(name) == 1 else f"{name} (stage {stage.stage})"
        for name, stage in zip(names, stages, strict=True)
    ]


def _server_name(url: str) -> str:
    try:
        name = urlsplit(url).netloc or url
    except ValueError:
        name = url
    name = plain(name)
    return name if len(name) <= _LONGEST_SERVER else f"{name[: _LONGEST_SERVER - 3]}..."
