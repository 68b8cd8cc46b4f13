"""LLMPerf's two tables as data: which rows, which figures, rounded how. Knows nothing of Markdown or files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TypeVar

from pandas import DataFrame

from llm_reports.llmperf.results import without_content
from llm_reports.markdown.table_notes import Notes, notes_under
from llm_reports.metrics.distinctions import distinctions, in_words
from llm_reports.metrics.groups import LLMPERF_TTFT, OUTPUT_THROUGHPUT, TTFT, Group, Metric, groups
from llm_reports.metrics.stage_load import LoadColumns, load_columns
from llm_reports.metrics.summary import Summary
from llm_reports.run import Run, named_apart
from llm_reports.slo.unfit_stages import unfit
from llm_users.record import StageLoad

T = TypeVar("T")
NOTHING = "-"
_FIGURES = ("Median", "Mean", "Min", "Max", "P25", "P75", "P95", "P99")
_EXACT = Context(prec=400, rounding=ROUND_HALF_UP)  # any float written out with decimals fits
_DIGITS = 3  # significant digits that a figure keeps at least
_MOST_DECIMALS = 9  # a nanosecond; no clock or rate here resolves more
PER_REQUEST = "Figures are per request; the summary above has the rate of the whole system."


@dataclass(frozen=True)
class Row:
    """One line of a table: what was measured, and its figures unrounded."""

    framework: str
    model: str
    load: StageLoad
    figures: Summary
    failed: int = 0  # of the requests that ended
    ended: int = 0
    unfit: str = ""  # why it cannot be best; "" when it can
    apart: tuple[str, ...] = ()
    """The cells that tell it apart from rows of the same framework, model and load."""

    @property
    def failed_share(self) -> float:
        """The share of failed requests."""
        return self.failed / self.ended if self.ended else 0.0


@dataclass(frozen=True)
class Table:
    """One table of one metric. ``notes`` are the marks that belong under it, never into its cells.

    ``subtitle`` is a line below the title, or "".
    """

    title: str
    metric: str
    decimals: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    subtitle: str = ""
    shows_failures: bool = False
    """Whether a column says the share of failed requests, which the figures leave out."""
    apart: tuple[str, ...] = ()
    """The columns that tell rows apart where framework, model and load do not."""

    @property
    def load_columns(self) -> LoadColumns | None:
        """The columns that say each row's load, where rows differ in it."""
        loads = {row.load for row in self.rows}
        return load_columns(loads) if len(loads) > 1 else None

    @property
    def header(self) -> tuple[str, ...]:
        """The names of the columns."""
        loads = self.load_columns
        return (
            "Framework",
            "Model",
            *self.apart,
            *(loads.header if loads else ()),
            *_FIGURES,
            *self._failures("Failed"),
        )

    @property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """The table as it is printed: names and bare, rounded numbers; ``-`` where there is none."""
        return tuple(self._cells_of(row) for row in self.rows)

    def apart_words(self, row: Row) -> list[str]:
        """What tells a row apart, as it stands in a sentence."""
        return [text for name, cell in zip(self.apart, row.apart, strict=True) if (text := in_words(name, cell))]

    def frame(self) -> DataFrame:
        """The table with unrounded numbers, for a notebook."""
        return DataFrame([self._values_of(row) for row in self.rows], columns=list(self.header))

    def _cells_of(self, row: Row) -> tuple[str, ...]:
        loads = self.load_columns
        names = [row.framework or NOTHING, row.model or NOTHING, *row.apart, *(loads.cells(row.load) if loads else ())]
        figures = (rounded(figure, self.decimals) for figure in _figures_of(row.figures))
        return (*names, *figures, *self._failures(f"{100 * row.failed_share:.1f} %"))

    def _values_of(self, row: Row) -> list[object]:
        loads = self.load_columns
        names = [row.framework, row.model, *row.apart, *(loads.values(row.load) if loads else ())]
        return [*names, *_figures_of(row.figures), *self._failures(row.failed_share)]

    def _failures(self, cell: T) -> tuple[T, ...]:
        return (cell,) if self.shows_failures else ()


def tables(runs: Iterable[Run], *, count_connect: bool = False) -> tuple[Table, Table]:
    """Time to first token and output tokens throughput of the runs, one row per stage.

    ``count_connect`` adds the time of connecting to TTFT and latency, as LLMPerf measures it.
    """
    return tables_of(groups(named_apart(list(runs)), count_connect=count_connect))


def tables_of(made: Sequence[Group]) -> tuple[Table, Table]:
    """The two tables of groups that are already made."""
    return (
        table_of("Time to First Token (seconds)", TTFT, 2, made, _as_llmperf_counts(made)),
        dataclasses.replace(
            table_of("Output Tokens Throughput (tokens/s)", OUTPUT_THROUGHPUT, 2, made), subtitle=PER_REQUEST
        ),
    )


def _as_llmperf_counts(made: Sequence[Group]) -> Sequence[str]:
    """LLMPerf's own figures of TTFT beside the corrected ones, where they differ."""
    notes = Notes(made)
    notes.add(
        "LLMPerf writes a TTFT of 0 when no content came. Such an answer has no time to first token and is left out of "
        "the table. LLMPerf counts the 0, as do its print-out and its files here",
        [_with_zeros(group) for group in made],
    )
    return notes.lines


def _with_zeros(group: Group) -> str:
    count = without_content(group)
    if not count:
        return ""
    sides = []
    for side, metric in (("with", LLMPERF_TTFT), ("without", TTFT)):
        figures = zip(_FIGURES, _figures_of(group.summary(metric)), strict=True)
        sides.append(f"{side} it: {', '.join(f'{name} {rounded(figure)}' for name, figure in figures)}")
    return f"{count} of {len(group.ok)}; {'; '.join(sides)}"


def rounded(figure: float, decimals: int = 2) -> str:
    """A figure with these decimals, and with more where fewer than three significant digits would be left.

    Halves are rounded away from zero on the shortest decimal form of the number: ``65.64``, ``0.0123``, ``0.00`` for
    zero, ``-`` for what is not finite.
    """
    if not math.isfinite(figure):
        return NOTHING
    exact = Decimal(repr(float(figure)))
    text = _quantized(exact, _decimals(exact, decimals))
    return _quantized(exact, _decimals(Decimal(text), decimals))  # 0.9996 became 1.000, which has a digit too many


def table_of(
    title: str, metric: Metric, decimals: int, made: Sequence[Group], first_notes: Sequence[str] = ()
) -> Table:
    """One table of a metric; ``first_notes`` stand before those that the rows give cause for."""
    figures = [group.summary(metric) for group in made]
    apart = distinctions(made)
    rows = tuple(
        Row(
            group.framework,
            group.model,
            group.load,
            summary,
            group.counts.failed,
            group.counts.ended,
            unfit(group),
            tuple(each.cells[place] for each in apart),
        )
        for place, (group, summary) in enumerate(zip(made, figures, strict=True))
    )
    notes = (*first_notes, *notes_under(metric, made, figures))
    return Table(title, metric.name, decimals, rows, notes, apart=tuple(each.name for each in apart))


def _decimals(exact: Decimal, least: int) -> int:
    """How many decimals leave three significant digits."""
    if not exact:
        return least
    return max(least, min(_MOST_DECIMALS, _DIGITS - 1 - exact.adjusted()))


def _quantized(exact: Decimal, decimals: int) -> str:
    return format(exact.quantize(Decimal(1).scaleb(-decimals), context=_EXACT), "f")


def _figures_of(summary: Summary) -> tuple[float, ...]:
    return (
        summary.median,
        summary.mean,
        summary.min,
        summary.max,
        summary.p25,
        summary.p75,
        summary.p95,
        summary.p99,
    )
