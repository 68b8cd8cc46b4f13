"""Wake greenlets at a given time of the monotonic clock, accurate to 0.01 ms if nothing else runs.

The event loop's own timers are rounded up to whole milliseconds (epoll), which is too coarse for open-loop arrivals.
On Linux a kernel timer (timerfd) wakes the loop like a socket that becomes readable.
"""

from __future__ import annotations

import ctypes
import heapq
import itertools
import os
import struct
import sys
from typing import Any

import gevent
from gevent import get_hub, getcurrent

from llm_users.transport.clock import now_ns

_NS = 1_000_000_000
_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_TIMER_ABSTIME = os.O_NONBLOCK, os.O_CLOEXEC, 1
_READ = 1  # libev's event bit
_LOOP_TIMER_ABOVE_NS = 2_000_000
"""If the time is further ahead than this, the loop's own timer does the first part of the wait."""
_WAKE_LATENCY_NS = 60_000
"""The timer is set this much earlier, for the latency of the kernel and the loop; a busy wait covers the rest."""
_BUSY_WAIT_NS = 100_000
"""A greenlet that is due within this time gets a busy wait instead of a return to the loop: a read in between would
take as long. The read loses no accuracy by waiting, because the kernel stamps the data."""


_ITIMERSPEC = struct.Struct("@llll")  # interval and time, each in s and ns


class PreciseTimer:
    """Lets any number of greenlets wait for different times. One object per process, with one kernel timer."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Any]] = []  # heap of (time in ns, order, greenlet)
        self._order = itertools.count()
        self._switch_to_hub = get_hub().switch
        self._armed_ns = 0
        self._timer: tuple[int, Any] | None = None  # the kernel timer and its watcher; None: the platform has none
        if sys.platform.startswith("linux"):
            self._libc = ctypes.CDLL(None, use_errno=True)
            descriptor = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
            if descriptor >= 0:
                self._timer = (descriptor, get_hub().loop.io(descriptor, _READ))
                self._timer[1].start(self._on_timer)

    def wait_until(self, due_ns: int) -> None:
        """Return at this time of the monotonic clock, or immediately if it has passed."""
        left_ns = due_ns - now_ns()
        if left_ns <= 0:
            return
        if self._timer is None:
            while (left_ns := due_ns - now_ns()) > 0:
                gevent.sleep(left_ns / _NS)
            return
        if left_ns > _LOOP_TIMER_ABOVE_NS:
            gevent.sleep((left_ns - _LOOP_TIMER_ABOVE_NS) / _NS)
        entry = (due_ns, next(self._order), getcurrent())
        heapq.heappush(self._waiting, entry)
        self._arm()
        try:
            self._switch_to_hub()
        except BaseException:  # killed while waiting
            if entry in self._waiting:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
            raise

    def rings_within(self, span_ns: int) -> bool:
        """Return True if a greenlet is due within this time."""
        return bool(self._waiting) and self._waiting[0][0] - now_ns() < span_ns

    def close(self) -> None:
        """Release the timer. Kill all waiting greenlets before you call this."""
        if self._timer is not None:
            descriptor, watcher = self._timer
            self._timer = None
            watcher.stop()
            watcher.close()
            os.close(descriptor)

    def _arm(self) -> None:
        assert self._timer is not None
        due_ns = self._waiting[0][0] - _WAKE_LATENCY_NS
        if due_ns == self._armed_ns:
            return
        self._armed_ns = due_ns
        setting = _ITIMERSPEC.pack(0, 0, due_ns // _NS, due_ns % _NS)
        self._libc.timerfd_settime(self._timer[0], _TFD_TIMER_ABSTIME, setting, None)

    def _on_timer(self) -> None:
        assert self._timer is not None
        try:
            os.read(self._timer[0], 8)
        except BlockingIOError:
            return
        self._armed_ns = 0
        while self._waiting and (due_ns := self._waiting[0][0]) - now_ns() <= _BUSY_WAIT_NS:
            while now_ns() < due_ns:
                pass
            heapq.heappop(self._waiting)[2].switch()  # returns when that greenlet waits again
        if self._waiting and self._timer is not None:
            self._arm()
