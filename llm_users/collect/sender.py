"""Sends the records of a worker to the coordinator in batches, with Locust's reports and at the end of a stage.

The worker writes every row to its spool first. When it produces rows faster than it may send them, the rows stay in the
spool, and the coordinator fetches them at the end of the stage.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path
from typing import Any

import gevent

from llm_users.collect.spool import ShardReader, Spool
from llm_users.load.protocol.messages import Rows
from llm_users.record import RequestRecord

BATCH_ROWS = 1000
"""Rows per message: about 300 kB, which the coordinator processes in about 30 ms."""

_RATE_S = 2.0
"""Minimum time in seconds for measuring a rate: the users of a stage may all end at the same time."""


class RecordSender:
    """Buffers and sends the packed records of one worker."""

    def __init__(self, send: Callable[[Rows], None], note: Callable[[str], None] = lambda _text: None) -> None:
        self._send = send
        self._note = note
        self._rows: list[tuple[list[Any], list[float]]] = []
        self._spool: Spool | None = None
        self._run_id = ""
        self._worker = 0
        self._rows_per_s: float | None = None
        self._rate_mark = (0.0, 0)
        self._readers: dict[Path, ShardReader] = {}
        self.sent = 0
        self.held = 0
        """Number of rows that are only in the spool, for the coordinator to fetch."""
        self._holds = False

    def begin(self, run_id: str, worker: int, folder: str | None, rows_per_s: float | None) -> None:
        """Begin a run. ``rows_per_s`` is the maximum rate at which this worker may send rows; None: no limit."""
        self._rows, self.sent, self.held, self._holds = [], 0, 0, False
        self._run_id, self._worker, self._rows_per_s = run_id, worker, rows_per_s
        self._rate_mark, self._readers = (time.monotonic(), 0), {}
        try:
            self._spool = Spool(run_id, worker, folder, self._note)
        except OSError as error:
            self._spool = None
            self._note(f"worker {worker} has no spool ({error}); if it is killed, rows that it has not sent are lost")

    def add(self, record: RequestRecord, offsets_s: list[float]) -> None:
        row = record.row()
        spool = self._spool
        if spool is not None:
            spool.add(row)
            if self._holds and not spool.broken:
                self.held += 1
                return
        self._rows.append((row, offsets_s))

    def take(self) -> Rows:
        """Return a batch of rows, possibly empty, for the next report."""
        self._watch_rate()
        batch, self._rows = self._rows[:BATCH_ROWS], self._rows[BATCH_ROWS:]
        self.sent += len(batch)
        return Rows(self._run_id, self._worker, rows=batch)

    def flush(self) -> None:
        """Send all buffered rows; flush held rows to the spool, or send them if the coordinator cannot read it."""
        while self._rows:
            self._send(self.take())
        if self.held and self._spool is not None:
            self._spool.flush()
            if not self._spool.shared or len(self._spool.paths) > 1:
                self._send_held()

    @property
    def spool_paths(self) -> list[str]:
        """The paths of the spool files."""
        return [str(path) for path in self._spool.paths] if self._spool is not None else []

    def settled(self, run_id: str) -> None:
        """Remove the spool, because the coordinator has all rows of the run."""
        if self._spool is not None and run_id == self._run_id:
            self._spool.remove()
            self._spool = None

    def leave(self) -> list[Path]:
        """Complete and keep the spool, because the coordinator may not have all rows; return its files."""
        spool, self._spool = self._spool, None
        if spool is None or not spool.rows:
            if spool is not None:
                spool.remove()
            return []
        spool.close()
        return spool.paths

    def resend(self) -> None:
        """Send all rows of the spool again, because some did not arrive. The coordinator drops duplicates."""
        if self._spool is not None:
            self._spool.flush()
            self._readers.clear()
            self.held = self._spool.rows
            self._send_held()

    def _watch_rate(self) -> None:
        """Keep rows in the spool from now on when the worker produces them faster than it may send them."""
        spool = self._spool
        if spool is None or spool.broken or self._rows_per_s is None or self._holds:
            return
        since, rows = self._rate_mark
        passed_s = time.monotonic() - since
        if passed_s < _RATE_S:
            return
        rate = (spool.rows - rows) / passed_s
        self._rate_mark = (time.monotonic(), spool.rows)
        if rate > self._rows_per_s:
            self._holds = True
            self._note(
                f"worker {self._worker} completes {rate:.0f} requests/s, more than the {self._rows_per_s:.0f} rows/s "
                "that it may send: its rows stay in its spool and are merged at the end of each stage"
            )

    def _send_held(self) -> None:
        """Read the held rows from the spool and send them, because the coordinator cannot read the spool.

        This runs when no measurement is in progress.
        """
        assert self._spool is not None
        first = 0 if self._readers else self._spool.rows - self.held
        batch: list[Any] = []
        spooled = chain.from_iterable(
            self._readers.setdefault(path, ShardReader(path)).rows() for path in self._spool.paths
        )
        for record in islice(spooled, first, None):
            batch.append((record.row(), []))
            if len(batch) == BATCH_ROWS:
                self._send_batch(batch)
                batch = []
                gevent.sleep(0)
        self._send_batch(batch)

    def _send_batch(self, batch: list[Any]) -> None:
        self._send(Rows(self._run_id, self._worker, rows=batch))
        self.sent, self.held = self.sent + len(batch), max(0, self.held - len(batch))
