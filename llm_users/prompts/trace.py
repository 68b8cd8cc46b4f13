"""Recorded traffic: when requests came, how long they were and what they shared, from the shapes of public traces.

Times and lengths only. Knows nothing of texts, or of how a trace is replayed.
"""

from __future__ import annotations

import csv
import io
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from operator import itemgetter
from typing import IO, Any, NamedTuple

from llm_users.number_words import LONGEST_DURATION_S, DurationError, parse_duration
from llm_users.prompts.input_files import opened
from llm_users.prompts.prompt import PromptError

BLOCK_TOKENS = 512
"""What one of Mooncake's hashes stands for. (Qwen-Bailian's traces: 16; the replay of Dynamo: 64 or 128.)"""
_BLOCKS = tuple(2**power for power in range(3, 14))  # what is proposed where a number of hashes does not fit

_MOST_TOKENS = 10_000_000
_LATEST = 1e13  # of a number in a file: a clock's milliseconds are about 2e12, its microseconds 2e15

UNITS = {"s": 1.0, "ms": 0.001}
"""Units of times in traces, in seconds."""
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds"}
_CLOCK_S, _CLOCK_MS = 1e9, 1e11  # the clock's seconds since 2001, and its milliseconds since 1973
_FASTEST_PER_S = 100.0  # of a trace in milliseconds; Mooncake's have 3 to 7 requests per second
_LEAST_HASHED = 0.75  # of the blocks of a trace's input; Mooncake's hashes stand for all of it
_LONGEST_IN_SECONDS = 86400.0  # of a trace in seconds with fractions; Qwen-Bailian's are 2 hours long

MOONCAKE, BURSTGPT, AZURE, VIDUR = "mooncake", "burstgpt", "azure", "vidur"
_NAMES = {MOONCAKE: "Mooncake", BURSTGPT: "BurstGPT", AZURE: "Azure", VIDUR: "Vidur"}
_MOONCAKE_LINE = '{"timestamp": 1500, "input_length": 900, "output_length": 50, "hash_ids": [3, 4]}'
# Of the others: columns of time, input and output, as they stand in the first line.
_COLUMNS = {
    BURSTGPT: ("Timestamp", "Request tokens", "Response tokens"),
    AZURE: ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    VIDUR: ("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
}
_SHAPES = f"A trace has lines such as {_MOONCAKE_LINE} (Mooncake), or is a table with the columns " + ", or ".join(
    f"{', '.join(columns)} ({_NAMES[shape]})" for shape, columns in _COLUMNS.items()
)

_Row = tuple[float, int, int, tuple[int, ...]]  # time in the file's unit, input, output, hashes


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
    block_tokens: int = BLOCK_TOKENS
    """What a hash stands for."""
    unit: str = ""
    """Of the times in the file: ``s`` or ``ms``; "" where they are dates."""
    guesses: tuple[str, ...] = ()
    """What was concluded from the content, and which option says it instead."""

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
        if self.unit:
            text += f"; times in {_UNIT_NAMES[self.unit]}"
        if hashed:
            text += f"; {hashed} say what they share, in blocks of {self.block_tokens} tokens"
        return text + "".join(f"; {rows} rows left out: {why}" for why, rows in self.skipped.items())


def parse_window(text: str) -> tuple[float, float]:
    """Seconds (from, to) from ``0-600`` or ``10m-20m``. Raises ``PromptError``."""
    problem = f"{text[:80]!r} is not FROM-TO in the time of the trace; write for example 0-600 or 10m-20m"
    start, _, end = text.partition("-")
    try:
        start_s, end_s = parse_duration(start), parse_duration(end)
    except DurationError as error:
        raise PromptError(f"{problem} ({error})") from None
    if start_s >= end_s:
        raise PromptError(f"{problem} (the window ends before it starts)")
    return start_s, end_s


def read_trace(
    name: str,
    *,
    speed: float = 1.0,
    window: tuple[float, float] | None = None,
    unit: str | None = None,
    block_tokens: int = BLOCK_TOKENS,
) -> Trace:
    """The trace in file ``name``, replayed ``speed`` times as fast; its shape is seen from its content.

    ``window`` (from, to) takes a part of it, in seconds of its own time from its first row on; the replay then begins
    at the window's start, else at its first request. Rows need not be in order. ``unit`` (``s`` or ``ms``) is that of
    its times; None: ``_unit_of`` decides. A hash stands for ``block_tokens`` tokens. Reads all of the file: not for an
    event loop. Raises ``PromptError``.
    """
    where = f"trace {name!r}"
    with opened(where, name) as file:
        shape = _shape_of(where, file)
        rows = list(_json_rows(where, file, block_tokens) if shape == MOONCAKE else _table_rows(where, file, shape))
    if not rows:
        raise PromptError(f"{where} has no rows. {_SHAPES}")
    rows.sort(key=itemgetter(0))
    unit, reason = _unit_of(where, shape, rows, unit)
    scale_s = UNITS[unit] if unit else 1.0
    first_s, last_s = rows[0][0] * scale_s, rows[-1][0] * scale_s
    if scale_s != 1:
        rows = [(row[0] * scale_s, *row[1:]) for row in rows]
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
    if not (kept[-1][0] - zero_s) / speed <= LONGEST_DURATION_S:
        raise PromptError(
            f"{where}: {kept[-1][0] - zero_s:.6g} s of it at {speed:g} times its speed take longer than a year. Take a "
            "part of it (--llm-trace-window), or replay it faster (--llm-trace-speed)"
        )
    entries = [TraceEntry(max(0.0, row[0] - zero_s) / speed, *row[1:]) for row in kept]
    trace = Trace(name, shape, entries, dict(skipped), block_tokens, unit)
    return replace(trace, guesses=(*_guessed_unit(trace, reason), *_too_few_hashes(trace)))


def _unit_of(where: str, shape: str, rows: list[_Row], given: str | None) -> tuple[str, str | None]:
    """(unit of the times, why it was concluded where that should be said). ``rows`` are in the order of time.

    BurstGPT's and Vidur's tables have seconds by their descriptions, Azure's have dates. JSON lines with the same
    fields have milliseconds (Mooncake) or seconds (Qwen-Bailian, GuideLLM), and nothing in a line says which. A wrong
    guess is 1,000 times the load, or a thousandth of it, so:

    1. The option decides, where it is given.
    2. Times of a clock are known by their size: a clock's seconds are about 2e9, its milliseconds 2e12.
    3. Times with fractions are seconds, since Mooncake's milliseconds are whole numbers. Longer than a day in that
       unit the trace is refused: some programs write fractions of milliseconds.
    4. Whole numbers are milliseconds, as in Mooncake's. With more than 100 requests per second in that unit the trace
       is refused: it may well have whole seconds.

    For rules 3 and 4, a note gives the resulting rate and length.
    """
    if shape == AZURE:
        if given is not None:
            raise PromptError(f"{where}: its times are dates, which have no unit. Leave out --llm-trace-unit")
        return "", None
    if shape != MOONCAKE or given is not None:
        return given or "s", None
    first, last = rows[0][0], rows[-1][0]
    if first >= _CLOCK_S:
        return ("ms" if first >= _CLOCK_MS else "s"), None
    if first == last:
        return "ms", None  # all at once in every unit
    if any(row[0] % 1 for row in rows):
        if last - first <= _LONGEST_IN_SECONDS:
            return "s", "some of them have fractions"
    elif (len(rows) - 1) / (last - first) * 1000 <= _FASTEST_PER_S:
        return "ms", "all of them are whole numbers"
    readings = " or ".join(
        f"{_UNIT_NAMES[unit]} ({(last - first) * scale_s:.6g} s, "
        f"{(len(rows) - 1) / ((last - first) * scale_s):.3g} requests per second)"
        for unit, scale_s in UNITS.items()
    )
    raise PromptError(f"{where}: its times could be {readings}. Say which: --llm-trace-unit s, or ms")


def _guessed_unit(trace: Trace, reason: str | None) -> Iterator[str]:
    if reason is not None:
        other = next(unit for unit in UNITS if unit != trace.unit)
        yield (
            f"trace {trace.name}: its times are read as {_UNIT_NAMES[trace.unit]}, because {reason}: "
            f"{len(trace.entries)} requests in {trace.duration_s:.6g} s, {trace.rate_per_s:g} per second. "
            f"--llm-trace-unit {trace.unit} confirms that, --llm-trace-unit {other} changes it"
        )


def _too_few_hashes(trace: Trace) -> Iterator[str]:
    """Say when hashes stand for much less than the input: then they are likely to be those of larger blocks."""
    hashed = [entry for entry in trace.entries if entry.hash_ids]
    hashes = sum(len(entry.hash_ids) for entry in hashed)
    blocks = sum(-(-entry.input_tokens // trace.block_tokens) for entry in hashed)
    if hashed and hashes < _LEAST_HASHED * blocks:
        yield (
            f"trace {trace.name}: its hashes stand for {hashes / blocks:.0%} of the input tokens in blocks of "
            f"{trace.block_tokens}. If they are those of larger blocks, say how large: --llm-trace-block-size"
        )


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
    if not head:
        raise PromptError(f"{where} is empty. {_SHAPES}")
    if head.startswith(b"{"):
        return MOONCAKE
    try:
        first = head.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PromptError(f"{where}: the first line is not UTF-8 text. Check the path, or save it as UTF-8") from error
    names = {cell.strip().strip('"').lower() for cell in first.split(",")}
    for shape, columns in _COLUMNS.items():
        if names.issuperset(column.lower() for column in columns):
            return shape
    raise PromptError(f"{where}: the first line {first[:60]!r} is of no known shape. {_SHAPES}")


@dataclass(slots=True)
class _Line:
    """What is read of a line of Mooncake's."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()


def _json_rows(where: str, file: IO[bytes], block_tokens: int) -> Iterator[_Row]:
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
        blocks = -(-line.input_length // block_tokens)
        if len(line.hash_ids) > max(0, blocks) + 1:
            raise PromptError(_too_many_hashes(f"{where}, line {number}", line, block_tokens))
        yield _checked((line.timestamp, line.input_length, line.output_length, line.hash_ids), where, number)


def _too_many_hashes(where: str, line: _Line, block_tokens: int) -> str:
    hashes, tokens = len(line.hash_ids), line.input_length
    fitting = next((block for block in reversed(_BLOCKS) if -(-tokens // block) == hashes), None)
    return (
        f"{where}: {hashes} hash_ids for {tokens} tokens. A hash stands for {block_tokens} tokens, so "
        f"{-(-tokens // block_tokens)} are expected. If the blocks of this trace have another size, say it: "
        f"--llm-trace-block-size {fitting or 'TOKENS'}"
    )


def _table_rows(where: str, file: IO[bytes], shape: str) -> Iterator[_Row]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    rows = csv.reader(text)
    time_of: Callable[[str], float] = _moment_s if shape == AZURE else float
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
                row = (time_of(cells[at]), _count(cells[into]), _count(cells[out]), ())
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
    if 0 <= row[0] <= _LATEST and 0 <= row[1] <= _MOST_TOKENS and 0 <= row[2] <= _MOST_TOKENS:
        return row
    raise PromptError(
        f"{where}, line {number}: time {row[0]:g}, input {row[1]} tokens, output {row[2]} tokens cannot be. Times are "
        f"from 0 on (of a clock: seconds or milliseconds since 1970), lengths from 0 to {_MOST_TOKENS}; correct the "
        "row, or leave it out"
    )


def _bad_cells(where: str, number: int, shape: str, cells: list[Any]) -> str:
    names = _COLUMNS[shape]
    moment = "a moment such as 2023-11-16 18:15:46.6805900" if shape == AZURE else "a number"
    found = ", ".join(f"{name} {str(cell)[:40]!r}" for name, cell in zip(names, cells, strict=True))
    return (
        f"{where}, line {number}: {found}. {names[0]} is {moment}, the other two are whole numbers of tokens; correct "
        "the row, or leave it out"
    )
