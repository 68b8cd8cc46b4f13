"""An append-only text file that does not block its writers: lines wait in memory, and an OS thread writes them.

A slow or full disk does not delay the rest of the process. It is reported once, further lines go to another file, and
lines that no file can take are counted. Before each write, the thread checks that the file is still at its path. A
file that was removed is restored from the open descriptor; if another file replaced it, writing continues at another
path.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat
import tempfile
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gevent
from gevent.event import Event
from gevent.threadpool import ThreadPool

FLUSH_S = 0.5
"""Time in seconds that a line waits for other lines before it is written."""

SLOW_S = 3.0
"""A write that takes longer than this time in seconds is reported."""

RETRY_S = 1.0

MOST_BYTES = 64 * 2**20
"""Maximum text in memory that waits for the disk: about 150 000 rows."""

_BATCH_BYTES = 2**20

_MORE_FOLDERS = ("/var/tmp", "/dev/shm")  # noqa: S108 - mkdtemp creates folders in them
"""Parent folders to use when the temporary folder is full too. The second one is memory, which survives the process."""


def fallback_folders(name: str) -> Iterator[Path]:
    """Yield new folders for data that does not fit elsewhere, created on demand. Folders that fail are skipped."""
    with contextlib.suppress(OSError):  # the search for a temporary folder writes a file, which fails on a full disk
        yield Path(tempfile.mkdtemp(prefix=name))
    for parent in _MORE_FOLDERS:
        with contextlib.suppress(OSError):
            yield Path(tempfile.mkdtemp(prefix=name, dir=parent))


class LineFile:
    """A file of lines with a header. A ``write`` adds one line or row, which is written completely or not at all.

    ``elsewhere`` returns the next path when a file cannot be written, and raises OSError when there is none.
    """

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
        """The files with rows: the file itself, then the files with the lines that could not be written to it."""
        self.given_up = 0
        """Number of lines that fit neither on the disk nor into memory, or that another program removed."""
        self.disturbances: list[str] = []
        """Changes that other programs made to the file."""
        self._header = header.encode()
        self._elsewhere = elsewhere
        self._on_trouble = on_trouble
        self._reported: set[str] = set()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._scheduled = False
        self._writing_since: float | None = None
        self._retries = False
        self._watches = True
        self._idle = Event()
        self._idle.set()
        self._pool = ThreadPool(1)
        self._fd = _open(path)
        self._current = path.absolute()  # a locustfile can change the working directory
        self._size = 0  # up to the end of the last complete line
        self._lines = 0  # in the current file, including its header
        self._unreachable = 0  # lines in a file that was removed or replaced
        if header:
            self.write(header)

    def write(self, text: str) -> int:
        """Add a line and return at once. (``csv.writer`` requires a method with this name.)"""
        self._report_if_slow()
        line = text.encode("utf-8", "replace")
        if self._bytes + len(line) > MOST_BYTES:
            self.given_up += 1
            self._report(
                "lost", f"rows are lost: {self.path} cannot be written, and {MOST_BYTES // 2**20} MiB are waiting"
            )
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
        """Number of lines that are not in any file: lost, or still waiting."""
        waiting = len(self._waiting) - (bool(self._waiting) and self._waiting[0] == self._header)
        return self.given_up + waiting + self._unreachable

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until all lines so far are written; return False after the timeout. Other greenlets continue.

        It also checks that the file is still at its path, even if no lines are waiting.
        """
        self._report_if_slow()
        if self._fd < 0:
            return not self._waiting
        limit = time.monotonic() + timeout_s
        self._idle.clear()
        if self._writing_since is None:
            gevent.spawn(self._write_out)
        while not self._idle.is_set():
            if not self._idle.wait(timeout=max(0.0, limit - time.monotonic())) and time.monotonic() >= limit:
                return False
        return True

    def stop_watching(self) -> None:
        """Stop the check for a removed file: the file is complete and may be moved or removed."""
        self._watches = self._unreachable > 0  # otherwise, waiting lines would go into a removed file

    def close(self, timeout_s: float = 10.0) -> None:
        """Write the waiting lines within the timeout; ``given_up`` counts the lines that cannot be written."""
        if self._fd < 0:
            return
        self._reported.add("slow")
        if not self.flush(timeout_s):
            self.given_up, self._unreachable = self.unwritten, 0
            self._report("end", f"{self.given_up} lines could not be written to {self.path} within {timeout_s:.2g} s")
            self._waiting.clear()
            self._bytes = 0
        self._close_descriptor()

    def discard(self) -> None:
        """Close a file that is about to be removed, without writing the waiting lines and without a check."""
        self._waiting.clear()
        self._bytes = 0
        self._close_descriptor()

    def restart(self) -> None:
        """Empty the file except for its header, to write all lines again.

        It flushes the file first, so the disk must keep up.
        """
        self.flush()
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        self._size = self._lines = 0
        self.write(self._header.decode())

    def _close_descriptor(self) -> None:
        """Close the descriptor once: ending the pool lets other greenlets run, which may close or kill the caller."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0 and self._writing_since is None:
            os.close(descriptor)
            self._pool.kill()
        # Otherwise, the thread that hangs in a write keeps the descriptor and the pool until the end of the process.

    def _write_out(self) -> None:
        """Check the file and write all waiting lines in batches, without blocking the event loop."""
        if self._writing_since is not None or self._fd < 0:
            return
        self._writing_since = time.monotonic()
        try:
            while self._fd >= 0:
                batch, ends = [], [0]  # the next lines, and where they end in the batch
                for line in self._waiting:
                    batch.append(line)
                    ends.append(ends[-1] + len(line))
                    if ends[-1] >= _BATCH_BYTES:
                        break
                self._writing_since = time.monotonic()
                path = self._current if self._watches else None
                done = self._pool.apply(_check_and_write, (self._fd, path, self._size, b"".join(batch)))
                self._apply_state(done)
                complete = bisect_right(ends, done.written) - 1  # lines of the batch
                for _ in range(min(complete, len(self._waiting))):
                    self._bytes -= len(self._waiting.popleft())
                self._size += ends[complete]
                self._lines += complete
                if done.error is not None and not self._continue_elsewhere(done):
                    if not self._retries:
                        self._retries = True
                        gevent.spawn_later(RETRY_S, self._retry)
                    return
                if not self._waiting:
                    break
            self._scheduled = False
            self._idle.set()
        finally:
            self._writing_since = None

    def _retry(self) -> None:
        self._retries = False
        self._write_out()

    def _apply_state(self, done: _WriteResult) -> None:
        """Apply the state of the file that the thread detected and the repairs that it made."""
        if done.descriptor is not None:
            os.close(self._fd)
            self._fd = done.descriptor
            self._record_disturbance(
                f"{self._current} was removed during the run and has been restored with all its lines"
            )
        if done.state is _State.CUT:
            header = bool(self._header)
            lost = max(0, self._lines - header) - max(0, done.lines_kept - header)
            self.given_up += lost
            self._record_disturbance(f"another program truncated {self._current}: {lost} of its lines are lost")
            self._lines, self._size = done.lines_kept, done.bytes_kept
            if self._header and not done.lines_kept:
                self.write(self._header.decode())  # appended to the waiting lines, then moved to the front
                self._waiting.rotate(1)

    def _continue_elsewhere(self, done: _WriteResult) -> bool:
        """Continue in another file; return False when there is none. A removed or replaced file is copied first."""
        assert done.error is not None
        copies = done.state in (_State.REMOVED, _State.REPLACED)
        reason = done.error.strerror or str(done.error)
        if done.state is _State.REMOVED:
            problem = f"{self._current} was removed during the run and cannot be restored ({reason})"
        elif done.state is _State.REPLACED:
            problem = f"another file replaced {self._current} during the run"
        else:
            problem = f"{self._current} cannot be written ({reason})"
            with contextlib.suppress(OSError):  # an incomplete line
                os.ftruncate(self._fd, self._size)
                os.lseek(self._fd, self._size, os.SEEK_SET)
        while True:
            try:
                if self._elsewhere is None:
                    raise OSError(errno.ENOSPC, "no other folder is writable")
                path = self._elsewhere()
            except OSError as fallback_error:
                self._unreachable = self._lines - bool(self._header) if copies else 0
                self._report(
                    "nowhere",
                    f"{problem}, and there is no other file to write ({fallback_error.strerror or fallback_error}); "
                    "lines wait in memory",
                )
                return False
            try:
                descriptor = _open(path)
            except OSError:
                continue
            if not copies or self._pool.apply(_copy, (self._fd, descriptor, self._size)):
                break
            os.close(descriptor)
            path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd, self._current = descriptor, path.absolute()
        self.paths.append(path)
        text = f"{problem}; {'its lines are now in' if copies else 'further lines go to'} {path}"
        if copies:
            self._unreachable = 0
            self._record_disturbance(text)
            return True
        self._size = self._lines = 0
        if self._header and (not self._waiting or self._waiting[0] != self._header):
            self._waiting.appendleft(self._header)
            self._bytes += len(self._header)
        self._report(f"full {path}", text)
        return True

    def _record_disturbance(self, text: str) -> None:
        if text not in self.disturbances:
            self.disturbances.append(text)
        self._report(text, text)

    def _report_if_slow(self) -> None:
        if self._writing_since is not None and time.monotonic() - self._writing_since > SLOW_S:
            self._report(
                "slow", f"the disk is slow: a write to {self.path} takes longer than {SLOW_S:g} s; rows wait in memory"
            )

    def _report(self, kind: str, text: str) -> None:
        if kind not in self._reported:
            self._reported.add(kind)
            self._on_trouble(text)


class _State(enum.Enum):
    """The state of the path of an open file."""

    SAME = "same"
    REMOVED = "removed"
    REPLACED = "replaced"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class _WriteResult:
    """The state that the thread detected, and the result of its write."""

    state: _State
    written: int = 0
    error: OSError | None = None
    descriptor: int | None = None  # of the restored file
    lines_kept: int = 0  # of a truncated file
    bytes_kept: int = 0


def _open(path: Path) -> int:
    """Open a file for writing, and for reading if that is allowed: a removed file is restored from the descriptor."""
    flags = os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | flags, 0o666)
    except PermissionError:
        return os.open(path, os.O_WRONLY | flags, 0o666)


def _check_and_write(descriptor: int, path: Path | None, size: int, data: bytes) -> _WriteResult:
    """Check that the file is at its path (``path`` None: no check), then write the data. Runs in the thread."""
    if path is None:
        return _WriteResult(_State.SAME, *_write(descriptor, data))
    state = _state_of(descriptor, path, size)
    if state is _State.REMOVED:
        try:
            again = _restore(descriptor, path, size)
        except OSError as error:
            return _WriteResult(state, error=error)
        return _WriteResult(state, *_write(again, data), descriptor=again)
    if state is _State.REPLACED:
        return _WriteResult(state, error=OSError(errno.EEXIST, "another file exists at its path"))
    if state is _State.CUT:
        lines = kept = position = 0  # ``lines`` complete lines in the first ``kept`` bytes
        try:
            while piece := os.pread(descriptor, _BATCH_BYTES, position):
                lines += piece.count(b"\n")
                if (end := piece.rfind(b"\n")) >= 0:
                    kept = position + end + 1
                position += len(piece)
            os.ftruncate(descriptor, kept)
            os.lseek(descriptor, kept, os.SEEK_SET)
        except OSError as error:
            return _WriteResult(_State.SAME, error=error)
        return _WriteResult(state, lines_kept=lines, bytes_kept=kept)
    return _WriteResult(state, *_write(descriptor, data))


def _state_of(descriptor: int, path: Path, size: int) -> _State:
    try:
        opened = os.fstat(descriptor)
        if not stat.S_ISREG(opened.st_mode):
            return _State.SAME
        current = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _State.REMOVED
    except OSError:
        return _State.SAME  # the write reports the error
    if not os.path.samestat(opened, current):
        if stat.S_ISREG(current.st_mode) and current.st_size == 0:
            return _State.REMOVED  # a new, empty file, as logrotate creates it
        # Some network file systems give a file a new inode number; size and time still match then.
        same = (opened.st_size, opened.st_mtime_ns) == (current.st_size, current.st_mtime_ns)
        return _State.SAME if same else _State.REPLACED
    return _State.CUT if opened.st_size < size else _State.SAME


def _restore(descriptor: int, path: Path, size: int) -> int:
    """Restore a removed file at its path and return the new descriptor. Raises OSError and leaves no file behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    again = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    if os.fstat(again).st_size:
        os.close(again)
        raise FileExistsError(errno.EEXIST, "another file exists at its path")
    if not _copy(descriptor, again, size):
        os.close(again)
        path.unlink(missing_ok=True)
        raise OSError(errno.ENOSPC, "there is no space on the disk for its content")
    return again


def _copy(source: int, target: int, size: int) -> bool:
    """Copy ``size`` bytes to the start of the target; return False when some cannot be copied."""
    position = 0
    try:
        while position < size:
            piece = os.pread(source, min(_BATCH_BYTES, size - position), position)
            if not piece or os.pwrite(target, piece, position) < len(piece):
                return False
            position += len(piece)
        os.lseek(target, size, os.SEEK_SET)
    except OSError:
        return False
    return True


def _write(descriptor: int, data: bytes) -> tuple[int, OSError | None]:
    """Write all data, or as much as possible; return the number of bytes written and the error, if any."""
    view, done = memoryview(data), 0
    try:
        while done < len(view):
            done += os.write(descriptor, view[done:])
    except OSError as error:
        return done, error
    return done, None
