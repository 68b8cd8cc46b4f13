"""Waking at a given moment of the monotonic clock, to a hundredth of a millisecond where nothing else runs.

The event loop's own timers are rounded up to whole milliseconds (epoll), which is too coarse for arrivals of an open
loop: on Linux a timer of the kernel wakes the loop like a socket that has become readable. Knows no requests.
"""

from __future__ import annotations

import ctypes
import heapq
import itertools
import os
import sys
from typing import Any

import gevent
from gevent import get_hub, getcurrent

from llm_users.transport.clock import now_ns

_NS = 1_000_000_000
_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_TIMER_ABSTIME = os.O_NONBLOCK, os.O_CLOEXEC, 1
_READ = 1  # libev's event bit
_COARSE_NS = 2_000_000
"""Further ahead than this the loop's own timer does the first part."""
_WAKING_NS = 60_000
"""The timer is set so much earlier, as long as the kernel and the loop take to the greenlet; the rest is spun away."""
_NEAR_NS = 100_000
"""What is due so soon is not left to the loop: a read that came between would take as long, and it loses nothing by
waiting, since the kernel stamps what it reads."""


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class PreciseTimer:
    """Any number of greenlets may wait, each for its own moment. One per process, on one timer of the kernel."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Any]] = []  # a heap of (moment, order, greenlet)
        self._order = itertools.count()
        self._switch_to_hub = get_hub().switch
        self._armed_ns = 0
        self._libc: Any = None
        self._timer = _timer_of(self)

    def wait_until(self, moment_ns: int) -> None:
        """Return at this moment of the monotonic clock, or at once when it has passed."""
        left_ns = moment_ns - now_ns()
        if left_ns <= 0:
            return
        if self._timer is None:
            _sleep_until(moment_ns)
            return
        if left_ns > _COARSE_NS:
            gevent.sleep((left_ns - _COARSE_NS) / _NS)
        entry = (moment_ns, next(self._order), getcurrent())
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
        """Whether somebody is due within this time."""
        return bool(self._waiting) and self._waiting[0][0] - now_ns() < span_ns

    def close(self) -> None:
        """Give the timer back. Whoever still waits must have been killed before."""
        if self._timer is not None:
            descriptor, watcher = self._timer
            self._timer = None
            watcher.stop()
            watcher.close()
            os.close(descriptor)

    def _arm(self) -> None:
        assert self._timer is not None
        moment_ns = self._waiting[0][0] - _WAKING_NS
        if moment_ns == self._armed_ns:
            return
        self._armed_ns = moment_ns
        setting = _Itimerspec(_Timespec(0, 0), _Timespec(moment_ns // _NS, moment_ns % _NS))
        self._libc.timerfd_settime(self._timer[0], _TFD_TIMER_ABSTIME, ctypes.byref(setting), None)

    def _ring(self) -> None:
        assert self._timer is not None
        try:
            os.read(self._timer[0], 8)
        except BlockingIOError:
            return
        self._armed_ns = 0
        while self._waiting and (moment_ns := self._waiting[0][0]) - now_ns() <= _NEAR_NS:
            while now_ns() < moment_ns:
                pass
            heapq.heappop(self._waiting)[2].switch()  # comes back when that greenlet waits for something else
        if self._waiting and self._timer is not None:
            self._arm()


def _timer_of(timer: PreciseTimer) -> tuple[int, Any] | None:
    """The kernel's timer and the loop's watcher of it; None where there is no such timer."""
    if not sys.platform.startswith("linux"):
        return None
    timer._libc = ctypes.CDLL(None, use_errno=True)
    descriptor = timer._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
    if descriptor < 0:
        return None
    watcher = get_hub().loop.io(descriptor, _READ)
    watcher.start(timer._ring)
    return descriptor, watcher


def _sleep_until(moment_ns: int) -> None:
    while (left_ns := moment_ns - now_ns()) > 0:
        gevent.sleep(left_ns / _NS)
