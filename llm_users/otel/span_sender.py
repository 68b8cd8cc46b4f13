"""Sends finished spans in batches from an OS thread: neither encoding nor a slow receiver blocks the event loop.

The batch processor of the SDK would run in a greenlet, because Locust patches threads: it would encode each batch in
the event loop.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

from llm_users.otel.request_spans import FinishedSpan


def _setting(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() and int(value) > 0 else default


class SpanSender:
    """A queue of finished spans and the thread that exports them. ``export`` sends a batch and returns True on success.

    The queue is limited (``OTEL_BSP_MAX_QUEUE_SIZE``, default 8,192): when the receiver does not keep up, further spans
    are counted in ``lost``, as are the spans of failed exports. ``OTEL_BSP_SCHEDULE_DELAY`` (ms, default 1,000) and
    ``OTEL_BSP_MAX_EXPORT_BATCH_SIZE`` (default 256) have the meanings of the SDK.
    """

    def __init__(self, export: Callable[[Sequence[FinishedSpan]], bool]) -> None:
        self._export = export
        self._most_waiting = _setting("OTEL_BSP_MAX_QUEUE_SIZE", 8192)
        self._batch = _setting("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 256)
        self._delay_s = _setting("OTEL_BSP_SCHEDULE_DELAY", 1000) / 1000
        self._waiting: deque[FinishedSpan] = deque()
        self._pool: Any = ThreadPool(1)
        self._idle = Event()
        self._idle.set()
        self._scheduled = False
        self._is_sending = False
        self._in_flight = 0
        self.lost = 0

    def add(self, span: FinishedSpan) -> None:
        """Add a span and return at once."""
        if len(self._waiting) >= self._most_waiting:
            self.lost += 1
            return
        self._waiting.append(span)
        self._idle.clear()
        if not self._scheduled:
            self._scheduled = True
            gevent.spawn_later(self._delay_s, self._send_waiting)

    @property
    def unsent(self) -> int:
        """Return the number of spans that wait or are being sent."""
        return len(self._waiting) + self._in_flight

    def flush(self, timeout_s: float) -> bool:
        """Send all spans; return False if they are not sent within the timeout. Other greenlets continue."""
        limit = time.monotonic() + timeout_s
        if self._waiting and not self._is_sending:
            gevent.spawn(self._send_waiting)
        self._idle.wait(timeout=max(0.0, limit - time.monotonic()))
        return self._idle.is_set()

    def _send_waiting(self) -> None:
        if self._is_sending:
            return
        self._is_sending = True
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
                self._in_flight = len(batch)
                if not self._pool.apply(self._export, (batch,)):
                    self.lost += len(batch)
                self._in_flight = 0
        finally:
            self._is_sending = self._scheduled = False
            self._idle.set()
