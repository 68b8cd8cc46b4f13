"""A load process's pulse: it tells once a second what it has started, and notices when it stood still itself.

A process that was stopped for seconds (SIGSTOP, a machine out of memory, a suspended container) may have been given up
meanwhile and its share handed to others. So after a standstill nothing starts before the coordinator's word.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent

from llm_users.collect.spool import StartCounts
from llm_users.load import messages
from llm_users.stage import StageGate

STANDSTILL_S = 2.0
"""Shorter than the silence after which Locust's master takes a worker for missing (3 to 5 s)."""

_BEAT_S = 0.25
_TELL_S = 1.0


class Pulse:
    """One per load process; ``about`` adds what the process knows of its spool."""

    def __init__(self, gate: StageGate, send: Callable[[str, dict[str, Any]], None]) -> None:
        self._gate = gate
        self._send = send
        self._worker = 0
        self._counts = StartCounts("", 0, shared=False)
        self._beaten_at = 0.0
        self._waits = False
        self._greenlet: gevent.Greenlet[[], None] | None = None
        self.about: Callable[[], dict[str, Any]] = lambda: {"held": 0, "shards": [], "host": ""}

    def begin(self, run_id: str, worker: int, *, distributed: bool) -> None:
        """A run begins: count from 0; beat when there is a master to hear it."""
        self.stop()
        self._worker = worker
        self._waits = False
        self._counts.remove()
        self._counts = StartCounts(run_id, worker, shared=distributed)
        self._gate.on_start = self._counts.add
        if distributed:
            self._beaten_at = time.monotonic()
            self._gate.may_start = self._may_start
            self._greenlet = gevent.spawn(self._beat)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill(block=False)
            self._greenlet = None
        self._gate.may_start = lambda: True

    def forget(self) -> None:
        """The counts are not needed any more."""
        self._counts.remove()

    def go_on(self) -> None:
        """The coordinator's word has come."""
        self._waits = False
        self._beaten_at = time.monotonic()

    def tell(self) -> None:
        """What was started so far."""
        counts = self._counts
        told = {
            "worker": self._worker,
            "stage": counts.stage,
            "started": counts.started,
            "measured": counts.measured,
            "total": counts.total,
            "counts": str(counts.path) if counts.path is not None else None,
        }
        self._send(messages.COUNT, told | self.about())

    # Inside.

    def _beat(self) -> None:
        told_at = 0.0
        while True:
            self._may_start()
            now = self._beaten_at = time.monotonic()
            if now - told_at >= _TELL_S:
                told_at = now
                self.tell()
            gevent.sleep(_BEAT_S)

    def _may_start(self) -> bool:
        if not self._waits and time.monotonic() - self._beaten_at > STANDSTILL_S:
            self._waits = True
            stage = self._gate.plan.stage
            measured = self._counts.measured if self._counts.stage == stage else 0
            self._send(messages.BACK, {"worker": self._worker, "stage": stage, "measured": measured})
        return not self._waits
