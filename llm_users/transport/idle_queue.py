"""Reading goes before starting, and before finishing: both wait until the event loop has nothing to read.

Without this, 512 streams that start at one instant read their first tokens 100 ms late, and answers that end together
keep those of others waiting for 60 ms; with it the wait is the starter's (``queue_s``), not the measured stream's.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from gevent import get_hub, getcurrent

from llm_users.transport.clock import now_ns
from llm_users.transport.precise_timer import PreciseTimer

MAX_WAIT_NS = 20_000_000
"""Under full load the loop is never idle: after this long whoever waits goes on all the same, and is counted."""

_FORCE_CHECK_S = 0.002

_CLEAR_NS = 500_000
"""What building a request or making a row takes, and some more: nothing of it begins so shortly before an arrival."""


class IdleQueue:
    """Where a greenlet waits for a turn of the event loop that has nothing to read: one each, in order."""

    def __init__(self, precise_timer: PreciseTimer | None = None, one_more_per: int | None = None) -> None:
        """``precise_timer``: no greenlet of this queue goes on shortly before this timer wakes another one.

        ``one_more_per``: of the forced greenlets one goes at a time, and one more for each such number that waits.
        None: never more than one.
        """
        self._precise_timer = precise_timer
        self._one_more_per = one_more_per
        loop = get_hub().loop
        self._switch_to_hub = get_hub().switch
        self._waiting: deque[tuple[int, Any]] = deque()  # (deadline on the monotonic clock, greenlet)
        self._idle = loop.idle()
        self._timer = loop.timer(_FORCE_CHECK_S, _FORCE_CHECK_S)
        self.passed = 0
        self.forced = 0

    def wait(self) -> bool:
        """Return when this greenlet may go on: True when the loop was idle, False when it never was (``forced``)."""
        entry = (now_ns() + MAX_WAIT_NS, getcurrent())
        if not self._waiting:
            self._idle.start(self._on_idle)
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
        if timer is None or not timer.rings_within(_CLEAR_NS):  # asked again in the next turn
            self._wake_next(idle=True)

    def _on_timer(self) -> None:
        at_a_time = 1 + (len(self._waiting) // self._one_more_per if self._one_more_per else 0)
        for _ in range(at_a_time):
            if not self._waiting or self._waiting[0][0] > now_ns():
                return
            self._wake_next(idle=False)

    def _wake_next(self, *, idle: bool) -> None:
        if self._waiting:
            _deadline, greenlet = self._waiting.popleft()
            self._stop_when_empty()
            greenlet.switch(idle)  # comes back when that greenlet waits for something else

    def _stop_when_empty(self) -> None:
        if not self._waiting:
            self._idle.stop()
            self._timer.stop()
