"""LLMPerf's leaderboard for many endpoints: two tables, each with the best endpoint first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from llm_reports.compare.comparability import not_comparable
from llm_reports.errors import InputError
from llm_reports.llmperf.tables import Row, Table, tables_of
from llm_reports.metrics.groups import OUTPUT_THROUGHPUT, TTFT, Group, groups
from llm_reports.metrics.stage_load import loads_in_words
from llm_reports.metrics.summary import ordered
from llm_reports.run import Run, named_apart
from llm_users.quantile import quantile
from llm_users.record import StageLoad, load_of


def leaderboard(
    runs: Sequence[Run], *, concurrency: int | None = None, rate_per_s: float | None = None, count_connect: bool = False
) -> tuple[Table, Table]:
    """Return the table of time to first token, shortest median first, and of throughput, highest median first.

    ``concurrency`` or ``rate_per_s`` restricts the tables to one load. The figures are LLMPerf's, of successful
    requests. Notes say why entries cannot be compared: other lengths, token counters, loads, or connecting.

    The ranking counts a failed request as infinitely slow, and as zero throughput. An unfit entry (more than 5 %
    failed, unsteady, or limited by the client) ranks below all others, and an entry without any answer ranks last.
    Raises ``InputError`` when no run has a stage with this load.
    """
    all_groups = groups(named_apart(runs), count_connect=count_connect)
    wanted = load_of(concurrency, rate_per_s)
    if wanted.is_known:
        matching = [group for group in all_groups if _has_load(group, wanted) or not group.load.is_known]
        if not matching:
            option = f"--rate {rate_per_s:g}" if wanted.is_open else f"--concurrency {concurrency}"
            available = loads_in_words(group.load for group in all_groups)
            raise InputError(f"{option}: no run has a stage with this load. Available loads: {available or 'none'}.")
        all_groups = matching
    ttft, throughput = tables_of(all_groups, with_requests=True)
    notes = (*without_requests(runs), *not_comparable(all_groups))
    ttft, throughput = (dataclasses.replace(table, notes=(*notes, *table.notes)) for table in (ttft, throughput))
    throughput = dataclasses.replace(throughput, subtitle="Figures are per request, not the rate of the whole system.")
    return _ranked(ttft, all_groups, more_is_better=False), _ranked(throughput, all_groups, more_is_better=True)


def without_requests(runs: Sequence[Run]) -> list[str]:
    """Return a note for each run without measured requests, which have no place in the ranking."""
    return [f"{run.name} has no measured requests." for run in runs if not run.measured]


def _has_load(group: Group, wanted: StageLoad) -> bool:
    return (group.load.users, group.load.rate_per_s) == (wanted.users, wanted.rate_per_s)


def _ranked(table: Table, ranked_groups: Sequence[Group], *, more_is_better: bool) -> Table:
    metric = OUTPUT_THROUGHPUT if more_is_better else TTFT
    # Failed requests count at their worst value: infinitely slow, or zero throughput.
    worst = 0.0 if more_is_better else math.inf
    merits = {
        id(row): quantile(sorted([*ordered(group.values(metric, group.ok)), *[worst] * row.failed]), 0.5)
        for row, group in zip(table.rows, ranked_groups, strict=True)
    }

    def rank_key(row: Row) -> tuple[bool, bool, float, str, str, tuple[bool, float]]:
        median = merits[id(row)]
        missing = math.isnan(row.figures.median)
        merit = 0.0 if missing else -median if more_is_better else median
        return missing, bool(row.unfit), merit, row.framework, row.model, row.load.order

    rows = tuple(sorted(table.rows, key=rank_key))
    unfit_entries = [
        f"{' '.join([row.framework or '-', row.model or '-', *table.apart_words(row)])}{row.load.at} ({row.unfit})"
        for row in rows
        if row.unfit and not math.isnan(row.figures.median)
    ]
    ranked = "No entry can be best" if len(unfit_entries) == len(rows) else "Ranked below the others"
    return dataclasses.replace(
        table,
        rows=rows,
        shows_failures=any(row.failed for row in rows),
        notes=(*([f"{ranked}: {'; '.join(unfit_entries)}."] if unfit_entries else []), *table.notes),
    )
