"""What a worker keeps on its own machine: every finished row, and how many requests it has started.

Both outlive a worker that is killed. Rows go to a rows file of its own (a shard), which `llm-report` reads like any
other; the counts go to a page of shared memory, so that counting costs no system call and waits for no disk.
"""

from __future__ import annotations

import csv
import errno
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from llm_users.collect.line_file import LineFile, fallback_folders
from llm_users.record import REQUEST_COLUMNS, cell
from llm_users.run_files import FALLBACK_SPOOL_FOLDER, mark_name, shard_name, start_counts_prefix

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - files in it are made by mkstemp
_STAGES = 2048
_ENTRY = struct.Struct("<QQ")  # started, of these measured


def header_line() -> str:
    return ",".join(column.name for column in REQUEST_COLUMNS) + "\n"


def mark_folder(folder: Path, run_id: str) -> None:
    """Make the folder in which workers of this machine keep their spools; the mark lets them know it for this one.

    Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / mark_name(run_id)).write_text(run_id, encoding="utf-8")


def clear_folder(folder: Path, run_id: str) -> None:
    """Remove what a run left there; the folder too when nothing else is in it."""
    for path in folder.glob(f"{run_id}*"):
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


class Spool:
    """The spool of one worker in one run. ``folder`` is the coordinator's, used when it is the same file system."""

    def __init__(self, run_id: str, worker: int, folder: str | None, on_trouble: Callable[[str], None]) -> None:
        self._run_id = run_id
        self._worker = worker
        self._made: list[Path] = []
        self._folders = fallback_folders(FALLBACK_SPOOL_FOLDER)
        self.broken = False
        self._on_trouble = on_trouble
        shared = Path(folder) if folder else None
        self.shared = shared is not None and (shared / mark_name(run_id)).is_file()
        """Whether the coordinator can read it."""
        place = shared if self.shared and shared is not None else self._own_folder()
        self._file = LineFile(
            place / shard_name(run_id, worker),
            header_line(),
            elsewhere=self._elsewhere,
            on_trouble=self._trouble,
        )
        self._csv = csv.writer(self._file, lineterminator="\n")
        self.rows = 0

    def add(self, row: Iterable[Any]) -> None:
        """One packed record."""
        self.rows += 1
        self._csv.writerow([cell(value) for value in row])

    def flush(self) -> bool:
        """Wait until the rows are in the file."""
        return self._file.flush()

    @property
    def paths(self) -> list[Path]:
        return self._file.paths

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        """The coordinator has the rows."""
        self._file.discard()
        for path in self._file.paths:
            path.unlink(missing_ok=True)
        for folder in self._made:
            shutil.rmtree(folder, ignore_errors=True)

    def _elsewhere(self) -> Path:
        return self._own_folder() / shard_name(self._run_id, self._worker)

    def _own_folder(self) -> Path:
        folder = next(self._folders, None)
        if folder is None:
            raise OSError(errno.ENOSPC, "no temporary folder can be made")
        self._made.append(folder)
        return folder

    def _trouble(self, text: str) -> None:
        self.broken = True
        self._on_trouble(f"the spool of worker {self._worker}: {text}")


class StartCounts:
    """How many requests a worker has started, by stage, where another process can read it.

    Without shared memory, or in the only process, the counts are kept here alone (``path`` is None).
    """

    def __init__(self, run_id: str, worker: int, *, shared: bool) -> None:
        self.total = 0
        self.stage = 0
        self.started = self.measured = 0  # of the stage
        self.path: Path | None = None
        self._page: mmap.mmap | None = None
        if not shared or not _SHARED_MEMORY.is_dir():
            return
        try:
            descriptor, name = tempfile.mkstemp(prefix=start_counts_prefix(run_id, worker), dir=_SHARED_MEMORY)
            try:
                os.write(descriptor, bytes(_STAGES * _ENTRY.size))  # written out: a hole could not be filled later
                self._page = mmap.mmap(descriptor, _STAGES * _ENTRY.size)
                self.path = Path(name)
            finally:
                os.close(descriptor)
        except OSError:
            self._page = None

    def add(self, stage: int, measured: bool) -> None:
        """A request is about to start."""
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
    """(started, of these measured) by stage, as a worker of this machine left them; None: they cannot be read."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if len(data) != _STAGES * _ENTRY.size:
        return None
    return {stage: entry for stage, entry in enumerate(_ENTRY.iter_unpack(data)) if entry[0]}
