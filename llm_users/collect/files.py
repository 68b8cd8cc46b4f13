"""The files of one run: rows, stages, gaps, offsets, manifest, all named by one prefix.

Knows columns and paths; not where the rows come from.
"""

from __future__ import annotations

import csv
import glob
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from llm_users.collect.disk import LineFile
from llm_users.quantile import DurationHistogram
from llm_users.record import CONVERSATION_COLUMNS, REQUEST_COLUMNS, STAGE_COLUMNS, ConversationRecord, StageRecord, cell

GAP_COLUMNS = ("stage", "bucket", "lower_s", "upper_s", "count")
OFFSET_COLUMNS = ("request_id", "offsets_s")
SUFFIXES = (
    "_llm_requests.csv",
    "_llm_stages.csv",
    "_llm_gaps.csv",
    "_llm_offsets.csv",
    "_llm_conversations.csv",
    "_llm_run.json",
    "_llm_gate.xml",
    "_llm_find.csv",
)


def check_prefix(prefix: str) -> None:
    """Make the prefix's folder and see that files can be written there. Raises OSError with a kind message."""
    folder = Path(prefix).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{Path(prefix).name}_llm_write_test_{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write files into {str(folder)!r}: {error.strerror}. Give another place with --csv FOLDER/NAME."
        ) from error


def move_aside(prefix: str) -> str | None:
    """Rename the files of an earlier start with this prefix to the next free ``PREFIX.N_...``; returns that prefix."""
    present = [suffix for suffix in SUFFIXES if Path(prefix + suffix).exists()]
    if not present:
        return None
    folder, name = Path(prefix).parent, Path(prefix).name
    taken = [
        int(match[1])
        for path in folder.glob(f"{glob.escape(name)}.*_llm_*")
        if (match := re.match(re.escape(name) + r"\.(\d+)_llm_", path.name))
    ]
    aside = f"{prefix}.{max(taken, default=0) + 1}"
    for suffix in present:
        Path(prefix + suffix).rename(aside + suffix)
    return aside


class RunFiles:
    """The open files of a run. Every CSV has its header from the start; that of conversations is there with the first.

    Nothing here waits for the disk but ``flush`` and ``close``. Rows that the disk does not take go to a file of their
    own in the system's temporary folder; ``on_trouble`` is told.
    """

    def __init__(
        self, prefix: str, *, offsets: bool, run_id: str = "", on_trouble: Callable[[str], None] = lambda _text: None
    ) -> None:
        self.prefix = prefix
        self._run_id = run_id
        self._on_trouble = on_trouble
        self._files: list[LineFile] = []
        self._requests = self._open("_llm_requests.csv", [c.name for c in REQUEST_COLUMNS], self._elsewhere)
        self.rows_file = self._files[0]
        self._stages = self._open("_llm_stages.csv", [column.name for column in STAGE_COLUMNS])
        self._gaps = self._open("_llm_gaps.csv", GAP_COLUMNS)
        self._offsets = self._open("_llm_offsets.csv", OFFSET_COLUMNS) if offsets else None
        if self._offsets is None:
            Path(prefix + "_llm_offsets.csv").unlink(missing_ok=True)  # of an earlier run with this prefix
        self._conversations: Any = None
        Path(prefix + "_llm_conversations.csv").unlink(missing_ok=True)
        self.flush()

    def write_request(self, row: Iterable[Any]) -> None:
        """One packed request record."""
        self._requests.writerow([cell(value) for value in row])

    def write_stage(self, record: StageRecord) -> None:
        self._stages.writerow([cell(getattr(record, column.name)) for column in STAGE_COLUMNS])

    def rewrite_stages(self, records: Iterable[StageRecord]) -> None:
        """All stages anew: rows came after their stage had been closed."""
        self._files[1].restart()
        for record in records:
            self.write_stage(record)

    def write_conversation(self, record: ConversationRecord) -> None:
        if self._conversations is None:
            try:
                names = [column.name for column in CONVERSATION_COLUMNS]
                self._conversations = self._open("_llm_conversations.csv", names)
            except OSError as error:
                self._on_trouble(f"conversations cannot be written ({error}); those of the rows file can be added up")
                return
        self._conversations.writerow([cell(getattr(record, column.name)) for column in CONVERSATION_COLUMNS])

    def write_gaps(self, stage: int, counts: Mapping[int, int]) -> None:
        """The histogram of a stage's chunk gaps, one line per bucket."""
        for bucket in sorted(counts):
            low_s, high_s = DurationHistogram.bounds_s(bucket)
            self._gaps.writerow([stage, bucket, cell(low_s), cell(high_s), counts[bucket]])

    def write_offsets(self, request_id: str, offsets_s: Iterable[float]) -> None:
        """Arrival of every chunk of a request, in seconds from t0, separated by spaces."""
        if self._offsets is not None:
            self._offsets.writerow([request_id, " ".join(f"{offset:.6f}" for offset in offsets_s)])

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """The manifest, whole or not at all: the old one stays when the disk does not take it."""
        path = Path(self.prefix + "_llm_run.json")
        part = path.with_name(path.name + ".part")
        try:
            part.write_text(json.dumps(manifest, indent=2, default=str) + "\n", encoding="utf-8")
            part.replace(path)
        except OSError as error:
            self._on_trouble(f"{path} cannot be written ({error.strerror or error})")

    def flush(self) -> None:
        """Wait, for a few seconds at most, until everything so far is on disk."""
        for file in self._files:
            file.flush()

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _open(self, suffix: str, header: Iterable[str], elsewhere: Callable[[], Path] | None = None) -> Any:
        line = ",".join(header) + "\n"
        file = LineFile(Path(self.prefix + suffix), line, elsewhere=elsewhere, on_trouble=self._on_trouble)
        self._files.append(file)
        return csv.writer(file, lineterminator="\n")

    def _elsewhere(self) -> Path:
        """A shard for the rows that do not fit: `llm-report` takes it beside the rows file."""
        return Path(tempfile.mkdtemp(prefix="locust-llm-rows-")) / f"{self._run_id}_rows_llm_shard.csv"
