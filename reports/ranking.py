"""Many endpoints in LLMPerf's leaderboard: its two tables, the best endpoint of each first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from reports.errors import InputError
from reports.grouping import groups
from reports.llmperf_tables import Row, Table, tables_of
from reports.run import Run
from reports.stage_load import load_of, loads_in_words


def leaderboard(
    runs: Sequence[Run],
    *,
    concurrency: int | None = None,
    rate_per_s: float | None = None,
    count_connect: bool = False,
) -> tuple[Table, Table]:
    """Time to first token with the shortest median first, throughput with the highest; at one load or at all.

    An endpoint without a single answer stands last.
    """
    made = groups(runs, count_connect=count_connect)
    wanted = load_of(concurrency, rate_per_s)
    if wanted.is_known:
        found = [group for group in made if group.load == wanted or not group.load.is_known]
        if not found:
            asked = f"--rate {rate_per_s:g}" if wanted.is_open else f"--concurrency {concurrency}"
            known = loads_in_words(group.load for group in made)
            raise InputError(f"{asked}: no run has this stage; there are {known or 'none'}")
        made = found
    ttft, throughput = tables_of(made)
    return _ranked(ttft, more_is_better=False), _ranked(throughput, more_is_better=True)


def _ranked(table: Table, *, more_is_better: bool) -> Table:
    def place(row: Row) -> tuple[bool, float, str, str, tuple[bool, float]]:
        median = row.figures.median
        missing = math.isnan(median)
        merit = 0.0 if missing else -median if more_is_better else median
        return missing, merit, row.framework, row.model, row.load.order

    return dataclasses.replace(table, rows=tuple(sorted(table.rows, key=place)))
