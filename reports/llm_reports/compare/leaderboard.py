"""Many endpoints in LLMPerf's leaderboard: its two tables, the best endpoint of each first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from llm_reports.errors import InputError
from llm_reports.llmperf.tables import Row, Table, tables_of
from llm_reports.metrics.groups import OUTPUT_THROUGHPUT, TTFT, Group, groups
from llm_reports.metrics.stage_load import loads_in_words
from llm_reports.metrics.summary import ordered
from llm_reports.run import Run, named_apart
from llm_users.quantile import quantile
from llm_users.record import load_of


def leaderboard(
    runs: Sequence[Run],
    *,
    concurrency: int | None = None,
    rate_per_s: float | None = None,
    count_connect: bool = False,
) -> tuple[Table, Table]:
    """Time to first token with the shortest median first, throughput with the highest; at one load or at all.

    The figures are LLMPerf's, of successful requests. The order counts a failed request as infinitely slow, and as no
    throughput. An entry that is unfit (more than 5 % failed, unsteady, or a client that was the limit) stands below all
    others, one without a single answer last.
    """
    made = groups(named_apart(runs), count_connect=count_connect)
    wanted = load_of(concurrency, rate_per_s)
    if wanted.is_known:
        found = [group for group in made if group.load == wanted or not group.load.is_known]
        if not found:
            asked = f"--rate {rate_per_s:g}" if wanted.is_open else f"--concurrency {concurrency}"
            known = loads_in_words(group.load for group in made)
            raise InputError(f"{asked}: no run has this stage; there are {known or 'none'}")
        made = found
    ttft, throughput = tables_of(made)
    return _ranked(ttft, made, more_is_better=False), _ranked(throughput, made, more_is_better=True)


def _ranked(table: Table, made: Sequence[Group], *, more_is_better: bool) -> Table:
    metric = OUTPUT_THROUGHPUT if more_is_better else TTFT
    merits = {
        id(row): _median(ordered(group.values(metric, group.ok)), row.failed, more_is_better=more_is_better)
        for row, group in zip(table.rows, made, strict=True)
    }

    def place(row: Row) -> tuple[bool, bool, float, str, str, tuple[bool, float]]:
        median = merits[id(row)]
        missing = math.isnan(row.figures.median)
        merit = 0.0 if missing else -median if more_is_better else median
        return missing, bool(row.unfit), merit, row.framework, row.model, row.load.order

    rows = tuple(sorted(table.rows, key=place))
    below = [_below(table, row) for row in rows if row.unfit and not math.isnan(row.figures.median)]
    return dataclasses.replace(
        table,
        rows=rows,
        shows_failures=any(row.failed for row in rows),
        notes=(*([f"Ranked below the others: {'; '.join(below)}."] if below else []), *table.notes),
    )


def _below(table: Table, row: Row) -> str:
    name = " ".join([row.framework or "-", row.model or "-", *table.apart_words(row)])
    return f"{name}{row.load.at} ({row.unfit})"


def _median(values: Sequence[float], failed: int, *, more_is_better: bool) -> float:
    """The median with failed requests at their worst: infinitely slow, or no throughput."""
    if more_is_better:
        return quantile([*[0.0] * failed, *values], 0.5)
    middle = (len(values) + failed - 1) / 2
    if math.ceil(middle) >= len(values):
        return math.inf
    return (values[math.floor(middle)] + values[math.ceil(middle)]) / 2
