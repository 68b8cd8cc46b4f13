"""Where all records of a run end: the files, the stage book, the count of what each worker sent.

Runs on the master, or in the only process.
"""

from __future__ import annotations

import logging
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from typing import Any

from llm_users.collect.files import RunFiles, check_prefix, move_aside
from llm_users.collect.stages import StageBook, gap_counts
from llm_users.record import RequestRecord, StageRecord
from llm_users.secrets import redact
from llm_users.stage import StageTotals

logger = logging.getLogger(__name__)

_FLUSH_S = 2.0

_PACKAGES = ("locust-llm", "locust", "gevent", "geventhttpclient", "openai", "boto3", "httpx2", "msgspec")


class RunWriter:
    """The files of one run and what is known about it."""

    def __init__(self, prefix: str, run_id: str, about: dict[str, Any], *, offsets: bool) -> None:
        check_prefix(prefix)
        self.prefix = prefix
        self.started_at = time.time()
        self._flushed_at = time.monotonic()
        self.book = StageBook()
        self.stages: list[StageRecord] = []
        self.received: defaultdict[int, int] = defaultdict(int)
        self.sent: dict[int, int] = {}
        self.notes: list[str] = []
        self.on_record: Callable[[RequestRecord], None] = lambda _record: None
        self._models: set[str] = set()
        self._frameworks: set[str] = set()
        self._files = RunFiles(prefix, offsets=offsets)
        self._about = {
            "run_id": run_id,
            "started_at": self.started_at,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": _versions(),
            **about,
        }
        self.write_manifest()

    def add(self, record: RequestRecord, offsets_s: Sequence[float]) -> None:
        """One record."""
        self.received[record.worker] += 1
        self._models.add(record.model)
        self._frameworks.add(record.framework)
        self.book.add(record)
        self.on_record(record)
        self._files.write_request(record.row())
        if offsets_s:
            self._files.write_offsets(record.request_id, offsets_s)
        if time.monotonic() - self._flushed_at > _FLUSH_S:  # whoever looks at the file sees the run go on
            self.flush()

    def add_packed(self, rows: Iterable[Sequence[Any]]) -> None:
        """Records as they travel: ``[row, offsets]`` each."""
        for row, offsets_s in rows:
            self.add(RequestRecord.from_row(row), offsets_s)

    def finish_stage(self, stage: int, concurrency: int, totals: Sequence[StageTotals]) -> StageRecord:
        """All rows of the stage are here: write its row and its gaps."""
        record = self.book.record(stage, concurrency, totals)
        self.stages.append(record)
        self._files.write_stage(record)
        self._files.write_gaps(stage, gap_counts(totals))
        self._files.flush()
        return record

    def note(self, text: str) -> bool:
        """Keep a note for the manifest; False when it is there already."""
        text = redact(text)
        if text in self.notes:
            return False
        self.notes.append(text)
        return True

    def lost(self) -> dict[int, int]:
        """Rows that workers say they sent and that never came, by worker."""
        return {w: sent - self.received[w] for w, sent in self.sent.items() if sent != self.received[w]}

    def write_manifest(self, **more: Any) -> None:
        """Write what is known so far; called at the start, so that the file exists, and at the end."""
        workers = sorted({*self.sent, *self.received})
        self._about.update(more)
        self._files.write_manifest(
            {
                **self._about,
                "framework": ", ".join(sorted(filter(None, self._frameworks))) or self._about.get("framework"),
                "model": ", ".join(sorted(filter(None, self._models))) or self._about.get("model"),
                "counts": {
                    "sent": {str(w): self.sent.get(w) for w in workers},
                    "received": {str(w): self.received[w] for w in workers},
                },
                "stamp_source": sorted({s.stamp_source for s in self.stages if s.stamp_source}),
                "notes": self.notes,
            }
        )

    def flush(self) -> None:
        self._flushed_at = time.monotonic()
        self._files.flush()

    def close(self) -> None:
        self._files.close()


def start_writing(prefix: str, run_id: str, about: dict[str, Any], *, offsets: bool, keep_old: bool) -> RunWriter:
    """Files for a new run; with ``keep_old`` those of the process's previous run are moved aside first."""
    if keep_old:
        aside = move_aside(prefix)
        if aside:
            logger.info("the files of the previous run are now %s_llm_*", aside)
    return RunWriter(prefix, run_id, about, offsets=offsets)


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
