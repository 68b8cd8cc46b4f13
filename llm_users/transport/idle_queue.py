"""Defer the start and the row finalisation of requests until the event loop has nothing to read.

Without this, 512 streams that start at the same time read their first tokens 100 ms late, and answers that end
together delay the reads of other streams by 60 ms. With it, the starting request waits (``queue_s``), not the measured
stream.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from gevent import get_hub, getcurrent

from llm_users.transport.clock import now_ns
from llm_users.transport.precise_timer import PreciseTimer

MAX_WAIT_NS = 20_000_000
"""Maximum wait. Under full load the loop is never idle: a greenlet then continues after this time and is counted."""

_FORCE_CHECK_S = 0.002

_MOST_FORCED_NS = 1_000_000
"""A check resumes no further greenlet after this time. The part of a long answer that one greenlet processes takes up
to 2 ms."""

_CLEAR_NS = 500_000
"""The time to build a request or make a row, plus a margin. No greenlet continues this shortly before a timer."""


class IdleQueue:
    """A queue of greenlets. Each iteration of the event loop that has nothing to read resumes one of them, in order."""

    def __init__(self, precise_timer: PreciseTimer | None = None, one_more_per: int | None = None) -> None:
        """Create an empty queue.

        ``precise_timer``: the queue resumes no greenlet shortly before this timer wakes one. ``one_more_per``: each
        check resumes one greenlet that has reached the maximum wait, plus one for every ``one_more_per`` greenlets in
        the queue; None: only one.
        """
        self._precise_timer = precise_timer
        self._one_more_per = one_more_per
        loop = get_hub().loop
        self._switch_to_hub = get_hub().switch
        self._waiting: deque[tuple[int, Any]] = deque()  # (deadline on the monotonic clock, greenlet)
        self._idle = loop.idle()
        self._timer = loop.timer(_FORCE_CHECK_S, _FORCE_CHECK_S)
        self._timer_runs = False
        self.passed = 0
        self.forced = 0

    def wait(self) -> bool:
        """Wait until this greenlet may continue. Return True if the loop was idle, False after the maximum wait."""
        entry = (now_ns() + MAX_WAIT_NS, getcurrent())
        if not self._waiting:
            self._idle.start(self._on_idle)
            if not self._timer_runs:
                self._timer_runs = True
                self._timer.start(self._on_timer)
        self._waiting.append(entry)
        try:
            idle = bool(self._switch_to_hub())
        except BaseException:  # killed while waiting
            if entry in self._waiting:
                self._waiting.remove(entry)
                self._stop_when_empty()
            raise
        self.passed += 1
        self.forced += not idle
        return idle

    def _on_idle(self) -> None:
        timer = self._precise_timer
        if timer is None or not timer.rings_within(_CLEAR_NS):  # checked again in the next iteration of the loop
            self._wake_next(idle=True)

    def _on_timer(self) -> None:
        if not self._waiting:
            self._timer.stop()
            self._timer_runs = False
            return
        count = 1 + (len(self._waiting) // self._one_more_per if self._one_more_per else 0)
        limit_ns = now_ns() + _MOST_FORCED_NS
        for _ in range(count):
            if not self._waiting or self._waiting[0][0] > now_ns() or now_ns() > limit_ns:
                return
            self._wake_next(idle=False)

    def _wake_next(self, *, idle: bool) -> None:
        if self._waiting:
            _deadline, greenlet = self._waiting.popleft()
            self._stop_when_empty()
            greenlet.switch(idle)  # returns when that greenlet waits again

    def _stop_when_empty(self) -> None:
        if not self._waiting:
            self._idle.stop()  # the timer stops itself, because starting and stopping it costs more than its call
