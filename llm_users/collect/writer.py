"""Collects all records of a run: writes the files, adds up the stages, and counts the rows of every worker.

It runs on the coordinator, or in the single process of a local run.
"""

from __future__ import annotations

import logging
import platform
import shlex
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import gevent

from llm_users.collect.conversations import ConversationBook
from llm_users.collect.files import RunFiles, check_prefix, move_aside
from llm_users.collect.spool import ShardReader
from llm_users.collect.stage_stats import StageBook
from llm_users.load.protocol.stage import StageTotals
from llm_users.quantile import DurationHistogram
from llm_users.record import COL, RequestRecord, ServerMetricRecord, StageLoad, StageRecord
from llm_users.run_files import MANIFEST_JSON, from_here
from llm_users.secrets import redact

logger = logging.getLogger(__name__)

_ROWS_PER_YIELD = 200
"""Number of rows to read from a shard before other greenlets may run: about 15 ms."""

_MOST_NOTES = 1000

_PACKAGES = ("locust-llm", "locust", "gevent", "geventhttpclient", "openai", "boto3", "httpx2", "msgspec")

HERE, LEFT, MISSING = "here", "left", "missing"


@dataclass
class WorkerAccount:
    """One worker in one run."""

    rank: int
    name: str
    state: str = HERE
    """``left``: the worker signed off before the end; ``missing``: it disappeared."""
    started: int = 0
    """Started requests according to the last message, or to the counts on this machine."""
    exact: bool = True
    """False when ``started`` comes from the last message, after which the worker may have started more."""
    received: int = 0
    recovered: int = 0
    """Number of rows from the spool."""
    sent: int | None = None
    shards: list[str] = field(default_factory=list)
    host: str | None = None

    @property
    def lost(self) -> int:
        """Number of requests without a row."""
        return max(0, self.started - self.received - self.recovered)

    def entry(self, *, shards: bool) -> dict[str, Any]:
        """Return the entry for the manifest; ``shards``: whether to include the paths of the shards."""
        entry: dict[str, Any] = {
            "worker": self.rank,
            "state": self.state,
            "started": self.started,
            "started_is_exact": self.exact,
            "received": self.received,
            "recovered": self.recovered,
            "lost": self.lost,
        }
        if shards and self.shards:
            entry |= {"spool": self.shards, "host": self.host}
        return entry


class SeenNumbers:
    """A set of whole numbers from 0, stored as ranges.

    The number of ranges depends only on the gaps, which are the numbers that have not arrived yet.
    """

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []  # exclusive

    def add(self, number: int) -> bool:
        """Add a number; return False when the set already contains it."""
        starts, ends = self.starts, self.ends
        index = bisect_right(starts, number)
        if index and number < ends[index - 1]:
            return False
        joins_left = index > 0 and ends[index - 1] == number
        joins_right = index < len(starts) and starts[index] == number + 1
        if joins_left and joins_right:
            ends[index - 1] = ends.pop(index)
            del starts[index]
        elif joins_left:
            ends[index - 1] = number + 1
        elif joins_right:
            starts[index] = number
        else:
            starts.insert(index, number)
            ends.insert(index, number + 1)
        return True


class RowObserver(Protocol):
    """Observes the rows that a ``RunWriter`` receives, without duplicates."""

    def before_row(self, record: RequestRecord) -> None:
        """Process a row before it is counted. The method can mark the row as not measured."""

    def after_row(self, record: RequestRecord) -> None:
        """Process a row after it was counted."""


class RunWriter:
    """Writes the files of one run and keeps its stages, counts and notes."""

    def __init__(
        self,
        prefix: str,
        run_id: str,
        about: dict[str, Any],
        *,
        offsets: bool,
        observer: RowObserver | None = None,
        book: StageBook | None = None,
    ) -> None:
        self._observer = observer
        self._prefix = prefix
        self.run_id = run_id
        self.started_at = time.time()
        self.book = book if book is not None else StageBook()
        self._conversations = ConversationBook()
        self.stages: list[StageRecord] = []
        self.received: defaultdict[int, int] = defaultdict(int)
        self.accounts: dict[int, WorkerAccount] = {}
        self.repeated = 0
        """Number of rows that arrived twice; the duplicates were dropped."""
        self.notes: list[str] = []
        self._models: set[str] = set()
        self._frameworks: set[str] = set()
        self._seen: defaultdict[int, SeenNumbers] = defaultdict(SeenNumbers)
        self._shards: dict[str, ShardReader] = {}
        self._closed: dict[int, tuple[StageRecord, list[StageTotals], int]] = {}
        self._files = RunFiles(prefix, offsets=offsets, run_id=run_id, on_trouble=self._on_trouble)
        self._about = {
            COL.run_id: run_id,
            COL.started_at: self.started_at,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "versions": _versions(),
            **about,
        }
        self.write_manifest()

    @property
    def prefix(self) -> str:
        """The prefix of the run's files, as the user wrote it if it is still valid from the current folder."""
        return from_here(self._prefix, self._files.prefix)

    def add(self, record: RequestRecord, offsets_s: Sequence[float], *, recovered: bool = False) -> bool:
        """Add one record; return False when it is a duplicate or belongs to another run."""
        if record.run_id and record.run_id != self.run_id:
            return False
        number = record.request_id.rpartition("-")[2]
        if number.isdecimal() and not self._seen[record.worker].add(int(number)):
            self.repeated += not recovered
            return False
        if self._observer is not None:
            self._observer.before_row(record)
        self.received[record.worker] += 1
        account = self.accounts.get(record.worker)
        if account is not None:
            account.received += not recovered
            account.recovered += recovered
        self._models.add(record.model)
        self._frameworks.add(record.framework)
        self.book.add(record)
        if self._observer is not None:
            self._observer.after_row(record)
        self._files.write_request(record.row())
        conversation = self._conversations.add(record)
        if conversation is not None:
            self._files.write_conversation(conversation)
        if offsets_s:
            self._files.write_offsets(record.request_id, offsets_s)
        return True

    def add_packed(self, rows: Iterable[Sequence[Any]]) -> None:
        """Add records in the format of messages: ``[row, offsets]`` pairs."""
        for row, offsets_s in rows:
            self.add(RequestRecord.from_row(row), offsets_s)

    def recover(self, account: WorkerAccount) -> int:
        """Add the rows of a worker's shards that did not arrive by message; return the number of these rows.

        It continues at the position of the last call. A shard that cannot be read is skipped.
        """
        recovered = 0
        for name in account.shards:
            reader = self._shards.setdefault(name, ShardReader(Path(name)))
            try:
                for count, record in enumerate(reader.rows()):
                    if record.worker == account.rank:
                        recovered += self.add(record, (), recovered=True)
                    if count % _ROWS_PER_YIELD == 0:
                        gevent.sleep(0)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                self._on_trouble(f"the spool {name} cannot be read ({error})")
        return recovered

    def finish_stage(
        self, stage: int, load: StageLoad, totals: Sequence[StageTotals], *, asked: int | None = None
    ) -> StageRecord:
        """Write the row and the gaps of a stage whose rows have arrived. ``asked``: see ``StageBook.record``."""
        record = self.book.record(stage, load, totals, asked=asked)
        self.stages.append(record)
        self._closed[stage] = (record, list(totals), self.book.rows(stage))
        self._files.write_stage(record)
        gaps: defaultdict[str, DurationHistogram] = defaultdict(DurationHistogram)
        for part in totals:
            for model, counts in part.gap_counts.items():
                gaps[model].merge(counts)
        for model in sorted(gaps):
            self._files.write_gaps(stage, model, gaps[model].counts)
        return record

    def add_server_metrics(self, records: Iterable[ServerMetricRecord]) -> None:
        """Write the server's own metrics of a stage."""
        for record in records:
            self._files.write_server_metric(record)

    def add_totals(self, totals: StageTotals) -> None:
        """Add the totals of a worker to a closed stage, whose row is revised at the end of the run."""
        if totals.stage in self._closed:
            record, parts, _ = self._closed[totals.stage]
            self._closed[totals.stage] = (record, [*parts, totals], -1)

    def revise_stages(self) -> None:
        """Rewrite the rows of stages that received more request rows after they were closed."""
        revised = False
        for stage, (record, totals, rows) in self._closed.items():
            if self.book.rows(stage) != rows:
                index = self.stages.index(record)
                asked = record.concurrency_asked
                self.stages[index] = self.book.record(stage, record.load, totals, asked=asked)
                self._closed[stage] = (self.stages[index], totals, self.book.rows(stage))
                revised = True
        if revised:
            self._files.rewrite_stages(self.stages)

    def end_conversations(self) -> None:
        """Write the rows of incomplete conversations, because no further request rows will arrive."""
        for conversation in self._conversations.end():
            self._files.write_conversation(conversation)

    def note(self, text: str) -> bool:
        """Keep a note for the manifest; return False when it exists already or there are too many notes."""
        text = redact(text)
        if text in self.notes or len(self.notes) >= _MOST_NOTES:
            return False
        self.notes.append(text)
        return True

    def lost(self) -> dict[int, int]:
        """Return the number of started requests without a row, by worker."""
        return {account.rank: account.lost for account in self.accounts.values() if account.lost}

    def unwritten(self) -> int:
        """Return the number of received rows that are not in any file."""
        return self._files.rows_file.unwritten

    def elsewhere(self) -> list[Path]:
        """Return the shards in the fallback folders, which have the data that could not be written to its own files."""
        return self._files.shards

    @property
    def has_all_rows(self) -> bool:
        """Whether every started request has a row in the rows file."""
        return not (self.lost() or self.unwritten() or self._files.rows_file.paths[1:])

    def problem(self) -> str:
        """Return why the files with the run's prefix are incomplete, and what to do; "" when they are complete."""
        problems = []
        if self.lost():
            problems.append("rows are missing: " + ", ".join(f"{n} of worker {w}" for w, n in self.lost().items()))
        for name, lines in self._files.unwritten.items():
            what = "rows" if name == self._files.rows_file.path.name else f"lines of {name}"
            problems.append(f"{lines} {what} could not be written or were removed")
        problems += self._files.disturbances
        if self._files.manifest_lost:
            problems.append("the manifest could not be written")
        if self.elsewhere():
            folders = " ".join(str(path.parent) for path in self.elsewhere())
            in_place = [self._prefix] if self._files.rows_file.path.is_file() else []
            command = shlex.join(["llm-report", *in_place, *map(str, self.elsewhere())])
            problems.append(
                f"data that could not be written to its own files is in {folders}: {command} reads all of it"
            )
        elif self._files.disturbances:
            problems.append(f"{shlex.join(['llm-report', self._prefix])} reads the existing rows")
        return "; ".join(problems)

    @property
    def manifest_path(self) -> str:
        """The path of the last manifest."""
        return str(self._files.manifest_place or f"{self.prefix}{MANIFEST_JSON}")

    def write_manifest(self, **more: Any) -> None:
        """Write the manifest with the current state: at the start, so that the file exists, and at the end."""
        accounts = [self.accounts[rank] for rank in sorted(self.accounts)]
        workers = sorted({*self.accounts, *self.received})
        sent = {account.rank: account.sent for account in accounts}
        # The spools that are kept because they may contain the only copy of some rows.
        spools = (
            {a.rank for a in accounts if a.lost or a.sent is None or self.unwritten()} if not self.has_all_rows else ()
        )
        self._about.update(more)
        self._files.write_manifest(
            {
                **self._about,
                "framework": ", ".join(sorted(filter(None, self._frameworks))) or self._about.get("framework"),
                "model": ", ".join(sorted(filter(None, self._models))) or self._about.get("model"),
                "counts": {
                    "sent": {str(w): sent.get(w) for w in workers},
                    "received": {str(w): self.received[w] for w in workers},
                },
                "workers": {account.name: account.entry(shards=account.rank in spools) for account in accounts},
                **({"rows_elsewhere": [str(path) for path in self.elsewhere()]} if self.elsewhere() else {}),
                **({"lines_not_written": self._files.unwritten} if self._files.unwritten else {}),
                COL.stamp_source: sorted({s.stamp_source for s in self.stages if s.stamp_source}),
                "notes": self.notes,
            },
            last="finished_at" in self._about,
        )

    def flush(self) -> None:
        """Wait until all data so far is on disk."""
        self._files.flush()

    def close(self) -> None:
        """Write all waiting data, and the manifest again when its content has changed."""
        self.end_conversations()
        before = self.problem(), len(self.notes)
        self._files.close()
        if before != (self.problem(), len(self.notes)):
            self.write_manifest()

    def _on_trouble(self, text: str) -> None:
        if self.note(text):
            logger.error("%s", self.notes[-1])


def start_writing(
    prefix: str, run_id: str, about: dict[str, Any], *, offsets: bool, observer: RowObserver, book: StageBook
) -> RunWriter:
    """Create the files of a new run, after renaming the files of an earlier run with this prefix. Raises OSError."""
    check_prefix(prefix)
    aside = move_aside(prefix)
    if aside:
        logger.info("renamed the files of an earlier run with this prefix to %s_*", aside)
    return RunWriter(prefix, run_id, about, offsets=offsets, observer=observer, book=book)


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
