"""A text file that grows and never delays its writers: lines wait in memory, and an OS thread writes them.

A disk that is slow or full delays nothing else. It is reported once, what does not fit goes to another file elsewhere,
and what fits nowhere is counted. Before each write the thread checks that the file is still at its path. A file that
was removed is written again from the one that is still open; a file that another one replaced goes on elsewhere.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import stat
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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

_MORE_FOLDERS = ("/var/tmp", "/dev/shm")  # noqa: S108 - mkdtemp makes folders in them
"""Where rows go when the temporary folder is full too. The second is memory, which outlives the process at least."""


def fallback_folders(name: str) -> Iterator[Path]:
    """New folders for what does not fit elsewhere, each made when it is asked for. Failures are skipped."""
    with contextlib.suppress(OSError):  # the search for a temporary folder writes a file, which a full disk refuses
        yield Path(tempfile.mkdtemp(prefix=name))
    for parent in _MORE_FOLDERS:
        with contextlib.suppress(OSError):
            yield Path(tempfile.mkdtemp(prefix=name, dir=parent))


class LineFile:
    """One file of lines, header first; an ``add`` is one line or row and is written whole or not at all.

    ``elsewhere`` returns the path of the next file when one cannot be written, and raises OSError when there is none.
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
        """Where rows are: the file itself, then those that took what could not be written into it."""
        self.given_up = 0
        """Lines that fitted neither on the disk nor into memory, or that another program cut off the file."""
        self.disturbances: list[str] = []
        """What other programs did to the file."""
        self._header = header.encode()
        self._elsewhere = elsewhere
        self._on_trouble = on_trouble
        self._told: set[str] = set()
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
        self._current = path.absolute()  # a locustfile may change the working directory
        self._size = 0  # up to the end of the last whole line
        self._lines = 0  # in the current file, its header too
        self._unreachable = 0  # lines in a file that has no name any more
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
        waiting = len(self._waiting) - (bool(self._waiting) and self._waiting[0] == self._header)
        return self.given_up + waiting + self._unreachable

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until everything so far is written; False when that took too long. Other greenlets go on.

        Also checks, when nothing waits, that the file is still at its path.
        """
        self._tell_if_slow()
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
        """The file is complete: from now on it may be moved or removed."""
        self._watches = self._unreachable > 0  # else what still waits would go into a file without a name

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what can be written within the time; what cannot is counted in ``given_up``."""
        if self._fd < 0:
            return
        self._told.add("slow")
        if not self.flush(timeout_s):
            self.given_up, self._unreachable = self.unwritten, 0
            self._tell("end", f"{self.given_up} lines could not be written to {self.path} within {timeout_s:.2g} s")
            self._waiting.clear()
            self._bytes = 0
        self._let_go()

    def discard(self) -> None:
        """Close the file, which is about to be removed: what waits is not written, and nothing is checked."""
        self._waiting.clear()
        self._bytes = 0
        self._let_go()

    def restart(self) -> None:
        """Empty the file, but for its header; what comes next is all of it. The disk must have been keeping up."""
        self.flush()
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
        self._size = self._lines = 0
        self.write(self._header.decode())

    # Inside.

    def _let_go(self) -> None:
        """Close the descriptor, once: the pool's end lets others run, one of which may close or kill the caller."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0 and self._writing_since is None:
            os.close(descriptor)
            self._pool.kill()
        # Else the thread that hangs in a write keeps both to the end of the process.

    def _write_out(self) -> None:
        """Check the file and write all that waits, a piece after the other, while the loop does other things."""
        if self._writing_since is not None or self._fd < 0:
            return
        self._writing_since = time.monotonic()
        try:
            while self._fd >= 0:
                batch = self._batch()
                self._writing_since = time.monotonic()
                path = self._current if self._watches else None
                done = self._pool.apply(_check_and_write, (self._fd, path, self._size, b"".join(batch)))
                self._note_state(done)
                whole, size = _whole(batch, done.written)
                for _ in range(min(whole, len(self._waiting))):
                    self._bytes -= len(self._waiting.popleft())
                self._size += size
                self._lines += whole
                if done.error is not None and not self._go_elsewhere(done):
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

    def _batch(self) -> list[bytes]:
        batch, size = [], 0
        for line in self._waiting:
            batch.append(line)
            size += len(line)
            if size >= _AT_A_TIME:
                break
        return batch

    def _note_state(self, done: _Done) -> None:
        """Take over what the thread found and did before it wrote."""
        if done.descriptor is not None:
            os.close(self._fd)
            self._fd = done.descriptor
            self._disturbed(f"{self._current} was removed during the run and has been written again with all its lines")
        if done.state is _State.CUT:
            header = bool(self._header)
            lost = max(0, self._lines - header) - max(0, done.lines_kept - header)
            self.given_up += lost
            self._disturbed(f"another program cut {self._current}: {lost} lines that were in it are lost")
            self._lines, self._size = done.lines_kept, done.bytes_kept
            if self._header and not done.lines_kept:
                self.write(self._header.decode())  # at the end of what waits, so it is moved to the front
                self._waiting.rotate(1)

    def _go_elsewhere(self, done: _Done) -> bool:
        """Go on in another file; False when there is none. One that lost its name is copied there first."""
        assert done.error is not None
        copies = done.state in (_State.REMOVED, _State.REPLACED)
        reason = done.error.strerror or str(done.error)
        if done.state is _State.REMOVED:
            problem = f"{self._current} was removed during the run and cannot be written again ({reason})"
        elif done.state is _State.REPLACED:
            problem = f"another file took the place of {self._current} during the run"
        else:
            problem = f"{self._current} cannot be written ({reason})"
            with contextlib.suppress(OSError):  # the half line
                os.ftruncate(self._fd, self._size)
                os.lseek(self._fd, self._size, os.SEEK_SET)
        while True:
            try:
                if self._elsewhere is None:
                    raise OSError(errno.ENOSPC, "no other folder can be written")
                path = self._elsewhere()
            except OSError as another:
                self._unreachable = self._lines - bool(self._header) if copies else 0
                self._tell(
                    "nowhere", f"{problem}, nor any other place ({another.strerror or another}); lines wait in memory"
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
        text = f"{problem}; {'its lines are now in' if copies else 'from here on lines go to'} {path}"
        if copies:
            self._unreachable = 0
            self._disturbed(text)
            return True
        self._size = self._lines = 0
        if self._header and (not self._waiting or self._waiting[0] != self._header):
            self._waiting.appendleft(self._header)
            self._bytes += len(self._header)
        self._tell(f"full {path}", text)
        return True

    def _disturbed(self, text: str) -> None:
        if text not in self.disturbances:
            self.disturbances.append(text)
        self._tell(text, text)

    def _tell_if_slow(self) -> None:
        if self._writing_since is not None and time.monotonic() - self._writing_since > SLOW_S:
            self._tell("slow", f"the disk is slow: writing to {self.path} takes longer than {SLOW_S:g} s; rows wait")

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._on_trouble(text)


class _State(enum.Enum):
    """What became of an open file's path."""

    SAME = "same"
    REMOVED = "removed"
    REPLACED = "replaced"
    CUT = "cut"


@dataclass(frozen=True, slots=True)
class _Done:
    """What the thread found and did."""

    state: _State
    written: int = 0
    error: OSError | None = None
    descriptor: int | None = None  # of the file that was written again
    lines_kept: int = 0  # of a file that was cut
    bytes_kept: int = 0


def _open(path: Path) -> int:
    """For writing, and for reading where that is allowed: a file that is removed is copied from what is still open."""
    flags = os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    try:
        return os.open(path, os.O_RDWR | flags, 0o666)
    except PermissionError:
        return os.open(path, os.O_WRONLY | flags, 0o666)


def _check_and_write(descriptor: int, path: Path | None, size: int, data: bytes) -> _Done:
    """In the thread: see whether the file is at its path, if that matters; write everything, or what the disk takes."""
    if path is None:
        return _Done(_State.SAME, *_write(descriptor, data))
    state = _state_of(descriptor, path, size)
    if state is _State.REMOVED:
        try:
            again = _write_again(descriptor, path, size)
        except OSError as error:
            return _Done(state, error=error)
        return _Done(state, *_write(again, data), descriptor=again)
    if state is _State.REPLACED:
        return _Done(state, error=OSError(errno.EEXIST, "another file has its name"))
    if state is _State.CUT:
        try:
            lines, kept = _whole_lines(descriptor)
            os.ftruncate(descriptor, kept)
            os.lseek(descriptor, kept, os.SEEK_SET)
        except OSError as error:
            return _Done(_State.SAME, error=error)
        return _Done(state, lines_kept=lines, bytes_kept=kept)
    return _Done(state, *_write(descriptor, data))


def _state_of(descriptor: int, path: Path, size: int) -> _State:
    try:
        held = os.fstat(descriptor)
        if not stat.S_ISREG(held.st_mode):
            return _State.SAME
        there = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _State.REMOVED
    except OSError:
        return _State.SAME  # what is wrong shows when it is written
    if not os.path.samestat(held, there):
        if stat.S_ISREG(there.st_mode) and there.st_size == 0:
            return _State.REMOVED  # as logrotate leaves it: a new, empty file
        # Some network file systems give a file a new inode number; size and time still agree then.
        same = (held.st_size, held.st_mtime_ns) == (there.st_size, there.st_mtime_ns)
        return _State.SAME if same else _State.REPLACED
    return _State.CUT if held.st_size < size else _State.SAME


def _write_again(descriptor: int, path: Path, size: int) -> int:
    """A new file at the path with what the removed one holds. Raises OSError and leaves nothing when it cannot be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    again = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    if os.fstat(again).st_size:
        os.close(again)
        raise FileExistsError(errno.EEXIST, "another file has its name")
    if not _copy(descriptor, again, size):
        os.close(again)
        path.unlink(missing_ok=True)
        raise OSError(errno.ENOSPC, "the disk has no space for its content")
    return again


def _copy(source: int, target: int, size: int) -> bool:
    """Copy ``size`` bytes to the start of the target. Returns False when some cannot be copied."""
    place = 0
    try:
        while place < size:
            piece = os.pread(source, min(_AT_A_TIME, size - place), place)
            if not piece or os.pwrite(target, piece, place) < len(piece):
                return False
            place += len(piece)
        os.lseek(target, size, os.SEEK_SET)
    except OSError:
        return False
    return True


def _whole_lines(descriptor: int) -> tuple[int, int]:
    """The whole lines of a file: how many there are, and how long they are together."""
    lines = kept = place = 0
    while piece := os.pread(descriptor, _AT_A_TIME, place):
        lines += piece.count(b"\n")
        if (end := piece.rfind(b"\n")) >= 0:
            kept = place + end + 1
        place += len(piece)
    return lines, kept


def _write(descriptor: int, data: bytes) -> tuple[int, OSError | None]:
    """Write everything, or as much as the disk takes."""
    view, done = memoryview(data), 0
    try:
        while done < len(view):
            done += os.write(descriptor, view[done:])
    except OSError as error:
        return done, error
    return done, None


def _whole(batch: list[bytes], written: int) -> tuple[int, int]:
    """How many lines of the batch are complete within ``written`` bytes, and their length in bytes."""
    size = 0
    for count, line in enumerate(batch):
        if size + len(line) > written:
            return count, size
        size += len(line)
    return len(batch), size
