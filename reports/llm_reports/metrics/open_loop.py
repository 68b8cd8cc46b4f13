"""Additional tables for open loops: latencies from the intended start, and the rate.

A closed loop does not have these figures, so a report about closed loops does not print these tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame, concat

from llm_reports.llmperf.tables import NOTHING, Table, rounded, table_of
from llm_reports.metrics.distinctions import distinctions
from llm_reports.metrics.groups import CORRECTED_LATENCY, CORRECTED_TTFT, Group, held
from llm_reports.metrics.outcomes import dropped
from llm_reports.metrics.summary import ordered
from llm_reports.metrics.window_rates import window_rows
from llm_reports.run import Run
from llm_reports.sections.table_notes import Notes
from llm_users.distributions import ARRIVAL_GAPS, Distribution, DistributionError
from llm_users.quantile import quantile
from llm_users.record import COL, StageLoad

INTENDED = (
    "Counted from the time at which the schedule intends to send a request, so that all waiting before the connection "
    "is included (corrected for coordinated omission)."
)
_RATE_NOTE = (
    "Achieved: requests sent per second, from the first measured request to the last. Throughput: requests answered "
    "per second of the window; an overloaded endpoint answers fewer requests than are sent. Queue: from the intended "
    "start to the actual start, without the wait because of --llm-max-in-flight (held)"
)


@dataclass(frozen=True)
class StageRate:
    """One stage of an open loop: the requested and the achieved rate. NaN means that the files lack the value."""

    run: Run
    framework: str
    model: str
    load: StageLoad
    achieved_per_s: float
    throughput_per_s: float
    queue_p50_s: float
    queue_p99_s: float
    held: int
    dropped: int
    in_flight: float
    apart: tuple[str, ...]
    """The cells that distinguish the stage from stages with the same framework, model and rate."""

    @property
    def rate_per_s(self) -> float | None:
        """The target rate."""
        return self.load.rate_per_s

    @property
    def difference(self) -> float:
        """The difference between the achieved rate and the target, as a share of the target."""
        target = self.load.rate_per_s
        return self.achieved_per_s / target - 1 if target else math.nan


_CELLS: tuple[tuple[str, Callable[[StageRate], str]], ...] = (
    ("Target (requests/s)", lambda row: row.load.rate_text),
    ("Achieved (requests/s)", lambda row: rounded(row.achieved_per_s, 3)),
    ("Difference (%)", lambda row: rounded(100 * row.difference, 2)),
    ("Throughput (requests/s)", lambda row: rounded(row.throughput_per_s, 3)),
    ("Queue P50 (ms)", lambda row: rounded(1000 * row.queue_p50_s, 2)),
    ("Queue P99 (ms)", lambda row: rounded(1000 * row.queue_p99_s, 2)),
    ("Held", lambda row: str(row.held)),
    ("Dropped", lambda row: str(row.dropped)),
    ("In flight", lambda row: rounded(row.in_flight, 2)),
)


@dataclass(frozen=True)
class RateTable:
    """A table of target and achieved rates, with one row per stage of an open loop."""

    rows: tuple[StageRate, ...]
    notes: tuple[str, ...]
    title: str = "Rate"
    subtitle: str = ""
    apart: tuple[str, ...] = ()
    """The columns that distinguish rows with the same framework, model and rate."""

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns."""
        return ("Framework", "Model", *self.apart, *(name for name, _ in _CELLS))

    @property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """The printed cells."""
        return tuple(
            (row.framework or NOTHING, row.model or NOTHING, *row.apart, *(text(row) for _, text in _CELLS))
            for row in self.rows
        )

    def frame(self) -> DataFrame:
        """Return the table with unrounded numbers, for a notebook."""
        names = (
            COL.framework, COL.model, COL.rate_per_s, "achieved_per_s", "difference", "throughput_per_s", "queue_p50_s",
            COL.queue_p99_s, "held", "dropped", "in_flight",
        )  # fmt: skip
        return DataFrame([{"run": row.run.name, **{name: getattr(row, name) for name in names}} for row in self.rows])


def open_loop_tables(all_groups: Sequence[Group]) -> tuple[Table | RateTable, ...]:
    """Return tables of both latencies from the intended start, and of the rates; empty without open-loop groups."""
    open_groups = [group for group in all_groups if group.load.is_open]
    if not open_groups:
        return ()
    by_stage: dict[tuple[Run, int | None, StageLoad], list[Group]] = {}
    for group in open_groups:  # several models share the rate of a stage
        by_stage.setdefault((group.run, group.stage, group.load), []).append(group)
    stages = list(by_stage.values())
    firsts = [stage[0] for stage in stages]
    notes = Notes(firsts)
    notes.lines.append(f"{_RATE_NOTE}.")
    notes.add("Arrivals are random, so the achieved rate varies around the target by chance", [*map(_scatter, stages)])
    apart = distinctions(firsts)
    rates = [_rate(stage, [column.cells[index] for column in apart]) for index, stage in enumerate(stages)]
    return (
        table_of("Time to First Token from the intended start (seconds)", CORRECTED_TTFT, 2, open_groups, (INTENDED,)),
        table_of(
            "End-to-end latency from the intended start (seconds)", CORRECTED_LATENCY, 2, open_groups, (INTENDED,)
        ),
        RateTable(tuple(rates), tuple(notes.lines), apart=tuple(column.name for column in apart)),
    )


def _rate(stage: Sequence[Group], apart: Sequence[str]) -> StageRate:
    first = stage[0]
    rows = concat([group.measured for group in stage]) if len(stage) > 1 else first.measured
    connecting = rows[COL.connect_s].where(rows[COL.end_to_end_latency_s].notna()).fillna(0.0)
    waits = ordered((rows[COL.queue_s] - rows[COL.held_s].fillna(0.0) - connecting).clip(lower=0.0))
    achieved = first.stage_figure(COL.started_rate_per_s)
    starts = rows[COL.started_at].dropna().to_numpy(dtype=np.float64)
    if math.isnan(achieved) and len(starts) > 1 and np.ptp(starts) > 0:
        achieved = (len(starts) - 1) / float(np.ptp(starts))
    return StageRate(
        run=first.run,
        framework=_common(group.framework for group in stage),
        model=_common(group.model for group in stage),
        load=first.load,
        achieved_per_s=achieved,
        throughput_per_s=math.fsum(window_rows(group).requests_per_s() for group in stage),
        queue_p50_s=quantile(waits, 0.5),
        queue_p99_s=quantile(waits, 0.99),
        held=int(held(rows).sum()),
        dropped=int(dropped(rows[COL.error_code]).sum()),
        in_flight=first.stage_figure(COL.concurrency_actual),
        apart=tuple(apart),
    )


def _scatter(stage: Sequence[Group]) -> str:
    """Return the standard deviation of the achieved rate for random arrivals, which depends on the request count."""
    try:
        variation = Distribution.parse(str(stage[0].run.options.get("llm_arrivals")), ARRIVAL_GAPS).cv
    except DistributionError:
        return ""
    count = sum(len(group.measured) for group in stage)
    return f"by {100 * variation / math.sqrt(count):.2g} %" if variation and count else ""


def _common(names: Iterable[str]) -> str:
    unique = set(names)
    return unique.pop() if len(unique) == 1 else ""
