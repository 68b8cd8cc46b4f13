"""The files of one run: rows, stages, gaps, offsets and the manifest, all with the same prefix.

It depends on columns and paths, not on the source of the rows.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_users import run_files
from llm_users.collect.line_file import LineFile, fallback_folders
from llm_users.quantile import DurationHistogram
from llm_users.record import (
    COL,
    CONVERSATION_COLUMNS,
    REQUEST_COLUMNS,
    SERVER_METRIC_COLUMNS,
    STAGE_COLUMNS,
    Column,
    ConversationRecord,
    ServerMetricRecord,
    StageRecord,
    cell,
    cells,
)
from llm_users.run_files import absolute, fallback_name, path_of

GAP_COLUMNS = ("stage", "bucket", "lower_s", "upper_s", "count", "model")
OFFSET_COLUMNS = (COL.request_id, "offsets_s")

_LONGEST_SUFFIX = max((*run_files.RUN_SUFFIXES, *run_files.LOCUST_SUFFIXES), key=len)

_PROBE_BYTES = 4096
"""Bytes that must fit on the disk before a run starts: less than the size of its manifest."""

_RESERVE_BYTES = 16 * 1024
"""Reserved space for the manifest. A manifest with a few notes takes 3 to 10 kB."""


def check_prefix(prefix: str) -> None:
    """Create the folder of the prefix and check that it is writable. Raises OSError with a message for the user."""
    folder, name = os.path.split(prefix)
    folder = folder or "."
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        probe = Path(folder) / f"{name}{_LONGEST_SUFFIX}.{os.getpid()}"
        try:
            probe.write_bytes(bytes(_PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        reason = "a file exists at the path of the folder" if isinstance(error, FileExistsError) else error.strerror
        raise OSError(
            f"cannot write files {name!r}* into {folder!r}: {reason}. Set another path with --csv FOLDER/NAME."
        ) from error


def move_aside(prefix: str, suffixes: Sequence[str] = run_files.RUN_SUFFIXES) -> str | None:
    """Rename the files of an earlier run with this prefix to ``PREFIX.N_...``; return the new prefix, or None.

    N is the last number plus one, or the last number if none of these files exists with it: Locust's own files are
    moved before the files of this package. Raises OSError when a file cannot be renamed.
    """
    present = []
    for suffix in (suffix + end for suffix in suffixes for end in ("", run_files.GZIP_SUFFIX)):
        path = path_of(prefix, suffix)
        # Locust leaves empty files of rejected runs; pipes and devices are reused.
        if path.is_dir() or (path.is_file() and path.stat().st_size > 0):
            present.append(suffix)
    if not present:
        return None
    folder, name = os.path.split(prefix)
    suffixes_of_runs = "|".join(map(re.escape, (*run_files.RUN_SUFFIXES, *run_files.LOCUST_SUFFIXES)))
    pattern = re.compile(rf"{re.escape(name)}\.(\d+)(?:{suffixes_of_runs})(?:{re.escape(run_files.GZIP_SUFFIX)})?")
    with os.scandir(folder or ".") as entries:
        numbers = [int(match[1]) for entry in entries if (match := pattern.fullmatch(entry.name))]
    number = max(numbers, default=1)
    if any(os.path.lexists(f"{prefix}.{number}{suffix}") for suffix in present):
        number += 1
    aside = f"{prefix}.{number}"
    for suffix in present:
        path_of(prefix, suffix).rename(aside + suffix)
    return aside


class FallbackFiles:
    """Fallback paths for the files of a run that cannot be written at their own path.

    Every fallback is a private folder. Its files have the names ``PREFIX_llm_...`` with the run's id as the prefix,
    except for the rows file: it is a shard, which `llm-report` adds to the rows file. Every fallback folder has a
    shard, which the manifest names; the other files are in the same folder.
    """

    def __init__(self, run_id: str) -> None:
        self._name = fallback_name(run_id)
        self._folders = fallback_folders(run_files.FALLBACK_ROWS_FOLDER)
        self._prefixes: list[str] = []

    @property
    def shards(self) -> list[Path]:
        """The shards of the folders in use; some may have no rows."""
        return [path_of(prefix, run_files.SHARD_CSV) for prefix in self._prefixes]

    def prefixes(self) -> Iterator[str]:
        """Yield the prefixes of the fallback folders, created on demand. Raises OSError after the last one."""
        index = 0
        while True:
            if index == len(self._prefixes):
                self._prefixes.append(self._create())
            yield self._prefixes[index]
            index += 1

    def paths(self, suffix: str) -> Callable[[], Path]:
        """Return a function for a ``LineFile`` that returns the next path when the file cannot be written."""
        prefixes = self.prefixes()

        def following() -> Path:
            try:
                prefix = next(prefixes)
                return path_of(prefix, run_files.SHARD_CSV if suffix == run_files.REQUESTS_CSV else suffix)
            except StopIteration:  # a generator that has raised is exhausted
                raise OSError(errno.ENOSPC, "no other folder is writable") from None

        return following

    def _create(self) -> str:
        for folder in self._folders:
            prefix = str(folder / self._name)
            try:
                path_of(prefix, run_files.SHARD_CSV).write_text(",".join(c.name for c in REQUEST_COLUMNS) + "\n")
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
            else:
                return prefix
        raise OSError(errno.ENOSPC, "no other folder is writable")


class RunFiles:
    """The open files of a run.

    Every CSV file has its header from the start; the files of conversations and of the server's metrics are created
    with their first line.
    Only ``flush``, ``write_manifest`` and ``close`` wait for the disk. Data that cannot be written to its file goes to
    a folder in the system's temporary folder, and ``on_trouble`` is called with a message.
    """

    def __init__(
        self, prefix: str, *, offsets: bool, run_id: str = "", on_trouble: Callable[[str], None] = lambda _text: None
    ) -> None:
        self.prefix = absolute(prefix)
        self._run_id = run_id
        self._on_trouble = on_trouble
        self._files: list[LineFile] = []
        self._fallback = FallbackFiles(run_id)
        self.manifest_place: Path | None = None
        """The path of the manifest when it could not be written to its own path."""
        self.manifest_lost = False
        """Whether the last manifest could not be written to any path."""
        self._requests = self._open(run_files.REQUESTS_CSV, [c.name for c in REQUEST_COLUMNS])
        self.rows_file = self._files[0]
        self._stages = self._open(run_files.STAGES_CSV, [column.name for column in STAGE_COLUMNS])
        self._gaps = self._open(run_files.GAPS_CSV, GAP_COLUMNS)
        self._offsets = self._open(run_files.OFFSETS_CSV, OFFSET_COLUMNS) if offsets else None
        if self._offsets is None:
            # From an earlier run with this prefix.
            path_of(self.prefix, run_files.OFFSETS_CSV).unlink(missing_ok=True)
        self._later: dict[str, Any] = {}
        path_of(self.prefix, run_files.CONVERSATIONS_CSV).unlink(missing_ok=True)
        path_of(self.prefix, run_files.SERVER_METRICS_CSV).unlink(missing_ok=True)
        self.flush()

    @property
    def shards(self) -> list[Path]:
        """The shards in the fallback folders."""
        return self._fallback.shards

    @property
    def disturbances(self) -> list[str]:
        """Changes that other programs made to the files during the run."""
        return [text for file in self._files for text in file.disturbances]

    @property
    def unwritten(self) -> dict[str, int]:
        """Number of lines that are not in any file, by the name of their file. Lines of the rows file are rows."""
        return {file.path.name: file.unwritten for file in self._files if file.unwritten}

    def write_request(self, row: Iterable[Any]) -> None:
        """Write one packed request record."""
        self._requests.writerow(cells(row))

    def write_stage(self, record: StageRecord) -> None:
        self._stages.writerow([cell(getattr(record, column.name)) for column in STAGE_COLUMNS])

    def rewrite_stages(self, records: Iterable[StageRecord]) -> None:
        """Write all stages again, because rows arrived after their stage was closed."""
        self._files[1].restart()
        for record in records:
            self.write_stage(record)

    def write_conversation(self, record: ConversationRecord) -> None:
        trouble = "the conversations file cannot be written ({}); the rows file has the data of all turns"
        self._write_later(run_files.CONVERSATIONS_CSV, CONVERSATION_COLUMNS, record, trouble)

    def write_server_metric(self, record: ServerMetricRecord) -> None:
        trouble = "the file of the server's metrics cannot be written ({})"
        self._write_later(run_files.SERVER_METRICS_CSV, SERVER_METRIC_COLUMNS, record, trouble)

    def _write_later(self, suffix: str, columns: Sequence[Column], record: object, trouble: str) -> None:
        """Write a line into a file that is created with its first line. ``trouble`` is for a file that cannot be."""
        if suffix not in self._later:
            try:
                self._later[suffix] = self._open(suffix, [column.name for column in columns])
            except OSError as error:
                self._on_trouble(trouble.format(error))
                return
        self._later[suffix].writerow([cell(getattr(record, column.name)) for column in columns])

    def write_gaps(self, stage: int, model: str, counts: Mapping[int, int]) -> None:
        """Write the histogram of the chunk gaps of a model in a stage, one line per bucket."""
        for bucket in sorted(counts):
            low_s, high_s = DurationHistogram.bounds_s(bucket)
            self._gaps.writerow([stage, bucket, cell(low_s), cell(high_s), counts[bucket], cell(model)])

    def write_offsets(self, request_id: str, offsets_s: Iterable[float]) -> None:
        """Write the arrival times of the chunks of a request, in seconds from t0, separated by spaces."""
        if self._offsets is not None:
            self._offsets.writerow([request_id, " ".join(f"{offset:.6f}" for offset in offsets_s)])

    def write_manifest(self, manifest: Mapping[str, Any], *, last: bool = False) -> None:
        """Write the manifest atomically: the previous one stays when the write fails.

        Until the ``last`` manifest is written, ``PREFIX_llm_run.json.part`` reserves space for it.
        """
        path = path_of(self.prefix, run_files.MANIFEST_JSON)
        text = json.dumps(manifest, indent=2, default=str) + "\n"
        if last:
            for file in self._files:
                file.stop_watching()
        self.manifest_lost = False
        try:
            _replace(path, text)
        except OSError as error:
            problem = f"{path} cannot be written ({error.strerror or error})"
        else:
            self.manifest_place = None
            if not last:
                _reserve(_part_of(path))
            return
        try:
            for prefix in self._fallback.prefixes():
                fallback = path_of(prefix, run_files.MANIFEST_JSON)
                with contextlib.suppress(OSError):
                    _replace(fallback, text)
                    self.manifest_place = fallback
                    self._on_trouble(f"{problem}; the manifest is now in {fallback}")
                    return
        except OSError:
            self.manifest_lost = True
            self._on_trouble(
                f"{problem}, and no other folder is writable; the manifest from the start of the run stays"
            )

    def flush(self, timeout_s: float = 5.0) -> None:
        """Wait, for ``timeout_s`` at most, until all data so far is on disk."""
        limit = time.monotonic() + timeout_s
        for file in self._files:
            file.flush(max(0.1, limit - time.monotonic()))

    def close(self, timeout_s: float = 10.0) -> None:
        limit = time.monotonic() + timeout_s
        for file in self._files:
            file.close(max(0.1, limit - time.monotonic()))

    def _open(self, suffix: str, header: Iterable[str]) -> Any:
        file = LineFile(
            path_of(self.prefix, suffix),
            ",".join(header) + "\n",
            elsewhere=self._fallback.paths(suffix),
            on_trouble=self._on_trouble,
        )
        self._files.append(file)
        return csv.writer(file, lineterminator="\n")


def _part_of(path: Path) -> Path:
    return path.with_name(path.name + run_files.PART_SUFFIX)


def _replace(path: Path, text: str) -> None:
    """Write a file atomically, into the reserved space if there is any."""
    part = _part_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode()
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            done = 0
            while done < len(data):
                done += os.write(descriptor, data[done:])
            os.ftruncate(descriptor, len(data))
        finally:
            os.close(descriptor)
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def _reserve(part: Path) -> None:
    """Reserve space for the next manifest; without it, a full disk moves the manifest to a fallback folder."""
    with contextlib.suppress(OSError, AttributeError):  # macOS has no posix_fallocate
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            os.posix_fallocate(descriptor, 0, _RESERVE_BYTES)
        except OSError:
            part.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
