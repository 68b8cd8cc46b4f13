"""Recorded traffic: when requests came, how long they were and what they shared, from the shapes of public traces.

Times and lengths only. Knows nothing of texts, or of how a trace is replayed.
"""

from __future__ import annotations

import csv
import io
import os
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import IO, Any, NamedTuple

from llm_users.prompts.prompt import PromptError

BLOCK_TOKENS = 512
"""What one of Mooncake's hashes stands for."""

_MOST_TOKENS = 10_000_000
_LATEST_S = 1e12  # of a time in a file; a clock's time is about 2e9
_LONGEST_S = 366 * 86400.0

MOONCAKE, BURSTGPT, AZURE = "mooncake", "burstgpt", "azure"
_NAMES = {MOONCAKE: "Mooncake", BURSTGPT: "BurstGPT", AZURE: "Azure"}
_MOONCAKE_LINE = '{"timestamp": 1500, "input_length": 900, "output_length": 50, "hash_ids": [3, 4]}'
# Of the other two: columns of time, input and output, as they stand in the first line.
_COLUMNS = {
    BURSTGPT: ("Timestamp", "Request tokens", "Response tokens"),
    AZURE: ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
}
_SHAPES = (
    f"A trace has lines such as {_MOONCAKE_LINE} (Mooncake), or is a table with the columns "
    f"{', '.join(_COLUMNS[BURSTGPT])} (BurstGPT) or {', '.join(_COLUMNS[AZURE])} (Azure)"
)
_WINDOW = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)([smh]?)\s*-\s*(\d{1,9}(?:\.\d{1,9})?)([smh]?)\s*", re.ASCII)
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}

_Row = tuple[float, int, int, tuple[int, ...]]  # time, input, output, hashes


class TraceEntry(NamedTuple):
    """One request. (A tuple: a million of them are made in a second.)"""

    at_s: float
    """When it is sent, from the beginning of the replay."""
    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()
    """One for each block of its input; requests with the same first ones begin with the same text."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What is replayed: at least one entry, in the order of time."""

    name: str
    shape: str
    entries: list[TraceEntry]
    skipped: dict[str, int] = field(default_factory=dict)
    """Rows of the window that cannot be replayed, by what is wrong with them."""

    @property
    def duration_s(self) -> float:
        """From the beginning of the replay to its last request."""
        return self.entries[-1].at_s

    @property
    def rate_per_s(self) -> float:
        """The mean rate, to six digits; of requests that all come at once, as if they came within a second."""
        gaps, between_s = len(self.entries) - 1, self.entries[-1].at_s - self.entries[0].at_s
        return float(f"{gaps / between_s:.6g}") if between_s > 0 else float(len(self.entries))

    @property
    def mean_input_tokens(self) -> float:
        return sum(entry.input_tokens for entry in self.entries) / len(self.entries)

    def describe(self) -> str:
        """One line for logs and manifests."""
        count = len(self.entries)
        output = sum(entry.output_tokens for entry in self.entries) / count
        hashed = sum(1 for entry in self.entries if entry.hash_ids)
        text = (
            f"{_NAMES[self.shape]} trace {self.name}: {count} requests in {self.duration_s:.6g} s, on average "
            f"{self.rate_per_s:g} per second with {self.mean_input_tokens:.0f} tokens and answers of {output:.0f}"
        )
        if hashed:
            text += f"; {hashed} say what they share"
        return text + "".join(f"; {rows} rows left out: {why}" for why, rows in self.skipped.items())


def parse_window(text: str) -> tuple[float, float]:
    """Seconds (from, to) from ``0-600`` or ``10m-20m``. Raises ``PromptError``."""
    match = _WINDOW.fullmatch(text)
    start, end = (float(match[1]) * _SECONDS[match[2]], float(match[3]) * _SECONDS[match[4]]) if match else (0.0, 0.0)
    if not start < end:
        raise PromptError(f"{text[:80]!r} is not FROM-TO in the time of the trace; write for example 0-600 or 10m-20m")
    return start, end


def read_trace(name: str, *, speed: float = 1.0, window: tuple[float, float] | None = None) -> Trace:
    """The trace in file ``name``, replayed ``speed`` times as fast; its shape is seen from its content.

    ``window`` (from, to) takes a part of it, in seconds of its own time from its first row on; the replay then begins
    at the window's start, else at its first request. Rows need not be in order. Reads all of the file: not for an
    event loop. Raises ``PromptError``.
    """
    where = f"trace {name!r}"
    try:
        with open(os.path.expanduser(name), "rb") as file:  # noqa: PTH111, PTH123 - Path's raise for odd names
            shape = _shape_of(where, file)
            rows = list(_json_rows(where, file) if shape == MOONCAKE else _table_rows(where, file, shape))
    except (OSError, ValueError) as error:
        if isinstance(error, PromptError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise PromptError(f"{where} cannot be read: {reason}. Check the path") from error
    if not rows:
        raise PromptError(f"{where} has no rows. {_SHAPES}")
    rows.sort(key=itemgetter(0))
    first_s, last_s = rows[0][0], rows[-1][0]
    if window is not None:
        low, high = (bisect_left(rows, first_s + edge_s, key=itemgetter(0)) for edge_s in window)
        rows = rows[low:high]
    skipped = Counter(why for row in rows if (why := _why_not(shape, row)))
    kept = [row for row in rows if row[1] and row[2]] if skipped else rows
    if not kept:
        counts = ", ".join(f"{count} {why}" for why, count in skipped.items())
        raise PromptError(
            f"{where}: nothing to replay" + (f" ({counts})" if counts else "") + f"; it is {last_s - first_s:.6g} s "
            "long. Choose another part of it (--llm-trace-window), or another file"
        )
    zero_s = kept[0][0] if window is None else first_s + window[0]
    if not (kept[-1][0] - zero_s) / speed <= _LONGEST_S:
        raise PromptError(
            f"{where}: {kept[-1][0] - zero_s:.6g} s of it at {speed:g} times its speed take longer than a year. Take a "
            "part of it (--llm-trace-window), or replay it faster (--llm-trace-speed)"
        )
    entries = [TraceEntry(max(0.0, row[0] - zero_s) / speed, *row[1:]) for row in kept]
    return Trace(name, shape, entries, dict(skipped))


def _why_not(shape: str, row: _Row) -> str | None:
    if row[2] == 0:
        return "failed, no response tokens" if shape == BURSTGPT else "no output tokens"
    return "no input tokens" if row[1] == 0 else None


def _shape_of(where: str, file: IO[bytes]) -> str:
    """From the first line that has anything; the file stands at its beginning again afterwards."""
    head = b""
    for line in file:
        head = line.removeprefix(b"\xef\xbb\xbf").strip()
        if head:
            break
    file.seek(0)
    if head.startswith(b"{"):
        return MOONCAKE
    names = {cell.strip().strip('"').lower() for cell in head.decode("utf-8", "replace").split(",")}
    for shape, columns in _COLUMNS.items():
        if names.issuperset(column.lower() for column in columns):
            return shape
    found = repr(head[:60].decode("utf-8", "replace"))
    raise PromptError(f"{where}: the first line {found} is of no known shape. {_SHAPES}")


@dataclass(slots=True)
class _Line:
    """What is read of a line of Mooncake's."""

    timestamp: float  # ms
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()


def _json_rows(where: str, file: IO[bytes]) -> Iterator[_Row]:
    import msgspec  # here: whoever replays nothing shall not pay for it

    decode = msgspec.json.Decoder(_Line).decode
    for number, raw in enumerate(file, start=1):
        text = (raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw).strip()
        if not text:
            continue
        try:
            line = decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise PromptError(
                f"{where}, line {number}: no entry of a Mooncake trace ({error}). Write lines such as {_MOONCAKE_LINE}"
            ) from error
        blocks = -(-line.input_length // BLOCK_TOKENS)
        if len(line.hash_ids) > max(0, blocks) + 1:
            raise PromptError(
                f"{where}, line {number}: {len(line.hash_ids)} hash_ids for {line.input_length} tokens. A hash stands "
                f"for {BLOCK_TOKENS} tokens, so {blocks} are expected; convert a trace with other blocks"
            )
        row = (line.timestamp / 1000, line.input_length, line.output_length, line.hash_ids)
        yield _checked(row, where, number)


def _table_rows(where: str, file: IO[bytes], shape: str) -> Iterator[_Row]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    rows = csv.reader(text)
    time_s: Callable[[str], float] = float if shape == BURSTGPT else _moment_s
    number = 0
    try:
        header: list[str] = []
        while not header:
            header = [cell.strip().lower() for cell in next(rows)]
        at, into, out = (header.index(column.lower()) for column in _COLUMNS[shape])
        for cells in rows:
            number = rows.line_num
            if not cells:
                continue
            if len(cells) != len(header):
                raise PromptError(
                    f"{where}, line {number}: {len(cells)} cells, but the first line names {len(header)} columns. "
                    "Complete the row, or leave it out"
                )
            try:
                row = (time_s(cells[at]), _count(cells[into]), _count(cells[out]), ())
            except (ValueError, OverflowError):
                raise PromptError(_bad_cells(where, number, shape, [cells[at], cells[into], cells[out]])) from None
            yield _checked(row, where, number)
    except UnicodeDecodeError as error:
        raise PromptError(f"{where}, near line {number + 1}: not UTF-8. Save it as UTF-8") from error
    except csv.Error as error:
        raise PromptError(f"{where}, line {rows.line_num}: not a table ({error})") from error


def _moment_s(text: str) -> float:
    """A moment such as ``2023-11-16 18:15:46.6805900``, without a zone in UTC."""
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _count(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(text)
    return int(text)


def _checked(row: _Row, where: str, number: int) -> _Row:
    """The row, once its numbers can be. Every comparison is false for NaN."""
    if 0 <= row[0] <= _LATEST_S and 0 <= row[1] <= _MOST_TOKENS and 0 <= row[2] <= _MOST_TOKENS:
        return row
    raise PromptError(
        f"{where}, line {number}: time {row[0]:g} s, input {row[1]} tokens, output {row[2]} tokens cannot be. Times "
        f"are from 0 on (of a clock: since 1970), lengths from 0 to {_MOST_TOKENS}; correct the row, or leave it out"
    )


def _bad_cells(where: str, number: int, shape: str, cells: list[Any]) -> str:
    names = _COLUMNS[shape]
    moment = "seconds" if shape == BURSTGPT else "a moment such as 2023-11-16 18:15:46.6805900"
    found = ", ".join(f"{name} {str(cell)[:40]!r}" for name, cell in zip(names, cells, strict=True))
    return (
        f"{where}, line {number}: {found}. {names[0]} is {moment}, the other two are whole numbers of tokens; correct "
        "the row, or leave it out"
    )
