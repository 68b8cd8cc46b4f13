"""A text file that grows without ever holding up whoever writes: lines wait in memory, an OS thread writes them.

A disk that is slow or full delays nothing else. It is reported once, what does not fit goes to a second file elsewhere,
and what fits nowhere is counted.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

FLUSH_S = 0.5
"""How long a line waits for others before it is written."""

SLOW_S = 3.0
"""A write that takes longer than this is reported."""

RETRY_S = 1.0

MOST_BYTES = 64 * 2**20
"""Text that waits for the disk at most: some 150 000 rows."""

_AT_A_TIME = 2**20


class LineFile:
    """One file of lines, header first; an ``add`` is one line or row and is written whole or not at all."""

    def __init__(
        self,
        path: Path,
        header: str = "",
        *,
        elsewhere: Callable[[], Path] | None = None,
        on_trouble: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.path = path
        self.paths = [path]
        """Where rows are: the file itself, then the one that took what did not fit into it."""
        self.given_up = 0
        """Lines that fitted neither on the disk nor into memory."""
        self._header = header.encode()
        self._elsewhere = elsewhere
        self._on_trouble = on_trouble
        self._told: set[str] = set()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._scheduled = False
        self._writing_since: float | None = None
        self._idle = Event()
        self._idle.set()
        self._pool = ThreadPool(1)
        self._fd = _open(path)
        self._size = 0  # up to the end of the last whole line
        if header:
            self.write(header)

    def write(self, text: str) -> int:
        """Add a line; returns at once. (The name is what ``csv.writer`` wants of a file.)"""
        self._tell_if_slow()
        line = text.encode("utf-8", "replace")
        if self._bytes + len(line) > MOST_BYTES:
            self.given_up += 1
            self._tell("lost", f"rows are lost: {self.path} takes none, and {MOST_BYTES // 2**20} MiB wait for it")
            return len(text)
        self._waiting.append(line)
        self._bytes += len(line)
        self._idle.clear()
        if not self._scheduled:
            self._scheduled = True
            gevent.spawn_later(FLUSH_S, self._write_out)
        return len(text)

    @property
    def unwritten(self) -> int:
        """Lines that are not in any file: given up, or still waiting."""
        return self.given_up + len(self._waiting) - (bool(self._waiting) and self._waiting[0] == self._header)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything so far is written; False when that took too long. Other greenlets go on."""
        self._tell_if_slow()
        limit = time.monotonic() + timeout_s
        if not self._scheduled and self._waiting:
            self._scheduled = True
            gevent.spawn(self._write_out)
        elif self._writing_since is None and self._waiting:
            gevent.spawn(self._write_out)
        while not self._idle.is_set():
            if not self._idle.wait(timeout=max(0.0, limit - time.monotonic())) and time.monotonic() >= limit:
                return False
        return True

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what can be written within the time; what cannot is counted in ``given_up``."""
        if self._fd < 0:
            return
        self._told.add("slow")
        if not self.flush(timeout_s):
            self.given_up = self.unwritten
            self._tell("end", f"{self.given_up} rows could not be written to {self.path} within {timeout_s:g} s")
            self._waiting.clear()
        if self._writing_since is None:  # else the thread that hangs in it keeps both to the end of the process
            os.close(self._fd)
            self._pool.kill()
        self._fd = -1

    def restart(self) -> None:
        """Empty the file, but for its header; what comes next is all of it. The disk must have been keeping up."""
        self.flush()
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        self._size = 0
        self.write(self._header.decode())

    # Inside.

    def _write_out(self) -> None:
        """Write all that waits, a piece after the other, while the loop does other things."""
        if self._writing_since is not None:
            return
        self._writing_since = time.monotonic()
        try:
            while self._waiting and self._fd >= 0:
                batch = self._batch()
                self._writing_since = time.monotonic()
                written, error = self._pool.apply(_write, (self._fd, b"".join(batch)))
                whole, size = _whole(batch, written)
                for _ in range(min(whole, len(self._waiting))):
                    self._bytes -= len(self._waiting.popleft())
                self._size += size
                if error is not None and not self._go_elsewhere(error):
                    gevent.spawn_later(RETRY_S, self._write_out)
                    return
            self._scheduled = False
            self._idle.set()
        finally:
            self._writing_since = None

    def _batch(self) -> list[bytes]:
        batch, size = [], 0
        for line in self._waiting:
            batch.append(line)
            size += len(line)
            if size >= _AT_A_TIME:
                break
        return batch

    def _go_elsewhere(self, error: OSError) -> bool:
        """The disk takes no more: cut the half line off, go on in another file; False when there is none."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, self._size)
            os.lseek(self._fd, self._size, os.SEEK_SET)
        problem = f"{self.path} cannot be written ({error.strerror or error})"
        if self._elsewhere is None or len(self.paths) > 1:
            self._tell("full", f"{problem}; rows wait in memory")
            return False
        try:
            path = self._elsewhere()
            descriptor = _open(path)
        except OSError as another:
            self._tell("full", f"{problem}, nor any other place ({another.strerror or another}); rows wait in memory")
            return False
        os.close(self._fd)
        self._fd, self._size = descriptor, 0
        self.paths.append(path)
        if self._header and self._waiting[0] != self._header:
            self._waiting.appendleft(self._header)
            self._bytes += len(self._header)
        self._tell("full", f"{problem}; from here on rows go to {path}")
        return True

    def _tell_if_slow(self) -> None:
        if self._writing_since is not None and time.monotonic() - self._writing_since > SLOW_S:
            self._tell("slow", f"the disk is slow: writing to {self.path} takes longer than {SLOW_S:g} s; rows wait")

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._on_trouble(text)


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)


def _write(descriptor: int, data: bytes) -> tuple[int, OSError | None]:
    """In the thread: everything, or as much as the disk takes."""
    view, done = memoryview(data), 0
    try:
        while done < len(view):
            done += os.write(descriptor, view[done:])
    except OSError as error:
        return done, error
    return done, None


def _whole(batch: list[bytes], written: int) -> tuple[int, int]:
    """How many lines of the batch are complete within so many bytes, and how long those are."""
    size = 0
    for count, line in enumerate(batch):
        if size + len(line) > written:
            return count, size
        size += len(line)
    return len(batch), size
