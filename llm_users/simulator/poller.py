"""Waits for sockets with a timeout that is accurate to microseconds.

It does not depend on the data that the sockets carry.
"""

from __future__ import annotations

import contextlib
import select
import selectors
from pathlib import Path
from typing import Protocol

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
# Events to handle before the next check for due tokens: about 1 ms of request parsing. The kernel rotates its ready
# list, so every socket is served.
MAX_EVENTS = 16


class Poller(Protocol):
    """`wait` returns at most a few (fd, READ | WRITE) pairs; the rest come with the next call."""

    def register(self, fd: int, events: int) -> object: ...
    def modify(self, fd: int, events: int) -> object: ...
    def unregister(self, fd: int) -> None: ...
    def wait(self, timeout_s: float | None) -> list[tuple[int, int]]: ...
    def close(self) -> None: ...


class EpollPoller:
    """Uses epoll for the sockets and select() for the timeout.

    epoll rounds its timeout up to whole milliseconds; select() on the epoll descriptor has a resolution of
    microseconds and costs one additional call per wake-up.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wait_on = [self._epoll.fileno()]
        self._codes = {READ: select.EPOLLIN, WRITE: select.EPOLLOUT, READ | WRITE: select.EPOLLIN | select.EPOLLOUT}
        self.unregister, self.close = self._epoll.unregister, self._epoll.close

    def register(self, fd: int, events: int) -> None:
        self._epoll.register(fd, self._codes[events])

    def modify(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, self._codes[events])

    def wait(self, timeout_s: float | None) -> list[tuple[int, int]]:
        if timeout_s != 0 and not select.select(self._wait_on, (), (), timeout_s)[0]:
            return []
        # Errors and hang-ups count as readable: the read detects them.
        return [
            (fd, (WRITE if code & select.EPOLLOUT else 0) | (READ if code & ~select.EPOLLOUT else 0))
            for fd, code in self._epoll.poll(0, MAX_EVENTS)
        ]


class SelectorsPoller:
    """Uses the default selector of the platform (kqueue on macOS)."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._pending: list[tuple[int, int]] = []
        self.register, self.modify, self.close = self._selector.register, self._selector.modify, self._selector.close

    def unregister(self, fd: int) -> None:
        self._selector.unregister(fd)
        self._pending = [pair for pair in self._pending if pair[0] != fd]

    def wait(self, timeout_s: float | None) -> list[tuple[int, int]]:
        if not self._pending:
            self._pending = [(key.fd, events) for key, events in self._selector.select(timeout_s)]
        now, self._pending = self._pending[:MAX_EVENTS], self._pending[MAX_EVENTS:]
        return now


def make_poller(kind: str = "auto") -> Poller:
    """Return a poller; `kind` is auto, epoll or selectors."""
    if kind == "selectors" or (kind == "auto" and not hasattr(select, "epoll")):
        return SelectorsPoller()
    return EpollPoller()


def sharpen_timers() -> None:
    """Ask Linux to wake this thread within 1 us of its timers; the default is 50 us late."""
    # Elsewhere, or without the permission, wake-ups are slightly later, which the log shows.
    with contextlib.suppress(OSError):
        Path("/proc/self/timerslack_ns").write_text("1000")
