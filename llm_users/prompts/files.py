"""Data sets: files of prompts by their name's ending, one column of them where that is named, and hub data sets.

A bad file is refused when it is read, with the place that is wrong. Knows nothing of the order in which they are asked.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llm_users.prompts.hub import HUB, read_hub
from llm_users.prompts.input_files import COMPRESSED, ending_of, read_text, stamp_of
from llm_users.prompts.items import CAPS, LENGTH, SHAPE, Item, item_of
from llm_users.prompts.parquet import read_parquet
from llm_users.prompts.prompt import PromptError

_JSON_LINES = frozenset({".jsonl", ".json-lines", ".jsonlines", ".ndjson", ".json"})
_TABLES = {".csv": ",", ".tsv": "\t"}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_MOST_DIGITS = 15  # of a length; int() itself refuses thousands of digits


@dataclass(frozen=True, slots=True)
class DataSet:
    """What a file has: at least one item."""

    name: str
    items: list[Item]
    skipped: int = 0  # empty ones, and recorded conversations in which no user says anything


def split_name(name: str) -> tuple[Path, str | None]:
    """(file, column) of ``FILE`` or ``FILE:COLUMN``. A file whose name has the colon in it comes first."""
    # os.path: Path's own raise when a name is too long for one, or for a home that does not exist.
    whole = os.path.expanduser(name)  # noqa: PTH111
    file, colon, column = whole.rpartition(":")
    if colon and column and not os.path.exists(whole):  # noqa: PTH110
        return Path(file), column
    return Path(whole), None


def read_items(name: str) -> DataSet:
    """The data set ``FILE[:COLUMN]`` or ``hf:ORG/NAME[:SPLIT][:COLUMN]``. Raises ``PromptError``.

    JSON lines, JSON, CSV, TSV and Parquet by the name's ending, else a text with one prompt on each line; compressed or
    not. Reads all of it, and may use the network for a hub data set: not for an event loop. The same one again, in a
    file that has not changed, is there at once; ``forget_items`` frees it.
    """
    return _read_items(name, None if name.startswith(HUB) else stamp_of(split_name(name)[0]))


def forget_items() -> None:
    """Free what ``read_items`` keeps for its next caller."""
    _read_items.cache_clear()


@lru_cache(maxsize=1)  # the check before the run and the run itself, in one process, read a file once
def _read_items(name: str, _stamp: tuple[int, int] | None) -> DataSet:
    if name.startswith(HUB):
        found: Iterable[Item | None] = read_hub(name)
    else:
        found = _read_file(*split_name(name))
    items, skipped = [], 0
    for item in found:
        if item is None:
            skipped += 1
        else:
            items.append(item)
    if not items:
        because = f": {_all_of(skipped)} empty" if skipped else ""
        raise PromptError(f"prompts file {name!r} has no prompts{because}. Put one on each line; {SHAPE}")
    return DataSet(name, items, skipped)


def file_digest(file: Path) -> str | None:
    """The SHA-256 of a file's content, in hex; None when it cannot be read. Reads all of it: not for an event loop."""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return None


def texts_digest(name: str) -> str | None:
    """A digest of the texts of a data set, or of its name on the hub; None where texts are generated or unreadable.

    Reads the whole file: not for an event loop.
    """
    if name.startswith(HUB):
        return hashlib.sha256(name.encode()).hexdigest()
    file, column = split_name(name)
    try:
        first = next(iter(_read_file(file, column)), None)
    except PromptError:
        return None  # the run will be refused
    digest = file_digest(file)
    if digest is None or (first is not None and first.input_tokens is not None):
        return None
    return f"{digest}:{column}"


def _all_of(count: int) -> str:
    return "its only entry is" if count == 1 else f"all of its {count} entries are"


def _read_file(file: Path, column: str | None) -> Iterator[Item | None]:
    ending, what = ending_of(file), f"prompts file {str(file)!r}"
    if ending == ".parquet":
        if file.suffix.lower() in COMPRESSED:
            raise PromptError(f"{what}: Parquet is compressed inside. Decompress the file")
        return read_parquet(file, column)
    if ending in _JSON_LINES:
        return (item_of(where, entry, column) for where, entry in json_entries(what, file, SHAPE))
    data = read_text(what, file)
    if ending in _TABLES:
        return _table(what, data, _TABLES[ending], column)
    if column is not None:
        raise PromptError(f"{what} is read as text, one prompt a line: it has no column {column!r}")
    return (Item(line) for _, line in _lines(what, data))


def _lines(what: str, data: bytes) -> Iterator[tuple[str, str]]:
    """(where it stands, the line) of every line that is not empty."""
    # Only at "\n": str.splitlines would also break at characters that may stand inside a prompt, such as U+2028.
    for number, raw in enumerate(data.split(b"\n"), start=1):
        where = f"{what}, line {number}"
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise PromptError(f"{where}: not UTF-8 (byte {error.start + 1} of the line). Save it as UTF-8") from error
        if "\0" in line:
            raise PromptError(f"{where}: has null characters, so it is not text. Check the path")
        if line:
            yield where, line


def json_entries(what: str, file: Path, shape: str) -> Iterator[tuple[str, object]]:
    """(where it stands, the entry) of JSON lines, or of a ``.json`` file that is one list, as ShareGPT's are.

    ``what`` names the file in errors, ``shape`` says there what an entry should be. Raises ``PromptError``.
    """
    data = read_text(what, file)
    whole = ending_of(file) == ".json" and data.lstrip()[:1] == b"["
    # A cut emoji is half a surrogate pair: JSON can say it, and neither tokenizers nor UTF-8 can.
    may_have_surrogates = _SURROGATE.search(data) is not None
    for where, entry in _json_list(what, data, shape) if whole else _json_lines(what, data, shape):
        if may_have_surrogates:
            _check_characters(where, entry)
        yield where, entry


def _json_list(what: str, data: bytes, shape: str) -> Iterator[tuple[str, object]]:
    try:
        entries = json.loads(data)
    except json.JSONDecodeError as error:
        raise _not_json(f"{what}, line {error.lineno}", error, shape) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptError(f"{what}, line {line}: not UTF-8. Save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{what}: not JSON ({error}); {shape}") from error
    for number, entry in enumerate(entries, start=1):
        yield f"{what}, entry {number}", entry


def _json_lines(what: str, data: bytes, shape: str) -> Iterator[tuple[str, object]]:
    for where, line in _lines(what, data):
        try:
            yield where, json.loads(line)
        except json.JSONDecodeError as error:
            raise _not_json(where, error, shape) from error
        except (ValueError, RecursionError) as error:
            raise PromptError(f"{where}: not JSON ({error}); {shape}") from error


def _not_json(where: str, error: json.JSONDecodeError, shape: str) -> PromptError:
    breaks_off = error.pos >= len(error.doc.rstrip())
    reason = "it breaks off" if breaks_off else f"{error.msg}, column {error.colno}"
    return PromptError(f"{where}: not JSON ({reason}); {shape}")


def _check_characters(where: str, entry: object) -> None:
    try:
        json.dumps(entry, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise PromptError(f"{where}: {half} is half of a character. Correct it, or leave the entry out") from error


def _table(what: str, data: bytes, separator: str, column: str | None) -> Iterator[Item | None]:
    """A table with the names of its columns in the first line; a cell may have line breaks."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptError(f"{what}, line {line}: not UTF-8. Save it as UTF-8") from error
    before = csv.field_size_limit(sys.maxsize)  # the limit of 128 kB is for all readers of the process
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        for row in rows:
            where = f"{what}, line {rows.line_num}"
            if None in row or None in row.values():
                raise PromptError(f"{where}: not as many cells as the first line has names. Quote cells with commas")
            yield item_of(where, {name: _cell(name, value) for name, value in row.items()}, column)
    except csv.Error as error:
        raise PromptError(
            f"{what}, line {rows.line_num}: not a table ({error}). Quote cells that have line breaks or quotes"
        ) from error
    finally:
        csv.field_size_limit(before)


def _cell(name: str, value: str) -> object:
    """Lengths are numbers; everything in a table is text."""
    digits = value.strip()
    return int(digits) if name in (*CAPS, LENGTH) and digits.isdecimal() and len(digits) <= _MOST_DIGITS else value
