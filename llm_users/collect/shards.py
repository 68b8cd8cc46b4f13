"""Reading the shards that workers left: rows that did not come by message are taken from there, each once."""

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
    """The rows of one shard, from where reading stopped the last time; a line that is cut is left for later."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._place = 0

    def rows(self) -> Iterator[RequestRecord]:
        """Those that were not read yet. Raises OSError when the file cannot be read, ValueError when it is none."""
        with self.path.open("rb") as file:
            file.seek(self._place)
            lines = _WholeLines(file, self._place)
            for cells in csv.reader(lines):
                if self._place == 0:
                    if cells != _NAMES:
                        raise ValueError(f"{self.path} has other columns than this version writes")
                elif len(cells) == len(_NAMES):
                    yield record_of(cells)
                else:
                    return
                self._place = lines.place


class _WholeLines:
    """Lines as text; remembers how far it has read."""

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
    """A row as it was before it was written. Raises ValueError when a number is none."""
    values = []
    for text, kind, empty in zip(cells, _TYPES, _EMPTY, strict=True):
        if text == "":
            values.append(empty)
        elif kind is str:
            values.append(text[1:] if text.startswith("'") and cell(text[1:]) == text else text)
        else:
            values.append(kind(text))
    return RequestRecord.from_row(values)
