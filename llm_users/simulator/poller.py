"""Waiting for sockets until an instant that is exact to microseconds.

It must not know what the sockets carry.
"""

from __future__ import annotations

import select
import selectors
from pathlib import Path
from typing import Protocol

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
# Events handled before due tokens are looked at again: about 1 ms of request parsing. The kernel rotates its ready
# list, so every socket gets its turn.
MAX_EVENTS = 16


class Poller(Protocol):
    """`wait` returns at most a few (fd, READ | WRITE) pairs; the rest come with the next call."""

    def register(self, fd: int, events: int) -> None: ...
    def modify(self, fd: int, events: int) -> None: ...
    def unregister(self, fd: int) -> None: ...
    def wait(self, timeout_s: float | None) -> list[tuple[int, int]]: ...
    def close(self) -> None: ...


class EpollPoller:
    """epoll for the sockets, select() for the time.

    epoll's own timeout is in whole milliseconds and rounded up; select() on the epoll descriptor sleeps in
    microseconds and costs one call more per wake-up.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wait_on = [self._epoll.fileno()]
        self._codes = {READ: select.EPOLLIN, WRITE: select.EPOLLOUT, READ | WRITE: select.EPOLLIN | select.EPOLLOUT}

    def register(self, fd: int, events: int) -> None:
        self._epoll.register(fd, self._codes[events])

    def modify(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, self._codes[events])

    def unregister(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def wait(self, timeout_s: float | None) -> list[tuple[int, int]]:
        if timeout_s != 0 and not select.select(self._wait_on, (), (), timeout_s)[0]:
            return []
        # Errors and hang-ups are found by reading.
        return [
            (fd, (WRITE if code & select.EPOLLOUT else 0) | (READ if code & ~select.EPOLLOUT else 0))
            for fd, code in self._epoll.poll(0, MAX_EVENTS)
        ]

    def close(self) -> None:
        self._epoll.close()


class SelectorsPoller:
    """Whatever the platform offers (kqueue on macOS)."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._left: list[tuple[int, int]] = []

    def register(self, fd: int, events: int) -> None:
        self._selector.register(fd, events)

    def modify(self, fd: int, events: int) -> None:
        self._selector.modify(fd, events)

    def unregister(self, fd: int) -> None:
        self._selector.unregister(fd)
        self._left = [pair for pair in self._left if pair[0] != fd]

    def wait(self, timeout_s: float | None) -> list[tuple[int, int]]:
        if not self._left:
            self._left = [(key.fd, events) for key, events in self._selector.select(timeout_s)]
        now, self._left = self._left[:MAX_EVENTS], self._left[MAX_EVENTS:]
        return now

    def close(self) -> None:
        self._selector.close()


def make_poller(kind: str = "auto") -> Poller:
    """`kind` is auto, epoll or selectors."""
    if kind == "selectors" or (kind == "auto" and not hasattr(select, "epoll")):
        return SelectorsPoller()
    return EpollPoller()


def sharpen_timers() -> None:
    """Ask Linux to wake this thread within 1 us of its timers; the default is 50 us late."""
    try:
        Path("/proc/self/timerslack_ns").write_text("1000")
    except OSError:
        return  # not Linux, or not allowed: wake-ups are a little later, which the log shows
