"""The local data of a worker: every finished row, and the number of requests that it has started.

Both survive when the worker is killed. The worker writes rows to a separate rows file (a shard), which `llm-report`
reads like any other rows file. ``ShardReader`` reads the rows that did not arrive by message, each of them once. The
worker writes the counts to a page of shared memory, so that counting needs no system call and does not wait for a disk.
"""

from __future__ import annotations

import csv
import dataclasses
import errno
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from llm_users.collect.line_file import LineFile, fallback_folders
from llm_users.record import REQUEST_COLUMNS, RequestRecord, cell, cells
from llm_users.run_files import FALLBACK_SPOOL_FOLDER, mark_name, shard_name, start_counts_prefix

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - mkstemp creates the files
_STAGES = 2048
_ENTRY = struct.Struct("<QQ")  # started, measured
_NAMES = [column.name for column in REQUEST_COLUMNS]
_TYPES = [column.type for column in REQUEST_COLUMNS]
_EMPTY = [field.default for field in dataclasses.fields(RequestRecord)]


def mark_folder(folder: Path, run_id: str) -> None:
    """Create the folder for the spools of workers on this machine, with a mark file by which they recognize it.

    Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / mark_name(run_id)).write_text(run_id, encoding="utf-8")


def clear_folder(folder: Path, run_id: str) -> None:
    """Remove the files of a run from the folder, and the folder when it is empty."""
    for path in folder.glob(f"{run_id}*"):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


class Spool:
    """The spool of one worker in one run.

    ``folder`` is the coordinator's folder, which the worker uses when it has access to the same file system.
    """

    def __init__(self, run_id: str, worker: int, folder: str | None, on_trouble: Callable[[str], None]) -> None:
        self._worker = worker
        self._created_folders: list[Path] = []
        self._folders = fallback_folders(FALLBACK_SPOOL_FOLDER)
        self.broken = False
        self._on_trouble = on_trouble
        shared = Path(folder) if folder else None
        self.shared = shared is not None and (shared / mark_name(run_id)).is_file()
        """Whether the coordinator can read the spool."""
        spool_folder = shared if self.shared and shared is not None else self._own_folder()
        self._file = LineFile(
            spool_folder / shard_name(run_id, worker),
            ",".join(_NAMES) + "\n",
            elsewhere=lambda: self._own_folder() / shard_name(run_id, worker),
            on_trouble=self._on_file_trouble,
        )
        self._csv = csv.writer(self._file, lineterminator="\n")
        self.rows = 0

    def add(self, row: Iterable[Any]) -> None:
        """Add one packed record."""
        self.rows += 1
        self._csv.writerow(cells(row))

    def flush(self) -> bool:
        """Wait until the rows are in the file; return False after a timeout."""
        return self._file.flush()

    @property
    def paths(self) -> list[Path]:
        return self._file.paths

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """Remove the files, because the coordinator has the rows."""
        self._file.discard()
        for path in self._file.paths:
            path.unlink(missing_ok=True)
        for folder in self._created_folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _own_folder(self) -> Path:
        folder = next(self._folders, None)
        if folder is None:
            raise OSError(errno.ENOSPC, "no temporary folder can be created")
        self._created_folders.append(folder)
        return folder

    def _on_file_trouble(self, text: str) -> None:
        self.broken = True
        self._on_trouble(f"the spool of worker {self._worker}: {text}")


class StartCounts:
    """Number of requests that a worker has started, by stage, in memory that another process can read.

    Without shared memory, or in a run with a single process, only this object has the counts (``path`` is None).
    """

    def __init__(self, run_id: str, worker: int, *, shared: bool) -> None:
        self.total = 0
        self.stage = 0
        self.started = self.measured = 0  # in the current stage
        self.path: Path | None = None
        self._page: mmap.mmap | None = None
        if not shared or not _SHARED_MEMORY.is_dir():
            return
        try:
            descriptor, name = tempfile.mkstemp(prefix=start_counts_prefix(run_id, worker), dir=_SHARED_MEMORY)
            try:
                # Allocated now: a sparse file could not be filled later.
                os.write(descriptor, bytes(_STAGES * _ENTRY.size))
                self._page = mmap.mmap(descriptor, _STAGES * _ENTRY.size)
                self.path = Path(name)
            finally:
                os.close(descriptor)
        except OSError:
            self._page = None

    def add(self, stage: int, measured: bool) -> None:
        """Count a request that is about to start."""
        if stage != self.stage:
            self.stage, self.started, self.measured = stage, 0, 0
        self.total += 1
        self.started += 1
        self.measured += measured
        if self._page is not None and stage < _STAGES:
            _ENTRY.pack_into(self._page, stage * _ENTRY.size, self.started, self.measured)

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def read_counts(path: Path) -> dict[int, tuple[int, int]] | None:
    """Return (started, measured) by stage from a worker of this machine; None when they cannot be read."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) != _STAGES * _ENTRY.size:
        return None
    return {stage: entry for stage, entry in enumerate(_ENTRY.iter_unpack(data)) if entry[0]}


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
            end = self._position  # of the last complete line

            def complete_lines() -> Iterator[str]:
                nonlocal end
                for line in file:
                    if not line.endswith(b"\n"):
                        return
                    end += len(line)
                    yield line.decode("utf-8", "replace")

            for cells in csv.reader(complete_lines()):
                if self._position == 0:
                    if cells != _NAMES:
                        raise ValueError(f"{self.path} does not have the columns of this version")
                elif len(cells) == len(_NAMES):
                    yield record_of(cells)
                else:
                    return
                self._position = end


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
