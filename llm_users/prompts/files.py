"""Reads datasets: files of prompts in the format of their extension, optionally a single column, and hub datasets.

An invalid file is rejected with the position of the error. This module does not depend on the order of prompts.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from llm_users.prompts.hub import HUB, read_hub
from llm_users.prompts.input_files import COMPRESSED, ending_of, read_text, stamp_of
from llm_users.prompts.items import CAPS, CONTENTS, LENGTH, SHAPE, Item, item_of, without_nulls
from llm_users.prompts.prompt import PromptError

_JSON_LINES = frozenset({".jsonl", ".json-lines", ".jsonlines", ".ndjson", ".json"})
_TABLES = {".csv": ",", ".tsv": "\t"}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_MOST_DIGITS = 15  # of a length; int() itself rejects thousands of digits


@dataclass(frozen=True, slots=True)
class DataSet:
    """The items of a file: at least one."""

    name: str
    items: list[Item]
    skipped: int = 0  # empty entries, and recorded conversations without a user message


def split_name(name: str) -> tuple[Path, str | None]:
    """Return (file, column) of ``FILE`` or ``FILE:COLUMN``. An existing file with a colon in its name has priority."""
    # os.path, because the methods of Path raise for a name that is too long and for a home that does not exist.
    whole = os.path.expanduser(name)  # noqa: PTH111
    file, colon, column = whole.rpartition(":")
    if colon and column and not os.path.exists(whole):  # noqa: PTH110
        return Path(file), column
    return Path(whole), None


def read_items(name: str) -> DataSet:
    """Return the dataset ``FILE[:COLUMN]`` or ``hf:ORG/NAME[:SPLIT][:COLUMN]``. Raises ``PromptError``.

    The extension selects JSON lines, JSON, CSV, TSV or Parquet; otherwise, the file is text with one prompt per line.
    Files can be compressed. The function reads the complete file and may use the network for a hub dataset: do not call
    it in an event loop. The result is cached while the file does not change; ``forget_items`` frees it.
    """
    return _read_items(name, None if name.startswith(HUB) else stamp_of(split_name(name)[0]))


def forget_items() -> None:
    """Free the cached result of ``read_items``."""
    _read_items.cache_clear()


@lru_cache(maxsize=1)  # so that the check before the run and the run itself read a file only once
def _read_items(name: str, _stamp: tuple[int, int] | None) -> DataSet:
    entries = list(read_hub(name) if name.startswith(HUB) else _read_file(*split_name(name)))
    items = [item for item in entries if item is not None]
    skipped = len(entries) - len(items)
    if not items:
        all_of = "its only entry is" if skipped == 1 else f"all of its {skipped} entries are"
        reason = f": {all_of} empty" if skipped else ""
        raise PromptError(f"prompts file {name!r} has no prompts{reason}. Write one per line; {SHAPE}")
    return DataSet(name, items, skipped)


def file_digest(file: Path) -> str | None:
    """Return the SHA-256 of a file's content in hex; None when the file cannot be read.

    It reads the complete file: do not call it in an event loop.
    """
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return None


def texts_digest(name: str) -> str | None:
    """Return a digest of the texts of a dataset, or of its hub name; None if texts are generated or unreadable.

    It reads the complete file: do not call it in an event loop.
    """
    if name.startswith(HUB):
        return hashlib.sha256(name.encode()).hexdigest()
    file, column = split_name(name)
    try:
        first = next(iter(_read_file(file, column)), None)
    except PromptError:
        return None  # the run will be rejected
    digest = file_digest(file)
    if digest is None or (first is not None and first.input_tokens is not None):
        return None
    return f"{digest}:{column}"


def _read_file(file: Path, column: str | None) -> Iterator[Item | None]:
    ending, what = ending_of(file), f"prompts file {str(file)!r}"
    if ending == ".parquet":
        if file.suffix.lower() in COMPRESSED:
            raise PromptError(f"{what}: Parquet files have internal compression. Decompress the file")
        return _parquet(file, column)
    if ending in _JSON_LINES:
        return (item_of(where, entry, column) for where, entry in json_entries(what, file, SHAPE))
    data = read_text(what, file)
    if ending in _TABLES:
        return _table(what, data, _TABLES[ending], column)
    if column is not None:
        raise PromptError(f"{what} is read as text with one prompt per line: it has no column {column!r}")
    return (Item(line) for _, line in _lines(what, data))


def _lines(what: str, data: bytes) -> Iterator[tuple[str, str]]:
    """Yield (position for messages, line) for every line that is not empty."""
    # Split only at "\n": str.splitlines also splits at characters that a prompt may contain, such as U+2028.
    for number, raw in enumerate(data.split(b"\n"), start=1):
        where = f"{what}, line {number}"
        try:
            line = raw.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise PromptError(f"{where}: not UTF-8 (byte {error.start + 1} of the line). Save it as UTF-8") from error
        if "\0" in line:
            raise PromptError(f"{where}: contains null characters, so it is not text. Check the path")
        if line:
            yield where, line


def json_entries(what: str, file: Path, shape: str) -> Iterator[tuple[str, object]]:
    """Yield (position for messages, entry) of JSON lines, or of a ``.json`` file with one list, such as ShareGPT's.

    ``what`` is the name of the file in error messages, ``shape`` the expected format. Raises ``PromptError``.
    """
    data = read_text(what, file)
    whole = ending_of(file) == ".json" and data.lstrip()[:1] == b"["
    # A truncated emoji is half a surrogate pair: JSON can represent it; tokenizers and UTF-8 cannot.
    may_have_surrogates = _SURROGATE.search(data) is not None
    for where, entry in _json_list(what, data, shape) if whole else _json_lines(what, data, shape):
        if may_have_surrogates:
            try:
                json.dumps(entry, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                half = f"\\u{ord(error.object[error.start]):04x}"
                raise PromptError(f"{where}: {half} is half of a character. Correct it, or remove the entry") from error
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
    is_truncated = error.pos >= len(error.doc.rstrip())
    reason = "it is incomplete" if is_truncated else f"{error.msg}, column {error.colno}"
    return PromptError(f"{where}: not JSON ({reason}); {shape}")


def _table(what: str, data: bytes, separator: str, column: str | None) -> Iterator[Item | None]:
    """Yield the items of a table with column names in the first line; a cell can contain line breaks."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptError(f"{what}, line {line}: not UTF-8. Save it as UTF-8") from error
    before = csv.field_size_limit(sys.maxsize)  # the limit of 128 kB applies to all readers of the process
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        for row in rows:
            where = f"{what}, line {rows.line_num}"
            if None in row or None in row.values():
                raise PromptError(f"{where}: the number of cells differs from the first line. Quote cells with commas")
            yield item_of(where, {name: _cell(name, value) for name, value in row.items()}, column)
    except csv.Error as error:
        raise PromptError(
            f"{what}, line {rows.line_num}: not a table ({error}). Quote cells that contain line breaks or quotes"
        ) from error
    finally:
        csv.field_size_limit(before)


def _cell(name: str, value: str) -> object:
    """Return the value of a cell: a number in columns with lengths, otherwise the text."""
    digits = value.strip()
    return int(digits) if name in (*CAPS, LENGTH) and digits.isdecimal() and len(digits) <= _MOST_DIGITS else value


def _parquet(file: Path, column: str | None) -> Iterator[Item | None]:
    """Yield the rows of the file; only the columns that describe prompts are read. Raises ``PromptError``."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise PromptError(
            f"prompts file {str(file)!r}: reading Parquet needs the package pyarrow, which cannot be imported "
            f"({error}). Install it (pip install '.[parquet]' in a clone of the repository), or save the prompts as "
            "JSON lines"
        ) from error
    try:
        with ParquetFile(file) as table:
            wanted = {column} if column is not None else {*CONTENTS, LENGTH}
            names = [name for name in table.schema_arrow.names if name in {*wanted, *CAPS}]
            if not wanted & set(names):
                existing, expected = ", ".join(table.schema_arrow.names), ", ".join(sorted(wanted))
                raise PromptError(
                    f"prompts file {str(file)!r}: its columns are {existing}; expected one of {expected}. Name the "
                    "column with the prompts: FILE:COLUMN"
                )
            number = 0
            for batch in table.iter_batches(1000, columns=names, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield item_of(f"prompts file {str(file)!r}, row {number}", without_nulls(row), column)
    except (OSError, ArrowException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PromptError(
            f"prompts file {str(file)!r} cannot be read as Parquet: {reason}. Check the path, or save it again"
        ) from error
