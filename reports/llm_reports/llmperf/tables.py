"""LLMPerf's two tables as data: rows, figures and rounding. This module does not depend on Markdown or files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Protocol, TypeVar

from llm_reports.metrics.distinctions import distinctions, in_words
from llm_reports.metrics.groups import (
    INPUT_TOKENS,
    LLMPERF_TTFT,
    OUTPUT_THROUGHPUT,
    OUTPUT_TOKENS,
    TTFT,
    Metric,
    groups,
)
from llm_reports.metrics.stage_group import StageGroup
from llm_reports.metrics.stage_load import LoadColumns, load_columns
from llm_reports.metrics.summary import Summary
from llm_reports.run import Run, named_apart
from llm_reports.sections.table_notes import Notes, notes_under
from llm_reports.slo.stage_doubts import unfit
from llm_users.record import StageLoad

if TYPE_CHECKING:  # this module does not load pandas
    from pandas import DataFrame

T = TypeVar("T")


class Noted(Protocol):
    """A table with notes."""

    @property
    def notes(self) -> Sequence[str]: ...


NotedT = TypeVar("NotedT", bound=Noted)
NOTHING = "-"
_FIGURES = ("Median", "Mean", "Min", "Max", "P25", "P75", "P95", "P99")
_EXACT = Context(prec=400, rounding=ROUND_HALF_UP)  # enough for any float in decimal notation
_DIGITS = 3  # minimum number of significant digits of a figure
_MOST_DECIMALS = 9  # a nanosecond; the clocks and rates do not have a finer resolution
REQUEST_NAMES = ("OK/all", "In", "Out")
"""Successful and all measured requests, and the mean input and output tokens. Short, because tables are wide."""
PER_REQUEST = "Figures are per request; the summary above contains the rate of the whole system."


@dataclass(frozen=True)
class Row:
    """One line of a table: framework, model and load, and the unrounded figures."""

    framework: str
    model: str
    load: StageLoad
    figures: Summary
    failed: int = 0  # failed requests among the ended ones
    ended: int = 0
    unfit: str = ""  # reason why the row cannot be the best; "" when it can
    apart: tuple[str, ...] = ()
    """The cells that distinguish the row from rows with the same framework, model and load."""
    ok: int = 0
    measured: int = 0
    input_tokens: float = math.nan
    """The mean of the successful requests, in tokens; NaN if unknown. The same for ``output_tokens``."""
    output_tokens: float = math.nan

    @property
    def failed_share(self) -> float:
        """The share of failed requests."""
        return self.failed / self.ended if self.ended else 0.0


@dataclass(frozen=True)
class Table:
    """One table of one metric. ``notes`` are shown below the table, never in its cells.

    ``subtitle`` is a line below the title, or "".
    """

    title: str
    metric: str
    decimals: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    subtitle: str = ""
    shows_failures: bool = False
    """Whether a column shows the share of failed requests, which the figures do not include."""
    apart: tuple[str, ...] = ()
    """The columns that distinguish rows with the same framework, model and load."""
    shows_requests: bool = False
    """Whether columns show the successful and all measured requests, and the mean input and output tokens."""

    @property
    def load_columns(self) -> LoadColumns | None:
        """The columns with the load of each row, if the rows have different loads."""
        loads = {row.load for row in self.rows}
        return load_columns(loads) if len(loads) > 1 else None

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns."""
        loads = self.load_columns
        names = ("Framework", "Model", *self.apart, *(loads.header if loads else ()))
        return (*names, *self._requests(REQUEST_NAMES), *_FIGURES, *self._failures("Failed"))

    @property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """The printed cells: names and rounded numbers without units; ``-`` where there is no value."""
        loads = self.load_columns
        return tuple(
            (
                row.framework or NOTHING,
                row.model or NOTHING,
                *row.apart,
                *(loads.cells(row.load) if loads else ()),
                *self._requests(
                    (f"{row.ok}/{row.measured}", *(_whole(mean) for mean in (row.input_tokens, row.output_tokens)))
                ),
                *(rounded(figure, self.decimals) for figure in _figures_of(row.figures)),
                *self._failures(f"{100 * row.failed_share:.1f} %"),
            )
            for row in self.rows
        )

    def apart_words(self, row: Row) -> list[str]:
        """Return the words that distinguish a row, for use in a sentence."""
        return [text for name, cell in zip(self.apart, row.apart, strict=True) if (text := in_words(name, cell))]

    def frame(self) -> DataFrame:
        """Return the table with unrounded numbers, for a notebook."""
        from pandas import DataFrame

        loads = self.load_columns
        lines = []
        for row in self.rows:
            names = [row.framework, row.model, *row.apart, *(loads.values(row.load) if loads else ())]
            requests = self._requests((f"{row.ok}/{row.measured}", row.input_tokens, row.output_tokens))
            lines.append([*names, *requests, *_figures_of(row.figures), *self._failures(row.failed_share)])
        return DataFrame(lines, columns=list(self.header))

    def _requests(self, cells: Sequence[T]) -> Sequence[T]:
        return cells if self.shows_requests else ()

    def _failures(self, cell: T) -> tuple[T, ...]:
        return (cell,) if self.shows_failures else ()


def tables(runs: Iterable[Run], *, count_connect: bool = False) -> tuple[Table, Table]:
    """Return the tables of time to first token and output token throughput of the runs, one row per stage.

    ``count_connect`` adds the connection time to TTFT and latency, as LLMPerf measures them.
    """
    return tables_of(groups(named_apart(list(runs)), count_connect=count_connect))


def tables_of(all_groups: Sequence[StageGroup], *, with_requests: bool = False) -> tuple[Table, Table]:
    """Return the two tables of existing groups; ``with_requests`` adds the columns ``REQUEST_NAMES``."""
    first_notes = _as_llmperf_counts(all_groups)
    ttft = table_of("Time to First Token (seconds)", TTFT, 2, all_groups, first_notes, with_requests=with_requests)
    name = "Output Tokens Throughput (tokens/s)"
    throughput = table_of(name, OUTPUT_THROUGHPUT, 2, all_groups, with_requests=with_requests)
    return ttft, dataclasses.replace(throughput, subtitle=PER_REQUEST)


def with_new_notes(tables: Iterable[NotedT]) -> list[tuple[NotedT, list[str]]]:
    """Return the tables, each with its notes; a reference replaces the notes that an earlier table has too."""
    shown_notes: set[str] = set()
    with_notes = []
    for table in tables:
        fresh = [note for note in table.notes if note not in shown_notes]
        repeated = [] if len(fresh) == len(table.notes) else ["See the notes above."]
        shown_notes.update(fresh)
        with_notes.append((table, [*fresh, *repeated]))
    return with_notes


def _as_llmperf_counts(all_groups: Sequence[StageGroup]) -> Sequence[str]:
    """Return notes with LLMPerf's TTFT figures next to the corrected ones, where they differ."""
    details = []
    for group in all_groups:
        parts = [f"{count} of {group.counts.ok}"] if (count := group.facts.without_content) else []
        for side, metric in (("with", LLMPERF_TTFT), ("without", TTFT)) if count else ():
            figures = zip(_FIGURES, _figures_of(group.summary(metric)), strict=True)
            parts.append(f"{side} it: {', '.join(f'{name} {rounded(figure)}' for name, figure in figures)}")
        details.append("; ".join(parts))
    notes = Notes(all_groups)
    notes.add(
        "LLMPerf writes a TTFT of 0 for an answer without content. Such an answer does not have a time to first token "
        "and is excluded from the table. LLMPerf counts the 0, and so do the console output and files in its format",
        details,
    )
    return notes.lines


def rounded(figure: float, decimals: int = 2) -> str:
    """Format a figure with the given number of decimals, or with more to show three significant digits.

    Halves are rounded away from zero, based on the shortest decimal form of the number: ``65.64``, ``0.0123``,
    ``0.00`` for zero, ``-`` for values that are not finite.
    """
    if not math.isfinite(figure):
        return NOTHING
    exact = text = Decimal(repr(float(figure)))
    for _ in range(2):  # the second time, because 0.9996 became 1.000, which has one digit too many
        shown = max(decimals, min(_MOST_DECIMALS, _DIGITS - 1 - text.adjusted())) if text else decimals
        text = exact.quantize(Decimal(1).scaleb(-shown), context=_EXACT)
    return format(text, "f")


def table_of(
    title: str,
    metric: Metric,
    decimals: int,
    all_groups: Sequence[StageGroup],
    first_notes: Sequence[str] = (),
    *,
    with_requests: bool = False,
) -> Table:
    """Return one table of a metric; ``first_notes`` come before the notes that the rows require.

    ``with_requests`` adds the columns ``REQUEST_NAMES``.
    """
    figures = [group.summary(metric) for group in all_groups]
    columns = distinctions(all_groups)
    rows = []
    for index, (group, summary) in enumerate(zip(all_groups, figures, strict=True)):
        apart = tuple(column.cells[index] for column in columns)
        names, counts = (group.framework, group.model, group.load), group.counts
        means = (group.summary(tokens).mean for tokens in (INPUT_TOKENS, OUTPUT_TOKENS)) if with_requests else ()
        requests = (counts.ok, counts.measured, *means)
        rows.append(Row(*names, summary, counts.failed, counts.ended, unfit(group), apart, *requests))
    notes = (*first_notes, *notes_under(metric, all_groups, figures))
    return Table(
        title,
        metric.name,
        decimals,
        tuple(rows),
        notes,
        apart=tuple(column.name for column in columns),
        shows_requests=with_requests,
    )


def _whole(mean: float) -> str:
    return f"{mean:.0f}" if math.isfinite(mean) else NOTHING


def _figures_of(summary: Summary) -> tuple[float, ...]:
    return tuple(getattr(summary, name.lower()) for name in _FIGURES)
