"""Reading of the CSV files that a run writes. Rows must be complete, except for a last line that a crash truncated.

Impossible values, such as negative times or 1e300 tokens, are removed: the value becomes missing and a warning lists
it. Its row stays and still counts as a request, because the outcome of the request is known. Values that were computed
from an impossible value are also removed.
"""

from __future__ import annotations

import csv
import gc
import math
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pandas import DataFrame, Series
from pandas.arrays import IntegerArray

from llm_reports.errors import InputError
from llm_reports.input.open_file import open_text, unreadable
from llm_reports.metrics.outcomes import buffered, succeeded
from llm_users.quantile import DurationHistogram
from llm_users.record import (
    COL,
    REQUEST_COLUMNS,
    SERVER_METRIC_COLUMNS,
    STAGE_COLUMNS,
    Column,
    ServerMetricRecord,
    unguarded,
)
from llm_users.run_files import REQUESTS_CSV

# The tables require these columns; all other columns of a rows file may be absent.
REQUIRED_COLUMNS = (COL.measured, COL.error_code, COL.ttft_s, COL.end_to_end_latency_s, COL.output_tokens)
_GAP_COLUMNS = (
    Column(COL.stage, "", "stage of the requests", int),
    Column("bucket", "", "number of the bucket", int),
    Column("count", "count", "gaps in the bucket", int),
    Column(COL.model, "", "model of the requests; older files do not have it", str),
)
_GAP_NUMBERS = [column.name for column in _GAP_COLUMNS if column.type is int]
_LARGEST_WHOLE = 2**53  # the text is read as floats, which skip integers above this value
_ROWS_WANTED = f"Specify the PREFIX of a run, its PREFIX{REQUESTS_CSV}, or an LLMPerf *_individual_responses.json."
_AS_WRITTEN = "Use the file as the run wrote it."
_FIELD_LIMIT = 16 * 2**20  # an error message may contain a whole response body; the default of csv is 128 KiB

LONGEST_S = 1e6
"""The longest valid duration: 11 days, far beyond any timeout."""
LATEST_UNIX_S = 4_102_444_800.0
"""The first second of the year 2100. Milliseconds or nanoseconds read as seconds are beyond it."""
_YEAR_S = 366 * 86_400.0
_MOST_NAMED = 10
_LIMITS: Mapping[str, tuple[float, float]] = {
    "s": (0.0, LONGEST_S),
    "s/token": (0.0, LONGEST_S),
    "unix s": (0.0, LATEST_UNIX_S),
    "tokens": (0.0, 1e8),  # the longest contexts have 1e7
    "count": (0.0, 1e10),
    "users": (0.0, 1e8),
    "requests": (0.0, 1e8),
    "tokens/s": (0.0, 1e10),
    "requests/s": (0.0, 1e8),
    "events/token": (0.0, 1e8),
    "share": (0.0, 1e4),  # CPU shares exceed 1 when a process has several threads
    "0/1": (0.0, 1.0),
    "the metric's": (0.0, 1e18),  # the bytes of a server's memory
    "the metric's / s": (0.0, 1e18),
}
_LIMITS_BY_NAME = {
    COL.stage: (0.0, 1e6),
    "stage_end": (0.0, 1e6),
    COL.output_tokens_usage: (0.0, math.inf),
}
_IMPLAUSIBLE_USAGE = Column("usage_output_tokens", "tokens", "older files: implausible usage", int)
"""The older name of ``output_tokens_usage`` in rows whose usage cannot be correct."""
_ROUNDING_S = 1e-6  # files have a resolution of a microsecond or finer; E2E may be this much below TTFT
_DERIVED = {
    COL.ttft_s: (COL.tpot_s,),
    COL.end_to_end_latency_s: (COL.request_output_throughput_token_per_s,),
    COL.output_tokens: (COL.tpot_s, COL.window_tokens, COL.request_output_throughput_token_per_s),
}
"""The columns that were computed from a column and are therefore invalid when its value is impossible."""
Floats = NDArray[np.float64]

_BATCH_LINES = 10_000  # a million rows as lists of text would take 5 GB


@dataclass(frozen=True)
class Impossible:
    """One removed value: the index of the row, the column, the value, and the reason."""

    row: int
    column: str
    value: float
    why: str


def read_requests(path: Path) -> tuple[DataFrame, tuple[str, ...]]:
    """Return the rows of a PREFIX_llm_requests.csv and the warnings about the file."""
    columns = (*REQUEST_COLUMNS, _IMPLAUSIBLE_USAGE)
    values, warnings = _read(path, columns, REQUIRED_COLUMNS, "not a rows file, ", _ROWS_WANTED)
    older = values.pop(_IMPLAUSIBLE_USAGE.name, None)
    if older is not None:
        usage = values.get(COL.output_tokens_usage)
        values[COL.output_tokens_usage] = older if usage is None else usage.fillna(older)
    return _checked(path, values, warnings, REQUEST_COLUMNS)


def read_stages(path: Path) -> tuple[DataFrame, tuple[str, ...]]:
    """Return the rows of a PREFIX_llm_stages.csv and the warnings about the file."""
    return _frame(path, STAGE_COLUMNS, (COL.stage,))


def read_gaps(path: Path) -> tuple[dict[int, dict[str, DurationHistogram]], tuple[str, ...]]:
    """Return the histograms of a PREFIX_llm_gaps.csv by stage and model, and the warnings about the file.

    The model is "" in older files, whose histograms pool the models of a stage.
    """
    values, warnings = _read(path, _GAP_COLUMNS, _GAP_NUMBERS)
    models = values.pop(COL.model, None)
    values, impossible = without_impossible(values, _GAP_COLUMNS)
    largest = DurationHistogram.bucket(LONGEST_S)
    impossible += [
        Impossible(row, "bucket", bucket, f"outside -1 to {largest}")
        for row, bucket in enumerate(map(float, values["bucket"]))
        if bucket < -1 or bucket > largest
    ]
    rows = DataFrame({name: values[name] for name in _GAP_NUMBERS})
    rows[COL.model] = "" if models is None else models
    rows = rows.drop(index=[value.row for value in impossible])
    if rows.isna().to_numpy().any():
        raise InputError(f"{path}: a row has an empty stage, bucket or count. Write the file again.")
    histograms: dict[int, dict[str, DurationHistogram]] = {}
    for stage, bucket, count, model in zip(*(rows[column.name] for column in _GAP_COLUMNS), strict=True):
        of_stage = histograms.setdefault(int(stage), {})
        of_stage.setdefault(str(model), DurationHistogram()).merge({int(bucket): int(count)})
    return histograms, (*warnings, *_warning(path, impossible))


def read_server_metrics(path: Path) -> tuple[tuple[ServerMetricRecord, ...], tuple[str, ...]]:
    """Return the records of a PREFIX_llm_server.csv and the warnings about the file.

    Records without a stage or without a metric are omitted. Columns that the file does not have are empty.
    """
    frame, warnings = _frame(path, SERVER_METRIC_COLUMNS, (COL.stage, COL.metric))
    complete = frame[frame[COL.stage].notna() & (frame[COL.metric] != "")]
    return tuple(_server_metrics(complete)), warnings


def _server_metrics(frame: DataFrame) -> Iterator[ServerMetricRecord]:
    names = [column.name for column in SERVER_METRIC_COLUMNS]
    whole = {column.name for column in SERVER_METRIC_COLUMNS if column.type is int}
    known = frame[names].astype(object).where(frame[names].notna(), None)
    for values in known.itertuples(index=False):
        fields: dict[str, Any] = dict(zip(names, values, strict=True))
        yield ServerMetricRecord(**{**fields, **{name: int(fields[name] or 0) for name in whole}})


def empty_stages() -> DataFrame:
    """Return the stages of a run without a stages file: all columns, zero rows."""
    return typed_frame({}, STAGE_COLUMNS)


def typed_frame(values: Mapping[str, Series], columns: Sequence[Column]) -> DataFrame:
    """Return a frame with all columns in their order and types, followed by any other columns.

    Integers are nullable; absent text is "".
    """
    rows = max((len(series) for series in values.values()), default=0)
    typed: dict[str, Series] = {}
    for column in columns:
        series = values.get(column.name)
        if column.type is str:
            typed[column.name] = Series([""] * rows, dtype=object) if series is None else series.astype(object)
        elif series is None:
            typed[column.name] = Series([math.nan] * rows, dtype="Int64" if column.type is int else "float64")
        else:
            array = _numbers(series)
            missing = np.isnan(array)
            known = array[~missing]
            whole = column.type is int and bool(((known % 1 == 0) & (np.abs(known) < _LARGEST_WHOLE)).all())
            integers = IntegerArray(np.where(missing, 0, array).astype(np.int64), missing) if whole else None
            typed[column.name] = Series(array if integers is None else integers)
    typed.update({name: series for name, series in values.items() if name not in typed})
    return DataFrame(typed, copy=False)  # a copy of a million rows takes half a gigabyte


def without_impossible(
    values: Mapping[str, Series], columns: Sequence[Column]
) -> tuple[dict[str, Series], list[Impossible]]:
    """Return the columns with impossible values set to missing, and these values in the order of the rows."""
    kept = dict(values)
    removed: list[Impossible] = []
    for column in columns:
        series = kept.get(column.name)
        limits = _LIMITS_BY_NAME.get(column.name) or _LIMITS.get(column.unit)
        if series is None or limits is None or column.type is str:
            continue
        array = _numbers(series)
        bad = (array < limits[0]) | (array > limits[1])
        good = array[~bad & np.isfinite(array)]
        if column.unit == "unix s" and len(good):
            # A run does not take a year, so the clock is wrong in rows that are more than a year from the median.
            bad |= np.abs(array - np.median(good)) > _YEAR_S
        why = f"outside {limits[0]:g} to {limits[1]:g} {column.unit}".rstrip()
        removed += _remove(kept, column.name, array, bad, why)
    removed += _remove_contradictions(kept)
    return kept, sorted(removed, key=lambda value: value.row)


def impossible_warning(
    source: object, found: Sequence[Impossible], place_of: Callable[[Iterable[int]], Mapping[int, str]]
) -> str:
    """Return the warning about impossible values; ``place_of`` returns the positions of rows, such as ``line 7``."""
    shown = found[:_MOST_NAMED]
    positions = place_of(value.row for value in shown)
    details = "; ".join(
        f"{positions.get(value.row, '?')}: {value.column} {value.value:g} ({value.why})" for value in shown
    )
    more = f"; and {len(found) - len(shown)} more" if len(found) > len(shown) else ""
    return f"{source}: impossible values were removed; their rows still count as requests. {details}{more}."


def _frame(path: Path, columns: Sequence[Column], *requirements: Any) -> tuple[DataFrame, tuple[str, ...]]:
    """Return the frame of a file without its impossible values, and the warnings about the file."""
    return _checked(path, *_read(path, columns, *requirements), columns)


def _checked(
    path: Path, values: Mapping[str, Series], warnings: tuple[str, ...], columns: Sequence[Column]
) -> tuple[DataFrame, tuple[str, ...]]:
    values, impossible = without_impossible(values, columns)
    return typed_frame(values, columns), (*warnings, *_warning(path, impossible))


def _warning(path: Path, impossible: Sequence[Impossible]) -> tuple[str, ...]:
    return (impossible_warning(path, impossible, partial(_lines_of, path)),) if impossible else ()


def _lines_of(path: Path, rows: Iterable[int]) -> dict[int, str]:
    """Return the line on which each of these rows begins. This reads the file again, because it is rarely needed."""
    wanted, lines = set(rows), {}
    with open_text(path, errors="replace") as file:
        reader = csv.reader(file)
        next(reader, None)
        row, last_line = 0, reader.line_num
        for record in reader:
            if record:
                if row in wanted:
                    lines[row] = f"line {last_line + 1}"
                row += 1
            last_line = reader.line_num
    return lines


def first_line_is_rows_header(path: Path) -> bool:
    """Return whether the header of a CSV file is that of a rows file."""
    try:
        with open_text(path, errors="replace") as file:
            header = next(csv.reader([file.readline(65536)]), [])
    except (OSError, EOFError, zlib.error, csv.Error):
        return False
    return set(REQUIRED_COLUMNS) <= set(header)


def _read(
    path: Path, columns: Sequence[Column], required: Sequence[str], problem: str = "", advice: str = _AS_WRITTEN
) -> tuple[dict[str, Series], tuple[str, ...]]:
    """Return a CSV file by column, numbers for numeric columns and text for all others, and a warning about its end."""
    csv.field_size_limit(max(csv.field_size_limit(), _FIELD_LIMIT))
    try:
        # "replace": a file that ends in the middle of a character must not hide the rows before it.
        with open_text(path, errors="replace") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if not header:
                raise InputError(
                    f"{path}: the file is empty and does not contain a header line. Did the run end before it started?"
                )
            missing = [name for name in required if name not in header]
            if missing:
                raise InputError(f"{path}: {problem}missing column {', '.join(missing)}. {advice}")
            duplicate = sorted({name for name in header if header.count(name) > 1})
            if duplicate:
                raise InputError(f"{path}: the column {', '.join(duplicate)} occurs twice. {_AS_WRITTEN}")
            collector = _ColumnCollector(path, header, columns)
            line_number = reader.line_num
            # The garbage collector would search millions of lines for reference cycles that do not exist.
            was_on = gc.isenabled()
            gc.disable()
            try:
                while batch := list(islice(reader, _BATCH_LINES)):
                    collector.add(batch, line_number + 1)
                    line_number = reader.line_num
            finally:
                if was_on:
                    gc.enable()
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from error
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error}). {_AS_WRITTEN}") from error
    return collector.columns()


class _ColumnCollector:
    """Collects records by column, in batches of lines."""

    def __init__(self, path: Path, header: list[str], columns: Sequence[Column]) -> None:
        self._path = path
        self._header = header
        numeric = {column.name for column in columns if column.type is not str}
        self._numbers = {name: array("d") for name in header if name in numeric}
        self._texts: dict[str, list[str]] = {name: [] for name in header if name not in numeric}
        self._known: dict[str, str] = {}
        self._records: list[list[str]] = []
        self._first_line = 0  # line of the first of ``_records``
        self._rows = 0

    def add(self, records: list[list[str]], first_line: int) -> None:
        """Add records, [] for an empty line. They are parsed when more records follow, because the last may be cut."""
        if any(records):
            self._keep()
            self._records, self._first_line = records, first_line

    def columns(self) -> tuple[dict[str, Series], tuple[str, ...]]:
        """Return all records by column, and a warning if the last is cut. Call this after the last ``add``."""
        warnings: tuple[str, ...] = ()
        while self._records and not self._records[-1]:
            self._records.pop()
        if self._records and len(self._records[-1]) < len(self._header):
            cut = self._line_numbers()[-1]
            self._records.pop()
            self._keep()
            warnings = (
                f"{self._path}: the last line (line {cut}) is truncated, probably by a crash; "
                f"the {self._rows} complete rows before it were read.",
            )
        self._keep()
        values = {
            name: Series(np.frombuffer(self._numbers.pop(name), dtype="float64"))
            if name in self._numbers
            else Series(self._texts.pop(name), dtype=object)
            for name in self._header
        }
        return values, warnings

    def _line_numbers(self) -> list[int]:
        """Return the line on which each record ends; a field may span several lines. Only messages need this."""
        ends = accumulate((1 + sum(map(_breaks, record)) for record in self._records), initial=self._first_line - 1)
        return list(ends)[1:]

    def _keep(self) -> None:
        width = len(self._header)
        if not all(len(record) == width for record in self._records):
            for record, number in zip(self._records, self._line_numbers(), strict=True):
                if record and len(record) != width:
                    raise InputError(
                        f"{self._path}, line {number}: the line has {len(record)} fields, but the header has {width}. "
                        "Remove the line, or use the file as the run wrote it."
                    )
        records = self._records if all(self._records) else [record for record in self._records if record]
        by_column: list[tuple[str, ...]] = list(zip(*records, strict=True)) or [()] * width
        for name, texts in zip(self._header, by_column, strict=True):
            if name in self._numbers:
                self._numbers[name].frombytes(self._parsed(name, texts).tobytes())
            else:
                self._texts[name].extend(self._unguarded(texts))
        self._rows += len(records)
        self._records = []

    def _unguarded(self, texts: Sequence[str]) -> Iterable[str]:
        """Return the texts without the guard of ``record.cell``; rows with equal texts share one copy."""
        if _all_alike(texts):
            return [unguarded(texts[0])] * len(texts)
        distinct, known = set(texts), self._known
        if len(distinct) > len(texts) // 2:
            return map(unguarded, texts)
        known.update((text, unguarded(text)) for text in distinct if text not in known)
        return [known[text] for text in texts]

    def _parsed(self, name: str, texts: Sequence[str]) -> np.ndarray:
        # Python's float() reads every decimal exactly; the parser of pandas may be off in the last bit.
        try:
            if _all_alike(texts):
                numbers = np.full(len(texts), float(texts[0] or "nan"))
            elif "" in texts:
                numbers = np.array([float(text) if text else math.nan for text in texts])
            else:
                numbers = np.array(list(map(float, texts)))
            if not np.isinf(numbers).any():
                return numbers
        except ValueError:
            pass
        numbered = (number for number, record in zip(self._line_numbers(), self._records, strict=True) if record)
        line_number, text = next(line for line in zip(numbered, texts, strict=True) if not _is_number(line[1]))
        raise InputError(
            f"{self._path}, line {line_number}: column {name} contains {text!r}, which is not a number. "
            "Correct or remove the line."
        )


def _all_alike(texts: Sequence[str]) -> bool:
    return bool(texts) and texts[0] == texts[-1] and texts.count(texts[0]) == len(texts)


def _breaks(text: str) -> int:
    """Return the number of line breaks in a field, in any convention."""
    return text.count("\n") + text.count("\r") - text.count("\r\n")


def _is_number(text: str) -> bool:
    try:
        return not math.isinf(float(text or "nan"))
    except ValueError:
        return False


def _numbers(series: Series) -> Floats:
    return series.to_numpy(dtype=np.float64, na_value=math.nan)


def _remove_contradictions(kept: dict[str, Series]) -> list[Impossible]:
    """Remove contradictory times of successful requests: a time of 0, and a first token after the end."""
    codes = kept.get(COL.error_code)
    if codes is None or not len(codes):
        return []
    ok = succeeded(codes).to_numpy()
    streamed = ok & ~buffered(codes).to_numpy()
    removed: list[Impossible] = []
    firsts = [name for name in (COL.ttft_s, COL.ttfat_s) if name in kept]
    for name in (*firsts, COL.end_to_end_latency_s):
        if name in kept:
            array = _numbers(kept[name])
            removed += _remove(kept, name, array, ok & (array == 0), "an answer takes longer than 0 s")
            if name in firsts and (~ok & (array == 0)).any():
                # LLMPerf writes 0 for a value that a failed request does not have. This is a missing value, not an
                # impossible one.
                kept[name] = kept[name].mask(~ok & (array == 0))
    if COL.end_to_end_latency_s not in kept:
        return removed
    end = _numbers(kept[COL.end_to_end_latency_s])
    before_end = np.zeros(len(codes), dtype=bool)
    for name in firsts:
        array = _numbers(kept[name])
        late = streamed & (array > end + _ROUNDING_S)
        before_end |= late
        removed += _remove(kept, name, array, late, "after the end of the request")
    # The file does not show which of the two values is wrong.
    removed += _remove(kept, COL.end_to_end_latency_s, end, before_end, "before the first token")
    return removed


def _remove(kept: dict[str, Series], name: str, array: Floats, bad: NDArray[np.bool_], why: str) -> list[Impossible]:
    if not bad.any():
        return []
    for column in (name, *_DERIVED.get(name, ())):
        if column in kept:
            kept[column] = kept[column].mask(bad)
    return [Impossible(int(row), name, float(array[row]), why) for row in np.flatnonzero(bad)]
