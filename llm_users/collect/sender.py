"""Records on a worker, on their way to the master: in batches, on Locust's own report and at the end of a stage."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llm_users.record import RequestRecord

BATCH_ROWS = 1000
"""Rows per message: about 300 kB; the master handles one in some 30 ms."""

REPORT_KEY = "llm_rows"


class RecordSender:
    """Buffers packed records of one worker."""

    def __init__(self, send: Callable[[str, dict[str, Any]], None]) -> None:
        self._send = send
        self._rows: list[tuple[list[Any], list[float]]] = []
        self.sent = 0

    def add(self, record: RequestRecord, offsets_s: list[float]) -> None:
        self._rows.append((record.row(), offsets_s))

    def take(self) -> list[tuple[list[Any], list[float]]]:
        """A batch for the report that is about to leave."""
        batch, self._rows = self._rows[:BATCH_ROWS], self._rows[BATCH_ROWS:]
        self.sent += len(batch)
        return batch

    def flush(self) -> None:
        """Send everything now."""
        while self._rows:
            self._send(REPORT_KEY, {"rows": self.take()})
