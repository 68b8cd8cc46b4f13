"""Reading the CSV files that a run writes. Strict about what a row is, forgiving about a last line cut by a crash."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame, Series

from llm_users.quantile import DurationHistogram
from llm_users.record import REQUEST_COLUMNS, STAGE_COLUMNS, Column, cell
from reports.errors import InputError, unreadable

# Without these no table can be made; every other column of a rows file may be absent.
REQUIRED_COLUMNS = ("measured", "error_code", "ttft_s", "end_to_end_latency_s", "output_tokens")
_GAP_COLUMNS = (
    Column("stage", "", "stage of the requests", int),
    Column("bucket", "", "number of the bucket", int),
    Column("count", "count", "gaps in the bucket", int),
)
_LARGEST_WHOLE = 2**53  # above it floats, through which the text is read, skip integers
_FIELD_LIMIT = 16 * 2**20  # an error message may hold a whole response body; csv's own limit is 128 KiB


@dataclass(frozen=True)
class _Lines:
    """The fields of a CSV file as text, with the line on which each record ends."""

    path: Path
    header: list[str]
    records: list[list[str]]
    line_numbers: list[int]
    warnings: tuple[str, ...]


def read_requests(path: Path) -> tuple[DataFrame, tuple[str, ...]]:
    """The rows of a PREFIX_llm_requests.csv and what is to be said about the file."""
    lines = _read(path)
    missing = [name for name in REQUIRED_COLUMNS if name not in lines.header]
    if missing:
        raise InputError(
            f"{path}: not a rows file, it has no column {', '.join(missing)}. Give a run's PREFIX, its "
            "PREFIX_llm_requests.csv, or an LLMPerf *_individual_responses.json."
        )
    return typed_frame(_by_column(lines, REQUEST_COLUMNS), REQUEST_COLUMNS), lines.warnings


def read_stages(path: Path) -> tuple[DataFrame, tuple[str, ...]]:
    """The rows of a PREFIX_llm_stages.csv and what is to be said about the file."""
    lines = _read(path)
    _require(lines, ("stage",))
    return typed_frame(_by_column(lines, STAGE_COLUMNS), STAGE_COLUMNS), lines.warnings


def read_gaps(path: Path) -> tuple[dict[int, DurationHistogram], tuple[str, ...]]:
    """One histogram per stage from a PREFIX_llm_gaps.csv and what is to be said about the file."""
    lines = _read(path)
    _require(lines, [column.name for column in _GAP_COLUMNS])
    values = _by_column(lines, _GAP_COLUMNS)
    histograms: dict[int, DurationHistogram] = {}
    for stage, bucket, count in zip(values["stage"], values["bucket"], values["count"], strict=True):
        if math.isnan(float(stage)) or math.isnan(float(bucket)) or math.isnan(float(count)):
            raise InputError(f"{path}: a row has an empty stage, bucket or count. Write the file again.")
        histograms.setdefault(int(stage), DurationHistogram()).merge({int(bucket): int(count)})
    return histograms, lines.warnings


def empty_stages() -> DataFrame:
    """What a run without a stages file has: the columns and no rows."""
    return typed_frame({}, STAGE_COLUMNS)


def typed_frame(values: Mapping[str, Series], columns: Sequence[Column]) -> DataFrame:
    """A frame with all the columns, in their order and types: integers nullable, absent text "", then any others."""
    rows = max((len(series) for series in values.values()), default=0)
    typed: dict[str, Series] = {}
    for column in columns:
        series = values.get(column.name)
        if column.type is str:
            typed[column.name] = Series([""] * rows, dtype=object) if series is None else series.astype(object)
        elif series is None:
            typed[column.name] = Series([math.nan] * rows, dtype="Int64" if column.type is int else "float64")
        else:
            known = series.dropna()
            whole = column.type is int and bool(((known % 1 == 0) & (known.abs() < _LARGEST_WHOLE)).all())
            typed[column.name] = series.astype("Int64" if whole else "float64")
    typed.update({name: series for name, series in values.items() if name not in typed})
    return DataFrame(typed)


def first_line_is_rows_header(path: Path) -> bool:
    """Whether a CSV file looks like a rows file, judged by its header alone."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            header = next(csv.reader([file.readline(65536)]), [])
    except (OSError, csv.Error):
        return False
    return set(REQUIRED_COLUMNS) <= set(header)


def _read(path: Path) -> _Lines:
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_LIMIT))
    records: list[list[str]] = []
    line_numbers: list[int] = []
    try:
        # A cut in the middle of a character must not hide the rows before it, hence "replace".
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            for record in reader:
                if record:
                    records.append(record)
                    line_numbers.append(reader.line_num)
    except OSError as error:
        raise unreadable(path, error) from error
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error}). Give the file as the run wrote it.") from error
    if not header:
        raise InputError(f"{path}: the file is empty, without even a header line. Was the run ended before it started?")
    warnings: tuple[str, ...] = ()
    if records and len(records[-1]) < len(header):
        warnings = (
            f"{path}: the last line (line {line_numbers[-1]}) is cut, as by a crash; "
            f"the {len(records) - 1} complete rows before it were read.",
        )
        records.pop()
        line_numbers.pop()
    for record, number in zip(records, line_numbers, strict=True):
        if len(record) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(record)} fields where the header has {len(header)}. "
                "Remove the line, or give the file as the run wrote it."
            )
    return _Lines(path, header, records, line_numbers, warnings)


def _require(lines: _Lines, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in lines.header]
    if missing:
        raise InputError(f"{lines.path}: it has no column {', '.join(missing)}. Give the file as the run wrote it.")


def _by_column(lines: _Lines, columns: Sequence[Column]) -> dict[str, Series]:
    numeric = {column.name for column in columns if column.type is not str}
    by_column: list[tuple[str, ...]] = list(zip(*lines.records, strict=True)) or [()] * len(lines.header)
    values: dict[str, Series] = {}
    for name, texts in zip(lines.header, by_column, strict=True):
        values[name] = _numbers(lines, name, texts) if name in numeric else _texts(texts)
    return values


def _texts(texts: Sequence[str]) -> Series:
    return Series([_unguarded(text) for text in texts], dtype=object)


def _unguarded(text: str) -> str:
    """The inverse of ``record.cell``, which puts a ' before text that a spreadsheet would take for a formula."""
    return text[1:] if text.startswith("'") and cell(text[1:]) == text else text


def _numbers(lines: _Lines, name: str, texts: Sequence[str]) -> Series:
    # Python's float() reads every decimal exactly; pandas' own parser may be off in the last bit.
    numbers = []
    for line_number, text in zip(lines.line_numbers, texts, strict=True):
        try:
            value = float(text) if text else math.nan
        except ValueError:
            value = math.inf
        if math.isinf(value):
            raise InputError(
                f"{lines.path}, line {line_number}: column {name} holds {text!r}, which is not a number. "
                "Correct or remove the line."
            )
        numbers.append(value)
    return Series(numbers, dtype="float64")
