"""Reads the shards of workers, for rows that did not arrive by message. Every row is read once."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from llm_users.record import REQUEST_COLUMNS, RequestRecord, cell

_NAMES = [column.name for column in REQUEST_COLUMNS]
_TYPES = [column.type for column in REQUEST_COLUMNS]
_EMPTY = [field.default for field in dataclasses.fields(RequestRecord)]


class ShardReader:
    """Reads the rows of one shard, from the position of the last read; an incomplete line is read later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._position = 0

    def rows(self) -> Iterator[RequestRecord]:
        """Yield the rows that were not read before.

        Raises OSError when the file cannot be read, ValueError when it is not a shard.
        """
        with self.path.open("rb") as file:
            file.seek(self._position)
            lines = _WholeLines(file, self._position)
            for cells in csv.reader(lines):
                if self._position == 0:
                    if cells != _NAMES:
                        raise ValueError(f"{self.path} does not have the columns of this version")
                elif len(cells) == len(_NAMES):
                    yield record_of(cells)
                else:
                    return
                self._position = lines.place


class _WholeLines:
    """Iterates over complete lines as text and keeps the position of the last one."""

    def __init__(self, file: IO[bytes], place: int) -> None:
        self._file = file
        self.place = place

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            if not line.endswith(b"\n"):
                return
            self.place += len(line)
            yield line.decode("utf-8", "replace")


def record_of(cells: list[str]) -> RequestRecord:
    """Return the record of a written row. Raises ValueError when a cell is not a number where one is required."""
    values = []
    for text, kind, empty in zip(cells, _TYPES, _EMPTY, strict=True):
        if text == "":
            values.append(empty)
        elif kind is str:
            values.append(text[1:] if text.startswith("'") and cell(text[1:]) == text else text)
        else:
            values.append(kind(text))
    return RequestRecord.from_row(values)
