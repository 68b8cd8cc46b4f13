"""Recorded traffic in the formats of public traces, and prompts with the lengths and shared prefixes of its requests.

It does not depend on how a trace is replayed.
"""

from __future__ import annotations

import csv
import hashlib
import io
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import IO, NamedTuple

from llm_users.number_words import LONGEST_DURATION_S, DurationError, parse_duration
from llm_users.prompts.draws import passes, stream
from llm_users.prompts.input_files import opened
from llm_users.prompts.line_counts import CONTEXT
from llm_users.prompts.openings import Openings
from llm_users.prompts.prompt import Prompt, PromptError
from llm_users.prompts.sonnets import sonnet_texts
from llm_users.prompts.tokenizer import Tokenizer

BLOCK_TOKENS = 512
"""Tokens per hash in Mooncake's traces. (Qwen-Bailian's traces: 16; the replay of Dynamo: 64 or 128.)"""
_BLOCKS = tuple(2**power for power in range(3, 14))  # block sizes to suggest when the number of hashes does not match

_MOST_TOKENS = 10_000_000
_LATEST = 1e13  # of a time in a file: milliseconds of a clock are about 2e12, microseconds 2e15

UNITS = {"s": 1.0, "ms": 0.001}
"""Units of times in traces, in seconds."""
_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds"}
_CLOCK_S, _CLOCK_MS = 1e9, 1e11  # clock times: seconds of 2001 and later, milliseconds of 1973 and later
_FASTEST_PER_S = 100.0  # of a trace in milliseconds; Mooncake's traces have 3 to 7 requests per second
_LEAST_HASHED = 0.75  # of the blocks of the input; Mooncake's hashes cover the complete input
_LONGEST_IN_SECONDS = 86400.0  # of a trace in fractional seconds; Qwen-Bailian's traces are 2 hours long

MOONCAKE, BURSTGPT, AZURE, VIDUR = "mooncake", "burstgpt", "azure", "vidur"
_NAMES = {MOONCAKE: "Mooncake", BURSTGPT: "BurstGPT", AZURE: "Azure", VIDUR: "Vidur"}
_MOONCAKE_LINE = '{"timestamp": 1500, "input_length": 900, "output_length": 50, "hash_ids": [3, 4]}'
# The other formats: columns of time, input and output, as in the first line of the file.
_COLUMNS = {
    BURSTGPT: ("Timestamp", "Request tokens", "Response tokens"),
    AZURE: ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
    VIDUR: ("arrived_at", "num_prefill_tokens", "num_decode_tokens"),
}
_FORMATS = f"A trace has lines such as {_MOONCAKE_LINE} (Mooncake), or is a table with the columns " + ", or ".join(
    f"{', '.join(columns)} ({_NAMES[shape]})" for shape, columns in _COLUMNS.items()
)

_TOKENS_KEPT = 8192 * 512  # tokens of cached blocks, about 16 MB of text
_CORRECTIONS = 3
_ATTEMPTS = 10  # per block; sufficient for all of 7,000 blocks of 8 to 512 tokens with six tokenizers
_SHORT_BLOCK = 16

_Row = tuple[float, int, int, tuple[int, ...]]  # time in the file's unit, input, output, hashes


class TraceEntry(NamedTuple):
    """One request. (A tuple, because a million tuples are created in a second.)"""

    at_s: float
    """Send time in seconds from the start of the replay."""
    input_tokens: int
    output_tokens: int
    hash_ids: tuple[int, ...] = ()
    """One hash per block of the input; requests with the same first hashes start with the same text."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests to replay: at least one entry, sorted by time."""

    name: str
    shape: str
    entries: list[TraceEntry]
    skipped: dict[str, int] = field(default_factory=dict)
    """Number of rows in the window that cannot be replayed, by the reason."""
    block_tokens: int = BLOCK_TOKENS
    """Tokens per hash."""
    unit: str = ""
    """Unit of the times in the file: ``s`` or ``ms``; "" for dates."""
    guesses: tuple[str, ...] = ()
    """Notes on settings that were guessed from the content, with the options that set them."""

    @property
    def duration_s(self) -> float:
        """Time from the start of the replay to its last request."""
        return self.entries[-1].at_s

    @property
    def rate_per_s(self) -> float:
        """The mean rate with six digits; if all requests arrive at the same time, their number per second."""
        gaps, between_s = len(self.entries) - 1, self.entries[-1].at_s - self.entries[0].at_s
        return float(f"{gaps / between_s:.6g}") if between_s > 0 else float(len(self.entries))

    @property
    def mean_input_tokens(self) -> float:
        return sum(entry.input_tokens for entry in self.entries) / len(self.entries)

    def describe(self) -> str:
        """Return one line for logs and manifests."""
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
            text += f"; {hashed} have hashes of blocks of {self.block_tokens} tokens"
        return text + "".join(f"; {rows} rows skipped: {reason}" for reason, rows in self.skipped.items())


def parse_window(text: str) -> tuple[float, float]:
    """Parse (from, to) in seconds from ``0-600`` or ``10m-20m``. Raises ``PromptError``."""
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
    """Return the trace in file ``name``, replayed ``speed`` times as fast; its content determines its format.

    ``window`` (from, to) selects a part, in seconds of the trace from its first row; the replay then starts with the
    window, otherwise at the first request. Rows can be in any order. ``unit`` (``s`` or ``ms``) is the unit of
    the times; None: ``_unit_of`` decides. A hash represents ``block_tokens`` tokens. The function reads the complete
    file: do not call it in an event loop. Raises ``PromptError``.
    """
    where = f"trace {name!r}"
    with opened(where, name) as file:
        shape = _shape_of(where, file)
        rows = list(_json_rows(where, file, block_tokens) if shape == MOONCAKE else _table_rows(where, file, shape))
    if not rows:
        raise PromptError(f"{where} has no rows. {_FORMATS}")
    rows.sort(key=itemgetter(0))
    unit, reason = _unit_of(where, shape, rows, unit)
    scale_s = UNITS[unit] if unit else 1.0
    first_s, last_s = rows[0][0] * scale_s, rows[-1][0] * scale_s
    if scale_s != 1:
        rows = [(row[0] * scale_s, *row[1:]) for row in rows]
    if window is not None:
        low, high = (bisect_left(rows, first_s + edge_s, key=itemgetter(0)) for edge_s in window)
        rows = rows[low:high]
    no_output = "failed, no response tokens" if shape == BURSTGPT else "no output tokens"
    skipped = Counter(no_output if row[2] == 0 else "no input tokens" for row in rows if not (row[1] and row[2]))
    kept = [row for row in rows if row[1] and row[2]] if skipped else rows
    if not kept:
        counts = ", ".join(f"{count} {why}" for why, count in skipped.items())
        raise PromptError(
            f"{where}: there are no requests to replay" + (f" ({counts})" if counts else "") + "; the trace is "
            f"{last_s - first_s:.6g} s long. Choose another part of it (--llm-trace-window), or another file"
        )
    zero_s = kept[0][0] if window is None else first_s + window[0]
    if not (kept[-1][0] - zero_s) / speed <= LONGEST_DURATION_S:
        raise PromptError(
            f"{where}: the replay of {kept[-1][0] - zero_s:.6g} s at {speed:g} times the speed takes longer than a "
            "year. Choose a part of the trace (--llm-trace-window), or replay it faster (--llm-trace-speed)"
        )
    entries = [TraceEntry(max(0.0, row[0] - zero_s) / speed, *row[1:]) for row in kept]
    trace = Trace(name, shape, entries, dict(skipped), block_tokens, unit)
    return replace(trace, guesses=tuple(_notes_on_guesses(trace, reason)))


def _unit_of(where: str, shape: str, rows: list[_Row], given: str | None) -> tuple[str, str | None]:
    """Return (unit of the times, reason for the guess if the user should know it). ``rows`` are sorted by time.

    According to their documentation, BurstGPT's and Vidur's tables have seconds and Azure's tables have dates. JSON
    lines with the same fields have milliseconds (Mooncake) or seconds (Qwen-Bailian, GuideLLM), and a line does not
    contain the unit. A wrong guess means 1,000 times the load, or a thousandth of it, so:

    1. The option decides, if it is set.
    2. The size identifies clock times: clock seconds are about 2e9, clock milliseconds 2e12.
    3. Times with fractions are seconds, because Mooncake's milliseconds are whole numbers. A trace longer than a day
       in this unit is rejected: some programs write fractions of milliseconds.
    4. Whole numbers are milliseconds, as in Mooncake's traces. A trace with more than 100 requests per second in this
       unit is rejected: its times may be whole seconds.

    For rules 3 and 4, a note contains the resulting rate and length.
    """
    if shape == AZURE:
        if given is not None:
            raise PromptError(f"{where}: its times are dates, which have no unit. Omit --llm-trace-unit")
        return "", None
    if shape != MOONCAKE or given is not None:
        return given or "s", None
    first, last = rows[0][0], rows[-1][0]
    if first >= _CLOCK_S:
        return ("ms" if first >= _CLOCK_MS else "s"), None
    if first == last:
        return "ms", None  # all at the same time in every unit
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
    raise PromptError(f"{where}: its times could be {readings}. Set --llm-trace-unit to s or ms")


def _notes_on_guesses(trace: Trace, reason: str | None) -> Iterator[str]:
    if reason is not None:
        other = next(unit for unit in UNITS if unit != trace.unit)
        yield (
            f"trace {trace.name}: its times are read as {_UNIT_NAMES[trace.unit]}, because {reason}: "
            f"{len(trace.entries)} requests in {trace.duration_s:.6g} s, {trace.rate_per_s:g} per second. "
            f"--llm-trace-unit {trace.unit} confirms this, --llm-trace-unit {other} changes it"
        )
    # When the hashes cover much less than the input, their blocks are probably larger.
    hashed = [entry for entry in trace.entries if entry.hash_ids]
    hashes = sum(len(entry.hash_ids) for entry in hashed)
    blocks = sum(-(-entry.input_tokens // trace.block_tokens) for entry in hashed)
    if hashed and hashes < _LEAST_HASHED * blocks:
        yield (
            f"trace {trace.name}: its hashes stand for {hashes / blocks:.0%} of the input tokens with blocks of "
            f"{trace.block_tokens} tokens. If its blocks are larger, set their size with --llm-trace-block-size"
        )


def _shape_of(where: str, file: IO[bytes]) -> str:
    """Return the format according to the first non-empty line; the file is at its start again afterwards."""
    head = b""
    for line in file:
        head = line.removeprefix(b"\xef\xbb\xbf").strip()
        if head:
            break
    file.seek(0)
    if not head:
        raise PromptError(f"{where} is empty. {_FORMATS}")
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
    raise PromptError(f"{where}: the first line {first[:60]!r} has an unknown format. {_FORMATS}")


@dataclass(slots=True)
class _Line:
    """The fields of a line of a Mooncake trace."""

    timestamp: float
    input_length: int
    output_length: int
    hash_ids: tuple[int, ...] = ()


def _json_rows(where: str, file: IO[bytes], block_tokens: int) -> Iterator[_Row]:
    import msgspec  # imported here, so that runs without a trace do not load it

    decode = msgspec.json.Decoder(_Line).decode
    for number, raw in enumerate(file, start=1):
        text = (raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw).strip()
        if not text:
            continue
        try:
            line = decode(text)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise PromptError(
                f"{where}, line {number}: not a Mooncake trace entry ({error}). Write lines such as {_MOONCAKE_LINE}"
            ) from error
        blocks = -(-line.input_length // block_tokens)
        if len(line.hash_ids) > max(0, blocks) + 1:
            hashes, tokens = len(line.hash_ids), line.input_length
            fitting = next((block for block in reversed(_BLOCKS) if -(-tokens // block) == hashes), None)
            raise PromptError(
                f"{where}, line {number}: {hashes} hash_ids for {tokens} tokens. A hash represents {block_tokens} "
                f"tokens, so {blocks} are expected. If the blocks of this trace have another size, set "
                f"--llm-trace-block-size {fitting or 'TOKENS'}"
            )
        yield _checked((line.timestamp, line.input_length, line.output_length, line.hash_ids), where, number)


def _table_rows(where: str, file: IO[bytes], shape: str) -> Iterator[_Row]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    rows = csv.reader(text)
    time_of: Callable[[str], float] = _unix_time_s if shape == AZURE else float
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
                    "Complete the row, or remove it"
                )
            try:
                row = (time_of(cells[at]), _count(cells[into]), _count(cells[out]), ())
            except (ValueError, OverflowError):
                names = _COLUMNS[shape]
                time_format = "a date such as 2023-11-16 18:15:46.6805900" if shape == AZURE else "a number"
                texts = (f"{name} {cells[cell][:40]!r}" for name, cell in zip(names, (at, into, out), strict=True))
                raise PromptError(
                    f"{where}, line {number}: {', '.join(texts)}. {names[0]} must be {time_format}, the other two "
                    "whole numbers of tokens; correct the row, or remove it"
                ) from None
            yield _checked(row, where, number)
    except UnicodeDecodeError as error:
        raise PromptError(f"{where}, near line {number + 1}: not UTF-8. Save it as UTF-8") from error
    except csv.Error as error:
        raise PromptError(f"{where}, line {rows.line_num}: not a table ({error})") from error


def _unix_time_s(text: str) -> float:
    """Return the Unix time of a date such as ``2023-11-16 18:15:46.6805900``; without a time zone, it is in UTC."""
    moment = datetime.fromisoformat(text.strip())
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _count(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(text)
    return int(text)


def _checked(row: _Row, where: str, number: int) -> _Row:
    """Return the row if its numbers are in range. (Every comparison is false for NaN.) Raises ``PromptError``."""
    if 0 <= row[0] <= _LATEST and 0 <= row[1] <= _MOST_TOKENS and 0 <= row[2] <= _MOST_TOKENS:
        return row
    raise PromptError(
        f"{where}, line {number}: time {row[0]:g}, input {row[1]} tokens, output {row[2]} tokens are out of range. "
        "Times must be 0 or more (of a clock: seconds or milliseconds since 1970), lengths from 0 to "
        f"{_MOST_TOKENS}; correct the row, or remove it"
    )


class TraceSource:
    """Prompt i is entry i: one block of lines per hash, then a part of a block or lines of this entry.

    A block depends only on its hash and on the text seed (built from the seed and the run key). It has the number of
    tokens of the trace (``block_tokens``) and ends with a line break, so that the text after it does not change its
    token count. Blocks, and lines of a single entry, start with a few unique digits: different hashes have different
    texts. The cache-busting head of a prompt is part of its length.
    """

    different: int | None = None

    def __init__(self, tokenizer: Tokenizer, trace: Trace, text_seed: str, openings: Openings) -> None:
        self._tokenizer, self._text_seed, self._openings = tokenizer, text_seed, openings
        self._texts = sonnet_texts(tokenizer)
        self._count = self._texts.count
        self._entries = trace.entries
        self._block_tokens = trace.block_tokens
        self._block = lru_cache(max(1, _TOKENS_KEPT // trace.block_tokens))(self._make_block)
        self.notes: tuple[str, ...] = (*trace.guesses, *([trace.describe()] if trace.skipped else []))

    def prompt(self, index: int) -> Prompt:
        entry = self._entries[index % len(self._entries)]
        opening = self._openings.text(index)
        whole = min(len(entry.hash_ids), (entry.input_tokens - 1) // self._block_tokens)
        for head in dict.fromkeys((opening, "")):  # a prompt that is too short has no opening
            for blocks in range(whole, max(-1, whole - 2), -1):
                text = self._build(head, index, entry, blocks)
                if text is not None:
                    return Prompt(index, text, None, entry.input_tokens, entry.output_tokens)
        raise PromptError(
            f"entry {index} of the trace: no text of exactly {entry.input_tokens} tokens could be built with tokenizer "
            f"{self._tokenizer.name!r}. Check that this tokenizer counts ordinary text, or choose another "
            "(--llm-tokenizer)"
        )

    def _build(self, head: str, index: int, entry: TraceEntry, count: int) -> str | None:
        """Return ``head``, ``count`` complete blocks (fewer if they are too long), and the rest, or None."""
        blocks = [self._block(number) for number in entry.hash_ids[:count]]
        left = entry.input_tokens - sum(cost for _, cost in blocks) - (self._cost(head) if head else 0)
        while blocks and left < 1:
            left += blocks.pop()[1]
        if left < 1:
            return None
        head += "".join(text for text, _ in blocks)
        rest = ("block", entry.hash_ids[len(blocks)]) if len(blocks) < len(entry.hash_ids) else ("entry", index)
        for mark in (self._mark(rest), ""):  # the rest can be shorter than its mark
            text = self._end(head, mark, rest, left, entry.input_tokens)
            if text is not None:
                return text
        return None

    def _end(self, head: str, mark: str, rest: tuple[str, int], left: int, tokens: int) -> str | None:
        """Return ``head`` and lines of ``rest``: ``left`` tokens by estimate, ``tokens`` in total; None if not found.

        The lines are fitted to the last line of ``head`` only, so that a head of 100,000 tokens is counted only once or
        twice.
        """
        before = head[head.rfind("\n", 0, -1) + 1 :]
        before_tokens = self._count(before) if before else 0
        for _ in range(_CORRECTIONS):
            if left < 1:
                return None
            built = self._texts.build(before + mark, self._order(rest), before_tokens + left)
            if built is None or built.endswith("\n"):  # chat templates strip a line break at the end
                return None
            if not head:
                return built
            text = head + built[len(before) :]
            count = self._count(text)
            if count == tokens:
                return text
            left += tokens - count
        return None

    def _make_block(self, number: int) -> tuple[str, int]:
        """Return the text of a hash and the number of tokens that it adds."""
        name, target = ("block", number), self._block_tokens - 1
        best: tuple[str, int] | None = None
        for attempt in range(_ATTEMPTS):
            # The first two attempts use the same lines. If one has a token too few and the next one a token too many,
            # other lines can have the exact length.
            if attempt > 1:
                target = self._block_tokens - attempt % 2
            lines = self._texts.build(self._mark(name), self._order((*name, attempt) if attempt > 1 else name), target)
            if lines is None:
                continue
            block = lines.removesuffix("\n") + "\n"
            cost = self._cost(block)
            if best is None or abs(cost - self._block_tokens) < abs(best[1] - self._block_tokens):
                best = (block, cost)
            if cost == self._block_tokens:
                break
            target += self._block_tokens - cost
        if best is None:
            raise PromptError(
                f"no shared text of {self._block_tokens} tokens could be built with tokenizer "
                f"{self._tokenizer.name!r}; choose another (--llm-tokenizer)"
            )
        return best

    def _cost(self, text: str) -> int:
        """Return the number of tokens that lines add after other lines."""
        return self._count(CONTEXT + text) - self._count(CONTEXT)

    def _mark(self, name: tuple[str, int]) -> str:
        """Return a mark of 12 hexadecimal digits; 4 digits for blocks of fewer than 16 tokens.

        12 digits can take 9 tokens. With 12 digits and a million blocks, two marks are equal once in 560 traces, and
        then the lines still differ.
        """
        text = f"{self._text_seed}:{name[0]}:{name[1]}".encode()
        return hashlib.blake2b(text, digest_size=6 if self._block_tokens >= _SHORT_BLOCK else 2).hexdigest() + "\n"

    def _order(self, name: tuple[object, ...]) -> Iterator[list[int]]:
        return passes(stream(self._text_seed, "trace", *name), self._texts.lines)
